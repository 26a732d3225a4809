/* The forms of cached rows: KIVI's against a plain reference written here from the definition, the
 * row forms against their kernels, bytes reported against bytes touched. */
#include "gen_codec.h"
#include "kernel/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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
    unsigned char *b = gen_encode(&c, rows, n, d, &bytes);
    check_all_written(&c, rows, n, d);
    c.bytes(&c, n, d, &payload, &scales);
    assert_int_equal(payload, n * d * bits / 8);
    assert_int_equal(scales, n * d / group * 4);
    const char *const *levels = kvg_kernels_levels();
    for (size_t l = 0; levels[l]; l++) {
        c.decode(&c, kvg_kernels_get(levels[l]), 0, b + GEN_PAD, n, d, got);
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
            for (unsigned bits = 2; bits <= 8; bits *= 2) {
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
    for (unsigned bits = 2; bits <= 8; bits *= 2) {
        struct kvg_codec c;
        kvg_codec_kivi_k(&c, bits, 32);
        unsigned char *b = gen_encode(&c, rows, n, d, &bytes);
        c.decode(&c, kvg_kernels_get("ref"), 0, b + GEN_PAD, n, d, out);
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

/* ggml's row forms: eighths of a bit per value, bytes of scales per 32 values, levels between the
 * value farthest from zero and the other end (0: not uniform). */
static const struct row_form {
    enum kvg_type type;
    unsigned eighths, scale_bytes;
    int levels, minimum;
} row_forms[] = {{KVG_F32, 256, 0, 0, 0},   {KVG_F16, 128, 0, 0, 0},  {KVG_BF16, 128, 0, 0, 0},
                 {KVG_Q8_0, 68, 2, 127, 0}, {KVG_Q5_1, 48, 4, 31, 1}, {KVG_Q5_0, 44, 2, 16, 0},
                 {KVG_Q4_1, 40, 4, 15, 1},  {KVG_Q4_0, 36, 2, 8, 0},  {KVG_IQ4_NL, 36, 2, 0, 0}};
enum { ROW_FORMS = sizeof row_forms / sizeof *row_forms };

/* The codec is the kernel's form of each row: of its interleaved copy, turned if it says so. */
static void check_row_form(const struct row_form *f, size_t d, int inter, int turned,
                           const float *rows, size_t n)
{
    const struct kvg_kernels *k = kvg_kernels_get("ref");
    struct kvg_codec c;
    size_t bytes, payload, scales, rb = kvg_type_row_bytes(f->type, d);
    float tmp[128], back[128], want[128], got[16 * 128];
    unsigned char packed[128 * 4];
    kvg_codec_row(&c, f->type, inter);
    if (turned)
        kvg_codec_turn(&c);
    assert_int_equal(c.type, turned ? -1 : (int)f->type);
    unsigned char *b = gen_encode(&c, rows, n, d, &bytes);
    check_all_written(&c, rows, n, d);
    c.bytes(&c, n, d, &payload, &scales);
    assert_int_equal(bytes * 64, n * d * f->eighths);
    assert_int_equal(payload + scales, bytes);
    assert_int_equal(scales, n * d / 32 * f->scale_bytes);
    c.decode(&c, k, 0, b + GEN_PAD, n, d, got);
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < d; i++) /* the file's order: pairs side by side */
            tmp[i] = !inter ? rows[j * d + i] : rows[j * d + i / 2 + (i % 2 ? d / 2 : 0)];
        if (turned)
            k->hadamard(tmp, d, d == 96 ? 32 : d);
        k->encode[f->type](tmp, packed, d);
        assert_memory_equal(packed, b + GEN_PAD + j * rb, rb);
        k->decode[f->type](packed, back, d);
        if (turned)
            k->hadamard(back, d, d == 96 ? 32 : d);
        for (size_t i = 0; i < d; i++)
            want[inter ? i / 2 + (i % 2 ? d / 2 : 0) : i] = back[i];
        assert_memory_equal(want, got + j * d, d * sizeof *want);
    }
    if (f->type == KVG_F32 && !turned)
        assert_memory_equal(rows, got, n * d * sizeof *rows);
    free(b);
}

static void test_rows(void **state)
{
    (void)state;
    struct kvg_rng r = {3};
    for (size_t t = 0; t < ROW_FORMS; t++)
        for (size_t d = 32; d <= 128; d += 32) {
            float *rows = rows_new(&r, 11 * d);
            for (int how = 0; how < 4; how++)
                check_row_form(&row_forms[t], d, how & 1, how >> 1, rows, 11);
            free(rows);
        }
}

/* Uniform codes: half a step, a whole one at the end of the range that has no code of its own, and
 * the rounding of scale and minimum to f16. */
static void test_row_error(void **state)
{
    (void)state;
    const struct kvg_kernels *k = kvg_kernels_get("ref");
    struct kvg_rng r = {23};
    float x[32], out[32];
    unsigned char packed[32 * 4];
    for (int round = 0; round < 2000; round++)
        for (size_t t = 0; t < ROW_FORMS; t++) {
            const struct row_form *f = &row_forms[t];
            double lo = INFINITY, hi = -INFINITY, most = 0;
            fill(&r, x, 32);
            for (size_t i = 0; i < 32; i++) {
                lo = fmin(lo, (double)x[i]);
                hi = fmax(hi, (double)x[i]);
                most = fmax(most, fabs((double)x[i]));
            }
            k->encode[f->type](x, packed, 32);
            k->decode[f->type](packed, out, 32);
            double span = f->minimum ? hi - lo : most, step = span / (f->levels ? f->levels : 1);
            for (size_t i = 0; f->levels && i < 32; i++) {
                double v = (double)x[i],
                       end = f->minimum || f->levels == 127 ? 1 : 1 - 0.5 / f->levels;
                double tol = (fabs(v) > end * most && !f->minimum ? 1 : 0.5) * step;
                tol += 0x1p-11 * (span + (f->minimum ? fabs(lo) : 0)) + 0x1p-20 * most + 1e-6;
                if (!(fabs((double)out[i] - v) <= tol))
                    fail_msg("%s: %g becomes %g, the step is %g", kvg_type_info(f->type)->name, v,
                             (double)out[i], step);
            }
        }
}

/* ---- all codecs ---- */

enum { CODECS_MAX = 40 };

static size_t all_codecs(struct kvg_codec *out, size_t d)
{
    static float signs[512];
    size_t n = 0;
    for (size_t t = 0; t < ROW_FORMS; t++)
        for (int how = 0; how < (t < 3 ? 1 : 3); how++) {
            kvg_codec_row(&out[n], row_forms[t].type, how == 1);
            if (how == 2)
                kvg_codec_turn(&out[n]);
            n++;
        }
    for (unsigned bits = 2; bits <= 8; bits *= 2) {
        kvg_codec_kivi_k(&out[n++], bits, 32);
        kvg_codec_kivi_v(&out[n++], bits, 32);
    }
    for (int how = 0; how < 4; how++)
        kvg_codec_fp8(&out[n++], how & 1 ? KVG_FP8_E5M2 : KVG_FP8_E4M3, how >> 1);
    kvg_codec_turbo_signs(signs, d);
    for (unsigned bits = 1; bits <= 4; bits++)
        kvg_codec_turbo(&out[n++], bits, signs);
    assert_true(n <= CODECS_MAX);
    return n;
}

/* Any run of rows alone is decoded as it is among the others (of a group: any number of its first
 * rows), encoded alike, on every level. */
static void test_ranges(void **state)
{
    (void)state;
    enum { N = 32 };
    struct kvg_codec c[CODECS_MAX];
    struct kvg_rng r = {29};
    static float rows[N * 128], all[N * 128], part[N * 128 + 1];
    for (size_t d = 32; d <= 128; d += 32)
        for (size_t i = 0, n = all_codecs(c, d); i < n; i++) {
            size_t bytes, rb = kvg_codec_total_bytes(&c[i], c[i].group, d) / c[i].group;
            fill(&r, rows, N * d);
            unsigned char *b = gen_encode(&c[i], rows, N, d, &bytes), *alone = malloc(bytes);
            assert_non_null(alone);
            assert_int_equal(bytes, N * rb);
            c[i].decode(&c[i], kvg_kernels_get("ref"), 0, b + GEN_PAD, N, d, all);
            for (const char *const *l = kvg_kernels_levels(); *l; l++) {
                const struct kvg_kernels *k = kvg_kernels_get(*l);
                c[i].encode(&c[i], k, &(struct kvg_place){0}, rows, N, d, alone);
                assert_memory_equal(alone, b + GEN_PAD, bytes);
                for (size_t from = 0; from < (c[i].group > 1 ? 1 : N); from++) {
                    size_t m = 1 + (size_t)kvg_rng_below(&r, N - from);
                    part[m * d] = 77.0f;
                    c[i].decode(&c[i], k, 0, b + GEN_PAD + from * rb, m, d, part);
                    if (memcmp(part, all + from * d, m * d * sizeof *part))
                        fail_msg("%s: %s decodes rows %zu+%zu otherwise", c[i].name, *l, from, m);
                    assert_true(part[m * d] == 77.0f);
                }
            }
            free(b);
            free(alone);
        }
}

/* Rows that hold nothing, too much, or no numbers: no crash, zero stays zero, finite values within
 * the range of f16 scales stay finite. */
static void test_odd_rows(void **state)
{
    (void)state;
    enum { N = 32, D = 64 };
    static const float odd[] = {0.0f, -0.0f, 1e-45f, 1e-20f,   1e-7f,    6000.0f,
                                1e9f, 3e38f, NAN,    INFINITY, -INFINITY};
    struct kvg_codec c[CODECS_MAX];
    static float rows[N * D], out[N * D];
    size_t bytes;
    for (size_t i = 0, n = all_codecs(c, D); i < n; i++)
        for (size_t v = 0; v < sizeof odd / sizeof *odd; v++)
            for (int mixed = 0; mixed < 2; mixed++) {
                for (size_t j = 0; j < N * D; j++)
                    rows[j] = mixed && j % 3 ? 0.01f * (float)j : j % 2 ? odd[v] : -odd[v];
                free(gen_encode(&c[i], rows, N, D, &bytes));
                for (const char *const *l = kvg_kernels_levels(); *l; l++) {
                    const struct kvg_kernels *k = kvg_kernels_get(*l);
                    unsigned char *b = malloc(bytes);
                    assert_non_null(b);
                    c[i].encode(&c[i], k, &(struct kvg_place){0}, rows, N, D, b);
                    c[i].decode(&c[i], k, 0, b, N, D, out);
                    for (size_t j = 0; j < N * D; j++) {
                        if (!(isfinite(out[j]) || v > 5) || !(mixed || v > 1 || out[j] == 0))
                            fail_msg("%s, %s: %g becomes %g", c[i].name, *l, (double)rows[j],
                                     (double)out[j]);
                    }
                    free(b);
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

/* The channels of the mask come back, the others as 0; a short group takes the bytes of its rows.
 */
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
    unsigned char *b = malloc(bytes + GEN_PAD);
    assert_non_null(b);
    memset(b, GEN_GUARD, bytes + GEN_PAD);
    const char *const *levels = kvg_kernels_levels();
    for (size_t l = 0; levels[l]; l++) {
        const struct kvg_kernels *k = kvg_kernels_get(levels[l]);
        c.encode(&c, k, &(struct kvg_place){.channels = mask}, rows, n, d, b);
        for (size_t i = 0; i < GEN_PAD; i++)
            assert_int_equal(b[bytes + i], GEN_GUARD);
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
        cmocka_unit_test(test_kivi),       cmocka_unit_test(test_kivi_error),
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_row_error),
        cmocka_unit_test(test_ranges),     cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_interleave), cmocka_unit_test(test_masked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
