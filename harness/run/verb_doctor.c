/* Owns the verbs `doctor` and `blas-probe` (the child that times one BLAS core). */
#include "kernel/blas.h"
#include "run/cli.h"
#include "run/doctor.h"

#include <stddef.h>

struct opts {
    const char *model;
    int64_t threads;
    int cpu_level;
};

#define AT(f) offsetof(struct opts, f)

static const struct kvg_opt table[] = {
    {.name = "model",
     .short_name = 'm',
     .type = KVG_OPT_STRING,
     .offset = AT(model),
     .metavar = "FILE",
     .help = "GGUF model (else KVGAUGE_MODEL, else the one in the cache folder)"},
    {.name = "threads",
     .short_name = 't',
     .type = KVG_OPT_INT,
     .offset = AT(threads),
     .min = 1,
     .max = 256,
     .metavar = "N",
     .help = "threads; else all usable CPUs"},
    {.name = "cpu-level",
     .type = KVG_OPT_CHOICE,
     .offset = AT(cpu_level),
     .choices = KVG_CPU_LEVELS,
     .def = "auto",
     .help = "kernels to use"},
    {.name = NULL},
};
static const struct kvg_opt no_options[] = {{.name = NULL}};

static int run(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err)
{
    const struct opts *o = opts;
    struct kvg_doctor d = {.out = cli->out};
    struct kvg_err why = {0};
    const char *path = NULL;
    int rc = kvg_cli_want(rest, 0, 0, "", err);
    if (!rc)
        rc = kvg_machine_kernels(&d.kernels, o->cpu_level, err);
    if (rc)
        return rc;
    d.n_threads = o->threads ? (int)o->threads : kvg_machine_cpus();
    cli->started = 1;
    rc = kvg_doctor_machine(&d, err);
    if (rc)
        return rc;
    int missing = kvg_model_find(&path, o->model, &cli->arena, &why);
    if (missing && o->model)
        return KVG_FAIL(err, KVG_EUSAGE, "%s", why.msg);
    kvg_doctor_model(&d, missing ? NULL : path, why.msg);
    fprintf(cli->out, "%d broken, %d to look at\n", d.n_broken, d.n_warnings);
    if (d.n_broken)
        return KVG_FAIL(err, KVG_ECHECK, "something that is needed is broken; see above");
    return 0;
}

static int run_blas_probe(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
                          struct kvg_err *err)
{
    (void)opts;
    (void)rest;
    cli->started = 1;
    if (kvg_blas_probe_child())
        return KVG_FAIL(err, KVG_EUNSUP, "this build has no BLAS to time");
    return 0;
}

const struct kvg_verb kvg_verb_doctor = {
    .name = "doctor",
    .summary = "CPU, BLAS core, bandwidth, clock, memory and model, each with a verdict",
    .usage = "[-m MODEL] [-t N]",
    .example = "kvgauge doctor",
    .opts = table,
    .opts_bytes = sizeof(struct opts),
    .needs_blas = 1,
    .run = run,
};

const struct kvg_verb kvg_verb_blas_probe = {
    .name = "blas-probe",
    .summary = "time the BLAS core that is loaded",
    .usage = "",
    .example = "kvgauge blas-probe",
    .opts = no_options,
    .hidden = 1,
    .run = run_blas_probe,
};
