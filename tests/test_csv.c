/* CSV and manifest files: round trips, quoting, torn lines, wrong files, a full disk. */
#include "gen_run.h"

#include "base/fs.h"
#include "result/csv.h"
#include "result/manifest.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char folder[256], path[512];

static int setup(void **state)
{
    (void)state;
    if (kvg_gen_folder(folder, sizeof folder))
        return -1;
    snprintf(path, sizeof path, "%s/t.csv", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kvg_gen_folder_remove(folder);
    return 0;
}

static void put_kept(struct kvg_row *row, const char *strategy, uint64_t pos)
{
    kvg_row_init(row, &kvg_table_kept);
    kvg_row_set_str(row, KVG_KEPT_cell_id, "c");
    kvg_row_set_str(row, KVG_KEPT_strategy, strategy);
    kvg_row_set_u64(row, KVG_KEPT_turn, 0);
    kvg_row_set_u64(row, KVG_KEPT_layer, 1);
    kvg_row_set_u64(row, KVG_KEPT_pos, pos);
    kvg_row_set_u64(row, KVG_KEPT_heads, UINT64_MAX);
}

struct seen {
    size_t n;
    char strategy[16][64];
    uint64_t pos[16], heads[16];
};

static int see(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct seen *s = arg;
    (void)err;
    assert_true(s->n < 16);
    snprintf(s->strategy[s->n], 64, "%s", kvg_row_str(row, KVG_KEPT_strategy));
    s->pos[s->n] = kvg_row_u64(row, KVG_KEPT_pos);
    s->heads[s->n++] = kvg_row_u64(row, KVG_KEPT_heads);
    return KVG_OK;
}

static void write_text(const char *text)
{
    assert_int_equal(kvg_fs_write_atomic(path, text, strlen(text), NULL), KVG_OK);
}

static const char *const texts[] = {"plain",    "a,b", "say \"no\"",  " spaces ",     "two\nlines",
                                    "cr\r\nlf", "\"",  "caf\xc3\xa9", "x=1+y:z;q|5%", "trailing "};

static void test_text_round_trip(void **state)
{
    struct kvg_csv *csv;
    struct kvg_row row;
    struct kvg_err err = {0};
    struct seen s = {0};
    size_t n = sizeof texts / sizeof texts[0];
    (void)state;
    assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_kept, &err), KVG_OK);
    for (size_t i = 0; i < n; i++) {
        put_kept(&row, texts[i], i);
        assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_OK);
    }
    assert_int_equal(kvg_csv_close(csv, &err), KVG_OK);
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_OK);
    assert_int_equal(s.n, n);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(s.strategy[i], texts[i]);
        assert_int_equal(s.pos[i], i);
        assert_true(s.heads[i] == UINT64_MAX);
    }
}

static const double numbers[] = {0.1,  1.0 / 3, 1e-300,   5e-324,           1.7976931348623157e308,
                                 -2.5, 0,       HUGE_VAL, 123456789012345.0};

static int check_number(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    size_t *n = arg;
    double want = numbers[*n], got = kvg_row_f64(row, KVG_STEPS_kl);
    (void)err;
    assert_memory_equal(&got, &want, sizeof got); /* exactly */
    assert_false(kvg_row_has(row, KVG_STEPS_nll));
    assert_true(isnan(kvg_row_f64(row, KVG_STEPS_nll)));
    assert_int_equal(kvg_row_u64(row, KVG_STEPS_schema), KVG_SCHEMA);
    ++*n;
    return KVG_OK;
}

/* Also under a locale with a decimal comma, where the system has one. */
static void test_number_round_trip(void **state)
{
    struct kvg_csv *csv;
    struct kvg_row row;
    struct kvg_err err = {0};
    size_t n = 0;
    (void)state;
    setlocale(LC_ALL, "de_DE.UTF-8");
    assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_steps, &err), KVG_OK);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        kvg_row_init(&row, &kvg_table_steps);
        kvg_row_set_str(&row, KVG_STEPS_cell_id, "c");
        kvg_row_set_u64(&row, KVG_STEPS_round, 0);
        kvg_row_set_u64(&row, KVG_STEPS_turn, 0);
        kvg_row_set_u64(&row, KVG_STEPS_step, i);
        kvg_row_set_f64(&row, KVG_STEPS_kl, numbers[i]);
        assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_OK);
    }
    assert_int_equal(kvg_csv_close(csv, &err), KVG_OK);
    assert_int_equal(kvg_csv_read(path, &kvg_table_steps, check_number, &n, &err), KVG_OK);
    assert_int_equal(n, sizeof numbers / sizeof numbers[0]);
    setlocale(LC_ALL, "C");
}

