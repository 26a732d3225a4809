/* Owns the list of operations a strategy asks for; must not know how they are carried out. */
#include "cache/plan.h"

#include <stdlib.h>
#include <string.h>

int kvg_plan_init(struct kvg_plan *p, size_t cap_ops, size_t cap_slots, struct kvg_err *err)
{
    memset(p, 0, sizeof *p);
    p->ops = calloc(cap_ops, sizeof *p->ops);
    p->slots = calloc(cap_slots, sizeof *p->slots);
    if (!p->ops || !p->slots) {
        kvg_plan_release(p);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    }
    p->cap_ops = cap_ops;
    p->cap_slots = cap_slots;
    return 0;
}

void kvg_plan_release(struct kvg_plan *p)
{
    free(p->ops);
    free(p->slots);
    memset(p, 0, sizeof *p);
}

void kvg_plan_clear(struct kvg_plan *p)
{
    p->n_ops = 0;
    p->n_slots = 0;
    p->failed = 0;
}

static struct kvg_plan_op *add(struct kvg_plan *p, enum kvg_plan_kind kind, size_t layer,
                               size_t head)
{
    if (p->n_ops == p->cap_ops) {
        p->failed = 1;
        return NULL;
    }
    struct kvg_plan_op *op = &p->ops[p->n_ops++];
    *op = (struct kvg_plan_op){
        .kind = kind, .layer = (uint16_t)layer, .head = (uint16_t)head};
    return op;
}

uint32_t *kvg_plan_slots(struct kvg_plan *p, size_t n)
{
    if (p->cap_slots - p->n_slots < n) {
        p->failed = 1;
        return NULL;
    }
    uint32_t *s = p->slots + p->n_slots;
    p->n_slots += n;
    return s;
}

void kvg_plan_list(struct kvg_plan *p, enum kvg_plan_kind kind, size_t layer, size_t head,
                   const uint32_t *slots, size_t n)
{
    struct kvg_plan_op *op = add(p, kind, layer, head);
    if (!op)
        return;
    op->slots = slots;
    op->n_slots = (uint32_t)n;
}

void kvg_plan_drop_range(struct kvg_plan *p, size_t layer, size_t head, size_t from, size_t to)
{
    if (to <= from)
        return;
    uint32_t *s = kvg_plan_slots(p, to - from);
    for (size_t i = from; s && i < to; i++)
        s[i - from] = (uint32_t)i;
    if (s)
        kvg_plan_list(p, KVG_PLAN_DROP, layer, head, s, to - from);
}

static struct kvg_plan_op *add_seal(struct kvg_plan *p, size_t layer, size_t head, int col,
                                    size_t upto, int codec)
{
    struct kvg_plan_op *op = add(p, KVG_PLAN_SEAL, layer, head);
    if (!op)
        return NULL;
    op->col = (uint8_t)col;
    op->codec = (uint8_t)codec;
    op->upto = (uint32_t)upto;
    return op;
}

void kvg_plan_seal(struct kvg_plan *p, size_t layer, size_t head, int col, size_t upto, int codec)
{
    add_seal(p, layer, head, col, upto, codec);
}

void kvg_plan_seal_channels(struct kvg_plan *p, size_t layer, size_t head, int col, size_t upto,
                            int codec, const uint32_t *channels)
{
    struct kvg_plan_op *op = add_seal(p, layer, head, col, upto, codec);
    if (op)
        op->channels = channels;
}

void kvg_plan_reseal(struct kvg_plan *p, size_t layer, size_t head, int col, size_t upto, int codec,
                     size_t first_group)
{
    struct kvg_plan_op *op = add_seal(p, layer, head, col, upto, codec);
    if (!op)
        return;
    op->again = 1;
    op->first_group = (uint16_t)first_group;
}

void kvg_plan_merge(struct kvg_plan *p, size_t layer, size_t head, size_t from,
                    const uint32_t *slots, size_t n, float weight)
{
    struct kvg_plan_op *op = add(p, KVG_PLAN_MERGE, layer, head);
    if (!op)
        return;
    op->from = (uint32_t)from;
    op->slots = slots;
    op->n_slots = (uint32_t)n;
    op->weight = weight;
}

const char *kvg_plan_kind_name(enum kvg_plan_kind kind)
{
    static const char *const names[] = {"keep", "drop", "seal", "merge", "read"};
    return (unsigned)kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}
