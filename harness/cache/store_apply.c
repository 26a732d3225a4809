/* Owns the carrying out of plans: keeping, dropping, truncating (encoding is in store_seal.c, adding
 * up in store_add.c). Must not know why. */
#include "cache/store.h"

#include "cache/store_internal.h"

#include <string.h>

/* ---- dropping rows of one segment ---- */

/* Moves rows of a segment that is ours so that only picks[0..n) (indices within it) remain. */
static void squeeze(struct kvg_store *s, struct kvg_seg *g, size_t col, const uint32_t *picks,
                    size_t n)
{
    size_t rb = kvg_store_row_bytes(s, col, g->codec), moved = 0;
    size_t gap = 0;
    while (gap < n && picks[gap] == gap)
        gap++;
    size_t hole = n ? g->n - n : 0, tail = n - gap;
    unsigned char *base = kvg_seg_data(g, rb);
    /* one hole near the front: shifting the few rows before it is cheaper than all behind it */
    if (gap < tail && picks[n - 1] == g->n - 1u && picks[gap] == gap + hole) {
        memmove(base + hole * rb, base, gap * rb);
        g->off = (uint16_t)(g->off + hole);
        moved = gap;
    } else {
        for (size_t i = gap; i < n; i++)
            memmove(base + i * rb, base + picks[i] * rb, rb);
        moved = tail;
        g->b->written = (uint16_t)(g->off + n);
    }
    g->n = (uint16_t)n;
    s->count.bytes_written += moved * rb;
    if (kvg_store_is_kv(col))
        s->count.n_moved += moved;
}

/* The same for a shared block: the remaining rows go to a block of our own. */
static void copy_rows(struct kvg_store *s, struct kvg_seg *g, size_t col, const uint32_t *picks,
                      size_t n)
{
    size_t rb = kvg_store_row_bytes(s, col, g->codec);
    struct kvg_block *b = kvg_store_get_block(s, col, g->codec);
    for (size_t i = 0; i < n; i++)
        memcpy(b->data + i * rb, kvg_seg_data(g, rb) + picks[i] * rb, rb);
    b->written = (uint16_t)n;
    kvg_heap_put(s->heap, g->b);
    g->b = b;
    g->off = 0;
    g->n = (uint16_t)n;
    s->count.bytes_written += n * rb;
    if (kvg_store_is_kv(col))
        s->count.n_moved += n;
}

/* Opens an encoded segment: picks of it go to the end of the list as exact rows. */
static void open_seg(struct kvg_store *s, size_t head, struct kvg_list *l, const struct kvg_seg *g,
                     size_t col, const uint32_t *picks, size_t n)
{
    const struct kvg_codec *c = &s->codecs[g->codec];
    size_t d = s->cfg.d_head, rb = d * sizeof(float);
    const void *src = kvg_seg_data(g, kvg_store_row_bytes(s, col, g->codec));
    c->decode(c, s->cfg.kernels, head, src, g->n, d, s->tile);
    for (size_t i = 0; i < n; i++)
        memmove(s->tile + i * d, s->tile + picks[i] * d, rb);
    s->count.n_decoded += g->n;
    kvg_store_push(s, l, NULL, col, 0, s->tile, rb, n);
    kvg_heap_put(s->heap, g->b);
}

/* Makes a list of positions use the blocks of its twin where they agree. */
static int share_positions(struct kvg_store *s, struct kvg_list *l, const struct kvg_list *twin,
                           const int32_t *pos, size_t n)
{
    size_t i = l->n_segs;
    if (!twin || twin == l || i >= twin->n_segs)
        return 0;
    const struct kvg_seg *t = &twin->segs[i];
    if (t->n != n || memcmp(kvg_seg_data(t, sizeof *pos), pos, n * sizeof *pos))
        return 0;
    t->b->refs++;
    l->segs[l->n_segs++] = *t;
    (void)s;
    return 1;
}

