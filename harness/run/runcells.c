/* Owns the cells and groups of a plan: which strategy meets which item, in which order, under which
 * key and seed. Must not know how a cell is measured. */
#include "base/hash.h"
#include "base/rng.h"
#include "run/runplan_impl.h"

#include "model/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_DEPTH = 64 };

size_t kvg_plan_item_length(const struct kvg_runplan *p, const struct kvg_item_tokens *t,
                            enum kvg_lane lane, enum kvg_mode mode)
{
    size_t longest = 0;
    if (lane == KVG_LANE_DRIFT && mode == KVG_MODE_FREE) {
        size_t *end = kvg_arena_array((struct kvg_arena *)&p->arena, t->n_turns, sizeof *end);
        for (size_t i = 0; end && i < t->n_turns; i++) {
            end[i] = t->turns[i].n_prompt + p->suite->free_tokens +
                     (t->turns[i].parent < 0 ? 0 : end[t->turns[i].parent]);
            longest = end[i] > longest ? end[i] : longest;
        }
        return longest;
    }
    size_t last = lane == KVG_LANE_TIME ? t->last_timed : t->last_scored;
    for (size_t i = 0; i <= last; i++) {
        const struct kvg_turn_tokens *u = &t->turns[i];
        size_t fed = i < last                ? u->n_reply
                     : lane == KVG_LANE_TIME ? u->n_timed
                                             : kvg_turn_steps(u) + 1;
        size_t end = u->start + u->n_prompt + fed;
        longest = end > longest ? end : longest;
    }
    return longest;
}

/* ---- one cell ---- */

static void set_key(const struct kvg_runplan *p, struct kvg_cell *c)
{
    const struct kvg_plan_strategy *s = &p->strategies[c->strategy];
    const struct kvg_plan_item *it = &p->items[c->item];
    const struct kvg_suite *suite = p->suite;
    uint64_t named = kvg_hash_fnv_str(KVG_FNV_INIT, s->label);
    named = kvg_hash_fnv_str(named, it->tokens.workload->name);
    named = kvg_hash_fnv_str(named, it->tokens.item->id);
    uint64_t index = c->seed_index;
    named = kvg_hash_fnv(named, &index, sizeof index);
    c->seed = kvg_rng_split(suite->seed, named);

    uint64_t limits[] = {suite->reply_tokens, suite->free_tokens, suite->time_reply_tokens,
                         suite->max_turns, suite->uncached_depths};
    uint64_t where[] = {c->mode,     c->target,           c->lane,
                        c->arm,      c->seed_index,       c->round,
                        suite->seed, (uint64_t)c->unseen, c->question_index};
    uint64_t h = kvg_hash_fnv_str(KVG_FNV_INIT, p->model_sha256);
    h = kvg_hash_fnv_str(h, s->label);
    h = kvg_hash_fnv_str(h, s->resolved);
    h = kvg_hash_fnv_str(h, it->tokens.workload->sha256);
    h = kvg_hash_fnv_str(h, it->tokens.item->id);
    h = kvg_hash_fnv(h, limits, sizeof limits);
    h = kvg_hash_fnv(h, where, sizeof where);
    snprintf(c->id, sizeof c->id, "%016llx", (unsigned long long)h);
}

static void set_counts(struct kvg_runplan *p, struct kvg_cell *c)
{
    const struct kvg_item_tokens *t = kvg_plan_tokens(&p->items[c->item], c->question_index);
    int is_free = c->lane == KVG_LANE_DRIFT && c->mode == KVG_MODE_FREE;
    size_t last = is_free                    ? t->n_turns - 1
                  : c->lane == KVG_LANE_TIME ? t->last_timed
                                             : t->last_scored;
    for (size_t i = 0; i <= last; i++) {
        const struct kvg_turn_tokens *u = &t->turns[i];
        size_t fed = is_free                    ? p->suite->free_tokens
                     : c->lane == KVG_LANE_TIME ? u->n_timed
                                                : kvg_turn_steps(u);
        size_t reply = is_free ? fed : u->n_reply;
        c->n_steps += fed;
        c->n_prompt_tokens += u->n_prompt;
        if (i < last && reply > fed)
            c->n_prompt_tokens += reply - fed;
    }
}

