/* Codecs: the forms in which rows of K or V lie in the store. A codec works on rows of d f32
 * values; slots of one group are sealed together. Encoded bytes are what is read back. */
#ifndef KVG_CACHE_CODEC_H
#define KVG_CACHE_CODEC_H

#include "kernel/kernel.h"

#include <stddef.h>
#include <stdint.h>

/* The largest number of slots in a block, and so of any decoded copy. */
enum { KVG_TILE_SLOTS = 64 };

/* Which rows are being encoded. */
struct kvg_place {
    size_t head;              /* layer * n_kv_heads + KV head, for codecs with tables per head */
    const uint32_t *channels; /* bit set = channel stays; NULL = all */
};

struct kvg_codec {
    char name[32];
    int type;             /* kvg_type when the attention kernels read the rows directly, else -1 */
    int form;             /* kvg_type of the rows of kvg_codec_row, read directly or not */
    int interleaved;      /* 1: channels in the file's order (pairs 2i, 2i+1), 0: halves apart */
    unsigned group;       /* slots sealed together; 1 = every slot alone */
    unsigned block_slots; /* slots of a block: 64, or the group */
    unsigned bits;        /* per code, for the codecs that have a choice */
    unsigned channels;    /* channels that share a scale within a slot, if any; masked: that stay */
    int partial;          /* 1: the last group of a seal may have fewer slots (the store checks that
                             a list has at most two short ones) */
    int masked;           /* 1: a group holds `channels` channels, the rest decodes to 0; its bytes
                             begin with their mask, kvg_codec_mask_words words */
    int hadamard;         /* 1: rows are turned by an orthonormal Walsh-Hadamard matrix, in blocks of
                             the largest power of two that divides d, before they are encoded */
    const void *tables;   /* read-only, outlives the store; what it is, the codec knows */
    /* Bytes of n slots (whole groups, and a short one when partial), split in codes and scales. */
    void (*bytes)(const struct kvg_codec *c, size_t n, size_t d, size_t *payload, size_t *scales);
    void (*encode)(const struct kvg_codec *c, const struct kvg_kernels *k,
                   const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst);
    void (*decode)(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                   const void *src, size_t n, size_t d, float *rows);
};

/* Row codecs of the types that a kernel table can encode. d must be a multiple of 32 except for f32,
 * f16 and bf16. */
void kvg_codec_row(struct kvg_codec *c, enum kvg_type type, int interleaved);
/* Makes a row codec turn its rows (after the change of order, if any) with codec.hadamard before
 * they are encoded and back when they are decoded; attention then reads decoded rows. d must be a
 * multiple of 32. */
void kvg_codec_turn(struct kvg_codec *c);
/* The blocks in which rows of d channels are turned: the largest power of two that divides d. */
size_t kvg_codec_turn_block(size_t d);
/* KIVI (Liu et al. 2024, arXiv 2402.02750, section 3): keys per channel over `group` tokens,
 * asymmetric; values per token over a multiple of 32 channels. bits is 2, 4 or 8. */
void kvg_codec_kivi_k(struct kvg_codec *c, unsigned bits, unsigned group);
void kvg_codec_kivi_v(struct kvg_codec *c, unsigned bits, unsigned channels);

/* A byte a value: OCP's e4m3 (no infinities, largest value 448) or e5m2 (57344), rounded to nearest
 * even, what is larger made the largest (codec_fp8.c). With row_scale a row is first divided by an
 * f16 of its own that brings its largest magnitude to 448 at most. d is a multiple of 32. */
enum kvg_fp8 { KVG_FP8_E4M3, KVG_FP8_E5M2 };
void kvg_codec_fp8(struct kvg_codec *c, enum kvg_fp8 format, int row_scale);

/* TurboQuant's form for least squared error (Zandieh et al. 2025, arXiv 2504.19874, algorithm 1): a
 * row is its norm in f16 and, of the unit vector after a fixed random rotation, a code of 1 to 4
 * bits a channel into the Lloyd-Max codebook of the normal distribution (codec_turbo.c). signs:
 * from kvg_codec_turbo_signs, outlives the codec. d is a multiple of 32. */
void kvg_codec_turbo(struct kvg_codec *c, unsigned bits, const float *signs);
void kvg_codec_turbo_signs(float *signs, size_t d);

/* Rows of which only some channels are kept, in f32 or f16, in groups of 64 (codec_masked.c). */
void kvg_codec_masked(struct kvg_codec *c, enum kvg_type type, unsigned channels);
static inline size_t kvg_codec_mask_words(size_t d)
{
    return (d + 31) / 32;
}
/* The mask of an encoded group of a masked form: bit c % 32 of word c / 32. */
const uint32_t *kvg_codec_mask(const void *group);

size_t kvg_codec_total_bytes(const struct kvg_codec *c, size_t n, size_t d);
/* Moves d channels between the half-split and the interleaved order. */
void kvg_codec_interleave(const float *half, float *inter, size_t d);
void kvg_codec_deinterleave(const float *inter, float *half, size_t d);

#endif
