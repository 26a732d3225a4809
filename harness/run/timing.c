/* Owns timed replays. The order of the cells is the plan's; the overhead of the harness comes from
 * the group's bare arm. */
#include "run/timing.h"

#include "base/clock.h"
#include "result/stats.h"
#include "run/own.h"
#include "run/prompt.h"
#include "run/replay.h"
#include "run/stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct timed {
    struct kvg_rig *rig;
    const struct kvg_replay *replay;
    struct kvg_slot *slot;
    struct kvg_turn_record *turn;
};

/* The phases of the engine's calls, and around them what the caller's clock saw. */
static struct kvg_times times_of(const struct kvg_times *phases, uint64_t total, uint64_t logits)
{
    struct kvg_times t = *phases;
    t.total = total;
    t.logits = logits;
    return t;
}

static int timed_prompt(struct timed *x, size_t turn, struct kvg_err *err)
{
    struct kvg_rig *rig = x->rig;
    struct kvg_stream *s = &x->slot->stream;
    const struct kvg_replay_turn *u = &x->replay->turns[turn];
    struct kvg_times phases;
    size_t n = kvg_replay_prompt(x->replay, turn, rig->tokens);
    const struct kvg_prompt p = {.streams = &s,
                                 .n_streams = 1,
                                 .tokens = rig->tokens,
                                 .n = n,
                                 .n_future = kvg_rig_add_future(rig, x->replay, turn, n),
                                 .n_context = kvg_replay_question(x->replay, turn),
                                 .unseen = x->slot->cell->unseen,
                                 .hidden = rig->hidden,
                                 .times = &phases};
    int rc = kvg_stop_check(err);
    kvg_record_mark(s);
    kvg_replay_mark(x->replay, turn, &s->text);
    uint64_t t0 = kvg_clock_ns();
    if (!rc)
        rc = kvg_rig_rewind(rig, s, u, err);
    if (!rc)
        rc = kvg_prompt_feed(rig->engine, &p, err);
    uint64_t t1 = kvg_clock_ns();
    if (rc)
        return rc;
    kvg_engine_logits(rig->engine, rig->hidden, 1, rig->logits);
    uint64_t t2 = kvg_clock_ns();
    struct kvg_times t = times_of(&phases, t2 - t0, t2 - t1);
    kvg_record_add_times(&x->slot->rec.times, &t);
    x->slot->rec.prefill_ns += t1 - t0;
    x->slot->rec.n_forward++;
    x->turn->n_prompt = n;
    kvg_record_prompt_end(x->turn, s);
    x->turn->ttft_ns = t2 - t0;
    x->turn->prefill_ns = t1 - t0;
    kvg_progress_tokens(rig->pr, n, -1);
    return kvg_record_check(s, err);
}

static int timed_step(struct timed *x, size_t turn, size_t j, struct kvg_err *err)
{
    struct kvg_rig *rig = x->rig;
    struct kvg_stream *s = &x->slot->stream;
    const struct kvg_replay_turn *u = &x->replay->turns[turn];
    int32_t token = u->reply[j];
    int rc = kvg_stop_check(err);
    if (rc)
        return rc;
    kvg_prompt_set_future(s, u->reply + j + 1, u->n_reply - j - 1);
    uint64_t t0 = kvg_clock_ns();
    rc = kvg_engine_step(rig->engine, &s, 1, &token, rig->hidden, err);
    uint64_t t1 = kvg_clock_ns();
    if (rc)
        return rc;
    kvg_engine_logits(rig->engine, rig->hidden, 1, rig->logits);
    uint64_t t2 = kvg_clock_ns();
    struct kvg_step_record *rec = kvg_record_step(&x->slot->rec);
    if (!rec)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the steps of a cell");
    rec->turn = (uint32_t)turn;
    rec->step = (uint32_t)j;
    rec->pos = (uint32_t)kvg_replay_pos(x->replay, turn, j);
    rec->has_times = 1;
    rec->times = times_of(kvg_engine_times(rig->engine), t2 - t0, t2 - t1);
    kvg_record_add_times(&x->slot->rec.times, &rec->times);
    x->turn->steps_ns += rec->times.total;
    x->turn->n_timed++;
    x->slot->rec.n_forward++;
    kvg_progress_tokens(rig->pr, 1, -1);
    return KVG_OK;
}

