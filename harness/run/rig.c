/* Owns the engine, the streams and the scratch of a run. */
#include "run/rig.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the streams of a run");
}

/* Longest conversation when every reply may be as long as it likes. */
static size_t longest(const struct kvg_runplan *plan)
{
    size_t most = plan->max_tokens ? plan->max_tokens : 1;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct kvg_plan_item *it = &plan->items[i];
        size_t n = 0;
        if (!it->free && it->target != KVG_TARGET_GREEDY)
            continue;
        for (size_t t = 0; t < it->tokens.n_turns; t++)
            n += it->tokens.turns[t].n_prompt + plan->suite->free_tokens;
        most = n > most ? n : most;
    }
    for (size_t i = 0; i < plan->n_depths; i++)
        most = plan->depths[i] > most ? plan->depths[i] : most;
    return most < plan->model->n_ctx ? most : plan->model->n_ctx;
}

/* What the engine must hold for it: some strategies feed more than the conversation. */
static size_t engine_room(const struct kvg_runplan *plan, size_t n_tokens)
{
    size_t most = n_tokens;
    for (size_t i = 0; i < plan->n_strategies; i++) {
        size_t n = kvg_stream_room(&plan->strategies[i].pipe, n_tokens);
        most = n > most ? n : most;
    }
    return most;
}

static size_t longest_reply(const struct kvg_runplan *plan)
{
    size_t most = plan->suite->free_tokens + 1;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct kvg_item_tokens *it = &plan->items[i].tokens;
        for (size_t t = 0; t < it->n_turns; t++)
            most = it->turns[t].n_reply > most ? it->turns[t].n_reply : most;
    }
    return most;
}

static size_t widest(const struct kvg_runplan *plan)
{
    size_t most = 1;
    for (size_t g = 0; g < plan->n_groups; g++)
        if (plan->groups[g].kind == KVG_GROUP_DRIFT && plan->groups[g].n > most)
            most = plan->groups[g].n;
    return most < KVG_STREAMS_MAX ? most : KVG_STREAMS_MAX;
}

int kvg_rig_open(struct kvg_rig *rig, struct kvg_runplan *plan, const struct kvg_run_options *opt,
                 struct kvg_rows *rows, struct kvg_progress *pr, struct kvg_err *err)
{
    memset(rig, 0, sizeof *rig);
    rig->plan = plan;
    rig->opt = opt;
    rig->rows = rows;
    rig->pr = pr;
    kvg_arena_init(&rig->arena);
    rig->max_tokens = longest(plan);
    rig->max_streams = widest(plan);
    rig->n_embd = plan->model->n_embd;
    rig->n_vocab = plan->model->n_vocab;
    size_t n = rig->max_streams + 1;
    rig->hidden = calloc(n * rig->n_embd, sizeof *rig->hidden);
    rig->logits = calloc(n * rig->n_vocab, sizeof *rig->logits);
    rig->tokens = calloc(rig->max_tokens + longest_reply(plan) + 1, sizeof *rig->tokens);
    rig->slots = calloc(plan->n_strategies * rig->max_streams + 1, sizeof(struct kvg_slot *));
    if (!rig->hidden || !rig->logits || !rig->tokens || !rig->slots)
        return no_memory(err);
    int rc = kvg_drift_base_init(&rig->drift, rig->n_vocab, err);
    struct kvg_engine_cfg cfg = {.model = plan->model,
                                 .kernels = opt->kernels,
                                 .pool = opt->pool,
                                 .max_tokens = engine_room(plan, rig->max_tokens),
                                 .max_streams = rig->max_streams};
    return rc ? rc : kvg_engine_open(&rig->engine, &cfg, err);
}

static void slot_release(struct kvg_slot *slot)
{
    if (slot->is_open)
        kvg_stream_close(&slot->stream);
    kvg_arena_release(&slot->arena);
    kvg_record_release(&slot->rec);
    memset(slot, 0, sizeof *slot);
}

void kvg_rig_drop_slots(struct kvg_rig *rig)
{
    for (size_t i = 0; i < rig->n_slots; i++) {
        slot_release(rig->slots[i]);
        free(rig->slots[i]);
    }
    rig->n_slots = 0;
    slot_release(&rig->base);
    slot_release(&rig->writer);
}

void kvg_rig_close(struct kvg_rig *rig)
{
    kvg_rig_drop_slots(rig);
    if (rig->engine)
        kvg_engine_close(rig->engine);
    kvg_drift_base_release(&rig->drift);
    kvg_arena_release(&rig->arena);
    free(rig->slots);
    free(rig->hidden);
    free(rig->logits);
    free(rig->tokens);
    memset(rig, 0, sizeof *rig);
}