static void test_misuse(void **state)
{
    struct kvg_csv *csv;
    struct kvg_row row;
    struct kvg_err err = {0};
    (void)state;
    assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_kept, &err), KVG_OK);
    put_kept(&row, "s", 0);
    kvg_row_set_f64(&row, KVG_KEPT_layer, 1.5);
    assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_ECHECK);
    assert_non_null(strstr(err.msg, "layer"));
    put_kept(&row, "", 0);
    assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_ECHECK);
    assert_non_null(strstr(err.msg, "strategy"));
    kvg_row_init(&row, &kvg_table_turns);
    assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_ECHECK);
    put_kept(&row, "s", 0);
    kvg_row_set_u64(&row, KVG_KEPT_N, 1);
    assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_ECHECK);
    assert_int_equal(kvg_csv_close(csv, &err), KVG_OK);
}

static const char kept_header[] = "schema,cell_id,strategy,query,turn,layer,pos,heads\n";

static void test_torn_line(void **state)
{
    static const char *const torn[] = {"1,c,b,,0,1,9", "1,c,\"b\nc", "1,c,\"b,,0,1,9,1\n"};
    struct kvg_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof torn / sizeof torn[0]; i++) {
        char text[256];
        struct kvg_csv *csv;
        struct kvg_row row;
        struct seen s = {0};
        snprintf(text, sizeof text, "%s1,c,a,,0,1,7,1\n%s", kept_header, torn[i]);
        write_text(text);
        assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_OK);
        assert_int_equal(s.n, 1);
        assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_kept, &err), KVG_OK);
        put_kept(&row, "new", 8);
        assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_OK);
        assert_int_equal(kvg_csv_close(csv, &err), KVG_OK);
        s.n = 0;
        assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_OK);
        assert_int_equal(s.n, 2);
        assert_string_equal(s.strategy[0], "a");
        assert_string_equal(s.strategy[1], "new");
    }
}

static void test_torn_header(void **state)
{
    struct kvg_csv *csv;
    struct kvg_err err = {0};
    struct seen s = {0};
    (void)state;
    write_text("schema,cell_");
    assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_kept, &err), KVG_OK);
    assert_int_equal(kvg_csv_close(csv, &err), KVG_OK);
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_OK);
    assert_int_equal(s.n, 0);
}

static void test_wrong_header(void **state)
{
    struct kvg_csv *csv;
    struct kvg_err err = {0};
    (void)state;
    write_text("schema,other\n1,2\n");
    assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_kept, &err), KVG_EFORMAT);
    assert_null(csv);
    assert_non_null(strstr(err.msg, path));
}

/* Columns in another order, an unknown one between, Windows line ends. */
static void test_by_name(void **state)
{
    struct kvg_err err = {0};
    struct seen s = {0};
    (void)state;
    write_text("pos,future,strategy,schema,cell_id,turn,layer,heads\r\n5,\"x,y\",a,1,c,0,1,3\r\n");
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_OK);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.pos[0], 5);
    assert_int_equal(s.heads[0], 3);
    assert_string_equal(s.strategy[0], "a");
}

static void test_malformed(void **state)
{
    static const struct {
        const char *rows, *says;
    } cases[] = {
        {"1,c,a,,0,1,7,1\n1,c,a,,0,1,7\n", "line 3"},
        {"1,c,a,,0,1,7,1,9\n", "line 2"},
        {"1,c,\"two\nlines\",,0,1,7,1\n1,c,a,,0,1,x,1\n", "line 4"},
        {"1,c,a,,0,1,-7,1\n", "pos"},
        {"1,c,a,,0,1,7.5,1\n", "pos"},
        {"1,c,a\"b,,0,1,7,1\n1,c,\",,0,1,7,1\n", "line 2"},
        {"1,c,a,,0,1, 7,1\n", "pos"},
        {"1,c,a,,0,1,99999999999999999999,1\n", "pos"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        struct kvg_err err = {0};
        struct seen s = {0};
        snprintf(text, sizeof text, "%s%s", kept_header, cases[i].rows);
        write_text(text);
        assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_EFORMAT);
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_non_null(strstr(err.msg, path));
    }
}

static void test_missing_column(void **state)
{
    struct kvg_err err = {0};
    struct seen s = {0};
    (void)state;
    write_text("schema,cell_id,strategy,turn,layer,heads\n");
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "'pos'"));
    write_text("pos,pos\n");
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_EFORMAT);
    write_text("");
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_EFORMAT);
    assert_int_equal(kvg_csv_read("/no/such/file", &kvg_table_kept, see, &s, &err), KVG_EIO);
}

