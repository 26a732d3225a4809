/* Rules and borders of tokenizers on small vocabularies made here: invalid text, capacity, pieces,
 * special tokens, refusals, length. */
#include "base/clock.h"
#include "gen_gguf.h"
#include "model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_IDS = 8192 };
static int32_t ids[MAX_IDS];

struct opened {
    struct kvg_gguf g;
    struct kvg_tokenizer *t;
};

static void close_file(struct opened *o)
{
    kvg_tokenizer_close(o->t);
    kvg_gguf_close(&o->g);
}

/* Opens what `gen` holds and releases it. */
static void open_gen(struct opened *o, struct kvg_gguf_writer *gen)
{
    struct kvg_err err = {0};
    assert_int_equal(gen_gguf_open(gen, &o->g), 0);
    if (kvg_tokenizer_open(&o->t, &o->g, &err))
        fail_msg("%s", err.msg);
    kvg_gguf_writer_release(gen);
}

static void open_bytes(struct opened *o)
{
    struct kvg_gguf_writer gen;
    kvg_gguf_writer_init(&gen);
    kvg_gguf_put_byte_vocab(&gen, 288);
    open_gen(o, &gen);
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    struct opened o;
    char text[256], pair[3];
    size_t n;
    open_bytes(&o);
    for (size_t i = 0; i < 256; i++)
        text[i] = (char)i;
    assert_int_equal(kvg_tokenizer_encode(o.t, text, 256, 1, ids, MAX_IDS, &n, NULL), 0);
    assert_int_equal(n, 256);
    for (int32_t i = 0; i < 256; i++)
        assert_int_equal(ids[i], i);
    for (int i = 0x80; i < 0x100; i++) {
        memcpy(pair, (char[]){(char)i, ' ', (char)i}, 3);
        assert_int_equal(kvg_tokenizer_encode(o.t, pair, 3, 1, ids, MAX_IDS, &n, NULL), 0);
        assert_true(n == 3 && ids[0] == i && ids[1] == ' ' && ids[2] == i);
    }
    close_file(&o);
}

