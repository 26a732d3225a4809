/* Owns the verb `recall`: its options and the print of its table. Must not know how recall is
 * measured. */
#include "base/fs.h"
#include "result/recall.h"
#include "run/cli.h"
#include "run/recall.h"
#include "run/stop.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

struct opts {
    struct kvg_strlist strategies, lengths;
    const char *csv;
    int64_t facts, seed, threads;
    int progress, cpu_level;
};

#define AT(f) offsetof(struct opts, f)

static const struct kvg_opt table[] = {
    {.name = "strategy",
     .type = KVG_OPT_LIST,
     .offset = AT(strategies),
     .metavar = "SPEC",
     .help = "a strategy; repeatable (else full)"},
    {.name = "length",
     .type = KVG_OPT_LIST,
     .offset = AT(lengths),
     .choices = ",",
     .metavar = "N,...",
     .help = "tokens of a text with its facts (else 512,2048)"},
    {.name = "facts",
     .type = KVG_OPT_INT,
     .offset = AT(facts),
     .def = "16",
     .min = 1,
     .max = KVG_RECALL_FACTS_MAX,
     .metavar = "N",
     .help = "facts of a text, spread over its length"},
    {.name = "csv",
     .type = KVG_OPT_STRING,
     .offset = AT(csv),
     .metavar = "FILE",
     .help = "write every fact and answer as a row too"},
    {.name = "seed",
     .type = KVG_OPT_INT,
     .offset = AT(seed),
     .def = "1",
     .min = 0,
     .max = 1e15,
     .metavar = "N",
     .help = "seed of the texts and of control strategies"},
    {.name = "threads",
     .short_name = 't',
     .type = KVG_OPT_INT,
     .offset = AT(threads),
     .min = 1,
     .max = 256,
     .metavar = "N",
     .help = "threads; else all usable CPUs"},
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

struct taker {
    struct kvg_recall counts;
    struct kvg_progress *progress;
    size_t n_facts;
    struct kvg_csv *csv; /* NULL = not wanted */
};

static int take_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct taker *t = arg;
    int rc = kvg_recall_add(&t->counts, row, err);
    if (!kvg_row_has(row, KVG_RECALL_fact) || kvg_row_u64(row, KVG_RECALL_fact) + 1 == t->n_facts)
        kvg_progress_end(t->progress, 1);
    return rc || !t->csv ? rc : kvg_csv_write(t->csv, row, err);
}

/* Once per strategy: every text is skipped for the same cause. */
static void put_skipped(const struct kvg_recall *r, struct kvg_str *out)
{
    for (size_t i = 0; i < r->n; i++) {
        size_t first = 0;
        while (strcmp(r->v[first].strategy, r->v[i].strategy))
            first++;
        if (r->v[i].reason && first == i)
            kvg_str_addf(out, "\nskipped  %s  %s\n", r->v[i].strategy, r->v[i].reason);
    }
}

static int print_tables(struct kvg_cli *cli, struct kvg_recall *r, struct kvg_err *err)
{
    struct kvg_str out = {0};
    int rc = KVG_OK;
    for (size_t q = 0; kvg_recall_queries[q] && !rc; q++) {
        struct kvg_grid g;
        rc = kvg_recall_grid(r, kvg_recall_queries[q], &g, err);
        if (!rc && g.n_rows)
            kvg_grid_print(&g, &out);
    }
    put_skipped(r, &out);
    if (!rc && out.failed)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!rc && out.s)
        fputs(out.s, cli->out);
    kvg_str_release(&out);
    return rc;
}

static int measure(struct kvg_cli *cli, const struct opts *o, struct kvg_recall_cfg *cfg,
                   struct kvg_err *err)
{
    struct kvg_progress progress;
    struct taker t = {.progress = &progress, .n_facts = cfg->n_facts};
    kvg_recall_init(&t.counts);
    int rc = KVG_OK;
    if (o->csv && access(o->csv, F_OK) == 0)
        rc = KVG_FAIL(err, KVG_EUSAGE, "'%s' exists already: give --csv a new file", o->csv);
    if (o->csv && !rc)
        rc = kvg_csv_open_append(&t.csv, o->csv, &kvg_table_recall, err);
    kvg_progress_open(&progress, (enum kvg_progress_kind)o->progress, cli->err,
                      2 * cfg->n_specs * cfg->n_lengths, 0);
    kvg_stop_init();
    if (!rc)
        rc = kvg_recall_run(cfg, &progress, take_row, &t, err);
    cli->started = rc != KVG_EUSAGE;
    kvg_stop_release();
    kvg_progress_close(&progress);
    int closed = kvg_csv_close(t.csv, rc ? NULL : err);
    rc = rc ? rc : closed;
    if (!rc)
        rc = print_tables(cli, &t.counts, err);
    kvg_recall_release(&t.counts);
    return rc;
}

static int read_lengths(const struct kvg_strlist *l, size_t **out, size_t *n, struct kvg_arena *a,
                        struct kvg_err *err)
{
    static const char *const usual_v[] = {"512", "2048"};
    const char *const *v = l->n ? l->v : usual_v;
    *n = l->n ? l->n : sizeof usual_v / sizeof *usual_v;
    *out = kvg_arena_array(a, *n, sizeof **out);
    if (!*out)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < *n; i++) {
        int64_t x;
        if (kvg_text_i64(v[i], &x) || x < 1)
            return KVG_FAIL(err, KVG_EUSAGE, "--length: '%s' is not a number of tokens", v[i]);
        (*out)[i] = (size_t)x;
    }
    return KVG_OK;
}

static int run(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err)
{
    static const char *const usual[] = {"full"};
    const struct opts *o = opts;
    size_t *lengths = NULL;
    struct kvg_recall_cfg cfg = {.specs =
                                     o->strategies.n ? (const char *const *)o->strategies.v : usual,
                                 .n_specs = o->strategies.n ? o->strategies.n : 1,
                                 .n_facts = (size_t)o->facts,
                                 .seed = (uint64_t)o->seed};
    int rc = kvg_cli_want(rest, 0, 0, "", err);
    if (!rc)
        rc = read_lengths(&o->lengths, &lengths, &cfg.n_lengths, &cli->arena, err);
    cfg.lengths = lengths;
    if (!rc)
        rc = kvg_machine_open(&cfg.pool, &cfg.kernels, o->threads, o->cpu_level, err);
    if (rc)
        return rc;
    rc = measure(cli, o, &cfg, err);
    kvg_pool_close(cfg.pool);
    return rc;
}

const struct kvg_verb kvg_verb_recall = {
    .name = "recall",
    .summary = "facts asked back on a constructed model that an exact cache answers without error",
    .usage = "[--strategy SPEC]... [--length 512,2048] [--facts 16] [--csv FILE]",
    .example = "kvgauge recall --strategy full --strategy snapkv:budget=25% --length 512,2048",
    .opts = table,
    .opts_bytes = sizeof(struct opts),
    .needs_blas = 1,
    .run = run,
};
