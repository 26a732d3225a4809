/* Owns the forms of cached rows; must not know which strategy asked for them. */
#include "cache/codec.h"

#include <stdio.h>
#include <string.h>

enum { D_MAX = 512 };

void kvg_codec_interleave(const float *half, float *inter, size_t d)
{
    for (size_t i = 0; i < d / 2; i++) {
        inter[2 * i] = half[i];
        inter[2 * i + 1] = half[i + d / 2];
    }
}

void kvg_codec_deinterleave(const float *inter, float *half, size_t d)
{
    for (size_t i = 0; i < d / 2; i++) {
        half[i] = inter[2 * i];
        half[i + d / 2] = inter[2 * i + 1];
    }
}

static void row_bytes_split(const struct kvg_codec *c, size_t n, size_t d, size_t *payload,
                            size_t *scales)
{
    size_t total = n * kvg_type_row_bytes((enum kvg_type)c->type, d);
    *scales = c->type == KVG_Q8_0 || c->type == KVG_Q4_0 ? n * (d / 32) * 2 : 0;
    *payload = total - *scales;
}

static void row_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                     const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)at;
    size_t rb = kvg_type_row_bytes((enum kvg_type)c->type, d);
    float tmp[D_MAX];
    for (size_t j = 0; j < n; j++) {
        const float *src = rows + j * d;
        if (c->interleaved) {
            kvg_codec_interleave(src, tmp, d);
            src = tmp;
        }
        k->encode[c->type](src, (char *)dst + j * rb, d);
    }
}

static void row_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                     const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    size_t rb = kvg_type_row_bytes((enum kvg_type)c->type, d);
    float tmp[D_MAX];
    for (size_t j = 0; j < n; j++) {
        k->decode[c->type]((const char *)src + j * rb, c->interleaved ? tmp : rows + j * d, d);
        if (c->interleaved)
            kvg_codec_deinterleave(tmp, rows + j * d, d);
    }
}

void kvg_codec_row(struct kvg_codec *c, enum kvg_type type, int interleaved)
{
    *c = (struct kvg_codec){.type = (int)type,
                            .interleaved = interleaved,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bytes = row_bytes_split,
                            .encode = row_encode,
                            .decode = row_decode};
    snprintf(c->name, sizeof c->name, "%s%s", kvg_type_info(type)->name,
             interleaved ? "-ggml" : "");
}

size_t kvg_codec_total_bytes(const struct kvg_codec *c, size_t n, size_t d)
{
    size_t payload, scales;
    c->bytes(c, n, d, &payload, &scales);
    return payload + scales;
}
