/* Plots: label placing without overlap, and every picture from synthetic runs (where gnuplot is).
 */
#include "gen_run.h"

#include "base/fs.h"
#include "result/csv.h"
#include "result/plot_impl.h"
#include "result/report.h"

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

static int have_gnuplot(void)
{
    return system("command -v gnuplot >/dev/null 2>&1") == 0;
}

static void test_spread(void **state)
{
    static const struct {
        double end[4], gap, want[4];
    } cases[] = {
        {{0.1, 0.4, 0.6, 0.9}, 0.1, {0.1, 0.4, 0.6, 0.9}},     /* nothing to do */
        {{0.5, 0.5, 0.5, 0.5}, 0.1, {0.35, 0.45, 0.55, 0.65}}, /* around their middle */
        {{1, 1, 1, 1}, 0.1, {0.7, 0.8, 0.9, 1}},               /* at the top edge */
        {{0, 0, 0, 0.9}, 0.1, {0, 0.1, 0.2, 0.9}},             /* at the bottom edge */
        {{0.3, 0.3, 0.3, 0.3}, 9, {0, 1.0 / 3, 2.0 / 3, 1}},   /* no room: evenly */
    };
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct kvg_series v[4] = {{0}};
        for (size_t i = 0; i < 4; i++)
            v[i].end = cases[c].end[3 - i]; /* any order */
        kvg_plot_spread(v, 4, cases[c].gap, 0, 1);
        for (size_t i = 0; i < 4; i++)
            assert_true(fabs(v[i].label - cases[c].want[i]) < 1e-9);
    }
    kvg_plot_spread(NULL, 0, 1, 0, 1);
}

static void test_texts(void **state)
{
    struct kvg_str out = {0};
    (void)state;
    kvg_plot_quote(&out, "it's", 30);
    assert_string_equal(out.s, "it''s");
    kvg_str_clear(&out);
    kvg_plot_put_text(&out, "a \"b\"\nc", 30);
    assert_string_equal(out.s, "\"a 'b' c\"");
    kvg_str_clear(&out);
    kvg_plot_quote(&out, "0123456789abcdefghij", 12);
    assert_string_equal(out.s, "012345..ghij");
    kvg_str_release(&out);
}

static size_t file_size(const char *name, const char *ext)
{
    char path[512], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/plots/%s.%s", folder, name, ext);
    if (!kvg_fs_exists(path) || kvg_fs_read(path, (size_t)1 << 26, &text, &n, NULL))
        return 0;
    free(text);
    return n;
}

static void make(const struct kvg_gen_run *g, struct kvg_str *log)
{
    struct kvg_err err = {0};
    if (kvg_gen_run_write(g, folder, &err) || kvg_plot_make(folder, "plots", log, &err))
        fail_msg("%s", err.msg);
}

static void test_all_plots(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_str log = {0};
    struct kvg_err err = {0};
    char path[512], *text = NULL;
    size_t n = 0;
    (void)state;
    if (!have_gnuplot())
        skip();
    make(&g, &log);
    for (size_t i = 0; kvg_plots[i].name; i++) {
        assert_true(file_size(kvg_plots[i].name, "dat") > 100);
        assert_true(file_size(kvg_plots[i].name, "gp") > 500);
        assert_true(file_size(kvg_plots[i].name, "svg") > 2000);
        assert_true(file_size(kvg_plots[i].name, "png") > 2000);
        assert_int_equal(file_size(kvg_plots[i].name, "log"), 0);
    }
    assert_int_equal(kvg_report_make(folder, &err), KVG_OK);
    snprintf(path, sizeof path, "%s/report.html", folder);
    assert_int_equal(kvg_fs_read(path, (size_t)1 << 26, &text, &n, &err), KVG_OK);
    size_t n_svg = 0;
    for (const char *p = text; (p = strstr(p, "<svg")); p++)
        n_svg++;
    assert_int_equal(n_svg, 6);
    free(text);
    kvg_str_release(&log);
}

/* The script of a plot makes its pictures again without the program. */
static void test_remake(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    char command[512];
    (void)state;
    if (!have_gnuplot())
        skip();
    make(&g, NULL);
    size_t before = file_size("drift_bytes", "svg");
    snprintf(command, sizeof command,
             "cd '%s/plots' && rm drift_bytes.svg && gnuplot drift_bytes.gp", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(file_size("drift_bytes", "svg"), before);
}

static void test_little_data(void **state)
{
    static const struct {
        size_t n_strategies, n_items, n_turns;
        int with_floor;
    } cases[] = {{0, 1, 1, 1}, {1, 1, 1, 0}, {24, 3, 2, 1}};
    (void)state;
    if (!have_gnuplot())
        skip();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kvg_gen_run g = kvg_gen_run_default();
        struct kvg_str log = {0};
        g.n_strategies = cases[i].n_strategies;
        g.n_items = cases[i].n_items;
        g.n_turns = cases[i].n_turns;
        g.with_floor = cases[i].with_floor;
        g.with_bench = g.with_kept = g.with_free = g.with_broken = i == 2;
        make(&g, &log);
        if (i < 2) {
            assert_non_null(strstr(log.s, "latency_context: left out"));
            assert_non_null(strstr(log.s, "kept_map: left out"));
            assert_non_null(strstr(log.s, "survival: left out"));
            assert_non_null(strstr(log.s, "bytes_turns: left out"));
        }
        assert_non_null(strstr(log.s, "drift_bytes: made"));
        kvg_str_release(&log);
        teardown(NULL);
        assert_int_equal(setup(NULL), 0);
    }
}

