/* Tokenizers against ids of the `tokenizers` library (golden/make_model_goldens.py), against the
 * conformance files beside the vocabularies. Vocabularies that are absent
 * skip their test. */
#include "base/fs.h"
#include "gen_files.h"
#include "gen_gguf.h"
#include "model/tokenizer_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN "tests/golden/tokenizer.json"
#define VOCAB "../shared/data/models/vocab/ggml-vocab-"

enum { MAX_IDS = 8192 };
static int32_t ids[MAX_IDS];

struct opened {
    struct kvg_gguf g;
    struct kvg_tokenizer *t;
};

static void open_file(struct opened *o, const char *path)
{
    struct kvg_err err = {0};
    if (kvg_gguf_open(&o->g, path, &err) || kvg_tokenizer_open(&o->t, &o->g, &err))
        fail_msg("%s", err.msg);
}

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

static void check_ids(const struct kvg_tokenizer *t, const char *what, const char *text, size_t n,
                      int flags, const json_t *want)
{
    struct kvg_err err = {0};
    size_t n_ids;
    if (kvg_tokenizer_encode(t, text, n, flags, ids, MAX_IDS, &n_ids, &err))
        fail_msg("%s: %s", what, err.msg);
    int same = n_ids == json_array_size(want);
    for (size_t i = 0; same && i < n_ids; i++)
        same = ids[i] == json_integer_value(json_array_get(want, i));
    if (same)
        return;
    fprintf(stderr, "got:");
    for (size_t i = 0; i < n_ids; i++)
        fprintf(stderr, " %d", ids[i]);
    char *dump = json_dumps(want, JSON_COMPACT);
    fprintf(stderr, "\nwant: %s\n", dump);
    free(dump);
    fail_msg("%s: other ids for '%s'", what, text);
}

/* All golden texts of one vocabulary, plain and, where the golden has them, with control tokens. */
static void check_golden(const struct kvg_tokenizer *t, const char *name, int round_trip)
{
    json_t *golden = gen_json(GOLDEN);
    assert_non_null(golden);
    json_t *texts = json_object_get(golden, "texts"), *mine = json_object_get(golden, name);
    json_t *plain = json_object_get(mine, "plain"), *special = json_object_get(mine, "special");
    assert_true(json_array_size(texts) > 15);
    assert_int_equal(json_array_size(plain), json_array_size(texts));
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *s = json_string_value(json_array_get(texts, i));
        size_t n = json_string_length(json_array_get(texts, i)), n_ids;
        check_ids(t, name, s, n, 0, json_array_get(plain, i));
        if (special)
            check_ids(t, name, s, n, KVG_ENCODE_SPECIAL, json_array_get(special, i));
        struct kvg_str back = {0};
        assert_int_equal(kvg_tokenizer_encode(t, s, n, 0, ids, MAX_IDS, &n_ids, NULL), 0);
        assert_int_equal(kvg_tokenizer_decode(t, ids, n_ids, &back, NULL), 0);
        if (round_trip && (back.len != n || (n && memcmp(back.s, s, n))))
            fail_msg("%s: '%s' comes back as '%s'", name, s, back.s);
        kvg_str_release(&back);
    }
    json_decref(golden);
}

/* Where words end, whatever a vocabulary makes of them. */
static void test_words(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum kvg_pretok pre;
    } kinds[] = {{"gpt-2", KVG_PRETOK_GPT2},
                 {"smollm", KVG_PRETOK_SMOLLM},
                 {"llama-bpe", KVG_PRETOK_LLAMA3}};
    json_t *golden = gen_json(GOLDEN);
    assert_non_null(golden);
    json_t *texts = json_object_get(golden, "texts"), *words = json_object_get(golden, "words");
    for (size_t k = 0; k < 3 * json_array_size(texts); k++) {
        const json_t *text = json_array_get(texts, k / 3);
        const json_t *want = json_array_get(json_object_get(words, kinds[k % 3].name), k / 3);
        const char *s = json_string_value(text);
        size_t n = json_string_length(text), n_words = 0;
        for (size_t at = 0, end; at < n; at = end, n_words++) {
            end = kvg_pretok_next(kinds[k % 3].pre, s, n, at);
            if ((json_int_t)(end - at) != json_integer_value(json_array_get(want, n_words)))
                fail_msg("%s: word %zu of '%s' has %zu bytes", kinds[k % 3].name, n_words, s,
                         end - at);
        }
        assert_int_equal(n_words, json_array_size(want));
    }
    json_decref(golden);
}

