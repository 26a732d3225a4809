/* Owns the 8-bit floating point forms: OCP 8-bit Floating Point Specification 1.0, e4m3 and e5m2. A
 * row is its codes, behind an f16 scale when it has one. Must not know who chose the format.
 *
 * Both formats are decoded by way of f16, whose exponents begin lower: a byte of e5m2 is the upper
 * half of an f16, one of e4m3 is, shifted by a bit, an f16 that is 2^8 too small. */
#include "cache/codec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { D_MAX = 512, CHUNK = 32, F16_MAX = 0x7bff };

struct format {
    int mantissa;     /* bits */
    int min_exponent; /* of the normal numbers */
    float max;
    uint8_t max_code, nan_code;
    int row_scale;
};
static const struct format formats[2][2] = {{{3, -6, 448.0f, 0x7e, 0x7f, 0}, /* e4m3 */
                                             {3, -6, 448.0f, 0x7e, 0x7f, 1}},
                                            {{2, -14, 57344.0f, 0x7b, 0x7e, 0}, /* e5m2 */
                                             {2, -14, 57344.0f, 0x7b, 0x7e, 1}}};

static uint8_t code_of(const struct format *f, float x)
{
    unsigned sign = signbit(x) ? 0x80 : 0;
    float a = fabsf(x);
    if (isnan(x))
        return (uint8_t)(sign | f->nan_code);
    if (a >= f->max)
        return (uint8_t)(sign | f->max_code);
    int e = f->min_exponent;
    if (a >= ldexpf(1.0f, e))
        e = ilogbf(a);
    /* In units of the last place: a normal number's leading bit counts one into the exponent. */
    int q = (int)rintf(ldexpf(a, f->mantissa - e));
    return (uint8_t)(sign | (unsigned)(((e - f->min_exponent) << f->mantissa) + q));
}

/* The scale that brings the largest magnitude to 448, rounded up so that nothing is cut off. */
static uint16_t fit(const float *row, size_t d)
{
    float top = 0;
    for (size_t i = 0; i < d; i++)
        if (isfinite(row[i]))
            top = fmaxf(top, fabsf(row[i]));
    float want = top / 448.0f;
    uint16_t h = kvg_f32_to_f16(want);
    if (kvg_f16_to_f32(h) < want)
        h++;
    return h < F16_MAX ? h : F16_MAX;
}

static void fp8_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload,
                      size_t *scales)
{
    const struct format *f = c->tables;
    *payload = n * d;
    *scales = f->row_scale ? n * 2 : 0;
}

static void fp8_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                       const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)k;
    (void)at;
    const struct format *f = c->tables;
    uint8_t *out = dst;
    for (size_t j = 0; j < n; j++, rows += d, out += d) {
        float scale = 1.0f;
        if (f->row_scale) {
            uint16_t h = fit(rows, d);
            memcpy(out, &h, sizeof h);
            out += sizeof h;
            scale = kvg_f16_to_f32(h);
        }
        for (size_t i = 0; i < d; i++)
            out[i] = code_of(f, scale > 0 ? rows[i] / scale : rows[i]);
    }
}

/* A chunk at a time, in sixteen bits and without overlap: loops that become vectors. */
static void widen_e4m3(const uint8_t *restrict in, uint16_t *restrict out)
{
    for (size_t i = 0; i < CHUNK; i++) {
        uint16_t low = in[i] & 0x7f, sign = (uint16_t)((in[i] & 0x80) << 8);
        uint16_t nan = low == 0x7f ? 0x7c00 : 0;
        out[i] = (uint16_t)(sign | (uint16_t)(low << 7) | nan);
    }
}

static void widen_e5m2(const uint8_t *restrict in, uint16_t *restrict out)
{
    for (size_t i = 0; i < CHUNK; i++)
        out[i] = (uint16_t)(in[i] << 8);
}

static void times(float *rows, float scale)
{
    for (size_t i = 0; i < CHUNK; i++)
        rows[i] *= scale;
}

static void fp8_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                       const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    const struct format *f = c->tables;
    const uint8_t *in = src;
    uint16_t half[D_MAX];
    for (size_t j = 0; j < n; j++, in += d, rows += d) {
        float scale = f->mantissa == 3 ? 256.0f : 1.0f;
        if (f->row_scale) {
            uint16_t h;
            memcpy(&h, in, sizeof h);
            scale *= kvg_f16_to_f32(h);
            in += sizeof h;
        }
        for (size_t at = 0; at < d; at += CHUNK)
            if (f->mantissa == 3)
                widen_e4m3(in + at, half + at);
            else
                widen_e5m2(in + at, half + at);
        k->decode[KVG_F16](half, rows, d);
        for (size_t at = 0; at < d; at += CHUNK)
            times(rows + at, scale);
    }
}

void kvg_codec_fp8(struct kvg_codec *c, enum kvg_fp8 format, int row_scale)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bits = 8,
                            .tables = &formats[format][row_scale != 0],
                            .bytes = fp8_bytes,
                            .encode = fp8_encode,
                            .decode = fp8_decode};
    snprintf(c->name, sizeof c->name, "%s%s", format == KVG_FP8_E4M3 ? "e4m3" : "e5m2",
             row_scale ? "-row" : "");
}
