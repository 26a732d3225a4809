/* Owns the verb `bench`: its options and the three ways to print its rows. Must not know how speed
 * is measured. */
#include "run/bench.h"
#include "run/cli.h"
#include "run/stop.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum form { FORM_MD, FORM_CSV, FORM_JSON };

struct opts {
    const char *model;
    struct kvg_strlist prompts, gens, depths, threads, strategies;
    int64_t reps, seed;
    int form, progress, cpu_level;
};

#define AT(f) offsetof(struct opts, f)

static const struct kvg_opt table[] = {
    {.name = "model",
     .short_name = 'm',
     .type = KVG_OPT_STRING,
     .offset = AT(model),
     .metavar = "FILE",
     .help = "GGUF model (else KVGAUGE_MODEL, else the one in the cache folder)"},
    {.name = "n-prompt",
     .short_name = 'p',
     .type = KVG_OPT_LIST,
     .offset = AT(prompts),
     .choices = ",",
     .metavar = "N,...",
     .help = "prompt lengths to time (else 512; 0 = none)"},
    {.name = "n-gen",
     .short_name = 'n',
     .type = KVG_OPT_LIST,
     .offset = AT(gens),
     .choices = ",",
     .metavar = "N,...",
     .help = "numbers of tokens to generate (else 64; 0 = none)"},
    {.name = "n-depth",
     .short_name = 'd',
     .type = KVG_OPT_LIST,
     .offset = AT(depths),
     .choices = ",",
     .metavar = "N,...",
     .help = "lengths of the text before the test (else 0)"},
    {.name = "strategy",
     .type = KVG_OPT_LIST,
     .offset = AT(strategies),
     .metavar = "SPEC",
     .help = "a strategy; repeatable (else full+f16)"},
    {.name = "threads",
     .short_name = 't',
     .type = KVG_OPT_LIST,
     .offset = AT(threads),
     .choices = ",",
     .metavar = "N,...",
     .help = "numbers of threads (else all usable CPUs)"},
    {.name = "repetitions",
     .short_name = 'r',
     .type = KVG_OPT_INT,
     .offset = AT(reps),
     .def = "5",
     .min = 1,
     .max = 1000,
     .metavar = "N",
     .help = "repetitions of each test"},
    {.name = "output",
     .short_name = 'o',
     .type = KVG_OPT_CHOICE,
     .offset = AT(form),
     .choices = "md|csv|json",
     .def = "md",
     .help = "form of the table"},
    {.name = "seed",
     .type = KVG_OPT_INT,
     .offset = AT(seed),
     .def = "1",
     .min = 0,
     .max = 1e15,
     .metavar = "N",
     .help = "seed of tokens and control strategies"},
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

/* ---- printing ---- */

struct printer {
    FILE *out;
    struct kvg_progress *progress;
    enum form form;
    size_t n_rows;
    json_t *list; /* FORM_JSON */
};

static void print_md(struct printer *p, const struct kvg_row *r)
{
    char test[64], depth[32] = "", limit[32] = "", spread[32] = "         ";
    uint64_t prompt = kvg_row_u64(r, KVG_BENCH_n_prompt), gen = kvg_row_u64(r, KVG_BENCH_n_gen);
    if (kvg_row_u64(r, KVG_BENCH_n_depth))
        snprintf(depth, sizeof depth, " @ d%llu",
                 (unsigned long long)kvg_row_u64(r, KVG_BENCH_n_depth));
    snprintf(test, sizeof test, "%s%llu%s", prompt ? "pp" : "tg",
             (unsigned long long)(prompt ? prompt : gen), depth);
    if (kvg_row_has(r, KVG_BENCH_limit_fraction))
        snprintf(limit, sizeof limit, "%.0f %%", 100 * kvg_row_f64(r, KVG_BENCH_limit_fraction));
    if (kvg_row_has(r, KVG_BENCH_stddev_ts)) /* one repetition has no spread */
        snprintf(spread, sizeof spread, "± %7.2f", kvg_row_f64(r, KVG_BENCH_stddev_ts));
    if (p->n_rows == 0)
        fprintf(p->out,
                "| %-31s | %10s | %8s | %7s | %-24s | %6s | %6s | %15s | %18s | %9s |\n"
                "| %.31s | %.9s: | %.7s: | %.6s: | %.24s | %.5s: | %.5s: | %.14s: | %.17s: | "
                "%.8s: |\n",
                "model", "size", "params", "threads", "strategy", "type_k", "type_v", "test", "t/s",
                "of limit", "-------------------------------", "----------", "--------", "-------",
                "------------------------", "------", "------", "---------------",
                "------------------", "---------");
    fprintf(p->out,
            "| %-31s | %6.2f MiB | %6.2f M | %7llu | %-24s | %6s | %6s | %15s | %8.2f %s | %9s |\n",
            kvg_row_str(r, KVG_BENCH_model_type), kvg_row_f64(r, KVG_BENCH_model_size) / 1048576,
            kvg_row_f64(r, KVG_BENCH_model_n_params) / 1e6,
            (unsigned long long)kvg_row_u64(r, KVG_BENCH_n_threads),
            kvg_row_str(r, KVG_BENCH_strategy), kvg_row_str(r, KVG_BENCH_type_k),
            kvg_row_str(r, KVG_BENCH_type_v), test, kvg_row_f64(r, KVG_BENCH_avg_ts), spread,
            limit);
}

static void print_csv_field(FILE *out, const char *s)
{
    if (!strpbrk(s, ",\"\r\n")) {
        fputs(s, out);
        return;
    }
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', out);
        fputc(*s, out);
    }
    fputc('"', out);
}

