/* Owns the estimate of a run's time. Must not know what is measured for its own sake. */
#include "run/runcost.h"

#include "base/clock.h"
#include "model/engine.h"
#include "model/induction.h"
#include "run/drift.h"
#include "run/recall.h"
#include "run/runplan_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- the probe ---- */

enum {
    PROBE_PROMPT = 192,
    PROBE_STEPS = 6,
    PROBE_STREAMS = 4,
    PROBE_TRIES = 2,
    PROBE_MAX = 2 * PROBE_PROMPT + 32
};

struct probe {
    struct kvg_engine *engine;
    struct kvg_stream streams[PROBE_STREAMS];
    struct kvg_stream *all[PROBE_STREAMS];
    struct kvg_pipeline pipes[PROBE_STREAMS];
    size_t n_open;
    float *hidden, *logits;
    int32_t tokens[PROBE_MAX];
};

static double seconds_since(uint64_t start)
{
    return (double)(kvg_clock_ns() - start) * 1e-9;
}

static int open_probe(struct probe *b, struct kvg_runplan *p, struct kvg_pool *pool,
                      const struct kvg_kernels *kernels, size_t n, struct kvg_err *err)
{
    const struct kvg_model *m = p->model;
    const struct kvg_engine_cfg cfg = {.model = m,
                                       .kernels = kernels,
                                       .pool = pool,
                                       .max_tokens = n,
                                       .max_streams = PROBE_STREAMS};
    for (size_t i = 0; i < PROBE_MAX; i++)
        b->tokens[i] = (int32_t)((i * 2654435761u) % m->n_vocab);
    b->hidden = malloc(PROBE_STREAMS * m->n_embd * sizeof *b->hidden);
    b->logits = malloc(PROBE_STREAMS * m->n_vocab * sizeof *b->logits);
    if (!b->hidden || !b->logits)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = kvg_engine_open(&b->engine, &cfg, err);
    for (size_t i = 0; i < PROBE_STREAMS && !rc; i++) {
        rc = kvg_pipeline_open(&b->pipes[i], p->strategies[p->floor].label, &p->dims, &p->arena,
                               err);
        if (!rc)
            rc = kvg_stream_open(&b->streams[i], b->engine, &b->pipes[i], err);
        b->all[i] = &b->streams[i];
        b->n_open += !rc;
    }
    return rc;
}

static void close_probe(struct probe *b)
{
    for (size_t i = 0; i < b->n_open; i++)
        kvg_stream_close(&b->streams[i]);
    if (b->engine)
        kvg_engine_close(b->engine);
    free(b->hidden);
    free(b->logits);
}

static void reset_streams(struct probe *b)
{
    for (size_t i = 0; i < b->n_open; i++)
        kvg_stream_reset(b->all[i], 0);
}

static int time_prompt(struct probe *b, size_t n_streams, size_t n, double *s, struct kvg_err *err)
{
    uint64_t start = kvg_clock_ns();
    int rc = kvg_engine_prompt(b->engine, b->all, n_streams, b->tokens, n, 1, NULL, 0, NULL, err);
    *s = seconds_since(start);
    return rc;
}

static int time_steps(struct probe *b, size_t n_streams, double *s, struct kvg_err *err)
{
    *s = 0;
    for (size_t i = 0; i < PROBE_STEPS; i++) {
        uint64_t start = kvg_clock_ns();
        int rc = kvg_engine_step(b->engine, b->all, n_streams, b->tokens, b->hidden, err);
        double t = seconds_since(start);
        if (rc)
            return rc;
        if (i == 0 || t < *s)
            *s = t;
    }
    return 0;
}

static int time_logits(struct probe *b, size_t n_vocab, double *s, struct kvg_err *err)
{
    struct kvg_drift_base base = {0};
    struct kvg_drift d;
    int rc = kvg_drift_base_init(&base, n_vocab, err);
    uint64_t start = kvg_clock_ns();
    kvg_engine_logits(b->engine, b->hidden, PROBE_STREAMS, b->logits);
    if (!rc)
        rc = kvg_drift_base_set(&base, b->logits, err);
    for (size_t i = 1; i < PROBE_STREAMS && !rc; i++)
        rc = kvg_drift_measure(&base, b->logits + i * n_vocab, 0, &d, err);
    *s = seconds_since(start) / PROBE_STREAMS;
    kvg_drift_base_release(&base);
    return rc;
}

