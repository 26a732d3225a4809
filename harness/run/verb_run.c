/* Owns the verb `run`: flags over the suite file, plan, execution, and what is made of the files.
 * Must not know how anything is measured. */
#include "base/hash.h"
#include "run/cli.h"
#include "run/execute.h"
#include "run/fingerprint.h"
#include "run/runcost.h"

#include <stddef.h>
#include <string.h>

struct opts {
    const char *model, *out;
    struct kvg_strlist strategies, workloads, modes, lanes, queries, equal_bytes;
    int64_t rounds, seed, threads, max_items, max_turns;
    int second_question, resume, dry_run, progress, cpu_level;
};

#define AT(f) offsetof(struct opts, f)

static const struct kvg_opt table[] = {
    {.name = "model",
     .short_name = 'm',
     .type = KVG_OPT_STRING,
     .offset = AT(model),
     .metavar = "FILE",
     .help = "GGUF model (else KVGAUGE_MODEL, else the one in the cache folder)"},
    {.name = "strategy",
     .type = KVG_OPT_LIST,
     .offset = AT(strategies),
     .metavar = "SPEC",
     .help = "a strategy to compare; repeatable; replaces the suite's"},
    {.name = "workload",
     .type = KVG_OPT_LIST,
     .offset = AT(workloads),
     .metavar = "FILE|PACK",
     .help = "a workload; repeatable; replaces the suite's"},
    {.name = "mode",
     .type = KVG_OPT_LIST,
     .offset = AT(modes),
     .choices = ",",
     .metavar = "forced,free",
     .help = "modes of the drift lane (else the suite's, or forced)"},
    {.name = "lane",
     .type = KVG_OPT_LIST,
     .offset = AT(lanes),
     .choices = ",",
     .metavar = "drift,time",
     .help = "lanes (else the suite's, or drift)"},
    {.name = "equal-bytes",
     .type = KVG_OPT_LIST,
     .offset = AT(equal_bytes),
     .choices = ",",
     .metavar = "2000,4000,...",
     .help = "fit every budget to these bytes per token at a prompt's end"},
    {.name = "query",
     .type = KVG_OPT_LIST,
     .offset = AT(queries),
     .choices = ",",
     .metavar = "seen,unseen",
     .help = "does compression see the question (else the suite's, or seen)"},
    {.name = "second-question",
     .type = KVG_OPT_BOOL,
     .offset = AT(second_question),
     .help = "also ask a second question after the same context"},
    {.name = "rounds",
     .type = KVG_OPT_INT,
     .offset = AT(rounds),
     .min = 1,
     .max = 10000,
     .metavar = "N",
     .help = "rounds of the time lane"},
    {.name = "seed",
     .type = KVG_OPT_INT,
     .offset = AT(seed),
     .min = 1,
     .max = 1e15,
     .metavar = "N",
     .help = "seed of the run"},
    {.name = "threads",
     .short_name = 't',
     .type = KVG_OPT_INT,
     .offset = AT(threads),
     .min = 1,
     .max = 256,
     .metavar = "N",
     .help = "threads; else all usable CPUs"},
    {.name = "max-items",
     .type = KVG_OPT_INT,
     .offset = AT(max_items),
     .min = 1,
     .max = 1e9,
     .metavar = "N",
     .help = "at most so many items of each workload and of the time lane"},
    {.name = "max-turns",
     .type = KVG_OPT_INT,
     .offset = AT(max_turns),
     .min = 1,
     .max = 1e9,
     .metavar = "N",
     .help = "replay only the first N turns of an item"},
    {.name = "out",
     .type = KVG_OPT_STRING,
     .offset = AT(out),
     .def = "results",
     .metavar = "DIR",
     .help = "where run folders are made"},
    {.name = "resume",
     .type = KVG_OPT_BOOL,
     .offset = AT(resume),
     .help = "finish the latest unfinished run of the same settings"},
    {.name = "dry-run",
     .type = KVG_OPT_BOOL,
     .offset = AT(dry_run),
     .help = "show the cells, their time and memory; measure nothing"},
    {.name = "progress",
     .type = KVG_OPT_CHOICE,
     .offset = AT(progress),
     .choices = "auto|tty|plain|none",
     .def = "auto",
     .help = "progress on stderr"},
    {.name = "cpu-level",
     .type = KVG_OPT_CHOICE,
     .offset = AT(cpu_level),
     .choices = KVG_CPU_LEVELS,
     .def = "auto",
     .help = "kernels to use"},
    {.name = NULL},
};