static void test_disk_full(void **state)
{
    struct kvg_csv *csv;
    struct kvg_row row;
    struct kvg_err err = {0};
    (void)state;
    if (!kvg_fs_exists("/dev/full"))
        skip();
    assert_int_equal(kvg_csv_open_append(&csv, "/dev/full", &kvg_table_kept, &err), KVG_OK);
    put_kept(&row, "s", 0);
    assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_OK);
    assert_int_equal(kvg_csv_flush(csv, &err), KVG_EIO);
    assert_non_null(strstr(err.msg, "/dev/full"));
    assert_non_null(strstr(err.msg, "No space"));
    assert_int_equal(kvg_csv_close(csv, NULL), KVG_EIO);
}

static int keep_odd(void *arg, const struct kvg_row *row)
{
    (void)arg;
    return kvg_row_u64(row, KVG_KEPT_pos) % 2 == 1;
}

static void test_filter(void **state)
{
    struct kvg_csv *csv;
    struct kvg_row row;
    struct kvg_err err = {0};
    struct seen s = {0};
    size_t n_dropped = 0;
    (void)state;
    assert_int_equal(kvg_csv_open_append(&csv, path, &kvg_table_kept, &err), KVG_OK);
    for (uint64_t i = 0; i < 7; i++) {
        put_kept(&row, "a,b", i);
        assert_int_equal(kvg_csv_write(csv, &row, &err), KVG_OK);
    }
    assert_int_equal(kvg_csv_close(csv, &err), KVG_OK);
    assert_int_equal(kvg_csv_filter(path, &kvg_table_kept, keep_odd, NULL, &n_dropped, &err),
                     KVG_OK);
    assert_int_equal(n_dropped, 4);
    assert_int_equal(kvg_csv_read(path, &kvg_table_kept, see, &s, &err), KVG_OK);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.pos[2], 5);
    assert_string_equal(s.strategy[2], "a,b");
}

static void test_manifest(void **state)
{
    struct kvg_manifest m, back;
    struct kvg_arena a;
    struct kvg_err err = {0};
    struct kvg_manifest_spec specs[] = {{"l", "l:x=1", "control"}};
    char hex[65], again[65], id[KVG_RUN_ID_CAP];
    enum kvg_status status;
    (void)state;
    kvg_arena_init(&a);
    kvg_manifest_init(&m);
    m.identity.suite = "quick";
    m.identity.specs = specs;
    m.identity.n_specs = 1;
    m.identity.seed = UINT64_MAX;
    m.context.cpu = "a \"cpu\"";
    m.context.load = 0.25;
    assert_int_equal(kvg_manifest_write(folder, &m, &err), KVG_OK);
    assert_int_equal(kvg_manifest_read(folder, &back, &a, &err), KVG_OK);
    assert_string_equal(back.identity.suite, "quick");
    assert_int_equal(back.identity.n_specs, 1);
    assert_string_equal(back.identity.specs[0].spec, "l:x=1");
    assert_string_equal(back.identity.specs[0].role, "control");
    assert_true(back.identity.seed == UINT64_MAX);
    assert_string_equal(back.context.cpu, "a \"cpu\"");
    assert_true(back.context.load > 0.24 && back.context.load < 0.26);
    assert_int_equal(kvg_manifest_identity_hash(&m, hex, &err), KVG_OK);
    assert_int_equal(kvg_manifest_identity_hash(&back, again, &err), KVG_OK);
    assert_string_equal(hex, again);
    back.context.cpu = "another"; /* context does not count, identity does */
    assert_int_equal(kvg_manifest_identity_hash(&back, again, &err), KVG_OK);
    assert_string_equal(hex, again);
    back.identity.seed = 1;
    assert_int_equal(kvg_manifest_identity_hash(&back, again, &err), KVG_OK);
    assert_string_not_equal(hex, again);
    assert_int_equal(kvg_manifest_run_id(&m, 1700000000, id, &err), KVG_OK);
    assert_memory_equal(id, "20231114T221320Z-", 17);
    assert_memory_equal(id + 17, hex, 8);
    assert_string_equal(kvg_manifest_run_dir("results", &m, "x", &a), "results/quick/x");
    assert_int_equal(kvg_status_write(folder, KVG_STATUS_INTERRUPTED, &err), KVG_OK);
    assert_int_equal(kvg_status_read(folder, &status, &err), KVG_OK);
    assert_int_equal(status, KVG_STATUS_INTERRUPTED);
    kvg_arena_release(&a);
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_text_round_trip), WITH_FOLDER(test_number_round_trip),
        WITH_FOLDER(test_misuse),          WITH_FOLDER(test_torn_line),
        WITH_FOLDER(test_torn_header),     WITH_FOLDER(test_wrong_header),
        WITH_FOLDER(test_by_name),         WITH_FOLDER(test_malformed),
        WITH_FOLDER(test_missing_column),  WITH_FOLDER(test_disk_full),
        WITH_FOLDER(test_filter),          WITH_FOLDER(test_manifest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
