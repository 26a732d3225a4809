/* Owns the first half of a plan: names to strategies, workloads and items. Must not know how cells
 * are counted or measured. */
#include "run/runplan_impl.h"

#include "model/engine.h"

#include <string.h>

const char *kvg_arm_name(enum kvg_arm a)
{
    return a == KVG_ARM_MAIN ? "main" : a == KVG_ARM_FLOOR ? "floor" : "bare";
}

size_t kvg_plan_kept(const struct kvg_plan_strategy *s, size_t n_logical)
{
    size_t n = s->budget ? kvg_budget_slots(s->budget, n_logical, &s->pipe.dims) : n_logical;
    return n < n_logical ? n : n_logical;
}

/* ---- strategies ---- */

static const struct kvg_budget *find_budget(const struct kvg_pipeline *pipe)
{
    if (!pipe->keep)
        return NULL;
    for (const struct kvg_opt *o = pipe->keep->s->opts; o && o->name; o++)
        if (o->type == KVG_OPT_BUDGET)
            return (const struct kvg_budget *)((const char *)pipe->keep->opt + o->offset);
    return NULL;
}

/* Whether something looks at the text and throws a part of it away. */
static int does_choose(const struct kvg_pipeline *p)
{
    const struct kvg_strategy *s = p->keep ? p->keep->s : NULL;
    return s && (s->score || s->compress || s->end_pass);
}

static int add_strategy(struct kvg_runplan *p, const char *spec, double target, struct kvg_err *err)
{
    struct kvg_plan_strategy *s = &p->strategies[p->n_strategies];
    int rc = kvg_pipeline_open(&s->pipe, spec, &p->dims, &p->arena, err);
    if (rc)
        return rc;
    const char *keeper = s->pipe.keep ? s->pipe.keep->s->name : "";
    s->spec = s->pipe.label;
    s->target_bytes = target;
    s->label = target > 0 ? kvg_fit_label(spec, keeper, target, &p->arena) : s->spec;
    s->resolved =
        target > 0 ? kvg_fit_resolved(s->pipe.resolved, keeper, target, &p->arena) : s->pipe.resolved;
    if (!s->label || !s->resolved)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    s->takes_seed = s->pipe.random;
    s->chooses = does_choose(&s->pipe);
    s->budget = find_budget(&s->pipe);
    s->timed = p->suite->lanes[KVG_LANE_TIME] && p->suite->time_strategies.n == 0;
    if (s->pipe.role == KVG_ROLE_BASELINE)
        p->baseline = p->n_strategies;
    if (s->pipe.role == KVG_ROLE_FLOOR)
        p->floor = p->n_strategies;
    p->n_strategies++;
    return 0;
}

/* The registry's strategy of a role is wanted although the suite does not list it. */
static int add_role(struct kvg_runplan *p, enum kvg_role role, struct kvg_err *err)
{
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    for (size_t i = 0; i < n; i++)
        if (all[i]->role == role)
            return add_strategy(p, all[i]->name, 0, err);
    return KVG_FAIL(err, KVG_ECHECK, "the registry has no strategy of role %d", (int)role);
}

/* A spec as it is, or at every target. What is exact and whole, and the baseline, have no targets;
 * what has no budget runs as it is too. */
static int add_listed(struct kvg_runplan *p, const char *spec, struct kvg_err *err)
{
    const struct kvg_suite *s = p->suite;
    int rc = add_strategy(p, spec, 0, err);
    enum kvg_role role = p->strategies[p->n_strategies - (rc ? 0 : 1)].pipe.role;
    if (rc || !s->n_equal_bytes || role == KVG_ROLE_FLOOR || role == KVG_ROLE_BASELINE)
        return rc;
    p->n_strategies -= p->strategies[p->n_strategies - 1].budget != NULL;
    for (size_t i = 0; i < s->n_equal_bytes && !rc; i++)
        rc = add_strategy(p, spec, (double)s->equal_bytes[i], err);
    return rc;
}

