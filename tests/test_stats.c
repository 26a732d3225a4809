/* Statistics against values computed by hand. */
#include "result/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * (1 + fabs(want))))
        fail_msg("got %.17g, want %.17g", got, want);
}

static void test_percentile(void **state)
{
    double v[] = {40, 10, 30, 20};
    static const struct {
        double q, want;
    } cases[] = {{0, 10}, {1, 40}, {0.5, 25}, {0.25, 17.5}, {0.9, 37}, {1.0 / 3, 20}};
    (void)state;
    kvg_stats_sort(v, 4);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        near(kvg_stats_percentile(v, 4, cases[i].q), cases[i].want);
    near(kvg_stats_percentile(v, 1, 0.99), 10);
    assert_true(isnan(kvg_stats_percentile(v, 0, 0.5)));
    near(kvg_stats_mean(v, 4), 25);
    near(kvg_stats_stddev(v, 4), sqrt(500.0 / 3));
    assert_true(isnan(kvg_stats_stddev(v, 1)));
}

static void test_few(void **state)
{
    static const struct {
        size_t n;
        double q;
        int few;
    } cases[] = {{1000, 0.99, 0}, {999, 0.99, 1}, {100, 0.9, 0}, {99, 0.9, 1},
                 {20, 0.5, 0},    {19, 0.5, 1},   {0, 0.5, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(kvg_stats_is_few(cases[i].n, cases[i].q), cases[i].few);
}

static void test_bootstrap(void **state)
{
    struct kvg_cluster c[40];
    (void)state;
    for (size_t i = 0; i < 40; i++)
        c[i] = (struct kvg_cluster){3.0 * (double)(i + 1), (double)(i + 1)};
    near(kvg_stats_ratio(c, 40), 3);
    struct kvg_interval iv = kvg_stats_bootstrap(c, 40); /* every item has mean 3 */
    near(iv.lo, 3);
    near(iv.hi, 3);
    assert_true(isnan(kvg_stats_bootstrap(c, 19).lo));
    for (size_t i = 0; i < 40; i++)
        c[i] = (struct kvg_cluster){i % 2 ? 1 : 0, 1};
    iv = kvg_stats_bootstrap(c, 40);
    struct kvg_interval again = kvg_stats_bootstrap(c, 40);
    near(again.lo, iv.lo); /* fixed seed */
    near(again.hi, iv.hi);
    /* a share of 1/2 from 40: normal theory gives 0.5 +- 0.155 */
    assert_true(iv.lo > 0.5 - 0.19 && iv.lo < 0.5 - 0.12);
    assert_true(iv.hi < 0.5 + 0.19 && iv.hi > 0.5 + 0.12);
    /* ten steps of an item are no more evidence than one: the interval must not shrink */
    for (size_t i = 0; i < 40; i++)
        c[i] = (struct kvg_cluster){i % 2 ? 10 : 0, 10};
    again = kvg_stats_bootstrap(c, 40);
    near(again.lo, iv.lo);
    near(again.hi, iv.hi);
}

/* Freireich's 6-MP arm (Kaplan-Meier in every textbook): 21 patients, 9 events. */
static void test_survival(void **state)
{
    struct kvg_survival_obs obs[] = {{6, 1},  {6, 1},  {6, 1},  {6, 0},  {7, 1},  {9, 0},  {10, 1},
                                     {10, 0}, {11, 0}, {13, 1}, {16, 1}, {17, 0}, {19, 0}, {20, 0},
                                     {22, 1}, {23, 1}, {25, 0}, {32, 0}, {32, 0}, {34, 0}, {35, 0}};
    static const double want[][3] = {{6, 21, 0.857142857142857},  {7, 17, 0.806722689075630},
                                     {10, 15, 0.752941176470588}, {13, 12, 0.690196078431373},
                                     {16, 11, 0.627450980392157}, {22, 7, 0.537815126050420},
                                     {23, 6, 0.448179271708684}};
    struct kvg_survival_step steps[21];
    (void)state;
    size_t n = kvg_stats_survival(obs, 21, steps);
    assert_int_equal(n, 7);
    for (size_t i = 0; i < n; i++) {
        near(steps[i].time, want[i][0]);
        assert_int_equal(steps[i].at_risk, (size_t)want[i][1]);
        assert_true(fabs(steps[i].share - want[i][2]) < 1e-12);
    }
    near(kvg_stats_survival_median(steps, n), 23);
    assert_true(isnan(kvg_stats_survival_median(steps, 6)));
    struct kvg_survival_obs censored[] = {{5, 0}, {3, 0}};
    assert_int_equal(kvg_stats_survival(censored, 2, steps), 0);
    assert_int_equal(kvg_stats_survival(censored, 0, steps), 0);
}

/* Median of 10: the 2nd and 9th values cover with 97.9 %; of 5 there is no 95 % interval. */
static void test_order_interval(void **state)
{
    double v[1000];
    (void)state;
    for (size_t i = 0; i < 1000; i++)
        v[i] = (double)(i + 1);
    struct kvg_interval iv = kvg_stats_order_interval(v, 10, 0.5);
    near(iv.lo, 2);
    near(iv.hi, 9);
    assert_true(isnan(kvg_stats_order_interval(v, 5, 0.5).lo));
    assert_true(isnan(kvg_stats_order_interval(v, 100, 0.99).lo));
    iv = kvg_stats_order_interval(v, 1000, 0.5); /* 500 +- 1.96 sqrt(250) */
    assert_true(iv.lo > 466 && iv.lo < 472 && iv.hi > 529 && iv.hi < 535);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentile),     cmocka_unit_test(test_few),
        cmocka_unit_test(test_bootstrap),      cmocka_unit_test(test_survival),
        cmocka_unit_test(test_order_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
