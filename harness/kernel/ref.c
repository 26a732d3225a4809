/* Owns the reference level: plain C that accumulates in double, in ascending order. It is what the
 * other levels are checked against and what the scalar build runs with. Must not know SIMD. */
#include "kernel/codes.h"
#include "kernel/kernel.h"
#include "kernel/quant.h"

#include <math.h>

/* Elements decoded at a time: the largest block, and a multiple of all others. */
enum { CHUNK = KVG_QK_K, ROWS = 4, XS = 8 };

/* acc[r][t] += w[r] . x[t] over n elements; four chains keep the adder busy. */
static void chunk_dots(float w[ROWS][CHUNK], size_t n, const float *x, size_t ldx, size_t n_x,
                       double acc[ROWS][XS])
{
    for (size_t t = 0; t < n_x; t++) {
        double a0 = acc[0][t], a1 = acc[1][t], a2 = acc[2][t], a3 = acc[3][t];
        for (size_t k = 0; k < n; k++) {
            double v = (double)x[t * ldx + k];
            a0 += (double)w[0][k] * v;
            a1 += (double)w[1][k] * v;
            a2 += (double)w[2][k] * v;
            a3 += (double)w[3][k] * v;
        }
        acc[0][t] = a0;
        acc[1][t] = a1;
        acc[2][t] = a2;
        acc[3][t] = a3;
    }
}

static void matvec(enum kvg_type type, kvg_quant_decode_fn decode, const void *w, size_t row_bytes,
                   size_t n_rows, size_t n_cols, const float *x, size_t ldx, size_t n_x, float *y,
                   size_t ldy)
{
    for (size_t r0 = 0; r0 < n_rows; r0 += ROWS) {
        size_t nr = n_rows - r0 < ROWS ? n_rows - r0 : ROWS;
        for (size_t t0 = 0; t0 < n_x; t0 += XS) {
            size_t nt = n_x - t0 < XS ? n_x - t0 : XS;
            float buf[ROWS][CHUNK] = {{0}};
            double acc[ROWS][XS] = {{0}};
            for (size_t k = 0; k < n_cols; k += CHUNK) {
                size_t n = n_cols - k < CHUNK ? n_cols - k : CHUNK;
                size_t at = kvg_type_row_bytes(type, k);
                for (size_t r = 0; r < nr; r++)
                    decode((const uint8_t *)w + (r0 + r) * row_bytes + at, buf[r], n);
                chunk_dots(buf, n, x + t0 * ldx + k, ldx, nt, acc);
            }
            for (size_t r = 0; r < nr; r++)
                for (size_t t = 0; t < nt; t++)
                    y[(t0 + t) * ldy + r0 + r] = (float)acc[r][t];
        }
    }
}

static void attn_dot(enum kvg_type type, kvg_quant_decode_fn decode, const void *k,
                     size_t row_bytes, size_t n_slots, size_t d, const float *q, size_t n_q,
                     float *s, size_t lds)
{
    for (size_t j = 0; j < n_slots; j++) {
        const uint8_t *row = (const uint8_t *)k + j * row_bytes;
        for (size_t g0 = 0; g0 < n_q; g0 += XS) {
            size_t ng = n_q - g0 < XS ? n_q - g0 : XS;
            double acc[XS] = {0};
            for (size_t c = 0; c < d; c += KVG_QK) {
                float buf[KVG_QK];
                decode(row + kvg_type_row_bytes(type, c), buf, KVG_QK);
                for (size_t g = 0; g < ng; g++)
                    for (size_t i = 0; i < KVG_QK; i++)
                        acc[g] += (double)q[(g0 + g) * d + c + i] * (double)buf[i];
            }
            for (size_t g = 0; g < ng; g++)
                s[(g0 + g) * lds + j] = (float)acc[g];
        }
    }
}

