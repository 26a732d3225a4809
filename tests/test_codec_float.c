/* The codecs that are no uniform steps: TurboQuant against the known losses of Lloyd and Max, 8-bit
 * floats against their specification, and what turning rows and uneven steps are for. */
#include "gen_codec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Mean squared error of a codec on n rows relative to their squares. */
static double relative_error(const struct kvg_codec *c, const float *rows, size_t n, size_t d)
{
    double error = 0, square = 0;
    size_t bytes;
    unsigned char *b = gen_encode(c, rows, n, d, &bytes);
    float *out = malloc(n * d * sizeof *out);
    assert_non_null(out);
    c->decode(c, kvg_kernels_get("auto"), 0, b + GEN_PAD, n, d, out);
    for (size_t i = 0; i < n * d; i++) {
        double e = (double)out[i] - (double)rows[i];
        error += e * e;
        square += (double)rows[i] * (double)rows[i];
    }
    free(out);
    free(b);
    return error / square;
}

/* Normal channels lose what Lloyd and Max say (Max 1960, table I), in exactly bits * d + 16 bits a
 * row; and any vector does, since it is turned first. */
static void test_turbo(void **state)
{
    (void)state;
    static const double loss[] = {0, 0.3634, 0.1175, 0.0346, 0.0095};
    enum { N = 512 };
    struct kvg_rng r = {31};
    for (size_t d = 64; d <= 128; d *= 2) {
        float *rows = malloc(N * d * sizeof *rows), signs[128];
        assert_non_null(rows);
        kvg_codec_turbo_signs(signs, d);
        for (unsigned bits = 1; bits <= 4; bits++) {
            struct kvg_codec c;
            size_t payload, scales;
            kvg_codec_turbo(&c, bits, signs);
            c.bytes(&c, N, d, &payload, &scales);
            assert_int_equal(payload, N * d * bits / 8);
            assert_int_equal(scales, N * 2);
            for (size_t i = 0; i < N * d; i++)
                rows[i] = gen_normal(&r);
            double got = relative_error(&c, rows, N, d);
            if (!(fabs(got / loss[bits] - 1) <= 0.1))
                fail_msg("%u bits, %zu channels: error %g", bits, d, got);
            for (size_t i = 0; i < N * d; i++) /* four channels a hundred times the others */
                rows[i] = (i % d < 4 ? 100.0f : 1.0f) * gen_normal(&r);
            got = relative_error(&c, rows, N, d);
            if (!(got <= 1.6 * loss[bits]))
                fail_msg("%u bits, %zu channels, outliers: error %g", bits, d, got);
        }
        free(rows);
    }
}

/* What turning is for: channels that stick out spoil the scale of their block only. Uneven steps
 * suit normal channels better than even ones. */
static void test_forms_compared(void **state)
{
    (void)state;
    enum { N = 256, D = 64 };
    struct kvg_rng r = {37};
    static float rows[N * D];
    struct kvg_codec plain, turned, uneven;
    kvg_codec_row(&plain, KVG_Q4_0, 0);
    kvg_codec_row(&turned, KVG_Q4_0, 0);
    kvg_codec_turn(&turned);
    kvg_codec_row(&uneven, KVG_IQ4_NL, 0);
    for (size_t i = 0; i < N * D; i++)
        rows[i] = gen_normal(&r);
    assert_true(relative_error(&uneven, rows, N, D) < 0.9 * relative_error(&plain, rows, N, D));
    /* One strong channel: the relative error of the others is what matters, all are normal here
     * after turning, so the whole error falls. */
    for (size_t j = 0; j < N; j++)
        rows[j * D + 5] *= 5.0f;
    assert_true(relative_error(&turned, rows, N, D) < 0.9 * relative_error(&plain, rows, N, D));
}

/* ---- fp8 ---- */

/* The value of a finite code, from the specification's table of the formats. */
static double fp8_value(enum kvg_fp8 format, unsigned code)
{
    int m = format == KVG_FP8_E4M3 ? 3 : 2, bias = format == KVG_FP8_E4M3 ? 7 : 15;
    int e = (int)(code & 0x7f) >> m, f = (int)code & ((1 << m) - 1);
    double v = e ? ldexp((1 << m) + f, e - bias - m) : ldexp(f, 1 - bias - m);
    return code & 0x80 ? -v : v;
}

