/* Owns specs: parsing `a:x=1,y=2+b:z=3` into instances, checking the combination, and the resolved
 * text. Must not know any strategy by name. */
#include "strategies/strategy.h"

#include <stdio.h>
#include <string.h>

static int unknown_strategy(const char *name, struct kvg_err *err)
{
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    const char *names[256];
    for (size_t i = 0; i < n && i < 256; i++)
        names[i] = all[i]->name;
    const char *near = kvg_text_nearest(name, names, n < 256 ? n : 256);
    if (near)
        return KVG_FAIL(err, KVG_EUSAGE, "unknown strategy '%s'; did you mean '%s'?", name, near);
    return KVG_FAIL(err, KVG_EUSAGE,
                    "unknown strategy '%s'; `kvgauge ls strategies` lists them all", name);
}

static int parse_schedule(const char *text, struct kvg_schedule *out)
{
    if (!strcmp(text, "prompt") || !strcmp(text, "turn")) {
        out->kind = text[0] == 'p' ? KVG_SCHED_PROMPT : KVG_SCHED_TURN;
        out->every = 0;
        return 0;
    }
    out->kind = KVG_SCHED_EVERY;
    if (strncmp(text, "every:", 6) || kvg_text_i64(text + 6, &out->every) || out->every < 1)
        return -1;
    return 0;
}

static const char *schedule_text(const struct kvg_schedule *s, struct kvg_arena *a)
{
    if (s->kind == KVG_SCHED_EVERY)
        return kvg_arena_printf(a, "every:%lld", (long long)s->every);
    return s->kind == KVG_SCHED_PROMPT ? "prompt" : "turn";
}

/* One option in text form goes to the strategy's own table or to the common one. */
static int set_option(struct kvg_inst *in, struct kvg_common *common, char *pair,
                      struct kvg_err *err)
{
    char owner[96];
    snprintf(owner, sizeof owner, "strategy '%s'", in->s->name);
    char *eq = strchr(pair, '=');
    if (!eq)
        return KVG_FAIL(err, KVG_EUSAGE, "%s: '%s' is not of the form option=value", owner, pair);
    *eq = 0;
    const struct kvg_opt *shared = kvg_common_opts(in->s->kind);
    if (!kvg_opt_find(in->s->opts, pair) && kvg_opt_find(shared, pair))
        return kvg_opt_set(shared, common, owner, pair, eq + 1, in->arena, err);
    return kvg_opt_set(in->s->opts, in->opt, owner, pair, eq + 1, in->arena, err);
}

/* Pairs before `pair` have been cut at their '=' and ','. */
static int is_repeated(const char *first, const char *pair)
{
    size_t n = strcspn(pair, "=");
    for (const char *p = first; p < pair; p += strlen(p) + 1)
        if (strlen(p) == n && !memcmp(p, pair, n))
            return 1;
    return 0;
}

static int parse_options(struct kvg_inst *in, struct kvg_common *common, char *text,
                         struct kvg_err *err)
{
    int rc = kvg_opt_defaults(in->s->opts, in->opt, in->arena, err);
    if (!rc)
        rc = kvg_opt_defaults(kvg_common_opts(in->s->kind), common, in->arena, err);
    char *first = text;
    while (!rc && text && *text) {
        char *comma = strchr(text, ',');
        if (comma)
            *comma = 0;
        rc = is_repeated(first, text)
                 ? KVG_FAIL(err, KVG_EUSAGE, "strategy '%s': option '%.*s' is given twice",
                            in->s->name, (int)strcspn(text, "="), text)
                 : set_option(in, common, text, err);
        text = comma ? comma + 1 : NULL;
    }
    return rc;
}

static int take_common(struct kvg_inst *in, struct kvg_common *common, struct kvg_err *err)
{
    in->schedule = in->s->schedule;
    if (common->schedule && parse_schedule(common->schedule, &in->schedule))
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy '%s': 'schedule=%s' is not one of prompt, turn, every:k",
                        in->s->name, common->schedule);
    common->schedule = schedule_text(&in->schedule, in->arena);
    in->prefill_chunk = common->prefill_chunk;
    in->prefill_stored = common->prefill;
    return 0;
}

