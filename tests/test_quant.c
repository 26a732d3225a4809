/* Packed blocks against golden files (see golden/make_quant_goldens.py), f16 conversions, and the
 * decode and encode of every CPU level against the reference, bit for bit. */
#include "base/fs.h"
#include "base/rng.h"
#include "kernel/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const enum kvg_type all_types[] = {KVG_F32,  KVG_F16,  KVG_BF16, KVG_Q8_0,
                                          KVG_Q4_0, KVG_Q4_1, KVG_Q5_0, KVG_Q5_1,
                                          KVG_Q4_K, KVG_Q5_K, KVG_Q6_K, KVG_IQ4_NL};
static const enum kvg_type store_types[] = {KVG_F32,  KVG_F16,  KVG_BF16, KVG_Q8_0,  KVG_Q5_0,
                                            KVG_Q5_1, KVG_Q4_0, KVG_Q4_1, KVG_IQ4_NL};
enum {
    N_ALL = sizeof all_types / sizeof *all_types,
    N_STORE = sizeof store_types / sizeof *store_types
};

static enum kvg_type type_by_name(const char *name)
{
    for (size_t i = 0; i < N_ALL; i++)
        if (!strcmp(kvg_type_info(all_types[i])->name, name))
            return all_types[i];
    fail_msg("unknown type '%s' in a golden file", name);
    return KVG_F32;
}

static size_t hex_decode(const char *s, uint8_t *out, size_t cap)
{
    size_t n = strlen(s) / 2;
    assert_true(n <= cap);
    for (size_t i = 0; i < n; i++) {
        char pair[3] = {s[2 * i], s[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return n;
}

/* Calls fn for each line "type, in, out" of a golden file and counts the lines. */
static size_t golden_each(const char *path,
                          void (*fn)(enum kvg_type type, const uint8_t *in, size_t n_in,
                                     const uint8_t *out, size_t n_out))
{
    static uint8_t in[1 << 14], out[1 << 14];
    struct kvg_err err;
    char *text, *save = NULL, *field = NULL;
    size_t size, lines = 0;
    assert_int_equal(kvg_fs_read(path, 1 << 20, &text, &size, &err), 0);
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save), lines++) {
        enum kvg_type type = type_by_name(strtok_r(l, "\t", &field));
        size_t n_in = hex_decode(strtok_r(NULL, "\t", &field), in, sizeof in);
        size_t n_out = hex_decode(strtok_r(NULL, "\t", &field), out, sizeof out);
        fn(type, in, n_in, out, n_out);
    }
    free(text);
    return lines;
}

static void check_decode(enum kvg_type type, const uint8_t *in, size_t n_in, const uint8_t *out,
                         size_t n_out)
{
    float got[1024];
    assert_true(n_out <= sizeof got);
    assert_int_equal(kvg_type_row_bytes(type, n_out / 4), n_in);
    for (const char *const *l = kvg_kernels_levels(); *l; l++) {
        memset(got, 0xff, sizeof got);
        kvg_kernels_get(*l)->decode[type](in, got, n_out / 4);
        if (memcmp(got, out, n_out))
            fail_msg("%s decode of %s differs from the golden", *l, kvg_type_info(type)->name);
    }
}

static void check_encode(enum kvg_type type, const uint8_t *in, size_t n_in, const uint8_t *out,
                         size_t n_out)
{
    float x[32];
    uint8_t got[128];
    assert_true(n_in == sizeof x);
    memcpy(x, in, n_in);
    for (const char *const *l = kvg_kernels_levels(); *l; l++) {
        memset(got, 0xff, sizeof got);
        kvg_kernels_get(*l)->encode[type](x, got, 32);
        if (memcmp(got, out, n_out))
            fail_msg("%s encode of %s differs from the golden", *l, kvg_type_info(type)->name);
    }
}

static void test_goldens(void **state)
{
    (void)state;
    assert_int_equal(golden_each("tests/golden/quant/decode.tsv", check_decode), N_ALL);
    assert_true(golden_each("tests/golden/quant/encode.tsv", check_encode) >= 64);
}

static void test_type_info(void **state)
{
    (void)state;
    assert_null(kvg_type_info(4));
    assert_null(kvg_type_info(KVG_TYPE_N));
    assert_null(kvg_type_info(UINT32_MAX));
    assert_string_equal(kvg_type_info(KVG_Q4_1)->name, "q4_1");
    assert_int_equal(kvg_type_row_bytes(KVG_Q4_1, 576), 360);
    assert_int_equal(kvg_type_row_bytes(KVG_Q8_0, 64), 68);
    assert_int_equal(sizeof(struct kvg_block_q4_0), kvg_type_info(KVG_Q4_0)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q4_1), kvg_type_info(KVG_Q4_1)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q5_0), kvg_type_info(KVG_Q5_0)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q5_1), kvg_type_info(KVG_Q5_1)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_iq4_nl), kvg_type_info(KVG_IQ4_NL)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q8_0), kvg_type_info(KVG_Q8_0)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q4_k), kvg_type_info(KVG_Q4_K)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q5_k), kvg_type_info(KVG_Q5_K)->block_bytes);
    assert_int_equal(sizeof(struct kvg_block_q6_k), kvg_type_info(KVG_Q6_K)->block_bytes);
}

