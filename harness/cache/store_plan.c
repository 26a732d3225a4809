/* Owns the checking of a plan before anything of it is carried out. Must not know how operations
 * work, only what they need. */
#include "cache/store_internal.h"

#include <math.h>

static int malformed(const struct kvg_plan_op *op, const char *why, struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ECHECK, "plan: '%s' of layer %u, head %u %s",
                    kvg_plan_kind_name(op->kind), op->layer, op->head, why);
}

static int check_list(const struct kvg_plan_op *op, size_t n_slots, struct kvg_err *err)
{
    for (uint32_t i = 0; i < op->n_slots; i++)
        if (op->slots[i] >= n_slots || (i && op->slots[i] <= op->slots[i - 1]))
            return KVG_FAIL(
                err, KVG_ECHECK,
                "plan: '%s' of layer %u, head %u names slot %u, not ascending below %zu",
                kvg_plan_kind_name(op->kind), op->layer, op->head, op->slots[i], n_slots);
    return 0;
}

static int check_keep(const struct kvg_plan *plan, const struct kvg_plan_op *op, size_t n_slots,
                      struct kvg_err *err)
{
    if (plan->cap_slots - plan->n_slots < n_slots)
        return KVG_FAIL(err, KVG_ECHECK, "plan: no room left for a list of %zu slots", n_slots);
    return check_list(op, n_slots, err);
}

static int check_merge(const struct kvg_plan_op *op, size_t n_slots, struct kvg_err *err)
{
    if (op->from >= n_slots)
        return malformed(op, "adds a slot that is not there", err);
    if (!isfinite(op->weight))
        return malformed(op, "has a weight that is not finite", err);
    for (uint32_t i = 0; i < op->n_slots; i++)
        if (op->slots[i] == op->from)
            return malformed(op, "adds a slot to itself", err);
    return check_list(op, n_slots, err);
}

/* A masked form needs the channels that it holds, as many as it has room for; others none. */
static int check_channels(const struct kvg_store *s, const struct kvg_plan_op *op,
                          struct kvg_err *err)
{
    const struct kvg_codec *c = &s->codecs[op->codec];
    size_t n = 0, d = s->cfg.d_head;
    if (!c->masked)
        return op->channels ? malformed(op, "names channels for a form that holds all", err) : 0;
    for (size_t i = 0; op->channels && i < kvg_codec_mask_words(d) * 32; i++) {
        if (!(op->channels[i / 32] >> i % 32 & 1))
            continue;
        if (i >= d)
            return malformed(op, "names channels that are not there", err);
        n++;
    }
    return n == c->channels ? 0 : malformed(op, "names too many channels or too few", err);
}

static int check_seal(const struct kvg_store *s, const struct kvg_plan_op *op, size_t n_slots,
                      struct kvg_err *err)
{
    if (!kvg_store_is_kv(op->col) || op->codec >= s->n_codecs || !op->codec || op->upto > n_slots)
        return malformed(op, "names no column, form or slot of this store", err);
    const struct kvg_codec *c = &s->codecs[op->codec];
    if (op->first_group && (!op->again || op->first_group > c->group))
        return malformed(op, "has a first group that cannot be", err);
    if (op->first_group && op->first_group < c->group && !c->partial)
        return malformed(op, "has a short group in a form that knows none", err);
    return check_channels(s, op, err);
}

/* Slots of the head of one operation after those before it. In a run of operations on one head
 * the count at the one before it, in *slots, is where to go on from. */
static int slots_then(const struct kvg_store *s, const struct kvg_plan *plan, size_t at,
                      size_t *slots, struct kvg_err *err)
{
    const struct kvg_plan_op *op = &plan->ops[at], *o = plan->ops;
    size_t n = kvg_store_head(s, op->layer, op->head)->n_slots;
    if (at && op[-1].layer == op->layer && op[-1].head == op->head) {
        n = *slots;
        o = op - 1;
    }
    for (; o < op; o++) {
        if (o->layer != op->layer || o->head != op->head)
            continue;
        if (o->whole_groups && (o->kind == KVG_PLAN_KEEP || o->kind == KVG_PLAN_DROP))
            return malformed(op, "comes behind a list in whole groups", err);
        n = o->kind == KVG_PLAN_KEEP ? o->n_slots : o->kind == KVG_PLAN_DROP ? n - o->n_slots : n;
    }
    *slots = n;
    return 0;
}

/* One operation; `slots` as slots_then takes and gives it. */
static int check_op(const struct kvg_store *s, const struct kvg_plan *plan, size_t at,
                    size_t *slots, struct kvg_err *err)
{
    const struct kvg_plan_op *op = &plan->ops[at];
    if (op->layer >= s->cfg.n_layers || op->head >= s->cfg.n_kv_heads)
        return KVG_FAIL(err, KVG_ECHECK, "plan: no layer %u, head %u", op->layer, op->head);
    int rc = slots_then(s, plan, at, slots, err);
    if (rc)
        return rc;
    size_t n = *slots;
    switch (op->kind) {
    case KVG_PLAN_KEEP:
    case KVG_PLAN_DROP:
        return check_keep(plan, op, n, err);
    case KVG_PLAN_SEAL:
        return check_seal(s, op, n, err);
    case KVG_PLAN_MERGE:
        return check_merge(op, n, err);
    case KVG_PLAN_READ:
        break;
    }
    return malformed(op, "is not for the store; the engine reads it", err);
}

int kvg_store_check_plan(const struct kvg_store *s, const struct kvg_plan *plan,
                         struct kvg_err *err)
{
    size_t slots = 0;
    int rc = 0;
    for (size_t i = 0; i < plan->n_ops && !rc; i++)
        rc = check_op(s, plan, i, &slots, err);
    return rc;
}
