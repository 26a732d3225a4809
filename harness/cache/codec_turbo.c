/* Owns TurboQuant's form for least squared error (Zandieh et al. 2025, arXiv 2504.19874, algorithm
 * 1): a row is its norm in f16, then codes of `bits` bits packed tightly, low bits first. After a
 * random rotation the channels of a unit vector are nearly normal with variance 1/d whatever the
 * vector was, so one codebook serves all rows and there are no scales besides the norm.
 *
 * The rotation is the usual cheap one: fixed random signs, then an orthonormal Walsh-Hadamard
 * transform, in blocks where d is no power of two. Must not know why a row is coded with so many
 * bits. */
#include "cache/codec.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { D_MAX = 512, CHUNK = 32, F16_MAX = 0x7bff };

/* Lloyd-Max levels of the standard normal distribution, ascending; squared errors .3634, .1175,
 * .0346, .0095. */
static const float books[5][16] = {
    [1] = {-0.7979f, 0.7979f},
    [2] = {-1.5104f, -0.4528f, 0.4528f, 1.5104f},
    [3] = {-2.1519f, -1.3439f, -0.7560f, -0.2451f, 0.2451f, 0.7560f, 1.3439f, 2.1519f},
    [4] = {-2.7326f, -2.0690f, -1.6180f, -1.2562f, -0.9423f, -0.6568f, -0.3880f, -0.1284f, 0.1284f,
           0.3880f, 0.6568f, 0.9423f, 1.2562f, 1.6180f, 2.0690f, 2.7326f}};

void kvg_codec_turbo_signs(float *signs, size_t d)
{
    struct kvg_rng r = {0x7475726271756e74}; /* part of the form: never to be changed */
    for (size_t i = 0; i < d; i++)
        signs[i] = kvg_rng_next(&r) >> 63 ? -1.0f : 1.0f;
}

static void turbo_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload,
                        size_t *scales)
{
    *payload = n * d * c->bits / 8;
    *scales = n * 2;
}

/* The level nearest to x: the borders are half way between levels. */
static unsigned code_of(const float *book, unsigned bits, float x)
{
    unsigned q = 0;
    for (unsigned i = 0; i + 1 < 1u << bits; i++)
        q += x >= 0.5f * (book[i] + book[i + 1]);
    return q;
}

static double norm_of(const float *x, size_t d)
{
    double sum = 0;
    for (size_t i = 0; i < d; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* Norms beyond f16's range become its largest number; what is not finite stays so. */
static uint16_t stored_norm(double norm)
{
    uint16_t h = kvg_f32_to_f16((float)norm);
    return isfinite(norm) && h > F16_MAX ? F16_MAX : h;
}

static void encode_row(const struct kvg_codec *c, const struct kvg_kernels *k, const float *row,
                       size_t d, uint8_t *out)
{
    const float *signs = c->tables;
    float x[D_MAX];
    double norm = norm_of(row, d), unit = norm > 0 ? sqrt((double)d) / norm : 0;
    uint16_t h = stored_norm(norm);
    memcpy(out, &h, sizeof h);
    out += sizeof h;
    for (size_t i = 0; i < d; i++)
        x[i] = (float)((double)row[i] * unit) * signs[i];
    k->hadamard(x, d, kvg_codec_turn_block(d));
    for (size_t i = 0; i < d; i += 8, out += c->bits) { /* eight codes fill `bits` bytes */
        uint32_t word = 0;
        for (unsigned j = 0; j < 8; j++)
            word |= code_of(books[c->bits], c->bits, x[i + j]) << j * c->bits;
        for (unsigned j = 0; j < c->bits; j++)
            out[j] = (uint8_t)(word >> 8 * j);
    }
}

static void turbo_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                         const struct kvg_place *at, const float *rows, size_t n, size_t d,
                         void *dst)
{
    (void)at;
    size_t rb = kvg_codec_total_bytes(c, 1, d);
    for (size_t j = 0; j < n; j++)
        encode_row(c, k, rows + j * d, d, (uint8_t *)dst + j * rb);
}

/* Without overlap, so that the loop becomes vectors. */
static void times(float *restrict x, const float *restrict signs)
{
    for (size_t i = 0; i < CHUNK; i++)
        x[i] *= signs[i];
}

static void turbo_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                         const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    const float *signs = c->tables;
    const uint8_t *in = src;
    float root = (float)(1.0 / sqrt((double)d));
    size_t rb = kvg_codec_total_bytes(c, 1, d);
    for (size_t j = 0; j < n; j++) {
        uint16_t h;
        memcpy(&h, in + j * rb, sizeof h);
        k->lookup(c->bits, in + j * rb + sizeof h, books[c->bits], kvg_f16_to_f32(h) * root,
                  rows + j * d, d);
    }
    k->hadamard(rows, n * d, kvg_codec_turn_block(d));
    for (size_t j = 0; j < n; j++)
        for (size_t at = 0; at < d; at += CHUNK, rows += CHUNK)
            times(rows, signs + at);
}

void kvg_codec_turbo(struct kvg_codec *c, unsigned bits, const float *signs)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bits = bits,
                            .tables = signs,
                            .bytes = turbo_bytes,
                            .encode = turbo_encode,
                            .decode = turbo_decode};
    snprintf(c->name, sizeof c->name, "turbo%u", bits);
}
