/* Owns the choice of OpenBLAS' kernel: timing candidates in child processes, the cache of the
 * result, the restart. Must not know what is multiplied later. */
#include "kernel/blas.h"

#ifdef KVG_BLAS

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/text.h"
#include "kernel/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* OpenBLAS reads ENV_CORE when it is loaded. ENV_CHOSEN marks a process whose kernel was chosen, so
 * that a restart happens once. */
#define ENV_CORE "OPENBLAS_CORETYPE"
#define ENV_CHOSEN "KVGAUGE_BLAS_CHOSEN"

static const char *const candidates[] = {"auto",      "SapphireRapids", "Cooperlake",
                                         "SkylakeX",  "Haswell",        "Zen",
                                         "Excavator", "Sandybridge",    "Nehalem"};
enum { N_CANDIDATES = sizeof candidates / sizeof *candidates };
_Static_assert((int)N_CANDIDATES <= (int)KVG_BLAS_CANDIDATES_MAX, "candidates do not fit");

/* A tile of the prefill: activations [M, K] times weight rows [N, K]. */
enum { M = 512, N = 256, K = 576 };

struct tile {
    float a[M * K], b[N * K], c[M * N];
};

struct rate_job {
    struct tile *tiles;
    int reps;
};

static void rate_part(void *arg, size_t part, int thread)
{
    struct rate_job *job = arg;
    struct tile *t = &job->tiles[part];
    (void)thread;
    for (int i = 0; i < job->reps; i++)
        kvg_gemm_nt(M, N, K, t->a, K, t->b, K, 0.0f, t->c, N);
}

double kvg_blas_rate(int n_threads)
{
    const double flops = 2.0 * M * N * K;
    struct kvg_pool *pool = NULL;
    double best = 0.0;
    struct rate_job job = {.reps = 1};
    size_t n = n_threads > 0 ? (size_t)n_threads : 1;
    job.tiles = malloc(n * sizeof *job.tiles);
    if (!job.tiles || kvg_pool_open(&pool, (int)n, NULL))
        goto out;
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < M * K; i++)
            job.tiles[t].a[i] = (float)(i % 13) - 6.0f;
        for (size_t i = 0; i < N * K; i++)
            job.tiles[t].b[i] = (float)(i % 7) - 3.0f;
    }
    kvg_pool_run(pool, n, rate_part, &job);
    /* Bursts of some milliseconds; the best one has met the least interference. */
    job.reps = 4;
    for (uint64_t start = kvg_clock_ns(), now = start; now - start < 60000000;) {
        uint64_t from = kvg_clock_ns();
        kvg_pool_run(pool, n, rate_part, &job);
        now = kvg_clock_ns();
        double rate = flops * (double)n * job.reps / (double)(now - from);
        best = rate > best ? rate : best;
    }
out:
    if (pool)
        kvg_pool_close(pool);
    free(job.tiles);
    return best;
}

int kvg_blas_probe_child(void)
{
    printf("%s %.3f\n", kvg_blas_core(), kvg_blas_rate(1));
    return fflush(stdout) ? KVG_EIO : 0;
}