/* A row of drift_bytes.dat in pixels. */
struct mark {
    char name[128], role[16];
    double bytes, kl;
    int front;
    double x, y, w; /* of its label; x is NaN when it has none */
};

static double var_of(const char *vars, const char *name)
{
    char key[32];
    double v = 0;
    snprintf(key, sizeof key, "%s = ", name);
    const char *at = strstr(vars, key);
    assert_non_null(at);
    assert_int_equal(sscanf(at + strlen(key), "%lf", &v), 1);
    return v;
}

static size_t read_marks(const struct kvg_plot *p, struct mark *out, size_t cap)
{
    double x_lo = log10(var_of(p->vars.s, "x_lo")), x_hi = log10(var_of(p->vars.s, "x_hi"));
    double y_lo = log10(var_of(p->vars.s, "y_lo")), y_hi = log10(var_of(p->vars.s, "y_hi"));
    size_t n = 0;
    for (char *line = strchr(p->dat.s, '\n') + 1; *line && n < cap; line = strchr(line, '\n') + 1) {
        struct mark *m = &out[n++];
        double skip, lx, ly;
        assert_int_equal(sscanf(line, "\"%127[^\"]\" \"%15[^\"]\" %lf %lf %lf %lf %lf %d %lf %lf",
                                m->name, m->role, &m->bytes, &m->kl, &skip, &skip, &skip, &m->front,
                                &lx, &ly),
                         10);
        m->w = (double)strlen(m->name) * PLOT_CHAR;
        m->x = (log10(lx) - x_lo) / (x_hi - x_lo) * 0.86 * PLOT_WIDTH;
        m->y = (log10(ly) - y_lo) / (y_hi - y_lo) * 0.7667 * PLOT_HEIGHT;
    }
    return n;
}

/* 60 families at three targets: only what nothing beats is named, and names do not overlap. */
static void test_only_the_front_is_named(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_err err = {0};
    struct kvg_summary s;
    struct kvg_section *sections;
    static struct mark v[KVG_GEN_STRATEGIES + 2];
    size_t n_sections, n_front = 0;
    (void)state;
    g.n_strategies = KVG_GEN_STRATEGIES;
    g.n_items = g.n_turns = 1;
    g.n_steps = 4;
    g.with_free = g.with_time = g.with_bench = g.with_kept = g.with_broken = 0;
    if (kvg_gen_run_write(&g, folder, &err) || kvg_summary_open(&s, folder, &err) ||
        kvg_sections_make(&s, &sections, &n_sections, &err))
        fail_msg("%s", err.msg);
    struct kvg_plot p = {
        .summary = &s, .sections = sections, .n_sections = n_sections, .err = &err};
    assert_int_equal(kvg_plot_drift_bytes(&p), KVG_OK);
    size_t n = read_marks(&p, v, KVG_GEN_STRATEGIES + 2);
    assert_true(n > 180);
    for (size_t i = 0; i < n; i++) {
        int is_oracle = !strcmp(v[i].role, "oracle");
        assert_int_equal(!isnan(v[i].x), v[i].front);
        assert_false(v[i].front && is_oracle);
        n_front += v[i].front != 0;
        for (size_t j = 0; j < n && v[i].front; j++) {
            if (strcmp(v[j].role, "oracle")) /* nobody is better at both */
                assert_false(v[j].bytes < v[i].bytes && v[j].kl < v[i].kl);
            if (j != i && v[j].front && fabs(v[i].y - v[j].y) < PLOT_LINE - 1)
                assert_true(v[i].x >= v[j].x + v[j].w || v[j].x >= v[i].x + v[i].w);
        }
    }
    assert_true(n_front >= 8 && n_front < 40);
    kvg_str_release(&p.dat);
    kvg_str_release(&p.vars);
    kvg_summary_release(&s);
}

static int drop_all(void *arg, const struct kvg_row *row)
{
    (void)arg;
    (void)row;
    return 0;
}

static void test_no_cells(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_str log = {0};
    struct kvg_err err = {0};
    char path[512];
    (void)state;
    g.with_bench = g.with_kept = 0;
    assert_int_equal(kvg_gen_run_write(&g, folder, &err), KVG_OK);
    snprintf(path, sizeof path, "%s/cells.csv", folder);
    assert_int_equal(kvg_csv_filter(path, &kvg_table_cells, drop_all, NULL, NULL, &err), KVG_OK);
    assert_int_equal(kvg_plot_make(folder, "plots", &log, &err), KVG_OK);
    assert_null(strstr(log.s, ": made"));
    kvg_str_release(&log);
}

static void test_no_gnuplot(void **state)
{
    struct kvg_gen_run g = kvg_gen_run_default();
    struct kvg_err err = {0};
    (void)state;
    assert_int_equal(kvg_gen_run_write(&g, folder, &err), KVG_OK);
    char *path = getenv("PATH"), *before = path ? strdup(path) : NULL;
    setenv("PATH", folder, 1);
    int rc = kvg_plot_make(folder, "plots", NULL, &err);
    if (before)
        setenv("PATH", before, 1);
    free(before);
    assert_int_equal(rc, KVG_EUNSUP);
    assert_non_null(strstr(err.msg, "gnuplot is not installed"));
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_texts),
        WITH_FOLDER(test_only_the_front_is_named),
        WITH_FOLDER(test_all_plots),
        WITH_FOLDER(test_remake),
        WITH_FOLDER(test_little_data),
        WITH_FOLDER(test_no_cells),
        WITH_FOLDER(test_no_gnuplot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
