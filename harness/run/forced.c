/* Owns which cells of a group run together and what they are compared with. */
#include "run/forced.h"

#include "run/baseline.h"
#include "run/lockstep.h"
#include "run/own.h"

#include <string.h>

struct work {
    struct kvg_rig *rig;
    const struct kvg_group *group;
    struct kvg_replay replay;
    float *base;  /* [n_scored, n_embd] */
    float **rows; /* [group->n] rows of MAIN cells that have a FLOOR cell to run; else NULL */
};

static const struct kvg_cell *cell_at(const struct work *w, size_t i)
{
    return &w->rig->plan->cells[w->group->first + i];
}

static int is_open(const struct work *w, size_t i)
{
    return kvg_rows_is_open(w->rig->rows, cell_at(w, i));
}

/* The MAIN cell that a FLOOR cell repeats, or group->n. */
static size_t main_of(const struct work *w, size_t floor)
{
    const struct kvg_cell *f = cell_at(w, floor);
    size_t i = 0;
    for (; i < w->group->n; i++) {
        const struct kvg_cell *c = cell_at(w, i);
        if (c->arm == KVG_ARM_MAIN && c->strategy == f->strategy && c->seed_index == f->seed_index)
            break;
    }
    return i;
}

/* Every open FLOOR cell needs its MAIN cell's rows, also when that one is done already. */
static int reserve_rows(struct work *w, struct kvg_err *err)
{
    size_t n = w->replay.n_scored * w->rig->n_embd + 1;
    w->rows = kvg_arena_array(&w->rig->arena, w->group->n, sizeof *w->rows);
    w->base = kvg_arena_array(&w->rig->arena, n, sizeof *w->base);
    int ok = w->rows && w->base;
    for (size_t i = 0; i < w->group->n && ok; i++) {
        if (cell_at(w, i)->arm != KVG_ARM_FLOOR || !is_open(w, i))
            continue;
        size_t m = main_of(w, i);
        if (m < w->group->n && !w->rows[m])
            ok = (w->rows[m] = kvg_arena_array(&w->rig->arena, n, sizeof(float))) != NULL;
    }
    return ok ? KVG_OK : KVG_FAIL(err, KVG_ENOMEM, "out of memory for the rows of an item");
}

/* Writes the cells of the group that cannot be run, all with the same reason. */
static int fail_all(struct work *w, const char *reason, struct kvg_err *err)
{
    struct kvg_record rec = {.error = reason};
    int rc = KVG_OK;
    for (size_t i = 0; i < w->group->n && !rc; i++)
        if (is_open(w, i))
            rc = kvg_rows_put(w->rig->rows, cell_at(w, i), &rec, err);
    return rc;
}

static int put_slots(struct work *w, struct kvg_slot **slots, size_t n, struct kvg_err *err)
{
    int rc = KVG_OK;
    for (size_t i = 0; i < n && !rc; i++)
        if (slots[i]->cell)
            rc = kvg_rows_put(w->rig->rows, slots[i]->cell, &slots[i]->rec, err);
    return rc;
}

static size_t copies_before(const struct work *w, const size_t *who, size_t n, size_t i)
{
    size_t copies = 0;
    for (size_t k = 0; k < n; k++)
        copies += cell_at(w, who[k])->strategy == cell_at(w, i)->strategy;
    return copies;
}

static int run_main(struct work *w, const size_t *who, size_t n, struct kvg_err *err)
{
    struct kvg_slot *slots[KVG_STREAMS_MAX];
    float *saved[KVG_STREAMS_MAX];
    const struct kvg_plan_item *item = &w->rig->plan->items[w->group->item];
    int rc = KVG_OK;
    for (size_t k = 0; k < n && !rc; k++) {
        const struct kvg_cell *c = cell_at(w, who[k]);
        rc = kvg_rig_slot(w->rig, c, copies_before(w, who, k, who[k]), &slots[k], err);
        if (rc)
            return rc;
        slots[k]->cell = is_open(w, who[k]) ? c : NULL;
        saved[k] = w->rows[who[k]];
    }
    struct kvg_lockstep run = {.slots = slots,
                               .n = n,
                               .replay = &w->replay,
                               .base = w->base,
                               .saved = saved,
                               .unseen = w->group->unseen,
                               .maps_kept = item->kept && !w->group->question_index};
    rc = kvg_lockstep_run(w->rig, &run, err);
    return rc ? rc : put_slots(w, slots, n, err);
}

