/* The forms of cached rows: KIVI's against a plain reference written here from the definition, the
 * row forms against their kernels, bytes reported against bytes touched. */
#include "base/rng.h"
#include "cache/codec.h"
#include "kernel/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 0xa5, PAD = 96 };

static void fill(struct kvg_rng *r, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((kvg_rng_unit(r) - 0.5) * exp(6 * kvg_rng_unit(r) - 3));
}

static float *rows_new(struct kvg_rng *r, size_t n)
{
    float *v = malloc(n * sizeof *v);
    assert_non_null(v);
    fill(r, v, n);
    return v;
}

/* Encodes into a buffer of exactly the bytes reported, guarded on both sides. */
static unsigned char *encode(const struct kvg_codec *c, const float *rows, size_t n, size_t d,
                             size_t *bytes)
{
    *bytes = kvg_codec_total_bytes(c, n, d);
    unsigned char *b = malloc(*bytes + 2 * PAD);
    assert_non_null(b);
    memset(b, GUARD, *bytes + 2 * PAD);
    c->encode(c, kvg_kernels_get("ref"), &(struct kvg_place){0}, rows, n, d, b + PAD);
    for (size_t i = 0; i < PAD; i++) {
        assert_int_equal(b[i], GUARD);
        assert_int_equal(b[PAD + *bytes + i], GUARD);
    }
    return b;
}

/* Every reported byte is written: what lay there before must not matter. */
static void check_all_written(const struct kvg_codec *c, const float *rows, size_t n, size_t d)
{
    size_t bytes = kvg_codec_total_bytes(c, n, d);
    unsigned char *a = malloc(bytes), *b = malloc(bytes);
    assert_true(a && b);
    memset(a, 0x00, bytes);
    memset(b, 0xff, bytes);
    c->encode(c, kvg_kernels_get("ref"), &(struct kvg_place){0}, rows, n, d, a);
    c->encode(c, kvg_kernels_get("ref"), &(struct kvg_place){0}, rows, n, d, b);
    assert_memory_equal(a, b, bytes);
    free(a);
    free(b);
}

/* One group of KIVI, from the definition (Liu et al. 2024, section 3). */
static void affine_group(const float *x, size_t n, size_t stride, unsigned bits, float *out)
{
    double top = (double)((1u << bits) - 1);
    float lo = x[0], hi = x[0];
    for (size_t i = 1; i < n; i++) {
        lo = x[i * stride] < lo ? x[i * stride] : lo;
        hi = x[i * stride] > hi ? x[i * stride] : hi;
    }
    float scale = kvg_f16_to_f32(kvg_f32_to_f16((hi - lo) / (float)top));
    float zero = kvg_f16_to_f32(kvg_f32_to_f16(lo));
    for (size_t i = 0; i < n; i++) {
        float t = scale == 0 ? 0 : (x[i * stride] - zero) / scale;
        double low = floor((double)t), frac = (double)t - low, q = low;
        if (frac > 0.5 || (frac == 0.5 && fmod(low, 2) != 0))
            q = low + 1;
        q = q < 0 ? 0 : q > top ? top : q;
        out[i * stride] = zero + (float)q * scale;
    }
}

static void reference(int keys, unsigned bits, unsigned group, const float *rows, size_t n,
                      size_t d, float *out)
{
    if (keys) {
        for (size_t g = 0; g < n; g += group)
            for (size_t c = 0; c < d; c++)
                affine_group(rows + g * d + c, group, d, bits, out + g * d + c);
        return;
    }
    for (size_t j = 0; j < n; j++)
        for (size_t c = 0; c < d; c += group)
            affine_group(rows + j * d + c, group, 1, bits, out + j * d + c);
}

/* Rows that meet every branch: constant groups, exact ties between codes, one outlier. */
static void special_rows(float *rows, size_t n, size_t d)
{
    for (size_t j = 0; j < n; j++)
        for (size_t c = 0; c < d; c++) {
            size_t kind = (j / 8 + c / 32) % 3;
            rows[j * d + c] = kind == 0           ? 0.25f
                              : kind == 1         ? 0.5f * (float)((j + c) % 7)
                              : (j + c) % 31 == 0 ? 1000.0f
                                                  : 0.001f * (float)c;
        }
}

