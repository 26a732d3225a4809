/* Reading GGUF: values, tensors, and every kind of damage by name. */
#include "gen_files.h"
#include "gen_gguf.h"
#include "model/gguf.h"

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

/* A file with one value of each kind, arrays, and two tensors. */
static void small_file(struct kvg_gguf_writer *g)
{
    static const char *const words[] = {"a", "", "\xc3\xa9t\xc3\xa9"};
    static const float scores[] = {0.5f, -1.0f};
    static const int32_t types[] = {1, -3, 6};
    static const float data[64] = {1.0f, 2.0f};
    static const uint64_t dims[2] = {32, 2};
    kvg_gguf_writer_init(g);
    kvg_gguf_put_u32(g, "n", 7);
    kvg_gguf_put_f32(g, "eps", 1e-5f);
    kvg_gguf_put_bool(g, "flag", 1);
    kvg_gguf_put_str(g, "name", "tiny");
    kvg_gguf_put_strs(g, "words", words, 3);
    kvg_gguf_put_f32s(g, "scores", scores, 2);
    kvg_gguf_put_i32s(g, "types", types, 3);
    kvg_gguf_put_raw(g, "big", KVG_GGUF_U64, "\0\0\0\0\1\0\0\0", 8);
    kvg_gguf_put_raw(g, "minus", KVG_GGUF_I8, "\xff", 1);
    kvg_gguf_put_raw(g, "short", KVG_GGUF_U16, "\x34\x12", 2);
    kvg_gguf_put_raw(g, "inf", KVG_GGUF_F32, "\0\0\x80\x7f", 4);
    kvg_gguf_put_tensor(g, "w", KVG_F32, 2, dims, data, sizeof data);
    kvg_gguf_put_tensor(g, "odd", 23, 2, dims, data, 36); /* iq4_xs: no kernel reads it */
}

static void test_values(void **state)
{
    (void)state;
    struct kvg_gguf_writer gen;
    struct kvg_gguf g;
    struct kvg_err err = {0};
    struct kvg_gguf_str s;
    const struct kvg_gguf_kv *a;
    uint32_t u = 0;
    float f = 0;
    int b = 0;
    for (uint32_t version = 2; version <= 3; version++) {
        small_file(&gen);
        gen.version = version;
        assert_int_equal(kvg_gguf_writer_save(&gen, path, NULL), 0);
        kvg_gguf_writer_release(&gen);
        assert_int_equal(kvg_gguf_open(&g, path, &err), 0);
        assert_int_equal(g.version, version);
        assert_int_equal(kvg_gguf_u32(&g, "n", &u, &err), 0);
        assert_int_equal(u, 7);
        assert_int_equal(kvg_gguf_u32(&g, "short", &u, &err), 0);
        assert_int_equal(u, 0x1234);
        assert_int_equal(kvg_gguf_f32(&g, "eps", &f, &err), 0);
        assert_true(f == 1e-5f);
        assert_int_equal(kvg_gguf_bool(&g, "flag", &b, &err), 0);
        assert_int_equal(b, 1);
        assert_int_equal(kvg_gguf_str(&g, "name", &s, &err), 0);
        assert_int_equal(s.n, 4);
        assert_memory_equal(s.s, "tiny", 4);
        assert_int_equal(kvg_gguf_array(&g, "words", KVG_GGUF_STR, &a, &err), 0);
        size_t at = 0;
        static const size_t lengths[] = {1, 0, 5};
        assert_int_equal(a->n, 3);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(kvg_gguf_array_next_str(a, &at).n, lengths[i]);
        assert_int_equal(kvg_gguf_array(&g, "scores", KVG_GGUF_F32, &a, &err), 0);
        assert_true(a->n == 2 && kvg_gguf_array_f32(a, 1) == -1.0f);
        assert_int_equal(kvg_gguf_array(&g, "types", KVG_GGUF_I32, &a, &err), 0);
        assert_true(a->n == 3 && kvg_gguf_array_i32(a, 1) == -3);
        kvg_gguf_close(&g);
    }
}