static const char **strings(const json_t *a)
{
    const char **v = calloc(json_array_size(a), sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < json_array_size(a); i++)
        v[i] = json_string_value(json_array_get(a, i));
    return v;
}

static void test_llama_bpe(void **state)
{
    (void)state;
    json_t *golden = gen_json(GOLDEN);
    assert_non_null(golden);
    json_t *mine = json_object_get(golden, "llama-bpe"), *tokens = json_object_get(mine, "tokens");
    json_t *merges = json_object_get(mine, "merges"), *types = json_object_get(mine, "token_type");
    const char **token_v = strings(tokens), **merge_v = strings(merges);
    for (size_t i = 0; i < json_array_size(types); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(types, i));
    struct kvg_gguf_writer gen;
    struct opened o;
    kvg_gguf_writer_init(&gen);
    kvg_gguf_put_str(&gen, "tokenizer.ggml.model", "gpt2");
    kvg_gguf_put_str(&gen, "tokenizer.ggml.pre", "llama-bpe");
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.tokens", token_v, json_array_size(tokens));
    kvg_gguf_put_i32s(&gen, "tokenizer.ggml.token_type", ids, json_array_size(types));
    kvg_gguf_put_strs(&gen, "tokenizer.ggml.merges", merge_v, json_array_size(merges));
    open_gen(&o, &gen);
    free(token_v);
    free(merge_v);
    json_decref(golden);
    check_golden(o.t, "llama-bpe", 1);
    assert_int_equal(kvg_tokenizer_add_bos(o.t), 1);
    assert_int_equal(kvg_tokenizer_eot(o.t), kvg_tokenizer_find(o.t, "<|eot_id|>", 10));
    close_file(&o);
}

static void test_smollm(void **state)
{
    (void)state;
    char path[GEN_PATH_MAX];
    struct opened o;
    if (gen_model_file(path))
        skip();
    open_file(&o, path);
    /* Some bytes have no token in this vocabulary, so not every text comes back. */
    check_golden(o.t, "smollm", 0);
    assert_int_equal(kvg_tokenizer_n_vocab(o.t), 49152);
    assert_int_equal(kvg_tokenizer_eos(o.t), 2);
    assert_true(kvg_tokenizer_is_eog(o.t, 2) && kvg_tokenizer_is_eog(o.t, 0));
    assert_true(!kvg_tokenizer_is_eog(o.t, 1) && !kvg_tokenizer_is_eog(o.t, -1));
    assert_int_equal(kvg_tokenizer_add_bos(o.t), 0);
    close_file(&o);
}

/* The reference prompts: text and ids, control tokens spelled out. */
static void test_reference_prompts(void **state)
{
    (void)state;
    static const char *const cases[] = {"A", "B", "C"};
    char path[GEN_PATH_MAX], *text, *list;
    size_t n_text, n_list, n;
    struct opened o;
    if (gen_model_file(path) || !kvg_fs_is_dir("../shared/golden/kv"))
        skip();
    open_file(&o, path);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "../shared/golden/kv/%s/text.txt", cases[i]);
        assert_int_equal(kvg_fs_read(path, 1 << 20, &text, &n_text, NULL), 0);
        snprintf(path, sizeof path, "../shared/golden/kv/%s/tokens.txt", cases[i]);
        assert_int_equal(kvg_fs_read(path, 1 << 20, &list, &n_list, NULL), 0);
        assert_int_equal(
            kvg_tokenizer_encode(o.t, text, n_text, KVG_ENCODE_SPECIAL, ids, MAX_IDS, &n, NULL), 0);
        char *p = list;
        for (size_t k = 0; k < n; k++)
            assert_int_equal(ids[k], strtol(p, &p, 10));
        assert_int_equal(strspn(p, " \n"), strlen(p));
        free(text);
        free(list);
    }
    close_file(&o);
}

