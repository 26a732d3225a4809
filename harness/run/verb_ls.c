/* Owns the verbs `ls` and `explain`: what there is, and what a name means. */
#include "result/metrics.h"
#include "run/catalogue.h"
#include "run/cli.h"
#include "strategies/strategy.h"
#include "workloads/workload.h"

#include <stddef.h>
#include <string.h>

struct ls_opts {
    int markdown;
    const char *measured;
};

static const struct kvg_opt ls_table[] = {
    {.name = "markdown",
     .type = KVG_OPT_BOOL,
     .offset = offsetof(struct ls_opts, markdown),
     .help = "strategies: as a page with sources and options"},
    {.name = "measured",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct ls_opts, measured),
     .metavar = "CSV",
     .help = "--markdown: add a line for each from the summary.csv of a run"},
    {.name = NULL},
};
static const struct kvg_opt no_options[] = {{.name = NULL}};

/* The packs that ship with the project. */
static const char *const packs[] = {"chat", "translation"};
enum { N_PACKS = sizeof packs / sizeof *packs };

static int ls_strategies(struct kvg_cli *cli, const struct ls_opts *o, struct kvg_str *out,
                struct kvg_err *err)
{
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    if (o->measured && !o->markdown)
        return KVG_FAIL(err, KVG_EUSAGE, "--measured goes with --markdown");
    if (o->markdown)
        return kvg_catalogue_print(o->measured, &cli->arena, out, err);
    for (size_t i = 0; i < n; i++)
        kvg_str_addf(out, "%-20s %-6s %-8s %s\n", all[i]->name, kvg_kind_name(all[i]->kind),
                     kvg_role_name(all[i]->role), all[i]->summary);
    return 0;
}

static int ls_workloads(struct kvg_cli *cli, const struct ls_opts *o, struct kvg_str *out,
                struct kvg_err *err)
{
    struct kvg_str formats = {0};
    (void)o;
    for (size_t i = 0; i < N_PACKS; i++) {
        struct kvg_workload_card card;
        int rc = kvg_workload_card(&card, packs[i], &cli->arena, err);
        if (rc)
            return rc;
        kvg_str_addf(out, "%-12s %3zu items  %4zu turns  %s  %s\n", card.name, card.n_items,
                     card.n_turns, card.licence, card.description);
    }
    kvg_workload_formats_help(&formats);
    kvg_str_addf(out, "\nfiles of these formats work by path:\n%s", formats.s ? formats.s : "");
    kvg_str_release(&formats);
    return 0;
}

static int ls_metrics(struct kvg_cli *cli, const struct ls_opts *o, struct kvg_str *out,
                struct kvg_err *err)
{
    (void)cli;
    (void)o;
    (void)err;
    kvg_metric_list(out);
    return 0;
}

static int ls_models(struct kvg_cli *cli, const struct ls_opts *o, struct kvg_str *out,
                struct kvg_err *err)
{
    struct kvg_strlist l;
    (void)o;
    int rc = kvg_models_list(&l, &cli->arena, err);
    for (size_t i = 0; i < l.n && !rc; i++) {
        struct kvg_model *m = NULL;
        struct kvg_err why;
        if (kvg_model_open(&m, l.v[i], KVG_MODEL_HEADER, &why)) {
            kvg_str_addf(out, "%s  unusable: %s\n", l.v[i], why.msg);
            continue;
        }
        kvg_str_addf(out, "%s  %s, %zu layers, %zu+%zu heads of %zu, context %zu, %s, %.1f MB\n",
                     l.v[i], m->name, m->n_layers, m->n_heads, m->n_kv_heads, m->d_head, m->n_ctx,
                     m->type_name, (double)m->weight_bytes / 1e6);
        kvg_model_close(m);
    }
    if (!rc && l.n == 0)
        fprintf(cli->err, "no models in '%s'; ./run.sh puts one there\n",
                kvg_models_folder(&cli->arena));
    return rc;
}

struct listing {
    const char *name;
    int (*list)(struct kvg_cli *cli, const struct ls_opts *o, struct kvg_str *out,
                struct kvg_err *err);
};
static const struct listing listings[] = {
    {"strategies", ls_strategies},
    {"workloads", ls_workloads},
    {"metrics", ls_metrics},
    {"models", ls_models},
};
enum { N_LISTINGS = sizeof listings / sizeof *listings };

