/* Tests of the marks laid over a conversation's ids: what a span's tokens say is the stretch that
 * was meant, on a model of one token a byte and, for vocabularies of real words, the alignment. */
#include "gen_gguf.h"
#include "gen_run.h"
#include "model/model.h"
#include "run/inspect.h"
#include "run/marks.h"
#include "run/replay.h"

#include "base/fs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char folder[256];
static struct kvg_model *model;
static struct kvg_template chat;

static int setup(void **state)
{
    (void)state;
    char path[300];
    struct gen_llama cfg = gen_llama_default();
    struct kvg_err err = {0};
    if (kvg_gen_folder(folder, sizeof folder))
        return -1;
    snprintf(path, sizeof path, "%s/tiny.gguf", folder);
    if (gen_llama_write(&cfg, path) || kvg_model_open(&model, path, KVG_MODEL_FULL, &err))
        return -1;
    return kvg_template_open(&chat, &model->gguf, model->tok, &err);
}

static int teardown(void **state)
{
    (void)state;
    kvg_template_release(&chat);
    kvg_model_close(model);
    kvg_gen_folder_remove(folder);
    return 0;
}

static const char paste[] = "Log of the mill.\n08:10 sluice open\n\nWhen did it open?  ";
static const struct kvg_term terms[] = {{"mill", "molino"}, {"sluice gate", "compuerta"}};
static const struct kvg_turn turns[] = {
    {.user = paste,
     .question = paste + 36,
     .n_question = 17,
     .reply = "At 08:10.",
     .rewind_to = -1,
     .parent = -1},
    {.user = "And closed?", .reply = "Not said.", .rewind_to = -1, .parent = 0},
    {.user = "Thanks.", .reply = "Gladly.", .rewind_to = 1, .parent = 0},
};
static const struct kvg_item item = {
    .id = "made",
    .system =
        "Be brief. Glossary: mill = molino; sluice gate = compuerta. Say 3.5 m!\n\n- No jokes",
    .turns = turns,
    .n_turns = 3,
    .terms = terms,
    .n_terms = 2};

static struct kvg_item_tokens tokenised(struct kvg_arena *a)
{
    struct kvg_item_tokens t;
    struct kvg_err err = {0};
    if (kvg_item_tokenise(&t, NULL, &item, model, &chat, 0, 0, 8, 0, a, &err))
        fail_msg("%s", err.msg);
    return t;
}

static void assert_says(const int32_t *ids, size_t n, const char *want)
{
    struct kvg_str s = {0};
    assert_int_equal(kvg_tokenizer_decode(model->tok, ids, n, &s, NULL), 0);
    assert_string_equal(s.s ? s.s : "", want);
    kvg_str_release(&s);
}

static void test_spans_of_a_prompt(void **state)
{
    (void)state;
    static const struct {
        enum kvg_span_kind kind;
        const char *text;
    } want[] = {
        {KVG_SPAN_SYSTEM, "Be brief."},
        {KVG_SPAN_SYSTEM, "Glossary: "},
        {KVG_SPAN_GLOSSARY, "mill = molino"},
        {KVG_SPAN_GLOSSARY, "sluice gate = compuerta"},
        {KVG_SPAN_SYSTEM, "Say 3.5 m!"},
        {KVG_SPAN_SYSTEM, "- No jokes"},
        {KVG_SPAN_TOOL, "Log of the mill.\n08:10 sluice open\n\n"},
        {KVG_SPAN_USER, "When did it open?"},
    };
    struct kvg_arena a;
    kvg_arena_init(&a);
    struct kvg_item_tokens t = tokenised(&a);
    const struct kvg_turn_tokens *first = &t.turns[0];
    assert_int_equal(first->n_spans, sizeof want / sizeof want[0]);
    for (size_t i = 0; i < first->n_spans; i++) {
        const struct kvg_span *s = &first->spans[i];
        assert_int_equal(s->kind, want[i].kind);
        assert_true(i == 0 || s->begin >= first->spans[i - 1].end);
        assert_says(first->prompt + s->begin, s->end - s->begin, want[i].text);
    }
    assert_int_equal(first->question, first->spans[7].begin);
    assert_true(first->has_context);
    assert_int_equal(t.turns[1].n_spans, 1);
    assert_int_equal(t.turns[1].question, t.turns[1].spans[0].begin);
    assert_false(t.turns[1].has_context);
    kvg_arena_release(&a);
}

