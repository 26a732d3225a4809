/* The numeric kernels: one table of function pointers per CPU level. `ref` is plain C that
 * accumulates in double and is the truth; the others are checked against it at every tail length.
 *
 * Row kernels are batch-invariant: an output has the same bits whether its row is computed alone,
 * among n_x rows, or by another thread. All pointers may be unaligned; counts may be 0. */
#ifndef KVG_KERNEL_KERNEL_H
#define KVG_KERNEL_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Element types, numbered as in GGUF (ggml_type). Blocks: ggml-quants of llama.cpp define them. */
enum kvg_type {
    KVG_F32 = 0,
    KVG_F16 = 1,
    KVG_Q4_0 = 2,
    KVG_Q4_1 = 3,
    KVG_Q5_0 = 6,
    KVG_Q5_1 = 7,
    KVG_Q8_0 = 8,
    KVG_Q4_K = 12,
    KVG_Q5_K = 13,
    KVG_Q6_K = 14,
    KVG_IQ4_NL = 20,
    KVG_BF16 = 30,
    KVG_TYPE_N = 31
};

struct kvg_type_info {
    const char *name;     /* "q4_1"; NULL = not supported */
    uint16_t block_elems; /* elements in a block */
    uint16_t block_bytes;
};
/* NULL when the type is unknown or not supported. */
const struct kvg_type_info *kvg_type_info(uint32_t type);
/* Bytes of a row of n elements; n must be a whole number of blocks. */
size_t kvg_type_row_bytes(enum kvg_type type, size_t n);

/* Rows of packed codes whose element c of row j is zero + code * scale. Codes of 2, 4 or 8 bits lie
 * low bits first, row j at codes + j * row_bytes. Scales and zeros are f16, those of row j begin at
 * scale + j * scale_step (0: all rows share them), and `share` elements in a row have the same one:
 * 1, or a multiple of 32. */
struct kvg_affine {
    unsigned bits;
    const void *codes, *scale, *zero;
    size_t row_bytes, scale_step, share;
};

struct kvg_kernels {
    const char *name; /* "ref", "avx2", "avx512" */

    /* Decodes n elements (whole blocks) to f32; exactly the ggml formula, evaluated in f32. All
     * weight types. */
    void (*decode[KVG_TYPE_N])(const void *src, float *dst, size_t n);
    /* Encodes n elements (whole blocks) in the forms a KV store has: f32, f16, bf16, q8_0, q5_0,
     * q5_1, q4_0, q4_1, iq4_nl; the arithmetic is in quant.h. NULL otherwise. */
    void (*encode[KVG_TYPE_N])(const float *src, void *dst, size_t n);

    /* y[t*ldy + r] = sum_k W[r][k] x[t*ldx + k], W [n_rows, n_cols] rows of row_bytes, x [n_x,
     * n_cols] f32 activations straight on the packed weights. All weight types. */
    void (*matvec[KVG_TYPE_N])(const void *w, size_t row_bytes, size_t n_rows, size_t n_cols,
                               const float *x, size_t ldx, size_t n_x, float *y, size_t ldy);

    /* Attention against one tile of consecutive cache rows of d elements, in the forms that can be
     * encoded. attn_dot: s[g*lds + j] = sum_c q[g*d + c] k[j][c], q [n_q, d], n_q =
     * query heads of the group. attn_acc: o[g*d + c] += sum_j p[g*ldp + j] v[j][c], in ascending
     * j with one rounding per slot, so that cutting a range of slots changes no bit. d is a
     * multiple of 32. */
    void (*attn_dot[KVG_TYPE_N])(const void *k, size_t row_bytes, size_t n_slots, size_t d,
                                 const float *q, size_t n_q, float *s, size_t lds);
    void (*attn_acc[KVG_TYPE_N])(const void *v, size_t row_bytes, size_t n_slots, size_t d,
                                 const float *p, size_t ldp, size_t n_q, float *o);

    /* Rows of packed codes to f32 [n_rows, d]; d is a multiple of 32. */
    void (*affine)(const struct kvg_affine *a, size_t n_rows, size_t d, float *out);
    /* out[i] = book[code i] * scale, n codes of 1 to 4 bits packed tightly, low bits first; n is a
     * multiple of 32. */
    void (*lookup)(unsigned bits, const void *codes, const float book[16], float scale, float *out,
                   size_t n);
    /* In place: every `block` elements times the orthonormal Walsh-Hadamard matrix, which is its own
     * inverse. block is a power of two, at least 32, and divides n. All levels give the same bits. */
    void (*hadamard)(float *x, size_t n, size_t block);

    /* out[i] = x[i] / sqrt(mean(x^2) + eps) * w[i]; out may be x. */
    void (*rmsnorm)(const float *x, const float *w, size_t n, float eps, float *out);
    /* In place: x[i] = exp(scale*x[i] - max) / sum. n >= 1. */
    void (*softmax)(float *x, size_t n, float scale);
    /* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; out may be gate. */
    void (*swiglu)(const float *gate, const float *up, size_t n, float *out);
    /* y[i] += x[i] */
    void (*add)(float *y, const float *x, size_t n);
    /* Rotates one head row in place, half-split pairs (i, i + d/2):
     * x'[i] = x[i] c[i] - x[i+h] s[i];  x'[i+h] = x[i+h] c[i] + x[i] s[i];  h = d/2. */
    void (*rope)(float *x, const float *cos_h, const float *sin_h, size_t d);
};

/* The table of a level, or NULL when this CPU or build does not have it. `level`: "ref", "avx2",
 * "avx512", or "auto" = the best this CPU runs. */
const struct kvg_kernels *kvg_kernels_get(const char *level);
/* Names of the levels this CPU can run, NULL-terminated, slowest first. */
const char *const *kvg_kernels_levels(void);

/* One file each; NULL when not compiled in. */
const struct kvg_kernels *kvg_kernels_ref(void);
const struct kvg_kernels *kvg_kernels_avx2(void);
const struct kvg_kernels *kvg_kernels_avx512(void);

float kvg_f16_to_f32(uint16_t h);
uint16_t kvg_f32_to_f16(float f); /* round to nearest even */

#endif
