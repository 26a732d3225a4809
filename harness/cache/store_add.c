/* Owns merging: a weighted V row is added to others, in whatever form they lie. Must not know why.
 */
#include "cache/store_internal.h"

#include <string.h>

struct sum {
    size_t head;
    float weight;
    const float *row; /* [d_head] what is added */
};

static void add_row(const struct kvg_store *s, const struct sum *a, float *to)
{
    for (size_t i = 0; i < s->cfg.d_head; i++)
        to[i] += a->weight * a->row[i];
}

static const unsigned char *data_of(const struct kvg_store *s, const struct kvg_seg *g)
{
    return kvg_seg_data(g, kvg_store_row_bytes(s, KVG_COL_V, g->codec));
}

/* Decodes rows [i, i + n) of a segment, all of it when it is a group, to s->tile; the first of
 * them. */
static float *decode(struct kvg_store *s, size_t head, const struct kvg_seg *g, size_t i, size_t n)
{
    const struct kvg_codec *c = &s->codecs[g->codec];
    size_t d = s->cfg.d_head, from = c->group > 1 ? 0 : i, m = c->group > 1 ? g->n : n;
    c->decode(c, s->cfg.kernels, head,
              data_of(s, g) + from * kvg_store_row_bytes(s, KVG_COL_V, g->codec), m, d, s->tile);
    s->count.n_decoded += g->codec ? m : 0;
    return s->tile + (i - from) * d;
}

/* Rows that lie one by one, exact or encoded. */
static void add_to_rows(struct kvg_store *s, const struct sum *a, struct kvg_seg *g,
                        const uint32_t *picks, size_t n)
{
    const struct kvg_codec *c = &s->codecs[g->codec];
    size_t rb = kvg_store_row_bytes(s, KVG_COL_V, g->codec);
    const struct kvg_place at = {.head = a->head};
    if (g->b->refs > 1)
        kvg_store_unshare(s, g, KVG_COL_V);
    for (size_t i = 0; i < n; i++) {
        float *row = decode(s, a->head, g, picks[i], 1);
        add_row(s, a, row);
        c->encode(c, s->cfg.kernels, &at, row, 1, s->cfg.d_head,
                  kvg_seg_data(g, rb) + picks[i] * rb);
    }
    s->count.n_encoded += g->codec ? n : 0;
    s->count.bytes_written += n * rb;
}

/* A group is decoded, and encoded again in the channels it has. */
static void add_to_group(struct kvg_store *s, const struct sum *a, struct kvg_seg *g,
                         const uint32_t *picks, size_t n)
{
    const struct kvg_codec *c = &s->codecs[g->codec];
    size_t d = s->cfg.d_head;
    uint32_t channels[KVG_ROW_FLOATS_MAX / 32];
    const struct kvg_place at = {a->head, c->masked ? channels : NULL};
    if (c->masked)
        memcpy(channels, kvg_codec_mask(g->b->data), kvg_codec_mask_words(d) * sizeof *channels);
    float *rows = decode(s, a->head, g, 0, g->n);
    for (size_t i = 0; i < n; i++)
        add_row(s, a, rows + picks[i] * d);
    if (g->b->refs > 1) {
        struct kvg_block *b = kvg_store_get_block(s, KVG_COL_V, g->codec);
        b->written = g->n;
        kvg_heap_put(s->heap, g->b);
        g->b = b;
    }
    c->encode(c, s->cfg.kernels, &at, rows, g->n, d, g->b->data);
    s->count.n_encoded += g->n;
    s->count.bytes_written += kvg_codec_total_bytes(c, g->n, d);
}

void kvg_store_add_up(struct kvg_store *s, const struct kvg_plan_op *op)
{
    size_t head = op->layer * s->cfg.n_kv_heads + op->head, first = 0;
    const struct kvg_list *l = &s->heads[head].cols[KVG_COL_V];
    float row[KVG_ROW_FLOATS_MAX];
    const struct sum a = {head, op->weight, row};
    uint32_t picks[KVG_TILE_SLOTS], at = 0, seg = 0;
    for (; op->from >= first + l->segs[seg].n; seg++)
        first += l->segs[seg].n;
    memcpy(row, decode(s, head, &l->segs[seg], op->from - first, 1), s->cfg.d_head * sizeof *row);
    first = 0;
    for (uint32_t i = 0; i < l->n_segs && at < op->n_slots; i++) {
        size_t n = 0, end = first + l->segs[i].n;
        for (; at < op->n_slots && op->slots[at] < end; at++)
            picks[n++] = (uint32_t)(op->slots[at] - first);
        if (n && s->codecs[l->segs[i].codec].group > 1)
            add_to_group(s, &a, &l->segs[i], picks, n);
        else if (n)
            add_to_rows(s, &a, &l->segs[i], picks, n);
        first = end;
    }
}