/* Sets flags[k] for every word that is names[k]. */
static int set_flags(const struct kvg_strlist *words, const char *const names[2], int flags[2],
                     const char *option, struct kvg_err *err)
{
    if (words->n == 0)
        return 0;
    flags[0] = flags[1] = 0;
    for (size_t i = 0; i < words->n; i++) {
        int k = !strcmp(words->v[i], names[0]) ? 0 : !strcmp(words->v[i], names[1]) ? 1 : -1;
        if (k < 0) {
            const char *near = kvg_text_nearest(words->v[i], names, 2);
            return KVG_FAIL(err, KVG_EUSAGE, "--%s: '%s' is neither %s nor %s%s%s%s", option,
                            words->v[i], names[0], names[1], near ? "; did you mean '" : "",
                            near ? near : "", near ? "'?" : "");
        }
        flags[k] = 1;
    }
    return 0;
}

static int take_workloads(struct kvg_suite *s, const struct kvg_strlist *l, struct kvg_arena *a,
                          struct kvg_err *err)
{
    if (l->n == 0)
        return 0;
    s->workloads = kvg_arena_array(a, l->n, sizeof *s->workloads);
    if (!s->workloads)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < l->n; i++)
        s->workloads[i].source = l->v[i];
    s->n_workloads = l->n;
    /* items named by the suite belong to its own workloads */
    s->free_items = s->time_items = (struct kvg_strlist){0};
    s->kept_item = NULL;
    return 0;
}

static int take_equal_bytes(struct kvg_suite *s, const struct kvg_strlist *l, struct kvg_arena *a,
                            struct kvg_err *err)
{
    if (l->n == 0)
        return 0;
    s->equal_bytes = kvg_arena_array(a, l->n, sizeof *s->equal_bytes);
    if (!s->equal_bytes)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    s->n_equal_bytes = l->n;
    for (size_t i = 0; i < l->n; i++) {
        int64_t v;
        if (kvg_text_i64(l->v[i], &v) || v < 1)
            return KVG_FAIL(err, KVG_EUSAGE,
                            "--equal-bytes: '%s' is not a number of bytes per token", l->v[i]);
        s->equal_bytes[i] = (size_t)v;
    }
    return 0;
}

static int resolve(struct kvg_suite *s, const struct opts *o, const struct kvg_strlist *rest,
                   struct kvg_arena *a, struct kvg_err *err)
{
    static const char *const modes[] = {"forced", "free"}, *const lanes[] = {"drift", "time"},
                             *const queries[] = {"seen", "unseen"};
    int rc = kvg_cli_want(rest, 0, 1, "", err);
    kvg_suite_defaults(s);
    if (!rc && !o->out[0])
        rc = KVG_FAIL(err, KVG_EUSAGE, "--out is empty: give a folder");
    if (!rc && rest->n)
        rc = kvg_suite_read(s, rest->v[0], a, err);
    if (!rc)
        rc = set_flags(&o->modes, modes, s->modes, "mode", err);
    if (!rc)
        rc = set_flags(&o->lanes, lanes, s->lanes, "lane", err);
    if (!rc)
        rc = set_flags(&o->queries, queries, s->queries, "query", err);
    if (!rc)
        rc = take_workloads(s, &o->workloads, a, err);
    if (!rc)
        rc = take_equal_bytes(s, &o->equal_bytes, a, err);
    if (rc)
        return rc;
    if (o->strategies.n) {
        s->strategies = o->strategies;
        s->time_strategies = s->bench_strategies = (struct kvg_strlist){0};
    }
    if (o->second_question)
        s->second_question = 1;
    if (o->rounds)
        s->rounds = (size_t)o->rounds;
    if (o->seed)
        s->seed = (uint64_t)o->seed;
    if (o->max_items)
        s->max_items = (size_t)o->max_items;
    if (o->max_turns)
        s->max_turns = (size_t)o->max_turns;
    return kvg_suite_check(s, err);
}

