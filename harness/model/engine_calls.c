/* Owns the calls of strategies in a pass: what they see, in which order, and that their plans are
 * carried out. Order in a layer: append, [decode: choice that evicts before attention],
 * seal(APPENDED), [decode: before_attend], attention, observe, choice, seal(ATTENDED); after the
 * last layer end_pass. In an auxiliary pass only observe is called. */
#include "model/engine_internal.h"

#include <string.h>

static int is_decode(const struct kvg_pass *p)
{
    return p->phase == KVG_PHASE_DECODE;
}

/* A step's query, rotated to meet its keys. */
static const float *view_query(struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                               size_t row)
{
    const struct kvg_model *m = e->cfg.model;
    size_t d = m->d_head, width = m->n_heads * d, half = d / 2;
    if (s->pipe->position == KVG_POSITION_TRUE)
        return e->qr + row * width;
    memcpy(e->view_q, e->q + row * width, width * sizeof *e->view_q);
    for (size_t g = 0; g < m->n_heads; g++) {
        size_t n = kvg_store_head(s->store, layer, g / kvg_engine_group(e))->n_slots;
        size_t slot = n ? n - 1 : 0;
        e->kern->rope(e->view_q + g * d, m->rope_cos + slot * half, m->rope_sin + slot * half, d);
    }
    return e->view_q;
}

static struct kvg_view view_of(struct kvg_engine *e, const struct kvg_pass *p, struct kvg_stream *s,
                               size_t layer, size_t row)
{
    const struct kvg_model *m = e->cfg.model;
    const struct kvg_mat *o = &m->layers[layer].o;
    size_t pos0 = s->n_tokens - (p->fed ? p->n : 0);
    return (struct kvg_view){.store = s->store,
                             .text = &s->text,
                             .layer = layer,
                             .phase = p->phase,
                             .n_new = p->n,
                             .pos0 = (int32_t)pos0,
                             .n_logical = pos0 + p->n,
                             .turn = s->turn,
                             .position = s->pipe->position,
                             .q = is_decode(p) && p->n ? view_query(e, s, layer, row) : NULL,
                             .obs_ld = e->cfg.max_tokens,
                             .wo = {o->type, o->data, o->row_bytes, o->rows, o->cols},
                             .rope_cos = m->rope_cos,
                             .rope_sin = m->rope_sin,
                             .bytes_read = &s->store->count.bytes_read,
                             .max_slots = e->cfg.max_tokens,
                             .rng = &s->rng,
                             .scratch = e->scratch,
                             .scratch2 = e->scratch2};
}

static int apply(struct kvg_stream *s, struct kvg_err *err)
{
    if (!s->plan.n_ops && !s->plan.failed)
        return 0;
    return kvg_store_apply(s->store, &s->plan, err);
}

static int chooses(const struct kvg_inst *in)
{
    return in && (in->s->compress || in->s->score);
}

static int choose(struct kvg_engine *e, struct kvg_stream *s, const struct kvg_view *v,
                  struct kvg_err *err)
{
    struct kvg_inst *in = s->pipe->keep;
    if (in->s->score)
        kvg_pipeline_choose(s->pipe, v, e->layer_scores, &s->plan);
    else
        in->s->compress(in, v, &s->plan);
    if (s->pipe->encode && s->pipe->encode->whole_groups)
        for (size_t i = 0; i < s->plan.n_ops; i++)
            if (s->plan.ops[i].kind == KVG_PLAN_KEEP || s->plan.ops[i].kind == KVG_PLAN_DROP)
                s->plan.ops[i].whole_groups = 1;
    return apply(s, err);
}

static int seal(struct kvg_stream *s, const struct kvg_view *v, enum kvg_when when,
                struct kvg_err *err)
{
    struct kvg_inst *in = s->pipe->encode;
    if (!in || !in->s->seal)
        return 0;
    in->s->seal(in, v, when, &s->plan);
    return apply(s, err);
}