/* In the child, after fork: sets the environment and becomes this program's blas-probe verb. */
static void child_exec(const char *core, int out_fd)
{
    char verb[] = "blas-probe", name[] = "kvgauge", *argv[] = {name, verb, NULL};
    const struct rlimit no_core = {0, 0};
    /* A kernel this CPU cannot run dies of SIGILL: no core file for that. */
    setrlimit(RLIMIT_CORE, &no_core);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 2) < 0 || dup2(out_fd, 1) < 0)
        _exit(126);
    if (!strcmp(core, "auto") ? unsetenv(ENV_CORE) : setenv(ENV_CORE, core, 1))
        _exit(126);
    setenv(ENV_CHOSEN, core, 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* Reads what the child prints until it closes the pipe; at most two seconds. */
static void child_read(int fd, char *buf, size_t cap)
{
    uint64_t end = kvg_clock_ns() + 2000000000u;
    size_t n = 0;
    for (;;) {
        uint64_t now = kvg_clock_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= end || poll(&p, 1, (int)((end - now) / 1000000u) + 1) < 0)
            break;
        ssize_t got = read(fd, buf + n, cap - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    buf[n] = 0;
}

/* Times one candidate; -1 when it does not run here. */
static int candidate_time(const char *core, struct kvg_blas_candidate *c)
{
    int fd[2], status = 0;
    char line[128], *space;
    if (pipe2(fd, O_CLOEXEC))
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        child_exec(core, fd[1]);
    close(fd[1]);
    if (pid > 0) {
        child_read(fd[0], line, sizeof line);
        kill(pid, SIGKILL); /* does nothing to one that has ended */
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    close(fd[0]);
    if (pid < 0 || !(space = strchr(line, ' ')))
        return -1;
    *space++ = 0;
    space[strcspn(space, "\n")] = 0;
    snprintf(c->core, sizeof c->core, "%s", core);
    snprintf(c->actual, sizeof c->actual, "%.31s", line);
    return kvg_text_double(space, &c->gflops_1) || !(c->gflops_1 > 0.0) ? -1 : 0;
}

static int by_rate(const void *a, const void *b)
{
    const struct kvg_blas_candidate *x = a, *y = b;
    return (x->gflops_1 < y->gflops_1) - (x->gflops_1 > y->gflops_1);
}

int kvg_blas_probe(struct kvg_blas_candidate *out, size_t *n, struct kvg_err *err)
{
    *n = 0;
    for (size_t i = 0; i < N_CANDIDATES; i++) {
        struct kvg_blas_candidate c;
        int known = 0;
        if (candidate_time(candidates[i], &c))
            continue;
        for (size_t j = 0; j < *n; j++)
            known |= !strcmp(out[j].actual, c.actual);
        if (!known)
            out[(*n)++] = c;
    }
    if (!*n)
        return KVG_FAIL(err, KVG_ENONE, "no OpenBLAS kernel could be timed: cannot run '%s'",
                        "/proc/self/exe blas-probe");
    qsort(out, *n, sizeof *out, by_rate);
    return 0;
}

/* The cache file of this CPU and this OpenBLAS; -1 when there is no home for it. */
static int cache_path(char *dir, size_t dir_cap, char *path, size_t path_cap)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct kvg_host host;
    int n;
    if (base && *base == '/')
        n = snprintf(dir, dir_cap, "%s/kvgauge", base);
    else if (home && *home)
        n = snprintf(dir, dir_cap, "%s/.cache/kvgauge", home);
    else
        return -1;
    if (n < 0 || (size_t)n >= dir_cap)
        return -1;
    kvg_host_probe(&host);
    /* The version up to the core's name: that name is what the choice changes. */
    const char *version = kvg_blas_version(), *core = strstr(version, kvg_blas_core());
    uint64_t key = kvg_hash_fnv_str(KVG_FNV_INIT, host.cpu_model);
    key = kvg_hash_fnv_str(key, host.cpu_flags);
    key = kvg_hash_fnv(key, version, core ? (size_t)(core - version) : strlen(version));
    n = snprintf(path, path_cap, "%s/blas-%016" PRIx64 ".txt", dir, key);
    return n < 0 || (size_t)n >= path_cap ? -1 : 0;
}

/* The candidate named in the cache file, or NULL. */
static const char *cache_read(const char *path)
{
    const char *found = NULL;
    char *text = NULL;
    size_t size;
    if (kvg_fs_read(path, 4096, &text, &size, NULL))
        return NULL;
    text[strcspn(text, " \n")] = 0;
    for (size_t i = 0; i < N_CANDIDATES; i++)
        if (!strcmp(text, candidates[i]))
            found = candidates[i];
    free(text);
    return found;
}

static const char *probe_best(const char *dir, const char *path)
{
    struct kvg_blas_candidate c[KVG_BLAS_CANDIDATES_MAX];
    struct kvg_str text = {0};
    size_t n;
    if (kvg_blas_probe(c, &n, NULL))
        return NULL;
    for (size_t i = 0; i < n; i++)
        kvg_str_addf(&text, "%s %s %.1f\n", c[i].core, c[i].actual, c[i].gflops_1);
    /* A failure to keep it costs a second at the next start, nothing else. */
    if (dir && !text.failed && !kvg_fs_mkdirs(dir, NULL))
        kvg_fs_write_atomic(path, text.s, text.len, NULL);
    kvg_str_release(&text);
    for (size_t i = 0; i < N_CANDIDATES; i++)
        if (!strcmp(c[0].core, candidates[i]))
            return candidates[i];
    return NULL;
}

void kvg_blas_choose(int argc, char **argv)
{
    char dir[512], path[600];
    if (argc < 1 || getenv(ENV_CHOSEN) || getenv(ENV_CORE))
        return;
    int keep = !cache_path(dir, sizeof dir, path, sizeof path);
    const char *core = keep ? cache_read(path) : NULL;
    if (!core)
        core = probe_best(keep ? dir : NULL, path);
    if (!core || !strcmp(core, "auto") || !strcasecmp(core, kvg_blas_core()))
        return;
    if (!setenv(ENV_CORE, core, 1) && !setenv(ENV_CHOSEN, core, 1))
        execv("/proc/self/exe", argv);
    unsetenv(ENV_CORE);
    unsetenv(ENV_CHOSEN);
}

#else

int kvg_blas_probe(struct kvg_blas_candidate *out, size_t *n, struct kvg_err *err)
{
    (void)out;
    *n = 0;
    return KVG_FAIL(err, KVG_EUNSUP, "this build has no OpenBLAS: build with '%s'", "KVG_BLAS=ON");
}

void kvg_blas_choose(int argc, char **argv)
{
    (void)argc;
    (void)argv;
}

int kvg_blas_probe_child(void)
{
    return KVG_EUNSUP;
}

double kvg_blas_rate(int n_threads)
{
    (void)n_threads;
    return 0.0;
}

#endif