static int mark_timed(struct kvg_runplan *p, struct kvg_err *err)
{
    const struct kvg_strlist *want = &p->suite->time_strategies;
    const char *names[256];
    size_t n = 0;
    for (size_t i = 0; i < p->n_listed && n < 256; i++)
        names[n++] = p->strategies[i].label;
    for (size_t k = 0; k < want->n; k++) {
        int found = 0;
        for (size_t i = 0; i < p->n_listed; i++)
            if (!strcmp(p->strategies[i].label, want->v[k]) ||
                !strcmp(p->strategies[i].spec, want->v[k]))
                found = p->strategies[i].timed = 1;
        if (!found) {
            const char *near = kvg_text_nearest(want->v[k], names, n);
            return KVG_FAIL(
                err, KVG_EUSAGE,
                "the strategy '%s' to be timed is not among the suite's strategies%s%s%s",
                want->v[k], near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        }
    }
    return 0;
}

static int add_strategies(struct kvg_runplan *p, struct kvg_err *err)
{
    const struct kvg_suite *s = p->suite;
    p->baseline = p->floor = SIZE_MAX;
    size_t most = s->strategies.n * (s->n_equal_bytes + 1) + 2;
    p->strategies = kvg_arena_array(&p->arena, most, sizeof *p->strategies);
    if (!p->strategies)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = 0;
    for (size_t i = 0; i < s->strategies.n && !rc; i++)
        rc = add_listed(p, s->strategies.v[i], err);
    p->n_listed = p->n_strategies;
    if (!rc)
        rc = mark_timed(p, err);
    if (!rc && p->floor == SIZE_MAX)
        rc = add_role(p, KVG_ROLE_FLOOR, err);
    if (!rc && p->baseline == SIZE_MAX && s->lanes[KVG_LANE_TIME] && s->uncached_depths)
        rc = add_role(p, KVG_ROLE_BASELINE, err);
    if (rc)
        return rc;
    /* The harness's own cost is measured on the floor strategy; the baseline is timed apart. */
    p->strategies[p->floor].timed = s->lanes[KVG_LANE_TIME];
    if (p->baseline != SIZE_MAX)
        p->strategies[p->baseline].timed = 0;
    return 0;
}

/* ---- workloads and items ---- */

static int fail_item(const struct kvg_runplan *p, size_t first, size_t n, const char *id,
                     const char *where, struct kvg_err *err)
{
    const char *near = NULL;
    for (size_t i = first; i < first + n && !near; i++) {
        const struct kvg_workload *w = &p->workloads[i].w;
        const char **names =
            kvg_arena_array((struct kvg_arena *)&p->arena, w->n_items, sizeof *names);
        for (size_t k = 0; names && k < w->n_items; k++)
            names[k] = w->items[k].id;
        near = names ? kvg_text_nearest(id, names, w->n_items) : NULL;
    }
    if (near)
        return KVG_FAIL(err, KVG_EUSAGE, "no item '%s' in %s; did you mean '%s'?", id, where, near);
    return KVG_FAIL(err, KVG_EUSAGE, "no item '%s' in %s", id, where);
}

static struct kvg_plan_item *find_planned(struct kvg_runplan *p, const char *id)
{
    for (size_t i = 0; i < p->n_items; i++)
        if (!strcmp(p->items[i].tokens.item->id, id))
            return &p->items[i];
    return NULL;
}

static struct kvg_plan_item *add_item(struct kvg_runplan *p, size_t w, const struct kvg_item *item)
{
    struct kvg_plan_item *it = &p->items[p->n_items++];
    it->tokens.workload = &p->workloads[w].w;
    it->tokens.item = item;
    it->workload = (uint32_t)w;
    return it;
}

static int open_workloads(struct kvg_runplan *p, struct kvg_err *err)
{
    const struct kvg_suite *s = p->suite;
    size_t n_items = 0;
    p->workloads = kvg_arena_array(&p->arena, s->n_workloads, sizeof *p->workloads);
    if (!p->workloads)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < s->n_workloads; i++) {
        int rc = kvg_workload_open(&p->workloads[i].w, s->workloads[i].source, err);
        if (rc)
            return rc;
        p->n_workloads = i + 1;
        n_items += p->workloads[i].w.n_items;
        for (size_t j = 0; j < i; j++)
            if (!strcmp(p->workloads[i].w.name, p->workloads[j].w.name))
                return KVG_FAIL(err, KVG_EUSAGE, "two workloads are named '%s': rename one file",
                                p->workloads[i].w.name);
    }
    p->items = kvg_arena_array(&p->arena, n_items, sizeof *p->items);
    return p->items ? 0 : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
}

/* The items of the drift lane: those the suite names, or all. */
static int add_drift_items(struct kvg_runplan *p, size_t w, struct kvg_err *err)
{
    const struct kvg_strlist *want = &p->suite->workloads[w].items;
    const struct kvg_workload *wl = &p->workloads[w].w;
    size_t n = want->n ? want->n : wl->n_items, max = p->suite->max_items;
    for (size_t i = 0; i < n; i++) {
        const struct kvg_item *item = want->n ? kvg_workload_find(wl, want->v[i]) : &wl->items[i];
        if (!item)
            return fail_item(p, w, 1, want->v[i], wl->name, err);
        if (want->n && find_planned(p, item->id) &&
            find_planned(p, item->id)->workload == (uint32_t)w)
            return KVG_FAIL(err, KVG_EUSAGE, "the item '%s' is listed twice", item->id);
        if (max && i >= max)
            continue;
        struct kvg_plan_item *it = add_item(p, w, item);
        it->drift = (unsigned char)p->suite->lanes[KVG_LANE_DRIFT];
        it->floor = it->drift && i < p->suite->floor_items;
        it->free = p->suite->modes[KVG_MODE_FREE] && it->drift && p->suite->free_items.n == 0;
        it->timed = p->suite->lanes[KVG_LANE_TIME] && p->suite->time_items.n == 0;
    }
    return 0;
}

