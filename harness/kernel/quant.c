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

const int8_t kvg_quant_iq4_nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

void kvg_quant_decode_iq4_nl(const void *src, float *dst, size_t n)
{
    const struct kvg_block_iq4_nl *b = src;
    for (; n; n -= KVG_QK, b++, dst += KVG_QK) {
        float d = kvg_quant_f16(b->d);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)kvg_quant_iq4_nl[b->qs[i] & 15];
            dst[i + 16] = d * (float)kvg_quant_iq4_nl[b->qs[i] >> 4];
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

/* x is within -127..127, or no number. */
static int8_t q8_0_code(float x)
{
    return (int8_t)(isnan(x) ? 0.0f : roundf(x));
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
            b->qs[i] = q8_0_code(src[i] * id);
    }
}

static uint8_t q4_0_code(float x, float id)
{
    double t = (double)x * (double)id + 8.5;
    return (uint8_t)(t > 0 ? t < 15 ? t : 15 : 0);
}

/* The element of the largest magnitude, the first of them. */
static float largest(const float *x)
{
    float m = x[0];
    for (int i = 1; i < KVG_QK; i++)
        if (fabsf(x[i]) > fabsf(m))
            m = x[i];
    return m;
}

void kvg_quant_encode_q4_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q4_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        float d = largest(src) / -8.0f, id = kvg_quant_inverse(d);
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < 16; i++)
            b->qs[i] = (uint8_t)(q4_0_code(src[i], id) | q4_0_code(src[i + 16], id) << 4);
    }
}

void kvg_quant_encode_bf16(const float *src, void *dst, size_t n)
{
    uint8_t *b = dst;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + i, 4);
        if ((u & 0x7fffffffu) > 0x7f800000u)
            u |= 0x400000u; /* a NaN stays one when its low bits go */
        else
            u += 0x7fffu + (u >> 16 & 1);
        b[2 * i] = (uint8_t)(u >> 16);
        b[2 * i + 1] = (uint8_t)(u >> 24);
    }
}

/* trunc(t) within 0..top. */
static uint8_t clipped(float t, float top)
{
    return (uint8_t)(t > 0.0f ? t < top ? t : top : 0.0f);
}

static void put_nibbles(const uint8_t q[KVG_QK], uint8_t qs[16])
{
    for (int i = 0; i < 16; i++)
        qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static void put_fifth_bits(const uint8_t q[KVG_QK], uint8_t qh[4])
{
    memset(qh, 0, 4);
    for (int i = 0; i < KVG_QK; i++)
        qh[i / 8] = (uint8_t)(qh[i / 8] | q[i] >> 4 << i % 8);
}

/* Codes 0..top of a block between its smallest and its largest value. */
static void affine_codes(const float *x, float top, uint8_t d[2], uint8_t m[2], uint8_t q[KVG_QK])
{
    float lo = x[0], hi = x[0];
    for (int i = 1; i < KVG_QK; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float step = (hi - lo) / top, id = kvg_quant_inverse(step);
    kvg_quant_put_f16(d, step);
    kvg_quant_put_f16(m, lo);
    for (int i = 0; i < KVG_QK; i++)
        q[i] = clipped((x[i] - lo) * id + 0.5f, top);
}

void kvg_quant_encode_q4_1(const float *src, void *dst, size_t n)
{
    struct kvg_block_q4_1 *b = dst;
    uint8_t q[KVG_QK];
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        affine_codes(src, 15.0f, b->d, b->m, q);
        put_nibbles(q, b->qs);
    }
}

void kvg_quant_encode_q5_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q5_0 *b = dst;
    uint8_t q[KVG_QK];
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        float d = largest(src) / -16.0f, id = kvg_quant_inverse(d);
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < KVG_QK; i++)
            q[i] = clipped(src[i] * id + 16.5f, 31.0f);
        put_nibbles(q, b->qs);
        put_fifth_bits(q, b->qh);
    }
}

void kvg_quant_encode_q5_1(const float *src, void *dst, size_t n)
{
    struct kvg_block_q5_1 *b = dst;
    uint8_t q[KVG_QK];
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        affine_codes(src, 31.0f, b->d, b->m, q);
        put_nibbles(q, b->qs);
        put_fifth_bits(q, b->qh);
    }
}

/* The table's value nearest to x, the upper one of two that are equally near. */
static uint8_t iq4_nl_code(float x)
{
    int q = 0;
    for (int i = 0; i < 15; i++)
        q += x >= 0.5f * (float)(kvg_quant_iq4_nl[i] + kvg_quant_iq4_nl[i + 1]);
    return (uint8_t)q;
}

void kvg_quant_encode_iq4_nl(const float *src, void *dst, size_t n)
{
    enum { NEAREST_0 = 8 };
    struct kvg_block_iq4_nl *b = dst;
    uint8_t q[KVG_QK];
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        float m = largest(src), id = 1.0f / (m / (float)kvg_quant_iq4_nl[0]);
        float along = 0.0f, square = 0.0f;
        int none = fabsf(m) < 1e-15f;
        for (int i = 0; i < KVG_QK; i++) {
            q[i] = none ? NEAREST_0 : iq4_nl_code(src[i] * id);
            float v = (float)kvg_quant_iq4_nl[q[i]], wv = src[i] * src[i] * v;
            along += wv * src[i];
            square += wv * v;
        }
        kvg_quant_put_f16(b->d, none ? 0.0f : along / square);
        put_nibbles(q, b->qs);
    }
}