int kvg_call_due(const struct kvg_pass *p, const struct kvg_stream *s)
{
    const struct kvg_inst *in = s->pipe->keep;
    if (!chooses(in) || p->postponed || p->phase == KVG_PHASE_AUX)
        return 0;
    if (is_decode(p))
        return in->schedule.kind == KVG_SCHED_EVERY &&
               (s->n_decode_steps + 1) % (size_t)in->schedule.every == 0;
    return p->compress && (in->schedule.kind != KVG_SCHED_PROMPT || s->turn == 0);
}

/* A choice of this pass that was made before attention. */
static int chose_early(const struct kvg_pass *p, const struct kvg_stream *s)
{
    return is_decode(p) && kvg_call_due(p, s) && s->pipe->keep->s->evicts_before_attention;
}

/* ---- slots to read ---- */

/* Takes one READ operation over: its list outlives the plan. */
static int take_read(struct kvg_engine *e, const struct kvg_stream *s, size_t layer, size_t i,
                     const struct kvg_plan_op *op, struct kvg_err *err)
{
    size_t at = i * e->cfg.model->n_kv_heads + op->head;
    int ok = op->layer == layer && op->head < e->cfg.model->n_kv_heads && op->n_slots > 0 &&
             !e->named[at].slots;
    size_t n = ok ? kvg_store_head(s->store, layer, op->head)->n_slots : 0;
    for (uint32_t k = 0; k < op->n_slots && ok; k++)
        ok = op->slots[k] < n && (k == 0 || op->slots[k] > op->slots[k - 1]);
    if (!ok)
        return KVG_FAIL(err, KVG_ECHECK,
                        "plan: 'read' of layer %u, head %u does not name some of its %zu slots "
                        "once, in ascending order",
                        op->layer, op->head, n);
    uint32_t *slots = e->named_slots + at * e->cfg.max_tokens;
    memcpy(slots, op->slots, op->n_slots * sizeof *slots);
    e->named[at] = (struct kvg_named){slots, op->n_slots};
    return 0;
}

/* The plan's READ operations are for the attention to come; the store carries out the others. */
static int apply_reads(struct kvg_engine *e, struct kvg_stream *s, size_t layer, size_t i,
                       struct kvg_err *err)
{
    struct kvg_plan *plan = &s->plan;
    size_t others = 0;
    int rc = 0;
    for (size_t k = 0; k < plan->n_ops && !plan->failed && !rc; k++) {
        if (plan->ops[k].kind == KVG_PLAN_READ)
            rc = take_read(e, s, layer, i, &plan->ops[k], err);
        else
            plan->ops[others++] = plan->ops[k];
    }
    plan->n_ops = others;
    if (!rc && (others || plan->failed))
        return apply(s, err);
    kvg_plan_clear(plan);
    return rc;
}

static int before_attend(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t i,
                         struct kvg_err *err)
{
    struct kvg_stream *s = p->streams[i];
    int rc = 0;
    for (size_t k = 0; k < s->pipe->n && !rc; k++) {
        struct kvg_inst *in = &s->pipe->inst[k];
        if (!in->s->before_attend)
            continue;
        struct kvg_view v = view_of(e, p, s, layer, i);
        in->s->before_attend(in, &v, &s->plan);
        rc = apply_reads(e, s, layer, i, err);
    }
    return rc;
}

/* ---- the calls ---- */

int kvg_call_before(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t i,
                    struct kvg_err *err)
{
    struct kvg_stream *s = p->streams[i];
    size_t n_kv = e->cfg.model->n_kv_heads;
    memset(e->named + i * n_kv, 0, n_kv * sizeof *e->named);
    if (s->bare || p->phase == KVG_PHASE_AUX)
        return 0;
    uint64_t t0 = kvg_engine_now(e);
    struct kvg_view v = view_of(e, p, s, layer, is_decode(p) ? i : 0);
    int rc = chose_early(p, s) ? choose(e, s, &v, err) : 0;
    if (!rc)
        rc = seal(s, &v, KVG_WHEN_APPENDED, err);
    if (!rc && is_decode(p))
        rc = before_attend(e, p, layer, i, err);
    e->times.manage += kvg_engine_now(e) - t0;
    return rc;
}