static int timed_turn(struct timed *x, size_t turn, struct kvg_err *err)
{
    const struct kvg_replay_turn *u = &x->replay->turns[turn];
    struct kvg_stream *s = &x->slot->stream;
    uint64_t n_evicted = s->store->count.n_evicted;
    x->turn = kvg_record_turn(&x->slot->rec);
    if (!x->turn)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the turns of a cell");
    x->turn->turn = (uint32_t)turn;
    x->turn->n_reply = u->n_reply;
    x->turn->finish = KVG_FINISH_GIVEN;
    int rc = timed_prompt(x, turn, err);
    for (size_t j = 0; j < u->n_fed && !rc; j++)
        rc = timed_step(x, turn, j, err);
    if (!rc && turn + 1 < x->replay->n_used)
        rc = kvg_engine_end_turn(x->rig->engine, s, err);
    kvg_record_peak(&x->slot->rec, x->turn, s, x->rig->engine);
    kvg_record_turn_end(x->turn, s);
    x->turn->n_evicted = s->store->count.n_evicted - n_evicted;
    return rc;
}

/* n_turns limits a warm-up. */
static int timed_cell(struct kvg_rig *rig, const struct kvg_replay *replay,
                      const struct kvg_cell *cell, size_t n_turns, struct kvg_slot **slot,
                      struct kvg_err *err)
{
    struct timed x = {.rig = rig, .replay = replay};
    /* The bare arm has a stream of its own, so that its record outlives the contract's. */
    size_t copy = cell->arm == KVG_ARM_BARE;
    int rc = kvg_rig_slot(rig, cell, copy, &x.slot, err);
    if (rc)
        return rc;
    x.slot->cell = cell;
    x.slot->stream.bare = cell->arm == KVG_ARM_BARE;
    x.slot->rec.has_times = 1;
    x.slot->rec.finish = KVG_FINISH_GIVEN;
    kvg_engine_set_timed(rig->engine, 1);
    for (size_t t = 0; t < replay->n_used && t < n_turns && !rc; t++)
        rc = timed_turn(&x, t, err);
    kvg_engine_set_timed(rig->engine, 0);
    *slot = x.slot;
    return rc ? rc : kvg_record_end(&x.slot->rec, &x.slot->stream, err);
}

static double median_step(const struct kvg_record *rec, struct kvg_arena *a)
{
    double *v = kvg_arena_array(a, rec->n_steps + 1, sizeof *v);
    for (size_t i = 0; v && i < rec->n_steps; i++)
        v[i] = (double)rec->steps[i].times.total;
    if (!v)
        return (double)NAN;
    kvg_stats_sort(v, rec->n_steps);
    return kvg_stats_percentile(v, rec->n_steps, 0.5);
}

static void set_overhead(struct kvg_rig *rig, struct kvg_slot *full, const struct kvg_slot *bare)
{
    double ns = median_step(&full->rec, &rig->arena) - median_step(&bare->rec, &rig->arena);
    full->rec.has_overhead = !isnan(ns);
    full->rec.overhead_ns = isnan(ns) ? 0 : llround(ns);
}

/* The strategy that keeps everything and its bare twin are written together, that one first: so a
 * resumed run finds either both to do, or none, or the twin alone. */
static int run_group(struct kvg_rig *rig, const struct kvg_group *g,
                     const struct kvg_replay *replay, struct kvg_err *err)
{
    struct kvg_slot *full = NULL, *bare = NULL;
    int rc = KVG_OK;
    for (size_t i = 0; i < g->n && !rc; i++) {
        const struct kvg_cell *c = &rig->plan->cells[g->first + i];
        struct kvg_slot *slot;
        if (!kvg_rows_is_open(rig->rows, c))
            continue;
        rc = timed_cell(rig, replay, c, SIZE_MAX, &slot, err);
        if (rc)
            break;
        if (c->arm == KVG_ARM_BARE)
            bare = slot;
        else if (rig->plan->strategies[c->strategy].pipe.role == KVG_ROLE_FLOOR)
            full = slot;
        else
            rc = kvg_rows_put(rig->rows, c, &slot->rec, err);
    }
    if (!rc && full && bare)
        set_overhead(rig, full, bare);
    if (!rc && full)
        rc = kvg_rows_put(rig->rows, full->cell, &full->rec, err);
    if (!rc && bare)
        rc = kvg_rows_put(rig->rows, bare->cell, &bare->rec, err);
    return rc;
}

/* One depth: the whole prefix through the baseline's own pipeline, which keeps nothing. */
static int timed_depth(struct kvg_rig *rig, struct kvg_slot *slot, size_t from, size_t depth,
                       size_t k, struct kvg_err *err)
{
    struct kvg_stream *s = &slot->stream;
    struct kvg_turn_record whole = {0};
    uint32_t want = (uint32_t)(depth - from - 1);
    int rc = kvg_stop_check(err);
    kvg_record_mark(s);
    uint64_t t0 = kvg_clock_ns();
    if (!rc)
        rc = kvg_engine_prompt(rig->engine, &s, 1, rig->tokens + from, depth - from, 1, &want, 1,
                               rig->hidden, err);
    uint64_t t1 = kvg_clock_ns();
    if (rc)
        return rc;
    kvg_engine_logits(rig->engine, rig->hidden, 1, rig->logits);
    uint64_t t2 = kvg_clock_ns();
    struct kvg_step_record *rec = kvg_record_step(&slot->rec);
    if (!rec)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the steps of a cell");
    rec->step = (uint32_t)k;
    rec->pos = (uint32_t)depth;
    rec->has_times = 1;
    rec->times = times_of(kvg_engine_times(rig->engine), t2 - t0, t2 - t1);
    kvg_record_add_times(&slot->rec.times, &rec->times);
    kvg_record_peak(&slot->rec, &whole, s, rig->engine);
    slot->rec.n_forward++;
    kvg_progress_tokens(rig->pr, depth, -1);
    return KVG_OK;
}

