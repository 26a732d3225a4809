/* The command line: verbs with their option tables, help made from the tables, and what several
 * verbs share. Verbs write data to `out` and chatter to `err`; only main.c exits. */
#ifndef KVG_RUN_CLI_H
#define KVG_RUN_CLI_H

#include "base/arena.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/pool.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "run/progress.h"

#include <stdio.h>

/* Exit codes of the program. */
enum {
    KVG_EXIT_DONE = 0,
    KVG_EXIT_FAILED = 1,  /* a run or a check failed */
    KVG_EXIT_USAGE = 2,   /* usage or configuration: nothing was run */
    KVG_EXIT_NOTHING = 7, /* nothing was measured */
    KVG_EXIT_INTERRUPTED = 130
};

struct kvg_cli {
    FILE *out, *err;
    struct kvg_arena arena; /* lives until the verb is done */
    const char *command;    /* what the user typed */
    int started;            /* 1 once work began: from then on an error is no longer usage */
};

struct kvg_verb {
    const char *name, *summary, *usage, *example;
    const struct kvg_opt *opts;
    size_t opts_bytes;
    int needs_blas; /* the BLAS core must be chosen before */
    int hidden;
    int (*run)(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err);
};

extern const struct kvg_verb kvg_verb_run, kvg_verb_ls, kvg_verb_explain, kvg_verb_summary,
    kvg_verb_plot, kvg_verb_inspect, kvg_verb_bench, kvg_verb_recall, kvg_verb_calibrate,
    kvg_verb_doctor, kvg_verb_blas_probe;

/* NULL when there is none. */
const struct kvg_verb *kvg_cli_find(const char *name);
/* Runs argv[1] as a verb and gives the exit code; messages go to cli->err. */
int kvg_cli_main(struct kvg_cli *cli, int argc, char **argv);
int kvg_cli_exit_code(const struct kvg_cli *cli, int rc);
/* Appends the help of a verb, or of the program for NULL. */
void kvg_cli_help(const struct kvg_verb *verb, struct kvg_str *out);
/* KVG_EUSAGE unless `rest` has from min to max words; `what` names them. */
int kvg_cli_want(const struct kvg_strlist *rest, size_t min, size_t max, const char *what,
                 struct kvg_err *err);

/* Summary, plots, report and the table on cli->out of a run that is done (verb_files.c). Without
 * gnuplot the plots are left out, with a word on cli->err. */
int kvg_cli_finish_run(struct kvg_cli *cli, const char *dir, struct kvg_err *err);

/* ---- the machine and the model (machine.c) ---- */

#define KVG_CPU_LEVELS "auto|ref|avx2|avx512"

/* `level` is an index into KVG_CPU_LEVELS; n_threads 0 = all usable CPUs. */
int kvg_machine_open(struct kvg_pool **pool, const struct kvg_kernels **kernels, int64_t n_threads,
                     int level, struct kvg_err *err);
int kvg_machine_cpus(void); /* usable by this process, at least 1 */
int kvg_machine_kernels(const struct kvg_kernels **kernels, int level, struct kvg_err *err);
/* The folder of models: $XDG_CACHE_HOME/kvgauge or ~/.cache/kvgauge; NULL without a home. */
const char *kvg_models_folder(struct kvg_arena *a);
/* Files *.gguf there, sorted; n 0 when there is no folder. */
int kvg_models_list(struct kvg_strlist *out, struct kvg_arena *a, struct kvg_err *err);
/* Path of the model: `given`, else KVGAUGE_MODEL, else the one model of the folder. */
int kvg_model_find(const char **path, const char *given, struct kvg_arena *a, struct kvg_err *err);

#endif