/* Rounds once per slot, as the vector kernels do: a range cut in two gives the same bits. */
static void attn_acc(enum kvg_type type, kvg_quant_decode_fn decode, const void *v,
                     size_t row_bytes, size_t n_slots, size_t d, const float *p, size_t ldp,
                     size_t n_q, float *o)
{
    for (size_t g0 = 0; g0 < n_q; g0 += XS) {
        size_t ng = n_q - g0 < XS ? n_q - g0 : XS;
        for (size_t c = 0; c < d; c += KVG_QK)
            for (size_t j = 0; j < n_slots; j++) {
                float buf[KVG_QK];
                decode((const uint8_t *)v + j * row_bytes + kvg_type_row_bytes(type, c), buf,
                       KVG_QK);
                for (size_t g = 0; g < ng; g++) {
                    double weight = (double)p[(g0 + g) * ldp + j];
                    float *out = o + (g0 + g) * d + c;
                    for (size_t i = 0; i < KVG_QK; i++)
                        out[i] = (float)((double)out[i] + weight * (double)buf[i]);
                }
            }
    }
}

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *out)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    double scale = 1.0 / sqrt(sum / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((double)x[i] * scale * (double)w[i]);
}

static void softmax(float *x, size_t n, float scale)
{
    float max = -INFINITY;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        x[i] *= scale;
        max = fmaxf(max, x[i]);
    }
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)max);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(exp((double)x[i] - (double)max) / sum);
}

static void swiglu(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double g = (double)gate[i];
        out[i] = (float)(g / (1.0 + exp(-g)) * (double)up[i]);
    }
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void rope(float *x, const float *cos_h, const float *sin_h, size_t d)
{
    size_t h = d / 2;
    for (size_t i = 0; i < h; i++) {
        double a = (double)x[i], b = (double)x[i + h];
        double c = (double)cos_h[i], s = (double)sin_h[i];
        x[i] = (float)(a * c - b * s);
        x[i + h] = (float)(b * c + a * s);
    }
}

