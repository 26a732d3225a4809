/* Non-uniform quantisation of keys before rotation and of values, after KVQuant (Hooper et al.
 * 2024, arXiv 2401.18079, section 3): keys per channel with ranges found offline, values per token
 * with a range found when they are encoded; the levels of both are codebooks made offline per
 * layer, and the few values outside of a range are stored in f16. The paper weights the codebooks'
 * k-means by gradients (Fisher information); here it is not weighted. */
#ifndef KVG_CACHE_NUQ_H
#define KVG_CACHE_NUQ_H

#include "base/arena.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/text.h"
#include "cache/codec.h"

#include <stddef.h>

enum { KVG_NUQ_BITS_LEAST = 2, KVG_NUQ_BITS_MOST = 4, KVG_NUQ_BITS_N = 3 };
enum kvg_nuq_side { KVG_NUQ_K, KVG_NUQ_V, KVG_NUQ_SIDES };

/* What calibration found; read-only afterwards. */
struct kvg_nuq {
    char model_sha256[KVG_SHA256_HEX];
    size_t n_layers, n_heads, n_kv_heads, d_head, n_embd; /* of the model it was made with */
    double rope_base;
    double outliers; /* share of values outside of the ranges, half of it in each tail */
    float *lo, *hi;  /* [n_layers * n_kv_heads, d_head] ranges of keys before rotation */
    /* Levels of a range laid over [-1, 1], ascending: [n_layers, 2^bits] at index bits - 2. */
    float *levels[KVG_NUQ_SIDES][KVG_NUQ_BITS_N];
};

/* Room for a model's tables, in `a`. KVG_ENOMEM. */
int kvg_nuq_alloc(struct kvg_nuq *q, struct kvg_arena *a, struct kvg_err *err);
static inline float *kvg_nuq_levels(const struct kvg_nuq *q, enum kvg_nuq_side side, unsigned bits,
                                    size_t layer)
{
    return q->levels[side][bits - KVG_NUQ_BITS_LEAST] + (layer << bits);
}
/* Values of a row of d that may lie outside: what the share comes to, rounded up. */
size_t kvg_nuq_room(double outliers, size_t d);

/* The range of a row of values without its `room` most outlying ones (farthest from the mean of
 * those that are left, one after the other); out[c] = 1 marks them. */
void kvg_nuq_fit_row(const float *x, size_t d, size_t room, float *lo, float *hi,
                     unsigned char *out);

/* The text form (nuq_file.c). */
void kvg_nuq_print(const struct kvg_nuq *q, struct kvg_str *out);
/* Everything in `a`. KVG_EIO, KVG_EFORMAT with file and line. */
int kvg_nuq_read(struct kvg_nuq *q, const char *path, struct kvg_arena *a, struct kvg_err *err);

/* Rows alone: codes, then outliers in f16, then their channels; values also their range in f16.
 * Tables are borrowed. d must be a multiple of 8. */
void kvg_codec_nuq_k(struct kvg_codec *c, const struct kvg_nuq *q, unsigned bits);
void kvg_codec_nuq_v(struct kvg_codec *c, const struct kvg_nuq *q, unsigned bits);

#endif
