/* The summary of synthetic runs: values recomputed here from the generator's formula. */
#include "gen_run.h"

#include "base/fs.h"
#include "result/report.h"
#include "result/table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[256];

static int setup(void **state)
{
    (void)state;
    return kvg_gen_folder(folder, sizeof folder);
}

static int teardown(void **state)
{
    (void)state;
    kvg_gen_folder_remove(folder);
    return 0;
}

static void generate(const struct kvg_gen_run *g)
{
    struct kvg_err err = {0};
    if (kvg_gen_run_write(g, folder, &err))
        fail_msg("%s", err.msg);
}

static void open_summary(struct kvg_summary *s)
{
    struct kvg_err err = {0};
    if (kvg_summary_open(s, folder, &err))
        fail_msg("%s", err.msg);
}

static const struct kvg_slice *find_slice(const struct kvg_summary *s, const char *strategy,
                                          const char *workload, const char *mode, const char *lane)
{
    for (size_t i = 0; i < s->slices.n; i++) {
        const struct kvg_slice *x = &s->slices.v[i];
        if (!strcmp(x->strategy, strategy) && !strcmp(x->workload, workload) &&
            !strcmp(x->mode, mode) && !strcmp(x->lane, lane))
            return x;
    }
    fail_msg("no slice of '%s' on '%s'", strategy, workload);
    return NULL;
}

static double value(const struct kvg_summary *s, const struct kvg_slice *x, const char *metric,
                    const char *stat)
{
    const struct kvg_summary_value *v = kvg_summary_find(s, x, metric, stat);
    if (!v)
        fail_msg("no value of '%s'", metric);
    return v->value;
}

/* Mean over steps 1.. of all turns and items (step 0 saw the uncompressed prompt). */
static double mean_kl(const struct kvg_gen_run *g, size_t strategy, size_t first_item)
{
    double sum = 0, n = 0;
    for (size_t item = first_item; item < g->n_items; item++)
        for (size_t turn = 0; turn < g->n_turns; turn++)
            for (size_t step = 1; step < g->n_steps; step++, n++)
                sum += kvg_gen_run_kl(strategy, item, turn, step);
    return sum / n;
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("got %.17g, want %.17g", got, want);
}

static void test_drift(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    (void)state;
    generate(&g);
    open_summary(&s);
    const struct kvg_slice *h2o = find_slice(&s, "h2o:budget=50%", "chat", "forced", "drift");
    const struct kvg_summary_value *kl = kvg_summary_find(&s, h2o, "kl_mean", NULL);
    near(kl->value, mean_kl(&g, 5, 0));
    assert_true(kl->lo < kl->value && kl->value < kl->hi);
    assert_int_equal(kl->n, g.n_items * g.n_turns * (g.n_steps - 1));
    assert_int_equal(kl->n_items, g.n_items);
    near(value(&s, h2o, "ppl_ratio", NULL), exp(mean_kl(&g, 5, 0)));
    near(value(&s, h2o, "dnll_mean", NULL), mean_kl(&g, 5, 0));
    assert_true(value(&s, h2o, "kl_uncompressed", NULL) < 1e-300); /* kept apart */
    assert_string_equal(kvg_summary_find(&s, h2o, "kl_p99", NULL)->note, "");
    /* items 0 and 1 of kivi failed: the rest counts, and says so */
    const struct kvg_slice *kivi = find_slice(&s, "kivi:bits=4", "chat", "forced", "drift");
    near(value(&s, kivi, "kl_mean", NULL), mean_kl(&g, 2, 2));
    assert_int_equal(kivi->n_items, g.n_items - 2);
    assert_string_equal(kvg_summary_find(&s, kivi, "kl_p99", NULL)->note, "few");
    kvg_summary_release(&s);
}

static void test_bytes(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    (void)state;
    generate(&g);
    open_summary(&s);
    const struct kvg_slice *f16 = find_slice(&s, "f16", "chat", "forced", "drift");
    double per_token = value(&s, f16, "bytes_per_token", NULL);
    near(per_token, KVG_GEN_TOKEN_BYTES + 5);
    near(value(&s, f16, "compression", NULL), KVG_GEN_TOKEN_BYTES / per_token);
    const struct kvg_slice *timed = find_slice(&s, "f16", "chat", "forced", "time");
    assert_true(value(&s, timed, "itl_ms", "p50") > 1);
    assert_true(value(&s, timed, "gen_tps", NULL) > 1);
    timed = find_slice(&s, "uncached", "chat", "forced", "time"); /* a few depths: no statistics */
    assert_null(kvg_summary_find(&s, timed, "itl_ms", NULL));
    assert_null(kvg_summary_find(&s, timed, "gen_tps", NULL));
    kvg_summary_release(&s);
}

