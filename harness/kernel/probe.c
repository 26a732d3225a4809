/* Owns what can be learnt about the machine and this process: /proc, cpuid by way of /proc/cpuinfo,
 * cgroup v2 limits, bandwidth, clock. Must not know what the numbers are used for. */
#include "kernel/probe.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

/* A whole small file as text the caller frees; NULL when it cannot be read. */
static char *text_of(const char *path)
{
    char *text;
    size_t size;
    return kvg_fs_read(path, 1 << 20, &text, &size, NULL) ? NULL : text;
}

/* The value behind `key` at the start of a line, up to the end of the line, without the separators
 * ":", "=", blanks and quotes; 0 when there is none. */
static int line_value(const char *text, const char *key, char *out, size_t cap)
{
    size_t n = strlen(key);
    for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
        if (strncmp(l, key, n) || !strchr(" \t:=", l[n]))
            continue;
        l += n;
        l += strspn(l, " \t:=\"");
        size_t len = strcspn(l, "\"\n");
        len = len < cap ? len : cap - 1;
        memcpy(out, l, len);
        out[len] = 0;
        return 1;
    }
    return 0;
}

/* "MemTotal:  123 kB" style, in bytes; 0 when missing. */
static uint64_t kb_value(const char *text, const char *key)
{
    char v[64];
    return line_value(text, key, v, sizeof v) ? strtoull(v, NULL, 10) * 1024 : 0;
}

static void flags_pick(const char *all, char *out, size_t cap)
{
    static const char *const wanted[] = {
        "avx",      "avx2",     "fma",         "f16c",        "avx512f",  "avx512bw",
        "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx_vnni", "avx512_fp16",
        "amx_tile", "amx_bf16", "amx_int8",    "asimd",       "sve"};
    size_t used = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        size_t n = strlen(wanted[i]);
        for (const char *p = all; (p = strstr(p, wanted[i])); p += n) {
            int whole = (p == all || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0);
            if (!whole || used + n + 2 > cap)
                continue;
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used ? " " : "", wanted[i]);
            break;
        }
    }
}

static void cpu_probe(struct kvg_host *h)
{
    static const char *const model_keys[] = {"model name", "Model", "cpu model"};
    char flags[4096] = "", *text = text_of("/proc/cpuinfo");
    if (!text)
        return;
    for (size_t i = 0; i < 3 && !*h->cpu_model; i++)
        line_value(text, model_keys[i], h->cpu_model, sizeof h->cpu_model);
    if (line_value(text, "flags", flags, sizeof flags) ||
        line_value(text, "Features", flags, sizeof flags))
        flags_pick(flags, h->cpu_flags, sizeof h->cpu_flags);
    free(text);
}

static void os_probe(struct kvg_host *h)
{
    struct utsname u;
    char name[80] = "", *text = text_of("/etc/os-release");
    if (text)
        line_value(text, "PRETTY_NAME", name, sizeof name);
    free(text);
    if (!uname(&u))
        snprintf(h->os, sizeof h->os, "%.16s %.64s%s%.40s", u.sysname, u.release, *name ? ", " : "",
                 name);
}

/* Calls fn with the folder of this process' cgroup and of each of its parents: a limit set anywhere
 * above binds too. */
static void cgroup_each(void (*fn)(const char *dir, void *arg), void *arg)
{
    char group[512], dir[560], *text = text_of("/proc/self/cgroup");
    const char *own = text ? strstr(text, "0::/") : NULL;
    if (own) {
        own += strlen("0::");
        snprintf(group, sizeof group, "%.*s", (int)strcspn(own, "\n"), own);
        for (char *slash = group; slash; slash = strrchr(group, '/')) {
            snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", group);
            fn(dir, arg);
            *strrchr(group, '/') = 0;
        }
        fn("/sys/fs/cgroup", arg);
    }
    free(text);
}

static char *cgroup_text(const char *dir, const char *file)
{
    char path[640];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    return text_of(path);
}

/* cpu.max: "quota period" in microseconds, or "max period". */
static void cpu_limit(const char *dir, void *arg)
{
    double quota, period, *cpus = arg;
    char *text = cgroup_text(dir, "cpu.max");
    if (text && sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0 &&
        quota / period < *cpus)
        *cpus = quota / period;
    free(text);
}

static int cpus_usable(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    double cpus = online > 0 ? (double)online : 1.0;
    if (!sched_getaffinity(0, sizeof set, &set))
        cpus = CPU_COUNT(&set);
    cgroup_each(cpu_limit, &cpus);
    /* Half a CPU is still one thread; 1.5 are one, a second thread would be throttled. */
    return cpus < 1.0 ? 1 : (int)cpus;
}