/* One value through a row of 32. */
static float fp8_trip(const struct kvg_codec *c, float x, uint8_t *code)
{
    float row[32] = {x}, out[32];
    uint8_t b[34];
    c->encode(c, kvg_kernels_get("auto"), &(struct kvg_place){0}, row, 1, 32, b);
    c->decode(c, kvg_kernels_get("auto"), 0, b, 1, 32, out);
    *code = b[0];
    return out[0];
}

static void test_fp8(void **state)
{
    (void)state;
    for (int format = 0; format < 2; format++) {
        struct kvg_codec c;
        unsigned top = format == KVG_FP8_E4M3 ? 0x7e : 0x7b;
        float max = format == KVG_FP8_E4M3 ? 448.0f : 57344.0f;
        uint8_t code;
        kvg_codec_fp8(&c, (enum kvg_fp8)format, 0);
        assert_int_equal(kvg_codec_total_bytes(&c, 7, 64), 7 * 64);
        for (unsigned i = 0; i < 256; i++) {
            if ((i & 0x7f) > top)
                continue;
            double v = fp8_value((enum kvg_fp8)format, i);
            assert_true((double)fp8_trip(&c, (float)v, &code) == v);
            assert_int_equal(code, i);
            if ((i & 0x7f) == top)
                continue;
            /* Half way to the next one: to the even code; just beside it: to the near one. */
            float mid = (float)((v + fp8_value((enum kvg_fp8)format, i + 1)) / 2);
            fp8_trip(&c, mid, &code);
            assert_int_equal(code, i + (i & 1));
            fp8_trip(&c, nextafterf(mid, 0.0f), &code);
            assert_int_equal(code, i);
            fp8_trip(&c, nextafterf(mid, mid * 4.0f), &code);
            assert_int_equal(code, i + 1);
        }
        assert_true(fp8_trip(&c, 1e30f, &code) == max);
        assert_true(fp8_trip(&c, -INFINITY, &code) == -max);
        assert_true(isnan(fp8_trip(&c, NAN, &code)));
    }
}

/* With a scale per row: half a unit in the last place, or of the smallest numbers' spacing. */
static void test_fp8_rows(void **state)
{
    (void)state;
    enum { N = 64, D = 64 };
    struct kvg_rng r = {41};
    static float rows[N * D], out[N * D];
    for (int format = 0; format < 2; format++) {
        struct kvg_codec c;
        size_t payload, scales, bytes;
        double ulp = format == KVG_FP8_E4M3 ? 0x1p-4 : 0x1p-3;
        double least = format == KVG_FP8_E4M3 ? 0x1p-10 : 0x1p-17;
        kvg_codec_fp8(&c, (enum kvg_fp8)format, 1);
        c.bytes(&c, N, D, &payload, &scales);
        assert_int_equal(payload, N * D);
        assert_int_equal(scales, N * 2);
        for (size_t i = 0; i < N * D; i++)
            rows[i] = gen_normal(&r) * (float)exp2((double)(i / D) - 32);
        unsigned char *b = gen_encode(&c, rows, N, D, &bytes);
        c.decode(&c, kvg_kernels_get("auto"), 0, b + GEN_PAD, N, D, out);
        for (size_t i = 0; i < N * D; i++) {
            uint16_t h;
            memcpy(&h, b + GEN_PAD + i / D * (D + 2), sizeof h);
            double v = (double)rows[i], s = (double)kvg_f16_to_f32(h);
            /* Rows beyond 448 times the largest f16 keep that scale and are cut off. */
            double most = h == 0x7bff ? 448 * s : INFINITY, want = fmax(fmin(v, most), -most);
            if (format == KVG_FP8_E5M2)
                want = v;
            assert_true(fabs((double)out[i] - want) <=
                        ulp * fabs(v) * (1 + 0x1p-20) + least * s * (1 + 0x1p-20));
        }
        free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turbo),
        cmocka_unit_test(test_forms_compared),
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_fp8_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