static void test_floor(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    (void)state;
    generate(&g);
    open_summary(&s);
    const struct kvg_slice *f16 = find_slice(&s, "f16", "chat", "forced", "drift");
    const struct kvg_slice *q8 = find_slice(&s, "q8:group=32", "chat", "forced", "drift");
    const struct kvg_slice *full = find_slice(&s, "full", "chat", "forced", "drift");
    near(value(&s, f16, "noise_floor", NULL), value(&s, full, "kl_p99", NULL));
    assert_string_equal(kvg_summary_find(&s, f16, "kl_mean", NULL)->note, "not distinguishable");
    assert_string_equal(kvg_summary_find(&s, q8, "kl_mean", NULL)->note, "");
    kvg_summary_release(&s);
}

static void test_no_floor(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_str out = {0};
    struct kvg_err err = {0};
    (void)state;
    g.with_floor = 0;
    generate(&g);
    open_summary(&s);
    const struct kvg_slice *f16 = find_slice(&s, "f16", "chat", "forced", "drift");
    assert_null(kvg_summary_find(&s, f16, "noise_floor", NULL));
    assert_string_equal(kvg_summary_find(&s, f16, "kl_mean", NULL)->note, "");
    kvg_summary_release(&s);
    assert_int_equal(kvg_summary_print(folder, &out, &err), KVG_OK);
    assert_non_null(strstr(out.s, "noise floor: not measured"));
    kvg_str_release(&out);
}

static void test_seeds_merge(void **state)
{
    static const struct {
        const char *spec, *want;
    } cases[] = {
        {"random:budget=25%,seed=1", "random:budget=25%"},
        {"random:seed=1", "random"},
        {"random:seed=12,budget=25%", "random:budget=25%"},
        {"a:seed=1+b:x=2,seed=3+c", "a+b:x=2+c"},
        {"a:seed=1,seed=2,x=1", "a:x=1"},
        {"a:myseed=1", "a:myseed=1"},
        {"plain", "plain"},
    };
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_arena a;
    (void)state;
    kvg_arena_init(&a);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(kvg_spec_without_seed(cases[i].spec, &a), cases[i].want);
    kvg_arena_release(&a);
    generate(&g);
    open_summary(&s);
    const struct kvg_slice *x = find_slice(&s, "random:budget=25%", "chat", "forced", "drift");
    assert_int_equal(x->n_seeds, 2);
    assert_int_equal(x->n_items, g.n_items);
    near(value(&s, x, "kl_mean", NULL), (mean_kl(&g, 7, 0) + mean_kl(&g, 8, 0)) / 2);
    const struct kvg_slice *f = find_slice(&s, "random:budget=25%", "chat", "free", "drift");
    near(value(&s, f, "answers_total", NULL), 3.0 * (double)g.n_items); /* not twice */
    kvg_summary_release(&s);
}

static void test_sections(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_section *sections;
    struct kvg_err err = {0};
    size_t n;
    (void)state;
    g.n_workloads = 2;
    generate(&g);
    open_summary(&s);
    assert_int_equal(kvg_sections_make(&s, &sections, &n, &err), KVG_OK);
    assert_int_equal(n, 3);
    assert_string_equal(sections[2].workload, KVG_WORKLOAD_ALL);
    assert_int_equal(sections[2].n_items, 2 * g.n_items);
    assert_string_equal(sections[0].lines[0].role, "baseline");
    assert_string_equal(sections[0].lines[1].role, "floor");
    assert_string_equal(sections[0].lines[2].role, "control");
    double last = HUGE_VAL;
    for (size_t i = 3; i < sections[0].n_lines; i++) {
        double bytes = value(&s, sections[0].lines[i].bytes, "bytes_per_token", NULL);
        assert_true(bytes <= last);
        last = bytes;
    }
    kvg_summary_release(&s);
}

