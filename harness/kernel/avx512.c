/* Owns the AVX-512 level's table, its decode and encode, and the row functions (norm, softmax,
 * gate). Must not know the model. Products are in avx512_matvec.c, attention in avx512_attn.c. */
#include "kernel/avx512.h"

KVG_INLINE void decode_blocks(const uint8_t *b, float *dst, size_t n, size_t block_bytes,
                              void (*scales)(const uint8_t *b, size_t n, struct quad *s),
                              struct pair (*block)(const uint8_t *b, const float *d,
                                                   const float *m))
{
    for (size_t left = n / KVG_QK; left;) {
        size_t now = left < QUAD ? left : QUAD;
        struct quad s;
        scales(b, now, &s);
        for (size_t i = 0; i < now; i++, b += block_bytes, dst += KVG_QK) {
            struct pair w = block(b, &s.d[i], &s.m[i]);
            _mm512_storeu_ps(dst, w.lo);
            _mm512_storeu_ps(dst + 16, w.hi);
        }
        left -= now;
    }
}

static void decode_q4_0(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q4_0), quad_scales_q4_0, block_q4_0);
}

static void decode_q4_1(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q4_1), quad_scales_q4_1, block_q4_1);
}

static void decode_q5_0(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q5_0), quad_scales_q5_0, block_q5_0);
}

static void decode_q5_1(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q5_1), quad_scales_q5_1, block_q5_1);
}

static void decode_iq4_nl(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_iq4_nl), quad_scales_iq4_nl, block_iq4_nl);
}

static void decode_q8_0(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q8_0), quad_scales_q8_0, block_q8_0);
}

static void decode_f16(const void *src, float *dst, size_t n)
{
    for (size_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(dst + i, lanes(n - i),
                              load_f16((const uint8_t *)src + 2 * i, lanes(n - i)));
}

static void decode_bf16(const void *src, float *dst, size_t n)
{
    for (size_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(dst + i, lanes(n - i),
                              load_bf16((const uint8_t *)src + 2 * i, lanes(n - i)));
}

static void encode_f16(const float *src, void *dst, size_t n)
{
    uint8_t *b = dst;
    for (size_t i = 0; i < n; i += 16) {
        __m512 x = _mm512_maskz_loadu_ps(lanes(n - i), src + i);
        __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16(b + 2 * i, lanes(n - i), h);
    }
}

/* Half away from zero, as roundf. */
KVG_INLINE __m128i round_codes(__m512 v)
{
    __m512 t = _mm512_roundscale_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __mmask16 away =
        _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_sub_ps(v, t)), _mm512_set1_ps(0.5f), _CMP_GE_OQ);
    const __m512 sign_bit = _mm512_set1_ps(-0.0f);
    __m512 one = _mm512_or_ps(_mm512_and_ps(v, sign_bit), _mm512_set1_ps(1.0f));
    return _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(_mm512_mask_add_ps(t, away, t, one)));
}

static void encode_q8_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q8_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        __m512 lo = _mm512_loadu_ps(src), hi = _mm512_loadu_ps(src + 16);
        float d =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lo), _mm512_abs_ps(hi))) / 127.0f;
        __m512 id = _mm512_set1_ps(kvg_quant_inverse(d));
        kvg_quant_put_f16(b->d, d);
        _mm_storeu_si128((__m128i *)(void *)b->qs, round_codes(_mm512_mul_ps(lo, id)));
        _mm_storeu_si128((__m128i *)(void *)(b->qs + 16), round_codes(_mm512_mul_ps(hi, id)));
    }
}

/* trunc(x * id + 8.5) in double, clipped to 0..15. The product of two floats is exact in double, so
 * that fusing it changes nothing. */
KVG_INLINE __m256i q4_codes(__m256 x, __m512d id)
{
    __m512d v = _mm512_fmadd_pd(_mm512_cvtps_pd(x), id, _mm512_set1_pd(8.5));
    __m256i q = _mm512_cvttpd_epi32(v);
    return _mm256_max_epi32(_mm256_min_epi32(q, _mm256_set1_epi32(15)), _mm256_setzero_si256());
}

static void encode_q4_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q4_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        __m512 lo = _mm512_abs_ps(_mm512_loadu_ps(src));
        __m512 hi = _mm512_abs_ps(_mm512_loadu_ps(src + 16));
        __m512 max = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(lo, hi)));
        unsigned at = (unsigned)_mm512_cmp_ps_mask(lo, max, _CMP_EQ_OQ) |
                      (unsigned)_mm512_cmp_ps_mask(hi, max, _CMP_EQ_OQ) << 16;
        float d = src[__builtin_ctz(at | 1u << 31)] / -8.0f;
        __m512d id = _mm512_set1_pd((double)kvg_quant_inverse(d));
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < 16; i += 8) {
            __m256i low = q4_codes(_mm256_loadu_ps(src + i), id);
            __m256i high = q4_codes(_mm256_loadu_ps(src + i + 16), id);
            __m256i q = _mm256_or_si256(low, _mm256_slli_epi32(high, 4));
            _mm_storel_epi64((__m128i *)(void *)(b->qs + i), _mm256_cvtepi32_epi8(q));
        }
    }
}

/* e^(x + lo) for |lo| far below 1; relative error under 1e-7 where the result is normal. 2^n e^r
 * with |r| <= ln2 / 2, e^r by its Taylor polynomial of degree 7 (remainder 6e-9). */
