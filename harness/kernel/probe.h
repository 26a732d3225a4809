/* What the machine can do: for `doctor`, `bench` and the manifest. */
#ifndef KVG_KERNEL_PROBE_H
#define KVG_KERNEL_PROBE_H

#include "base/pool.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_host {
    char cpu_model[96];
    char cpu_flags[256]; /* the ones kernels care about: avx2 fma f16c avx512f ... amx */
    char os[128];        /* kernel release and distribution */
    int n_cpus;          /* usable by this process (affinity, cgroup) */
    uint64_t mem_total_bytes, mem_available_bytes;
    double load1;
};
void kvg_host_probe(struct kvg_host *h);

/* Read bandwidth in bytes/s: best of `reps` passes of the pool's threads over a buffer of n bytes
 * (each thread sums its own part; the sum is kept so that nothing is optimised away). */
double kvg_probe_read_bandwidth(struct kvg_pool *pool, size_t bytes, int reps);
/* Cost of one kvg_clock_ns() call in ns (median of many) and its smallest step. */
void kvg_probe_clock(double *cost_ns, double *step_ns);
/* Resident set now and peak, bytes, from /proc/self. */
uint64_t kvg_probe_rss_bytes(void);
uint64_t kvg_probe_peak_rss_bytes(void);

#endif