static void print_csv(struct printer *p, const struct kvg_row *r)
{
    for (size_t i = 0; p->n_rows == 0 && i < r->table->n_columns; i++)
        fprintf(p->out, "%s%s", i ? "," : "", r->table->columns[i].name);
    if (p->n_rows == 0)
        fputs("\n", p->out);
    for (size_t i = 0; i < r->table->n_columns; i++) {
        char number[40];
        int c = (int)i;
        if (i)
            fputc(',', p->out);
        if (!kvg_row_has(r, c))
            continue;
        if (r->table->columns[i].type == KVG_COL_STR) {
            print_csv_field(p->out, kvg_row_str(r, c));
        } else if (r->table->columns[i].type == KVG_COL_F64) {
            kvg_text_put_double(number, sizeof number, kvg_row_f64(r, c));
            fputs(number, p->out);
        } else {
            fprintf(p->out, "%llu", (unsigned long long)kvg_row_u64(r, c));
        }
    }
    fputs("\n", p->out);
}

static int add_json(struct printer *p, const struct kvg_row *r, struct kvg_err *err)
{
    json_t *o = json_object();
    for (size_t i = 0; o && i < r->table->n_columns; i++) {
        const struct kvg_column *col = &r->table->columns[i];
        int c = (int)i;
        double v = kvg_row_f64(r, c);
        json_t *value = !kvg_row_has(r, c)         ? json_null()
                        : col->type == KVG_COL_STR ? json_string(kvg_row_str(r, c))
                        : col->type == KVG_COL_F64 ? (isfinite(v) ? json_real(v) : json_null())
                                                   : json_integer((json_int_t)kvg_row_u64(r, c));
        json_object_set_new(o, col->name, value);
    }
    return !o || json_array_append_new(p->list, o) ? KVG_FAIL(err, KVG_ENOMEM, "out of memory") : 0;
}

static int print_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct printer *p = arg;
    int rc = 0;
    if (p->form == FORM_JSON) {
        rc = add_json(p, row, err);
    } else {
        kvg_progress_close(p->progress);
        if (p->form == FORM_MD)
            print_md(p, row);
        else
            print_csv(p, row);
        fflush(p->out);
    }
    p->n_rows++;
    return rc;
}

