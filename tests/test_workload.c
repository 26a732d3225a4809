/* Tests of the readers of workload files: what each format becomes in memory, and the questions
 * asked of a turn. */
#include "workload_files.h"

/* A turn as the tables below expect it; reply "" stands for none. */
static void assert_turn(const struct kvg_item *it, size_t turn, const char *user, const char *reply)
{
    assert_true(turn < it->n_turns);
    assert_string_equal(it->turns[turn].user, user);
    if (*reply)
        assert_string_equal(it->turns[turn].reply, reply);
    else
        assert_null(it->turns[turn].reply);
}

static void test_openai(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(
        &w, "o.jsonl",
        ITEM(
            "a", S("Be brief.") "," U("Hi") "," A("Hello") "," U("Bye") "," A("So long"),
            ",\"meta\":{\"family\":\"f\",\"lang\":\"en\",\"title\":\"T\",\"checks\":["
            "{\"turn\":1,\"any\":[\"LONG\",\"x\"]},{\"turn\":1,\"any\":[\"so\"]}]}") "\n" /* an
                                                                                             empty
                                                                                             line */
        ITEM("b", "{\"role\":\"developer\",\"content\":\"D\"}," U("last"), ""));
    assert_string_equal(w.name, "o");
    assert_string_equal(w.format, "openai");
    assert_int_equal(w.kind, KVG_WORKLOAD_CHAT);
    assert_false(w.is_pack);
    assert_string_equal(w.licence, "NOASSERTION");
    assert_int_equal(w.n_items, 2);
    assert_int_equal(w.n_warnings, 0);
    assert_int_equal(w.n_languages, 2);
    assert_string_equal(w.languages[0], "en");
    assert_string_equal(w.languages[1], "und");

    const struct kvg_item *it = kvg_workload_find(&w, "a");
    assert_ptr_equal(it, &w.items[0]);
    assert_string_equal(it->system, "Be brief.");
    assert_string_equal(it->family, "f");
    assert_string_equal(it->title, "T");
    assert_null(it->source_lang);
    assert_int_equal(it->n_turns, 2);
    assert_turn(it, 0, "Hi", "Hello");
    assert_turn(it, 1, "Bye", "So long");
    assert_int_equal(it->turns[0].n_checks, 0);
    assert_int_equal(it->turns[1].n_checks, 2);
    assert_int_equal(it->turns[1].checks[0].n_any, 2);

    it = kvg_workload_find(&w, "b");
    assert_int_equal(it->line, 3);
    assert_string_equal(it->system, "D");
    assert_string_equal(it->family, "other");
    assert_turn(it, 0, "last", "");
    assert_null(kvg_workload_find(&w, "c"));
    kvg_workload_close(&w);
}

static void test_openai_parts_tools_and_joins(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(
        &w, "p.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]}," U(
            "c") ","
                 "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\","
                 "\"function\":"
                 "{\"name\":\"ls\",\"arguments\":\"{}\"}}]},"
                 "{\"role\":\"tool\",\"name\":\"ls\",\"content\":\"x.c\"}," A(
                     "One file.") ","
                                  "{\"role\":\"tool\",\"content\":\"late\"}," S("Stay calm.") "," U(
                                      "And?") "," A("No") "," A("more.") "]}\n"
                                                                         "{\"custom_id\":\"batch\","
                                                                         "\"body\":{\"messages\":"
                                                                         "[" U("q") "]}}\n");
    const struct kvg_item *it = kvg_workload_find(&w, "line-1");
    assert_non_null(it);
    assert_int_equal(it->n_turns, 3);
    assert_turn(it, 0, "a\nb\n\nc", "[call] ls({})");
    assert_turn(it, 1, "[tool ls]\nx.c", "One file.");
    assert_turn(it, 2, "[tool]\nlate\n\n[system]\nStay calm.\n\nAnd?", "No\n\nmore.");
    assert_non_null(kvg_workload_find(&w, "batch"));
    assert_int_equal(w.n_warnings, 1);
    assert_non_null(strstr(w.warnings[0], "2 message(s) were joined"));
    assert_non_null(strstr(w.warnings[0], "'line-1'"));
    kvg_workload_close(&w);
}

static void test_rewinds(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(
        &w, "r.jsonl",
        ITEM(
            "e",
            S("s") "," U("0") "," A("a0") "," U("1") "," A("a1") "," U("2") "," A("a2") "," R(
                "1b",
                "3") "," A("a1b") "," U("3") "," A("a3") "," R("1b",
                                                               "7") "," A("a1c") "," R("0b",
                                                                                       "1") "," A("a0b"),
            ""));
    static const int32_t rewind[] = {-1, -1, -1, 1, -1, 3, 0}, parent[] = {-1, 0, 1, 0, 3, 0, -1};
    const struct kvg_item *it = &w.items[0];
    size_t path[7];
    assert_int_equal(it->n_turns, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(it->turns[i].rewind_to, rewind[i]);
        assert_int_equal(it->turns[i].parent, parent[i]);
    }
    assert_int_equal(kvg_workload_history(it, 4, path), 3);
    assert_int_equal(path[0], 0);
    assert_int_equal(path[1], 3);
    assert_int_equal(path[2], 4);
    assert_int_equal(kvg_workload_history(it, 6, path), 1);
    assert_int_equal(path[0], 6);
    kvg_workload_close(&w);
}

