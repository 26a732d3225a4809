/* A plan: what a strategy asks the store to do. Strategies build it with these calls; the store
 * carries the operations out in the order given. Memory is reserved once per cell, so building a
 * plan never allocates; a plan that outgrows its room is marked `failed` and refused whole. */
#ifndef KVG_CACHE_PLAN_H
#define KVG_CACHE_PLAN_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_plan_kind {
    KVG_PLAN_KEEP,     /* only `slots` of (layer, head) stay */
    KVG_PLAN_DROP,     /* `slots` of (layer, head) go */
    KVG_PLAN_SEAL,     /* exact rows of column `col` below slot `upto` are encoded with `codec` */
    KVG_PLAN_ROTATE,   /* kept keys get contiguous rotary positions 0, 1, 2, ... */
    KVG_PLAN_READ,     /* the next attention of (layer, head) reads only `slots` */
    KVG_PLAN_MERGE,    /* add weighted rows of `slots` into another slot (CaM) */
    KVG_PLAN_CHANNELS, /* drop channels of K (ThinK) */
    KVG_PLAN_SHARE,    /* take blocks from another store (prefix reuse) */
    KVG_PLAN_TIER      /* move blocks to another tier */
};

struct kvg_plan_op {
    enum kvg_plan_kind kind;
    uint16_t layer, head;
    uint8_t col;           /* SEAL: KVG_COL_K or KVG_COL_V */
    uint8_t codec;         /* SEAL: index in the store */
    uint8_t whole_groups;  /* KEEP, DROP: sealed groups go or stay whole instead of being opened */
    uint32_t upto;         /* SEAL */
    const uint32_t *slots; /* KEEP, DROP, READ: ascending, no duplicates */
    uint32_t n_slots;
};

struct kvg_plan {
    struct kvg_plan_op *ops;
    size_t n_ops, cap_ops;
    uint32_t *slots; /* room for slot lists */
    size_t n_slots, cap_slots;
    int failed;
};

int kvg_plan_init(struct kvg_plan *p, size_t cap_ops, size_t cap_slots, struct kvg_err *err);
void kvg_plan_release(struct kvg_plan *p);
void kvg_plan_clear(struct kvg_plan *p);

/* Room for n slots to be filled by the caller before the operation is added; NULL when full. */
uint32_t *kvg_plan_slots(struct kvg_plan *p, size_t n);
/* `slots` came from kvg_plan_slots. kind is KEEP, DROP or READ. */
void kvg_plan_list(struct kvg_plan *p, enum kvg_plan_kind kind, size_t layer, size_t head,
                   const uint32_t *slots, size_t n);
/* Drops the slots [from, to). */
void kvg_plan_drop_range(struct kvg_plan *p, size_t layer, size_t head, size_t from, size_t to);
void kvg_plan_seal(struct kvg_plan *p, size_t layer, size_t head, int col, size_t upto, int codec);
void kvg_plan_rotate(struct kvg_plan *p, size_t layer, size_t head);

const char *kvg_plan_kind_name(enum kvg_plan_kind kind);

#endif
