/* Matrix products through OpenBLAS, single-threaded inside: threads are ours (tiles over the pool).
 * OpenBLAS' own choice of kernel is wrong on some CPUs, so candidates are timed once in child
 * processes, the result is cached per CPU model in the user's cache folder, and main() restarts
 * itself with OPENBLAS_CORETYPE set. Builds without BLAS (KVG_BLAS undefined) have none of it. */
#ifndef KVG_KERNEL_BLAS_H
#define KVG_KERNEL_BLAS_H

#include "base/err.h"

#include <stddef.h>

/* C [m, n] = A [m, k] * B [n, k]^T + beta * C, row-major. */
void kvg_gemm_nt(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                 size_t ldb, float beta, float *c, size_t ldc);
/* C [m, n] = A [m, k] * B [k, n] + beta * C, row-major. */
void kvg_gemm_nn(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                 size_t ldb, float beta, float *c, size_t ldc);

int kvg_blas_present(void);
const char *kvg_blas_core(void);    /* the core type in use now, "none" without BLAS */
const char *kvg_blas_version(void); /* OpenBLAS config string */

struct kvg_blas_candidate {
    char core[32];   /* what was asked for; "auto" = OpenBLAS' own choice */
    char actual[32]; /* what OpenBLAS took */
    double gflops_1; /* one thread */
};
enum { KVG_BLAS_CANDIDATES_MAX = 12 };

/* Times the candidates in child processes (argv[0] of the program, verb `blas-probe`); best first.
 * Takes about a second. */
int kvg_blas_probe(struct kvg_blas_candidate *out, size_t *n, struct kvg_err *err);
/* Chooses the core type: environment OPENBLAS_CORETYPE if set by the user, else the cache file,
 * else a probe whose result is cached. When the choice differs from what is loaded, re-executes
 * this program with OPENBLAS_CORETYPE set; so call it first thing in main. Failure to cache or to
 * probe is not an error: OpenBLAS' own choice stays. */
void kvg_blas_choose(int argc, char **argv);
/* The body of the child process: prints "core gflops" on stdout. */
int kvg_blas_probe_child(void);
/* sgemm rate of this process at the shapes prefill uses, GFLOP/s, with n_threads of ours. */
double kvg_blas_rate(int n_threads);

#endif