static int has_observer(const struct kvg_stream *s)
{
    for (size_t k = 0; k < s->pipe->n; k++)
        if (s->pipe->inst[k].s->observe)
            return 1;
    return 0;
}

/* The choice of a layer behind attention, and the encoding of what is left. */
static int settle(struct kvg_engine *e, struct kvg_pass *p, struct kvg_stream *s,
                  struct kvg_view *v, struct kvg_err *err)
{
    int due = kvg_call_due(p, s), rc = 0;
    if (due && !chose_early(p, s))
        rc = choose(e, s, v, err);
    /* where positions are slots, queries stand elsewhere once slots have gone */
    if (!rc && due && s->held && s->pipe->encode && v->position == KVG_POSITION_SLOT)
        kvg_held_view(e, s, v);
    return rc ? rc : seal(s, v, KVG_WHEN_ATTENDED, err);
}

int kvg_call_after(struct kvg_engine *e, struct kvg_pass *p, size_t layer, size_t i,
                   struct kvg_err *err)
{
    struct kvg_stream *s = p->streams[i];
    if (s->bare)
        return 0;
    uint64_t t0 = kvg_engine_now(e);
    struct kvg_view v = view_of(e, p, s, layer, is_decode(p) ? i : 0);
    kvg_observe_view(e, p, i, &v);
    if (s->held && p->phase != KVG_PHASE_AUX &&
        (kvg_call_due(p, s) || has_observer(s) || s->pipe->encode))
        kvg_held_view(e, s, &v);
    for (size_t k = 0; k < s->pipe->n; k++)
        if (s->pipe->inst[k].s->observe)
            s->pipe->inst[k].s->observe(&s->pipe->inst[k], &v, s->store);
    uint64_t t1 = kvg_engine_now(e);
    e->times.observe += t1 - t0;
    if (p->postponed || p->phase == KVG_PHASE_AUX)
        return 0;
    int rc = settle(e, p, s, &v, err);
    e->times.manage += kvg_engine_now(e) - t1;
    return rc;
}

static int end_pass(struct kvg_engine *e, struct kvg_pass *p, size_t i, struct kvg_err *err)
{
    struct kvg_stream *s = p->streams[i];
    int rc = 0;
    if (s->bare || !kvg_call_due(p, s))
        return 0;
    for (size_t k = 0; k < s->pipe->n && !rc; k++) {
        struct kvg_inst *in = &s->pipe->inst[k];
        if (!in->s->end_pass)
            continue;
        struct kvg_view v = view_of(e, p, s, 0, is_decode(p) ? i : 0);
        if (s->held)
            kvg_held_view(e, s, &v);
        in->s->end_pass(in, &v, &s->plan);
        rc = apply(s, err);
    }
    return rc;
}

int kvg_call_end_pass(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < p->n_streams && !rc; i++)
        rc = end_pass(e, p, i, err);
    return rc;
}

int kvg_call_settle(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err)
{
    uint64_t t0 = kvg_engine_now(e);
    int rc = 0;
    for (size_t l = 0; l < e->cfg.model->n_layers && !rc; l++) {
        struct kvg_view v = view_of(e, p, p->streams[0], l, 0);
        if (p->streams[0]->held)
            kvg_held_view(e, p->streams[0], &v);
        rc = settle(e, p, p->streams[0], &v, err);
    }
    if (!rc)
        rc = kvg_call_end_pass(e, p, err);
    e->times.manage += kvg_engine_now(e) - t0;
    return rc;
}

int kvg_call_end_turn(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err)
{
    struct kvg_pass p = {.streams = &s, .n_streams = 1, .phase = KVG_PHASE_DECODE};
    int rc = 0;
    for (size_t k = 0; k < s->pipe->n && !s->bare && !rc; k++) {
        struct kvg_inst *in = &s->pipe->inst[k];
        if (!in->s->end_turn)
            continue;
        struct kvg_view v = view_of(e, &p, s, 0, 0);
        in->s->end_turn(in, &v, &s->plan);
        rc = apply(s, err);
    }
    return rc;
}