static int count_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    (void)err;
    assert_true(kvg_row_str(row, KVG_SUMMARY_metric)[0] != 0);
    ++*(size_t *)arg;
    return KVG_OK;
}

static void test_files(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_err err = {0};
    char path[512], *text = NULL;
    size_t n = 0, size = 0;
    (void)state;
    generate(&g);
    assert_int_equal(kvg_summary_make(folder, &err), KVG_OK);
    assert_int_equal(kvg_summary_make(folder, &err), KVG_OK); /* replaces, does not append */
    snprintf(path, sizeof path, "%s/summary.csv", folder);
    assert_int_equal(kvg_csv_read(path, &kvg_table_summary, count_row, &n, &err), KVG_OK);
    open_summary(&s);
    assert_int_equal(n, s.n);
    kvg_summary_release(&s);
    assert_int_equal(kvg_report_make(folder, &err), KVG_OK);
    snprintf(path, sizeof path, "%s/report.html", folder);
    assert_int_equal(kvg_fs_read(path, (size_t)1 << 26, &text, &size, &err), KVG_OK);
    assert_non_null(strstr(text, "tiny &lt;model&gt; &amp; co"));
    assert_null(strstr(text, "<model>"));
    assert_null(strstr(text, "<script"));
    assert_non_null(strstr(text, "CC-BY-4.0"));
    assert_non_null(strstr(text, "&quot;group&quot; is 8"));
    free(text);
}

static void test_print(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_str out = {0};
    struct kvg_err err = {0};
    (void)state;
    generate(&g);
    assert_int_equal(kvg_summary_print(folder, &out, &err), KVG_OK);
    assert_non_null(strstr(out.s, "not distinguishable from the baseline: full, f16"));
    assert_non_null(strstr(out.s, "(1 cells)  the model's context limit is reached"));
    for (const char *p = out.s; *p;) { /* fits a terminal */
        size_t len = strcspn(p, "\n");
        assert_true(len <= 100);
        p += len + (p[len] == '\n');
    }
    kvg_str_release(&out);
}

static int drop_all(void *arg, const struct kvg_row *row)
{
    (void)arg;
    (void)row;
    return 0;
}

static void test_incomplete_folders(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_str out = {0};
    struct kvg_err err = {0};
    char path[512];
    (void)state;
    assert_int_equal(kvg_summary_open(&s, "/no/such/run", &err), KVG_EUSAGE);
    kvg_summary_release(&s);
    assert_int_equal(kvg_summary_open(&s, folder, &err), KVG_EIO);
    kvg_summary_release(&s);
    generate(&g);
    snprintf(path, sizeof path, "%s/cells.csv", folder); /* now every step is an orphan */
    assert_int_equal(kvg_csv_filter(path, &kvg_table_cells, drop_all, NULL, NULL, &err), KVG_OK);
    assert_int_equal(kvg_summary_print(folder, &out, &err), KVG_OK);
    assert_non_null(strstr(out.s, "0 cells measured"));
    assert_non_null(strstr(out.s, "rows of unfinished cells left out"));
    assert_int_equal(kvg_report_make(folder, &err), KVG_OK);
    kvg_str_release(&out);
}

/* A step that is there twice would count twice: refused. */
static void test_double_steps(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_err err = {0};
    char path[512], *text = NULL;
    size_t size = 0;
    (void)state;
    generate(&g);
    snprintf(path, sizeof path, "%s/steps.csv", folder);
    assert_int_equal(kvg_fs_read(path, (size_t)1 << 28, &text, &size, &err), KVG_OK);
    const char *second = strchr(text, '\n') + 1;
    size_t line = strcspn(second, "\n") + 1;
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    assert_int_equal(fwrite(second, 1, line, f), line);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(kvg_summary_open(&s, folder, &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "twice"));
    kvg_summary_release(&s);
    free(text);
}

/* A cut file would give means over what is left: refused. */
static void test_cut_steps(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_err err = {0};
    char path[512], *text = NULL;
    size_t size = 0;
    (void)state;
    generate(&g);
    snprintf(path, sizeof path, "%s/steps.csv", folder);
    assert_int_equal(kvg_fs_read(path, (size_t)1 << 28, &text, &size, &err), KVG_OK);
    assert_int_equal(kvg_fs_write_atomic(path, text, size - 30, &err), KVG_OK);
    assert_int_equal(kvg_summary_open(&s, folder, &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "was cut"));
    kvg_summary_release(&s);
    assert_int_equal(kvg_fs_write_atomic(path, text, size, &err), KVG_OK);
    assert_int_equal(kvg_summary_open(&s, folder, &err), KVG_OK);
    kvg_summary_release(&s);
    free(text);
}

