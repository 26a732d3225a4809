/* Owns the AVX-512 products of packed rows with f32 activations. Must not know which matrix or
 * layer is multiplied.
 *
 * An output is always the same chain: one accumulator of 16 lanes that takes the 16-element groups
 * of the row in ascending order, then one fixed reduction. Tiles only decide which chains run side
 * by side, so its bits depend on nothing but its own row and activations. */
#include "kernel/avx512.h"

enum { ROWS = 4, XS = 4 };

typedef void (*quad_scales_fn)(const uint8_t *b, size_t n, struct quad *s);
typedef struct pair (*block_fn)(const uint8_t *b, const float *d, const float *m);
typedef __m512 (*load_fn)(const uint8_t *p, __mmask16 m);

KVG_INLINE void store_sums(const struct span *a, int nr, int nx, __m512 acc[ROWS][XS])
{
#pragma GCC unroll 4
    for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
        for (int t = 0; t < nx; t++)
            a->y[(size_t)t * a->ldy + (size_t)r] = _mm512_reduce_add_ps(acc[r][t]);
}

/* One block of 32 of nr rows against nx activations. */
KVG_INLINE void block_step(const struct span *a, int nr, int nx, size_t at, size_t i, size_t col,
                           const struct quad *s, block_fn block, __m512 acc[ROWS][XS])
{
    struct pair w[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < nr; r++)
        w[r] = block(a->w + (size_t)r * a->row_bytes + at, &s[r].d[i], &s[r].m[i]);
#pragma GCC unroll 4
    for (int t = 0; t < nx; t++) {
        __m512 lo = _mm512_loadu_ps(a->x + (size_t)t * a->ldx + col);
        __m512 hi = _mm512_loadu_ps(a->x + (size_t)t * a->ldx + col + 16);
#pragma GCC unroll 4
        for (int r = 0; r < nr; r++)
            acc[r][t] = _mm512_fmadd_ps(w[r].hi, hi, _mm512_fmadd_ps(w[r].lo, lo, acc[r][t]));
    }
}

KVG_INLINE void block_tile(const struct span *a, int nr, int nx, size_t block_bytes,
                           quad_scales_fn scales, block_fn block)
{
    __m512 acc[ROWS][XS];
    struct quad s[ROWS];
    size_t n_blocks = a->n_cols / KVG_QK, b = 0;
#pragma GCC unroll 4
    for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
        for (int t = 0; t < nx; t++)
            acc[r][t] = _mm512_setzero_ps();
    for (; b + QUAD <= n_blocks; b += QUAD) {
#pragma GCC unroll 4
        for (int r = 0; r < nr; r++)
            scales(a->w + (size_t)r * a->row_bytes + b * block_bytes, QUAD, &s[r]);
#pragma GCC unroll 4
        for (size_t i = 0; i < QUAD; i++)
            block_step(a, nr, nx, (b + i) * block_bytes, i, (b + i) * KVG_QK, s, block, acc);
    }
    if (b < n_blocks) {
#pragma GCC unroll 4
        for (int r = 0; r < nr; r++)
            scales(a->w + (size_t)r * a->row_bytes + b * block_bytes, n_blocks - b, &s[r]);
        for (size_t i = 0; b + i < n_blocks; i++)
            block_step(a, nr, nx, (b + i) * block_bytes, i, (b + i) * KVG_QK, s, block, acc);
    }
    store_sums(a, nr, nx, acc);
}

/* Unpacked types: 16 elements at a time, the tail masked. */
KVG_INLINE void float_tile(const struct span *a, int nr, int nx, size_t elem_bytes, load_fn load)
{
    __m512 acc[ROWS][XS];
#pragma GCC unroll 4
    for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
        for (int t = 0; t < nx; t++)
            acc[r][t] = _mm512_setzero_ps();
    for (size_t k = 0; k < a->n_cols; k += 16) {
        __mmask16 m = lanes(a->n_cols - k);
        __m512 w[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < nr; r++)
            w[r] = load(a->w + (size_t)r * a->row_bytes + k * elem_bytes, m);
#pragma GCC unroll 4
        for (int t = 0; t < nx; t++) {
            __m512 x = _mm512_maskz_loadu_ps(m, a->x + (size_t)t * a->ldx + k);
#pragma GCC unroll 4
            for (int r = 0; r < nr; r++)
                acc[r][t] = _mm512_fmadd_ps(w[r], x, acc[r][t]);
        }
    }
    store_sums(a, nr, nx, acc);
}