/* Positions in the conversation: of the path alone, not of a turn that was taken back. */
static void test_spans_of_a_conversation(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_replay r;
    struct kvg_text text = {0};
    kvg_arena_init(&a);
    struct kvg_item_tokens t = tokenised(&a);
    assert_int_equal(kvg_replay_init(&r, &t, &a, NULL), 0);
    kvg_replay_mark(&r, 1, &text);
    assert_int_equal(text.n_spans, 9);
    assert_int_equal(text.spans[8].begin, r.turns[1].begin + t.turns[1].question);
    assert_int_equal(text.question, text.spans[8].begin);
    kvg_replay_mark(&r, 2, &text);
    assert_int_equal(text.n_spans, 9);
    assert_int_equal(text.spans[8].begin, r.turns[2].begin + t.turns[2].question);
    assert_int_equal(text.spans[8].end - text.spans[8].begin, strlen("Thanks."));
    kvg_replay_mark(&r, 0, &text);
    assert_int_equal(text.n_spans, 8);
    kvg_arena_release(&a);
}

/* The second question stands where the first one stood. */
static void test_a_second_question(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_replay r;
    struct kvg_item_tokens two[2];
    struct kvg_text text = {0};
    int32_t call[512], whole[512];
    kvg_arena_init(&a);
    struct kvg_item_tokens t = tokenised(&a);
    assert_int_equal(kvg_item_second(two, &t, model, &chat, 0, &a, NULL), 0);
    assert_int_equal(kvg_replay_init(&r, &two[1], &a, NULL), 0);
    kvg_replay_score_planned(&r);
    assert_int_equal(r.n_scored, t.turns[1].n_reply);
    assert_int_equal(r.turns[0].n_fed, t.turns[0].n_reply); /* fed, not scored */
    assert_int_equal(r.turns[1].begin, t.turns[0].question);
    size_t n = kvg_replay_prompt(&r, 0, whole);
    assert_int_equal(n, t.turns[0].n_prompt);
    size_t k = kvg_replay_prompt(&r, 1, call);
    const char *close = "<|im_end|>\n<|im_start|>assistant\n";
    char want[256], got[256];
    snprintf(want, sizeof want, "And closed?%s", close);
    struct kvg_str s = {0};
    assert_int_equal(kvg_tokenizer_decode(model->tok, call, k, &s, NULL), 0);
    snprintf(got, sizeof got, "%s", s.s);
    assert_string_equal(got, want);
    kvg_str_release(&s);
    kvg_replay_mark(&r, 1, &text);
    assert_int_equal(text.n_spans, 8); /* the first question's span is gone */
    assert_int_equal(text.spans[6].kind, KVG_SPAN_TOOL);
    assert_int_equal(text.spans[7].begin, t.turns[0].question);
    assert_int_equal(text.question, t.turns[0].question);
    assert_int_equal(kvg_replay_question(&r, 1), 0);
    assert_true(r.n_max >= t.turns[0].n_prompt + t.turns[0].n_reply);
    kvg_arena_release(&a);
}

