/* Owns KIVI's two forms (Liu et al. 2024, arXiv 2402.02750): asymmetric b-bit codes with an fp16
 * scale and zero point, shared along tokens for keys and along channels for values. A group of keys
 * is a block: scales [d], zeros [d], then one row of codes per slot. A row of values is: scales
 * [d/channels], zeros, then codes. */
#include "cache/codec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { D_MAX = 512 };

static float affine_code(float x, float zero, float scale, float top)
{
    float q = scale == 0 ? 0 : rintf((x - zero) / scale);
    return q > 0 ? q < top ? q : top : 0; /* also for what is no number */
}

/* Scale and zero of one group as they are stored. */
static void affine_fit(float lo, float hi, float top, uint16_t *scale, uint16_t *zero)
{
    *scale = kvg_f32_to_f16((hi - lo) / top);
    *zero = kvg_f32_to_f16(lo);
}

static void pack_row(const uint8_t *q, size_t d, unsigned bits, uint8_t *out)
{
    unsigned per = 8 / bits;
    for (size_t i = 0; i < d / per; i++) {
        unsigned b = 0;
        for (unsigned j = 0; j < per; j++)
            b |= (unsigned)q[i * per + j] << (j * bits);
        out[i] = (uint8_t)b;
    }
}

/* ---- keys: one group of `group` slots, per channel ---- */

static void k_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload, size_t *scales)
{
    size_t groups = (n + c->group - 1) / c->group;
    *payload = n * d * c->bits / 8;
    *scales = groups * d * 4;
}

static void k_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                     const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)at;
    (void)k;
    uint16_t *scale = dst, *zero = scale + d;
    uint8_t *codes = (uint8_t *)(zero + d), q[D_MAX];
    float top = (float)((1u << c->bits) - 1), sf[D_MAX], zf[D_MAX];
    for (size_t ch = 0; ch < d; ch++) {
        float lo = rows[ch], hi = rows[ch];
        for (size_t j = 1; j < n; j++) {
            lo = fminf(lo, rows[j * d + ch]);
            hi = fmaxf(hi, rows[j * d + ch]);
        }
        affine_fit(lo, hi, top, &scale[ch], &zero[ch]);
        sf[ch] = kvg_f16_to_f32(scale[ch]);
        zf[ch] = kvg_f16_to_f32(zero[ch]);
    }
    for (size_t j = 0; j < n; j++) {
        for (size_t ch = 0; ch < d; ch++)
            q[ch] = (uint8_t)affine_code(rows[j * d + ch], zf[ch], sf[ch], top);
        pack_row(q, d, c->bits, codes + j * d * c->bits / 8);
    }
}

static void k_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                     const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    const uint16_t *scale = src, *zero = scale + d;
    const struct kvg_affine a = {.bits = c->bits,
                                 .codes = zero + d,
                                 .scale = scale,
                                 .zero = zero,
                                 .row_bytes = d * c->bits / 8,
                                 .share = 1};
    k->affine(&a, n, d, rows);
}

void kvg_codec_kivi_k(struct kvg_codec *c, unsigned bits, unsigned group)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = group,
                            .block_slots = group,
                            .bits = bits,
                            .bytes = k_bytes,
                            .encode = k_encode,
                            .decode = k_decode};
    snprintf(c->name, sizeof c->name, "kivi%u-k%u", bits, group);
}

/* ---- values: each slot alone, per `channels` channels ---- */

static size_t v_row_bytes(const struct kvg_codec *c, size_t d)
{
    return d * c->bits / 8 + d / c->channels * 4;
}

static void v_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload, size_t *scales)
{
    *payload = n * d * c->bits / 8;
    *scales = n * (d / c->channels) * 4;
}

static void v_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                     const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)at;
    (void)k;
    size_t groups = d / c->channels;
    float top = (float)((1u << c->bits) - 1);
    uint8_t q[D_MAX];
    for (size_t j = 0; j < n; j++) {
        uint16_t *scale = (uint16_t *)(void *)((char *)dst + j * v_row_bytes(c, d));
        uint16_t *zero = scale + groups;
        for (size_t g = 0; g < groups; g++) {
            const float *x = rows + j * d + g * c->channels;
            float lo = x[0], hi = x[0];
            for (size_t i = 1; i < c->channels; i++) {
                lo = fminf(lo, x[i]);
                hi = fmaxf(hi, x[i]);
            }
            affine_fit(lo, hi, top, &scale[g], &zero[g]);
            float sf = kvg_f16_to_f32(scale[g]), zf = kvg_f16_to_f32(zero[g]);
            for (size_t i = 0; i < c->channels; i++)
                q[g * c->channels + i] = (uint8_t)affine_code(x[i], zf, sf, top);
        }
        pack_row(q, d, c->bits, (uint8_t *)(zero + groups));
    }
}

static void v_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                     const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    size_t groups = d / c->channels, rb = v_row_bytes(c, d);
    const uint16_t *scale = src;
    const struct kvg_affine a = {.bits = c->bits,
                                 .codes = scale + 2 * groups,
                                 .scale = scale,
                                 .zero = scale + groups,
                                 .row_bytes = rb,
                                 .scale_step = rb,
                                 .share = c->channels};
    k->affine(&a, n, d, rows);
}

void kvg_codec_kivi_v(struct kvg_codec *c, unsigned bits, unsigned channels)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bits = bits,
                            .channels = channels,
                            .bytes = v_bytes,
                            .encode = v_encode,
                            .decode = v_decode};
    snprintf(c->name, sizeof c->name, "kivi%u-v%u", bits, channels);
}