int kvg_run_cost_probe(struct kvg_run_cost *cost, struct kvg_runplan *p, struct kvg_pool *pool,
                       const struct kvg_kernels *kernels, struct kvg_err *err)
{
    struct probe *b = calloc(1, sizeof *b);
    double warm = 0, first = 0, second = 0, one = 0, many = 0;
    size_t room = p->model->n_ctx < PROBE_MAX ? p->model->n_ctx : PROBE_MAX;
    size_t n =
        (room - 2 * PROBE_STEPS) / 2 < PROBE_PROMPT ? (room - 2 * PROBE_STEPS) / 2 : PROBE_PROMPT;
    if (!b)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    memset(cost, 0, sizeof *cost);
    int rc = room < 64 ? KVG_FAIL(err, KVG_ELIMIT, "a context of %zu is too short to time", room)
                       : open_probe(b, p, pool, kernels, room, err);
    /* The first of several tries warms up; the fastest counts: other work on the machine only
     * slows. */
    for (int i = 0; i < PROBE_TRIES && !rc; i++) {
        double t[2] = {0};
        reset_streams(b);
        rc = time_prompt(b, 1, n, &t[0], err);
        if (!rc)
            rc = time_prompt(b, 1, n, &t[1], err);
        first = i == 0 || t[0] < first ? t[0] : first;
        second = i == 0 || t[1] < second ? t[1] : second;
    }
    if (!rc)
        rc = time_steps(b, 1, &one, err);
    reset_streams(b);
    if (!rc)
        rc = time_prompt(b, PROBE_STREAMS, 32, &warm, err);
    if (!rc)
        rc = time_steps(b, PROBE_STREAMS, &many, err);
    if (!rc)
        rc = time_logits(b, p->model->n_vocab, &cost->logits_s, err);
    if (!rc) {
        /* The second prompt met n rows more per query than the first; noise must not make that
         * negative. */
        double pairs = (double)n * (double)n, more = second > first ? second - first : 0;
        cost->prompt_pair_s = more / pairs;
        cost->prompt_token_s = (first - more / 2) / (double)n;
        if (cost->prompt_token_s < first / (2 * (double)n))
            cost->prompt_token_s = first / (2 * (double)n);
        cost->step_s = one;
        cost->step_stream_s = many > one ? (many - one) / (PROBE_STREAMS - 1) : 0;
        cost->step_slot_s = cost->prompt_pair_s;
    }
    close_probe(b);
    free(b);
    return rc;
}

/* ---- from counts to seconds ---- */

/* What one cell adds beside the dense work it shares with its group. */
struct part {
    double own_prompt_tokens, pairs, steps, step_slots;
};

static struct part cell_part(const struct kvg_runplan *p, const struct kvg_cell *c)
{
    const struct kvg_plan_strategy *s = &p->strategies[c->strategy];
    const struct kvg_item_tokens *t = kvg_plan_tokens(&p->items[c->item], c->question_index);
    int is_free = c->lane == KVG_LANE_DRIFT && c->mode == KVG_MODE_FREE;
    size_t last = is_free                    ? t->n_turns - 1
                  : c->lane == KVG_LANE_TIME ? t->last_timed
                                             : t->last_scored;
    struct part out = {.steps = (double)c->n_steps};
    size_t at = 0, held = 0, left_over = 0;
    for (size_t i = 0; i <= last; i++) {
        const struct kvg_turn_tokens *u = &t->turns[i];
        size_t fed = is_free                    ? p->suite->free_tokens
                     : c->lane == KVG_LANE_TIME ? u->n_timed
                                                : kvg_turn_steps(u);
        size_t prompt = u->n_prompt + left_over, reply = is_free ? fed : u->n_reply;
        out.pairs += (double)prompt * ((double)held + (double)prompt / 2);
        out.own_prompt_tokens += i ? (double)prompt : 0;
        at += prompt;
        held = kvg_plan_kept(s, at); /* compressed at the end of the prompt */
        out.step_slots += (double)fed * ((double)held + (double)fed / 2);
        at += fed;
        held += fed;
        left_over = reply > fed ? reply - fed : 0;
    }
    return out;
}