static void test_sharegpt(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "[\n {\"id\": 7, \"conversations\": [\n  {\"from\": \"gpt\", \"value\": \"lead\"},\n"
        "  {\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"}]},\n"
        " {\"id\": \"n\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"alone\"}]},\n"
        " {\"id\": \"m\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\"},"
        "{\"from\": \"gpt\", \"value\": \" \"}, {\"from\": \"human\", \"value\": \"r\"}]}\n]\n",
        "{\"data\": [{\"id\": 7, \"conversations\": [{\"from\": \"bing\", \"value\": \"lead\"},"
        "{\"from\": \"user\", \"value\": \"q\"}, {\"from\": \"bard\", \"value\": \"a\"}]},"
        " {\"id\": \"n\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"alone\"}]},"
        " {\"id\": \"m\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\"},"
        "{\"from\": \"gpt\", \"value\": \"\"}, {\"from\": \"human\", \"value\": \"r\"}]}]}",
        "{\"id\": 7, \"conversations\": [{\"from\": \"gpt\", \"value\": \"lead\"},"
        "{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}\n"
        "{\"id\": \"n\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"alone\"}]}\n"
        "{\"id\": \"m\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\"},"
        "{\"from\": \"gpt\", \"value\": \"\"}, {\"from\": \"human\", \"value\": \"r\"}]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct kvg_workload w;
        open_text(&w, "s.json", texts[i]);
        assert_string_equal(w.format, "sharegpt");
        assert_int_equal(w.n_items, 2);
        assert_turn(kvg_workload_find(&w, "7"), 0, "q", "a");
        assert_int_equal(kvg_workload_find(&w, "m")->n_turns, 1);
        assert_turn(kvg_workload_find(&w, "m"), 0, "q", "");
        assert_int_equal(w.n_warnings, 3);
        assert_string_equal(w.warnings[0], "2 assistant message(s) before the first user message "
                                           "were left out (first in '7')");
        assert_string_equal(w.warnings[1], "1 item(s) were cut before an empty message (first "
                                           "'m')");
        assert_string_equal(w.warnings[2], "1 item(s) without any user message were left out "
                                           "(first 'n')");
        kvg_workload_close(&w);
    }
}

static void test_mtbench_and_pairs(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(&w, "m.jsonl",
              "{\"question_id\":81,\"category\":\"writing\",\"turns\":[\"one\",\"two\"],"
              "\"reference\":[\"x\",\"y\"]}\n");
    assert_string_equal(w.format, "mtbench");
    assert_string_equal(w.items[0].family, "writing");
    assert_int_equal(w.items[0].n_turns, 2);
    assert_turn(kvg_workload_find(&w, "81"), 0, "one", "");
    assert_turn(kvg_workload_find(&w, "81"), 1, "two", "");
    assert_int_equal(w.n_warnings, 0);
    kvg_workload_close(&w);

    open_text(&w, "h.jsonl",
              "{\"task\":\"GR\",\"id\":1,\"history\":[{\"user\":\"u\",\"bot\":\"b\"}]}\n"
              "{\"question_id\":2,\"category\":\"c\",\"conversation\":[{\"user\":\"u\",\"sys\":"
              "\"s\",\"id\":\"1\"}]}\n");
    assert_string_equal(w.format, "pairs");
    assert_turn(kvg_workload_find(&w, "1"), 0, "u", "b");
    assert_turn(kvg_workload_find(&w, "2"), 0, "u", "s");
    assert_string_equal(w.items[0].family, "GR");
    kvg_workload_close(&w);
}

static void test_tsv(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(&w, "t.tsv", "#en\tes\nOne.\tUno.\td1\nTwo.\tDos.\td1\nThree.\tTres.\td2\n");
    assert_int_equal(w.kind, KVG_WORKLOAD_TRANSLATION);
    assert_string_equal(w.format, "tsv");
    assert_int_equal(w.n_items, 2);
    const struct kvg_item *it = kvg_workload_find(&w, "d1");
    assert_string_equal(it->system, "Translate each message from English to Spanish. Answer with "
                                    "the translation only.");
    assert_string_equal(it->source_lang, "en");
    assert_string_equal(it->lang, "es");
    assert_int_equal(it->n_turns, 2);
    assert_turn(it, 1, "Two.", "Dos.");
    assert_turn(kvg_workload_find(&w, "d2"), 0, "Three.", "Tres.");
    kvg_workload_close(&w);

    struct kvg_str text = {
        0}; /* no header, no documents: an empty line, and the 8th segment, end */
    kvg_str_add(&text, "a\tb\r\n\r\n");
    for (int i = 0; i < 9; i++)
        kvg_str_addf(&text, "source %d\ttarget %d\r\n", i, i);
    open_text(&w, "any-name", text.s);
    kvg_str_release(&text);
    assert_int_equal(w.n_items, 3);
    assert_turn(kvg_workload_find(&w, "line-1"), 0, "a", "b");
    assert_int_equal(kvg_workload_find(&w, "line-3")->n_turns, 8);
    assert_turn(kvg_workload_find(&w, "line-11"), 0, "source 8", "target 8");
    assert_string_equal(w.items[0].lang, "und");
    assert_string_equal(w.items[0].system,
                        "Translate each message. Answer with the translation only.");
    kvg_workload_close(&w);
}