static void set_status(struct kvg_runplan *p, struct kvg_cell *c)
{
    const struct kvg_plan_strategy *s = &p->strategies[c->strategy];
    const struct kvg_needs *needs = &s->pipe.needs;
    size_t need = kvg_plan_item_length(p, kvg_plan_tokens(&p->items[c->item], c->question_index),
                                       c->lane, c->mode);
    c->store_bytes = kvg_stream_store_bytes(p->model, &s->pipe, need);
    if (need > p->model->n_ctx) {
        c->status = KVG_CELL_ERROR;
        c->reason = kvg_arena_printf(&p->arena, "context: needs %zu tokens, the model has %zu",
                                     need, p->model->n_ctx);
    } else if (c->fit && c->fit->reason) {
        c->status = KVG_CELL_SKIPPED;
        c->reason = c->fit->reason;
    } else if (s->pipe.role == KVG_ROLE_BASELINE && c->lane == KVG_LANE_DRIFT) {
        c->status = KVG_CELL_SKIPPED;
        c->reason = "the baseline does not drift from itself";
    } else if (needs->question && c->unseen) {
        c->status = KVG_CELL_SKIPPED;
        c->reason = "query: the strategy chooses by the question, which is unseen here";
    } else if (needs->future && c->lane == KVG_LANE_DRIFT && c->mode == KVG_MODE_FREE) {
        c->status = KVG_CELL_SKIPPED;
        c->reason = "mode: the strategy looks at a recorded reply, which free mode does not have";
    } else {
        p->n_todo++;
        if (need > p->max_tokens)
            p->max_tokens = need;
    }
}

static const char *query_of(const struct kvg_runplan *p, const struct kvg_cell *c)
{
    const struct kvg_plan_strategy *s = &p->strategies[c->strategy];
    size_t n_turns = kvg_plan_tokens(&p->items[c->item], c->question_index)->n_turns;
    if (!s->chooses)
        return "";
    if (c->unseen)
        return "unseen";
    return s->pipe.keep->schedule.kind == KVG_SCHED_PROMPT && n_turns > 1 ? "mixed" : "seen";
}

static struct kvg_cell *add_cell(struct kvg_runplan *p, const struct kvg_group *g, size_t strategy,
                                 enum kvg_arm arm, size_t seed_index)
{
    struct kvg_cell *c = &p->cells[p->n_cells++];
    c->strategy = (uint32_t)strategy;
    c->item = g->item;
    c->mode = g->mode;
    c->target = p->items[g->item].target;
    c->lane = g->kind == KVG_GROUP_DRIFT ? KVG_LANE_DRIFT : KVG_LANE_TIME;
    c->arm = arm;
    c->round = g->round;
    c->seed_index = seed_index;
    /* The time lane takes one choice, and no part of it depends on which. */
    c->unseen = g->kind == KVG_GROUP_DRIFT
                    ? g->unseen
                    : p->strategies[strategy].chooses && !p->suite->queries[KVG_QUERY_SEEN];
    size_t use = g->question_index ? KVG_FIT_QUESTION + g->question_index - 1 : (size_t)c->lane;
    if (p->strategies[strategy].fits)
        c->fit = &p->strategies[strategy].fits[kvg_fit_index(c->item, use, c->unseen)];
    c->question_index = g->question_index;
    c->query = query_of(p, c);
    set_key(p, c);
    set_counts(p, c);
    set_status(p, c);
    return c;
}

/* ---- groups ---- */

static struct kvg_group *begin_group(struct kvg_runplan *p, enum kvg_group_kind kind, size_t item,
                                     enum kvg_mode mode, size_t round)
{
    struct kvg_group *g = &p->groups[p->n_groups++];
    *g = (struct kvg_group){
        .kind = kind, .item = (uint32_t)item, .mode = mode, .round = round, .first = p->n_cells};
    return g;
}

