/* Shared by the avx2*.c files only: how packed blocks become vectors of 8 floats. */
#ifndef KVG_KERNEL_AVX2_H
#define KVG_KERNEL_AVX2_H

#include "kernel/tiles.h"

#include <immintrin.h>

struct block32 {
    __m256 v[4]; /* elements 0..7, 8..15, 16..23, 24..31 */
};

KVG_INLINE __m256 scale_at(const uint8_t *b)
{
    return _mm256_set1_ps(_cvtsh_ss(kvg_quant_u16(b)));
}

KVG_INLINE __m128i load16(const uint8_t *b)
{
    return _mm_loadu_si128((const __m128i *)(const void *)b);
}

/* Eight signed bytes as floats: the low ones, or the high ones. */
KVG_INLINE __m256 bytes_lo(__m128i q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

KVG_INLINE __m256 bytes_hi(__m128i q)
{
    return bytes_lo(_mm_srli_si128(q, 8));
}

KVG_INLINE struct block32 nibbles(const uint8_t *qs, int from)
{
    const __m128i low = _mm_set1_epi8(15), base = _mm_set1_epi8((char)from);
    __m128i raw = load16(qs);
    __m128i lo = _mm_add_epi8(_mm_and_si128(raw, low), base);
    __m128i hi = _mm_add_epi8(_mm_and_si128(_mm_srli_epi16(raw, 4), low), base);
    struct block32 w = {{bytes_lo(lo), bytes_hi(lo), bytes_lo(hi), bytes_hi(hi)}};
    return w;
}

KVG_INLINE struct block32 scaled(struct block32 q, __m256 d)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        q.v[i] = _mm256_mul_ps(q.v[i], d);
    return q;
}

KVG_INLINE struct block32 block_q4_0(const uint8_t *b)
{
    return scaled(nibbles(b + 2, -8), scale_at(b));
}

KVG_INLINE struct block32 block_q4_1(const uint8_t *b)
{
    struct block32 w = nibbles(b + 4, 0);
    __m256 d = scale_at(b), m = scale_at(b + 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        w.v[i] = _mm256_fmadd_ps(w.v[i], d, m);
    return w;
}

/* The fifth bits of 32 codes as bytes: bit `to` where they are set. */
KVG_INLINE __m256i fifth_bits(const uint8_t *qh, int to)
{
    const __m256i each =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    int word;
    memcpy(&word, qh, 4);
    __m256i b = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), each), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(b, bit), _mm256_set1_epi8((char)to));
}

/* The 5-bit codes of a block plus `from` (0 or -16). */
KVG_INLINE struct block32 codes5(const uint8_t *qs, const uint8_t *qh, int from)
{
    const __m128i low = _mm_set1_epi8(15);
    __m128i raw = load16(qs);
    __m256i q =
        _mm256_set_m128i(_mm_and_si128(_mm_srli_epi16(raw, 4), low), _mm_and_si128(raw, low));
    q = _mm256_or_si256(q, fifth_bits(qh, 16));
    q = _mm256_add_epi8(q, _mm256_set1_epi8((char)from));
    __m128i lo = _mm256_castsi256_si128(q), hi = _mm256_extracti128_si256(q, 1);
    struct block32 w = {{bytes_lo(lo), bytes_hi(lo), bytes_lo(hi), bytes_hi(hi)}};
    return w;
}

KVG_INLINE struct block32 block_q5_0(const uint8_t *b)
{
    return scaled(codes5(b + 6, b + 2, -16), scale_at(b));
}

KVG_INLINE struct block32 block_q5_1(const uint8_t *b)
{
    struct block32 w = codes5(b + 8, b + 4, 0);
    __m256 d = scale_at(b), m = scale_at(b + 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        w.v[i] = _mm256_fmadd_ps(w.v[i], d, m);
    return w;
}

KVG_INLINE struct block32 block_iq4_nl(const uint8_t *b)
{
    const __m128i low = _mm_set1_epi8(15), values = load16((const uint8_t *)kvg_quant_iq4_nl);
    __m128i raw = load16(b + 2);
    __m128i lo = _mm_shuffle_epi8(values, _mm_and_si128(raw, low));
    __m128i hi = _mm_shuffle_epi8(values, _mm_and_si128(_mm_srli_epi16(raw, 4), low));
    struct block32 w = {{bytes_lo(lo), bytes_hi(lo), bytes_lo(hi), bytes_hi(hi)}};
    return scaled(w, scale_at(b));
}

KVG_INLINE struct block32 block_q8_0(const uint8_t *b)
{
    __m128i lo = load16(b + 2), hi = load16(b + 18);
    struct block32 w = {{bytes_lo(lo), bytes_hi(lo), bytes_lo(hi), bytes_hi(hi)}};
    return scaled(w, scale_at(b));
}

/* Eight elements of the unpacked types. */
KVG_INLINE __m256 load_f32(const uint8_t *b)
{
    return _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(const void *)b));
}

KVG_INLINE __m256 load_f16(const uint8_t *b)
{
    return _mm256_cvtph_ps(load16(b));
}

KVG_INLINE __m256 load_bf16(const uint8_t *b)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(b)), 16));
}

/* A mask of the first n lanes, n <= 8 or more, for maskload and maskstore. */
KVG_INLINE __m256i lanes(size_t n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), index);
}

KVG_INLINE float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

KVG_LEVEL_ENTRIES(avx2)

#endif