KVG_INLINE __m512 exp16(__m512 x, __m512 lo)
{
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    r = _mm512_add_ps(r, lo);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, r);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

/* e^(x - max) with the rounding error of the difference carried along. Far below max the result is
 * 0 anyway; the clamp keeps -inf from becoming NaN. */
KVG_INLINE __m512 exp_below(__m512 x, __m512 max)
{
    x = _mm512_max_ps(x, _mm512_sub_ps(max, _mm512_set1_ps(150.0f)));
    __m512 s = _mm512_sub_ps(x, max);
    __m512 back = _mm512_sub_ps(s, x);
    __m512 lo = _mm512_sub_ps(_mm512_sub_ps(x, _mm512_sub_ps(s, back)), _mm512_add_ps(max, back));
    return exp16(s, lo);
}

KVG_INLINE double sum_double(__m512 v)
{
    __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    return _mm512_reduce_add_pd(_mm512_add_pd(a, b));
}

static void softmax(float *x, size_t n, float scale)
{
    __m512 top = _mm512_set1_ps(-INFINITY), f = _mm512_set1_ps(scale);
    double sum = 0.0;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), f);
        top = _mm512_mask_max_ps(top, m, top, v);
        _mm512_mask_storeu_ps(x + i, m, v);
    }
    __m512 max = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 e = exp_below(_mm512_mask_loadu_ps(max, m, x + i), max);
        e = _mm512_maskz_mov_ps(m, e);
        sum += sum_double(e);
        _mm512_mask_storeu_ps(x + i, m, e);
    }
    __m512 inverse = _mm512_set1_ps((float)(1.0 / sum));
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), inverse));
    }
}

/* gate * e / (1 + e) with e = e^gate where gate < 0, so that nothing overflows. */
static void swiglu(const float *gate, const float *up, size_t n, float *out)
{
    const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 g = _mm512_maskz_loadu_ps(m, gate + i), u = _mm512_maskz_loadu_ps(m, up + i);
        __m512 e = exp16(_mm512_sub_ps(zero, _mm512_abs_ps(g)), zero);
        __m512 top = _mm512_mask_mul_ps(g, _mm512_cmp_ps_mask(g, zero, _CMP_LT_OQ), g, e);
        __m512 v = _mm512_mul_ps(_mm512_div_ps(top, _mm512_add_ps(one, e)), u);
        _mm512_mask_storeu_ps(out + i, m, v);
    }
}

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *out)
{
    __m512d a = _mm512_setzero_pd(), b = a;
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + i);
        __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        a = _mm512_fmadd_pd(lo, lo, a);
        b = _mm512_fmadd_pd(hi, hi, b);
    }
    double mean = _mm512_reduce_add_pd(_mm512_add_pd(a, b)) / (double)n;
    __m512 scale = _mm512_set1_ps((float)(1.0 / sqrt(mean + (double)eps)));
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), scale);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, w + i)));
    }
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_add_ps(_mm512_maskz_loadu_ps(m, y + i), _mm512_maskz_loadu_ps(m, x + i));
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}

static void rope(float *x, const float *cos_h, const float *sin_h, size_t d)
{
    size_t h = d / 2;
    for (size_t i = 0; i < h; i += 16) {
        __mmask16 m = lanes(h - i);
        __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + h + i);
        __m512 c = _mm512_maskz_loadu_ps(m, cos_h + i), s = _mm512_maskz_loadu_ps(m, sin_h + i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + h + i, m, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

static const struct kvg_kernels table = {
    .name = "avx512",
    .decode = {[KVG_F32] = kvg_quant_decode_f32,
               [KVG_F16] = decode_f16,
               [KVG_BF16] = decode_bf16,
               [KVG_Q8_0] = decode_q8_0,
               [KVG_Q4_0] = decode_q4_0,
               [KVG_Q4_1] = decode_q4_1,
               [KVG_Q5_0] = decode_q5_0,
               [KVG_Q5_1] = decode_q5_1,
               [KVG_Q4_K] = kvg_quant_decode_q4_k,
               [KVG_Q5_K] = kvg_quant_decode_q5_k,
               [KVG_Q6_K] = kvg_quant_decode_q6_k,
               [KVG_IQ4_NL] = decode_iq4_nl},
    .encode = {[KVG_F32] = kvg_quant_encode_f32,
               [KVG_F16] = encode_f16,
               [KVG_Q8_0] = encode_q8_0,
               [KVG_Q4_0] = encode_q4_0,
               [KVG_BF16] = kvg_quant_encode_bf16,
               [KVG_Q4_1] = kvg_quant_encode_q4_1,
               [KVG_Q5_0] = kvg_quant_encode_q5_0,
               [KVG_Q5_1] = kvg_quant_encode_q5_1,
               [KVG_IQ4_NL] = kvg_quant_encode_iq4_nl},
    .matvec = {KVG_LEVEL_MATVEC(avx512)},
    .attn_dot = {KVG_LEVEL_ATTN(avx512, dot)},
    .attn_acc = {KVG_LEVEL_ATTN(avx512, acc)},
    .affine = kvg_avx512_affine,
    .lookup = kvg_avx512_lookup,
    .hadamard = kvg_avx512_hadamard,
    .rmsnorm = rmsnorm,
    .softmax = softmax,
    .swiglu = swiglu,
    .add = add,
    .rope = rope,
};

const struct kvg_kernels *kvg_kernels_avx512(void)
{
    return &table;
}
