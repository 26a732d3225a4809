/* Tests of the drift arithmetic: against a long double reference, for ties, for extreme logits and
 * for logits that are no numbers. */
#include "base/rng.h"
#include "run/drift.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_MAX = 5000 };

static float za[N_MAX], zb[N_MAX];

static void fill(float *z, size_t n, double spread, uint64_t seed)
{
    struct kvg_rng r = {seed};
    for (size_t i = 0; i < n; i++)
        z[i] = (float)((kvg_rng_unit(&r) - 0.5) * spread);
}

static long double reference_lse(const float *z, size_t n)
{
    long double max = z[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        max = (long double)z[i] > max ? (long double)z[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += expl((long double)z[i] - max);
    return max + logl(sum);
}

static long double reference_kl(const float *base, const float *test, size_t n)
{
    long double lb = reference_lse(base, n), lt = reference_lse(test, n), kl = 0;
    for (size_t i = 0; i < n; i++) {
        long double log_p = (long double)base[i] - lb;
        kl += expl(log_p) * (log_p - ((long double)test[i] - lt));
    }
    return kl;
}

static void measure(const float *base, const float *test, size_t n, int32_t target,
                    struct kvg_drift *d)
{
    struct kvg_drift_base b;
    struct kvg_err err = {0};
    assert_int_equal(kvg_drift_base_init(&b, n, &err), 0);
    assert_int_equal(kvg_drift_base_set(&b, base, &err), 0);
    assert_int_equal(kvg_drift_measure(&b, test, target, d, &err), 0);
    kvg_drift_base_release(&b);
}

static void test_kl_is_the_reference(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        double spread, noise;
    } cases[] = {{1, 1, 0},        {2, 3, 1},       {7, 20, 1e-3},    {9, 20, 5},
                 {300, 30, 1e-2},  {4999, 40, 1},   {5000, 25, 1e-5}, {5000, 25, 1e-6},
                 {5000, 1e4, 1e3}, {5000, 0.1, 0.1}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t n = cases[c].n;
        int32_t target = (int32_t)(n / 2);
        struct kvg_drift d;
        fill(za, n, cases[c].spread, 10 + c);
        fill(zb, n, cases[c].noise, 90 + c);
        for (size_t i = 0; i < n; i++)
            zb[i] += za[i];
        measure(za, zb, n, target, &d);
        long double kl = reference_kl(za, zb, n);
        /* two log-sum-exp of size spread + ln n, rounded to double a few times */
        double tol = 1e-12 * fabs((double)kl) + 4e-16 * (cases[c].spread + cases[c].noise + 10);
        assert_true(fabs(d.kl - (double)kl) <= tol);
        long double nll = reference_lse(zb, n) - (long double)zb[target];
        assert_true(fabs(d.nll - (double)nll) <= 1e-14 * (1 + cases[c].spread));
        long double base = reference_lse(za, n) - (long double)za[target];
        assert_true(fabs(d.nll_base - (double)base) <= 1e-14 * (1 + cases[c].spread));
        assert_true(fabs(d.dprob - (double)(expl(-nll) - expl(-base))) <= 1e-13);
    }
}

static void test_equal_rows_are_exactly_zero(void **state)
{
    (void)state;
    struct kvg_drift d;
    fill(za, N_MAX, 30, 3);
    memcpy(zb, za, sizeof za);
    measure(za, zb, N_MAX, 17, &d);
    assert_true(d.kl == 0);
    assert_true(d.dprob < 1e-16 && d.dprob > -1e-16);
    assert_true(d.max_dlogit == 0);
    assert_true(d.top10 == 1);
    assert_int_equal(d.top1, 1);
    assert_true(d.nll == d.nll_base);
}

/* A shift of all logits changes no probability. */
static void test_a_shift_is_no_drift(void **state)
{
    (void)state;
    struct kvg_drift d;
    for (size_t i = 0; i < 1000; i++) {
        za[i] = (float)(i % 37);
        zb[i] = za[i] + 64;
    }
    measure(za, zb, 1000, 5, &d);
    assert_true(d.kl <= 1e-14);
    assert_true(d.max_dlogit == 64);
    assert_int_equal(d.top1, 1);
}

static void test_extreme_logits(void **state)
{
    (void)state;
    struct kvg_drift d;
    memset(za, 0, sizeof za);
    memset(zb, 0, sizeof zb);
    za[3] = 3e38f;
    za[4] = -3e38f;
    zb[5] = 3e38f;
    measure(za, zb, 100, 3, &d);
    assert_true(isfinite(d.kl) && d.kl > 2e38);
    assert_true(d.nll_base == 0);
    assert_true(d.dprob == -1);
    assert_int_equal(d.top1, 0);
    assert_int_equal(d.token, 5);
}

static void test_ties_go_to_the_lower_id(void **state)
{
    (void)state;
    struct kvg_drift d;
    int32_t token = -1;
    memset(za, 0, sizeof za);
    za[40] = za[20] = za[30] = 2;
    memcpy(zb, za, sizeof za);
    zb[20] = 1.5f;
    measure(za, zb, 50, 0, &d);
    assert_int_equal(d.token, 30);
    assert_int_equal(d.top1, 0);
    assert_true(d.gap == 0);
    assert_true(d.top10 == 1); /* 20 30 40 and the seven lowest ids, on both sides */
    assert_int_equal(kvg_drift_argmax(za, 50, &token, NULL), 0);
    assert_int_equal(token, 20);
    za[20] = 5;
    measure(za, zb, 50, 0, &d);
    assert_true(d.gap == 3);
}

static void test_top10_overlap(void **state)
{
    (void)state;
    struct kvg_drift d;
    for (size_t i = 0; i < 100; i++) {
        za[i] = (float)i;
        zb[i] = (float)i;
    }
    for (size_t i = 0; i < 3; i++)
        zb[i] = 200 + (float)i; /* three newcomers push 90, 91, 92 out */
    measure(za, zb, 100, 99, &d);
    assert_true(fabs(d.top10 - 0.7) < 1e-15);
    measure(za, za, 4, 1, &d); /* a vocabulary smaller than ten */
    assert_true(d.top10 == 1);
}

static void test_what_is_no_number_is_an_error(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct kvg_drift_base b;
    struct kvg_drift d;
    int32_t token;
    assert_int_equal(kvg_drift_base_init(&b, 100, NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (size_t at = 0; at < 100; at += 33) {
            struct kvg_err err = {0};
            fill(za, 100, 5, 1);
            fill(zb, 100, 5, 2);
            zb[at] = bad[i];
            assert_int_equal(kvg_drift_base_set(&b, zb, &err), KVG_ECHECK);
            assert_non_null(strstr(err.msg, "not a finite number"));
            assert_int_equal(kvg_drift_base_set(&b, za, &err), 0);
            assert_int_equal(kvg_drift_measure(&b, zb, 0, &d, &err), KVG_ECHECK);
            assert_int_equal(kvg_drift_argmax(zb, 100, &token, &err), KVG_ECHECK);
        }
    fill(za, 100, 5, 1);
    assert_int_equal(kvg_drift_base_set(&b, za, NULL), 0);
    assert_int_equal(kvg_drift_measure(&b, za, 100, &d, NULL), KVG_ECHECK);
    assert_int_equal(kvg_drift_measure(&b, za, -1, &d, NULL), KVG_ECHECK);
    kvg_drift_base_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kl_is_the_reference),
        cmocka_unit_test(test_equal_rows_are_exactly_zero),
        cmocka_unit_test(test_a_shift_is_no_drift),
        cmocka_unit_test(test_extreme_logits),
        cmocka_unit_test(test_ties_go_to_the_lower_id),
        cmocka_unit_test(test_top10_overlap),
        cmocka_unit_test(test_what_is_no_number_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
