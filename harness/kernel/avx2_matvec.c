/* Owns the AVX2 products of packed rows with f32 activations. Must not know which matrix or layer
 * is multiplied.
 *
 * An output is one accumulator of 8 lanes that takes the 8-element groups of its row in ascending
 * order, then one fixed reduction, whatever tile it is in. */
#include "kernel/avx2.h"

enum { ROWS = 4, XS = 2 };

typedef struct block32 (*block_fn)(const uint8_t *b);
typedef __m256 (*load_fn)(const uint8_t *b);

KVG_INLINE void clear_sums(int nr, int nx, __m256 acc[ROWS][XS])
{
#pragma GCC unroll 4
    for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
        for (int t = 0; t < nx; t++)
            acc[r][t] = _mm256_setzero_ps();
}

KVG_INLINE void store_sums(const struct span *a, int nr, int nx, __m256 acc[ROWS][XS])
{
#pragma GCC unroll 4
    for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
        for (int t = 0; t < nx; t++)
            a->y[(size_t)t * a->ldy + (size_t)r] = sum8(acc[r][t]);
}

KVG_INLINE void block_tile(const struct span *a, int nr, int nx, size_t block_bytes, block_fn block)
{
    __m256 acc[ROWS][XS];
    clear_sums(nr, nx, acc);
    for (size_t k = 0, at = 0; k < a->n_cols; k += KVG_QK, at += block_bytes)
#pragma GCC unroll 4
        for (int r = 0; r < nr; r++) {
            struct block32 w = block(a->w + (size_t)r * a->row_bytes + at);
#pragma GCC unroll 4
            for (int t = 0; t < nx; t++) {
                const float *x = a->x + (size_t)t * a->ldx + k;
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    acc[r][t] = _mm256_fmadd_ps(w.v[i], _mm256_loadu_ps(x + 8 * i), acc[r][t]);
            }
        }
    store_sums(a, nr, nx, acc);
}

/* Unpacked types: 8 elements at a time, the tail from zero-padded copies. */
KVG_INLINE void float_tile(const struct span *a, int nr, int nx, size_t elem_bytes, load_fn load)
{
    __m256 acc[ROWS][XS];
    clear_sums(nr, nx, acc);
    for (size_t k = 0; k < a->n_cols; k += 8) {
        size_t left = a->n_cols - k;
        __m256i m = lanes(left);
#pragma GCC unroll 4
        for (int r = 0; r < nr; r++) {
            const uint8_t *from = a->w + (size_t)r * a->row_bytes + k * elem_bytes;
            uint8_t tail[32] = {0};
            if (left < 8)
                from = memcpy(tail, from, left * elem_bytes);
            __m256 w = load(from);
#pragma GCC unroll 4
            for (int t = 0; t < nx; t++) {
                __m256 x = _mm256_maskload_ps(a->x + (size_t)t * a->ldx + k, m);
                acc[r][t] = _mm256_fmadd_ps(w, x, acc[r][t]);
            }
        }
    }
    store_sums(a, nr, nx, acc);
}

/* Rarer packed types: a chunk of one row is decoded to a buffer and multiplied from there. */
KVG_INLINE void decoded_tile(const struct span *a, int nx, const struct kvg_type_info *type,
                             kvg_quant_decode_fn decode)
{
    __m256 acc[ROWS][XS];
    clear_sums(1, nx, acc);
    for (size_t k = 0; k < a->n_cols; k += KVG_QK_K) {
        float w[KVG_QK_K];
        size_t n = a->n_cols - k < KVG_QK_K ? a->n_cols - k : KVG_QK_K;
        decode(a->w + k / type->block_elems * type->block_bytes, w, n);
        for (size_t i = 0; i < n; i += 8)
#pragma GCC unroll 4
            for (int t = 0; t < nx; t++)
                acc[0][t] =
                    _mm256_fmadd_ps(_mm256_loadu_ps(w + i),
                                    _mm256_loadu_ps(a->x + (size_t)t * a->ldx + k + i), acc[0][t]);
    }
    store_sums(a, 1, nx, acc);
}

#define BLOCK_MATVEC(t)                                                                            \
    KVG_MATVEC(avx2, t)                                                                            \
    {                                                                                              \
        KVG_TILES(ROWS, XS, BLOCK_TILE_##t)                                                        \
    }
#define BLOCK_TILE_q4_0(nr, nx) block_tile(&a, nr, nx, sizeof(struct kvg_block_q4_0), block_q4_0)
#define BLOCK_TILE_q4_1(nr, nx) block_tile(&a, nr, nx, sizeof(struct kvg_block_q4_1), block_q4_1)
#define BLOCK_TILE_q8_0(nr, nx) block_tile(&a, nr, nx, sizeof(struct kvg_block_q8_0), block_q8_0)
#define BLOCK_TILE_iq4_nl(nr, nx)                                                                  \
    block_tile(&a, nr, nx, sizeof(struct kvg_block_iq4_nl), block_iq4_nl)

BLOCK_MATVEC(q4_0)
BLOCK_MATVEC(q4_1)
BLOCK_MATVEC(q8_0)
BLOCK_MATVEC(iq4_nl)

#define FLOAT_MATVEC(t)                                                                            \
    KVG_MATVEC(avx2, t)                                                                            \
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
    KVG_MATVEC(avx2, t)                                                                            \
    {                                                                                              \
        const struct kvg_type_info *type = kvg_type_info(KVG_##T);                                 \
        KVG_TILES(1, XS, DECODED_TILE_##t)                                                         \
    }
#define DECODED_TILE_q5_0(nr, nx) decoded_tile(&a, nx, type, kvg_quant_decode_q5_0)
#define DECODED_TILE_q5_1(nr, nx) decoded_tile(&a, nx, type, kvg_quant_decode_q5_1)
#define DECODED_TILE_q4_k(nr, nx) decoded_tile(&a, nx, type, kvg_quant_decode_q4_k)
#define DECODED_TILE_q5_k(nr, nx) decoded_tile(&a, nx, type, kvg_quant_decode_q5_k)
#define DECODED_TILE_q6_k(nr, nx) decoded_tile(&a, nx, type, kvg_quant_decode_q6_k)

DECODED_MATVEC(q5_0, Q5_0)
DECODED_MATVEC(q5_1, Q5_1)
DECODED_MATVEC(q4_k, Q4_K)
DECODED_MATVEC(q5_k, Q5_K)
DECODED_MATVEC(q6_k, Q6_K)
