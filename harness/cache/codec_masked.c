/* Owns the form that leaves channels out (ThinK, Xu et al. 2024, arXiv 2407.21018): a group is its
 * channel mask, then the rows of the channels that stay, packed. Must not know how they are chosen.
 */
#include "cache/codec.h"

#include <stdio.h>
#include <string.h>

enum { D_MAX = 512 };

const uint32_t *kvg_codec_mask(const void *group)
{
    return group;
}

static enum kvg_type type_of(const struct kvg_codec *c)
{
    return c->bits == 16 ? KVG_F16 : KVG_F32;
}

static void masked_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload,
                         size_t *scales)
{
    *payload = n * kvg_type_row_bytes(type_of(c), c->channels);
    *scales = (n + c->group - 1) / c->group * kvg_codec_mask_words(d) * sizeof(uint32_t);
}

/* Indices of the channels of a mask. */
static void list_channels(const uint32_t *mask, size_t d, uint16_t *out)
{
    for (size_t i = 0; i < d; i++)
        if (mask[i / 32] >> i % 32 & 1)
            *out++ = (uint16_t)i;
}

static void masked_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                          const struct kvg_place *at, const float *rows, size_t n, size_t d,
                          void *dst)
{
    size_t words = kvg_codec_mask_words(d), rb = kvg_type_row_bytes(type_of(c), c->channels);
    uint16_t stay[D_MAX];
    float packed[D_MAX];
    unsigned char *out = (unsigned char *)dst + words * sizeof(uint32_t);
    memcpy(dst, at->channels, words * sizeof(uint32_t));
    list_channels(at->channels, d, stay);
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < c->channels; i++)
            packed[i] = rows[j * d + stay[i]];
        k->encode[type_of(c)](packed, out + j * rb, c->channels);
    }
}

static void masked_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                          const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    size_t words = kvg_codec_mask_words(d), rb = kvg_type_row_bytes(type_of(c), c->channels);
    uint16_t stay[D_MAX];
    float packed[D_MAX];
    const unsigned char *in = (const unsigned char *)src + words * sizeof(uint32_t);
    list_channels(kvg_codec_mask(src), d, stay);
    memset(rows, 0, n * d * sizeof *rows);
    for (size_t j = 0; j < n; j++) {
        k->decode[type_of(c)](in + j * rb, packed, c->channels);
        for (size_t i = 0; i < c->channels; i++)
            rows[j * d + stay[i]] = packed[i];
    }
}

void kvg_codec_masked(struct kvg_codec *c, enum kvg_type type, unsigned channels)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = KVG_TILE_SLOTS,
                            .block_slots = KVG_TILE_SLOTS,
                            .bits = type == KVG_F16 ? 16 : 32,
                            .channels = channels,
                            .partial = 1,
                            .masked = 1,
                            .bytes = masked_bytes,
                            .encode = masked_encode,
                            .decode = masked_decode};
    snprintf(c->name, sizeof c->name, "%u of %s", channels, kvg_type_info(type)->name);
}
