/* Tests of workload files that are wrong: each known hazard with its message and line number, the
 * limits, and files mutated at random. */
#include "workload_files.h"

#include "base/rng.h"

struct bad {
    const char *name, *text;
    size_t n; /* 0 = strlen */
    int code;
    const char *want; /* in the message */
};

static const struct bad bad_files[] = {
    {"e.jsonl", "\n", 0, KVG_EFORMAT, "it is empty"},
    {"e.json", "[]", 0, KVG_EFORMAT, "it has no items"},
    {"e.tsv", "#en\tes\n", 0, KVG_EFORMAT, "it has no items"},
    {"e.txt", "\xff\xfe{\0", 4, KVG_EFORMAT, "is UTF-16; convert it to UTF-8"},
    {"e.txt", "some words\n", 0, KVG_EFORMAT, "unknown workload format in"},
    {"e.jsonl", "some words\n", 0, KVG_EFORMAT, "line 1: "},
    {"u.jsonl", "{\"foo\": 1}\n", 0, KVG_EFORMAT, "line 1: no reader knows this kind of item"},
    {"u.jsonl", OK_ITEM("a") "\n{\"id\":\"b\",\"messages\":[}\n", 0, KVG_EFORMAT, "line 3: "},
    {"u.jsonl", OK_ITEM("a") "[1]\n", 0, KVG_EFORMAT, "line 2: not a JSON object"},
    {"u.jsonl", OK_ITEM("a") "{\"id\":\"b\"}\n", 0, KVG_EFORMAT, "line 2: no list 'messages'"},
    {"u.jsonl", OK_ITEM("a") OK_ITEM("b") OK_ITEM("a"), 0, KVG_EFORMAT,
     "line 3: the id 'a' was used before, at line 1"},
    {"u.jsonl", OK_ITEM("a") ITEM("b", U("x\\u0000y"), ""), 0, KVG_EFORMAT,
     "line 2: the text holds \\u0000"},
    {"u.jsonl", OK_ITEM("a") ITEM("b", U("\\uD83D alone"), ""), 0, KVG_EFORMAT,
     "line 2: invalid Unicode '\\uD83D"},
    {"u.jsonl", OK_ITEM("a") ITEM("b", U("\xff"), ""), 0, KVG_EFORMAT, "line 2: "},
    {"u.jsonl", OK_ITEM("a") "{\"id\":\"b\",\"id\":\"c\"}\n", 0, KVG_EFORMAT,
     "line 2: duplicate object key"},
    {"u.jsonl", ITEM("a", A("only"), ""), 0, KVG_EFORMAT,
     "none of its 1 item(s) has a user message"},
    {"u.jsonl", OK_ITEM("a") ITEM("b", "{\"role\":\"bot\",\"content\":\"\"}", ""), 0, KVG_EFORMAT,
     "line 2: message 0 has the unknown role 'bot'"},
    {"u.jsonl", ITEM("b", "{\"content\":\"\"}", ""), 0, KVG_EFORMAT, "message 0 has no 'role'"},
    {"u.jsonl", ITEM("b", "{\"role\":\"user\",\"content\":3}", ""), 0, KVG_EFORMAT,
     "neither a string nor a list"},
    {"u.jsonl",
     ITEM("b", "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}", ""),
     0, KVG_EFORMAT, "a part of type 'image_url'; only text"},
    {"u.jsonl", ITEM("b", U("x") "," A("y") "," R("z", "1"), ""), 0, KVG_EFORMAT,
     "'replaces' is 1, which is not an earlier user message of 'b'"},
    {"u.jsonl", ITEM("b", U("x") "," A("y") "," R("z", "2"), ""), 0, KVG_EFORMAT,
     "'replaces' is 2, which is not"},
    {"u.jsonl", ITEM("b", U("x") "," A("y") "," R("z", "-1"), ""), 0, KVG_EFORMAT,
     "must be the index"},
    {"u.jsonl", ITEM("b", U("x") "," R("z", "0"), ""), 0, KVG_EFORMAT, "without a reply"},
    {"u.jsonl",
     ITEM("b", U("0") "," A("a") "," U("1") "," A("b") "," R("0b", "0") "," A("c") "," R("1b", "2"),
          ""),
     0, KVG_EFORMAT, "'replaces' is 2, which goes back to a part of 'b' that was thrown away"},
    {"u.jsonl", ITEM("b", Q("the log. Why?", "Who?"), ""), 0, KVG_EFORMAT,
     "the question 'Who?' is not part of its message"},
    {"u.jsonl", ITEM("b", Q("x", " "), ""), 0, KVG_EFORMAT, "is not part of its message"},
    {"u.jsonl", ITEM("b", "{\"role\":\"user\",\"content\":\"x\",\"question\":1}", ""), 0,
     KVG_EFORMAT, "'question' of message 0 must be a string"},
    {"u.jsonl",
     ITEM("b", U("x") ",{\"role\":\"assistant\",\"content\":\"x\",\"question\":\"x\"}", ""), 0,
     KVG_EFORMAT, "'question' of message 1 must be a string on a user message"},
    {"u.jsonl", ITEM("b", U("x"), ",\"meta\":{\"checks\":[{\"turn\":1,\"any\":[\"x\"]}]}"), 0,
     KVG_EFORMAT, "a check names turn 1, but 'b' has turns 0 to 0"},
    {"u.jsonl", ITEM("b", U("x"), ",\"meta\":{\"checks\":[{\"turn\":0,\"any\":[]}]}"), 0,
     KVG_EFORMAT, "check 0 needs"},
    {"u.jsonl", ITEM("b", U("x"), ",\"meta\":{\"checks\":[{\"turn\":0,\"any\":[\" \"]}]}"), 0,
     KVG_EFORMAT, "strings that are not empty"},
    {"u.jsonl", ITEM("b", U("x"), ",\"meta\":{\"terms\":[[\"x\"]]}"), 0, KVG_EFORMAT,
     "term 0 must be [source, target]"},
    {"u.jsonl", ITEM("b", U("x"), ",\"meta\":{\"title\":4}"), 0, KVG_EFORMAT,
     "'meta.title' must be a string"},
    {"u.jsonl", ITEM("b", U("x"), ",\"meta\":7"), 0, KVG_EFORMAT, "'meta' must be an object"},
    {"u.jsonl", OK_ITEM("a") ITEM("b", U("x"), ",\"meta\":{\"source_lang\":\"en\"}"), 0,
     KVG_EFORMAT, "line 2: chat and translation items are mixed"},
    {"s.json", "[{\"id\":\"a\",\"conversations\":[]},\n{\"id\":\"b\",\n\"conversations\" []}]", 0,
     KVG_EFORMAT, "line 3: "},
    {"s.json",
     "[{\"id\":\"a\",\"conversations\":[]},{\"conversations\":[{\"from\":\"elf\","
     "\"value\":\"\"}]}]",
     0, KVG_EFORMAT, "item 2: message 0 is from 'elf'"},
    {"s.json",
     "[{\"id\":\"a\",\"conversations\":[{\"from\":\"human\",\"value\":\"x\"}]},"
     "{\"id\":\"a\",\"conversations\":[{\"from\":\"human\",\"value\":\"x\"}]}]",
     0, KVG_EFORMAT, "item 2: the id 'a' was used before, at item 1"},
    {"s.json", "[{\"conversations\":[{\"from\":\"human\"}]}]", 0, KVG_EFORMAT,
     "item 1: message 0 needs the strings 'from' and 'value'"},
    {"m.jsonl", "{\"question_id\":1,\"turns\":[\"a\",2]}", 0, KVG_EFORMAT,
     "line 1: turn 1 is not a string"},
    {"h.jsonl", "{\"id\":1,\"history\":[{\"user\":\"a\"}]}", 0, KVG_EFORMAT, "line 1: pair 0"},
    {"t.tsv", "a\tb\nc\n", 0, KVG_EFORMAT, "line 2: 1 column(s)"},
    {"t.tsv", "a\tb\tc\td\n", 0, KVG_EFORMAT, "line 1: 4 column(s)"},
    {"t.tsv", "a\tb\n\tc\n", 0, KVG_EFORMAT, "line 2: the source is empty"},
    {"t.tsv", "a\t \n", 0, KVG_EFORMAT, "line 1: the target is empty"},
    {"t.tsv", "a\tb\0c\n", 6, KVG_EFORMAT, "line 1: not valid UTF-8 text, or a NUL byte"},
    {"t.tsv", "a\tb\nc\t\xc3\n", 0, KVG_EFORMAT, "line 2: not valid UTF-8"},
    {"t.tsv", "a\tb\td1\nc\td\td2\ne\tf\td1\n", 0, KVG_EFORMAT,
     "line 3: the id 'd1' was used before, at line 1"},
};