/* Another way to compute the same thing: the next lower CPU level, the next higher one when there
 * is none, or prompts as rows when the machine has one level only. */
static void other_order(struct kvg_rig *rig, int on)
{
    const char *const *levels = kvg_kernels_levels();
    const char *other = NULL;
    for (size_t i = 0; levels[i]; i++)
        if (!strcmp(levels[i], rig->opt->kernels->name))
            other = i ? levels[i - 1] : levels[i + 1];
    if (other)
        kvg_engine_set_kernels(rig->engine, on ? kvg_kernels_get(other) : NULL);
    else
        kvg_engine_set_row_ordered(rig->engine, on);
}

static int run_floor(struct work *w, size_t i, struct kvg_err *err)
{
    const struct kvg_cell *c = cell_at(w, i);
    struct kvg_slot *slot;
    int rc = kvg_rig_slot(w->rig, c, 0, &slot, err);
    if (rc)
        return rc;
    slot->cell = c;
    struct kvg_lockstep run = {.slots = &slot,
                               .n = 1,
                               .replay = &w->replay,
                               .base = w->rows[main_of(w, i)],
                               .unseen = w->group->unseen};
    other_order(w->rig, 1);
    rc = kvg_lockstep_run(w->rig, &run, err);
    other_order(w->rig, 0);
    return rc ? rc : put_slots(w, &slot, 1, err);
}

static int run_cells(struct work *w, struct kvg_err *err)
{
    size_t who[KVG_STREAMS_MAX], n = 0;
    int rc = KVG_OK;
    for (size_t i = 0; i < w->group->n && !rc; i++) {
        if (cell_at(w, i)->arm == KVG_ARM_MAIN && (is_open(w, i) || w->rows[i]))
            who[n++] = i;
        if (n == w->rig->max_streams || (n && i + 1 == w->group->n)) {
            rc = run_main(w, who, n, err);
            n = 0;
        }
    }
    for (size_t i = 0; i < w->group->n && !rc; i++)
        if (cell_at(w, i)->arm == KVG_ARM_FLOOR && is_open(w, i) && main_of(w, i) < w->group->n)
            rc = run_floor(w, i, err);
    return rc;
}

int kvg_forced_group(struct kvg_rig *rig, const struct kvg_group *group, struct kvg_err *err)
{
    struct work w = {.rig = rig, .group = group};
    const struct kvg_suite *suite = rig->plan->suite;
    const struct kvg_plan_item *item = &rig->plan->items[group->item];
    struct kvg_own own = {0};
    kvg_arena_reset(&rig->arena);
    int rc =
        kvg_replay_init(&w.replay, kvg_plan_tokens(item, group->question_index), &rig->arena, err);
    if (!rc && item->target == KVG_TARGET_GREEDY)
        rc = kvg_own_write(rig, &item->tokens, suite->free_tokens, &own, err);
    if (!rc && own.error)
        return fail_all(&w, own.error, err);
    if (!rc && item->target == KVG_TARGET_GREEDY)
        kvg_own_replies(&own, &w.replay);
    if (group->question_index)
        kvg_replay_score_planned(&w.replay);
    else if (!rc)
        rc = kvg_replay_score(&w.replay, suite->reply_tokens, &rig->arena, err);
    if (rc)
        return rc;
    if (w.replay.n_max > rig->max_tokens)
        return fail_all(&w, kvg_rig_context_reason(rig, w.replay.n_max), err);
    rc = reserve_rows(&w, err);
    if (!rc)
        rc = kvg_baseline_rows(rig, &w.replay, w.base, err);
    return rc ? rc : run_cells(&w, err);
}