static int known_anywhere(const struct kvg_runplan *p, const char *id, size_t *w,
                          const struct kvg_item **item)
{
    for (*w = 0; *w < p->n_workloads; ++*w)
        if ((*item = kvg_workload_find(&p->workloads[*w].w, id)))
            return 1;
    return 0;
}

/* Items with a special use. A timed one need not be in the drift lane. */
static int mark_items(struct kvg_runplan *p, struct kvg_err *err)
{
    const struct kvg_suite *s = p->suite;
    const struct kvg_item *item;
    size_t w;
    for (size_t i = 0; i < s->free_items.n; i++) {
        if (!known_anywhere(p, s->free_items.v[i], &w, &item))
            return fail_item(p, 0, p->n_workloads, s->free_items.v[i], "free_items", err);
        struct kvg_plan_item *it = find_planned(p, item->id);
        if (it)
            it->free = s->modes[KVG_MODE_FREE] && it->drift;
    }
    if (s->kept_item) {
        if (!known_anywhere(p, s->kept_item, &w, &item))
            return fail_item(p, 0, p->n_workloads, s->kept_item, "kept_item", err);
        struct kvg_plan_item *it = find_planned(p, item->id);
        if (it)
            it->kept = it->drift;
    }
    for (size_t i = 0; i < s->time_items.n; i++) {
        if (!known_anywhere(p, s->time_items.v[i], &w, &item))
            return fail_item(p, 0, p->n_workloads, s->time_items.v[i], "the items to be timed",
                             err);
        if (!s->lanes[KVG_LANE_TIME] || (s->max_items && i >= s->max_items))
            continue;
        struct kvg_plan_item *it = find_planned(p, item->id);
        if (!it)
            it = add_item(p, w, item);
        it->timed = 1;
    }
    return 0;
}

/* Two questions are asked of items in the drift lane whose replies are recorded. */
static int add_second(struct kvg_runplan *p, struct kvg_plan_item *it, struct kvg_err *err)
{
    if (!p->suite->second_question || !it->drift || it->target != KVG_TARGET_RECORDED)
        return 0;
    struct kvg_item_tokens *two = kvg_arena_array(&p->arena, 2, sizeof *two);
    if (!two)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = kvg_item_second(two, &it->tokens, p->model, &p->chat, p->suite->reply_tokens,
                             &p->arena, err);
    it->second = rc ? NULL : two;
    return rc == KVG_ENONE ? 0 : rc;
}

static int tokenise_items(struct kvg_runplan *p, struct kvg_err *err)
{
    const struct kvg_suite *s = p->suite;
    for (size_t i = 0; i < p->n_items; i++) {
        struct kvg_plan_item *it = &p->items[i];
        int rc = kvg_item_tokenise(&it->tokens, it->tokens.workload, it->tokens.item, p->model,
                                   &p->chat, s->reply_tokens, s->time_reply_tokens, s->free_tokens,
                                   s->max_turns, &p->arena, err);
        if (rc)
            return rc;
        it->target = s->target;
        for (size_t t = 0; t < it->tokens.n_turns; t++)
            if (!it->tokens.turns[t].has_reply)
                it->target = KVG_TARGET_GREEDY;
        rc = add_second(p, it, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int open_chat(struct kvg_runplan *p, struct kvg_err *err)
{
    int rc = kvg_template_open(&p->chat, &p->model->gguf, p->model->tok, err);
    if (rc == KVG_ENONE)
        return KVG_FAIL(
            err, KVG_EUNSUP,
            "the model '%s' has no chat template, which workloads need: use an instruct "
            "model",
            p->model->name);
    return rc;
}

int kvg_runplan_make(struct kvg_runplan *p, const struct kvg_suite *suite,
                     const struct kvg_model *model, const char *model_sha256, struct kvg_err *err)
{
    memset(p, 0, sizeof *p);
    kvg_arena_init(&p->arena);
    p->suite = suite;
    p->model = model;
    memcpy(p->model_sha256, model_sha256, sizeof p->model_sha256);
    const char *slash = strrchr(model->path, '/');
    p->model_file = slash ? slash + 1 : model->path;
    p->dims = kvg_model_dims(model);
    int rc = kvg_suite_check(suite, err);
    if (!rc)
        rc = add_strategies(p, err);
    if (!rc)
        rc = open_workloads(p, err);
    for (size_t w = 0; w < p->n_workloads && !rc; w++)
        rc = add_drift_items(p, w, err);
    if (!rc)
        rc = mark_items(p, err);
    if (!rc)
        rc = open_chat(p, err);
    if (!rc)
        rc = tokenise_items(p, err);
    if (!rc)
        rc = kvg_runplan_fit(p, err);
    return rc ? rc : kvg_runplan_add_cells(p, err);
}

void kvg_runplan_release(struct kvg_runplan *p)
{
    for (size_t i = 0; i < p->n_workloads; i++)
        kvg_workload_close(&p->workloads[i].w);
    kvg_template_release(&p->chat);
    kvg_arena_release(&p->arena);
    memset(p, 0, sizeof *p);
}
