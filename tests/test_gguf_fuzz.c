/* Reading damaged GGUF files: truncation at every byte and a deterministic mutation fuzzer, through
 * the tokenizer. Meant for the build with sanitizers. */
#include "base/rng.h"
#include "gen_files.h"
#include "gen_gguf.h"
#include "model/tokenizer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[GEN_PATH_MAX];

static int make_path(void **state)
{
    (void)state;
    return gen_temp_file(path);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void put_file(const char *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), (ssize_t)n);
    close(fd);
}

static const uint64_t dims_2[2] = {32, 2};
static const char zeros[256];

/* Touches everything an opened file offers; the sum keeps the reads alive. */
static unsigned long touch(const struct kvg_gguf *g)
{
    unsigned long sum = 0;
    struct kvg_tokenizer *t;
    for (size_t i = 0; i < g->n_kv; i++)
        for (size_t k = 0; k < g->kv[i].bytes; k++)
            sum += g->kv[i].data[k];
    for (size_t i = 0; i < g->n_tensors; i++)
        for (size_t k = 0; k < g->tensors[i].bytes; k++)
            sum += g->tensors[i].data[k];
    if (!kvg_tokenizer_open(&t, g, NULL)) {
        static const char text[] = "It's 12 <|im_start|> \xff caf\xc3\xa9\n";
        int32_t ids[256];
        size_t n;
        struct kvg_str back = {0};
        if (!kvg_tokenizer_encode(t, text, sizeof text, 1, ids, 256, &n, NULL))
            assert_int_equal(kvg_tokenizer_decode(t, ids, n, &back, NULL), 0);
        sum += back.len;
        kvg_str_release(&back);
        kvg_tokenizer_close(t);
    }
    return sum;
}

/* A small file with a vocabulary of each kind in turn, and a tensor. */
static void fuzz_seed(struct kvg_str *file, int spm)
{
    struct kvg_gguf_writer g;
    static const char *const tokens[] = {
        "<unk>", "<s>", "\xe2\x96\x81", "a", "b", "\xe2\x96\x81\x61", "<0x0A>", "ab"};
    static const float scores[] = {0, 0, -1, -2, -3, -4, 0, -5};
    static const int32_t types[] = {2, 3, 1, 1, 1, 1, 6, 4};
    static const char *const words[] = {"a", "b", "ab", "abb", "<|im_start|>"};
    static const char *const merges[] = {"a b", "ab b"};
    static const int32_t word_types[] = {1, 1, 1, 1, 3};
    kvg_gguf_writer_init(&g);
    kvg_gguf_put_str(&g, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    kvg_gguf_put_strs(&g, "tokenizer.ggml.tokens", spm ? tokens : words, spm ? 8 : 5);
    kvg_gguf_put_i32s(&g, "tokenizer.ggml.token_type", spm ? types : word_types, spm ? 8 : 5);
    if (spm)
        kvg_gguf_put_f32s(&g, "tokenizer.ggml.scores", scores, 8);
    else
        kvg_gguf_put_strs(&g, "tokenizer.ggml.merges", merges, 2);
    kvg_gguf_put_u32(&g, "tokenizer.ggml.unknown_token_id", 0);
    kvg_gguf_put_tensor(&g, "w", KVG_Q8_0, 2, dims_2, zeros, 68);
    kvg_gguf_writer_finish(&g, file);
    kvg_gguf_writer_release(&g);
}

static void test_truncation(void **state)
{
    (void)state;
    for (int spm = 0; spm < 2; spm++) {
        struct kvg_str file = {0};
        struct kvg_gguf g;
        struct kvg_err err = {0};
        fuzz_seed(&file, spm);
        put_file(file.s, file.len);
        assert_int_equal(kvg_gguf_open(&g, path, &err), 0);
        size_t needed = (size_t)(g.tensors[0].data - g.map.data) + g.tensors[0].bytes;
        assert_true(touch(&g) > 0);
        kvg_gguf_close(&g);
        for (size_t n = needed - 1; n > 0; n--) {
            assert_int_equal(truncate(path, (off_t)n), 0);
            assert_int_equal(kvg_gguf_open(&g, path, &err), KVG_EFORMAT);
            assert_non_null(strstr(err.msg, path));
        }
        kvg_str_release(&file);
    }
}

static void mutate(struct kvg_rng *r, char *p, size_t n)
{
    static const unsigned char nasty[] = {0, 1, 2, 4, 8, 9, 0x7f, 0x80, 0xff};
    size_t n_edits = 1 + kvg_rng_below(r, 4);
    for (size_t i = 0; i < n_edits; i++) {
        size_t at = kvg_rng_below(r, n), run = kvg_rng_below(r, 4) ? 1 : 1 + kvg_rng_below(r, 8);
        for (size_t k = at; k < at + run && k < n; k++)
            p[k] = (char)(kvg_rng_below(r, 2) ? nasty[kvg_rng_below(r, sizeof nasty)]
                                              : kvg_rng_below(r, 256));
    }
}

static void test_fuzz(void **state)
{
    (void)state;
    struct kvg_rng r = {20261122};
    size_t n_opened = 0, n_refused = 0;
    for (int i = 0; i < 6000; i++) {
        struct kvg_str file = {0};
        struct kvg_gguf g;
        struct kvg_err err = {0};
        fuzz_seed(&file, i & 1);
        mutate(&r, file.s, file.len);
        put_file(file.s, file.len);
        int rc = kvg_gguf_open(&g, path, &err);
        if (rc) {
            assert_true(err.code == rc && err.msg[0]);
            n_refused++;
        } else {
            touch(&g);
            kvg_gguf_close(&g);
            n_opened++;
        }
        kvg_str_release(&file);
    }
    /* Both sides must be exercised, or the fuzzer tests nothing. */
    assert_true(n_opened > 300 && n_refused > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_truncation, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_fuzz, make_path, remove_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
