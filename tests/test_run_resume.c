/* Tests that a run can be repeated, stopped, killed and starved of disk space, and that what is in
 * its files afterwards is right. */
#include "base/fs.h"
#include "gen_tiny.h"
#include "result/manifest.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *specs[] = {"full", "random:budget=25%", "h2o:budget=25%",
                              "q8_0", "sink:budget=20",    NULL};
static const char *items[] = {"chat", "edit", "open", "paste", NULL};
static const struct kvg_table *const tables[] = {&kvg_table_cells, &kvg_table_turns,
                                                 &kvg_table_steps, &kvg_table_kept};

static struct gen_tiny tiny;
static struct kvg_str expected; /* the rows of a run that nothing disturbed */
static char whole_dir[KVG_RUN_DIR_CAP];

static void rows_of(struct kvg_str *out)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        gen_tiny_rows(&tiny, tables[i], out);
}

static int setup(void **state)
{
    struct kvg_err err = {0};
    (void)state;
    gen_tiny_open(&tiny, 2);
    gen_tiny_choose(&tiny, specs, items);
    tiny.suite.modes[KVG_MODE_FREE] = 1;
    tiny.suite.kept_item = "edit";
    tiny.suite.queries[KVG_QUERY_UNSEEN] = 1;
    tiny.suite.second_question = 1;
    if (gen_tiny_run(&tiny, 0, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    rows_of(&expected);
    memcpy(whole_dir, tiny.dir, sizeof whole_dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kvg_str_release(&expected);
    gen_tiny_close(&tiny);
    return 0;
}

/* Line by line: one differing row is shown, not all of them. */
static void assert_rows(void)
{
    struct kvg_str rows = {0};
    rows_of(&rows);
    for (char *a = rows.s, *b = expected.s; *a || *b;) {
        size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");
        if (na != nb || memcmp(a, b, na))
            fail_msg("row\n  %.*s\nshould be\n  %.*s", (int)na, a, (int)nb, b);
        a += na + (a[na] == '\n');
        b += nb + (b[nb] == '\n');
    }
    kvg_str_release(&rows);
}

static void assert_status(enum kvg_status want)
{
    enum kvg_status status;
    assert_int_equal(kvg_status_read(tiny.dir, &status, NULL), 0);
    assert_int_equal(status, want);
}

static void test_same_seed_same_rows(void **state)
{
    (void)state;
    assert_int_equal(gen_tiny_run(&tiny, 0, NULL), 0);
    assert_string_not_equal(tiny.dir, whole_dir);
    assert_rows();
}

static void test_another_seed_other_rows(void **state)
{
    (void)state;
    struct kvg_str rows = {0};
    tiny.suite.seed = 2;
    assert_int_equal(gen_tiny_run(&tiny, 0, NULL), 0);
    tiny.suite.seed = 1;
    rows_of(&rows);
    assert_string_not_equal(rows.s, expected.s);
    kvg_str_release(&rows);
}

static void on_alarm(int sig)
{
    (void)sig;
    kill(getpid(), SIGINT);
}

/* Stopped again and again, later each time, until it is done. */
static void test_stopped_and_resumed(void **state)
{
    (void)state;
    struct sigaction a = {.sa_handler = on_alarm};
    int rc = KVG_EINTR, n_stopped = 0;
    sigaction(SIGALRM, &a, NULL);
    for (int delay_ms = 5; rc == KVG_EINTR && delay_ms < 60000; delay_ms += delay_ms / 2 + 1) {
        struct kvg_err err = {0};
        struct itimerval timer = {.it_value = {delay_ms / 1000, delay_ms % 1000 * 1000}};
        struct itimerval off = {.it_value = {0, 0}};
        signal(SIGINT, SIG_IGN); /* between two runs */
        setitimer(ITIMER_REAL, &timer, NULL);
        rc = gen_tiny_run(&tiny, n_stopped > 0, &err);
        setitimer(ITIMER_REAL, &off, NULL);
        if (!rc && !n_stopped) { /* the signal came before the run could listen: once more */
            rc = KVG_EINTR;
            continue;
        }
        if (rc != KVG_EINTR)
            break;
        n_stopped++;
        assert_status(KVG_STATUS_INTERRUPTED);
        assert_non_null(strstr(err.msg, "--resume"));
    }
    assert_int_equal(rc, 0);
    assert_true(n_stopped > 0);
    assert_status(KVG_STATUS_COMPLETE);
    assert_rows();
}

static void copy_file(const char *name, size_t n_bytes, const char *tail)
{
    char from[KVG_RUN_DIR_CAP + 32], to[KVG_RUN_DIR_CAP + 32];
    char *data;
    size_t n;
    struct kvg_str s = {0};
    snprintf(from, sizeof from, "%s/%s", whole_dir, name);
    snprintf(to, sizeof to, "%s/%s", tiny.dir, name);
    assert_int_equal(kvg_fs_read(from, SIZE_MAX / 2, &data, &n, NULL), 0);
    kvg_str_addn(&s, data, n_bytes < n ? n_bytes : n);
    kvg_str_add(&s, tail);
    assert_int_equal(kvg_fs_write_atomic(to, s.s, s.len, NULL), 0);
    kvg_str_release(&s);
    free(data);
}

/* Bytes of the first n lines of a file of the whole run. */
static size_t lines_bytes(const char *name, size_t n)
{
    char path[KVG_RUN_DIR_CAP + 32];
    char *data;
    size_t size, at = 0;
    snprintf(path, sizeof path, "%s/%s", whole_dir, name);
    assert_int_equal(kvg_fs_read(path, SIZE_MAX / 2, &data, &size, NULL), 0);
    for (; n && at < size; at++)
        n -= data[at] == '\n';
    free(data);
    return at;
}

/* What a killed run leaves: some cells, torn lines, and rows of cells that have no row of their
 * own. */
static void test_killed_and_resumed(void **state)
{
    (void)state;
    static const size_t cells[] = {0, 1, 2, 5, 9};
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        char dir[KVG_RUN_DIR_CAP];
        assert_int_equal(gen_tiny_run(&tiny, 0, NULL), 0);
        copy_file("cells.csv", lines_bytes("cells.csv", cells[i] + 1), "1,torn,\"li");
        copy_file("steps.csv", SIZE_MAX, "1,0");
        copy_file("turns.csv", SIZE_MAX, "");
        copy_file("kept.csv", SIZE_MAX, "1,\"");
        assert_int_equal(kvg_status_write(tiny.dir, KVG_STATUS_RUNNING, NULL), 0);
        memcpy(dir, tiny.dir, sizeof dir);
        assert_int_equal(gen_tiny_run(&tiny, 1, NULL), 0);
        assert_string_equal(tiny.dir, dir);
        assert_status(KVG_STATUS_COMPLETE);
        assert_rows();
    }
}

/* A limit on the size of files is a disk that is full. */
static void starve(size_t n_bytes)
{
    struct rlimit limit = {n_bytes, n_bytes};
    struct kvg_err err = {0};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    int rc = gen_tiny_run(&tiny, 0, &err);
    _exit(rc == KVG_EIO && strstr(err.msg, "too large") ? 0 : 1);
}

static void test_a_full_disk(void **state)
{
    (void)state;
    static const size_t limits[] = {4096, 9000, 20000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        int status;
        struct gen_tiny saved = tiny;
        kvg_pool_close(tiny.pool); /* threads do not survive a fork */
        pid_t pid = fork();
        if (!pid) {
            if (kvg_pool_open(&tiny.pool, 2, NULL))
                _exit(2);
            tiny.suite.name = "starved";
            starve(limits[i]);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        tiny = saved;
        assert_int_equal(kvg_pool_open(&tiny.pool, 2, NULL), 0);
        tiny.suite.name = "starved";
        assert_int_equal(gen_tiny_run(&tiny, 1, NULL), 0);
        tiny.suite.name = "tiny";
        assert_status(KVG_STATUS_COMPLETE);
        assert_rows();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_rows), cmocka_unit_test(test_another_seed_other_rows),
        cmocka_unit_test(test_stopped_and_resumed), cmocka_unit_test(test_killed_and_resumed),
        cmocka_unit_test(test_a_full_disk),

    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