static int run_ls(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
                  struct kvg_err *err)
{
    const char *names[N_LISTINGS];
    const struct ls_opts *o = opts;
    int rc =
        kvg_cli_want(rest, 1, 1, "what to list (strategies, workloads, metrics or models)", err);
    if (rc)
        return rc;
    for (size_t i = 0; i < N_LISTINGS; i++) {
        names[i] = listings[i].name;
        if (strcmp(rest->v[0], names[i]))
            continue;
        struct kvg_str out = {0};
        rc = listings[i].list(cli, o, &out, err);
        if (!rc && out.s)
            fputs(out.s, cli->out);
        kvg_str_release(&out);
        return rc;
    }
    const char *near = kvg_text_nearest(rest->v[0], names, N_LISTINGS);
    return KVG_FAIL(err, KVG_EUSAGE,
                    "cannot list '%s'%s%s%s: strategies, workloads, metrics or "
                    "models",
                    rest->v[0], near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* ---- explain ---- */

static void explain_strategy(const struct kvg_strategy *s, struct kvg_str *out)
{
    kvg_str_addf(out, "%s: %s\n\nkind      %s\nrole      %s\nsource    %s\nobserves  %s\n", s->name,
                 s->summary, kvg_kind_name(s->kind), kvg_role_name(s->role), s->source,
                 s->observes);
    if (s->path_dependent)
        kvg_str_add(out, "floor     its own: choices depend on rounding along the path\n");
    kvg_str_addf(out, "edits     %s\n",
                 s->truncation == KVG_TRUNCATE_CUT ? "cut: what was kept before the edit stays"
                                                   : "recompute: the conversation is fed again");
    if (s->opts && s->opts->name) {
        kvg_str_add(out, "\noptions (spec: name:option=value,option=value)\n");
        kvg_opt_help(s->opts, "", out);
    }
    const struct kvg_opt *common = kvg_common_opts(s->kind);
    if (common && common->name && (s->compress || s->score || s->kind == KVG_KIND_ENCODE)) {
        kvg_str_add(out, "\noptions of its kind\n");
        kvg_opt_help(common, "", out);
    }
}

static int explain_pack(struct kvg_cli *cli, const char *name, struct kvg_str *out,
                        struct kvg_err *err)
{
    struct kvg_workload_card c;
    int rc = kvg_workload_card(&c, name, &cli->arena, err);
    if (rc)
        return rc;
    kvg_str_addf(out,
                 "%s: %s\n\nlicence    %s\ncreator    %s\nfile       %s\nsha256     %s\nitems      "
                 "%zu (%zu turns, median %zu tokens)\nprovenance %s\nfamilies  ",
                 c.name, c.description, c.licence, c.creator, c.data_path, c.sha256, c.n_items,
                 c.n_turns, c.tokens_median, c.provenance);
    for (size_t i = 0; i < c.n_families; i++)
        kvg_str_addf(out, " %s", c.families[i]);
    kvg_str_add(out, "\nlanguages ");
    for (size_t i = 0; i < c.n_languages; i++)
        kvg_str_addf(out, " %s", c.languages[i]);
    kvg_str_addc(out, '\n');
    return 0;
}

static int fail_name(const char *name, struct kvg_arena *a, struct kvg_err *err)
{
    size_t n_strategies, n = 0, n_metrics = 0;
    const struct kvg_strategy *const *all = kvg_strategies(&n_strategies);
    while (kvg_metrics[n_metrics].name)
        n_metrics++;
    const char **names = kvg_arena_array(a, n_strategies + n_metrics + N_PACKS, sizeof *names);
    if (!names)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < n_strategies; i++)
        names[n++] = all[i]->name;
    for (size_t i = 0; i < n_metrics; i++)
        names[n++] = kvg_metrics[i].name;
    for (size_t i = 0; i < N_PACKS; i++)
        names[n++] = packs[i];
    const char *near = kvg_text_nearest(name, names, n);
    if (near)
        return KVG_FAIL(err, KVG_EUSAGE, "nothing is named '%s'; did you mean '%s'?", name, near);
    return KVG_FAIL(err, KVG_EUSAGE,
                    "nothing is named '%s'; `kvgauge ls strategies` and `kvgauge "
                    "ls metrics` list the names",
                    name);
}

static int run_explain(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
                       struct kvg_err *err)
{
    struct kvg_str out = {0};
    (void)opts;
    int rc = kvg_cli_want(rest, 1, 1, "a name", err);
    if (rc)
        return rc;
    const char *name = rest->v[0];
    const struct kvg_strategy *s = kvg_strategy_find(name);
    int is_pack = 0;
    for (size_t i = 0; i < N_PACKS; i++)
        is_pack |= !strcmp(name, packs[i]);
    if (s)
        explain_strategy(s, &out);
    else if (kvg_metric_find(name))
        rc = kvg_metric_explain(name, &out, err);
    else if (is_pack)
        rc = explain_pack(cli, name, &out, err);
    else
        rc = fail_name(name, &cli->arena, err);
    if (!rc && out.s)
        fputs(out.s, cli->out);
    kvg_str_release(&out);
    return rc;
}

const struct kvg_verb kvg_verb_ls = {
    .name = "ls",
    .summary = "list strategies, workloads, metrics or models",
    .usage = "strategies|workloads|metrics|models",
    .example = "kvgauge ls strategies",
    .opts = ls_table,
    .opts_bytes = sizeof(struct ls_opts),
    .run = run_ls,
};

const struct kvg_verb kvg_verb_explain = {
    .name = "explain",
    .summary = "a strategy's options and source, a metric's formula, a pack's card",
    .usage = "NAME",
    .example = "kvgauge explain snapkv",
    .opts = no_options,
    .run = run_explain,
};