#define TYPE_MATVEC(T, t)                                                                          \
    static void matvec_##t(const void *w, size_t row_bytes, size_t n_rows, size_t n_cols,          \
                           const float *x, size_t ldx, size_t n_x, float *y, size_t ldy)           \
    {                                                                                              \
        matvec(KVG_##T, kvg_quant_decode_##t, w, row_bytes, n_rows, n_cols, x, ldx, n_x, y, ldy);  \
    }
#define TYPE_ATTN(T, t)                                                                            \
    static void attn_dot_##t(const void *k, size_t row_bytes, size_t n_slots, size_t d,            \
                             const float *q, size_t n_q, float *s, size_t lds)                     \
    {                                                                                              \
        attn_dot(KVG_##T, kvg_quant_decode_##t, k, row_bytes, n_slots, d, q, n_q, s, lds);         \
    }                                                                                              \
    static void attn_acc_##t(const void *v, size_t row_bytes, size_t n_slots, size_t d,            \
                             const float *p, size_t ldp, size_t n_q, float *o)                     \
    {                                                                                              \
        attn_acc(KVG_##T, kvg_quant_decode_##t, v, row_bytes, n_slots, d, p, ldp, n_q, o);         \
    }

TYPE_MATVEC(F32, f32)
TYPE_MATVEC(F16, f16)
TYPE_MATVEC(BF16, bf16)
TYPE_MATVEC(Q8_0, q8_0)
TYPE_MATVEC(Q4_0, q4_0)
TYPE_MATVEC(Q4_1, q4_1)
TYPE_MATVEC(Q5_0, q5_0)
TYPE_MATVEC(Q5_1, q5_1)
TYPE_MATVEC(Q4_K, q4_k)
TYPE_MATVEC(Q5_K, q5_k)
TYPE_MATVEC(Q6_K, q6_k)
TYPE_MATVEC(IQ4_NL, iq4_nl)
TYPE_ATTN(F32, f32)
TYPE_ATTN(F16, f16)
TYPE_ATTN(Q8_0, q8_0)
TYPE_ATTN(Q4_0, q4_0)
TYPE_ATTN(BF16, bf16)
TYPE_ATTN(Q4_1, q4_1)
TYPE_ATTN(Q5_0, q5_0)
TYPE_ATTN(Q5_1, q5_1)
TYPE_ATTN(IQ4_NL, iq4_nl)

static const struct kvg_kernels table = {
    .name = "ref",
    .decode = {[KVG_F32] = kvg_quant_decode_f32,
               [KVG_F16] = kvg_quant_decode_f16,
               [KVG_BF16] = kvg_quant_decode_bf16,
               [KVG_Q8_0] = kvg_quant_decode_q8_0,
               [KVG_Q4_0] = kvg_quant_decode_q4_0,
               [KVG_Q4_1] = kvg_quant_decode_q4_1,
               [KVG_Q5_0] = kvg_quant_decode_q5_0,
               [KVG_Q5_1] = kvg_quant_decode_q5_1,
               [KVG_Q4_K] = kvg_quant_decode_q4_k,
               [KVG_Q5_K] = kvg_quant_decode_q5_k,
               [KVG_Q6_K] = kvg_quant_decode_q6_k,
               [KVG_IQ4_NL] = kvg_quant_decode_iq4_nl},
    .encode = {[KVG_F32] = kvg_quant_encode_f32,
               [KVG_F16] = kvg_quant_encode_f16,
               [KVG_Q8_0] = kvg_quant_encode_q8_0,
               [KVG_Q4_0] = kvg_quant_encode_q4_0,
               [KVG_BF16] = kvg_quant_encode_bf16,
               [KVG_Q4_1] = kvg_quant_encode_q4_1,
               [KVG_Q5_0] = kvg_quant_encode_q5_0,
               [KVG_Q5_1] = kvg_quant_encode_q5_1,
               [KVG_IQ4_NL] = kvg_quant_encode_iq4_nl},
    .matvec = {[KVG_F32] = matvec_f32,
               [KVG_F16] = matvec_f16,
               [KVG_BF16] = matvec_bf16,
               [KVG_Q8_0] = matvec_q8_0,
               [KVG_Q4_0] = matvec_q4_0,
               [KVG_Q4_1] = matvec_q4_1,
               [KVG_Q5_0] = matvec_q5_0,
               [KVG_Q5_1] = matvec_q5_1,
               [KVG_Q4_K] = matvec_q4_k,
               [KVG_Q5_K] = matvec_q5_k,
               [KVG_Q6_K] = matvec_q6_k,
               [KVG_IQ4_NL] = matvec_iq4_nl},
    .attn_dot = {[KVG_F32] = attn_dot_f32,
                 [KVG_F16] = attn_dot_f16,
                 [KVG_Q8_0] = attn_dot_q8_0,
                 [KVG_Q4_0] = attn_dot_q4_0,
                 [KVG_BF16] = attn_dot_bf16,
                 [KVG_Q4_1] = attn_dot_q4_1,
                 [KVG_Q5_0] = attn_dot_q5_0,
                 [KVG_Q5_1] = attn_dot_q5_1,
                 [KVG_IQ4_NL] = attn_dot_iq4_nl},
    .attn_acc = {[KVG_F32] = attn_acc_f32,
                 [KVG_F16] = attn_acc_f16,
                 [KVG_Q8_0] = attn_acc_q8_0,
                 [KVG_Q4_0] = attn_acc_q4_0,
                 [KVG_BF16] = attn_acc_bf16,
                 [KVG_Q4_1] = attn_acc_q4_1,
                 [KVG_Q5_0] = attn_acc_q5_0,
                 [KVG_Q5_1] = attn_acc_q5_1,
                 [KVG_IQ4_NL] = attn_acc_iq4_nl},
    .affine = kvg_codes_affine,
    .lookup = kvg_codes_lookup,
    .hadamard = kvg_codes_hadamard,
    .rmsnorm = rmsnorm,
    .softmax = softmax,
    .swiglu = swiglu,
    .add = add,
    .rope = rope,
};

const struct kvg_kernels *kvg_kernels_ref(void)
{
    return &table;
}