static void test_missing_and_wrong(void **state)
{
    (void)state;
    struct kvg_gguf_writer gen;
    struct kvg_gguf g;
    struct kvg_err err = {0};
    struct kvg_gguf_str s;
    const struct kvg_gguf_kv *a;
    uint32_t u = 99;
    float f = 99;
    int b = 99;
    small_file(&gen);
    assert_int_equal(kvg_gguf_writer_save(&gen, path, NULL), 0);
    kvg_gguf_writer_release(&gen);
    assert_int_equal(kvg_gguf_open(&g, path, &err), 0);
    assert_int_equal(kvg_gguf_u32(&g, "none", &u, &err), KVG_ENONE);
    assert_non_null(strstr(err.msg, "metadata key 'none' is missing"));
    assert_int_equal(kvg_gguf_f32(&g, "none", &f, &err), KVG_ENONE);
    assert_int_equal(kvg_gguf_bool(&g, "none", &b, &err), KVG_ENONE);
    assert_int_equal(kvg_gguf_str(&g, "none", &s, &err), KVG_ENONE);
    assert_int_equal(kvg_gguf_array(&g, "none", KVG_GGUF_I32, &a, &err), KVG_ENONE);
    static const char *const not_u32[] = {"eps", "flag", "name", "types", "big", "minus"};
    for (size_t i = 0; i < sizeof not_u32 / sizeof *not_u32; i++)
        assert_int_equal(kvg_gguf_u32(&g, not_u32[i], &u, &err), KVG_EFORMAT);
    assert_int_equal(kvg_gguf_f32(&g, "n", &f, &err), KVG_EFORMAT);
    assert_int_equal(kvg_gguf_f32(&g, "inf", &f, &err), KVG_EFORMAT);
    assert_int_equal(kvg_gguf_bool(&g, "n", &b, &err), KVG_EFORMAT);
    assert_int_equal(kvg_gguf_str(&g, "words", &s, &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "is an array of string, expected a string"));
    assert_int_equal(kvg_gguf_array(&g, "types", KVG_GGUF_F32, &a, &err), KVG_EFORMAT);
    assert_true(u == 99 && f == 99.0f && b == 99);
    kvg_gguf_close(&g);
}

static void test_tensors(void **state)
{
    (void)state;
    struct kvg_gguf_writer gen;
    struct kvg_gguf g;
    struct kvg_err err = {0};
    const struct kvg_gguf_tensor *t;
    small_file(&gen);
    assert_int_equal(kvg_gguf_writer_save(&gen, path, NULL), 0);
    kvg_gguf_writer_release(&gen);
    assert_int_equal(kvg_gguf_open(&g, path, &err), 0);
    assert_int_equal(kvg_gguf_tensor(&g, "w", &t, &err), 0);
    assert_int_equal(t->bytes, 256);
    assert_true(t->n_dims == 2 && t->dims[0] == 32 && t->dims[1] == 2 && t->dims[2] == 1);
    assert_memory_equal(t->data, "\0\0\x80\x3f\0\0\0\x40", 8);
    assert_int_equal((size_t)(t->data - g.map.data) % 32, 0);
    /* A type nobody reads is an error only when the tensor is used. */
    assert_non_null(kvg_gguf_find_tensor(&g, "odd"));
    assert_int_equal(kvg_gguf_tensor(&g, "odd", &t, &err), KVG_EUNSUP);
    assert_non_null(strstr(err.msg, "type number 23"));
    assert_int_equal(kvg_gguf_tensor(&g, "none", &t, &err), KVG_EFORMAT);
    kvg_gguf_close(&g);
}

/* ---- damage ---- */

static const uint64_t dims_2[2] = {32, 2};
static const char zeros[256];