static int print_json(struct printer *p, struct kvg_err *err)
{
    char *text = json_dumps(p->list, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (!text)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    fprintf(p->out, "%s\n", text);
    free(text);
    return 0;
}

/* ---- options to settings ---- */

static int read_sizes(const struct kvg_strlist *l, const char *option, size_t def,
                      const size_t **out, size_t *n, struct kvg_arena *a, struct kvg_err *err)
{
    size_t *v = kvg_arena_array(a, l->n + 1, sizeof *v);
    if (!v)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    v[0] = def;
    *out = v;
    *n = l->n ? l->n : 1;
    for (size_t i = 0; i < l->n; i++) {
        int64_t x;
        if (kvg_text_i64(l->v[i], &x) || x < 0 || x > 1 << 24)
            return KVG_FAIL(err, KVG_EUSAGE, "-%s: '%s' is not a number of 0 or more", option,
                            l->v[i]);
        v[i] = (size_t)x;
    }
    return 0;
}

static int is_all_zero(const size_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (v[i])
            return 0;
    return 1;
}

static int make_cfg(struct kvg_bench_cfg *cfg, const struct opts *o, size_t n_cpus,
                    struct kvg_arena *a, struct kvg_err *err)
{
    static const char *const usual[] = {"full+f16"};
    cfg->specs = o->strategies.n ? (const char *const *)o->strategies.v : usual;
    cfg->n_specs = o->strategies.n ? o->strategies.n : 1;
    cfg->reps = (size_t)o->reps;
    cfg->seed = (uint64_t)o->seed;
    int rc = read_sizes(&o->prompts, "p", 512, &cfg->prompts, &cfg->n_prompts, a, err);
    if (!rc)
        rc = read_sizes(&o->gens, "n", 64, &cfg->gens, &cfg->n_gens, a, err);
    if (!rc)
        rc = read_sizes(&o->depths, "d", 0, &cfg->depths, &cfg->n_depths, a, err);
    if (!rc)
        rc = read_sizes(&o->threads, "t", n_cpus, &cfg->threads, &cfg->n_threads, a, err);
    for (size_t i = 0; i < cfg->n_threads && !rc; i++)
        if (cfg->threads[i] < 1 || cfg->threads[i] > 256)
            rc = KVG_FAIL(err, KVG_EUSAGE, "-t: give 1 to 256 threads");
    if (!rc && is_all_zero(cfg->prompts, cfg->n_prompts) && is_all_zero(cfg->gens, cfg->n_gens))
        rc = KVG_FAIL(err, KVG_EUSAGE, "nothing to measure: all of -p and -n are 0");
    return rc;
}

static int bench(struct kvg_cli *cli, const struct opts *o, struct kvg_bench_cfg *cfg,
                 struct kvg_err *err)
{
    struct kvg_progress progress;
    struct printer p = {.out = cli->out, .progress = &progress, .form = (enum form)o->form};
    p.list = json_array();
    if (!p.list)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    cli->started = 1;
    kvg_progress_open(
        &progress, (enum kvg_progress_kind)o->progress, cli->err,
        cfg->n_threads * cfg->n_specs * cfg->n_depths * (cfg->n_prompts + cfg->n_gens), 0);
    kvg_stop_init();
    int rc = kvg_bench_run(cfg, &progress, print_row, &p, err);
    kvg_stop_release();
    kvg_progress_close(&progress);
    if (!rc && p.form == FORM_JSON)
        rc = print_json(&p, err);
    json_decref(p.list);
    return rc;
}

static int run(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err)
{
    const struct opts *o = opts;
    struct kvg_model *model = NULL;
    struct kvg_bench_cfg cfg = {0};
    const char *path;
    int rc = kvg_cli_want(rest, 0, 0, "", err);
    if (!rc)
        rc = make_cfg(&cfg, o, (size_t)kvg_machine_cpus(), &cli->arena, err);
    if (!rc)
        rc = kvg_machine_kernels(&cfg.kernels, o->cpu_level, err);
    if (!rc)
        rc = kvg_model_find(&path, o->model, &cli->arena, err);
    if (!rc)
        rc = kvg_model_open(&model, path, KVG_MODEL_FULL, err);
    cfg.model = model;
    if (!rc)
        rc = bench(cli, o, &cfg, err);
    kvg_model_close(model);
    return rc;
}

const struct kvg_verb kvg_verb_bench = {
    .name = "bench",
    .summary = "speed of prefill and decode by depth and strategy, and how near it is to the limit",
    .usage = "[-m MODEL] [-p 512,2048] [-n 64] [-d 0,512,4096] [--strategy SPEC] [-t 1,2] [-r 5]",
    .example = "kvgauge bench -p 512 -n 64 -d 0,4096 --strategy full+f16 --strategy q8_0",
    .opts = table,
    .opts_bytes = sizeof(struct opts),
    .needs_blas = 1,
    .run = run,
};
