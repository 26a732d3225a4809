/* Suite files: what is read, what is refused and with which words, and that the resolved print
 * reads back as the same settings. Also the spreading of reply tokens over turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include "base/fs.h"
#include "run/suite.h"
#include "run/tokens.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static int write_file(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/kvgauge-suite-%ld.yaml", (long)getpid());
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static int read_text(const char *text, struct kvg_suite *s, struct kvg_arena *a,
                     struct kvg_err *err)
{
    assert_int_equal(kvg_fs_write_atomic(path, text, strlen(text), NULL), 0);
    int rc = kvg_suite_read(s, path, a, err);
    return rc ? rc : kvg_suite_check(s, err);
}

#define HEAD "name: q\nstrategies: [full, 'random:budget=25%']\nworkloads:\n  - source: chat\n"

static void test_refused(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", "the suite is empty"},
        {"name: q\n", "the key 'strategies' is missing"},
        {"name: q\nstrategys: [full]\nworkloads: []\n", ":2: unknown key 'strategys'; did you mean "
                                                        "'strategies'?"},
        {HEAD "    itms: [a]\n", ":5: unknown key 'itms'; did you mean 'items'?"},
        {HEAD "drift:\n  modes: [forced]\n  reply_tokns: 5\n",
         ":7: unknown key 'reply_tokns'; did you mean 'reply_tokens'?"},
        {HEAD "time:\n  round: 5\n", ":6: unknown key 'round'; did you mean 'rounds'?"},
        {HEAD "drift:\n  zzzzzzzz: 5\n", ":6: unknown key 'zzzzzzzz'"},
        {HEAD "drift:\n  modes: [fred]\n",
         "'fred' is not a value of this key; did you mean 'free'?"},
        {HEAD "query: [sen]\ndrift: {floor_items: 1}\n",
         "'sen' is not a value of this key; did you mean 'seen'?"},
        {HEAD "second_question: maybe\n", "'maybe' is not a value of this key"},
        {HEAD "second_question: yes\ndrift: {modes: [free]}\n",
         "'second_question' is a part of forced"},
        {HEAD "drift:\n  reply_tokens: 5x\n", "'reply_tokens: 5x' is not a whole number"},
        {HEAD "drift:\n  reply_tokens: -5\n", "'reply_tokens: -5' is not a whole number"},
        {HEAD, "no lane wanted"},
        {HEAD "time:\n  rounds: 0\n", "'rounds' is 0"},
        {HEAD "drift:\n  free_tokens: 0\n", "'free_tokens' is 0"},
        {HEAD "seeds: 0\ndrift: {floor_items: 1}\n", "'seeds' is 0"},
        {HEAD "drift: {floor_items: 1}\nbench:\n  n_gen: 4\n", "'bench' needs 'depths'"},
        {HEAD "drift: {floor_items: 1}\nrecall:\n  facts: 4\n", "recall: no length given"},
        {HEAD "drift: {floor_items: 1}\nrecall:\n  lengths: [64]\n  facts: 22\n",
         "22 facts need 67"},
        {HEAD "drift: {floor_items: 1}\nrecall:\n  lenghts: [64]\n",
         "unknown key 'lenghts'; did you mean 'lengths'?"},
        {"name: a/b\nstrategies: [full]\nworkloads: [{source: chat}]\ndrift: {floor_items: 1}\n",
         "'a/b' cannot name a folder"},
        {"name: q\nstrategies: [full, full]\nworkloads: [{source: chat}]\ndrift: {floor_items: "
         "1}\n",
         "'full' is listed twice"},
        {"name: q\nstrategies: []\nworkloads: [{source: chat}]\ndrift: {floor_items: 1}\n",
         "no strategy given"},
        {"name: q\nstrategies: [full]\nworkloads: []\ndrift: {floor_items: 1}\n",
         "no workload given"},
        {"name: q\nstrategies: [\n", "libyaml parser error"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kvg_arena a;
        struct kvg_suite s;
        struct kvg_err err = {0};
        kvg_arena_init(&a);
        int rc = read_text(cases[i].text, &s, &a, &err);
        if (rc != KVG_EUSAGE || !strstr(err.msg, cases[i].want))
            fail_msg("case %zu: code %d, '%s', wanted '%s'", i, rc, err.msg, cases[i].want);
        kvg_arena_release(&a);
    }
}

static void test_missing_file(void **state)
{
    struct kvg_arena a;
    struct kvg_suite s;
    struct kvg_err err = {0};
    (void)state;
    kvg_arena_init(&a);
    assert_int_equal(kvg_suite_read(&s, "/nonexistent/suite.yaml", &a, &err), KVG_EIO);
    assert_non_null(strstr(err.msg, "/nonexistent/suite.yaml"));
    kvg_arena_release(&a);
}

static void test_values(void **state)
{
    struct kvg_arena a;
    struct kvg_suite s;
    struct kvg_err err = {0};
    (void)state;
    kvg_arena_init(&a);
    assert_int_equal(read_text(HEAD "drift: {floor_items: 1}\n", &s, &a, &err), 0);
    assert_true(s.queries[KVG_QUERY_SEEN] && !s.queries[KVG_QUERY_UNSEEN]); /* the default */
    assert_false(s.second_question);
    assert_int_equal(read_text(HEAD "query: [unseen]\nsecond_question: yes\ndrift: {floor_items: "
                                    "1}\n",
                               &s, &a, &err),
                     0);
    assert_true(!s.queries[KVG_QUERY_SEEN] && s.queries[KVG_QUERY_UNSEEN]);
    assert_true(s.second_question);
    int rc = read_text(HEAD "    items: [x, y]\nseed: 7\nseeds_mode: all\n"
                            "drift:\n  modes: [free]\n  target: greedy\n  reply_tokens: 0\n"
                            "time:\n  items: [z]\n  strategies: [full]\n  uncached_depths: 3\n"
                            "bench:\n  depths: [0, 512]\n  n_gen: 4\n"
                            "recall:\n  lengths: [96, 512]\n  facts: 8\n  strategies: [full]\n",
                       &s, &a, &err);
    assert_int_equal(rc, 0);
    assert_string_equal(s.strategies.v[1], "random:budget=25%");
    assert_int_equal(s.workloads[0].items.n, 2);
    assert_int_equal(s.seed, 7);
    assert_int_equal(s.seeds_mode, KVG_SEEDS_ALL);
    assert_true(s.lanes[KVG_LANE_DRIFT] && s.lanes[KVG_LANE_TIME]);
    assert_true(s.modes[KVG_MODE_FREE] && !s.modes[KVG_MODE_FORCED]);
    assert_int_equal(s.target, KVG_TARGET_GREEDY);
    assert_int_equal(s.reply_tokens, 0);
    assert_int_equal(s.free_tokens, 48); /* the default */
    assert_int_equal(s.rounds, 3);       /* the default */
    assert_int_equal(s.uncached_depths, 3);
    assert_int_equal(s.bench_depths[1], 512);
    assert_int_equal(s.recall_lengths[0], 96);
    assert_int_equal(s.recall_facts, 8);
    assert_string_equal(s.recall_strategies.v[0], "full");
    kvg_arena_release(&a);
}

