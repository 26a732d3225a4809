/* Owns the AVX-512 attention tiles: scores of cached keys and weighted sums of cached values. Must
 * not know which slots of which head it reads.
 *
 * Four slots make a quad; each row is decoded once, in registers, for up to four query heads. A
 * score is one accumulator over ascending channels and one fixed reduction; an output channel is
 * one chain over ascending slots that starts from its old value. Neither depends on how many slots
 * or heads there are. */
#include "kernel/avx512.h"

enum { QS = 4, COLS = 2 };

typedef struct pair (*block_fn)(const uint8_t *b, const float *d, const float *m);
typedef void (*scales_fn)(const uint8_t *b, size_t step, size_t n, struct quad *s);

KVG_INLINE void no_scales(const uint8_t *b, size_t step, size_t n, struct quad *s)
{
    (void)b;
    (void)step;
    (void)n;
    (void)s;
}

KVG_INLINE struct pair block_f32(const uint8_t *b, const float *d, const float *m)
{
    (void)d;
    (void)m;
    struct pair w = {_mm512_loadu_ps(b), _mm512_loadu_ps(b + 64)};
    return w;
}

KVG_INLINE struct pair block_f16(const uint8_t *b, const float *d, const float *m)
{
    (void)d;
    (void)m;
    struct pair w = {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)b)),
                     _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(b + 32)))};
    return w;
}

KVG_INLINE struct pair block_bf16(const uint8_t *b, const float *d, const float *m)
{
    (void)d;
    (void)m;
    struct pair w = {load_bf16(b, 0xffff), load_bf16(b + 32, 0xffff)};
    return w;
}

/* Sums of the lanes of four vectors. The tree is the same for each of them. */
KVG_INLINE __m128 reduce4(const __m512 v[QUAD])
{
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    __m512 s = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

KVG_INLINE void dot_tile(const uint8_t *k, size_t row_bytes, size_t n_slots, size_t d,
                         const float *q, int nq, float *s, size_t lds, size_t block_bytes,
                         scales_fn scales, block_fn block)
{
    for (size_t j = 0; j < n_slots; j += QUAD) {
        size_t left = n_slots - j;
        /* Slots beyond the end repeat the last one; their sums are not stored. */
        size_t n = left < QUAD ? left : QUAD;
        const uint8_t *base = k + j * row_bytes;
        const uint8_t *row[QUAD] = {base, base + (n > 1 ? 1 : n - 1) * row_bytes,
                                    base + (n > 2 ? 2 : n - 1) * row_bytes,
                                    base + (n - 1) * row_bytes};
        __m512 acc[QS][QUAD];
#pragma GCC unroll 4
        for (int g = 0; g < nq; g++)
#pragma GCC unroll 4
            for (int i = 0; i < QUAD; i++)
                acc[g][i] = _mm512_setzero_ps();
        for (size_t c = 0, at = 0; c < d; c += KVG_QK, at += block_bytes) {
            struct quad sc;
            struct pair w[QUAD];
            scales(base + at, row_bytes, n, &sc);
#pragma GCC unroll 4
            for (int i = 0; i < QUAD; i++)
                w[i] = block(row[i] + at, &sc.d[i], &sc.m[i]);
#pragma GCC unroll 4
            for (int g = 0; g < nq; g++) {
                __m512 lo = _mm512_loadu_ps(q + (size_t)g * d + c);
                __m512 hi = _mm512_loadu_ps(q + (size_t)g * d + c + 16);
#pragma GCC unroll 4
                for (int i = 0; i < QUAD; i++)
                    acc[g][i] =
                        _mm512_fmadd_ps(w[i].hi, hi, _mm512_fmadd_ps(w[i].lo, lo, acc[g][i]));
            }
        }
#pragma GCC unroll 4
        for (int g = 0; g < nq; g++)
            _mm_mask_storeu_ps(s + (size_t)g * lds + j, (__mmask8)((1u << n) - 1), reduce4(acc[g]));
    }
}

/* n slots from slot j on, into the accumulators of nc blocks of channels. */
KVG_INLINE void acc_slots(const uint8_t *v, size_t row_bytes, size_t n, const float *p, size_t ldp,
                          int nq, int nc, size_t block_bytes, scales_fn scales, block_fn block,
                          __m512 acc[QS][2 * COLS])
{
    struct quad sc[COLS];
#pragma GCC unroll 2
    for (int b = 0; b < nc; b++)
        scales(v + (size_t)b * block_bytes, row_bytes, n, &sc[b]);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i++) {
        struct pair w[COLS];
#pragma GCC unroll 2
        for (int b = 0; b < nc; b++)
            w[b] = block(v + i * row_bytes + (size_t)b * block_bytes, &sc[b].d[i], &sc[b].m[i]);
#pragma GCC unroll 4
        for (int g = 0; g < nq; g++) {
            __m512 weight = _mm512_set1_ps(p[(size_t)g * ldp + i]);
#pragma GCC unroll 2
            for (int b = 0; b < nc; b++) {
                acc[g][2 * b] = _mm512_fmadd_ps(w[b].lo, weight, acc[g][2 * b]);
                acc[g][2 * b + 1] = _mm512_fmadd_ps(w[b].hi, weight, acc[g][2 * b + 1]);
            }
        }
    }
}