static void test_bad_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        const struct bad *b = &bad_files[i];
        struct kvg_workload w;
        struct kvg_err err = {0};
        const char *path = write_bytes(b->name, b->text, b->n ? b->n : strlen(b->text));
        int rc = kvg_workload_open(&w, path, &err);
        if (rc != b->code || !strstr(err.msg, b->want) || !strstr(err.msg, path))
            fail_msg("row %zu: code %d, message: %s", i, rc, rc ? err.msg : "(none)");
    }
}

static void test_missing_and_empty(void **state)
{
    (void)state;
    struct kvg_workload w;
    struct kvg_err err = {0};
    assert_int_equal(kvg_workload_open(&w, "/no/such/file.jsonl", &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "no workload '/no/such/file.jsonl'"));
    assert_int_equal(kvg_workload_open(&w, write_text("0.jsonl", ""), &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "nothing in the workload"));
    assert_int_equal(kvg_workload_open(&w, tmp_dir, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "without a card.json"));
    assert_int_equal(kvg_workload_open(&w, "", &err), KVG_EUSAGE);
}

/* Nesting beyond jansson's limit, and a line beyond ours, are errors, not crashes. */
static void test_limits(void **state)
{
    (void)state;
    struct kvg_workload w;
    struct kvg_err err = {0};
    struct kvg_str s = {0};
    kvg_str_add(&s, OK_ITEM("a") "{\"x\":");
    for (int i = 0; i < 5000; i++)
        kvg_str_addc(&s, '[');
    kvg_str_add(&s, "\n");
    assert_int_equal(kvg_workload_open(&w, write_text("deep.jsonl", s.s), &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "line 2: maximum parsing depth reached"));
    kvg_str_clear(&s);
    kvg_str_add(&s, OK_ITEM("a") "{\"x\":\"");
    for (int i = 0; i < 33 << 10; i++) {
        static const char kib[] =
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
        for (int j = 0; j < 16; j++)
            kvg_str_addn(&s, kib, 63);
    }
    assert_int_equal(kvg_workload_open(&w, write_text("long.jsonl", s.s), &err), KVG_ELIMIT);
    assert_non_null(strstr(err.msg, "line 2 is longer than"));
    kvg_str_release(&s);
}

