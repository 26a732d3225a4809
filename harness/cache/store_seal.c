/* Owns the encoding of rows: sealing exact ones, and decoding a whole list to encode it anew. At
 * most 64 decoded rows exist at any time. Must not know why. */
#include "cache/store_internal.h"

#include <string.h>

/* Reads a list's old segments row by row and gives their blocks back once read. */
struct reader {
    const struct kvg_seg *segs;
    uint32_t n_segs, seg;
    size_t row, head, col; /* row within segs[seg] */
    const float *rows;     /* of segs[seg]; NULL = not looked at yet */
};

static const float *rows_of(struct kvg_store *s, struct reader *r)
{
    const struct kvg_seg *g = &r->segs[r->seg];
    const struct kvg_codec *c = &s->codecs[g->codec];
    const void *src = kvg_seg_data(g, kvg_store_row_bytes(s, r->col, g->codec));
    float *decoded = s->tile + KVG_TILE_SLOTS * s->cfg.d_head;
    if (!r->rows && g->codec) {
        c->decode(c, s->cfg.kernels, r->head, src, g->n, s->cfg.d_head, decoded);
        s->count.n_decoded += g->n;
    }
    if (!r->rows)
        r->rows = g->codec ? decoded : src;
    return r->rows;
}

static void next_seg(struct kvg_store *s, struct reader *r)
{
    kvg_heap_put(s->heap, r->segs[r->seg++].b);
    r->row = 0;
    r->rows = NULL;
}

/* Copies the next n rows to out. */
static void take_rows(struct kvg_store *s, struct reader *r, size_t n, float *out)
{
    size_t d = s->cfg.d_head;
    while (n > 0) {
        size_t left = r->segs[r->seg].n - r->row, m = left < n ? left : n;
        memcpy(out, rows_of(s, r) + r->row * d, m * d * sizeof *out);
        out += m * d;
        n -= m;
        r->row += m;
        if (m == left)
            next_seg(s, r);
    }
}

/* What was not taken goes back: exact segments as they are, encoded ones as exact rows, because
 * exact rows are always the last ones of a list. */
static void put_back(struct kvg_store *s, struct reader *r, struct kvg_list *l)
{
    size_t d = s->cfg.d_head;
    while (r->seg < r->n_segs) {
        struct kvg_seg g = r->segs[r->seg];
        if (g.codec) {
            kvg_store_push(s, l, NULL, r->col, 0, rows_of(s, r) + r->row * d, d * sizeof(float),
                           g.n - r->row);
            next_seg(s, r);
            continue;
        }
        g.off = (uint16_t)(g.off + r->row);
        g.n = (uint16_t)(g.n - r->row);
        l->segs[l->n_segs++] = g;
        r->seg++;
        r->row = 0;
        r->rows = NULL;
    }
}

/* Index of the first exact segment and its slot. */
static uint32_t exact_from(const struct kvg_list *l, size_t total, size_t *slot)
{
    uint32_t first = l->n_segs;
    *slot = total;
    while (first > 0 && l->segs[first - 1].codec == 0)
        *slot -= l->segs[--first].n;
    return first;
}

/* Encodes n rows of s->tile to the end of a list. */
static void push_encoded(struct kvg_store *s, const struct kvg_place *at, struct kvg_list *l,
                         size_t col, unsigned codec, size_t n)
{
    const struct kvg_codec *c = &s->codecs[codec];
    s->count.n_encoded += n;
    if (c->group > 1) {
        struct kvg_block *b = kvg_store_get_block(s, col, codec);
        c->encode(c, s->cfg.kernels, at, s->tile, n, s->cfg.d_head, b->data);
        b->written = (uint16_t)n;
        l->segs[l->n_segs++] = (struct kvg_seg){.b = b, .n = (uint16_t)n, .codec = (uint8_t)codec};
        s->count.bytes_written += kvg_codec_total_bytes(c, n, s->cfg.d_head);
        return;
    }
    unsigned char rows[KVG_TILE_SLOTS * KVG_ROW_FLOATS_MAX * sizeof(float)];
    c->encode(c, s->cfg.kernels, at, s->tile, n, s->cfg.d_head, rows);
    kvg_store_push(s, l, NULL, col, codec, rows, kvg_store_row_bytes(s, col, codec), n);
}

void kvg_store_seal(struct kvg_store *s, const struct kvg_plan_op *op)
{
    size_t head = op->layer * s->cfg.n_kv_heads + op->head, slot;
    const struct kvg_place at = {head, op->channels};
    const struct kvg_codec *c = &s->codecs[op->codec];
    struct kvg_list *l = &s->heads[head].cols[op->col];
    uint32_t first = exact_from(l, s->heads[head].n_slots, &slot);
    if (op->again)
        first = 0, slot = 0;
    size_t n = op->upto > slot ? op->upto - slot : 0;
    n = c->partial ? n : n / c->group * c->group;
    if (n == 0)
        return;
    struct reader r = {.segs = s->spare, .n_segs = l->n_segs - first, .head = head, .col = op->col};
    memcpy(s->spare, l->segs + first, r.n_segs * sizeof *s->spare);
    l->n_segs = first;
    size_t step = c->group > 1 ? c->group : KVG_TILE_SLOTS;
    size_t m = op->first_group ? op->first_group : step;
    for (size_t done = 0; done < n; done += m, m = step) {
        m = n - done < m ? n - done : m;
        take_rows(s, &r, m, s->tile);
        push_encoded(s, &at, l, op->col, op->codec, m);
    }
    put_back(s, &r, l);
    kvg_store_merge(s, head, op->col, 0);
}
