/* Owns the checks of the machine and the model, and their lines. Must not know strategies. */
#include "run/doctor.h"

#include "base/hash.h"
#include "base/pool.h"
#include "kernel/blas.h"
#include "kernel/probe.h"
#include "model/model.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEP_BYTES = 96 << 20, MODEL_BYTES = 200 << 20, BANDWIDTH_REPS = 5 };

/* Models whose bytes are known. */
static const struct {
    const char *sha256, *name;
} known[] = {
    {"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
     "SmolLM2-135M-Instruct Q4_1"},
};

enum finding { OK, WARN, BROKEN };

static void say(struct kvg_doctor *d, enum finding f, const char *topic, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void say(struct kvg_doctor *d, enum finding f, const char *topic, const char *fmt, ...)
{
    static const char *const marks[] = {"ok", "warn", "BROKEN"};
    va_list ap;
    fprintf(d->out, "%-6s  %-12s ", marks[f], topic);
    va_start(ap, fmt);
    vfprintf(d->out, fmt, ap);
    va_end(ap);
    fputc('\n', d->out);
    fflush(d->out);
    d->n_warnings += f == WARN;
    d->n_broken += f == BROKEN;
}

static void check_cpu(struct kvg_doctor *d, const struct kvg_host *h)
{
    char levels[96] = "";
    const char *best = "ref";
    for (const char *const *l = kvg_kernels_levels(); *l; l++) {
        size_t n = strlen(levels);
        snprintf(levels + n, sizeof levels - n, "%s%s", n ? ", " : "", *l);
        best = *l;
    }
    say(d, OK, "cpu", "%s, %d usable, %s", h->cpu_model, h->n_cpus, h->os);
    say(d, strcmp(best, "ref") ? OK : WARN, "cpu flags", "%s", h->cpu_flags);
    say(d, strcmp(d->kernels->name, best) ? WARN : OK, "kernels", "%s in use; this CPU has %s",
        d->kernels->name, levels);
    say(d, d->n_threads > h->n_cpus ? WARN : OK, "threads", "%d", d->n_threads);
    say(d, h->load1 > 0.5 * h->n_cpus ? WARN : OK, "load", "%.2f over the last minute%s", h->load1,
        h->load1 > 0.5 * h->n_cpus ? ": times will suffer" : "");
}

static void check_blas(struct kvg_doctor *d)
{
    struct kvg_blas_candidate c[KVG_BLAS_CANDIDATES_MAX];
    struct kvg_err why;
    size_t n = 0;
    if (!kvg_blas_present()) {
        say(d, WARN, "blas", "this build has none: prompts run through the row kernels");
        return;
    }
    say(d, OK, "blas", "core %s of %s", kvg_blas_core(), kvg_blas_version());
    if (kvg_blas_probe(c, &n, &why)) {
        say(d, WARN, "blas cores", "cannot be compared: %s", why.msg);
        return;
    }
    for (size_t i = 0; i < n; i++)
        say(d, OK, "blas core", "%-12s (%s) %7.1f GFLOP/s, 1 thread%s", c[i].core, c[i].actual,
            c[i].gflops_1, strcmp(c[i].actual, kvg_blas_core()) ? "" : "  <- in use");
    double chosen = kvg_blas_rate(1);
    say(d, n && chosen < 0.8 * c[0].gflops_1 ? WARN : OK, "sgemm", "%.1f GFLOP/s, 1 thread",
        chosen);
    if (d->n_threads > 1)
        say(d, OK, "sgemm", "%.1f GFLOP/s, %d threads", kvg_blas_rate(d->n_threads), d->n_threads);
}

static int check_speed(struct kvg_doctor *d, struct kvg_err *err)
{
    struct kvg_pool *pool = NULL;
    double cost, step;
    int rc = kvg_pool_open(&pool, d->n_threads, err);
    if (rc)
        return rc;
    double rate = kvg_probe_read_bandwidth(pool, STEP_BYTES, BANDWIDTH_REPS);
    say(d, OK, "read", "%.1f GB/s over %d MB, about the bytes of one decode step", rate / 1e9,
        STEP_BYTES >> 20);
    kvg_pool_close(pool);
    kvg_probe_clock(&cost, &step);
    say(d, cost > 1000 ? WARN : OK, "clock", "%.0f ns a reading, smallest step %.0f ns", cost,
        step);
    return 0;
}

static void check_memory(struct kvg_doctor *d, const struct kvg_host *h)
{
    say(d, h->mem_available_bytes < MODEL_BYTES ? WARN : OK, "memory", "%.1f GB, %.1f GB free",
        (double)h->mem_total_bytes / 1e9, (double)h->mem_available_bytes / 1e9);
}

static int on_path(const char *program)
{
    char file[512];
    const char *path = getenv("PATH");
    for (const char *p = path ? path : ""; *p;) {
        size_t n = strcspn(p, ":");
        snprintf(file, sizeof file, "%.*s/%s", (int)n, p, program);
        if (!access(file, X_OK))
            return 1;
        p += n + (p[n] == ':');
    }
    return 0;
}

static void check_gnuplot(struct kvg_doctor *d)
{
    if (on_path("gnuplot"))
        say(d, OK, "gnuplot", "found");
    else
        say(d, WARN, "gnuplot", "not found: runs will have no plots; install gnuplot-nox");
}

int kvg_doctor_machine(struct kvg_doctor *d, struct kvg_err *err)
{
    struct kvg_host h;
    kvg_host_probe(&h);
    check_cpu(d, &h);
    check_memory(d, &h);
    check_blas(d);
    int rc = check_speed(d, err);
    check_gnuplot(d);
    return rc;
}

static void check_hash(struct kvg_doctor *d, const char *path)
{
    char sha[KVG_SHA256_HEX];
    struct kvg_err why;
    if (kvg_hash_sha256_file(path, sha, &why)) {
        say(d, BROKEN, "model hash", "%s", why.msg);
        return;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].sha256, sha)) {
            say(d, OK, "model hash", "%s: known, %s", sha, known[i].name);
            return;
        }
    say(d, OK, "model hash", "%s: not one this program knows, which is no fault", sha);
}

void kvg_doctor_model(struct kvg_doctor *d, const char *path, const char *why)
{
    struct kvg_model *m = NULL;
    struct kvg_template chat;
    struct kvg_err err;
    if (!path) {
        say(d, WARN, "model", "%s", why);
        return;
    }
    if (kvg_model_open(&m, path, KVG_MODEL_FULL, &err)) {
        say(d, BROKEN, "model", "%s", err.msg);
        return;
    }
    say(d, OK, "model", "%s, %s, %.1fM parameters, %.1f MB read a step", m->name, m->type_name,
        (double)m->n_params / 1e6, (double)m->weight_bytes / 1e6);
    say(d, OK, "shape", "%zu layers, %zu heads over %zu KV heads of %zu, context %zu", m->n_layers,
        m->n_heads, m->n_kv_heads, m->d_head, m->n_ctx);
    say(d, OK, "tokenizer", "%zu tokens, digest %.16s", m->n_vocab, kvg_tokenizer_digest(m->tok));
    if (kvg_template_open(&chat, &m->gguf, m->tok, &err)) {
        say(d, WARN, "template", "%s: `inspect` and `bench` work, `run` does not", err.msg);
    } else {
        say(d, OK, "template", "%s", kvg_template_name(chat.kind));
        kvg_template_release(&chat);
    }
    check_hash(d, path);
    kvg_model_close(m);
}
