/* Reference routines for rows of packed codes that are not blocks of ggml, and the Walsh-Hadamard
 * transform: the entries affine, lookup and hadamard of struct kvg_kernels, whose comments define
 * them. Every CPU level gives the same bits. */
#ifndef KVG_KERNEL_CODES_H
#define KVG_KERNEL_CODES_H

#include "kernel/kernel.h"

void kvg_codes_affine(const struct kvg_affine *a, size_t n_rows, size_t d, float *out);
void kvg_codes_lookup(unsigned bits, const void *codes, const float book[16], float scale,
                      float *out, size_t n);
void kvg_codes_hadamard(float *x, size_t n, size_t block);

/* The other levels', in files of their own. */
#define KVG_CODES_ENTRIES(level)                                                                   \
    void kvg_##level##_affine(const struct kvg_affine *a, size_t n_rows, size_t d, float *out);    \
    void kvg_##level##_lookup(unsigned bits, const void *codes, const float book[16], float scale, \
                              float *out, size_t n);                                               \
    void kvg_##level##_hadamard(float *x, size_t n, size_t block);

#endif