static void test_capacity_and_decode(void **state)
{
    (void)state;
    struct opened o;
    struct kvg_err err = {0};
    struct kvg_str back = {0};
    static const int32_t beyond = 288, below = -1;
    size_t n;
    open_bytes(&o);
    ids[3] = -7;
    assert_int_equal(kvg_tokenizer_encode(o.t, "abcdef", 6, 0, ids, 3, &n, &err), KVG_ELIMIT);
    assert_true(n == 6 && ids[2] == 'c' && ids[3] == -7);
    assert_int_equal(kvg_tokenizer_encode(o.t, "", 0, 0, NULL, 0, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(kvg_tokenizer_decode(o.t, &beyond, 1, &back, &err), KVG_EUSAGE);
    assert_int_equal(kvg_tokenizer_decode(o.t, &below, 1, &back, &err), KVG_EUSAGE);
    assert_null(kvg_tokenizer_piece(o.t, beyond, &n));
    assert_memory_equal(kvg_tokenizer_piece(o.t, 258, &n), "<|im_end|>", 10);
    assert_int_equal(n, 10);
    kvg_str_release(&back);
    close_file(&o);
}

static void test_pieces(void **state)
{
    (void)state;
    static const struct kvg_text_piece pieces[] = {
        {"<|im_start|>a", 13, 1}, {"<|im_end|>", 10, 0}, {"", 0, 0}, {"b<|im_end|>", 11, 1}};
    struct opened o;
    size_t n;
    open_bytes(&o);
    assert_int_equal(kvg_tokenizer_encode_pieces(o.t, pieces, 4, 0, ids, MAX_IDS, &n, NULL), 0);
    assert_int_equal(n, 1 + 1 + 10 + 1 + 1);
    assert_true(ids[0] == 257 && ids[1] == 'a' && ids[2] == '<' && ids[11] == '>');
    assert_true(ids[12] == 'b' && ids[13] == 258);
    close_file(&o);
}

/* Ordinary text of neighbouring pieces is one string to the merges. */
static void test_pieces_join(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", "ab", "<x>"};
    static const char *const merges[] = {"a b"};
    static const int32_t types[] = {1, 1, 1, 3};
    static const struct kvg_text_piece pieces[] = {{"<x>a", 4, 1}, {"b", 1, 0}, {"ab", 2, 1}};
    struct kvg_gguf_writer gen;
    struct opened o;
    size_t n;
    kvg_gguf_writer_init(&gen);
    kvg_gguf_put_str(&gen, "tokenizer.ggml.model", "gpt2");
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.tokens", tokens, 4);
    kvg_gguf_put_i32s(&gen, "tokenizer.ggml.token_type", types, 4);
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.merges", merges, 1);
    open_gen(&o, &gen);
    assert_int_equal(kvg_tokenizer_encode_pieces(o.t, pieces, 3, 0, ids, MAX_IDS, &n, NULL), 0);
    assert_true(n == 3 && ids[0] == 3 && ids[1] == 2 && ids[2] == 2);
    close_file(&o);
}

/* SentencePiece: the prefix at the beginning and behind special tokens, none when the text goes on;
 * user-defined tokens always, control tokens only when asked; unknown characters as bytes or unk.
 */
static void test_spm_rules(void **state)
{
    (void)state;
    static const char *const tokens[] = {
        "<unk>", "<s>", "\xe2\x96\x81", "a", "\xe2\x96\x81\x61", "<0xC3>", "[w]", "[w"};
    static const int32_t types[] = {2, 3, 1, 1, 1, 6, 4, 4};
    static const float scores[] = {0, 0, -3, -2, -1, 0, 0, 0};
    static const struct {
        const char *text;
        int flags;
        int32_t want[8]; /* ends with -1 */
    } cases[] = {
        {"a a", 0, {4, 4, -1}},
        {"a a", KVG_ENCODE_CONTINUE, {3, 4, -1}},
        {" a", 0, {2, 4, -1}},
        {"a[w]a", 0, {4, 6, 4, -1}},
        {"a[wa", 0, {4, 7, 4, -1}},
        {"a<s>a", KVG_ENCODE_SPECIAL | KVG_ENCODE_CONTINUE, {3, 1, 4, -1}},
        {"<s>a", KVG_ENCODE_SPECIAL, {1, 4, -1}},
        {"<s>", 0, {2, 0, 0, 0, -1}},
        {"\xc3\xa9", 0, {2, 5, 0, -1}},
    };
    struct kvg_gguf_writer gen;
    struct opened o;
    kvg_gguf_writer_init(&gen);
    kvg_gguf_put_str(&gen, "tokenizer.ggml.model", "llama");
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.tokens", tokens, 8);
    kvg_gguf_put_i32s(&gen, "tokenizer.ggml.token_type", types, 8);
    kvg_gguf_put_f32s(&gen, "tokenizer.ggml.scores", scores, 8);
    kvg_gguf_put_u32(&gen, "tokenizer.ggml.unknown_token_id", 0);
    open_gen(&o, &gen);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        const char *s = cases[i].text;
        assert_int_equal(
            kvg_tokenizer_encode(o.t, s, strlen(s), cases[i].flags, ids, MAX_IDS, &n, NULL), 0);
        for (size_t k = 0; k <= n; k++)
            if ((k < n ? ids[k] : -1) != cases[i].want[k])
                fail_msg("'%s': token %zu of %zu is %d", s, k, n, ids[k]);
    }
    close_file(&o);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", "ab"}, *const merges[] = {"a c"};
    static const int32_t types[] = {1, 1, 9};
    static const struct {
        const char *model, *pre;
        size_t n_types, n_merges;
        int code;
        const char *says;
    } cases[] = {
        {"bert", "default", 0, 0, KVG_EUNSUP, "tokenizer 'bert'"},
        {"gpt2", "qwen9", 0, 0, KVG_EUNSUP, "pre-tokeniser 'qwen9'"},
        {"gpt2", "gpt-2", 0, 1, KVG_EFORMAT, "merge 0 'a c'"},
        {"gpt2", "gpt-2", 2, 0, KVG_EFORMAT, "3 tokens but 2 token types"},
        {"gpt2", "gpt-2", 3, 0, KVG_EFORMAT, "unknown type 9"},
        {"llama", "default", 0, 0, KVG_EFORMAT, "tokenizer.ggml.scores' is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kvg_gguf_writer gen;
        struct kvg_gguf g;
        struct kvg_tokenizer *t;
        struct kvg_err err = {0};
        kvg_gguf_writer_init(&gen);
        kvg_gguf_put_str(&gen, "tokenizer.ggml.model", cases[i].model);
        kvg_gguf_put_str(&gen, "tokenizer.ggml.pre", cases[i].pre);
        kvg_gguf_put_strs(&gen, "tokenizer.ggml.tokens", tokens, 3);
        kvg_gguf_put_strs(&gen, "tokenizer.ggml.merges", merges, cases[i].n_merges);
        if (cases[i].n_types)
            kvg_gguf_put_i32s(&gen, "tokenizer.ggml.token_type", types, cases[i].n_types);
        assert_int_equal(gen_gguf_open(&gen, &g), 0);
        kvg_gguf_writer_release(&gen);
        int rc = kvg_tokenizer_open(&t, &g, &err);
        if (rc != cases[i].code || !strstr(err.msg, cases[i].says) || t)
            fail_msg("case %zu gives %d '%s'", i, rc, err.msg);
        kvg_gguf_close(&g);
    }
}

/* A word of a megabyte: quadratic merging would take hours. */
static void test_long_word(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "aa", "aaaa"}, *const merges[] = {"a a", "aa aa"};
    enum { LEN = 1 << 20 };
    struct kvg_gguf_writer gen;
    struct opened o;
    size_t n;
    char *text = malloc(LEN + 3);
    assert_non_null(text);
    memset(text, 'a', LEN + 3);
    kvg_gguf_writer_init(&gen);
    kvg_gguf_put_str(&gen, "tokenizer.ggml.model", "gpt2");
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.tokens", tokens, 3);
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.merges", merges, 2);
    open_gen(&o, &gen);
    uint64_t begin = kvg_clock_ns();
    int rc = kvg_tokenizer_encode(o.t, text, LEN + 3, 0, ids, MAX_IDS, &n, NULL);
    assert_true(kvg_clock_ns() - begin < 20u * 1000000000u);
    assert_int_equal(rc, KVG_ELIMIT);
    assert_int_equal(n, LEN / 4 + 2);
    free(text);
    close_file(&o);
}

static void test_digest(void **state)
{
    (void)state;
    struct opened a, b, c;
    struct kvg_gguf_writer gen;
    open_bytes(&a);
    open_bytes(&b);
    kvg_gguf_writer_init(&gen);
    kvg_gguf_put_byte_vocab(&gen, 289);
    open_gen(&c, &gen);
    assert_int_equal(strlen(kvg_tokenizer_digest(a.t)), 64);
    assert_string_equal(kvg_tokenizer_digest(a.t), kvg_tokenizer_digest(b.t));
    assert_string_not_equal(kvg_tokenizer_digest(a.t), kvg_tokenizer_digest(c.t));
    close_file(&a);
    close_file(&b);
    close_file(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invalid_utf8), cmocka_unit_test(test_capacity_and_decode),
        cmocka_unit_test(test_pieces),       cmocka_unit_test(test_pieces_join),
        cmocka_unit_test(test_spm_rules),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_long_word),    cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
