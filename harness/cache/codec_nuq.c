/* Owns the two forms of non-uniform quantisation. Must not know how their tables are made or where
 * they come from. A row: values only: middle and half width of the range (f16 each); codes of
 * `bits` bits, low ones first; `room` outliers in f16; their channels, d itself where an entry is
 * free. */
#include "cache/nuq.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { D_MAX = 512, ROOM_MAX = D_MAX };

size_t kvg_nuq_room(double outliers, size_t d)
{
    return (size_t)ceil(outliers * (double)d - 1e-9);
}

static size_t index_bytes(size_t d)
{
    return d < 256 ? 1 : 2;
}

/* ---- outliers ---- */

static size_t room_of(const struct kvg_codec *c, size_t d)
{
    return kvg_nuq_room(((const struct kvg_nuq *)c->tables)->outliers, d);
}

static void put_outliers(unsigned char *dst, const float *x, size_t d, size_t room,
                         const unsigned char *out)
{
    size_t n = 0, ib = index_bytes(d);
    for (size_t ch = 0; ch <= d && n < room; ch++) {
        if (ch < d && !out[ch])
            continue;
        uint16_t index = (uint16_t)ch, v = kvg_f32_to_f16(ch < d ? x[ch] : 0);
        memcpy(dst + 2 * n, &v, 2);
        memcpy(dst + 2 * room + ib * n, &index, ib); /* little endian */
        n++;
        ch -= ch == d; /* the rest is free */
    }
}

static void take_outliers(const unsigned char *src, size_t d, size_t room, float *row)
{
    size_t ib = index_bytes(d);
    for (size_t i = 0; i < room; i++) {
        uint16_t index = 0, v;
        memcpy(&v, src + 2 * i, 2);
        memcpy(&index, src + 2 * room + ib * i, ib);
        if (index < d)
            row[index] = kvg_f16_to_f32(v);
    }
}

static size_t outlier_bytes(size_t d, size_t room)
{
    return room * (2 + index_bytes(d));
}

void kvg_nuq_fit_row(const float *x, size_t d, size_t room, float *lo, float *hi,
                     unsigned char *out)
{
    memset(out, 0, d);
    for (size_t r = 0;; r++) {
        size_t least = d, most = d, n = 0;
        double sum = 0;
        for (size_t c = 0; c < d; c++) {
            if (out[c])
                continue;
            least = least == d || x[c] < x[least] ? c : least;
            most = most == d || x[c] > x[most] ? c : most;
            sum += (double)x[c];
            n++;
        }
        *lo = x[least];
        *hi = x[most];
        if (r == room || n <= 1)
            return;
        double mean = sum / (double)n;
        out[(double)*hi - mean > mean - (double)*lo ? most : least] = 1;
    }
}

/* ---- codes ---- */

static unsigned nearest(const float *levels, unsigned n, float t)
{
    unsigned code = 0;
    while (code + 1 < n && t > 0.5f * (levels[code] + levels[code + 1]))
        code++;
    return code;
}

static void pack(const uint8_t *codes, size_t d, unsigned bits, unsigned char *dst)
{
    uint32_t acc = 0;
    unsigned held = 0;
    for (size_t c = 0; c < d; c++) {
        acc |= (uint32_t)codes[c] << held;
        for (held += bits; held >= 8; held -= 8, acc >>= 8)
            *dst++ = (unsigned char)acc;
    }
}

static void unpack(const unsigned char *src, size_t d, unsigned bits, uint8_t *codes)
{
    uint32_t acc = 0, mask = (1u << bits) - 1;
    unsigned held = 0;
    for (size_t c = 0; c < d; c++) {
        if (held < bits) {
            acc |= (uint32_t)*src++ << held;
            held += 8;
        }
        codes[c] = (uint8_t)(acc & mask);
        acc >>= bits;
        held -= bits;
    }
}

static float normed(float x, float mid, float half)
{
    return half > 0 ? (x - mid) / half : 0;
}

/* ---- keys ---- */

static void k_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload, size_t *scales)
{
    *payload = n * (d * c->bits / 8 + outlier_bytes(d, room_of(c, d)));
    *scales = 0;
}

/* Marks the `room` values farthest outside of their channels' ranges. */
static void find_outside(const float *x, const float *lo, const float *hi, size_t d, size_t room,
                         unsigned char *out)
{
    memset(out, 0, d);
    for (size_t r = 0; r < room; r++) {
        size_t best = d;
        float most = 0;
        for (size_t c = 0; c < d; c++) {
            float by = x[c] > hi[c] ? x[c] - hi[c] : lo[c] - x[c];
            if (!out[c] && by > most) {
                most = by;
                best = c;
            }
        }
        if (best == d)
            return;
        out[best] = 1;
    }
}