static void bad_key_twice(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_u32(g, "same", 1);
    kvg_gguf_put_u32(g, "same", 2);
}
static void bad_key_empty(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_u32(g, "", 1);
}
static void bad_type(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", 13, zeros, 8);
}
static void bad_bool(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", KVG_GGUF_BOOL, "\2", 1);
}
static void bad_nested(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", KVG_GGUF_ARRAY, "\x09\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0", 16);
}
static void bad_array_count(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", KVG_GGUF_ARRAY, "\x04\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12);
}
static void bad_array_long(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", KVG_GGUF_ARRAY, "\x04\0\0\0\xff\xff\xff\xff\0\0\0\0", 12);
}
static void bad_string_array(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", KVG_GGUF_ARRAY, "\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12);
}
static void bad_string(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_raw(g, "k", KVG_GGUF_STR, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
}
static void bad_alignment(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_u32(g, "general.alignment", 24);
}
static void bad_alignment_zero(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_u32(g, "general.alignment", 0);
}
static void bad_alignment_type(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_str(g, "general.alignment", "32");
}
static void bad_name_twice(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims_2, zeros, 256);
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims_2, zeros, 256);
}
static void bad_n_dims(struct kvg_gguf_writer *g)
{
    static const uint64_t dims[5] = {1, 1, 1, 1, 1};
    kvg_gguf_put_tensor(g, "t", KVG_F32, 5, dims, zeros, 4);
}
static void bad_no_dims(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_tensor(g, "t", KVG_F32, 0, dims_2, zeros, 4);
}
static void bad_dim_zero(struct kvg_gguf_writer *g)
{
    static const uint64_t dims[2] = {32, 0};
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims, zeros, 4);
}
static void bad_dims_overflow(struct kvg_gguf_writer *g)
{
    static const uint64_t dims[3] = {1u << 31, 1u << 31, 1u << 31};
    kvg_gguf_put_tensor(g, "t", KVG_F32, 3, dims, zeros, 4);
}
static void bad_bytes_overflow(struct kvg_gguf_writer *g)
{
    static const uint64_t dims[2] = {1u << 31, 1u << 31};
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims, zeros, 4);
}
static void bad_block(struct kvg_gguf_writer *g)
{
    static const uint64_t dims[2] = {48, 2};
    kvg_gguf_put_tensor(g, "t", KVG_Q8_0, 2, dims, zeros, 102);
}
static void bad_data_short(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims_2, zeros, 128);
}
static void bad_offset(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims_2, zeros, 256);
    memset(g->infos.s + g->infos.len - 8, 0xe0, 8);
}
static void bad_offset_alignment(struct kvg_gguf_writer *g)
{
    kvg_gguf_put_tensor(g, "t", KVG_F32, 2, dims_2, zeros, 256);
    g->infos.s[g->infos.len - 8] = 4;
}
static void bad_version(struct kvg_gguf_writer *g)
{
    g->version = 1;
}
static void bad_order(struct kvg_gguf_writer *g)
{
    g->version = 3u << 24;
}
static void bad_kv_count(struct kvg_gguf_writer *g)
{
    g->n_kv = UINT64_MAX;
}
static void bad_tensor_count(struct kvg_gguf_writer *g)
{
    g->n_tensors = UINT64_MAX;
}