/* Rarer packed types: a chunk of one row is decoded to a buffer and multiplied from there. */
KVG_INLINE void decoded_tile(const struct span *a, int nx, const struct kvg_type_info *type,
                             kvg_quant_decode_fn decode)
{
    __m512 acc[ROWS][XS];
#pragma GCC unroll 4
    for (int t = 0; t < nx; t++)
        acc[0][t] = _mm512_setzero_ps();
    for (size_t k = 0; k < a->n_cols; k += KVG_QK_K) {
        float w[KVG_QK_K];
        size_t n = a->n_cols - k < KVG_QK_K ? a->n_cols - k : KVG_QK_K;
        decode(a->w + k / type->block_elems * type->block_bytes, w, n);
        for (size_t i = 0; i < n; i += 16)
#pragma GCC unroll 4
            for (int t = 0; t < nx; t++)
                acc[0][t] =
                    _mm512_fmadd_ps(_mm512_loadu_ps(w + i),
                                    _mm512_loadu_ps(a->x + (size_t)t * a->ldx + k + i), acc[0][t]);
    }
    store_sums(a, 1, nx, acc);
}

#define BLOCK_MATVEC(t)                                                                            \
    KVG_MATVEC(avx512, t)                                                                          \
    {                                                                                              \
        const size_t bytes = sizeof(struct kvg_block_##t);                                         \
        KVG_TILES(ROWS, XS, BLOCK_TILE_##t)                                                        \
    }
#define BLOCK_TILE_q4_0(nr, nx) block_tile(&a, nr, nx, bytes, quad_scales_q4_0, block_q4_0)
#define BLOCK_TILE_q4_1(nr, nx) block_tile(&a, nr, nx, bytes, quad_scales_q4_1, block_q4_1)
#define BLOCK_TILE_q8_0(nr, nx) block_tile(&a, nr, nx, bytes, quad_scales_q8_0, block_q8_0)
#define BLOCK_TILE_iq4_nl(nr, nx) block_tile(&a, nr, nx, bytes, quad_scales_iq4_nl, block_iq4_nl)

BLOCK_MATVEC(q4_0)
BLOCK_MATVEC(q4_1)
BLOCK_MATVEC(q8_0)
BLOCK_MATVEC(iq4_nl)

#define FLOAT_MATVEC(t)                                                                            \
    KVG_MATVEC(avx512, t)                                                                          \
    {                                                                                              \
        KVG_TILES(ROWS, XS, FLOAT_TILE_##t)                                                        \
    }
#define FLOAT_TILE_f32(nr, nx) float_tile(&a, nr, nx, 4, load_f32)
#define FLOAT_TILE_f16(nr, nx) float_tile(&a, nr, nx, 2, load_f16)
#define FLOAT_TILE_bf16(nr, nx) float_tile(&a, nr, nx, 2, load_bf16)

FLOAT_MATVEC(f32)
FLOAT_MATVEC(f16)
FLOAT_MATVEC(bf16)

#define DECODED_MATVEC(t, T)                                                                       \
    KVG_MATVEC(avx512, t)                                                                          \
    {                                                                                              \
        const struct kvg_type_info *type = kvg_type_info(KVG_##T);                                 \
        const kvg_quant_decode_fn decode = kvg_quant_decode_##t;                                   \
        KVG_TILES(1, XS, DECODED_TILE)                                                             \
    }
#define DECODED_TILE(nr, nx) decoded_tile(&a, nx, type, decode)

DECODED_MATVEC(q5_0, Q5_0)
DECODED_MATVEC(q5_1, Q5_1)
DECODED_MATVEC(q4_k, Q4_K)
DECODED_MATVEC(q5_k, Q5_K)
DECODED_MATVEC(q6_k, Q6_K)
