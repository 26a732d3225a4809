/* What the files of the store share; nobody else includes it. */
#ifndef KVG_CACHE_STORE_INTERNAL_H
#define KVG_CACHE_STORE_INTERNAL_H

#include "cache/heap.h"
#include "cache/store.h"

enum { KVG_ROW_FLOATS_MAX = 512 };

static inline size_t kvg_store_cols(const struct kvg_store *s)
{
    return KVG_COL_SIDE + s->cfg.n_side;
}
static inline size_t kvg_store_heads(const struct kvg_store *s)
{
    return s->cfg.n_layers * s->cfg.n_kv_heads;
}
static inline int kvg_store_is_kv(size_t col)
{
    return col == KVG_COL_K || col == KVG_COL_V;
}
static inline int kvg_store_is_group(const struct kvg_store *s, size_t col, unsigned codec)
{
    return kvg_store_is_kv(col) && s->codecs[codec].group > 1;
}
/* Whether a column has a row per page of slots instead of one per slot. */
static inline int kvg_store_is_paged(const struct kvg_store *s, size_t col)
{
    return col >= KVG_COL_SIDE && s->cfg.side_page[col - KVG_COL_SIDE] > 1;
}
/* Bytes of one row of a column in its plain form (codec 0). */
size_t kvg_store_plain_row_bytes(const struct kvg_store *s, size_t col);
/* The size class of a segment's block. */
int kvg_store_class(const struct kvg_store *s, size_t col, unsigned codec);
/* Rows of a block: slots, or pages of a paged column. */
unsigned kvg_store_block_slots(const struct kvg_store *s, size_t col, unsigned codec);
/* Bytes of one row in a row codec. */
size_t kvg_store_row_bytes(const struct kvg_store *s, size_t col, unsigned codec);
/* A fresh block; the reserve covers every legal state, so NULL is an internal error (aborts). */
struct kvg_block *kvg_store_get_block(struct kvg_store *s, size_t col, unsigned codec);
/* Appends n rows of row_bytes, `stride` bytes apart, as codec `codec` (a row codec) to a list;
 * blocks may be shared with `twin` (NULL = none) where they hold the same bytes. */
void kvg_store_push(struct kvg_store *s, struct kvg_list *l, const struct kvg_list *twin,
                    size_t col, unsigned codec, const void *rows, size_t stride, size_t n);
/* Gives a segment (not of a group) a block of its own with its rows at the front. */
void kvg_store_unshare(struct kvg_store *s, struct kvg_seg *g, size_t col);
/* Moves rows together when too many blocks of a column would be half empty once n more rows have
 * been appended. */
void kvg_store_merge(struct kvg_store *s, size_t head, size_t col, size_t n_more);
/* The rows of a head's pages up to the first slot that was lost stay; the others go. */
void kvg_store_cut_pages(struct kvg_store *s, size_t head, size_t first_lost);

/* All operations of a plan against the store as it will be when their turn comes. */
int kvg_store_check_plan(const struct kvg_store *s, const struct kvg_plan *plan,
                         struct kvg_err *err);
void kvg_store_seal(struct kvg_store *s, const struct kvg_plan_op *op);
/* MERGE: V rows are added to others. */
void kvg_store_add_up(struct kvg_store *s, const struct kvg_plan_op *op);

static inline unsigned char *kvg_seg_data(const struct kvg_seg *g, size_t row_bytes)
{
    return g->b->data + g->off * row_bytes;
}

#endif