/* What chooses nothing runs once, beside those that see the question. */
static int is_in_group(const struct kvg_runplan *p, const struct kvg_group *g, size_t strategy)
{
    if (strategy >= p->n_listed && strategy != p->floor)
        return 0;
    if (!p->strategies[strategy].chooses)
        return !g->unseen;
    return p->suite->queries[g->unseen ? KVG_QUERY_UNSEEN : KVG_QUERY_SEEN];
}

static void add_drift_group(struct kvg_runplan *p, size_t item, enum kvg_mode mode,
                            enum kvg_query query, size_t question_index)
{
    struct kvg_group *g = begin_group(p, KVG_GROUP_DRIFT, item, mode, 0);
    size_t n_seeds = p->suite->n_seeds;
    g->unseen = query == KVG_QUERY_UNSEEN;
    g->question_index = question_index;
    for (size_t i = 0; i < p->n_strategies; i++) {
        const struct kvg_plan_strategy *s = &p->strategies[i];
        if (!is_in_group(p, g, i))
            continue;
        if (!s->takes_seed || p->suite->seeds_mode == KVG_SEEDS_ROTATE)
            add_cell(p, g, i, KVG_ARM_MAIN, s->takes_seed ? item % n_seeds : 0);
        else
            for (size_t k = 0; k < n_seeds; k++)
                add_cell(p, g, i, KVG_ARM_MAIN, k);
    }
    if (p->items[item].floor && mode == KVG_MODE_FORCED && !question_index)
        for (size_t i = 0; i < p->n_listed; i++)
            if (p->strategies[i].pipe.path_dependent && is_in_group(p, g, i))
                add_cell(p, g, i, KVG_ARM_FLOOR, p->strategies[i].takes_seed ? item % n_seeds : 0);
    g->n = p->n_cells - g->first;
    p->n_groups -= g->n == 0;
}

static void add_drift_groups(struct kvg_runplan *p, size_t item)
{
    const struct kvg_suite *s = p->suite;
    const struct kvg_plan_item *it = &p->items[item];
    for (int q = 0; q < KVG_QUERY_N; q++) {
        enum kvg_query query = (enum kvg_query)q;
        if (it->drift && s->modes[KVG_MODE_FORCED])
            add_drift_group(p, item, KVG_MODE_FORCED, query, 0);
        if (it->free)
            add_drift_group(p, item, KVG_MODE_FREE, query, 0);
        for (size_t k = 1; k <= 2 && it->second; k++)
            add_drift_group(p, item, KVG_MODE_FORCED, query, k);
    }
}

static void add_time_group(struct kvg_runplan *p, size_t item, size_t round)
{
    struct kvg_group *g = begin_group(p, KVG_GROUP_TIME, item, KVG_MODE_FORCED, round);
    for (size_t i = 0; i < p->n_strategies; i++)
        if (p->strategies[i].timed)
            add_cell(p, g, i, KVG_ARM_MAIN,
                     p->strategies[i].takes_seed ? round % p->suite->n_seeds : 0);
    add_cell(p, g, p->floor, KVG_ARM_BARE, 0);
    g->n = p->n_cells - g->first;
    struct kvg_rng rng = {kvg_rng_split(p->suite->seed, 1 + item * 65536 + round)};
    for (size_t i = g->n; i > 1; i--) {
        size_t j = (size_t)kvg_rng_below(&rng, i);
        struct kvg_cell t = p->cells[g->first + i - 1];
        p->cells[g->first + i - 1] = p->cells[g->first + j];
        p->cells[g->first + j] = t;
    }
}

/* The baseline is timed on the longest timed item that fits the model. */
static size_t longest_timed(const struct kvg_runplan *p)
{
    size_t best = SIZE_MAX, longest = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        size_t n = kvg_plan_item_length(p, &p->items[i].tokens, KVG_LANE_TIME, KVG_MODE_FORCED);
        if (p->items[i].timed && n > longest && n <= p->model->n_ctx) {
            best = i;
            longest = n;
        }
    }
    return best;
}