/* A question that does not end its message has no context before it. */
static void test_items_without_a_second_question(void **state)
{
    (void)state;
    static const struct {
        size_t at, n;
        int has_second;
    } cases[] = {{36, 17, 1}, {0, 10, 0}, {17, 5, 0}, {36, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kvg_turn changed[2] = {turns[0], turns[1]};
        struct kvg_item other = item;
        struct kvg_item_tokens t, two[2];
        struct kvg_arena a;
        kvg_arena_init(&a);
        changed[0].question = cases[i].n ? paste + cases[i].at : NULL;
        changed[0].n_question = cases[i].n;
        other.turns = changed;
        other.n_turns = 2;
        assert_int_equal(kvg_item_tokenise(&t, NULL, &other, model, &chat, 0, 0, 8, 0, &a, NULL),
                         0);
        assert_int_equal(kvg_item_second(two, &t, model, &chat, 0, &a, NULL),
                         cases[i].has_second ? 0 : KVG_ENONE);
        kvg_arena_release(&a);
    }
}

/* Vocabularies of real words: every byte of the text ends in exactly one token. */
static void test_alignment(void **state)
{
    (void)state;
    static const char *const vocabs[] = {"../shared/data/models/vocab/ggml-vocab-gpt-2.gguf",
                                         "../shared/data/models/vocab/ggml-vocab-phi-3.gguf"};
    static const char text[] = "Keep these terms:  tide clock = reloj de "
                               "mareas;\n\n\tcapit\xc3\xa1n \xf0\x9f\x9a\xa2 3.5 m.";
    for (size_t v = 0; v < 2; v++) {
        struct kvg_gguf g;
        struct kvg_tokenizer *tok;
        int32_t ids[sizeof text];
        size_t ends[sizeof text], n, n_text = sizeof text - 1;
        if (!kvg_fs_exists(vocabs[v]))
            skip();
        assert_int_equal(kvg_gguf_open(&g, vocabs[v], NULL), 0);
        assert_int_equal(kvg_tokenizer_open(&tok, &g, NULL), 0);
        assert_int_equal(kvg_tokenizer_encode(tok, text, n_text, 0, ids, sizeof text, &n, NULL), 0);
        kvg_marks_align(tok, ids, n, text, n_text, ends);
        for (size_t i = 0; i < n; i++) {
            size_t k, from = i ? ends[i - 1] : 0;
            const char *piece = kvg_tokenizer_piece(tok, ids[i], &k);
            size_t got = ends[i] - from;
            assert_true(got == k || (i == 0 && got + 1 == k)); /* a space before the text */
            assert_memory_equal(text + from, piece + (k - got), got);
        }
        assert_int_equal(ends[n - 1], n_text);
        kvg_tokenizer_close(tok);
        kvg_gguf_close(&g);
    }
}

static void test_spans_from_a_file(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *want; /* NULL = read */
    } cases[] = {
        {"# begin end kind\n0 4 system\n\n4 9 glossary\n12 20 user\n", 3, NULL},
        {"", 0, NULL},
        {"0 4 system\n3 9 tool\n", 0, ":2: "},
        {"4 4 system\n", 0, ":1: "},
        {"0 21 tool\n", 0, ":1: "},
        {"0 5 tols\n", 0, ":1: "},
        {"0 5\n", 0, ":1: "},
        {"-1 5 tool\n", 0, ":1: "},
    };
    char path[300];
    snprintf(path, sizeof path, "%s/spans", folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kvg_arena a;
        struct kvg_span *spans;
        struct kvg_err err = {0};
        size_t n = 99;
        kvg_arena_init(&a);
        assert_int_equal(kvg_fs_write_atomic(path, cases[i].text, strlen(cases[i].text), NULL), 0);
        int rc = kvg_inspect_read_spans(path, 20, &spans, &n, &a, &err);
        if (cases[i].want) {
            if (rc != KVG_EFORMAT || !strstr(err.msg, cases[i].want))
                fail_msg("case %zu: %d %s", i, rc, err.msg);
        } else {
            assert_int_equal(rc, 0);
            assert_int_equal(n, cases[i].n);
            if (n)
                assert_int_equal(spans[1].kind, KVG_SPAN_GLOSSARY);
        }
        kvg_arena_release(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans_of_a_prompt),
        cmocka_unit_test(test_spans_of_a_conversation),
        cmocka_unit_test(test_a_second_question),
        cmocka_unit_test(test_items_without_a_second_question),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_spans_from_a_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
