/* Shared by the avx512*.c files only: how packed blocks become two vectors of 16 floats, and the
 * entry points that sit in other files than the table.
 *
 * A quad is four consecutive blocks of 32. Their f16 scales are converted together and laid down
 * in memory, because a broadcast that comes with a load costs no vector port, and on the two ports
 * that 512-bit code has, every operation counts. */
#ifndef KVG_KERNEL_AVX512_H
#define KVG_KERNEL_AVX512_H

#include "kernel/tiles.h"

#include <immintrin.h>

enum { QUAD = 4 };

struct quad {
    float d[QUAD], m[QUAD];
};

struct pair {
    __m512 lo, hi; /* elements 0..15 and 16..31 of a block */
};

/* Keeps the compiler from replacing the broadcast loads by shuffles of the vector just stored. */
KVG_INLINE void quad_put(struct quad *s, __m256 v)
{
    _mm256_storeu_ps(s->d, v);
    __asm__("" : "+m"(*s));
}

/* The f16 fields of up to four 4-bit blocks of 16 + header bytes: all lie in 64 bytes. `word` is
 * the distance of two blocks in 16-bit words; the second field of a block without one is unused. */
KVG_INLINE void quad_scales_4bit(const uint8_t *b, size_t n, size_t word, struct quad *s)
{
    short w = (short)word;
    __m128i at = _mm_setr_epi16(0, w, (short)(2 * w), (short)(3 * w), 1, (short)(w + 1),
                                (short)(2 * w + 1), (short)(3 * w + 1));
    __m512i raw =
        n >= QUAD ? _mm512_loadu_si512(b) : _mm512_maskz_loadu_epi16((1u << n * word) - 1, b);
    __m512i h = _mm512_permutexvar_epi16(_mm512_castsi128_si512(at), raw);
    quad_put(s, _mm256_cvtph_ps(_mm512_castsi512_si128(h)));
}

KVG_INLINE void quad_scales_q4_1(const uint8_t *b, size_t n, struct quad *s)
{
    quad_scales_4bit(b, n, sizeof(struct kvg_block_q4_1) / 2, s);
}

KVG_INLINE void quad_scales_q4_0(const uint8_t *b, size_t n, struct quad *s)
{
    quad_scales_4bit(b, n, sizeof(struct kvg_block_q4_0) / 2, s);
}

/* The f16 fields of n <= 4 blocks at b, b + step, ...; beyond the last one it is repeated. */
KVG_INLINE void quad_scales_at(const uint8_t *b, size_t step, size_t n, struct quad *s)
{
    uint64_t h = 0;
#pragma GCC unroll 4
    for (size_t i = 0; i < QUAD; i++)
        h |= (uint64_t)kvg_quant_u16(b + (i < n ? i : n - 1) * step) << 16 * i;
    quad_put(s, _mm256_cvtph_ps(_mm_cvtsi64_si128((long long)h)));
}

KVG_INLINE void quad_scales_q8_0(const uint8_t *b, size_t n, struct quad *s)
{
    quad_scales_at(b, sizeof(struct kvg_block_q8_0), n, s);
}

KVG_INLINE void quad_scales_q5_0(const uint8_t *b, size_t n, struct quad *s)
{
    quad_scales_at(b, sizeof(struct kvg_block_q5_0), n, s);
}

KVG_INLINE void quad_scales_iq4_nl(const uint8_t *b, size_t n, struct quad *s)
{
    quad_scales_4bit(b, n, sizeof(struct kvg_block_iq4_nl) / 2, s);
}

/* The same for blocks that begin with a scale and a minimum. */
KVG_INLINE void quad_pairs_at(const uint8_t *b, size_t step, size_t n, struct quad *s)
{
    uint64_t d = 0, m = 0;
#pragma GCC unroll 4
    for (size_t i = 0; i < QUAD; i++) {
        const uint8_t *at = b + (i < n ? i : n - 1) * step;
        d |= (uint64_t)kvg_quant_u16(at) << 16 * i;
        m |= (uint64_t)kvg_quant_u16(at + 2) << 16 * i;
    }
    quad_put(s, _mm256_cvtph_ps(_mm_set_epi64x((long long)m, (long long)d)));
}