static void print_table(const struct kvg_opt *table, const void *values, struct kvg_str *out,
                        int *first)
{
    for (const struct kvg_opt *o = table; o && o->name; o++) {
        kvg_str_add(out, *first ? ":" : ",");
        *first = 0;
        kvg_opt_print(o, values, out);
    }
}

static int open_inst(struct kvg_pipeline *p, char *text, struct kvg_arena *a, struct kvg_str *out,
                     struct kvg_err *err)
{
    char *colon = strchr(text, ':');
    if (colon)
        *colon = 0;
    const struct kvg_strategy *s = kvg_strategy_find(text);
    if (!s)
        return unknown_strategy(text, err);
    if (p->n == KVG_PIPELINE_MAX)
        return KVG_FAIL(err, KVG_EUSAGE, "a spec has at most %d parts", KVG_PIPELINE_MAX);
    struct kvg_inst *in = &p->inst[p->n++];
    struct kvg_common common = {0};
    *in = (struct kvg_inst){.s = s,
                            .arena = a,
                            .k_codec_index = -1,
                            .v_codec_index = -1,
                            .extra_codec_index = -1};
    in->opt = kvg_arena_alloc(a, s->opts_bytes + 1);
    in->state = kvg_arena_alloc(a, s->state_bytes + 1);
    in->dims = p->dims;
    if (!in->opt || !in->state)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = parse_options(in, &common, colon ? colon + 1 : NULL, err);
    if (!rc)
        rc = take_common(in, &common, err);
    if (rc)
        return rc;
    const struct kvg_opt *b = kvg_opt_find(s->opts, "budget");
    if (b && b->type == KVG_OPT_BUDGET)
        in->budget = (struct kvg_budget *)(void *)((char *)in->opt + b->offset);
    int first = 1;
    kvg_str_addf(out, "%s%s", p->n > 1 ? "+" : "", s->name);
    print_table(s->opts, in->opt, out, &first);
    if (s->compress || s->score || s->kind == KVG_KIND_ENCODE)
        print_table(kvg_common_opts(s->kind), &common, out, &first);
    return 0;
}

static struct kvg_inst **role_of(struct kvg_pipeline *p, enum kvg_kind kind)
{
    struct kvg_inst **const slots[KVG_KIND_N] = {[KVG_KIND_KEEP] = &p->keep,
                                                 [KVG_KIND_ENCODE] = &p->encode,
                                                 [KVG_KIND_READ] = &p->read,
                                                 [KVG_KIND_SHARE] = &p->share};
    return slots[kind];
}

static int find_roles(struct kvg_pipeline *p, struct kvg_err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        struct kvg_inst *in = &p->inst[i], **slot = role_of(p, in->s->kind);
        if (!slot) {
            p->wrap[p->n_wraps++] = in;
            continue;
        }
        if (*slot)
            return KVG_FAIL(err, KVG_EUSAGE,
                            "'%s' and '%s' do the same kind of work and cannot be combined",
                            (*slot)->s->name, in->s->name);
        *slot = in;
        if (in->s->role == KVG_ROLE_BASELINE && p->n > 1)
            return KVG_FAIL(err, KVG_EUSAGE, "'%s' has no cache and cannot be combined",
                            in->s->name);
    }
    p->role = p->n == 1 ? p->inst[0].s->role : KVG_ROLE_STRATEGY;
    if (p->keep && (p->keep->s->role == KVG_ROLE_CONTROL || p->keep->s->role == KVG_ROLE_ORACLE))
        p->role = p->keep->s->role;
    return 0;
}

