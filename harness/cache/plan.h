/* A plan: what a strategy asks the store to do. Strategies build it with these calls; the store
 * carries the operations out in the order given. Memory is reserved once per cell, so building a
 * plan never allocates; a plan that outgrows its room is marked `failed` and refused whole. */
#ifndef KVG_CACHE_PLAN_H
#define KVG_CACHE_PLAN_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_plan_kind {
    KVG_PLAN_KEEP, /* only `slots` of (layer, head) stay */
    KVG_PLAN_DROP, /* `slots` of (layer, head) go */
    KVG_PLAN_SEAL, /* exact rows of column `col` below slot `upto` are encoded with `codec` */
    KVG_PLAN_MERGE, /* V of every one of `slots` += weight * V of slot `from` */
    KVG_PLAN_READ  /* the coming attention of (layer, head) reads only `slots`; for the engine */
};

struct kvg_plan_op {
    enum kvg_plan_kind kind;
    uint16_t layer, head;
    uint8_t col;          /* SEAL: KVG_COL_K or KVG_COL_V */
    uint8_t codec;        /* SEAL: index in the store */
    uint8_t whole_groups; /* KEEP, DROP: sealed groups go or stay whole instead of being opened */
    uint8_t again;        /* SEAL: rows that are encoded already are decoded and encoded anew */
    uint16_t first_group; /* SEAL with `again`: slots of the first group; 0 = a whole one */
    uint32_t upto;        /* SEAL */
    uint32_t from;        /* MERGE */
    float weight;         /* MERGE */
    const uint32_t *slots;    /* KEEP, DROP, READ, MERGE: ascending, no duplicates */
    const uint32_t *channels; /* SEAL: bit c % 32 of word c / 32 set = channel c stays; NULL = all */
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
/* The same, only with the channels whose bits are set (words from kvg_plan_slots). */
void kvg_plan_seal_channels(struct kvg_plan *p, size_t layer, size_t head, int col, size_t upto,
                            int codec, const uint32_t *channels);
/* Encodes everything below `upto` anew, what is encoded already too. */
void kvg_plan_reseal(struct kvg_plan *p, size_t layer, size_t head, int col, size_t upto, int codec,
                     size_t first_group);
/* `slots` came from kvg_plan_slots. */
void kvg_plan_merge(struct kvg_plan *p, size_t layer, size_t head, size_t from,
                    const uint32_t *slots, size_t n, float weight);

const char *kvg_plan_kind_name(enum kvg_plan_kind kind);

#endif