static double drift_group(const struct kvg_runplan *p, const struct kvg_group *g,
                          const struct kvg_run_cost *k)
{
    double n = 0, first = 0, s = 0, steps = 0;
    for (size_t i = g->first; i < g->first + g->n; i++) {
        const struct kvg_cell *c = &p->cells[i];
        if (c->status != KVG_CELL_TODO)
            continue;
        struct part part = cell_part(p, c);
        n++;
        first = (double)c->n_prompt_tokens - part.own_prompt_tokens;
        steps = part.steps;
        s += part.own_prompt_tokens * k->prompt_token_s + part.pairs * k->prompt_pair_s;
        s += part.steps * (k->step_stream_s + k->logits_s) + part.step_slots * k->step_slot_s;
        if (c->arm == KVG_ARM_FLOOR) /* alone, so nothing is shared */
            s += first * k->prompt_token_s + steps * (k->step_s - k->step_stream_s);
    }
    if (n == 0)
        return 0;
    size_t length = kvg_plan_item_length(p, kvg_plan_tokens(&p->items[g->item], g->question_index),
                                         KVG_LANE_DRIFT, g->mode);
    double len = (double)length;
    double causal = len * k->prompt_token_s + len * len / 2 * k->prompt_pair_s;
    s += first * k->prompt_token_s + steps * (k->step_s - k->step_stream_s + k->logits_s) + causal;
    /* In free mode the baseline writes its reply first, one stream alone. */
    if (g->mode == KVG_MODE_FREE)
        s += len * k->prompt_token_s + steps * (k->step_s + k->logits_s);
    return s;
}

static double time_cell(const struct kvg_runplan *p, const struct kvg_cell *c,
                        const struct kvg_run_cost *k)
{
    struct part part = cell_part(p, c);
    return (double)c->n_prompt_tokens * k->prompt_token_s + part.pairs * k->prompt_pair_s +
           part.steps * (k->step_s + k->logits_s / 2) + part.step_slots * k->step_slot_s;
}

static double uncached_group(const struct kvg_runplan *p, const struct kvg_run_cost *k)
{
    double s = 0;
    for (size_t i = 0; i < p->n_depths; i++) {
        double d = (double)p->depths[i];
        s += d * k->prompt_token_s + d * d / 2 * k->prompt_pair_s;
    }
    return s;
}

static double bench_time(const struct kvg_runplan *p, const struct kvg_run_cost *k)
{
    const struct kvg_suite *s = p->suite;
    if (!s->bench)
        return 0;
    size_t n = s->bench_strategies.n ? s->bench_strategies.n : p->n_listed;
    double sum = 0, gen = (double)s->bench_n_gen;
    for (size_t i = 0; i < s->n_bench_depths; i++) {
        double d = (double)s->bench_depths[i];
        sum += d * k->prompt_token_s + d * d / 2 * k->prompt_pair_s +
               gen * (k->step_s + d * k->step_slot_s);
    }
    return sum * (double)n;
}

/* Attention over a small model: the real one's cost, scaled by what is read of the cache. */
static double recall_time(const struct kvg_runplan *p, const struct kvg_run_cost *k)
{
    const struct kvg_suite *s = p->suite;
    const struct kvg_model *m = p->model;
    if (!s->recall)
        return 0;
    size_t n = s->recall_strategies.n ? s->recall_strategies.n : p->n_listed;
    double scale = KVG_INDUCTION_ATTENTION / (double)(m->n_layers * m->n_kv_heads * m->d_head);
    double n_prompts = (double)((n + KVG_RECALL_GROUP - 1) / KVG_RECALL_GROUP), sum = 0;
    for (size_t i = 0; i < s->n_recall_lengths; i++) {
        double len = (double)s->recall_lengths[i];
        sum += n_prompts * len * len / 2 * k->prompt_pair_s +
               (double)(n * s->recall_facts) * len * k->step_slot_s;
    }
    return KVG_RECALL_QUERIES * scale * sum;
}

void kvg_runplan_estimate(struct kvg_runplan *p, const struct kvg_run_cost *cost)
{
    p->est_bench_seconds = bench_time(p, cost);
    p->est_recall_seconds = recall_time(p, cost);
    p->est_seconds = p->est_bench_seconds + p->est_recall_seconds;
    for (size_t i = 0; i < p->n_groups; i++) {
        struct kvg_group *g = &p->groups[i];
        double n = 0;
        g->est_seconds = g->kind == KVG_GROUP_DRIFT      ? drift_group(p, g, cost)
                         : g->kind == KVG_GROUP_UNCACHED ? uncached_group(p, cost)
                                                         : 0;
        for (size_t c = g->first; c < g->first + g->n; c++)
            n += p->cells[c].status == KVG_CELL_TODO;
        for (size_t c = g->first; c < g->first + g->n; c++) {
            struct kvg_cell *cell = &p->cells[c];
            if (cell->status != KVG_CELL_TODO)
                continue;
            cell->est_seconds =
                g->kind == KVG_GROUP_TIME ? time_cell(p, cell, cost) : g->est_seconds / n;
            g->est_seconds += g->kind == KVG_GROUP_TIME ? cell->est_seconds : 0;
        }
        p->est_seconds += g->est_seconds;
    }
}
