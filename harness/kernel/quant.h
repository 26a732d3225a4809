/* Packed blocks of the element types and their reference arithmetic, one element at a time. The
 * layouts and the decode formulas are those of ggml (ggml-common.h, ggml-quants.c); the truth they
 * are compared with is Python `gguf.dequantize`. Fields are bytes: blocks have no alignment.
 *
 * Every product below is exact in float32 (an f16 scale has 11 significant bits, sub-scales and
 * codes at most 13 together), so a fused multiply-add gives the same bits as mul-then-add and every
 * CPU level decodes alike.
 *
 * Encoding, all in float32 unless noted, f16 rounded to nearest even:
 *   q8_0: d = max|x| / 127, id = 1/d, q = x*id rounded half away from zero, d stored as f16.
 *   q4_0: m = element of the largest magnitude (the first), d = m / -8, id = 1/d,
 *         q = trunc((double)x * id + 8.5) clipped to 0..15, d stored as f16.
 *   q5_0: the same with d = m / -16, q = trunc(x*id + 16.5) clipped to 0..31, in float32.
 *   q4_1, q5_1: d = (max - min) / 15 or 31, q = trunc((x - min)*id + 0.5) clipped to it, d and min
 *         stored as f16.
 *   iq4_nl: m as in q4_0, q = the table's value nearest to x / (m / -127) (ties: the upper one),
 *         d = sum(x^2 * value * x) / sum(x^2 * value^2) over the block, stored as f16; all 0 where
 *         |m| < 1e-15.
 *   bf16: to nearest even.
 * id = 0 when d = 0 or when 1/d is not finite (d subnormal; its f16 is 0 then anyway). An input
 * beyond the range of f16 scales stores an infinite d, as ggml does. Of inputs that are not finite
 * only this holds: codes stay in range, and what is decoded need not be finite either. */
#ifndef KVG_KERNEL_QUANT_H
#define KVG_KERNEL_QUANT_H

#include "kernel/kernel.h"

#include <math.h>
#include <string.h>

enum { KVG_QK = 32, KVG_QK_K = 256 };

struct kvg_block_q4_0 {
    uint8_t d[2];   /* f16 scale */
    uint8_t qs[16]; /* low nibbles: elements 0..15, high nibbles: 16..31; value d * (q - 8) */
};

struct kvg_block_q4_1 {
    uint8_t d[2], m[2]; /* f16 scale and minimum; value d * q + m */
    uint8_t qs[16];
};

struct kvg_block_q5_0 {
    uint8_t d[2];
    uint8_t qh[4]; /* fifth bits, bit i belongs to element i; value d * (q - 16) */
    uint8_t qs[16];
};

struct kvg_block_q5_1 {
    uint8_t d[2], m[2];
    uint8_t qh[4];
    uint8_t qs[16]; /* value d * q + m */
};

struct kvg_block_q8_0 {
    uint8_t d[2];
    int8_t qs[32]; /* value d * q */
};

struct kvg_block_q4_k {
    uint8_t d[2], dmin[2];
    uint8_t scales[12]; /* 8 pairs of 6-bit scale and minimum, see kvg_quant_scale_min */
    uint8_t qs[128];    /* value (d * scale) * q - dmin * minimum */
};

struct kvg_block_iq4_nl {
    uint8_t d[2];
    uint8_t qs[16]; /* as in q4_0; value d * kvg_quant_iq4_nl[q] */
};
extern const int8_t kvg_quant_iq4_nl[16];

struct kvg_block_q5_k {
    uint8_t d[2], dmin[2];
    uint8_t scales[12];
    uint8_t qh[32]; /* bit s of byte l: fifth bit of element l of sub-block s */
    uint8_t qs[128];
};

struct kvg_block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint8_t d[2]; /* value (d * scale) * (q - 32) */
};

/* Reference routines; n is a whole number of blocks. */
typedef void (*kvg_quant_decode_fn)(const void *src, float *dst, size_t n);
void kvg_quant_decode_f32(const void *src, float *dst, size_t n);
void kvg_quant_decode_f16(const void *src, float *dst, size_t n);
void kvg_quant_decode_bf16(const void *src, float *dst, size_t n);
void kvg_quant_decode_q8_0(const void *src, float *dst, size_t n);
void kvg_quant_decode_q4_0(const void *src, float *dst, size_t n);
void kvg_quant_decode_q4_1(const void *src, float *dst, size_t n);
void kvg_quant_decode_q5_0(const void *src, float *dst, size_t n);
void kvg_quant_decode_q5_1(const void *src, float *dst, size_t n);
void kvg_quant_decode_q4_k(const void *src, float *dst, size_t n);
void kvg_quant_decode_q5_k(const void *src, float *dst, size_t n);
void kvg_quant_decode_q6_k(const void *src, float *dst, size_t n);
void kvg_quant_decode_iq4_nl(const void *src, float *dst, size_t n);
void kvg_quant_encode_f32(const float *src, void *dst, size_t n);
void kvg_quant_encode_f16(const float *src, void *dst, size_t n);
void kvg_quant_encode_q8_0(const float *src, void *dst, size_t n);
void kvg_quant_encode_q4_0(const float *src, void *dst, size_t n);
void kvg_quant_encode_bf16(const float *src, void *dst, size_t n);
void kvg_quant_encode_q4_1(const float *src, void *dst, size_t n);
void kvg_quant_encode_q5_0(const float *src, void *dst, size_t n);
void kvg_quant_encode_q5_1(const float *src, void *dst, size_t n);
void kvg_quant_encode_iq4_nl(const float *src, void *dst, size_t n);

static inline uint16_t kvg_quant_u16(const uint8_t b[2])
{
    return (uint16_t)(b[0] | b[1] << 8);
}

/* An f16 field as f32. */
static inline float kvg_quant_f16(const uint8_t b[2])
{
    return kvg_f16_to_f32(kvg_quant_u16(b));
}

static inline void kvg_quant_put_f16(uint8_t b[2], float v)
{
    uint16_t h = kvg_f32_to_f16(v);
    b[0] = (uint8_t)(h & 0xff);
    b[1] = (uint8_t)(h >> 8);
}

/* 1/d, or 0 where that is no number to multiply with. */
static inline float kvg_quant_inverse(float d)
{
    float id = d != 0.0f ? 1.0f / d : 0.0f;
    return isfinite(id) ? id : 0.0f;
}

#endif
