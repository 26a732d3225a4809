/* Owns the reference forms of packed codes and of the Walsh-Hadamard transform. Must not know which
 * codec has such codes, nor CPU levels. */
#include "kernel/codes.h"

#include "kernel/quant.h"

/* Code i of a row; no code of 2, 4 or 8 bits lies in two bytes, one of 3 bits may. */
static unsigned code_at(const uint8_t *codes, unsigned bits, size_t i)
{
    size_t bit = i * bits, byte = bit / 8, shift = bit % 8;
    unsigned v = (unsigned)codes[byte] >> shift;
    if (shift + bits > 8)
        v |= (unsigned)codes[byte + 1] << (8 - shift);
    return v & ((1u << bits) - 1);
}

void kvg_codes_affine(const struct kvg_affine *a, size_t n_rows, size_t d, float *out)
{
    for (size_t j = 0; j < n_rows; j++) {
        const uint8_t *codes = (const uint8_t *)a->codes + j * a->row_bytes;
        const uint8_t *scale = (const uint8_t *)a->scale + j * a->scale_step;
        const uint8_t *zero = (const uint8_t *)a->zero + j * a->scale_step;
        for (size_t c = 0; c < d; c++) {
            float s = kvg_quant_f16(scale + c / a->share * 2);
            float z = kvg_quant_f16(zero + c / a->share * 2);
            out[j * d + c] = z + (float)code_at(codes, a->bits, c) * s;
        }
    }
}

void kvg_codes_lookup(unsigned bits, const void *codes, const float book[16], float scale,
                      float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = book[code_at(codes, bits, i)] * scale;
}

void kvg_codes_hadamard(float *x, size_t n, size_t block)
{
    float scale = (float)(1.0 / sqrt((double)block));
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
    for (size_t half = 1; half < block; half *= 2)
        for (size_t at = 0; at < n; at += 2 * half)
            for (size_t i = at; i < at + half; i++) {
                float a = x[i], b = x[i + half];
                x[i] = a + b;
                x[i + half] = a - b;
            }
}
