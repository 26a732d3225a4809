/* Owns equal bytes in a plan: every strategy at every target, and the budgets that meet them item
 * by item. Must not know how a cell is measured. */
#include "run/equalbytes.h"
#include "run/runplan_impl.h"

#include <string.h>

/* The spec without its option `budget`, which the target replaces. */
static char *without_budget(const char *spec, struct kvg_arena *a)
{
    char *out = kvg_arena_strdup(a, spec);
    char *at = out ? strstr(out, "budget=") : NULL;
    if (!at || at == out || !strchr(":,", at[-1]))
        return out;
    size_t n = strcspn(at, ",+");
    if (at[n] == ',') /* options follow */
        memmove(at, at + n + 1, strlen(at + n + 1) + 1);
    else /* the last one: the sign before it goes too */
        memmove(at - 1, at + n, strlen(at + n) + 1);
    return out;
}

const char *kvg_fit_label(const char *spec, double target, struct kvg_arena *a)
{
    char *bare = without_budget(spec, a);
    return bare ? kvg_arena_printf(a, "%s@%.0fB", bare, target) : NULL;
}

const char *kvg_fit_resolved(const char *resolved, double target, struct kvg_arena *a)
{
    const char *at = strstr(resolved, "budget=");
    if (!at)
        return resolved;
    at += strlen("budget=");
    return kvg_arena_printf(a, "%.*sfit:%.0fB%s", (int)(at - resolved), resolved, target,
                            at + strcspn(at, ",+"));
}

/* Length of the text at the end of the last prompt that is measured in a lane. */
static size_t prompt_end(const struct kvg_item_tokens *t, enum kvg_lane lane)
{
    const struct kvg_turn_tokens *u =
        &t->turns[lane == KVG_LANE_TIME ? t->last_timed : t->last_scored];
    return u->start + u->n_prompt;
}

/* The same for what a budget of kvg_plan_strategy.fits is meant for. Of two questions the first
 * counts: compression comes there. */
static size_t fit_length(const struct kvg_plan_item *it, size_t use)
{
    if (use == KVG_FIT_SECOND)
        return it->second ? it->second[0].turns[0].n_prompt : 0;
    return prompt_end(&it->tokens, (enum kvg_lane)use);
}

static size_t longest_prompt(const struct kvg_runplan *p)
{
    size_t most = 1;
    for (size_t i = 0; i < p->n_items; i++)
        for (size_t use = 0; use < KVG_FIT_N; use++) {
            size_t n = fit_length(&p->items[i], use);
            most = n > most ? n : most;
        }
    return most < p->model->n_ctx ? most : p->model->n_ctx;
}

static int fit_one(struct kvg_runplan *p, struct kvg_equal *e, struct kvg_plan_strategy *s,
                   size_t item, size_t use, struct kvg_err *err)
{
    struct kvg_fit *f = &s->fits[item * KVG_FIT_N + use];
    size_t n = fit_length(&p->items[item], use);
    struct kvg_err why;
    if (n > p->model->n_ctx)
        return 0; /* the cell ends with the context's error */
    int rc = kvg_equal_find(e, n, s->target_bytes, &f->budget, &why);
    if (rc == KVG_ENONE)
        f->reason = kvg_arena_strdup(&p->arena, why.msg);
    else if (rc)
        *err = why;
    if (rc == KVG_ENONE && !f->reason)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    f->is_set = !rc && s->budget;
    return rc == KVG_ENONE ? 0 : rc;
}

static int fit_strategy(struct kvg_runplan *p, struct kvg_equal *e, struct kvg_plan_strategy *s,
                        struct kvg_err *err)
{
    int rc = 0;
    s->fits = kvg_arena_array(&p->arena, p->n_items * KVG_FIT_N, sizeof *s->fits);
    if (!s->fits)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n_items && !rc; i++) {
        if (p->items[i].drift)
            rc = fit_one(p, e, s, i, KVG_LANE_DRIFT, err);
        if (!rc && p->items[i].timed)
            rc = fit_one(p, e, s, i, KVG_LANE_TIME, err);
        if (!rc && p->items[i].second)
            rc = fit_one(p, e, s, i, KVG_FIT_SECOND, err);
    }
    return rc;
}

int kvg_runplan_fit(struct kvg_runplan *p, struct kvg_err *err)
{
    size_t longest = longest_prompt(p);
    struct kvg_equal *e = NULL;
    const char *opened = "";
    int rc = 0;
    for (size_t i = 0; i < p->n_strategies && !rc; i++) {
        struct kvg_plan_strategy *s = &p->strategies[i];
        if (!s->target_bytes)
            continue;
        if (strcmp(opened, s->spec)) { /* targets of one spec stand together */
            kvg_equal_close(e);
            e = NULL;
            opened = s->spec;
            rc = kvg_equal_open(&e, s->spec, p->model, longest, &p->arena, err);
        }
        if (!rc)
            rc = fit_strategy(p, e, s, err);
    }
    kvg_equal_close(e);
    return rc;
}
