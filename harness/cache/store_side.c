/* Owns the side columns: values per slot, and rows per page of slots. Must not know what strategies
 * keep in them. */
#include "cache/store_internal.h"

#include <string.h>

void kvg_store_side_get(const struct kvg_store *s, size_t layer, size_t head, size_t i, float *out)
{
    const struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[KVG_COL_SIDE + i];
    size_t w = s->cfg.side_floats[i];
    for (uint32_t k = 0; k < l->n_segs; k++) {
        memcpy(out, kvg_seg_data(&l->segs[k], w * sizeof *out), l->segs[k].n * w * sizeof *out);
        out += l->segs[k].n * w;
    }
}

void kvg_store_side_put(struct kvg_store *s, size_t layer, size_t head, size_t i, const float *in)
{
    struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[KVG_COL_SIDE + i];
    size_t w = s->cfg.side_floats[i];
    for (uint32_t k = 0; k < l->n_segs; k++) {
        if (l->segs[k].b->refs > 1)
            kvg_store_unshare(s, &l->segs[k], KVG_COL_SIDE + i);
        memcpy(kvg_seg_data(&l->segs[k], w * sizeof *in), in, l->segs[k].n * w * sizeof *in);
        in += l->segs[k].n * w;
        s->count.bytes_written += l->segs[k].n * w * sizeof *in;
    }
}

/* ---- pages ---- */

size_t kvg_store_page_rows(const struct kvg_store *s, size_t layer, size_t head, size_t i)
{
    const struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[KVG_COL_SIDE + i];
    if (!l->n_segs) /* all blocks but the last are full: nothing goes but from the end */
        return 0;
    return (l->n_segs - 1) * kvg_store_block_slots(s, KVG_COL_SIDE + i, 0) +
           l->segs[l->n_segs - 1].n;
}

const float *kvg_store_page(const struct kvg_store *s, size_t layer, size_t head, size_t i,
                            size_t row)
{
    const struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[KVG_COL_SIDE + i];
    size_t cap = kvg_store_block_slots(s, KVG_COL_SIDE + i, 0), rb = s->cfg.side_floats[i] * 4;
    return (const float *)(const void *)(l->segs[row / cap].b->data + row % cap * rb);
}

void kvg_store_page_push(struct kvg_store *s, size_t layer, size_t head, size_t i, const float *in)
{
    kvg_store_push(s, &kvg_store_head(s, layer, head)->cols[KVG_COL_SIDE + i], NULL,
                   KVG_COL_SIDE + i, 0, in, 0, 1);
}

void kvg_store_cut_pages(struct kvg_store *s, size_t head, size_t first_lost)
{
    for (size_t c = KVG_COL_SIDE; c < kvg_store_cols(s); c++) {
        if (!kvg_store_is_paged(s, c))
            continue;
        struct kvg_list *l = &s->heads[head].cols[c];
        size_t left = first_lost / s->cfg.side_page[c - KVG_COL_SIDE];
        uint32_t n_old = l->n_segs;
        l->n_segs = 0;
        for (uint32_t i = 0; i < n_old; i++) {
            struct kvg_seg *g = &l->segs[i];
            g->n = (uint16_t)(g->n < left ? g->n : left);
            left -= g->n;
            if (g->n)
                l->n_segs = i + 1;
            else
                kvg_heap_put(s->heap, g->b);
        }
    }
}