static void test_html(void **state)
{
    struct kvg_str out = {0};
    (void)state;
    kvg_html_text(&out, "<a href=\"x\">'&'</a>");
    assert_string_equal(out.s, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
    kvg_str_clear(&out);
    kvg_html_svg(&out, "<?xml?><svg><g id=\"a\"/><use href='#a'/><p fill='url(#a)'/></svg>", "p-");
    assert_string_equal(out.s, "<svg><g id=\"p-a\"/><use href='#p-a'/><p fill='url(#p-a)'/></svg>");
    kvg_str_release(&out);
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static const struct kvg_slice *find_asked(const struct kvg_summary *s, const char *query,
                                          const char *question)
{
    for (size_t i = 0; i < s->slices.n; i++) {
        const struct kvg_slice *x = &s->slices.v[i];
        if (!strcmp(x->strategy, "window:budget=25%") && !strcmp(x->query, query) &&
            !strcmp(x->question, question) && !strcmp(x->mode, "forced") &&
            !strcmp(x->lane, "drift"))
            return x;
    }
    fail_msg("no slice for query '%s', question '%s'", query, question);
    return NULL;
}

/* Seen and unseen share no number, nor do two questions and ordinary replays. */
static void test_queries_apart(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_summary s;
    struct kvg_section *sections;
    static const struct {
        const char *query, *question, *label;
        double factor;
    } cases[] = {{"seen", "", "window:budget=25% (seen)", 1},
                 {"unseen", "", "window:budget=25% (unseen)", 2},
                 {"seen", "1", "window:budget=25% (seen)", 3},
                 {"seen", "2", "window:budget=25% (seen)", 4}};
    size_t n, n_found = 0;
    (void)state;
    g.with_query = 1;
    generate(&g);
    open_summary(&s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct kvg_slice *x = find_asked(&s, cases[i].query, cases[i].question);
        near(value(&s, x, "kl_mean", NULL), cases[i].factor * mean_kl(&g, 3, 0));
        assert_int_equal(x->n_items, g.n_items);
        assert_string_equal(x->label, cases[i].label);
    }
    assert_int_equal(kvg_sections_make(&s, &sections, &n, NULL), KVG_OK);
    assert_int_equal(n, 3); /* replays, first questions, second ones */
    for (size_t k = 0; k < n; k++) {
        size_t lines = 0;
        for (size_t i = 0; i < sections[k].n_lines; i++)
            lines += !strncmp(sections[k].lines[i].strategy, "window:", 7);
        assert_int_equal(lines, sections[k].question[0] ? 1 : 2);
        n_found += sections[k].question[0] != 0;
    }
    assert_int_equal(n_found, 2);
    kvg_summary_release(&s);
}

static void test_oracles_are_marked(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_str out = {0};
    struct kvg_err err = {0};
    (void)state;
    g.n_strategies = 24 + 3 * 7;
    g.n_items = 2;
    g.with_query = 1;
    generate(&g);
    assert_int_equal(kvg_summary_print(folder, &out, &err), KVG_OK);
    assert_non_null(strstr(out.s, "\nO oracle:variant=0@2000B (not deployable)"));
    assert_non_null(strstr(out.s, "O oracle, not deployable"));
    assert_non_null(strstr(out.s, "(unseen): compressed before the question came"));
    assert_non_null(strstr(out.s, "a second question after the same context: 2 items"));
    kvg_str_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_drift),
        WITH_FOLDER(test_bytes),
        WITH_FOLDER(test_floor),
        WITH_FOLDER(test_no_floor),
        WITH_FOLDER(test_seeds_merge),
        WITH_FOLDER(test_sections),
        WITH_FOLDER(test_queries_apart),
        WITH_FOLDER(test_oracles_are_marked),
        WITH_FOLDER(test_files),
        WITH_FOLDER(test_print),
        WITH_FOLDER(test_incomplete_folders),
        WITH_FOLDER(test_double_steps),
        WITH_FOLDER(test_cut_steps),
        cmocka_unit_test(test_html),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