static int slot_open(struct kvg_rig *rig, struct kvg_slot *slot, const char *spec,
                     struct kvg_err *err)
{
    kvg_arena_init(&slot->arena);
    int rc = kvg_pipeline_open(&slot->pipe, spec, &rig->plan->dims, &slot->arena, err);
    if (!rc)
        rc = kvg_stream_open(&slot->stream, rig->engine, &slot->pipe, err);
    slot->is_open = !rc;
    return rc;
}

int kvg_rig_slot(struct kvg_rig *rig, const struct kvg_cell *cell, size_t copy,
                 struct kvg_slot **out, struct kvg_err *err)
{
    struct kvg_slot *slot = NULL;
    size_t strategy = cell->strategy;
    for (size_t i = 0; i < rig->n_slots && !slot; i++)
        if (rig->slots[i]->strategy == strategy && rig->slots[i]->copy == copy)
            slot = rig->slots[i];
    if (!slot) {
        slot = calloc(1, sizeof *slot);
        if (!slot)
            return no_memory(err);
        rig->slots[rig->n_slots++] = slot;
        slot->strategy = strategy;
        slot->copy = copy;
        int rc = slot_open(rig, slot, rig->plan->strategies[strategy].spec, err);
        if (rc)
            return rc;
    }
    if (cell->fit && cell->fit->is_set)
        *slot->pipe.keep->budget = cell->fit->budget;
    kvg_stream_reset(&slot->stream, cell->seed);
    kvg_record_clear(&slot->rec);
    slot->cell = NULL;
    *out = slot;
    return KVG_OK;
}

int kvg_rig_helper(struct kvg_rig *rig, struct kvg_slot *slot, enum kvg_role role,
                   struct kvg_err *err)
{
    if (!slot->is_open) {
        size_t n;
        const struct kvg_strategy *const *all = kvg_strategies(&n);
        const char *name = NULL;
        for (size_t i = 0; i < n && !name; i++)
            name = all[i]->role == role ? all[i]->name : NULL;
        if (!name)
            return KVG_FAIL(err, KVG_ECHECK, "no strategy has the role of a baseline or a floor");
        int rc = slot_open(rig, slot, name, err);
        if (rc)
            return rc;
    }
    kvg_stream_reset(&slot->stream, 0);
    kvg_record_clear(&slot->rec);
    return KVG_OK;
}

int kvg_rig_rewind(struct kvg_rig *rig, struct kvg_stream *s, const struct kvg_replay_turn *turn,
                   struct kvg_err *err)
{
    if (!turn->in->rewinds)
        return KVG_OK;
    if (!turn->in->cuts)
        return kvg_stream_truncate(rig->engine, s, turn->begin, err);
    kvg_stream_cut(s, turn->begin);
    return KVG_OK;
}

size_t kvg_rig_add_future(struct kvg_rig *rig, const struct kvg_replay *r, size_t turn, size_t n)
{
    const struct kvg_replay_turn *u = &r->turns[turn];
    if (u->n_reply)
        memcpy(rig->tokens + n, u->reply, u->n_reply * sizeof *u->reply);
    return u->n_reply;
}

const char *kvg_rig_context_reason(struct kvg_rig *rig, size_t n)
{
    const char *s = kvg_arena_printf(&rig->arena, "context: needs %zu tokens, the model has %zu", n,
                                     rig->plan->model->n_ctx);
    return s ? s : "context";
}

struct drift_job {
    const struct kvg_rig *rig;
    const int32_t *targets;
    struct kvg_drift *const *drift;
    int rc[KVG_STREAMS_MAX];
    struct kvg_err err[KVG_STREAMS_MAX];
};

static void measure_row(void *arg, size_t i, int thread)
{
    struct drift_job *job = arg;
    (void)thread;
    job->rc[i] = kvg_drift_measure(&job->rig->drift, job->rig->logits + (i + 1) * job->rig->n_vocab,
                                   job->targets[i], job->drift[i], &job->err[i]);
}

int kvg_rig_drift(struct kvg_rig *rig, const float *base, size_t n, const int32_t *targets,
                  struct kvg_drift *const *drift, struct kvg_err *err)
{
    struct drift_job job = {.rig = rig, .targets = targets, .drift = drift};
    memmove(rig->hidden + rig->n_embd, rig->hidden, n * rig->n_embd * sizeof *rig->hidden);
    memcpy(rig->hidden, base, rig->n_embd * sizeof *rig->hidden);
    kvg_engine_logits(rig->engine, rig->hidden, n + 1, rig->logits);
    int rc = kvg_drift_base_set(&rig->drift, rig->logits, err);
    if (rc)
        return kvg_err_prefix(err, "baseline"), rc;
    kvg_pool_run(rig->opt->pool, n, measure_row, &job);
    for (size_t i = 0; i < n; i++)
        if (job.rc[i]) {
            if (err)
                *err = job.err[i];
            return job.rc[i];
        }
    return KVG_OK;
}