/* nc blocks of channels of nq heads; o and v point at the first of these channels. */
KVG_INLINE void acc_tile(const uint8_t *v, size_t row_bytes, size_t n_slots, size_t d,
                         const float *p, size_t ldp, int nq, int nc, float *o, size_t block_bytes,
                         scales_fn scales, block_fn block)
{
    __m512 acc[QS][2 * COLS];
#pragma GCC unroll 4
    for (int g = 0; g < nq; g++)
#pragma GCC unroll 4
        for (int b = 0; b < 2 * nc; b++)
            acc[g][b] = _mm512_loadu_ps(o + (size_t)g * d + 16 * (size_t)b);
    size_t j = 0;
    for (; j + QUAD <= n_slots; j += QUAD)
        acc_slots(v + j * row_bytes, row_bytes, QUAD, p + j, ldp, nq, nc, block_bytes, scales,
                  block, acc);
    for (; j < n_slots; j++)
        acc_slots(v + j * row_bytes, row_bytes, 1, p + j, ldp, nq, nc, block_bytes, scales, block,
                  acc);
#pragma GCC unroll 4
    for (int g = 0; g < nq; g++)
#pragma GCC unroll 4
        for (int b = 0; b < 2 * nc; b++)
            _mm512_storeu_ps(o + (size_t)g * d + 16 * (size_t)b, acc[g][b]);
}

#define ATTN_DOT(t)                                                                                \
    KVG_ATTN_DOT(avx512, t)                                                                        \
    {                                                                                              \
        KVG_HEADS(DOT_##t)                                                                         \
    }
#define ATTN_ACC(t, block_bytes)                                                                   \
    KVG_ATTN_ACC(avx512, t)                                                                        \
    {                                                                                              \
        for (size_t c = 0, nc; c < d; c += nc * KVG_QK) {                                          \
            const uint8_t *col = (const uint8_t *)v + c / KVG_QK * (block_bytes);                  \
            nc = d - c >= COLS * KVG_QK ? COLS : 1;                                                \
            if (nc == COLS)                                                                        \
                KVG_HEADS(ACC2_##t)                                                                \
            else                                                                                   \
                KVG_HEADS(ACC1_##t)                                                                \
        }                                                                                          \
    }
#define DOT(n, bytes, scales, block)                                                               \
    dot_tile(k, row_bytes, n_slots, d, q + g * d, n, s + g * lds, lds, bytes, scales, block)
#define ACC(n, nc, bytes, scales, block)                                                           \
    acc_tile(col, row_bytes, n_slots, d, p + g * ldp, ldp, n, nc, o + g * d + c, bytes, scales,    \
             block)

#define DOT_f32(n) DOT(n, 128, no_scales, block_f32)
#define ACC2_f32(n) ACC(n, 2, 128, no_scales, block_f32)
#define ACC1_f32(n) ACC(n, 1, 128, no_scales, block_f32)
ATTN_DOT(f32)
ATTN_ACC(f32, 128)

#define DOT_f16(n) DOT(n, 64, no_scales, block_f16)
#define ACC2_f16(n) ACC(n, 2, 64, no_scales, block_f16)
#define ACC1_f16(n) ACC(n, 1, 64, no_scales, block_f16)
ATTN_DOT(f16)
ATTN_ACC(f16, 64)

#define DOT_q8_0(n) DOT(n, 34, quad_scales_at, block_q8_0)
#define ACC2_q8_0(n) ACC(n, 2, 34, quad_scales_at, block_q8_0)
#define ACC1_q8_0(n) ACC(n, 1, 34, quad_scales_at, block_q8_0)
ATTN_DOT(q8_0)
ATTN_ACC(q8_0, 34)

#define DOT_q4_0(n) DOT(n, 18, quad_scales_at, block_q4_0)
#define ACC2_q4_0(n) ACC(n, 2, 18, quad_scales_at, block_q4_0)
#define ACC1_q4_0(n) ACC(n, 1, 18, quad_scales_at, block_q4_0)
ATTN_DOT(q4_0)
ATTN_ACC(q4_0, 18)

#define DOT_bf16(n) DOT(n, 64, no_scales, block_bf16)
#define ACC2_bf16(n) ACC(n, 2, 64, no_scales, block_bf16)
#define ACC1_bf16(n) ACC(n, 1, 64, no_scales, block_bf16)
ATTN_DOT(bf16)
ATTN_ACC(bf16, 64)

#define DOT_q4_1(n) DOT(n, 20, quad_pairs_at, block_q4_1)
#define ACC2_q4_1(n) ACC(n, 2, 20, quad_pairs_at, block_q4_1)
#define ACC1_q4_1(n) ACC(n, 1, 20, quad_pairs_at, block_q4_1)
ATTN_DOT(q4_1)
ATTN_ACC(q4_1, 20)

#define DOT_q5_0(n) DOT(n, 22, quad_scales_at, block_q5_0)
#define ACC2_q5_0(n) ACC(n, 2, 22, quad_scales_at, block_q5_0)
#define ACC1_q5_0(n) ACC(n, 1, 22, quad_scales_at, block_q5_0)
ATTN_DOT(q5_0)
ATTN_ACC(q5_0, 22)

#define DOT_q5_1(n) DOT(n, 24, quad_pairs_at, block_q5_1)
#define ACC2_q5_1(n) ACC(n, 2, 24, quad_pairs_at, block_q5_1)
#define ACC1_q5_1(n) ACC(n, 1, 24, quad_pairs_at, block_q5_1)
ATTN_DOT(q5_1)
ATTN_ACC(q5_1, 24)

#define DOT_iq4_nl(n) DOT(n, 18, quad_scales_at, block_iq4_nl)
#define ACC2_iq4_nl(n) ACC(n, 2, 18, quad_scales_at, block_iq4_nl)
#define ACC1_iq4_nl(n) ACC(n, 1, 18, quad_scales_at, block_iq4_nl)
ATTN_DOT(iq4_nl)
ATTN_ACC(iq4_nl, 18)