static void touch_all(const struct kvg_workload *w)
{
    for (size_t i = 0; i < w->n_items; i++) {
        const struct kvg_item *it = &w->items[i];
        assert_ptr_equal(kvg_workload_find(w, it->id), it);
        assert_true(it->n_turns > 0);
        for (size_t t = 0; t < it->n_turns; t++) {
            const struct kvg_turn *turn = &it->turns[t];
            assert_true(kvg_text_utf8_valid(turn->user, strlen(turn->user)));
            assert_true(*turn->user && turn->parent < (int32_t)t && turn->rewind_to < (int32_t)t);
            assert_true(kvg_workload_checks_passed(turn, turn->user) <= turn->n_checks);
        }
    }
}

/* Valid files with bytes changed, removed, doubled: they open whole or are refused with a message,
 * and the sanitizers stay silent. */
static void test_mutations(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
    } seeds[] = {
        {"f.jsonl", ITEM("a", S("s") "," U("x é") "," A("y") "," R("z", "1") "," A("w"),
                         ",\"meta\":{\"lang\":\"en\",\"terms\":[[\"a\",\"b\"]],\"checks\":[{"
                         "\"turn\":1,\"any\":[\"w\"]}]}") OK_ITEM("b")},
        {"f.json", "[{\"id\":1,\"conversations\":[{\"from\":\"human\",\"value\":\"q\\u00e9\"},"
                   "{\"from\":\"gpt\",\"value\":\"a\"}]},{\"id\":2,\"conversations\":[]}]"},
        {"g.jsonl", "{\"question_id\":81,\"category\":\"w\",\"turns\":[\"one\",\"two\"]}\n"},
        {"h.jsonl", "{\"task\":\"GR\",\"id\":1,\"history\":[{\"user\":\"u\",\"bot\":\"b\"}]}\n"},
        {"f.tsv", "#en\tes\nOne.\tUno.\td1\nTwo.\tDos.\td1\n\nThree é.\tTres.\n"},
    };
    static const char alphabet[] = "\"{}[]:,\\\t\n\r #0-1eu\xc3\xff\0";
    struct kvg_rng rng = {20};
    size_t n_opened = 0, n_refused = 0;
    for (int round = 0; round < 4000; round++) {
        size_t k = (size_t)kvg_rng_below(&rng, sizeof seeds / sizeof *seeds);
        char buf[1024];
        size_t n = strlen(seeds[k].text);
        memcpy(buf, seeds[k].text, n);
        for (uint64_t edits = 1 + kvg_rng_below(&rng, 3); edits && n > 1; edits--) {
            size_t at = (size_t)kvg_rng_below(&rng, n);
            size_t len = 1 + (size_t)kvg_rng_below(&rng, n - at < 8 ? n - at : 8);
            uint64_t how = kvg_rng_below(&rng, 3);
            if (how == 0) {
                buf[at] = alphabet[kvg_rng_below(&rng, sizeof alphabet - 1)];
            } else if (how == 1) {
                memmove(buf + at, buf + at + len, n - at - len);
                n -= len;
            } else if (n + len < sizeof buf) {
                memmove(buf + at + len, buf + at, n - at);
                n += len;
            }
        }
        struct kvg_workload w;
        struct kvg_err err = {0};
        if (kvg_workload_open(&w, write_bytes(seeds[k].name, buf, n), &err)) {
            assert_true(err.msg[0] != 0);
            n_refused++;
        } else {
            touch_all(&w);
            kvg_workload_close(&w);
            n_opened++;
        }
    }
    assert_true(n_opened > 200);
    assert_true(n_refused > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_missing_and_empty),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
