/* What store.c, store_apply.c and store_check.c share; nobody else includes it. */
#ifndef KVG_CACHE_STORE_INTERNAL_H
#define KVG_CACHE_STORE_INTERNAL_H

#include "cache/heap.h"
#include "cache/store.h"

static inline size_t kvg_store_cols(const struct kvg_store *s)
{
    return KVG_COL_SIDE + s->cfg.n_side;
}
static inline size_t kvg_store_heads(const struct kvg_store *s)
{
    return s->cfg.n_layers * s->cfg.n_kv_heads;
}
/* Bytes of one row of a column in its plain form (codec 0). */
size_t kvg_store_plain_row_bytes(const struct kvg_store *s, size_t col);
/* The size class of a segment's block. */
int kvg_store_class(const struct kvg_store *s, size_t col, unsigned codec);
unsigned kvg_store_block_slots(const struct kvg_store *s, size_t col, unsigned codec);
/* Bytes of one row in a row codec. */
size_t kvg_store_row_bytes(const struct kvg_store *s, size_t col, unsigned codec);
/* A fresh block; the reserve covers every legal state, so NULL is an internal error (aborts). */
struct kvg_block *kvg_store_get_block(struct kvg_store *s, size_t col, unsigned codec);
/* Appends n rows of row_bytes, `stride` bytes apart, as codec `codec` (a row codec) to a list;
 * blocks may be shared with `twin` (NULL = none) where they hold the same bytes. */
void kvg_store_push(struct kvg_store *s, struct kvg_list *l, const struct kvg_list *twin,
                    size_t col, unsigned codec, const void *rows, size_t stride, size_t n);
/* Moves rows together when too many blocks of a column would be half empty once n more rows have
 * been appended. */
void kvg_store_merge(struct kvg_store *s, size_t head, size_t col, size_t n_more);
static inline unsigned char *kvg_seg_data(const struct kvg_seg *g, size_t row_bytes)
{
    return g->b->data + g->off * row_bytes;
}

#endif
