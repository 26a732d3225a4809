/* Owns the AVX-512 forms of packed codes and of the Walsh-Hadamard transform. Must not know which
 * codec has such codes. */
#include "kernel/avx512.h"

/* Two words of 3 or 4 bytes each. Made in registers: what was just stored in pieces cannot be
 * loaded as a whole without waiting. */
KVG_INLINE __m128i two_words(unsigned bits, const uint8_t *p)
{
    uint32_t lo;
    uint16_t hi;
    if (bits == 4)
        return _mm_loadl_epi64((const __m128i *)(const void *)p);
    memcpy(&lo, p, sizeof lo);
    memcpy(&hi, p + sizeof lo, sizeof hi);
    uint64_t all = lo | (uint64_t)hi << 32;
    return _mm_cvtsi64_si128((long long)((all & 0xffffff) | all >> 24 << 32));
}

/* Sixteen codes fill 2 * bits bytes. Those of 1 and 2 bits lie in one word; of the others, eight
 * lie in each of two words of `bits` bytes. */
KVG_INLINE __m512i codes16(unsigned bits, const uint8_t *p)
{
    const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t word = 0;
    __m512i q;
    if (bits == 8)
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    if (bits <= 2) {
        memcpy(&word, p, 2 * (bits < 2 ? bits : 2));
        __m512i shifts = _mm512_mullo_epi32(step, _mm512_set1_epi32((int)bits));
        q = _mm512_srlv_epi32(_mm512_set1_epi32((int)word), shifts);
    } else {
        __m128i two = two_words(bits, p);
        __m512i which = _mm512_srli_epi32(step, 3);
        __m512i shifts = _mm512_mullo_epi32(_mm512_and_si512(step, _mm512_set1_epi32(7)),
                                            _mm512_set1_epi32((int)bits));
        q = _mm512_permutexvar_epi32(which, _mm512_castsi128_si512(two));
        q = _mm512_srlv_epi32(q, shifts);
    }
    return _mm512_and_si512(q, _mm512_set1_epi32((1 << bits) - 1));
}

/* Sixteen codes times scale plus zero; the product is exact, so one rounding is the reference's. */
KVG_INLINE void affine16(unsigned bits, const uint8_t *p, __m512 scale, __m512 zero, float *out)
{
    _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes16(bits, p)), scale, zero));
}

/* Channels [c, c + 32) of all rows, each channel with a scale of its own that all rows share. */
KVG_INLINE void affine_columns(unsigned bits, const struct kvg_affine *a, size_t c, size_t n_rows,
                               size_t d, float *out)
{
    const uint8_t *s = (const uint8_t *)a->scale + 2 * c, *z = (const uint8_t *)a->zero + 2 * c;
    __m512 s0 = load_f16(s, 0xffff), s1 = load_f16(s + 32, 0xffff);
    __m512 z0 = load_f16(z, 0xffff), z1 = load_f16(z + 32, 0xffff);
    for (size_t j = 0; j < n_rows; j++) {
        const uint8_t *p = (const uint8_t *)a->codes + j * a->row_bytes + c * bits / 8;
        affine16(bits, p, s0, z0, out + j * d + c);
        affine16(bits, p + 2 * bits, s1, z1, out + j * d + c + 16);
    }
}

/* All channels of a row whose scales are shared by 32 channels or more. */
KVG_INLINE void affine_row(unsigned bits, const struct kvg_affine *a, size_t j, size_t d,
                           float *out)
{
    const uint8_t *p = (const uint8_t *)a->codes + j * a->row_bytes;
    const uint8_t *s = (const uint8_t *)a->scale + j * a->scale_step;
    const uint8_t *z = (const uint8_t *)a->zero + j * a->scale_step;
    for (size_t c = 0; c < d; c += 32, p += 4 * bits) {
        __m512 scale = _mm512_set1_ps(_cvtsh_ss(kvg_quant_u16(s + c / a->share * 2)));
        __m512 zero = _mm512_set1_ps(_cvtsh_ss(kvg_quant_u16(z + c / a->share * 2)));
        affine16(bits, p, scale, zero, out + j * d + c);
        affine16(bits, p + 2 * bits, scale, zero, out + j * d + c + 16);
    }
}

KVG_INLINE void affine(unsigned bits, const struct kvg_affine *a, size_t n_rows, size_t d,
                       float *out)
{
    if (a->share == 1)
        for (size_t c = 0; c < d; c += 32)
            affine_columns(bits, a, c, n_rows, d, out);
    else
        for (size_t j = 0; j < n_rows; j++)
            affine_row(bits, a, j, d, out);
}

void kvg_avx512_affine(const struct kvg_affine *a, size_t n_rows, size_t d, float *out)
{
    if (a->share == 1 && a->scale_step)
        kvg_codes_affine(a, n_rows, d, out);
    else if (a->bits == 2)
        affine(2, a, n_rows, d, out);
    else if (a->bits == 4)
        affine(4, a, n_rows, d, out);
    else
        affine(8, a, n_rows, d, out);
}

KVG_INLINE void lookup(unsigned bits, const uint8_t *p, const float book[16], float scale,
                       float *out, size_t n)
{
    __m512 values = _mm512_mul_ps(_mm512_loadu_ps(book), _mm512_set1_ps(scale));
    for (size_t i = 0; i < n; i += 16, p += 2 * bits)
        _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(codes16(bits, p), values));
}

void kvg_avx512_lookup(unsigned bits, const void *codes, const float book[16], float scale,
                       float *out, size_t n)
{
    switch (bits) {
    case 1:
        lookup(1, codes, book, scale, out, n);
        break;
    case 2:
        lookup(2, codes, book, scale, out, n);
        break;
    case 3:
        lookup(3, codes, book, scale, out, n);
        break;
    default:
        lookup(4, codes, book, scale, out, n);
    }
}

/* A stage within sixteen elements: sums where a lane's bit is 0, differences in the lanes `odd`. */
KVG_INLINE __m512 stage(__m512 v, __m512 swapped, __mmask16 odd)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(v, swapped), odd, swapped, v);
}

KVG_INLINE __m512 hadamard16(__m512 v)
{
    v = stage(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
    v = stage(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
    v = stage(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
    return stage(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
}

void kvg_avx512_hadamard(float *x, size_t n, size_t block)
{
    __m512 scale = _mm512_set1_ps((float)(1.0 / sqrt((double)block)));
    for (size_t i = 0; i < n; i += 16)
        _mm512_storeu_ps(x + i, hadamard16(_mm512_mul_ps(_mm512_loadu_ps(x + i), scale)));
    for (size_t half = 16; half < block; half *= 2)
        for (size_t at = 0; at < n; at += 2 * half)
            for (float *p = x + at; p < x + at + half; p += 16) {
                __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + half);
                _mm512_storeu_ps(p, _mm512_add_ps(a, b));
                _mm512_storeu_ps(p + half, _mm512_sub_ps(a, b));
            }
}