/* The value of a half from its definition. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -v : v;
}

static void test_f16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = kvg_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            assert_true(h & 1023 ? isnan(f) : isinf(f));
            continue;
        }
        assert_true((double)f == half_value((uint16_t)h));
        assert_int_equal(kvg_f32_to_f16(f), h);
        if ((h & 0x7fff) == 0x7bff)
            continue;
        /* Half way to the next half: to the even one; just beside it: to the near one. */
        float mid = (float)((half_value((uint16_t)h) + half_value((uint16_t)(h + 1))) / 2);
        assert_int_equal(kvg_f32_to_f16(mid), h + (h & 1));
        assert_int_equal(kvg_f32_to_f16(nextafterf(mid, 0.0f)), h);
        assert_int_equal(kvg_f32_to_f16(nextafterf(mid, mid * 4.0f)), h + 1);
    }
    assert_int_equal(kvg_f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(kvg_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(kvg_f32_to_f16(-3e38f), 0xfc00);
    assert_int_equal(kvg_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(kvg_f32_to_f16(NAN) & 0x7c00, 0x7c00);
    assert_int_not_equal(kvg_f32_to_f16(NAN) & 0x3ff, 0);
}

/* A float of any magnitude below 2^top, subnormals included; some zeros. */
static float any_float(struct kvg_rng *r, int top)
{
    if (kvg_rng_below(r, 8) == 0)
        return 0.0f;
    int e = (int)kvg_rng_below(r, (uint64_t)(top + 149)) - 149;
    float v = ldexpf((float)(1.0 + kvg_rng_unit(r)), e);
    return kvg_rng_next(r) & 1 ? -v : v;
}

/* Blocks of every character: one scale, all scales, subnormal, huge, ties, constants. */
static void fill(struct kvg_rng *r, float *x, size_t n)
{
    static const int top[] = {127, 8, -100, -126, -140};
    uint64_t kind = kvg_rng_below(r, 9);
    float scale = any_float(r, 60);
    for (size_t i = 0; i < n; i++)
        if (kind < 5)
            x[i] = any_float(r, top[kind]);
        else if (kind < 7)
            x[i] = (float)(kvg_rng_unit(r) - 0.5) * scale;
        else if (kind == 7)
            x[i] = (float)((int)kvg_rng_below(r, 509) - 254) * 0.5f;
        else
            x[i] = kvg_rng_next(r) & 1 ? scale : -scale;
}

static void test_encode_levels(void **state)
{
    (void)state;
    enum { N = 96, GUARD = 16 };
    struct kvg_rng r = {7};
    float x[N + 1];
    uint8_t want[N * 4 + GUARD], got[N * 4 + GUARD];
    for (int round = 0; round < 3000; round++) {
        size_t n = 32 * (size_t)kvg_rng_below(&r, 4);
        float *src = x + (round & 1);
        for (size_t b = 0; b < n; b += 32)
            fill(&r, src + b, 32);
        for (size_t t = 0; t < N_STORE; t++) {
            memset(want, 0xa5, sizeof want);
            kvg_kernels_ref()->encode[store_types[t]](src, want, n);
            for (const char *const *l = kvg_kernels_levels(); *l; l++) {
                memset(got, 0xa5, sizeof got);
                kvg_kernels_get(*l)->encode[store_types[t]](src, got, n);
                if (memcmp(got, want, sizeof got))
                    fail_msg("%s encode of %s, round %d", *l, kvg_type_info(store_types[t])->name,
                             round);
            }
        }
    }
}

/* Any finite bytes: exponents of the f16 fields are kept below the largest. */
static void random_blocks(struct kvg_rng *r, enum kvg_type type, uint8_t *b, size_t n_bytes)
{
    const struct kvg_type_info *t = kvg_type_info(type);
    for (size_t i = 0; i < n_bytes; i++)
        b[i] = (uint8_t)kvg_rng_next(r);
    int two = type == KVG_Q4_1 || type == KVG_Q5_1 || type == KVG_Q4_K || type == KVG_Q5_K;
    for (size_t i = 0; i + t->block_bytes <= n_bytes; i += t->block_bytes) {
        size_t last = type == KVG_Q6_K ? 208u : 0u;
        b[i + last + 1] &= 0xbb;
        if (two)
            b[i + 3] &= 0xbb;
        if (type == KVG_F32)
            b[i + 3] &= 0xbf;
    }
}

static void test_decode_levels(void **state)
{
    (void)state;
    enum { N = 1024 };
    static uint8_t raw[N * 4 + 1];
    static float want[N + 8], got[N + 9];
    struct kvg_rng r = {11};
    for (int round = 0; round < 60; round++)
        for (size_t t = 0; t < N_ALL; t++) {
            enum kvg_type type = all_types[t];
            size_t elems = kvg_type_info(type)->block_elems;
            size_t n = (size_t)kvg_rng_below(&r, N / elems < 70 ? N / elems + 1 : 70) * elems;
            uint8_t *src = raw + (round & 1);
            random_blocks(&r, type, src, kvg_type_row_bytes(type, n));
            memset(want, 0xa5, sizeof want);
            kvg_kernels_ref()->decode[type](src, want, n);
            for (const char *const *l = kvg_kernels_levels(); *l; l++) {
                memset(got, 0xa5, sizeof got);
                kvg_kernels_get(*l)->decode[type](src, got + 1, n);
                if (memcmp(got + 1, want, sizeof want))
                    fail_msg("%s decode of %s, n %zu", *l, kvg_type_info(type)->name, n);
            }
        }
}

/* Packed codes of every width: each code in its place, and the levels alike. */
static void test_codes_levels(void **state)
{
    (void)state;
    enum { ROWS = 5, D = 96 };
    struct kvg_rng r = {13};
    uint8_t raw[ROWS * 512 + 1], *b = raw + 1;
    float want[ROWS * D], got[ROWS * D + 1];
    for (int round = 0; round < 200; round++) {
        unsigned bits = 2u << round % 3;
        size_t d = 32 * (1 + (size_t)kvg_rng_below(&r, 3)), row_bytes = d * bits / 8 + 12;
        int shared = round / 3 % 2;
        for (size_t i = 0; i < sizeof raw; i++)
            raw[i] = (uint8_t)(kvg_rng_next(&r) & 0xbb); /* no f16 of the largest exponent */
        struct kvg_affine a = {.bits = bits,
                               .codes = b + (shared ? 0 : 12),
                               .scale = b + (shared ? ROWS * row_bytes : 0),
                               .zero = b + (shared ? ROWS * row_bytes + 2 * D : 6),
                               .row_bytes = row_bytes,
                               .scale_step = shared ? 0 : row_bytes,
                               .share = shared ? 1 : 32};
        assert_true(ROWS * row_bytes + 4 * D < sizeof raw);
        for (size_t i = 0; i < ROWS * d; i++) {
            size_t j = i / d, c = i % d, at = (shared ? c : c / 32) * 2;
            const uint8_t *row = b + j * row_bytes;
            unsigned byte = row[(shared ? 0 : 12) + c * bits / 8];
            float code = (float)(byte >> c * bits % 8 & ((1u << bits) - 1));
            const uint8_t *s = shared ? b + ROWS * row_bytes : row;
            float scale = kvg_quant_f16(s + at),
                  zero = kvg_quant_f16(s + (shared ? 2 * D : 6) + at);
            want[i] = zero + code * scale;
        }
        for (const char *const *l = kvg_kernels_levels(); *l; l++) {
            memset(got, 0xff, sizeof got);
            kvg_kernels_get(*l)->affine(&a, ROWS, d, got + 1);
            if (memcmp(got + 1, want, ROWS * d * sizeof *want))
                fail_msg("%s affine of %u bits, %zu channels", *l, bits, d);
        }
    }
}

static void test_lookup(void **state)
{
    (void)state;
    enum { N = 128 };
    struct kvg_rng r = {17};
    float book[16], got[N + 2];
    uint8_t codes[N / 2 + 1];
    for (int round = 0; round < 200; round++) {
        unsigned bits = 1 + (unsigned)round % 4, q[N];
        size_t n = 32 * (size_t)kvg_rng_below(&r, 5);
        float scale = (float)kvg_rng_unit(&r);
        for (size_t i = 0; i < 16; i++)
            book[i] = (float)kvg_rng_unit(&r) - 0.5f;
        memset(codes, 0, sizeof codes);
        for (size_t i = 0; i < n; i++) { /* bit by bit */
            q[i] = (unsigned)kvg_rng_below(&r, 1u << bits);
            for (size_t k = 0; k < bits; k++) {
                size_t bit = i * bits + k;
                codes[1 + bit / 8] |= (uint8_t)((q[i] >> k & 1) << bit % 8);
            }
        }
        for (const char *const *l = kvg_kernels_levels(); *l; l++) {
            memset(got, 0xff, sizeof got);
            kvg_kernels_get(*l)->lookup(bits, codes + 1, book, scale, got + 1, n);
            assert_true(isnan(got[0]) && isnan(got[n + 1]));
            for (size_t i = 0; i < n; i++)
                if (!(got[i + 1] == book[q[i]] * scale))
                    fail_msg("%s lookup of %u bits at %zu", *l, bits, i);
        }
    }
}

/* Against the matrix (-1)^popcount(i & j) / sqrt(block): every output is a sum of `block` terms in
 * log2(block) additions and one multiplication. */
static void test_hadamard(void **state)
{
    (void)state;
    enum { N = 512 };
    struct kvg_rng r = {19};
    static float x[N], want[N], got[N + 2];
    for (size_t block = 32; block <= N; block *= 2)
        for (size_t n = block; n <= N; n += block) {
            double mass = 0;
            for (size_t i = 0; i < n; i++)
                x[i] = (float)(kvg_rng_unit(&r) - 0.5);
            memcpy(want, x, n * sizeof *x);
            kvg_kernels_ref()->hadamard(want, n, block);
            for (size_t i = 0; i < n; i++) {
                double sum = 0;
                mass = 0;
                for (size_t j = 0; j < block; j++) {
                    double t = (double)x[i / block * block + j] / sqrt((double)block);
                    sum += __builtin_popcountll(i % block & j) & 1 ? -t : t;
                    mass += fabs(t);
                }
                assert_true(fabs((double)want[i] - sum) <= 11 * 0x1p-24 * mass);
            }
            for (const char *const *l = kvg_kernels_levels(); *l; l++) {
                memset(got, 0xff, sizeof got);
                memcpy(got + 1, x, n * sizeof *x);
                kvg_kernels_get(*l)->hadamard(got + 1, n, block);
                assert_true(isnan(got[0]) && isnan(got[n + 1]));
                if (memcmp(got + 1, want, n * sizeof *want))
                    fail_msg("%s hadamard %zu, block %zu", *l, n, block);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_type_info),     cmocka_unit_test(test_f16),
        cmocka_unit_test(test_goldens),       cmocka_unit_test(test_encode_levels),
        cmocka_unit_test(test_decode_levels), cmocka_unit_test(test_codes_levels),
        cmocka_unit_test(test_lookup),        cmocka_unit_test(test_hadamard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