static int add_uncached_group(struct kvg_runplan *p, struct kvg_err *err)
{
    size_t item = longest_timed(p), n = p->suite->uncached_depths;
    if (item == SIZE_MAX || n == 0)
        return 0;
    const struct kvg_item_tokens *t = &p->items[item].tokens;
    const struct kvg_turn_tokens *last = &t->turns[t->last_timed];
    double hi = (double)(last->start + last->n_prompt);
    double lo = hi < FIRST_DEPTH ? hi : FIRST_DEPTH;
    p->depths = kvg_arena_array(&p->arena, n, sizeof *p->depths);
    if (!p->depths)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        double x = n > 1 ? (double)i / (double)(n - 1) : 1;
        size_t d = (size_t)llround(lo * pow(hi / lo, x));
        if (p->n_depths == 0 || d > p->depths[p->n_depths - 1])
            p->depths[p->n_depths++] = d;
    }
    struct kvg_group *g = begin_group(p, KVG_GROUP_UNCACHED, item, KVG_MODE_FORCED, 0);
    struct kvg_cell *c = add_cell(p, g, p->baseline, KVG_ARM_MAIN, 0);
    c->n_prompt_tokens = 0;
    for (size_t i = 0; i < p->n_depths; i++)
        c->n_prompt_tokens += p->depths[i];
    c->n_steps = p->n_depths;
    g->n = 1;
    return 0;
}

static void add_memory(struct kvg_runplan *p)
{
    size_t widest = 0;
    for (size_t k = 0; k < p->n_groups; k++) {
        const struct kvg_group *g = &p->groups[k];
        size_t sum = 0, most = 0, n = 0;
        for (size_t i = g->first; i < g->first + g->n; i++) {
            const struct kvg_cell *c = &p->cells[i];
            if (c->status != KVG_CELL_TODO)
                continue;
            sum += c->store_bytes;
            n++;
            most = c->store_bytes > most ? c->store_bytes : most;
            size_t *b = &p->strategies[c->strategy].store_bytes;
            *b = c->store_bytes > *b ? c->store_bytes : *b;
        }
        if (n > KVG_STREAMS_MAX) /* so many streams are open at a time */
            sum = sum / n * KVG_STREAMS_MAX;
        size_t bytes = g->kind == KVG_GROUP_DRIFT ? sum : most;
        widest = bytes > widest ? bytes : widest;
    }
    p->est_bytes = p->model->weight_bytes + widest;
}

int kvg_runplan_add_cells(struct kvg_runplan *p, struct kvg_err *err)
{
    const struct kvg_suite *s = p->suite;
    size_t per_group = 1;
    size_t drift = (KVG_MODE_N + (s->second_question ? 2 : 0)) * KVG_QUERY_N;
    size_t max_groups = p->n_items * (drift + (s->lanes[KVG_LANE_TIME] ? s->rounds : 0)) + 1;
    for (size_t i = 0; i < p->n_strategies; i++) /* and a floor's cell or a bare one */
        per_group += (p->strategies[i].takes_seed ? s->n_seeds : 1) + 1;
    p->groups = kvg_arena_array(&p->arena, max_groups, sizeof *p->groups);
    p->cells = kvg_arena_array(&p->arena, max_groups * per_group, sizeof *p->cells);
    if (!p->groups || !p->cells)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n_items; i++)
        add_drift_groups(p, i);
    for (size_t r = 0; s->lanes[KVG_LANE_TIME] && r < s->rounds; r++)
        for (size_t i = 0; i < p->n_items; i++)
            if (p->items[i].timed)
                add_time_group(p, i, r);
    int rc = s->lanes[KVG_LANE_TIME] ? add_uncached_group(p, err) : 0;
    add_memory(p);
    return rc;
}
