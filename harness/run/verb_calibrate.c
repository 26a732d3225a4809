/* Owns the verb `calibrate`: its options and where its file goes. Must not know how ranges and
 * levels are found. */
#include "base/fs.h"
#include "run/calibrate.h"
#include "run/cli.h"
#include "run/fingerprint.h"
#include "run/stop.h"

#include <stddef.h>

struct opts {
    const char *model, *workload, *out;
    struct kvg_strlist items;
    int64_t tokens, threads;
    double outliers;
    int progress, cpu_level;
};

#define AT(f) offsetof(struct opts, f)

static const struct kvg_opt table[] = {
    {.name = "model",
     .short_name = 'm',
     .type = KVG_OPT_STRING,
     .offset = AT(model),
     .metavar = "FILE",
     .help = "GGUF model (else KVGAUGE_MODEL, else the one in the cache folder)"},
    {.name = "workload",
     .type = KVG_OPT_STRING,
     .offset = AT(workload),
     .metavar = "PACK|FILE",
     .help = "texts to calibrate with; not those that are measured later"},
    {.name = "items",
     .type = KVG_OPT_LIST,
     .offset = AT(items),
     .choices = ",",
     .metavar = "ID,...",
     .help = "items of it (else all, in order, until there are enough tokens)"},
    {.name = "out",
     .type = KVG_OPT_STRING,
     .offset = AT(out),
     .metavar = "FILE",
     .help = "calibration file to write"},
    {.name = "tokens",
     .type = KVG_OPT_INT,
     .offset = AT(tokens),
     .def = "4096",
     .min = KVG_CALIBRATE_TOKENS_LEAST,
     .max = 1 << 20,
     .metavar = "N",
     .help = "tokens to look at, at most; all their keys and values are held in memory"},
    {.name = "outliers",
     .type = KVG_OPT_FLOAT,
     .offset = AT(outliers),
     .def = "1",
     .min = 0,
     .max = 50,
     .metavar = "PERCENT",
     .help = "values kept apart in f16, half of them in each tail"},
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

static int calibrate(struct kvg_cli *cli, const struct opts *o, const struct kvg_model *model,
                     struct kvg_err *err)
{
    struct kvg_str text = {0};
    struct kvg_progress progress;
    char sha[KVG_SHA256_HEX];
    struct kvg_calibrate_cfg cfg = {.model = model,
                                    .model_sha256 = sha,
                                    .workload = o->workload,
                                    .items = o->items,
                                    .max_tokens = (size_t)o->tokens,
                                    .outliers = o->outliers / 100};
    int rc = kvg_fingerprint_file(model->path, sha, err);
    if (!rc)
        rc = kvg_machine_open(&cfg.pool, &cfg.kernels, o->threads, o->cpu_level, err);
    if (rc)
        return rc;
    kvg_progress_open(&progress, (enum kvg_progress_kind)o->progress, cli->err, 1, 0);
    kvg_progress_begin(&progress, "calibrate", 0);
    kvg_stop_init();
    rc = kvg_calibrate_run(&cfg, &progress, &text, err);
    kvg_stop_release();
    kvg_progress_close(&progress);
    cli->started = rc != KVG_EUSAGE;
    if (!rc)
        rc = kvg_fs_write_atomic(o->out, text.s, text.len, err);
    if (!rc)
        fprintf(cli->out, "%s\n", o->out);
    kvg_str_release(&text);
    kvg_pool_close(cfg.pool);
    return rc;
}

static int run(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err)
{
    const struct opts *o = opts;
    struct kvg_model *model = NULL;
    const char *path;
    int rc = kvg_cli_want(rest, 0, 0, "", err);
    if (!rc && !o->workload)
        rc = KVG_FAIL(err, KVG_EUSAGE, "no texts: give --workload PACK|FILE");
    if (!rc && !o->out)
        rc = KVG_FAIL(err, KVG_EUSAGE, "no file to write: give --out FILE");
    if (!rc)
        rc = kvg_model_find(&path, o->model, &cli->arena, err);
    if (!rc)
        rc = kvg_model_open(&model, path, KVG_MODEL_FULL, err);
    if (!rc)
        rc = calibrate(cli, o, model, err);
    kvg_model_close(model);
    return rc;
}

const struct kvg_verb kvg_verb_calibrate = {
    .name = "calibrate",
    .summary = "ranges and levels of a model's keys and values, for strategies that need them",
    .usage = "[-m MODEL] --workload PACK|FILE [--items ID,...] --out FILE",
    .example = "kvgauge calibrate --workload translation --out smollm2.nuq",
    .opts = table,
    .opts_bytes = sizeof(struct opts),
    .needs_blas = 1,
    .run = run,
};
