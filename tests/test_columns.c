/* The column table: names, uniqueness, and the metrics' source columns. */
#include "result/metrics.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_names(void **state)
{
    (void)state;
    for (size_t t = 0; kvg_tables[t]; t++) {
        const struct kvg_table *table = kvg_tables[t];
        assert_true(table->n_columns > 0 && table->n_columns <= KVG_COLUMNS_MAX);
        assert_ptr_equal(kvg_table_find(table->name), table);
        for (size_t i = 0; i < table->n_columns; i++) {
            const struct kvg_column *c = &table->columns[i];
            assert_int_equal(strspn(c->name, "abcdefghijklmnopqrstuvwxyz0123456789_"),
                             strlen(c->name));
            assert_int_equal(kvg_table_column(table, c->name), (int)i); /* no name twice */
            assert_true(strlen(c->help) > 0);
        }
    }
    assert_null(kvg_table_find("no such table"));
    assert_int_equal(kvg_table_column(&kvg_table_cells, "no such column"), -1);
}

static void test_ids(void **state)
{
    (void)state;
    assert_int_equal(kvg_table_column(&kvg_table_cells, "alloc_bytes"), KVG_CELLS_alloc_bytes);
    assert_int_equal(kvg_table_column(&kvg_table_steps, "kl"), KVG_STEPS_kl);
    assert_int_equal(kvg_table_column(&kvg_table_summary, "note"), KVG_SUMMARY_N - 1);
    assert_int_equal((int)kvg_table_turns.n_columns, KVG_TURNS_N);
}

static int ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* A time or a size carries its unit in its name. */
static void test_unit_suffixes(void **state)
{
    static const struct {
        const char *unit, *suffix;
    } rules[] = {{"ns", "_ns"}, {"bytes", "_bytes"}};
    (void)state;
    for (size_t t = 0; kvg_tables[t]; t++)
        for (size_t i = 0; i < kvg_tables[t]->n_columns; i++) {
            const struct kvg_column *c = &kvg_tables[t]->columns[i];
            for (size_t r = 0; r < 2; r++)
                if (!strcmp(c->unit, rules[r].unit) && strncmp(c->name, "bytes_", 6) &&
                    strcmp(c->name, "model_size"))
                    assert_true(ends_with(c->name, rules[r].suffix));
        }
}

/* Every source a metric names exists (manifest fields aside). */
static void test_metric_sources(void **state)
{
    (void)state;
    for (const struct kvg_metric *m = kvg_metrics; m->name; m++) {
        char sources[256], *save = NULL;
        assert_ptr_equal(kvg_metric_find(m->name), m);
        assert_true(strlen(m->sources) < sizeof sources);
        strcpy(sources, m->sources);
        for (char *s = strtok_r(sources, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
            char *dot = strchr(s, '.');
            assert_non_null(dot);
            *dot = 0;
            const struct kvg_table *table = kvg_table_find(s);
            if (strcmp(s, "manifest")) {
                assert_non_null(table);
                assert_true(kvg_table_column(table, dot + 1) >= 0);
            }
        }
        assert_true(m->of == KVG_METRIC_FLOOR || m->stats != 0);
    }
}

static void test_explain(void **state)
{
    struct kvg_str out = {0};
    struct kvg_err err = {0};
    (void)state;
    assert_int_equal(kvg_metric_explain("kl_mean", &out, &err), KVG_OK);
    assert_non_null(strstr(out.s, "nats"));
    assert_int_equal(kvg_metric_explain("kl_meen", &out, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "kl_mean"));
    kvg_str_clear(&out);
    kvg_metric_list(&out);
    assert_non_null(strstr(out.s, "answers_lost"));
    kvg_str_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_ids),
        cmocka_unit_test(test_unit_suffixes), cmocka_unit_test(test_metric_sources),
        cmocka_unit_test(test_explain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
