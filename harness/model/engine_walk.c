/* Owns the way over the slots of one head, as attention takes it: all of them or the named ones, in
 * the form in which they lie. Sums and scores do not depend on how rows are spread over blocks.
 * Must not know queries' positions nor why a slot is read. */
#include "model/engine_internal.h"

#include <string.h>

/* Where in a column the walk is. `decoded` is 1 + the segment whose rows lie in the spare tile. */
struct cursor {
    uint32_t seg, decoded;
    size_t first; /* slot of the segment's first row */
};

static const struct kvg_head *head_of(const struct kvg_walk *w)
{
    return kvg_store_head(w->s->store, w->layer, w->head);
}

struct kvg_walk kvg_walk_of(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                            size_t head)
{
    return (struct kvg_walk){.e = e,
                             .s = s,
                             .layer = layer,
                             .head = head,
                             .n = kvg_store_head(s->store, layer, head)->n_slots};
}

/* From the walk's i-th slot on, how many follow one another in one segment, at most to `to`; *row
 * is the first one's row in the segment the cursor then stands on. */
static size_t next_run(const struct kvg_walk *w, const struct kvg_list *l, struct cursor *c,
                       size_t i, size_t to, size_t *row)
{
    size_t slot = w->named ? w->named[i] : i, n = 1;
    while (slot >= c->first + l->segs[c->seg].n)
        c->first += l->segs[c->seg++].n;
    *row = slot - c->first;
    size_t most = l->segs[c->seg].n - *row < to - i ? l->segs[c->seg].n - *row : to - i;
    if (!w->named)
        return most;
    while (n < most && w->named[i + n] == slot + n)
        n++;
    return n;
}

static void rotate_rows(const struct kvg_walk *w, size_t slot, size_t n, float *rows)
{
    const struct kvg_model *m = w->e->cfg.model;
    size_t d = m->d_head, half = d / 2;
    int by_slot = w->s->pipe->position == KVG_POSITION_SLOT;
    int32_t pos[KVG_TILE_SLOTS];
    if (!by_slot)
        kvg_store_positions_range(w->s->store, w->layer, w->head, slot, n, pos);
    for (size_t i = 0; i < n; i++) {
        size_t p = by_slot ? slot + i : (size_t)pos[i];
        w->e->kern->rope(rows + i * d, m->rope_cos + p * half, m->rope_sin + p * half, d);
    }
}

/* Rows [row, row + n) of the cursor's segment as f32, ready for products: in place when they are
 * exact and rotated, else in `tile`, or in the spare tile for codecs that decode whole groups. */
static const float *run_rows(const struct kvg_walk *w, enum kvg_col col, struct cursor *at,
                             size_t row, size_t n, float *tile, float *spare)
{
    const struct kvg_store *st = w->s->store;
    size_t d = st->cfg.d_head, head = (size_t)(head_of(w) - st->heads);
    const struct kvg_seg *g = &head_of(w)->cols[col].segs[at->seg];
    const struct kvg_codec *c = &st->codecs[g->codec];
    const float *rows = tile;
    if (g->codec == 0) {
        rows = (const float *)(const void *)g->b->data + (g->off + row) * d;
    } else if (c->group <= 1) {
        const unsigned char *src = g->b->data + (g->off + row) * kvg_codec_total_bytes(c, 1, d);
        c->decode(c, w->e->kern, head, src, n, d, tile);
    } else {
        if (at->decoded != at->seg + 1)
            c->decode(c, w->e->kern, head, g->b->data, g->n, d, spare);
        at->decoded = at->seg + 1;
        rows = spare + row * d;
    }
    if (col == KVG_COL_K && st->cfg.raw_keys) {
        if (rows != tile)
            memcpy(tile, rows, n * d * sizeof *tile);
        rotate_rows(w, at->first + row, n, tile);
        return tile;
    }
    return rows;
}

/* Whether the kernels read a segment's rows as they lie. */
static int is_direct(const struct kvg_walk *w, enum kvg_col col, const struct kvg_seg *g)
{
    const struct kvg_store *st = w->s->store;
    const struct kvg_codec *c = &st->codecs[g->codec];
    if (c->type < 0 || c->hadamard)
        return 0;
    return col == KVG_COL_K ? !st->cfg.raw_keys : !c->interleaved;
}