static int reshare(struct kvg_store *s, size_t head, struct kvg_list *l, const struct kvg_seg *g,
                   const uint32_t *picks, size_t n)
{
    int32_t pos[KVG_TILE_SLOTS];
    const int32_t *from = (const int32_t *)(const void *)kvg_seg_data(g, sizeof *from);
    for (size_t i = 0; i < n; i++)
        pos[i] = from[picks[i]];
    size_t layer_first = head - head % s->cfg.n_kv_heads;
    return share_positions(s, l, head ? &s->heads[0].cols[KVG_COL_POS] : NULL, pos, n) ||
           share_positions(
               s, l, head > layer_first ? &s->heads[layer_first].cols[KVG_COL_POS] : NULL, pos, n);
}

/* Keeps rows keep[0..n) (ascending slots) of one column. A group that loses rows is opened, and all
 * that is encoded behind it too: exact rows are always the last ones of a list, so that they lie
 * dense and the next seal takes them in order. */
static void keep_column(struct kvg_store *s, size_t head, size_t col, const uint32_t *keep,
                        size_t n)
{
    struct kvg_list *l = &s->heads[head].cols[col];
    uint32_t n_old = l->n_segs, picks[KVG_TILE_SLOTS];
    size_t first = 0, at = 0;
    int broken = 0;
    memcpy(s->spare, l->segs, n_old * sizeof *s->spare);
    l->n_segs = 0;
    for (uint32_t i = 0; i < n_old; i++) {
        struct kvg_seg g = s->spare[i];
        size_t m = 0;
        for (; at < n && keep[at] < first + g.n; at++)
            picks[m++] = (uint32_t)(keep[at] - first);
        first += g.n;
        if (m == 0) {
            kvg_heap_put(s->heap, g.b);
            continue;
        }
        broken |= m < g.n && kvg_store_is_group(s, col, g.codec);
        if (broken && g.codec) {
            open_seg(s, head, l, &g, col, picks, m);
            continue;
        }
        if (m < g.n && col == KVG_COL_POS && reshare(s, head, l, &g, picks, m)) {
            kvg_heap_put(s->heap, g.b);
            continue;
        }
        if (m < g.n && g.b->refs > 1)
            copy_rows(s, &g, col, picks, m);
        else if (m < g.n)
            squeeze(s, &g, col, picks, m);
        l->segs[l->n_segs++] = g;
    }
}

/* ---- keep and drop ---- */

/* How many of keep[*at..) lie in the n slots from `first` on; moves *at behind them. */
static size_t wanted_in(const uint32_t *keep, size_t n_keep, size_t *at, size_t first, size_t n)
{
    size_t begin = *at;
    while (*at < n_keep && keep[*at] < first + n)
        (*at)++;
    return *at - begin;
}

/* Marks the groups of a list that stay in s->spare[i].n: those with the most wanted slots first
 * (the earlier one among equals), none of which fewer than half are wanted, and no more slots than
 * were asked for. */
static void choose_groups(struct kvg_store *s, const struct kvg_list *l, const uint32_t *keep,
                          size_t n)
{
    size_t at = 0, first = 0, room = n, most = 0;
    for (uint32_t i = 0; i < l->n_segs; first += l->segs[i].n, i++) {
        size_t wanted = wanted_in(keep, n, &at, first, l->segs[i].n);
        int whole = kvg_store_is_group(s, KVG_COL_K, l->segs[i].codec);
        s->spare[i] = (struct kvg_seg){.off = (uint16_t)(whole ? wanted : 0)};
        room -= whole ? 0 : wanted;
        most = whole && wanted > most ? wanted : most;
    }
    for (size_t wanted = most; wanted > 0; wanted--)
        for (uint32_t i = 0; i < l->n_segs; i++)
            if (s->spare[i].off == wanted && 2 * wanted >= l->segs[i].n && l->segs[i].n <= room) {
                s->spare[i].n = 1;
                room -= l->segs[i].n;
            }
}