/* A wrapper needs a keeper, and one with scores when it changes scores. */
static int check_wraps(struct kvg_pipeline *p, struct kvg_err *err)
{
    for (size_t i = 0; i < p->n_wraps; i++) {
        const struct kvg_strategy *w = p->wrap[i]->s;
        if (!p->keep || (!p->keep->s->score && !p->keep->s->compress))
            return KVG_FAIL(err, KVG_EUSAGE,
                            "'%s' wraps a strategy that evicts; write for example `snapkv+%s`",
                            w->name, w->name);
        if (w->rescore && !p->keep->s->score)
            return KVG_FAIL(err, KVG_EUSAGE,
                            "'%s' does not choose by scores, so '%s' cannot change its choice",
                            p->keep->s->name, w->name);
        for (size_t k = 0; k < i; k++)
            if (p->wrap[k]->s == w)
                return KVG_FAIL(err, KVG_EUSAGE, "'%s' is given twice", w->name);
    }
    return 0;
}

static int open_scores(struct kvg_pipeline *p, struct kvg_arena *a, struct kvg_err *err)
{
    struct kvg_scores *s = &p->scores;
    s->n_heads = p->dims.n_kv_heads;
    s->n = kvg_arena_array(a, s->n_heads, sizeof *s->n);
    s->n_keep = kvg_arena_array(a, s->n_heads, sizeof *s->n_keep);
    return s->n && s->n_keep ? 0 : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
}

static int wants_obs(const struct kvg_needs *have, const struct kvg_obs *o, size_t *at)
{
    for (*at = 0; *at < have->n_obs; (*at)++)
        if (have->obs[*at].kind == o->kind && have->obs[*at].window == o->window &&
            have->obs[*at].running == o->running)
            return 1;
    return 0;
}

static int merge_obs(struct kvg_pipeline *p, struct kvg_inst *in, struct kvg_err *err)
{
    struct kvg_needs *all = &p->needs;
    const struct kvg_needs *w = &in->needs;
    in->first_obs = all->n_obs;
    for (size_t k = 0; k < w->n_obs; k++) {
        size_t at;
        if (w->n_obs == 1 && wants_obs(all, &w->obs[k], &at)) {
            in->first_obs = at;
            return 0;
        }
        if (all->n_obs == KVG_OBS_N)
            return KVG_FAIL(err, KVG_EUNSUP, "the parts of a spec ask for too many observations");
        all->obs[all->n_obs++] = w->obs[k];
    }
    return 0;
}

static int merge_side(struct kvg_pipeline *p, struct kvg_inst *in, struct kvg_err *err)
{
    struct kvg_needs *all = &p->needs;
    const struct kvg_needs *w = &in->needs;
    in->first_side = all->n_side;
    if (all->n_side + w->n_side > KVG_SIDE_MAX)
        return KVG_FAIL(err, KVG_EUNSUP, "the parts of a spec ask for too many side columns");
    for (size_t k = 0; k < w->n_side; k++, all->n_side++) {
        all->side_floats[all->n_side] = w->side_floats[k];
        all->side_page[all->n_side] = w->side_page[k];
    }
    return 0;
}

