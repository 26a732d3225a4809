/* Tests of packs and their cards, and of files of others, which are skipped when absent. */
#include "workload_files.h"

#define CARD(hash, items, rest)                                                                    \
    "{\"name\":\"mini\",\"description\":\"d\",\"licence\":\"CC0-1.0\",\"creator\":\"c\","          \
    "\"file\":\"mini.jsonl\",\"sha256\":\"" hash "\",\"languages\":[\"en\"],\"families\":[\"f\"]," \
    "\"counts\":{\"items\":" items                                                                 \
    ",\"turns\":1,\"tokens_median\":9},\"personal_data\":\"none\"" rest "}"

static void write_pack(const char *data, const char *items, const char *rest, int wrong_hash)
{
    char folder[256], hex[KVG_SHA256_HEX];
    struct kvg_str card = {0};
    snprintf(folder, sizeof folder, "%s/workloads/mini", tmp_dir);
    assert_int_equal(kvg_fs_mkdirs(folder, NULL), 0);
    kvg_hash_sha256_hex(data, strlen(data), hex);
    if (wrong_hash)
        hex[0] = hex[0] == '0' ? '1' : '0';
    kvg_str_addf(&card, CARD("%s", "%s", "%s"), hex, items, rest);
    write_text("workloads/mini/mini.jsonl", data);
    write_text("workloads/mini/card.json", card.s);
    kvg_str_release(&card);
}

static void test_pack(void **state)
{
    (void)state;
    static const char provenance[] = ",\"provenance\":\"p\"";
    static const struct {
        const char *items, *rest;
        int wrong_hash;
        const char *want; /* NULL = opens */
    } rows[] = {
        {"1", provenance, 0, NULL},
        {"1", provenance, 1, "is not what its card describes"},
        {"2", provenance, 0, "counts 2 items and 1 turns, its data has 1 and 1"},
        {"0", provenance, 0, "needs 'items'"},
        {"1", "", 0, "needs 'provenance'"},
        {"1", ",", 0, "malformed card"},
    };
    assert_int_equal(setenv("KVGAUGE_DATA", tmp_dir, 1), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kvg_workload w;
        struct kvg_err err = {0};
        write_pack(OK_ITEM("a"), rows[i].items, rows[i].rest, rows[i].wrong_hash);
        int rc = kvg_workload_open(&w, "mini", &err);
        if (rows[i].want) {
            if (rc != KVG_EFORMAT || !strstr(err.msg, rows[i].want))
                fail_msg("row %zu: %d %s", i, rc, err.msg);
            continue;
        }
        if (rc)
            fail_msg("%s", err.msg);
        assert_true(w.is_pack);
        assert_string_equal(w.name, "mini");
        assert_string_equal(w.licence, "CC0-1.0");
        kvg_workload_close(&w);
    }
    struct kvg_workload w;
    struct kvg_err err = {0};
    assert_int_equal(kvg_workload_open(&w, "minni", &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "did you mean 'mini'?"));
    assert_int_equal(unsetenv("KVGAUGE_DATA"), 0);
}

/* The packs that are shipped: they open, and each recorded reply passes its own checks. */
static void test_shipped_packs(void **state)
{
    (void)state;
    static const char *const names[] = {"chat", "translation"};
    for (size_t k = 0; k < 2; k++) {
        struct kvg_workload w;
        struct kvg_err err = {0};
        size_t n_checked = 0;
        if (kvg_workload_open(&w, names[k], &err))
            fail_msg("%s", err.msg);
        assert_true(w.is_pack);
        assert_int_equal(w.kind, k == 0 ? KVG_WORKLOAD_CHAT : KVG_WORKLOAD_TRANSLATION);
        assert_int_equal(w.n_warnings, 0);
        for (size_t i = 0; i < w.n_items; i++)
            for (size_t t = 0; t < w.items[i].n_turns; t++) {
                const struct kvg_turn *turn = &w.items[i].turns[t];
                assert_non_null(turn->reply);
                int passed = kvg_workload_check_answer(turn, turn->reply);
                if (passed == 0)
                    fail_msg("'%s', turn %zu fails its own check", w.items[i].id, t);
                n_checked += passed == 1;
            }
        assert_true(n_checked >= 50);
        kvg_workload_close(&w);
    }
}

/* Roles, families, lengths, runs of words in common, card: as cards.py defines them. */
static void test_pack_properties(void **state)
{
    (void)state;
    if (system("python3 -c '' 2>/dev/null") != 0)
        skip();
    assert_int_equal(
        system("python3 -B workloads/cards.py --check workloads/chat workloads/translation >"
               " /dev/null"),
        0);
}

static void test_shared_files(void **state)
{
    (void)state;
    static const struct {
        const char *path, *format;
        size_t n_items;
    } rows[] = {
        {"../shared/data/chat/fastchat_dummy_conversation.sharegpt.json", "sharegpt", 500},
        {"../shared/data/chat/mt_bench_question.jsonl", "mtbench", 80},
        {"../shared/data/chat/mtbench101.jsonl", "pairs", 1388},
        {"../shared/data/chat/mteval_mt-bench_extended.jsonl", "pairs", 80},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kvg_workload w;
        struct kvg_err err = {0};
        if (!kvg_fs_exists(rows[i].path))
            skip();
        if (kvg_workload_open(&w, rows[i].path, &err))
            fail_msg("%s", err.msg);
        assert_string_equal(w.format, rows[i].format);
        assert_int_equal(w.n_items, rows[i].n_items);
        kvg_workload_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_shipped_packs),
        cmocka_unit_test(test_pack_properties),
        cmocka_unit_test(test_shared_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