static void check_kivi(int keys, unsigned bits, unsigned group, size_t d, const float *rows)
{
    struct kvg_codec c;
    size_t n = keys ? group : 13, bytes, payload, scales;
    if (keys)
        kvg_codec_kivi_k(&c, bits, group);
    else
        kvg_codec_kivi_v(&c, bits, group);
    float *want = malloc(n * d * sizeof *want), *got = malloc(n * d * sizeof *got);
    assert_true(want && got);
    reference(keys, bits, group, rows, n, d, want);
    unsigned char *b = encode(&c, rows, n, d, &bytes);
    check_all_written(&c, rows, n, d);
    c.bytes(&c, n, d, &payload, &scales);
    assert_int_equal(payload, n * d * bits / 8);
    assert_int_equal(scales, n * d / group * 4);
    const char *const *levels = kvg_kernels_levels();
    for (size_t l = 0; levels[l]; l++) {
        c.decode(&c, kvg_kernels_get(levels[l]), 0, b + PAD, n, d, got);
        for (size_t i = 0; i < n * d; i++)
            assert_true(got[i] == want[i]);
    }
    free(b);
    free(want);
    free(got);
}

static void test_kivi(void **state)
{
    (void)state;
    static const unsigned groups[] = {8, 16, 32, 64};
    static const size_t widths[] = {32, 64, 128};
    struct kvg_rng r = {7};
    for (size_t w = 0; w < 3; w++) {
        size_t d = widths[w];
        float *rows = rows_new(&r, KVG_TILE_SLOTS * d);
        for (int special = 0; special < 2; special++) {
            for (unsigned bits = 2; bits <= 4; bits += 2) {
                for (size_t g = 0; g < 4; g++)
                    check_kivi(1, bits, groups[g], d, rows);
                check_kivi(0, bits, 32, d, rows);
            }
            special_rows(rows, KVG_TILE_SLOTS, d);
        }
        free(rows);
    }
}

/* Sealing twice what was decoded once changes a value by less than a code. */
static void test_kivi_error(void **state)
{
    (void)state;
    struct kvg_rng r = {11};
    size_t d = 64, n = 32, bytes;
    float *rows = rows_new(&r, n * d), *out = malloc(n * d * sizeof *out);
    for (unsigned bits = 2; bits <= 4; bits += 2) {
        struct kvg_codec c;
        kvg_codec_kivi_k(&c, bits, 32);
        unsigned char *b = encode(&c, rows, n, d, &bytes);
        c.decode(&c, kvg_kernels_get("ref"), 0, b + PAD, n, d, out);
        for (size_t ch = 0; ch < d; ch++) {
            float lo = INFINITY, hi = -INFINITY;
            for (size_t j = 0; j < n; j++) {
                lo = fminf(lo, rows[j * d + ch]);
                hi = fmaxf(hi, rows[j * d + ch]);
            }
            /* half a code, and the rounding of scale and zero to f16 */
            double step = (double)(hi - lo) / ((1u << bits) - 1);
            double tol = 0.5 * step + 0x1p-10 * ((double)(hi - lo) + fabs((double)lo)) + 1e-6;
            for (size_t j = 0; j < n; j++)
                assert_true(fabs((double)(rows[j * d + ch] - out[j * d + ch])) <= tol);
        }
        free(b);
    }
    free(rows);
    free(out);
}

/* Row forms: the codec is the kernel's form of each row (of its interleaved copy), bytes exact. */
static void test_rows(void **state)
{
    (void)state;
    static const enum kvg_type types[] = {KVG_F32, KVG_F16, KVG_Q8_0, KVG_Q4_0};
    const struct kvg_kernels *k = kvg_kernels_get("ref");
    struct kvg_rng r = {3};
    for (size_t t = 0; t < 4; t++) {
        for (size_t d = 32; d <= 128; d *= 2) {
            for (int inter = 0; inter < 2; inter++) {
                struct kvg_codec c;
                size_t n = 11, bytes, payload, scales, rb = kvg_type_row_bytes(types[t], d);
                float *rows = rows_new(&r, n * d), *got = malloc(n * d * sizeof *got);
                float tmp[128], back[128], want[128];
                unsigned char packed[128 * 4];
                kvg_codec_row(&c, types[t], inter);
                unsigned char *b = encode(&c, rows, n, d, &bytes);
                check_all_written(&c, rows, n, d);
                c.bytes(&c, n, d, &payload, &scales);
                assert_int_equal(bytes, n * rb);
                assert_int_equal(payload + scales, bytes);
                assert_int_equal(scales, t < 2 ? 0 : n * d / 32 * 2);
                c.decode(&c, k, 0, b + PAD, n, d, got);
                for (size_t j = 0; j < n; j++) {
                    for (size_t i = 0; i < d; i++) /* the file's order: pairs side by side */
                        tmp[i] =
                            !inter ? rows[j * d + i] : rows[j * d + i / 2 + (i % 2 ? d / 2 : 0)];
                    k->encode[types[t]](tmp, packed, d);
                    assert_memory_equal(packed, b + PAD + j * rb, rb);
                    k->decode[types[t]](packed, back, d);
                    for (size_t i = 0; i < d; i++)
                        want[inter ? i / 2 + (i % 2 ? d / 2 : 0) : i] = back[i];
                    assert_memory_equal(want, got + j * d, d * sizeof *want);
                }
                if (types[t] == KVG_F32)
                    assert_memory_equal(rows, got, n * d * sizeof *rows);
                free(b);
                free(rows);
                free(got);
            }
        }
    }
}

