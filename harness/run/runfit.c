/* Owns equal bytes in a plan: every strategy at every target, and the budgets that meet them item
 * by item. Must not know how a cell is measured. */
#include "run/equalbytes.h"
#include "run/runplan_impl.h"

#include <string.h>

/* Where the option `budget` of the part named `keeper` begins; NULL when it has none. */
static const char *budget_of(const char *spec, const char *keeper)
{
    size_t n = strlen(keeper);
    for (const char *p = spec; p; p = strchr(p, '+')) {
        p += *p == '+';
        if (strncmp(p, keeper, n) || p[n] != ':')
            continue;
        const char *at = strstr(p, "budget="), *end = p + strcspn(p, "+");
        return at && at < end ? at : NULL;
    }
    return NULL;
}

/* The spec without its keeper's option `budget`, which the target replaces. */
static char *without_budget(const char *spec, const char *keeper, struct kvg_arena *a)
{
    char *out = kvg_arena_strdup(a, spec);
    char *at = out ? (char *)budget_of(out, keeper) : NULL;
    if (!at)
        return out;
    size_t n = strcspn(at, ",+");
    if (at[n] == ',') /* options follow */
        memmove(at, at + n + 1, strlen(at + n + 1) + 1);
    else /* the last one: the sign before it goes too */
        memmove(at - 1, at + n, strlen(at + n) + 1);
    return out;
}

const char *kvg_fit_label(const char *spec, const char *keeper, double target, struct kvg_arena *a)
{
    char *bare = without_budget(spec, keeper, a);
    return bare ? kvg_arena_printf(a, "%s@%.0fB", bare, target) : NULL;
}

const char *kvg_fit_resolved(const char *resolved, const char *keeper, double target,
                             struct kvg_arena *a)
{
    const char *at = budget_of(resolved, keeper);
    if (!at)
        return resolved;
    at += strlen("budget=");
    return kvg_arena_printf(a, "%.*sfit:%.0fB%s", (int)(at - resolved), resolved, target,
                            at + strcspn(at, ",+"));
}

/* The end of a turn's prompt. */
static struct kvg_equal_at prompt_end(const struct kvg_turn_tokens *u, int unseen)
{
    size_t more = unseen ? u->n_prompt - u->question : 0;
    return (struct kvg_equal_at){u->start + u->n_prompt - more, more};
}

/* What a budget of kvg_plan_strategy.fits is meant for: the end of the last prompt that is measured
 * in a lane, or of the question that is scored. */
static struct kvg_equal_at fit_at(const struct kvg_plan_item *it, size_t use, int unseen)
{
    const struct kvg_item_tokens *t = &it->tokens;
    if (use >= KVG_FIT_QUESTION) {
        size_t k = use - KVG_FIT_QUESTION;
        return it->second ? prompt_end(&it->second[k].turns[k], unseen) : (struct kvg_equal_at){0};
    }
    return prompt_end(&t->turns[use == KVG_LANE_TIME ? t->last_timed : t->last_scored], unseen);
}

static size_t longest_prompt(const struct kvg_runplan *p)
{
    size_t most = 1;
    for (size_t i = 0; i < p->n_items; i++)
        for (size_t use = 0; use < KVG_FIT_N; use++) {
            size_t n = fit_at(&p->items[i], use, 0).n_tokens;
            most = n > most ? n : most;
        }
    return most < p->model->n_ctx ? most : p->model->n_ctx;
}

static int fit_one(struct kvg_runplan *p, struct kvg_equal *e, struct kvg_plan_strategy *s,
                   size_t item, size_t use, int unseen, struct kvg_err *err)
{
    struct kvg_fit *f = &s->fits[kvg_fit_index(item, use, unseen)];
    struct kvg_equal_at at = fit_at(&p->items[item], use, unseen);
    struct kvg_err why;
    if (at.n_tokens + at.n_more > p->model->n_ctx || !at.n_tokens)
        return 0; /* the cell ends with the context's error; nothing to choose from */
    int rc = kvg_equal_find(e, at, s->target_bytes, &f->budget, &why);
    if (rc == KVG_ENONE)
        f->reason = kvg_arena_strdup(&p->arena, why.msg);
    else if (rc)
        *err = why;
    if (rc == KVG_ENONE && !f->reason)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    f->is_set = !rc && s->budget;
    return rc == KVG_ENONE ? 0 : rc;
}

static int is_wanted(const struct kvg_runplan *p, const struct kvg_plan_strategy *s,
                     const struct kvg_plan_item *it, size_t use, int unseen)
{
    int used = use >= KVG_FIT_QUESTION ? it->second != NULL
               : use == KVG_LANE_TIME  ? it->timed
                                       : it->drift;
    if (!s->chooses)
        return used && !unseen;
    return used && p->suite->queries[unseen ? KVG_QUERY_UNSEEN : KVG_QUERY_SEEN];
}

static int fit_strategy(struct kvg_runplan *p, struct kvg_equal *e, struct kvg_plan_strategy *s,
                        struct kvg_err *err)
{
    int rc = 0;
    s->fits = kvg_arena_array(&p->arena, kvg_fit_index(p->n_items, 0, 0), sizeof *s->fits);
    if (!s->fits)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n_items; i++)
        for (size_t use = 0; use < KVG_FIT_N; use++)
            for (int unseen = 0; unseen < 2 && !rc; unseen++)
                if (is_wanted(p, s, &p->items[i], use, unseen))
                    rc = fit_one(p, e, s, i, use, unseen, err);
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
        if (!(s->target_bytes > 0))
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
