/* Owns the AVX2 attention tiles: scores of cached keys and weighted sums of cached values. Must not
 * know which slots of which head it reads.
 *
 * A score is one accumulator over ascending channels and one fixed reduction; an output channel is
 * one chain over ascending slots that starts from its old value. Neither depends on how many slots
 * or heads there are. */
#include "kernel/avx2.h"

enum { QS = 4 };

typedef struct block32 (*block_fn)(const uint8_t *b);

KVG_INLINE struct block32 block_f32(const uint8_t *b)
{
    struct block32 w = {{load_f32(b), load_f32(b + 32), load_f32(b + 64), load_f32(b + 96)}};
    return w;
}

KVG_INLINE struct block32 block_f16(const uint8_t *b)
{
    struct block32 w = {{load_f16(b), load_f16(b + 16), load_f16(b + 32), load_f16(b + 48)}};
    return w;
}

KVG_INLINE struct block32 block_bf16(const uint8_t *b)
{
    struct block32 w = {{load_bf16(b), load_bf16(b + 16), load_bf16(b + 32), load_bf16(b + 48)}};
    return w;
}

KVG_INLINE void dot_tile(const uint8_t *k, size_t row_bytes, size_t n_slots, size_t d,
                         const float *q, int nq, float *s, size_t lds, size_t block_bytes,
                         block_fn block)
{
    for (size_t j = 0; j < n_slots; j++) {
        __m256 acc[QS];
#pragma GCC unroll 4
        for (int g = 0; g < nq; g++)
            acc[g] = _mm256_setzero_ps();
        const uint8_t *b = k + j * row_bytes;
        for (size_t c = 0; c < d; c += KVG_QK, b += block_bytes) {
            struct block32 w = block(b);
#pragma GCC unroll 4
            for (int g = 0; g < nq; g++) {
                const float *x = q + (size_t)g * d + c;
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    acc[g] = _mm256_fmadd_ps(w.v[i], _mm256_loadu_ps(x + 8 * i), acc[g]);
            }
        }
#pragma GCC unroll 4
        for (int g = 0; g < nq; g++)
            s[(size_t)g * lds + j] = sum8(acc[g]);
    }
}

/* 32 channels of nq heads; o and v point at the first of these channels. */
KVG_INLINE void acc_tile(const uint8_t *v, size_t row_bytes, size_t n_slots, size_t d,
                         const float *p, size_t ldp, int nq, float *o, block_fn block)
{
    __m256 acc[2][4];
#pragma GCC unroll 4
    for (int g = 0; g < nq; g++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            acc[g][i] = _mm256_loadu_ps(o + (size_t)g * d + 8 * i);
    for (size_t j = 0; j < n_slots; j++) {
        struct block32 w = block(v + j * row_bytes);
#pragma GCC unroll 4
        for (int g = 0; g < nq; g++) {
            __m256 weight = _mm256_broadcast_ss(p + (size_t)g * ldp + j);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                acc[g][i] = _mm256_fmadd_ps(w.v[i], weight, acc[g][i]);
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < nq; g++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(o + (size_t)g * d + 8 * i, acc[g][i]);
}

#define ATTN_DOT(t)                                                                                \
    KVG_ATTN_DOT(avx2, t)                                                                          \
    {                                                                                              \
        KVG_HEADS(DOT_##t)                                                                         \
    }
#define ATTN_ACC(t, block_bytes)                                                                   \
    KVG_ATTN_ACC(avx2, t)                                                                          \
    {                                                                                              \
        for (size_t c = 0; c < d; c += KVG_QK) {                                                   \
            const uint8_t *col = (const uint8_t *)v + c / KVG_QK * (block_bytes);                  \
            size_t g = 0;                                                                          \
            for (; g + 2 <= n_q; g += 2)                                                           \
                ACC(2, block_##t);                                                                 \
            if (g < n_q)                                                                           \
                ACC(1, block_##t);                                                                 \
        }                                                                                          \
    }
#define DOT(n, bytes, block)                                                                       \
    dot_tile(k, row_bytes, n_slots, d, q + g * d, n, s + g * lds, lds, bytes, block)
#define ACC(n, block)                                                                              \
    acc_tile(col, row_bytes, n_slots, d, p + g * ldp, ldp, n, o + g * d + c, block)

#define DOT_f32(n) DOT(n, 128, block_f32)
#define DOT_f16(n) DOT(n, 64, block_f16)
#define DOT_q8_0(n) DOT(n, 34, block_q8_0)
#define DOT_q4_0(n) DOT(n, 18, block_q4_0)
#define DOT_bf16(n) DOT(n, 64, block_bf16)
#define DOT_q4_1(n) DOT(n, 20, block_q4_1)
#define DOT_q5_0(n) DOT(n, 22, block_q5_0)
#define DOT_q5_1(n) DOT(n, 24, block_q5_1)
#define DOT_iq4_nl(n) DOT(n, 18, block_iq4_nl)
ATTN_DOT(f32)
ATTN_ACC(f32, 128)
ATTN_DOT(f16)
ATTN_ACC(f16, 64)
ATTN_DOT(q8_0)
ATTN_ACC(q8_0, 34)
ATTN_DOT(q4_0)
ATTN_ACC(q4_0, 18)
ATTN_DOT(bf16)
ATTN_ACC(bf16, 64)
ATTN_DOT(q4_1)
ATTN_ACC(q4_1, 20)
ATTN_DOT(q5_0)
ATTN_ACC(q5_0, 22)
ATTN_DOT(q5_1)
ATTN_ACC(q5_1, 24)
ATTN_DOT(iq4_nl)
ATTN_ACC(iq4_nl, 18)
