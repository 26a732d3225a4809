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

size_t kvg_codec_turn_block(size_t d)
{
    return d & ~(d - 1);
}

/* Bytes of the scales and minima of a block. */
static size_t header_bytes(int form)
{
    switch (form) {
    case KVG_Q8_0:
    case KVG_Q5_0:
    case KVG_Q4_0:
    case KVG_IQ4_NL:
        return 2;
    case KVG_Q5_1:
    case KVG_Q4_1:
        return 4;
    default:
        return 0;
    }
}

static void row_bytes_split(const struct kvg_codec *c, size_t n, size_t d, size_t *payload,
                            size_t *scales)
{
    *scales = n * (d / 32) * header_bytes(c->form);
    *payload = n * kvg_type_row_bytes((enum kvg_type)c->form, d) - *scales;
}

static void row_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                       const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)at;
    size_t rb = kvg_type_row_bytes((enum kvg_type)c->form, d);
    float tmp[D_MAX];
    for (size_t j = 0; j < n; j++) {
        const float *src = rows + j * d;
        if (c->interleaved)
            kvg_codec_interleave(src, tmp, d);
        else
            memcpy(tmp, src, d * sizeof *tmp);
        if (c->hadamard)
            k->hadamard(tmp, d, kvg_codec_turn_block(d));
        k->encode[c->form](tmp, (char *)dst + j * rb, d);
    }
}

/* Rows lie one behind the other without gaps, so that they are decoded as one. */
static void row_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                       const void *src, size_t n, size_t d, float *rows)
{
    (void)head;
    float tmp[D_MAX];
    k->decode[c->form](src, rows, n * d);
    if (c->hadamard)
        k->hadamard(rows, n * d, kvg_codec_turn_block(d));
    for (size_t j = 0; c->interleaved && j < n; j++) {
        memcpy(tmp, rows + j * d, d * sizeof *tmp);
        kvg_codec_deinterleave(tmp, rows + j * d, d);
    }
}

void kvg_codec_row(struct kvg_codec *c, enum kvg_type type, int interleaved)
{
    *c = (struct kvg_codec){.type = (int)type,
                            .form = (int)type,
                            .interleaved = interleaved,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bytes = row_bytes_split,
                            .encode = row_encode,
                            .decode = row_decode};
    snprintf(c->name, sizeof c->name, "%s%s", kvg_type_info(type)->name,
             interleaved ? "-ggml" : "");
}

void kvg_codec_turn(struct kvg_codec *c)
{
    size_t at = strlen(c->name);
    c->hadamard = 1;
    c->type = -1;
    snprintf(c->name + at, sizeof c->name - at, "-turned");
}

size_t kvg_codec_total_bytes(const struct kvg_codec *c, size_t n, size_t d)
{
    size_t payload, scales;
    c->bytes(c, n, d, &payload, &scales);
    return payload + scales;
}