static int execute(struct kvg_cli *cli, const struct opts *o, struct kvg_runplan *plan,
                   const struct kvg_run_options *ro, struct kvg_err *err)
{
    char dir[KVG_RUN_DIR_CAP] = "";
    struct kvg_progress progress;
    kvg_progress_open(&progress, (enum kvg_progress_kind)o->progress, cli->err, plan->n_todo,
                      plan->est_seconds);
    int rc = kvg_run_execute(plan, ro, &progress, dir, err);
    kvg_progress_close(&progress);
    cli->started = dir[0] != 0; /* without a folder nothing was run */
    return rc ? rc : kvg_cli_finish_run(cli, dir, err);
}

static int print_plan(struct kvg_cli *cli, const struct kvg_runplan *plan)
{
    struct kvg_str s = {0};
    kvg_runplan_print(plan, &s);
    fputs(s.s ? s.s : "", cli->out);
    kvg_str_release(&s);
    return 0;
}

static int plan_and_run(struct kvg_cli *cli, const struct opts *o, const struct kvg_suite *suite,
                        const struct kvg_model *model, struct kvg_err *err)
{
    char sha[KVG_SHA256_HEX];
    struct kvg_runplan plan = {0};
    struct kvg_run_cost cost;
    struct kvg_run_options ro = {.out = o->out, .resume = o->resume, .command = cli->command};
    int rc = kvg_fingerprint_file(model->path, sha, err);
    if (rc)
        return rc;
    rc = kvg_runplan_make(&plan, suite, model, sha, err);
    if (!rc)
        rc = kvg_machine_open(&ro.pool, &ro.kernels, o->threads, o->cpu_level, err);
    for (size_t i = 0; i < plan.n_workloads && !rc; i++)
        for (size_t k = 0; k < plan.workloads[i].w.n_warnings; k++)
            fprintf(cli->err, "%s: %s\n", plan.workloads[i].w.name,
                    plan.workloads[i].w.warnings[k]);
    if (!rc && plan.n_todo == 0) {
        print_plan(cli, &plan);
        rc = KVG_FAIL(err, KVG_ENONE, "nothing to measure: no cell of the plan can be run");
    }
    if (!rc)
        rc = kvg_run_cost_probe(&cost, &plan, ro.pool, ro.kernels, err);
    if (!rc) {
        kvg_runplan_estimate(&plan, &cost);
        rc = o->dry_run ? print_plan(cli, &plan) : execute(cli, o, &plan, &ro, err);
    }
    if (ro.pool)
        kvg_pool_close(ro.pool);
    kvg_runplan_release(&plan);
    return rc;
}

static int run(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err)
{
    const struct opts *o = opts;
    struct kvg_suite suite;
    struct kvg_model *model = NULL;
    const char *path;
    int rc = resolve(&suite, o, rest, &cli->arena, err);
    if (!rc)
        rc = kvg_model_find(&path, o->model, &cli->arena, err);
    if (!rc)
        rc = kvg_model_open(&model, path, KVG_MODEL_FULL, err);
    if (!rc)
        rc = plan_and_run(cli, o, &suite, model, err);
    kvg_model_close(model);
    return rc;
}

const struct kvg_verb kvg_verb_run = {
    .name = "run",
    .summary = "replay workloads under strategies and measure latency, memory and drift",
    .usage = "SUITE.yaml | --strategy SPEC --workload FILE|PACK [options]",
    .example = "kvgauge run --strategy full --strategy snapkv:budget=25% --workload chat "
               "--max-items 2",
    .opts = table,
    .opts_bytes = sizeof(struct opts),
    .needs_blas = 1,
    .run = run,
};