/* With whole groups, a sealed group is kept or dropped as one. */
static size_t round_to_groups(struct kvg_store *s, size_t head, uint32_t *keep, size_t n)
{
    const struct kvg_list *l = &s->heads[head].cols[KVG_COL_K];
    size_t out = 0, at = 0, first = 0;
    uint32_t *copy = s->picks;
    choose_groups(s, l, keep, n);
    for (uint32_t i = 0; i < l->n_segs; first += l->segs[i].n, i++) {
        size_t begin = at, wanted = wanted_in(keep, n, &at, first, l->segs[i].n);
        int whole = kvg_store_is_group(s, KVG_COL_K, l->segs[i].codec);
        for (uint32_t j = 0; whole && s->spare[i].n && j < l->segs[i].n; j++)
            copy[out++] = (uint32_t)(first + j);
        for (size_t j = 0; !whole && j < wanted; j++)
            copy[out++] = keep[begin + j];
    }
    memcpy(keep, copy, out * sizeof *keep);
    return out;
}

static void keep_head(struct kvg_store *s, size_t head, const uint32_t *keep, size_t n)
{
    size_t same = 0;
    while (same < n && keep[same] == same)
        same++;
    kvg_store_cut_pages(s, head, same);
    for (size_t c = 0; c < kvg_store_cols(s); c++)
        if (!kvg_store_is_paged(s, c))
            keep_column(s, head, c, keep, n);
    s->heads[head].n_slots = (uint32_t)n;
    for (size_t c = 0; c < kvg_store_cols(s); c++)
        kvg_store_merge(s, head, c, 0);
}

/* Turns KEEP and DROP into the list of slots that stay, in the plan's own room. */
static void apply_keep(struct kvg_store *s, struct kvg_plan *plan, const struct kvg_plan_op *op)
{
    size_t head = op->layer * s->cfg.n_kv_heads + op->head, total = s->heads[head].n_slots, n = 0;
    uint32_t *keep = kvg_plan_slots(plan, total);
    if (op->kind == KVG_PLAN_KEEP) {
        memcpy(keep, op->slots, op->n_slots * sizeof *keep);
        n = op->n_slots;
    } else {
        for (uint32_t i = 0, j = 0; i < total; i++) {
            if (j < op->n_slots && op->slots[j] == i)
                j++;
            else
                keep[n++] = i;
        }
    }
    if (op->whole_groups)
        n = round_to_groups(s, head, keep, n);
    s->count.n_evicted += total - n;
    if (n < total)
        keep_head(s, head, keep, n);
    plan->n_slots -= total;
}

int kvg_store_apply(struct kvg_store *s, struct kvg_plan *plan, struct kvg_err *err)
{
    int rc = plan->failed
                 ? KVG_FAIL(err, KVG_ECHECK, "plan: more operations or slots than were reserved")
                 : 0;
    if (!rc)
        rc = kvg_store_check_plan(s, plan, err);
    for (size_t i = 0; i < plan->n_ops && !rc; i++) {
        if (plan->ops[i].kind == KVG_PLAN_SEAL)
            kvg_store_seal(s, &plan->ops[i]);
        else if (plan->ops[i].kind == KVG_PLAN_MERGE)
            kvg_store_add_up(s, &plan->ops[i]);
        else
            apply_keep(s, plan, &plan->ops[i]);
    }
    kvg_plan_clear(plan);
    return rc;
}

void kvg_store_truncate(struct kvg_store *s, int32_t pos)
{
    for (size_t l = 0; l < s->cfg.n_layers; l++) {
        for (size_t h = 0; h < s->cfg.n_kv_heads; h++) {
            struct kvg_head *hd = kvg_store_head(s, l, h);
            int32_t *p = (int32_t *)(void *)s->picks;
            kvg_store_positions(s, l, h, p);
            size_t n = hd->n_slots;
            while (n > 0 && p[n - 1] >= pos)
                n--;
            if (n == hd->n_slots)
                continue;
            for (size_t i = 0; i < n; i++)
                s->picks[i] = (uint32_t)i;
            keep_head(s, l * s->cfg.n_kv_heads + h, s->picks, n);
        }
    }
}
