/* Owns the reference decode and encode of packed blocks. Must not know about CPU levels or what
 * the numbers are used for. */
#include "kernel/quant.h"

#include <math.h>

void kvg_quant_decode_f32(const void *src, float *dst, size_t n)
{
    if (n)
        memcpy(dst, src, n * sizeof *dst);
}

void kvg_quant_decode_f16(const void *src, float *dst, size_t n)
{
    const uint8_t *s = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = kvg_quant_f16(s + 2 * i);
}

void kvg_quant_decode_bf16(const void *src, float *dst, size_t n)
{
    const uint8_t *s = src;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)kvg_quant_u16(s + 2 * i) << 16;
        memcpy(dst + i, &u, 4);
    }
}

void kvg_quant_decode_q8_0(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q8_0 *b = src;
    for (; n; n -= KVG_QK, b++, dst += KVG_QK) {
        float d = kvg_quant_f16(b->d);
        for (int i = 0; i < KVG_QK; i++)
            dst[i] = d * (float)b->qs[i];
    }
}

void kvg_quant_decode_q4_0(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q4_0 *b = src;
    for (; n; n -= KVG_QK, b++, dst += KVG_QK) {
        float d = kvg_quant_f16(b->d);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)((b->qs[i] & 15) - 8);
            dst[i + 16] = d * (float)((b->qs[i] >> 4) - 8);
        }
    }
}

void kvg_quant_decode_q4_1(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q4_1 *b = src;
    for (; n; n -= KVG_QK, b++, dst += KVG_QK) {
        float d = kvg_quant_f16(b->d), m = kvg_quant_f16(b->m);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)(b->qs[i] & 15) + m;
            dst[i + 16] = d * (float)(b->qs[i] >> 4) + m;
        }
    }
}

static uint32_t fifth_bits(const uint8_t qh[4])
{
    return (uint32_t)qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
}

/* The 5-bit code of element i of a block of 32. */
static int code5(const uint8_t qs[16], uint32_t qh, int i)
{
    int low = i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
    return low | (int)(qh >> i & 1) << 4;
}

void kvg_quant_decode_q5_0(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q5_0 *b = src;
    for (; n; n -= KVG_QK, b++, dst += KVG_QK) {
        float d = kvg_quant_f16(b->d);
        uint32_t qh = fifth_bits(b->qh);
        for (int i = 0; i < KVG_QK; i++)
            dst[i] = d * (float)(code5(b->qs, qh, i) - 16);
    }
}

void kvg_quant_decode_q5_1(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q5_1 *b = src;
    for (; n; n -= KVG_QK, b++, dst += KVG_QK) {
        float d = kvg_quant_f16(b->d), m = kvg_quant_f16(b->m);
        uint32_t qh = fifth_bits(b->qh);
        for (int i = 0; i < KVG_QK; i++)
            dst[i] = d * (float)code5(b->qs, qh, i) + m;
    }
}

/* 6-bit scale and minimum of sub-block s (0..7): the first four sit in the low 6 bits of bytes
 * 0..7, the upper bits of the last four in the top 2 bits of the same bytes. */
static void scale_min(const uint8_t q[12], int s, int *scale, int *min)
{
    if (s < 4) {
        *scale = q[s] & 63;
        *min = q[s + 4] & 63;
    } else {
        *scale = (q[s + 4] & 15) | (q[s - 4] >> 6) << 4;
        *min = q[s + 4] >> 4 | (q[s] >> 6) << 4;
    }
}

void kvg_quant_decode_q4_k(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q4_k *b = src;
    for (; n; n -= KVG_QK_K, b++, dst += KVG_QK_K) {
        float d = kvg_quant_f16(b->d), dmin = kvg_quant_f16(b->dmin);
        for (int s = 0; s < 8; s++) {
            int scale, min;
            scale_min(b->scales, s, &scale, &min);
            float ds = d * (float)scale, ms = dmin * (float)min;
            const uint8_t *q = b->qs + s / 2 * 32;
            for (int l = 0; l < 32; l++)
                dst[s * 32 + l] = ds * (float)(q[l] >> 4 * (s & 1) & 15) - ms;
        }
    }
}

void kvg_quant_decode_q5_k(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q5_k *b = src;
    for (; n; n -= KVG_QK_K, b++, dst += KVG_QK_K) {
        float d = kvg_quant_f16(b->d), dmin = kvg_quant_f16(b->dmin);
        for (int s = 0; s < 8; s++) {
            int scale, min;
            scale_min(b->scales, s, &scale, &min);
            float ds = d * (float)scale, ms = dmin * (float)min;
            const uint8_t *q = b->qs + s / 2 * 32;
            for (int l = 0; l < 32; l++) {
                int code = (q[l] >> 4 * (s & 1) & 15) | (b->qh[l] >> s & 1) << 4;
                dst[s * 32 + l] = ds * (float)code - ms;
            }
        }
    }
}

void kvg_quant_decode_q6_k(const void *src, float *dst, size_t n)
{
    const struct kvg_block_q6_k *b = src;
    for (; n; n -= KVG_QK_K, b++, dst += KVG_QK_K) {
        float d = kvg_quant_f16(b->d);
        /* Two halves of 128; in each, quarter k of 32 takes nibble k/2 of bytes 32*(k%2).. and bit
         * pair k of the 32 bytes of high bits. */
        for (int i = 0; i < KVG_QK_K; i++) {
            int half = i / 128, k = i / 32 % 4, l = i % 32;
            int low = b->ql[half * 64 + k % 2 * 32 + l] >> k / 2 * 4 & 15;
            int high = b->qh[half * 32 + l] >> 2 * k & 3;
            float ds = d * (float)b->scales[i / 16];
            dst[i] = ds * (float)((low | high << 4) - 32);
        }
    }
}

void kvg_quant_encode_f32(const float *src, void *dst, size_t n)
{
    if (n)
        memcpy(dst, src, n * sizeof *src);
}

void kvg_quant_encode_f16(const float *src, void *dst, size_t n)
{
    uint8_t *b = dst;
    for (size_t i = 0; i < n; i++)
        kvg_quant_put_f16(b + 2 * i, src[i]);
}

void kvg_quant_encode_q8_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q8_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        float amax = 0.0f;
        for (int i = 0; i < KVG_QK; i++)
            amax = fmaxf(amax, fabsf(src[i]));
        float d = amax / 127.0f, id = kvg_quant_inverse(d);
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < KVG_QK; i++)
            b->qs[i] = (int8_t)roundf(src[i] * id);
    }
}

static uint8_t q4_0_code(float x, float id)
{
    int q = (int)((double)x * (double)id + 8.5);
    return (uint8_t)(q < 0 ? 0 : q > 15 ? 15 : q);
}

void kvg_quant_encode_q4_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q4_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        float m = src[0];
        for (int i = 1; i < KVG_QK; i++)
            if (fabsf(src[i]) > fabsf(m))
                m = src[i];
        float d = m / -8.0f, id = kvg_quant_inverse(d);
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < 16; i++)
            b->qs[i] = (uint8_t)(q4_0_code(src[i], id) | q4_0_code(src[i + 16], id) << 4);
    }
}
