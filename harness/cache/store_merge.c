/* Owns moving rows together when blocks are half empty, and sharing positions again. Must not know
 * why rows went. */
#include "cache/store_internal.h"

#include <string.h>

static int too_empty(const struct kvg_store *s, size_t col, const struct kvg_list *l, size_t n,
                     size_t n_more)
{
    size_t cap = 0, block = kvg_store_block_slots(s, col, 0), room = 0;
    for (uint32_t i = 0; i < l->n_segs; i++) {
        size_t own = kvg_store_is_group(s, col, l->segs[i].codec)
                         ? l->segs[i].n /* short ones stay as they are */
                         : kvg_store_block_slots(s, col, l->segs[i].codec);
        cap += own;
        room = l->segs[i].codec ? 0 : own - l->segs[i].off - l->segs[i].n;
    }
    if (n_more > room)
        cap += (n_more - room + block - 1) / block * block;
    return cap > n + n_more + (n + n_more) / 20 + block;
}

static void to_front(struct kvg_store *s, struct kvg_seg *g, size_t col)
{
    size_t rb = kvg_store_row_bytes(s, col, g->codec);
    memmove(g->b->data, kvg_seg_data(g, rb), g->n * rb);
    g->off = 0;
    g->b->written = g->n;
    s->count.bytes_written += g->n * rb;
    if (kvg_store_is_kv(col))
        s->count.n_moved += g->n;
}

/* Whether the positions of a are the first ones of b. */
static int begins_with(const struct kvg_list *a, const struct kvg_list *b)
{
    const size_t w = sizeof(int32_t);
    uint32_t i = 0, j = 0;
    size_t x = 0, y = 0;
    while (i < a->n_segs && j < b->n_segs) {
        const struct kvg_seg *p = &a->segs[i], *q = &b->segs[j];
        size_t n = p->n - x < q->n - y ? p->n - x : q->n - y;
        if (memcmp(kvg_seg_data(p, w) + x * w, kvg_seg_data(q, w) + y * w, n * w))
            return 0;
        x = x + n == p->n ? (i++, (size_t)0) : x + n;
        y = y + n == q->n ? (j++, (size_t)0) : y + n;
    }
    return i == a->n_segs;
}

/* A head whose positions the first head has too uses that head's blocks again. */
static int take_positions(struct kvg_store *s, size_t head)
{
    struct kvg_list *l = &s->heads[head].cols[KVG_COL_POS];
    const struct kvg_list *first = &s->heads[0].cols[KVG_COL_POS];
    if (head == 0 || !begins_with(l, first))
        return 0;
    size_t left = 0;
    for (uint32_t i = 0; i < l->n_segs; i++)
        left += l->segs[i].n;
    for (uint32_t i = 0; i < first->n_segs; i++)
        first->segs[i].b->refs++;
    for (uint32_t i = 0; i < l->n_segs; i++)
        kvg_heap_put(s->heap, l->segs[i].b);
    l->n_segs = 0;
    for (uint32_t i = 0; i < first->n_segs; i++) {
        struct kvg_seg g = first->segs[i];
        g.n = (uint16_t)(g.n < left ? g.n : left);
        left -= g.n;
        if (g.n)
            l->segs[l->n_segs++] = g;
        else
            kvg_heap_put(s->heap, g.b);
    }
    return 1;
}

void kvg_store_merge(struct kvg_store *s, size_t head, size_t col, size_t n_more)
{
    struct kvg_list *l = &s->heads[head].cols[col];
    const struct kvg_seg *tail = l->n_segs ? &l->segs[l->n_segs - 1] : NULL;
    size_t block = kvg_store_block_slots(s, col, 0);
    if (kvg_store_is_paged(s, col) ||
        (n_more && (!tail || (!tail->codec && tail->off + tail->n + n_more <= block))))
        return; /* appending fills blocks only */
    if (!too_empty(s, col, l, s->heads[head].n_slots, n_more) ||
        (col == KVG_COL_POS && take_positions(s, head)))
        return;
    uint32_t n_old = l->n_segs;
    memcpy(s->spare, l->segs, n_old * sizeof *s->spare);
    l->n_segs = 0;
    for (uint32_t i = 0; i < n_old; i++) {
        struct kvg_seg g = s->spare[i];
        size_t cap = kvg_store_block_slots(s, col, g.codec);
        if (g.off > 0 && g.b->refs == 1)
            to_front(s, &g, col);
        struct kvg_seg *last = l->n_segs ? &l->segs[l->n_segs - 1] : NULL;
        if (kvg_store_is_group(s, col, g.codec) || !last || last->codec != g.codec ||
            last->off + last->n >= (int)cap) {
            l->segs[l->n_segs++] = g;
            continue;
        }
        size_t rb = kvg_store_row_bytes(s, col, g.codec);
        kvg_store_push(s, l, NULL, col, g.codec, kvg_seg_data(&g, rb), rb, g.n);
        if (kvg_store_is_kv(col))
            s->count.n_moved += g.n;
        kvg_heap_put(s->heap, g.b);
    }
}