static int merge_needs(struct kvg_pipeline *p, struct kvg_err *err)
{
    struct kvg_needs *all = &p->needs;
    for (size_t i = 0; i < p->n; i++) {
        struct kvg_inst *in = &p->inst[i];
        const struct kvg_needs *w = &in->needs;
        int rc = merge_obs(p, in, err);
        if (!rc)
            rc = merge_side(p, in, err);
        if (rc)
            return rc;
        if (w->moments) {
            if (all->moments && all->moments_skip != w->moments_skip)
                return KVG_FAIL(err, KVG_EUNSUP, "the parts of a spec skip different positions");
            all->moments = 1;
            all->moments_skip = w->moments_skip;
        }
        all->across |= w->across;
        all->queries = w->queries > all->queries ? w->queries : all->queries;
        all->raw_keys |= w->raw_keys;
        all->spans |= w->spans;
        all->question |= w->question;
        all->future |= w->future;
        all->block_slots = w->block_slots ? w->block_slots : all->block_slots;
        if (in->position != KVG_POSITION_TRUE)
            p->position = in->position;
        if (in->s->kind == KVG_KIND_WRAP && in->schedule.every > 0)
            p->keep->schedule = in->schedule;
        if (p->keep && p->keep->s->auxiliary && p->keep->schedule.kind == KVG_SCHED_EVERY)
            return KVG_FAIL(err, KVG_EUSAGE,
                            "'%s' looks at auxiliary passes, which only prompts have: it cannot "
                            "compress at decode steps",
                            p->keep->s->name);
        p->path_dependent |= in->s->path_dependent;
        p->random |= in->s->random;
        if (in->s->truncation == KVG_TRUNCATE_RECOMPUTE)
            p->truncation = KVG_TRUNCATE_RECOMPUTE;
    }
    return 0;
}

/* Encoders first: the budget in bytes of a KEEP strategy depends on the form of the rows. */
static int init_all(struct kvg_pipeline *p, struct kvg_err *err)
{
    size_t rows = p->dims.n_layers * p->dims.n_kv_heads, d = p->dims.d_head;
    size_t k_bytes = d * sizeof(float), v_bytes = k_bytes;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < p->n; i++) {
            struct kvg_inst *in = &p->inst[i];
            if ((in->s->kind == KVG_KIND_ENCODE) != (pass == 0))
                continue;
            in->dims.slot_bytes = rows * (k_bytes + v_bytes);
            int rc = in->s->init ? in->s->init(in, err) : 0;
            if (rc)
                return rc;
            if (in->k_codec.name[0])
                k_bytes =
                    kvg_codec_total_bytes(&in->k_codec, in->k_codec.group, d) / in->k_codec.group;
            if (in->v_codec.name[0])
                v_bytes =
                    kvg_codec_total_bytes(&in->v_codec, in->v_codec.group, d) / in->v_codec.group;
        }
    }
    p->dims.slot_bytes = rows * (k_bytes + v_bytes);
    return 0;
}

int kvg_pipeline_open(struct kvg_pipeline *p, const char *spec, const struct kvg_dims *dims,
                      struct kvg_arena *a, struct kvg_err *err)
{
    memset(p, 0, sizeof *p);
    p->dims = *dims;
    p->label = kvg_arena_strdup(a, spec);
    char *text = kvg_arena_strdup(a, spec);
    struct kvg_str out = {0};
    if (!p->label || !text)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = 0;
    for (char *part = text; part && !rc;) {
        char *plus = strchr(part, '+');
        if (plus)
            *plus = 0;
        rc = open_inst(p, part, a, &out, err);
        part = plus ? plus + 1 : NULL;
    }
    if (!rc)
        rc = find_roles(p, err);
    if (!rc)
        rc = check_wraps(p, err);
    if (!rc)
        rc = init_all(p, err);
    if (!rc)
        rc = merge_needs(p, err);
    if (!rc)
        rc = open_scores(p, a, err);
    if (!rc && !(p->resolved = kvg_arena_strdup(a, out.s ? out.s : "")))
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    kvg_str_release(&out);
    if (rc)
        kvg_err_prefix(err, "spec '%s'", spec);
    return rc;
}

void kvg_pipeline_begin_item(struct kvg_pipeline *p, uint64_t seed)
{
    for (size_t i = 0; i < p->n; i++) {
        struct kvg_inst *in = &p->inst[i];
        memset(in->state, 0, in->s->state_bytes);
        in->seed = seed;
        if (in->s->begin_item)
            in->s->begin_item(in);
    }
}

void kvg_pipeline_copy_state(struct kvg_pipeline *dst, const struct kvg_pipeline *src)
{
    for (size_t i = 0; i < src->n; i++)
        memcpy(dst->inst[i].state, src->inst[i].state, src->inst[i].s->state_bytes);
}