static void test_interleave(void **state)
{
    (void)state;
    struct kvg_rng r = {5};
    float a[128], b[128], c[128];
    for (size_t d = 2; d <= 128; d *= 2) {
        fill(&r, a, d);
        kvg_codec_interleave(a, b, d);
        for (size_t i = 0; i < d / 2; i++) {
            assert_true(b[2 * i] == a[i]);
            assert_true(b[2 * i + 1] == a[i + d / 2]);
        }
        kvg_codec_deinterleave(b, c, d);
        assert_memory_equal(a, c, d * sizeof *a);
    }
}

/* The channels of the mask come back, the others as 0; a short group takes the bytes of its rows. */
static void check_masked(enum kvg_type type, unsigned kept, size_t n, size_t d, struct kvg_rng *r)
{
    struct kvg_codec c;
    size_t bytes, payload, scales;
    uint32_t mask[4] = {0};
    float *rows = rows_new(r, n * d), *got = malloc(n * d * sizeof *got);
    assert_non_null(got);
    for (unsigned i = 0; i < kept;) {
        size_t ch = kvg_rng_below(r, d);
        i += !(mask[ch / 32] >> ch % 32 & 1);
        mask[ch / 32] |= 1u << ch % 32;
    }
    kvg_codec_masked(&c, type, kept);
    assert_true(c.masked && c.partial && c.group >= n);
    bytes = kvg_codec_total_bytes(&c, n, d);
    c.bytes(&c, n, d, &payload, &scales);
    assert_int_equal(payload, n * kept * (type == KVG_F16 ? 2 : 4));
    assert_int_equal(scales, (d + 31) / 32 * 4);
    unsigned char *b = malloc(bytes + PAD);
    assert_non_null(b);
    memset(b, GUARD, bytes + PAD);
    const char *const *levels = kvg_kernels_levels();
    for (size_t l = 0; levels[l]; l++) {
        const struct kvg_kernels *k = kvg_kernels_get(levels[l]);
        c.encode(&c, k, &(struct kvg_place){.channels = mask}, rows, n, d, b);
        for (size_t i = 0; i < PAD; i++)
            assert_int_equal(b[bytes + i], GUARD);
        assert_memory_equal(kvg_codec_mask(b), mask, (d + 31) / 32 * 4);
        c.decode(&c, k, 0, b, n, d, got);
        for (size_t i = 0; i < n * d; i++) {
            size_t ch = i % d;
            float x = type == KVG_F16 ? kvg_f16_to_f32(kvg_f32_to_f16(rows[i])) : rows[i];
            assert_true(got[i] == (mask[ch / 32] >> ch % 32 & 1 ? x : 0));
        }
    }
    free(b);
    free(rows);
    free(got);
}

static void test_masked(void **state)
{
    (void)state;
    static const unsigned kept[] = {1, 7, 19, 32};
    static const size_t widths[] = {32, 48, 64, 128};
    struct kvg_rng r = {13};
    for (size_t w = 0; w < 4; w++)
        for (size_t i = 0; i < 4; i++)
            for (size_t n = 1; n <= 64; n += 21) {
                check_masked(KVG_F32, kept[i], n, widths[w], &r);
                check_masked(KVG_F16, kept[i], n, widths[w], &r);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kivi),
        cmocka_unit_test(test_kivi_error),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_interleave),
        cmocka_unit_test(test_masked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
