/* Owns the AVX2 level's table, its decode and encode, and the row functions (norm, softmax, gate).
 * Must not know the model. Products are in avx2_matvec.c, attention in avx2_attn.c. */
#include "kernel/avx2.h"

KVG_INLINE void decode_blocks(const uint8_t *b, float *dst, size_t n, size_t block_bytes,
                              struct block32 (*block)(const uint8_t *b))
{
    for (; n; n -= KVG_QK, b += block_bytes, dst += KVG_QK) {
        struct block32 w = block(b);
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(dst + 8 * i, w.v[i]);
    }
}

static void decode_q4_0(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q4_0), block_q4_0);
}

static void decode_q4_1(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q4_1), block_q4_1);
}

static void decode_q5_0(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q5_0), block_q5_0);
}

static void decode_q5_1(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q5_1), block_q5_1);
}

static void decode_iq4_nl(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_iq4_nl), block_iq4_nl);
}

static void decode_q8_0(const void *src, float *dst, size_t n)
{
    decode_blocks(src, dst, n, sizeof(struct kvg_block_q8_0), block_q8_0);
}

static void decode_f16(const void *src, float *dst, size_t n)
{
    const uint8_t *b = src;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, load_f16(b + 2 * i));
    kvg_quant_decode_f16(b + 2 * i, dst + i, n - i);
}

static void decode_bf16(const void *src, float *dst, size_t n)
{
    const uint8_t *b = src;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, load_bf16(b + 2 * i));
    kvg_quant_decode_bf16(b + 2 * i, dst + i, n - i);
}

static void encode_f16(const float *src, void *dst, size_t n)
{
    uint8_t *b = dst;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((__m128i *)(void *)(b + 2 * i), h);
    }
    kvg_quant_encode_f16(src + i, b + 2 * i, n - i);
}

KVG_INLINE __m256 absolute(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

KVG_INLINE float max8(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

KVG_INLINE float max_abs32(const float *x)
{
    __m256 a = _mm256_max_ps(absolute(_mm256_loadu_ps(x)), absolute(_mm256_loadu_ps(x + 8)));
    __m256 b = _mm256_max_ps(absolute(_mm256_loadu_ps(x + 16)), absolute(_mm256_loadu_ps(x + 24)));
    return max8(_mm256_max_ps(a, b));
}

/* Half away from zero, as roundf. */
KVG_INLINE __m256i round_codes(__m256 v)
{
    __m256 t = _mm256_round_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m256 away = _mm256_cmp_ps(absolute(_mm256_sub_ps(v, t)), _mm256_set1_ps(0.5f), _CMP_GE_OQ);
    __m256 one = _mm256_or_ps(_mm256_and_ps(v, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(1.0f));
    return _mm256_cvttps_epi32(_mm256_add_ps(t, _mm256_and_ps(away, one)));
}

/* The low bytes of eight 32-bit values within -128..127. */
KVG_INLINE void store_bytes(void *dst, __m256i q)
{
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64(dst, _mm_packs_epi16(w, w));
}

static void encode_q8_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q8_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        float d = max_abs32(src) / 127.0f;
        __m256 id = _mm256_set1_ps(kvg_quant_inverse(d));
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < KVG_QK; i += 8)
            store_bytes(b->qs + i, round_codes(_mm256_mul_ps(_mm256_loadu_ps(src + i), id)));
    }
}

/* trunc(x * id + 8.5) in double, clipped to 0..15; four at a time. */
KVG_INLINE __m128i q4_codes(const float *x, __m256d id)
{
    __m256d v = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(x)), id, _mm256_set1_pd(8.5));
    __m128i q = _mm256_cvttpd_epi32(v);
    return _mm_max_epi32(_mm_min_epi32(q, _mm_set1_epi32(15)), _mm_setzero_si128());
}

static void encode_q4_0(const float *src, void *dst, size_t n)
{
    struct kvg_block_q4_0 *b = dst;
    for (; n; n -= KVG_QK, b++, src += KVG_QK) {
        __m256 max = _mm256_set1_ps(max_abs32(src));
        unsigned at = 1u << 31;
        for (int i = 0; i < KVG_QK; i += 8) {
            __m256 hit = _mm256_cmp_ps(absolute(_mm256_loadu_ps(src + i)), max, _CMP_EQ_OQ);
            at |= (unsigned)_mm256_movemask_ps(hit) << i;
        }
        float d = src[__builtin_ctz(at)] / -8.0f;
        __m256d id = _mm256_set1_pd((double)kvg_quant_inverse(d));
        kvg_quant_put_f16(b->d, d);
        for (int i = 0; i < 16; i += 4) {
            __m128i q =
                _mm_or_si128(q4_codes(src + i, id), _mm_slli_epi32(q4_codes(src + i + 16, id), 4));
            const __m128i low_bytes =
                _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
            int four = _mm_cvtsi128_si32(_mm_shuffle_epi8(q, low_bytes));
            memcpy(b->qs + i, &four, 4);
        }
    }
}

/* v * 2^n for integral n in -252..254: in two steps, since one factor reaches 2^127 only. */
KVG_INLINE __m256 scale2(__m256 v, __m256 n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i e = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(e, 1);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

/* e^(x + lo) for x <= 0 and |lo| far below 1; relative error under 1e-7 where the result is normal.
 * 2^n e^r with |r| <= ln2 / 2, e^r by its Taylor polynomial of degree 7 (remainder 6e-9). */
KVG_INLINE __m256 exp8(__m256 x, __m256 lo)
{
    x = _mm256_max_ps(x, _mm256_set1_ps(-150.0f)); /* the result is 0 there */
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    r = _mm256_add_ps(r, lo);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r);
    return scale2(_mm256_add_ps(p, _mm256_set1_ps(1.0f)), n);
}