/* memory.max: bytes, or "max" for none. */
static void memory_limit(const char *dir, void *arg)
{
    struct kvg_host *h = arg;
    char *max = cgroup_text(dir, "memory.max"), *current = cgroup_text(dir, "memory.current"), *end;
    uint64_t limit = max ? strtoull(max, &end, 10) : 0;
    if (max && end != max) {
        uint64_t used = current ? strtoull(current, NULL, 10) : 0;
        uint64_t room = limit > used ? limit - used : 0;
        h->mem_total_bytes = limit < h->mem_total_bytes ? limit : h->mem_total_bytes;
        h->mem_available_bytes = room < h->mem_available_bytes ? room : h->mem_available_bytes;
    }
    free(max);
    free(current);
}

static void memory_probe(struct kvg_host *h)
{
    char *text = text_of("/proc/meminfo");
    if (!text)
        return;
    h->mem_total_bytes = kb_value(text, "MemTotal");
    h->mem_available_bytes = kb_value(text, "MemAvailable");
    free(text);
    cgroup_each(memory_limit, h);
}

void kvg_host_probe(struct kvg_host *h)
{
    memset(h, 0, sizeof *h);
    cpu_probe(h);
    os_probe(h);
    memory_probe(h);
    h->n_cpus = cpus_usable();
    char *load = text_of("/proc/loadavg");
    if (load)
        h->load1 = strtod(load, NULL);
    free(load);
}

enum { PARTS_PER_THREAD = 4, MAX_PARTS = 256 };

struct read_job {
    const uint64_t *data;
    size_t n, n_parts;       /* n: 64-bit words */
    uint64_t sum[MAX_PARTS]; /* known to the pool, so the compiler cannot drop the reading */
};

/* Two words at once, in whatever form the plain instruction set has. */
typedef uint64_t words __attribute__((vector_size(16), aligned(8), may_alias));

static void read_part(void *arg, size_t part, int thread)
{
    struct read_job *job = arg;
    size_t from = job->n * part / job->n_parts, to = job->n * (part + 1) / job->n_parts;
    words s[8] = {{0}};
    size_t i = from;
    (void)thread;
    for (; i + 16 <= to; i += 16) {
        const words *w = (const words *)(job->data + i);
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++)
            s[k] += w[k];
    }
    uint64_t sum = 0;
    for (; i < to; i++)
        sum += job->data[i];
    for (size_t k = 0; k < 8; k++)
        sum += s[k][0] + s[k][1];
    job->sum[part] = sum;
}

double kvg_probe_read_bandwidth(struct kvg_pool *pool, size_t bytes, int reps)
{
    struct read_job job = {.n = bytes / sizeof(uint64_t)};
    size_t threads = (size_t)kvg_pool_threads(pool);
    uint64_t *data = malloc(bytes ? bytes : 1);
    double best = 0.0;
    if (!data)
        return 0.0;
    job.data = data;
    job.n_parts = threads * PARTS_PER_THREAD < MAX_PARTS ? threads * PARTS_PER_THREAD : MAX_PARTS;
    for (size_t i = 0; i < job.n; i++)
        data[i] = i * 0x9e3779b97f4a7c15u;
    for (int r = 0; r < reps; r++) {
        uint64_t start = kvg_clock_ns();
        kvg_pool_run(pool, job.n_parts, read_part, &job);
        uint64_t ns = kvg_clock_ns() - start;
        double rate = (double)(job.n * sizeof(uint64_t)) * 1e9 / (double)(ns ? ns : 1);
        best = rate > best ? rate : best;
    }
    free(data);
    return best;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void kvg_probe_clock(double *cost_ns, double *step_ns)
{
    enum { BATCHES = 101, CALLS = 200 };
    double cost[BATCHES], step = 1e9;
    for (int b = 0; b < BATCHES; b++) {
        uint64_t start = kvg_clock_ns(), last = start, now = start;
        for (int i = 0; i < CALLS; i++) {
            now = kvg_clock_ns();
            if (now > last && (double)(now - last) < step)
                step = (double)(now - last);
            last = now;
        }
        cost[b] = (double)(now - start) / CALLS;
    }
    qsort(cost, BATCHES, sizeof *cost, by_value);
    *cost_ns = cost[BATCHES / 2];
    *step_ns = step;
}

uint64_t kvg_probe_rss_bytes(void)
{
    unsigned long long total, resident = 0;
    char *text = text_of("/proc/self/statm");
    if (!text || sscanf(text, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    free(text);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t kvg_probe_peak_rss_bytes(void)
{
    char *text = text_of("/proc/self/status");
    uint64_t peak = text ? kb_value(text, "VmHWM") : 0;
    free(text);
    return peak;
}