static void test_translation_items(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(&w, "x.jsonl",
              ITEM("m", U("the boiler") "," A("la caldera"),
                   ",\"meta\":{\"lang\":\"es\",\"source_lang\":\"en\",\"terms\":[[\"boiler\","
                   "\"caldera\"]]}"));
    assert_int_equal(w.kind, KVG_WORKLOAD_TRANSLATION);
    assert_string_equal(kvg_workload_kind_name(w.kind), "translation");
    assert_int_equal(w.items[0].n_terms, 1);
    assert_string_equal(w.items[0].terms[0].source, "boiler");
    assert_string_equal(w.items[0].terms[0].target, "caldera");
    kvg_workload_close(&w);
}

/* Files that must read the same with and without a byte order mark and with either line end. */
static void test_bom_and_crlf(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(&w, "b.jsonl",
              "\xef\xbb\xbf{\"id\":\"a\",\"messages\":[" U(
                  "smile \\uD83D\\uDE00") "]}\r\n\r\n{\"id\":\"b\",\"messages\":[" U("z") "]}");
    assert_int_equal(w.n_items, 2);
    assert_turn(&w.items[0], 0, "smile \xf0\x9f\x98\x80", "");
    assert_int_equal(w.items[1].line, 3);
    kvg_workload_close(&w);
    open_text(&w, "b.tsv", "\xef\xbb\xbf#en\tfr\r\nOne.\tUn.\r\n");
    assert_string_equal(w.items[0].lang, "fr");
    assert_turn(&w.items[0], 0, "One.", "Un.");
    kvg_workload_close(&w);
}

static void test_check_answer(void **state)
{
    (void)state;
    static const char *const any[] = {"14 May", "Überdruckventil", "bassin d'évaporation", "ŁÓDŹ",
                                      "ČĘ ŠŽŸ"};
    static const struct kvg_check checks[] = {{any, 5}, {any + 1, 1}};
    static const struct {
        const char *text;
        int want;
    } rows[] = {
        {"It was 14 MAY 1998.", 1},
        {"on 14\n  may", 1},
        {"14\xc2\xa0May", 1},
        {"15 May", 0},
        {"", 0},
        {"14 Ma", 0},
        {"das ÜBERDRUCKVENTIL", 1},
        {"das uberdruckventil", 0},
        {"Bassin d’Évaporation", 1},
        {"w Łodzi? łódź", 1},
        {"114 May", 1},
        {"1414 May", 1},
        {"čę šžÿ", 1},
        {"ďė ŝžÿ", 0},
    };
    struct kvg_turn turn = {.user = "q", .checks = checks, .n_checks = 1};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (kvg_workload_check_answer(&turn, rows[i].text) != rows[i].want)
            fail_msg("'%s' should give %d", rows[i].text, rows[i].want);
    turn.n_checks = 2;
    assert_int_equal(kvg_workload_check_answer(&turn, "14 May"), 0);
    assert_int_equal(kvg_workload_checks_passed(&turn, "14 May"), 1);
    assert_int_equal(kvg_workload_check_answer(&turn, "das überdruckventil"), 1);
    turn.n_checks = 0;
    assert_int_equal(kvg_workload_check_answer(&turn, "14 May"), -1);
}

/* The last place where the question stands is meant; a joined message keeps it. */
static void test_questions(void **state)
{
    (void)state;
    struct kvg_workload w;
    open_text(&w, "q.jsonl",
              ITEM("a", Q("Why? The log says. Why?", "Why?") "," A("So.") "," U("And?") "," A("x"),
                   "") ITEM("b", Q("Why?", "Why?") "," U("more"), ""));
    const struct kvg_turn *t = kvg_workload_find(&w, "a")->turns;
    assert_ptr_equal(t[0].question, t[0].user + strlen("Why? The log says. "));
    assert_int_equal(t[0].n_question, 4);
    assert_null(t[1].question);
    t = kvg_workload_find(&w, "b")->turns;
    assert_string_equal(t[0].user, "Why?\n\nmore");
    assert_ptr_equal(t[0].question, t[0].user);
    kvg_workload_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openai),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_openai_parts_tools_and_joins),
        cmocka_unit_test(test_rewinds),
        cmocka_unit_test(test_sharegpt),
        cmocka_unit_test(test_mtbench_and_pairs),
        cmocka_unit_test(test_tsv),
        cmocka_unit_test(test_translation_items),
        cmocka_unit_test(test_bom_and_crlf),
        cmocka_unit_test(test_check_answer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
