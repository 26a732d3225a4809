/* Owns the AVX2 forms of packed codes and of the Walsh-Hadamard transform. Must not know which
 * codec has such codes. */
#include "kernel/avx2.h"

/* Eight codes of 1 to 4 bits fill `bits` bytes; those of 8 bits have a byte each. */
KVG_INLINE __m256i codes8(unsigned bits, const uint8_t *p)
{
    if (bits == 8)
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    uint32_t word = 0;
    if (bits == 3) /* not in pieces through memory, which would have to be waited for */
        word = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
    else
        memcpy(&word, p, bits < 4 ? bits : 4);
    int b = (int)bits;
    __m256i shifts = _mm256_setr_epi32(0, b, 2 * b, 3 * b, 4 * b, 5 * b, 6 * b, 7 * b);
    __m256i q = _mm256_srlv_epi32(_mm256_set1_epi32((int)word), shifts);
    return _mm256_and_si256(q, _mm256_set1_epi32((1 << bits) - 1));
}

/* Eight codes times scale plus zero; the product is exact, so one rounding is the reference's. */
KVG_INLINE void affine8(unsigned bits, const uint8_t *p, __m256 scale, __m256 zero, float *out)
{
    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(codes8(bits, p)), scale, zero));
}

/* Channels [c, c + 32) of all rows, each channel with a scale of its own that all rows share. */
KVG_INLINE void affine_columns(unsigned bits, const struct kvg_affine *a, size_t c, size_t n_rows,
                               size_t d, float *out)
{
    __m256 scale[4], zero[4];
    for (size_t i = 0; i < 4; i++) {
        scale[i] = load_f16((const uint8_t *)a->scale + 2 * (c + 8 * i));
        zero[i] = load_f16((const uint8_t *)a->zero + 2 * (c + 8 * i));
    }
    for (size_t j = 0; j < n_rows; j++) {
        const uint8_t *p = (const uint8_t *)a->codes + j * a->row_bytes + c * bits / 8;
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            affine8(bits, p + i * bits, scale[i], zero[i], out + j * d + c + 8 * i);
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
        __m256 scale = scale_at(s + c / a->share * 2), zero = scale_at(z + c / a->share * 2);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            affine8(bits, p + i * bits, scale, zero, out + j * d + c + 8 * i);
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

void kvg_avx2_affine(const struct kvg_affine *a, size_t n_rows, size_t d, float *out)
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
    __m256 lo = _mm256_loadu_ps(book), hi = _mm256_loadu_ps(book + 8), s = _mm256_set1_ps(scale);
    for (size_t i = 0; i < n; i += 8, p += bits) {
        __m256i q = codes8(bits, p);
        __m256 v = _mm256_permutevar8x32_ps(lo, q);
        if (bits == 4) {
            __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(q, 28)); /* bit 3 is the sign */
            v = _mm256_blendv_ps(v, _mm256_permutevar8x32_ps(hi, q), upper);
        }
        _mm256_storeu_ps(out + i, _mm256_mul_ps(v, s));
    }
}

void kvg_avx2_lookup(unsigned bits, const void *codes, const float book[16], float scale,
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

/* The three stages within eight elements: sums where a lane's bit is 0, differences where it is 1.
 * `odd` has the sign bit in the lanes that are subtracted. */
KVG_INLINE __m256 stage(__m256 v, __m256 swapped, __m256 odd)
{
    return _mm256_add_ps(swapped, _mm256_xor_ps(v, odd));
}

KVG_INLINE __m256 hadamard8(__m256 v)
{
    const float m = -0.0f;
    v = stage(v, _mm256_permute_ps(v, 0xb1), _mm256_setr_ps(0, m, 0, m, 0, m, 0, m));
    v = stage(v, _mm256_permute_ps(v, 0x4e), _mm256_setr_ps(0, 0, m, m, 0, 0, m, m));
    return stage(v, _mm256_permute2f128_ps(v, v, 1), _mm256_setr_ps(0, 0, 0, 0, m, m, m, m));
}

void kvg_avx2_hadamard(float *x, size_t n, size_t block)
{
    __m256 scale = _mm256_set1_ps((float)(1.0 / sqrt((double)block)));
    for (size_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(x + i, hadamard8(_mm256_mul_ps(_mm256_loadu_ps(x + i), scale)));
    for (size_t half = 8; half < block; half *= 2)
        for (size_t at = 0; at < n; at += 2 * half)
            for (float *p = x + at; p < x + at + half; p += 8) {
                __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + half);
                _mm256_storeu_ps(p, _mm256_add_ps(a, b));
                _mm256_storeu_ps(p + half, _mm256_sub_ps(a, b));
            }
}