static const unsigned char *packed_rows(const struct kvg_seg *g, size_t row, size_t row_bytes)
{
    return g->b->data + (g->off + row) * row_bytes;
}

void kvg_walk_score(const struct kvg_walk *w, size_t from, size_t to, const float *q, size_t n_q,
                    const struct kvg_room *r, float *scores, size_t ld)
{
    const struct kvg_store *st = w->s->store;
    const struct kvg_list *l = &head_of(w)->cols[KVG_COL_K];
    const struct kvg_kernels *kern = w->e->kern;
    size_t d = st->cfg.d_head, n, row;
    struct cursor at = {0};
    int turned = 0;
    for (size_t i = from; i < to; i += n) {
        n = next_run(w, l, &at, i, to, &row);
        const struct kvg_seg *g = &l->segs[at.seg];
        const struct kvg_codec *c = &st->codecs[g->codec];
        if (!is_direct(w, KVG_COL_K, g)) {
            const float *k = run_rows(w, KVG_COL_K, &at, row, n, r->tile, r->spare);
            kern->attn_dot[KVG_F32](k, d * sizeof *k, n, d, q, n_q, scores + i, ld);
            continue;
        }
        for (size_t j = 0; c->interleaved && !turned && j < n_q; j++)
            kvg_codec_interleave(q + j * d, r->turned + j * d, d);
        turned |= c->interleaved;
        size_t rb = kvg_type_row_bytes((enum kvg_type)c->type, d);
        kern->attn_dot[c->type](packed_rows(g, row, rb), rb, n, d, c->interleaved ? r->turned : q,
                                n_q, scores + i, ld);
    }
}

void kvg_walk_sum(const struct kvg_walk *w, size_t from, size_t to, const float *p, size_t ld,
                  size_t n_q, const struct kvg_room *r, float *o)
{
    const struct kvg_store *st = w->s->store;
    const struct kvg_list *l = &head_of(w)->cols[KVG_COL_V];
    size_t d = st->cfg.d_head, n, row;
    struct cursor at = {0};
    for (size_t i = from; i < to; i += n) {
        n = next_run(w, l, &at, i, to, &row);
        const struct kvg_seg *g = &l->segs[at.seg];
        enum kvg_type t = KVG_F32;
        const void *v;
        if (is_direct(w, KVG_COL_V, g)) {
            t = (enum kvg_type)st->codecs[g->codec].type;
            v = packed_rows(g, row, kvg_type_row_bytes(t, d));
        } else {
            v = run_rows(w, KVG_COL_V, &at, row, n, r->tile, r->spare);
        }
        w->e->kern->attn_acc[t](v, kvg_type_row_bytes(t, d), n, d, p + i, ld, n_q, o);
    }
}

const float *kvg_walk_rows(const struct kvg_walk *w, enum kvg_col col, size_t from, size_t n,
                           const struct kvg_room *r)
{
    const struct kvg_list *l = &head_of(w)->cols[col];
    size_t d = w->s->store->cfg.d_head, run, row;
    struct cursor at = {0};
    for (size_t i = 0; i < n; i += run) {
        run = next_run(w, l, &at, from + i, from + n, &row);
        float *to = r->tile + i * d;
        const float *rows = run_rows(w, col, &at, row, run, to, r->spare);
        if (run == n)
            return rows;
        if (rows != to)
            memcpy(to, rows, run * d * sizeof *to);
    }
    return r->tile;
}

uint64_t kvg_walk_bytes(const struct kvg_walk *w, enum kvg_col col)
{
    const struct kvg_store *st = w->s->store;
    const struct kvg_list *l = &head_of(w)->cols[col];
    uint64_t bytes = 0;
    struct cursor at = {0};
    uint32_t whole = 0; /* 1 + the last group that was counted */
    for (size_t i = 0, n, row; i < w->n; i += n) {
        n = next_run(w, l, &at, i, w->n, &row);
        const struct kvg_seg *g = &l->segs[at.seg];
        const struct kvg_codec *c = &st->codecs[g->codec];
        if (c->group > 1 && whole != at.seg + 1)
            bytes += kvg_codec_total_bytes(c, g->n, st->cfg.d_head);
        else if (c->group <= 1)
            bytes += kvg_codec_total_bytes(c, n, st->cfg.d_head);
        whole = at.seg + 1;
    }
    return bytes;
}