/* The item's conversation from its start; returns how many tokens there are, at most cap. */
static size_t conversation(const struct kvg_replay *r, int32_t *out, size_t cap)
{
    size_t n = 0;
    for (size_t t = 0; t < r->n_turns; t++) {
        const struct kvg_replay_turn *u = &r->turns[t];
        n = u->begin;
        for (size_t i = 0; i < u->in->n_prompt && n < cap; i++)
            out[n++] = u->in->prompt[i];
        for (size_t i = 0; i < u->n_reply && n < cap; i++)
            out[n++] = u->reply[i];
        if (n == cap)
            break;
    }
    return n;
}

static int run_depths(struct kvg_rig *rig, const struct kvg_cell *cell,
                      const struct kvg_replay *replay, struct kvg_err *err)
{
    struct kvg_slot *slot;
    const struct kvg_runplan *p = rig->plan;
    size_t from = 0, n = conversation(replay, rig->tokens, rig->max_tokens);
    int rc = kvg_rig_slot(rig, cell, 0, &slot, err);
    if (rc)
        return rc;
    slot->rec.has_times = 1;
    kvg_engine_set_timed(rig->engine, 1);
    for (size_t k = 0; k < p->n_depths && p->depths[k] <= n && !rc; k++) {
        rc = timed_depth(rig, slot, from, p->depths[k], k, err);
        from = p->depths[k];
    }
    kvg_engine_set_timed(rig->engine, 0);
    if (!rc)
        rc = kvg_record_end(&slot->rec, &slot->stream, err);
    return rc ? rc : kvg_rows_put(rig->rows, cell, &slot->rec, err);
}

static int make_replay(struct kvg_rig *rig, const struct kvg_group *g, struct kvg_replay *r,
                       const char **error, struct kvg_err *err)
{
    const struct kvg_plan_item *item = &rig->plan->items[g->item];
    struct kvg_own own = {0};
    kvg_arena_reset(&rig->arena);
    int rc = kvg_replay_init(r, &item->tokens, &rig->arena, err);
    if (!rc && item->target == KVG_TARGET_GREEDY)
        rc = kvg_own_write(rig, &item->tokens, rig->plan->suite->free_tokens, &own, err);
    *error = own.error;
    if (rc || own.error)
        return rc;
    if (item->target == KVG_TARGET_GREEDY)
        kvg_own_replies(&own, r);
    kvg_replay_step_timed(r);
    if (r->n_max > rig->max_tokens)
        *error = kvg_rig_context_reason(rig, r->n_max);
    return KVG_OK;
}

static int fail_all(struct kvg_rig *rig, const struct kvg_group *g, const char *reason,
                    struct kvg_err *err)
{
    struct kvg_record rec = {.error = reason};
    int rc = KVG_OK;
    for (size_t i = 0; i < g->n && !rc; i++)
        if (kvg_rows_is_open(rig->rows, &rig->plan->cells[g->first + i]))
            rc = kvg_rows_put(rig->rows, &rig->plan->cells[g->first + i], &rec, err);
    return rc;
}

int kvg_timing_warm_up(struct kvg_rig *rig, const struct kvg_group *g, struct kvg_err *err)
{
    struct kvg_replay replay;
    struct kvg_slot *slot;
    const char *error = NULL;
    int rc = make_replay(rig, g, &replay, &error, err);
    if (rc || error)
        return rc;
    return timed_cell(rig, &replay, &rig->plan->cells[g->first], 1, &slot, err);
}

int kvg_timing_group(struct kvg_rig *rig, const struct kvg_group *g, struct kvg_err *err)
{
    struct kvg_replay replay;
    const char *error = NULL;
    int rc = make_replay(rig, g, &replay, &error, err);
    if (rc)
        return rc;
    if (error)
        return fail_all(rig, g, error, err);
    if (g->kind == KVG_GROUP_UNCACHED)
        return kvg_rows_is_open(rig->rows, &rig->plan->cells[g->first])
                   ? run_depths(rig, &rig->plan->cells[g->first], &replay, err)
                   : KVG_OK;
    return run_group(rig, g, &replay, err);
}
