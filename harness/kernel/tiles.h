/* Shared by the SIMD levels: how a product is cut into tiles whose size the compiler knows, and the
 * signatures of entry points that sit in other files than their level's table. Must not know
 * vectors. */
#ifndef KVG_KERNEL_TILES_H
#define KVG_KERNEL_TILES_H

#include "kernel/codes.h"
#include "kernel/quant.h"

#define KVG_INLINE static inline __attribute__((always_inline))

/* What a tile of a matvec works on: its first row, activation and output. */
struct span {
    const uint8_t *w;
    size_t row_bytes, n_cols;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
};

/* Covers n_rows x n_x outputs of a matvec with tiles of NR or 1 rows and NX or 1 activations.
 * TILE(nr, nx) works on the span `a`. */
#define KVG_TILES(NR, NX, TILE)                                                                    \
    for (size_t r = 0, nr; r < n_rows; r += nr) {                                                  \
        nr = n_rows - r >= NR ? NR : 1;                                                            \
        for (size_t t = 0, nx; t < n_x; t += nx) {                                                 \
            nx = n_x - t >= NX ? NX : 1;                                                           \
            struct span a = {(const uint8_t *)w + r * row_bytes,                                   \
                             row_bytes,                                                            \
                             n_cols,                                                               \
                             x + t * ldx,                                                          \
                             ldx,                                                                  \
                             y + t * ldy + r,                                                      \
                             ldy};                                                                 \
            if (nr == NR && nx == NX)                                                              \
                TILE(NR, NX);                                                                      \
            else if (nr == NR)                                                                     \
                TILE(NR, 1);                                                                       \
            else if (nx == NX)                                                                     \
                TILE(1, NX);                                                                       \
            else                                                                                   \
                TILE(1, 1);                                                                        \
        }                                                                                          \
    }

/* Runs TILE(n) for up to four of the n_q heads at a time; g is the first. */
#define KVG_HEADS(TILE)                                                                            \
    for (size_t g = 0; g < n_q; g += 4) {                                                          \
        switch (n_q - g) {                                                                         \
        case 1:                                                                                    \
            TILE(1);                                                                               \
            break;                                                                                 \
        case 2:                                                                                    \
            TILE(2);                                                                               \
            break;                                                                                 \
        case 3:                                                                                    \
            TILE(3);                                                                               \
            break;                                                                                 \
        default:                                                                                   \
            TILE(4);                                                                               \
        }                                                                                          \
    }

#define KVG_MATVEC(level, t)                                                                       \
    void kvg_##level##_matvec_##t(const void *w, size_t row_bytes, size_t n_rows, size_t n_cols,   \
                                  const float *x, size_t ldx, size_t n_x, float *y, size_t ldy)
#define KVG_ATTN_DOT(level, t)                                                                     \
    void kvg_##level##_attn_dot_##t(const void *k, size_t row_bytes, size_t n_slots, size_t d,     \
                                    const float *q, size_t n_q, float *s, size_t lds)
#define KVG_ATTN_ACC(level, t)                                                                     \
    void kvg_##level##_attn_acc_##t(const void *v, size_t row_bytes, size_t n_slots, size_t d,     \
                                    const float *p, size_t ldp, size_t n_q, float *o)

#define KVG_LEVEL_ENTRIES(level)                                                                   \
    KVG_CODES_ENTRIES(level)                                                                       \
    KVG_MATVEC(level, f32);                                                                        \
    KVG_MATVEC(level, f16);                                                                        \
    KVG_MATVEC(level, bf16);                                                                       \
    KVG_MATVEC(level, q8_0);                                                                       \
    KVG_MATVEC(level, q4_0);                                                                       \
    KVG_MATVEC(level, q4_1);                                                                       \
    KVG_MATVEC(level, q5_0);                                                                       \
    KVG_MATVEC(level, q5_1);                                                                       \
    KVG_MATVEC(level, q4_k);                                                                       \
    KVG_MATVEC(level, q5_k);                                                                       \
    KVG_MATVEC(level, q6_k);                                                                       \
    KVG_MATVEC(level, iq4_nl);                                                                     \
    KVG_ATTN_DOT(level, f32);                                                                      \
    KVG_ATTN_DOT(level, f16);                                                                      \
    KVG_ATTN_DOT(level, q8_0);                                                                     \
    KVG_ATTN_DOT(level, q4_0);                                                                     \
    KVG_ATTN_DOT(level, bf16);                                                                     \
    KVG_ATTN_DOT(level, q4_1);                                                                     \
    KVG_ATTN_DOT(level, q5_0);                                                                     \
    KVG_ATTN_DOT(level, q5_1);                                                                     \
    KVG_ATTN_DOT(level, iq4_nl);                                                                   \
    KVG_ATTN_ACC(level, f32);                                                                      \
    KVG_ATTN_ACC(level, f16);                                                                      \
    KVG_ATTN_ACC(level, q8_0);                                                                     \
    KVG_ATTN_ACC(level, q4_0);                                                                     \
    KVG_ATTN_ACC(level, bf16);                                                                     \
    KVG_ATTN_ACC(level, q4_1);                                                                     \
    KVG_ATTN_ACC(level, q5_0);                                                                     \
    KVG_ATTN_ACC(level, q5_1);                                                                     \
    KVG_ATTN_ACC(level, iq4_nl);

/* Initialisers of a level's table for the entries above. */
#define KVG_LEVEL_MATVEC(level)                                                                    \
    [KVG_F32] = kvg_##level##_matvec_f32, [KVG_F16] = kvg_##level##_matvec_f16,                    \
    [KVG_BF16] = kvg_##level##_matvec_bf16, [KVG_Q8_0] = kvg_##level##_matvec_q8_0,                \
    [KVG_Q4_0] = kvg_##level##_matvec_q4_0, [KVG_Q4_1] = kvg_##level##_matvec_q4_1,                \
    [KVG_Q5_0] = kvg_##level##_matvec_q5_0, [KVG_Q5_1] = kvg_##level##_matvec_q5_1,                \
    [KVG_Q4_K] = kvg_##level##_matvec_q4_k, [KVG_Q5_K] = kvg_##level##_matvec_q5_k,                \
    [KVG_Q6_K] = kvg_##level##_matvec_q6_k, [KVG_IQ4_NL] = kvg_##level##_matvec_iq4_nl
#define KVG_LEVEL_ATTN(level, what)                                                                \
    [KVG_F32] = kvg_##level##_attn_##what##_f32, [KVG_F16] = kvg_##level##_attn_##what##_f16,      \
    [KVG_Q8_0] = kvg_##level##_attn_##what##_q8_0, [KVG_Q4_0] = kvg_##level##_attn_##what##_q4_0,  \
    [KVG_BF16] = kvg_##level##_attn_##what##_bf16, [KVG_Q4_1] = kvg_##level##_attn_##what##_q4_1,  \
    [KVG_Q5_0] = kvg_##level##_attn_##what##_q5_0, [KVG_Q5_1] = kvg_##level##_attn_##what##_q5_1,  \
    [KVG_IQ4_NL] = kvg_##level##_attn_##what##_iq4_nl

#endif