KVG_INLINE void quad_scales_q5_1(const uint8_t *b, size_t n, struct quad *s)
{
    quad_pairs_at(b, sizeof(struct kvg_block_q5_1), n, s);
}

/* 16 codes times a table that holds all 16 values; the permutation looks at the low nibble of each
 * index only, so the codes need no mask. */
KVG_INLINE struct pair nibbles(const uint8_t *qs, __m512 values)
{
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)qs));
    struct pair w = {_mm512_permutexvar_ps(q, values),
                     _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), values)};
    return w;
}

KVG_INLINE __m512 ramp(float from)
{
    return _mm512_add_ps(_mm512_set1_ps(from),
                         _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* Block `b` with its scale d (and minimum m). */
KVG_INLINE struct pair block_q4_1(const uint8_t *b, const float *d, const float *m)
{
    __m512 values = _mm512_fmadd_ps(ramp(0), _mm512_set1_ps(*d), _mm512_set1_ps(*m));
    return nibbles(b + 4, values);
}

KVG_INLINE struct pair block_q4_0(const uint8_t *b, const float *d, const float *m)
{
    (void)m;
    return nibbles(b + 2, _mm512_mul_ps(ramp(-8), _mm512_set1_ps(*d)));
}

KVG_INLINE struct pair block_iq4_nl(const uint8_t *b, const float *d, const float *m)
{
    (void)m;
    const __m512 values =
        _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    return nibbles(b + 2, _mm512_mul_ps(values, _mm512_set1_ps(*d)));
}

/* 5-bit codes: `lower` are the values where the fifth bit is 0, `upper` those where it is 1. */
KVG_INLINE struct pair codes5(const uint8_t *qs, const uint8_t *qh, __m512 lower, __m512 upper)
{
    const __m512i low = _mm512_set1_epi32(15), fifth = _mm512_set1_epi32(16);
    uint32_t bits;
    memcpy(&bits, qh, 4);
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)qs));
    __m512i lo = _mm512_and_si512(q, low), hi = _mm512_srli_epi32(q, 4);
    lo = _mm512_mask_or_epi32(lo, (__mmask16)bits, lo, fifth);
    hi = _mm512_mask_or_epi32(hi, (__mmask16)(bits >> 16), hi, fifth);
    struct pair w = {_mm512_permutex2var_ps(lower, lo, upper),
                     _mm512_permutex2var_ps(lower, hi, upper)};
    return w;
}

KVG_INLINE struct pair block_q5_0(const uint8_t *b, const float *d, const float *m)
{
    (void)m;
    __m512 s = _mm512_set1_ps(*d);
    return codes5(b + 6, b + 2, _mm512_mul_ps(ramp(-16), s), _mm512_mul_ps(ramp(0), s));
}

KVG_INLINE struct pair block_q5_1(const uint8_t *b, const float *d, const float *m)
{
    __m512 s = _mm512_set1_ps(*d), least = _mm512_set1_ps(*m);
    return codes5(b + 8, b + 4, _mm512_fmadd_ps(ramp(0), s, least),
                  _mm512_fmadd_ps(ramp(16), s, least));
}

KVG_INLINE struct pair block_q8_0(const uint8_t *b, const float *d, const float *m)
{
    (void)m;
    __m128i lo = _mm_loadu_si128((const __m128i *)(const void *)(b + 2));
    __m128i hi = _mm_loadu_si128((const __m128i *)(const void *)(b + 18));
    __m512 s = _mm512_set1_ps(*d);
    struct pair w = {_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(lo)), s),
                     _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(hi)), s)};
    return w;
}

/* Up to 16 elements of the unpacked types; lanes outside the mask are 0. */
KVG_INLINE __m512 load_f32(const uint8_t *p, __mmask16 m)
{
    return _mm512_maskz_loadu_ps(m, p);
}

KVG_INLINE __m512 load_f16(const uint8_t *p, __mmask16 m)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p));
}

KVG_INLINE __m512 load_bf16(const uint8_t *p, __mmask16 m)
{
    __m512i w = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}

/* The mask of the first n lanes, n <= 16 or more. */
KVG_INLINE __mmask16 lanes(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

KVG_LEVEL_ENTRIES(avx512)

#endif