static void test_shipped_and_round_trip(void **state)
{
    static const char *const files[] = {"suites/quick.yaml", "suites/full.yaml"};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct kvg_arena a;
        struct kvg_suite s, again;
        struct kvg_err err = {0};
        struct kvg_str text = {0}, second = {0};
        kvg_arena_init(&a);
        if (kvg_suite_read(&s, files[i], &a, &err) || kvg_suite_check(&s, &err))
            fail_msg("%s", err.msg);
        kvg_suite_print(&s, &text);
        if (read_text(text.s, &again, &a, &err))
            fail_msg("%s: the resolved print does not read back: %s", files[i], err.msg);
        kvg_suite_print(&again, &second);
        assert_string_equal(text.s, second.s);
        kvg_str_release(&text);
        kvg_str_release(&second);
        kvg_arena_release(&a);
    }
}

static void test_spread(void **state)
{
    static const struct {
        size_t limit, n, cap[4], want[4];
    } cases[] = {
        {50, 3, {100, 100, 100}, {17, 17, 16}}, /* earlier turns get the remainder */
        {50, 3, {100, 5, 100}, {23, 5, 22}},    /* what a short reply leaves goes to the others */
        {0, 3, {4, 0, 9}, {4, 0, 9}},           /* no limit */
        {2, 4, {9, 9, 9, 9}, {1, 1, 0, 0}},     {50, 2, {3, 4}, {3, 4}}, {7, 1, {0}, {0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t out[4];
        kvg_spread_tokens(cases[i].limit, cases[i].cap, cases[i].n, out);
        for (size_t k = 0; k < cases[i].n; k++)
            if (out[k] != cases[i].want[k])
                fail_msg("case %zu turn %zu: %zu, wanted %zu", i, k, out[k], cases[i].want[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refused, write_file, remove_file),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test_setup_teardown(test_values, write_file, remove_file),
        cmocka_unit_test_setup_teardown(test_shipped_and_round_trip, write_file, remove_file),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