static void k_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                     const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)k;
    const struct kvg_nuq *q = c->tables;
    const float *lo = q->lo + at->head * d, *hi = q->hi + at->head * d;
    const float *levels = kvg_nuq_levels(q, KVG_NUQ_K, c->bits, at->head / q->n_kv_heads);
    size_t room = room_of(c, d), codes_bytes = d * c->bits / 8;
    unsigned char *to = dst, out[D_MAX];
    uint8_t codes[D_MAX];
    for (size_t j = 0; j < n; j++, rows += d) {
        for (size_t ch = 0; ch < d; ch++)
            codes[ch] = (uint8_t)nearest(
                levels, 1u << c->bits,
                normed(rows[ch], 0.5f * (lo[ch] + hi[ch]), 0.5f * (hi[ch] - lo[ch])));
        find_outside(rows, lo, hi, d, room, out);
        pack(codes, d, c->bits, to);
        put_outliers(to + codes_bytes, rows, d, room, out);
        to += codes_bytes + outlier_bytes(d, room);
    }
}

static void k_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                     const void *src, size_t n, size_t d, float *rows)
{
    (void)k;
    const struct kvg_nuq *q = c->tables;
    const float *lo = q->lo + head * d, *hi = q->hi + head * d;
    const float *levels = kvg_nuq_levels(q, KVG_NUQ_K, c->bits, head / q->n_kv_heads);
    size_t room = room_of(c, d), codes_bytes = d * c->bits / 8;
    const unsigned char *from = src;
    uint8_t codes[D_MAX];
    for (size_t j = 0; j < n; j++, rows += d) {
        unpack(from, d, c->bits, codes);
        for (size_t ch = 0; ch < d; ch++)
            rows[ch] = 0.5f * (lo[ch] + hi[ch]) + 0.5f * (hi[ch] - lo[ch]) * levels[codes[ch]];
        take_outliers(from + codes_bytes, d, room, rows);
        from += codes_bytes + outlier_bytes(d, room);
    }
}

void kvg_codec_nuq_k(struct kvg_codec *c, const struct kvg_nuq *q, unsigned bits)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bits = bits,
                            .tables = q,
                            .bytes = k_bytes,
                            .encode = k_encode,
                            .decode = k_decode};
    snprintf(c->name, sizeof c->name, "nuq%u-k", bits);
}

/* ---- values ---- */

enum { RANGE_BYTES = 4 };

static void v_bytes(const struct kvg_codec *c, size_t n, size_t d, size_t *payload, size_t *scales)
{
    *payload = n * (d * c->bits / 8 + outlier_bytes(d, room_of(c, d)));
    *scales = n * RANGE_BYTES;
}

static void v_encode(const struct kvg_codec *c, const struct kvg_kernels *k,
                     const struct kvg_place *at, const float *rows, size_t n, size_t d, void *dst)
{
    (void)k;
    const struct kvg_nuq *q = c->tables;
    const float *levels = kvg_nuq_levels(q, KVG_NUQ_V, c->bits, at->head / q->n_kv_heads);
    size_t room = room_of(c, d), codes_bytes = d * c->bits / 8;
    unsigned char *to = dst, out[D_MAX];
    uint8_t codes[D_MAX];
    for (size_t j = 0; j < n; j++, rows += d) {
        float lo, hi;
        kvg_nuq_fit_row(rows, d, room, &lo, &hi, out);
        const uint16_t range[2] = {kvg_f32_to_f16(0.5f * (lo + hi)),
                                   kvg_f32_to_f16(0.5f * (hi - lo))};
        float mid = kvg_f16_to_f32(range[0]), half = kvg_f16_to_f32(range[1]);
        for (size_t ch = 0; ch < d; ch++)
            codes[ch] = (uint8_t)nearest(levels, 1u << c->bits, normed(rows[ch], mid, half));
        memcpy(to, range, RANGE_BYTES);
        pack(codes, d, c->bits, to + RANGE_BYTES);
        put_outliers(to + RANGE_BYTES + codes_bytes, rows, d, room, out);
        to += RANGE_BYTES + codes_bytes + outlier_bytes(d, room);
    }
}

static void v_decode(const struct kvg_codec *c, const struct kvg_kernels *k, size_t head,
                     const void *src, size_t n, size_t d, float *rows)
{
    (void)k;
    const struct kvg_nuq *q = c->tables;
    const float *levels = kvg_nuq_levels(q, KVG_NUQ_V, c->bits, head / q->n_kv_heads);
    size_t room = room_of(c, d), codes_bytes = d * c->bits / 8;
    const unsigned char *from = src;
    uint8_t codes[D_MAX];
    for (size_t j = 0; j < n; j++, rows += d) {
        uint16_t range[2];
        memcpy(range, from, RANGE_BYTES);
        float mid = kvg_f16_to_f32(range[0]), half = kvg_f16_to_f32(range[1]);
        unpack(from + RANGE_BYTES, d, c->bits, codes);
        for (size_t ch = 0; ch < d; ch++)
            rows[ch] = mid + half * levels[codes[ch]];
        take_outliers(from + RANGE_BYTES + codes_bytes, d, room, rows);
        from += RANGE_BYTES + codes_bytes + outlier_bytes(d, room);
    }
}

void kvg_codec_nuq_v(struct kvg_codec *c, const struct kvg_nuq *q, unsigned bits)
{
    *c = (struct kvg_codec){.type = -1,
                            .group = 1,
                            .block_slots = KVG_TILE_SLOTS,
                            .bits = bits,
                            .tables = q,
                            .bytes = v_bytes,
                            .encode = v_encode,
                            .decode = v_decode};
    snprintf(c->name, sizeof c->name, "nuq%u-v", bits);
}