static const struct {
    void (*make)(struct kvg_gguf_writer *g);
    int code;
    const char *says;
} damages[] = {
    {bad_key_twice, KVG_EFORMAT, "metadata key 'same': the name appears twice"},
    {bad_key_empty, KVG_EFORMAT, "a key of 0 bytes"},
    {bad_type, KVG_EFORMAT, "metadata key 'k': unknown value type 13"},
    {bad_bool, KVG_EFORMAT, "a bool is 2"},
    {bad_nested, KVG_EFORMAT, "arrays of arrays"},
    {bad_array_count, KVG_EFORMAT, "an array of 18446744073709551615 elements"},
    {bad_array_long, KVG_EFORMAT, "metadata key 'k' needs 17179869180 bytes at offset 49"},
    {bad_string_array, KVG_EFORMAT, "metadata key 'k' needs 8 bytes at offset 49"},
    {bad_string, KVG_EFORMAT, "metadata key 'k' needs 18446744073709551615 bytes"},
    {bad_alignment, KVG_EFORMAT, "24 is not a power of two"},
    {bad_alignment_zero, KVG_EFORMAT, "0 is not a power of two"},
    {bad_alignment_type, KVG_EFORMAT, "is string, expected an integer"},
    {bad_name_twice, KVG_EFORMAT, "tensor 't': the name appears twice"},
    {bad_n_dims, KVG_EFORMAT, "tensor 't': 5 dimensions"},
    {bad_no_dims, KVG_EFORMAT, "tensor 't': 0 dimensions"},
    {bad_dim_zero, KVG_EFORMAT, "tensor 't': dimension 1 is 0"},
    {bad_dims_overflow, KVG_EFORMAT, "tensor 't': dimension 2 is 0 or too large"},
    {bad_bytes_overflow, KVG_EFORMAT, "tensor 't'"},
    {bad_block, KVG_EFORMAT, "tensor 't': rows of 48 elements are not whole blocks of q8_0"},
    {bad_data_short, KVG_EFORMAT, "tensor 't' needs 256 bytes"},
    {bad_offset, KVG_EFORMAT, "tensor 't' needs"},
    {bad_offset_alignment, KVG_EFORMAT, "offset 4 is not a multiple"},
    {bad_version, KVG_EUNSUP, "GGUF version 1"},
    {bad_order, KVG_EUNSUP, "big-endian"},
    {bad_kv_count, KVG_EFORMAT, "metadata needs 8 bytes"},
    {bad_tensor_count, KVG_EFORMAT, "tensor: a name of 0 bytes"},
};

static void test_damage(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct kvg_gguf_writer gen;
        struct kvg_gguf g;
        struct kvg_err err = {0};
        kvg_gguf_writer_init(&gen);
        damages[i].make(&gen);
        assert_int_equal(kvg_gguf_writer_save(&gen, path, NULL), 0);
        kvg_gguf_writer_release(&gen);
        int rc = kvg_gguf_open(&g, path, &err);
        if (rc != damages[i].code || !strstr(err.msg, damages[i].says))
            fail_msg("damage %zu gives %d '%s', expected '%s'", i, rc, err.msg, damages[i].says);
        assert_non_null(strstr(err.msg, path));
        kvg_gguf_close(&g);
    }
}

static void test_not_gguf(void **state)
{
    (void)state;
    struct kvg_gguf g;
    struct kvg_err err = {0};
    put_file("hello, world", 12);
    assert_int_equal(kvg_gguf_open(&g, path, &err), KVG_EFORMAT);
    assert_non_null(strstr(err.msg, "not a GGUF model"));
    put_file("", 0);
    assert_int_equal(kvg_gguf_open(&g, path, &err), KVG_EFORMAT);
    assert_int_equal(kvg_gguf_open(&g, "/nonexistent/x.gguf", &err), KVG_EIO);
}

static void test_tiny_models(void **state)
{
    (void)state;
    static const enum kvg_type forms[] = {KVG_F32, KVG_Q8_0, KVG_Q4_1};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct gen_llama cfg = gen_llama_default();
        struct kvg_gguf g;
        struct kvg_err err = {0};
        const struct kvg_gguf_tensor *t;
        cfg.type = forms[i];
        cfg.tied = i > 0;
        assert_int_equal(gen_llama_write(&cfg, path), 0);
        assert_int_equal(kvg_gguf_open(&g, path, &err), 0);
        assert_int_equal(kvg_gguf_tensor(&g, "blk.1.ffn_down.weight", &t, &err), 0);
        assert_true(t->dims[0] == cfg.n_ff && t->dims[1] == cfg.n_embd);
        assert_int_equal(t->bytes, cfg.n_embd * kvg_type_row_bytes(forms[i], cfg.n_ff));
        assert_int_equal(kvg_gguf_find_tensor(&g, "output.weight") == NULL, cfg.tied);
        kvg_gguf_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_missing_and_wrong, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_tensors, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_damage, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_not_gguf, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_tiny_models, make_path, remove_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