/* e^(x - max) with the rounding error of the difference carried along. The clamp keeps -inf from
 * becoming NaN. */
KVG_INLINE __m256 exp_below(__m256 x, __m256 max)
{
    x = _mm256_max_ps(x, _mm256_sub_ps(max, _mm256_set1_ps(150.0f)));
    __m256 s = _mm256_sub_ps(x, max);
    __m256 back = _mm256_sub_ps(s, x);
    __m256 lo = _mm256_sub_ps(_mm256_sub_ps(x, _mm256_sub_ps(s, back)), _mm256_add_ps(max, back));
    return exp8(s, lo);
}

/* Eight floats as four sums of two, in double. */
KVG_INLINE __m256d fold(__m256 v)
{
    return _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(v)),
                         _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
}

KVG_INLINE double sum4(__m256d v)
{
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

static void softmax(float *x, size_t n, float scale)
{
    __m256 top = _mm256_set1_ps(-INFINITY), f = _mm256_set1_ps(scale);
    __m256d sums = _mm256_setzero_pd();
    for (size_t i = 0; i < n; i += 8) {
        __m256i m = lanes(n - i);
        __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + i, m), f);
        top = _mm256_blendv_ps(top, _mm256_max_ps(top, v), _mm256_castsi256_ps(m));
        _mm256_maskstore_ps(x + i, m, v);
    }
    __m256 max = _mm256_set1_ps(max8(top));
    for (size_t i = 0; i < n; i += 8) {
        __m256i m = lanes(n - i);
        __m256 e = exp_below(_mm256_maskload_ps(x + i, m), max);
        e = _mm256_and_ps(e, _mm256_castsi256_ps(m));
        sums = _mm256_add_pd(sums, fold(e));
        _mm256_maskstore_ps(x + i, m, e);
    }
    __m256 inverse = _mm256_set1_ps((float)(1.0 / sum4(sums)));
    for (size_t i = 0; i < n; i += 8) {
        __m256i m = lanes(n - i);
        _mm256_maskstore_ps(x + i, m, _mm256_mul_ps(_mm256_maskload_ps(x + i, m), inverse));
    }
}

/* gate * e / (1 + e) with e = e^gate where gate < 0, so that nothing overflows. */
static void swiglu(const float *gate, const float *up, size_t n, float *out)
{
    const __m256 one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        __m256i m = lanes(n - i);
        __m256 g = _mm256_maskload_ps(gate + i, m), u = _mm256_maskload_ps(up + i, m);
        __m256 e = exp8(_mm256_sub_ps(zero, absolute(g)), zero);
        __m256 top = _mm256_blendv_ps(g, _mm256_mul_ps(g, e), g);
        __m256 v = _mm256_mul_ps(_mm256_div_ps(top, _mm256_add_ps(one, e)), u);
        _mm256_maskstore_ps(out + i, m, v);
    }
}

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *out)
{
    __m256d a = _mm256_setzero_pd(), b = a;
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_maskload_ps(x + i, lanes(n - i));
        __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
        __m256d hi = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
        a = _mm256_fmadd_pd(lo, lo, a);
        b = _mm256_fmadd_pd(hi, hi, b);
    }
    double mean = sum4(_mm256_add_pd(a, b)) / (double)n;
    __m256 scale = _mm256_set1_ps((float)(1.0 / sqrt(mean + (double)eps)));
    for (size_t i = 0; i < n; i += 8) {
        __m256i m = lanes(n - i);
        __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + i, m), scale);
        _mm256_maskstore_ps(out + i, m, _mm256_mul_ps(v, _mm256_maskload_ps(w + i, m)));
    }
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256i m = lanes(n - i);
        __m256 v = _mm256_add_ps(_mm256_maskload_ps(y + i, m), _mm256_maskload_ps(x + i, m));
        _mm256_maskstore_ps(y + i, m, v);
    }
}

static void rope(float *x, const float *cos_h, const float *sin_h, size_t d)
{
    size_t h = d / 2;
    for (size_t i = 0; i < h; i += 8) {
        __m256i m = lanes(h - i);
        __m256 a = _mm256_maskload_ps(x + i, m), b = _mm256_maskload_ps(x + h + i, m);
        __m256 c = _mm256_maskload_ps(cos_h + i, m), s = _mm256_maskload_ps(sin_h + i, m);
        _mm256_maskstore_ps(x + i, m, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_maskstore_ps(x + h + i, m, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

static const struct kvg_kernels table = {
    .name = "avx2",
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
    .matvec = {KVG_LEVEL_MATVEC(avx2)},
    .attn_dot = {KVG_LEVEL_ATTN(avx2, dot)},
    .attn_acc = {KVG_LEVEL_ATTN(avx2, acc)},
    .affine = kvg_avx2_affine,
    .lookup = kvg_avx2_lookup,
    .hadamard = kvg_avx2_hadamard,
    .rmsnorm = rmsnorm,
    .softmax = softmax,
    .swiglu = swiglu,
    .add = add,
    .rope = rope,
};

const struct kvg_kernels *kvg_kernels_avx2(void)
{
    return &table;
}