/* FILE.inp holds texts between marker lines, FILE.out a line of ids for each. */
static void check_conformance(const struct kvg_tokenizer *t, const char *vocab)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[GEN_PATH_MAX], *in, *out;
    size_t n_in, n_out, n, n_texts = 0;
    snprintf(path, sizeof path, "%s.inp", vocab);
    assert_int_equal(kvg_fs_read(path, 1 << 20, &in, &n_in, NULL), 0);
    snprintf(path, sizeof path, "%s.out", vocab);
    assert_int_equal(kvg_fs_read(path, 1 << 20, &out, &n_out, NULL), 0);
    char *line = out;
    for (const char *s = in, *end; s; s = end ? end + sizeof mark - 1 : NULL, n_texts++) {
        end = strstr(s, mark);
        size_t len = end ? (size_t)(end - s) : strlen(s);
        assert_int_equal(kvg_tokenizer_encode(t, s, len, 0, ids, MAX_IDS, &n, NULL), 0);
        for (size_t i = 0; i < n; i++) {
            char *next;
            if (strtol(line, &next, 10) != ids[i] || next == line)
                fail_msg("%s: text %zu, token %zu: %d", vocab, n_texts, i, ids[i]);
            line = next;
        }
        line += strspn(line, " ");
        assert_true(*line == '\n' || *line == 0);
        line += *line == '\n';
    }
    assert_true(n_texts > 40);
    free(in);
    free(out);
}

static void test_gpt2(void **state)
{
    (void)state;
    struct opened o;
    if (!kvg_fs_exists(VOCAB "gpt-2.gguf"))
        skip();
    open_file(&o, VOCAB "gpt-2.gguf");
    check_golden(o.t, "gpt-2", 1);
    check_conformance(o.t, VOCAB "gpt-2.gguf");
    close_file(&o);
}

static void test_phi3(void **state)
{
    (void)state;
    struct opened o;
    if (!kvg_fs_exists(VOCAB "phi-3.gguf"))
        skip();
    open_file(&o, VOCAB "phi-3.gguf");
    check_golden(o.t, "phi-3", 1);
    check_conformance(o.t, VOCAB "phi-3.gguf");
    close_file(&o);
}

static void test_stories(void **state)
{
    (void)state;
    static const char model[] = "../shared/data/models/stories260K.gguf";
    struct opened o;
    struct kvg_str back = {0};
    char *text;
    size_t n_text, n;
    if (!kvg_fs_exists(model))
        skip();
    open_file(&o, model);
    assert_int_equal(kvg_fs_read("../shared/data/models/stories260K.greedy-256.txt", 1 << 20, &text,
                                 &n_text, NULL),
                     0);
    assert_int_equal(kvg_tokenizer_encode(o.t, text, n_text, 0, ids, MAX_IDS, &n, NULL), 0);
    /* The text is 256 generated tokens and the line break of the program that printed it. */
    assert_in_range(n, 255, 258);
    assert_int_equal(kvg_tokenizer_decode(o.t, ids, n, &back, NULL), 0);
    assert_int_equal(back.len, n_text);
    assert_memory_equal(back.s, text, n_text);
    kvg_str_release(&back);
    free(text);
    close_file(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_llama_bpe),
        cmocka_unit_test(test_smollm),
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_stories),
        cmocka_unit_test(test_reference_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
