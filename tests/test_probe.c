/* The machine probes, and the products and kernel choice of OpenBLAS. This program is its own child
 * for the verb `blas-probe`. */
#include "base/fs.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kernel/blas.h"
#include "kernel/probe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_host(void **state)
{
    (void)state;
    struct kvg_host h;
    kvg_host_probe(&h);
    assert_true(strlen(h.os) > 3);
    assert_in_range(h.n_cpus, 1, sysconf(_SC_NPROCESSORS_ONLN));
    assert_true(h.mem_total_bytes > 1 << 20);
    assert_true(h.mem_available_bytes <= h.mem_total_bytes);
    assert_true(h.load1 >= 0.0);
}

static void test_process(void **state)
{
    (void)state;
    enum { N = 32 << 20 };
    uint64_t before = kvg_probe_rss_bytes();
    char *p = malloc(N);
    assert_non_null(p);
    for (size_t i = 0; i < N; i += 512)
        ((volatile char *)p)[i] = 1;
    uint64_t with = kvg_probe_rss_bytes();
    assert_true(with >= before + N / 2);
    /* The kernel counts the peak a few pages late. */
    assert_true(kvg_probe_peak_rss_bytes() + (4 << 20) >= with);
    free(p);
}

static void test_clock_and_bandwidth(void **state)
{
    (void)state;
    double cost, step;
    kvg_probe_clock(&cost, &step);
    assert_true(cost > 0.0 && cost < 1e5);
    assert_true(step >= 1.0 && step < 1e8);
    struct kvg_pool *pool;
    assert_int_equal(kvg_pool_open(&pool, 2, NULL), 0);
    double rate = kvg_probe_read_bandwidth(pool, 4 << 20, 3);
    assert_true(rate > 1e7 && rate < 1e13);
    kvg_pool_close(pool);
}

#ifdef KVG_BLAS

static void test_gemm(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1},    {3, 5, 7},     {0, 4, 4},
                                       {17, 64, 33}, {64, 48, 576}, {2, 3, 0}};
    enum { MAX = 64 * 600 };
    static float a[MAX], b[MAX], c[MAX];
    struct kvg_rng r = {5};
    for (size_t i = 0; i < MAX; i++) {
        a[i] = (float)kvg_rng_unit(&r) - 0.5f;
        b[i] = (float)kvg_rng_unit(&r) - 0.5f;
    }
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int trans = 0; trans < 2; trans++)
            for (int beta = 0; beta < 2; beta++) {
                size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
                size_t lda = k + 2, ldb = (trans ? k : n) + 1, ldc = n + 3;
                for (size_t i = 0; i < MAX; i++)
                    c[i] = 0.25f;
                if (trans)
                    kvg_gemm_nt(m, n, k, a, lda, b, ldb, (float)beta, c, ldc);
                else
                    kvg_gemm_nn(m, n, k, a, lda, b, ldb, (float)beta, c, ldc);
                for (size_t i = 0; i < (m + 1) * ldc; i++) {
                    size_t row = i / ldc, col = i % ldc;
                    double want = 0.25, mass = 0.25;
                    if (row < m && col < n) {
                        want *= beta;
                        for (size_t j = 0; j < k; j++) {
                            double t = (double)a[row * lda + j] *
                                       (double)(trans ? b[col * ldb + j] : b[j * ldb + col]);
                            want += t;
                            mass += fabs(t);
                        }
                    }
                    double err = fabs((double)c[i] - want);
                    assert_true(err <= 0x1p-24 * (double)(k + 2) * mass);
                }
            }
}

static void test_blas_probe(void **state)
{
    (void)state;
    struct kvg_blas_candidate c[KVG_BLAS_CANDIDATES_MAX];
    struct kvg_err err;
    size_t n;
    assert_int_equal(kvg_blas_present(), 1);
    assert_true(strlen(kvg_blas_core()) > 2 && strlen(kvg_blas_version()) > 2);
    assert_int_equal(kvg_blas_probe(c, &n, &err), 0);
    assert_in_range(n, 1, KVG_BLAS_CANDIDATES_MAX);
    for (size_t i = 0; i < n; i++) {
        assert_true(c[i].gflops_1 > 0.0);
        assert_true(i == 0 || c[i].gflops_1 <= c[i - 1].gflops_1);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(c[i].actual, c[j].actual);
    }
}

/* The choice is made once and kept, a broken cache file is replaced, and what the user or an
 * earlier start has set is left alone. Run in a child: choosing may restart the program. */
static void test_blas_choose(void **state)
{
    (void)state;
    char dir[] = "/tmp/kvgauge-test-XXXXXX", cmd[1200], exe[512], line[128] = "";
    assert_non_null(mkdtemp(dir));
    unsetenv("OPENBLAS_CORETYPE");
    unsetenv("KVGAUGE_BLAS_CHOSEN");
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    assert_true(len > 0);
    exe[len] = 0;
    static const char *const steps[] = {
        "cd %s; XDG_CACHE_HOME=$PWD '%s' choose",
        "cd %s; for i in kvgauge/*; do echo no >$i; done; XDG_CACHE_HOME=$PWD '%s' choose",
        "cd %s; OPENBLAS_CORETYPE=Haswell '%s' choose",
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(cmd, sizeof cmd, steps[i], dir, exe);
#pragma GCC diagnostic pop
        FILE *f = popen(cmd, "r");
        assert_non_null(f);
        assert_non_null(fgets(line, sizeof line, f));
        assert_int_equal(pclose(f), 0);
        assert_true(strlen(line) > 3);
    }
    assert_string_equal(line, "core Haswell\n");
    snprintf(cmd, sizeof cmd, "grep -cx no %s/kvgauge/blas-*.txt; rm -r %s", dir, dir);
    FILE *f = popen(cmd, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_string_equal(line, "0\n");
    pclose(f);
}

#else

static void test_no_blas(void **state)
{
    (void)state;
    struct kvg_blas_candidate c[KVG_BLAS_CANDIDATES_MAX];
    struct kvg_err err;
    size_t n = 1;
    assert_int_equal(kvg_blas_present(), 0);
    assert_string_equal(kvg_blas_core(), "none");
    assert_int_equal(kvg_blas_probe(c, &n, &err), KVG_EUNSUP);
    assert_int_equal(n, 0);
    assert_true(kvg_blas_rate(1) <= 0.0);
}

#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_process),
        cmocka_unit_test(test_clock_and_bandwidth),
#ifdef KVG_BLAS
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_blas_probe),
        cmocka_unit_test(test_blas_choose),
#else
        cmocka_unit_test(test_no_blas),
#endif
    };
    if (argc > 1 && !strcmp(argv[1], "blas-probe"))
        return kvg_blas_probe_child() ? 1 : 0;
    if (argc > 1 && !strcmp(argv[1], "choose")) {
        kvg_blas_choose(argc, argv);
        return printf("core %s\n", kvg_blas_core()) < 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
