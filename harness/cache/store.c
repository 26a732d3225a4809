/* Owns the slots of one conversation: lists of segments, appending, reading, counting bytes. How
 * plans change them is in store_apply.c. Must not know any strategy. */
#include "cache/store.h"

#include "cache/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t kvg_store_plain_row_bytes(const struct kvg_store *s, size_t col)
{
    if (col == KVG_COL_K || col == KVG_COL_V)
        return s->cfg.d_head * sizeof(float);
    if (col == KVG_COL_POS)
        return sizeof(int32_t);
    return s->cfg.side_floats[col - KVG_COL_SIDE] * sizeof(float);
}

int kvg_store_class(const struct kvg_store *s, size_t col, unsigned codec)
{
    return s->classes[kvg_store_is_kv(col) ? KVG_COL_N + codec : col];
}

unsigned kvg_store_block_slots(const struct kvg_store *s, size_t col, unsigned codec)
{
    size_t slots = s->cfg.block_slots;
    if (kvg_store_is_kv(col) && codec)
        return s->codecs[codec].block_slots;
    if (kvg_store_is_paged(s, col))
        slots /= s->cfg.side_page[col - KVG_COL_SIDE];
    return slots ? (unsigned)slots : 1;
}

size_t kvg_store_row_bytes(const struct kvg_store *s, size_t col, unsigned codec)
{
    if (codec == 0)
        return kvg_store_plain_row_bytes(s, col);
    const struct kvg_codec *c = &s->codecs[codec];
    return kvg_codec_total_bytes(c, c->group, s->cfg.d_head) / c->group;
}

struct kvg_block *kvg_store_get_block(struct kvg_store *s, size_t col, unsigned codec)
{
    struct kvg_block *b = kvg_heap_get(s->heap, kvg_store_class(s, col, codec));
    if (!b)
        abort(); /* the reserve is sized for every legal state: this is a bug, not an input */
    return b;
}

/* ---- opening ---- */

static void layout_lists(struct kvg_store *s)
{
    size_t cols = kvg_store_cols(s);
    for (size_t h = 0; h < kvg_store_heads(s); h++)
        for (size_t c = 0; c < cols; c++)
            s->heads[h].cols[c].segs = s->segs + (h * cols + c) * s->list_cap;
}

static int alloc_parts(struct kvg_store *s)
{
    s->heads = calloc(kvg_store_heads(s), sizeof *s->heads);
    s->segs = calloc(kvg_store_heads(s) * kvg_store_cols(s) * s->list_cap, sizeof *s->segs);
    s->tile = calloc(2 * KVG_TILE_SLOTS * s->cfg.d_head, sizeof *s->tile);
    s->picks = calloc(s->cfg.max_slots + 1, sizeof *s->picks);
    s->spare = calloc(s->list_cap, sizeof *s->spare);
    return s->heads && s->segs && s->tile && s->picks && s->spare ? 0 : -1;
}

/* Bytes of a block of a column in its plain form. */
static size_t plain_block_bytes(const struct kvg_store *s, size_t col)
{
    return kvg_store_block_slots(s, col, 0) * kvg_store_plain_row_bytes(s, col);
}

/* Every head may hold all its rows exact and encoded at once, twice over for forks. */
static int open_heap(struct kvg_store *s, struct kvg_err *err)
{
    size_t rows = (s->cfg.max_slots / 16 + 8) * 16;
    size_t row = 4 * kvg_store_plain_row_bytes(s, KVG_COL_K) + 64;
    for (size_t c = 0; c < kvg_store_cols(s); c++) {
        size_t slots = kvg_store_block_slots(s, c, 0);
        if (kvg_store_is_paged(s, c))
            slots *= s->cfg.side_page[c - KVG_COL_SIDE];
        row += (plain_block_bytes(s, c) + 64) / slots + 1; /* the heap rounds blocks up */
    }
    size_t blocks = kvg_store_heads(s) * kvg_store_cols(s) * (s->list_cap + 4) * 2;
    return kvg_heap_open(&s->heap, kvg_store_heads(s) * rows * row * 2, blocks, err);
}

static int open_classes(struct kvg_store *s, struct kvg_err *err)
{
    for (size_t c = 0; c < kvg_store_cols(s); c++) {
        int k = kvg_heap_class(s->heap, plain_block_bytes(s, c));
        if (k < 0)
            return KVG_FAIL(err, KVG_ECHECK, "too many block sizes in one store");
        s->classes[c] = (uint8_t)k;
    }
    s->classes[KVG_COL_N] = s->classes[KVG_COL_K];
    return 0;
}

static int open_store(struct kvg_store **out, const struct kvg_store_cfg *cfg,
                      struct kvg_heap *heap, struct kvg_err *err)
{
    *out = NULL;
    struct kvg_store *s = calloc(1, sizeof *s);
    if (!s)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    s->cfg = *cfg;
    if (!s->cfg.block_slots)
        s->cfg.block_slots = KVG_TILE_SLOTS;
    /* groups may be as small as 8 slots; one list in twenty of its blocks may be half empty */
    size_t least = s->cfg.block_slots < 8 ? s->cfg.block_slots : 8;
    s->list_cap = cfg->max_slots / least + cfg->max_slots / (8 * least) + 8;
    kvg_codec_row(&s->codecs[0], KVG_F32, 0);
    s->n_codecs = 1;
    int rc = alloc_parts(s) ? KVG_FAIL(err, KVG_ENOMEM, "out of memory for a KV store") : 0;
    if (!rc && heap) {
        s->heap = heap;
        heap->owners++;
    } else if (!rc) {
        rc = open_heap(s, err);
    }
    if (!rc)
        rc = open_classes(s, err);
    if (rc) {
        kvg_store_close(s);
        return rc;
    }
    layout_lists(s);
    *out = s;
    return 0;
}

int kvg_store_open(struct kvg_store **s, const struct kvg_store_cfg *cfg, struct kvg_err *err)
{
    int fits = cfg->n_side <= KVG_SIDE_MAX && cfg->d_head <= KVG_ROW_FLOATS_MAX;
    if (cfg->block_slots > KVG_TILE_SLOTS)
        return KVG_FAIL(err, KVG_EUNSUP, "a block of a store holds at most %d slots",
                        KVG_TILE_SLOTS);
    for (size_t i = 0; fits && i < cfg->n_side; i++)
        fits = cfg->side_floats[i] <= KVG_ROW_FLOATS_MAX;
    if (!fits)
        return KVG_FAIL(err, KVG_EUNSUP, "a store has at most %d side columns and rows of %d",
                        KVG_SIDE_MAX, KVG_ROW_FLOATS_MAX);
    return open_store(s, cfg, NULL, err);
}

static void drop_all(struct kvg_store *s)
{
    for (size_t h = 0; s->heads && h < kvg_store_heads(s); h++) {
        for (size_t c = 0; c < kvg_store_cols(s); c++) {
            struct kvg_list *l = &s->heads[h].cols[c];
            for (uint32_t i = 0; i < l->n_segs; i++)
                kvg_heap_put(s->heap, l->segs[i].b);
            l->n_segs = 0;
        }
        s->heads[h].n_slots = 0;
    }
}

void kvg_store_close(struct kvg_store *s)
{
    if (!s)
        return;
    if (s->heap && s->heap->owners > 1)
        drop_all(s);
    kvg_heap_release(s->heap);
    free(s->heads);
    free(s->segs);
    free(s->tile);
    free(s->picks);
    free(s->spare);
    free(s);
}

void kvg_store_reset(struct kvg_store *s)
{
    drop_all(s);
    if (s->heap->owners == 1)
        kvg_heap_reset(s->heap);
    memset(&s->count, 0, sizeof s->count);
}

int kvg_store_add_codec(struct kvg_store *s, const struct kvg_codec *c, int *index,
                        struct kvg_err *err)
{
    for (size_t i = 0; i < s->n_codecs; i++)
        if (!strcmp(s->codecs[i].name, c->name)) {
            *index = (int)i;
            return 0;
        }
    size_t bytes = kvg_codec_total_bytes(c, c->block_slots, s->cfg.d_head);
    int k = s->n_codecs < KVG_CODECS_MAX ? kvg_heap_class(s->heap, bytes) : -1;
    if (k < 0)
        return KVG_FAIL(err, KVG_EUNSUP, "a store holds at most %d codecs", KVG_CODECS_MAX);
    *index = (int)s->n_codecs;
    s->classes[KVG_COL_N + s->n_codecs] = (uint8_t)k;
    s->codecs[s->n_codecs++] = *c;
    return 0;
}

int kvg_store_open_fork(struct kvg_store **dst, struct kvg_store *src, struct kvg_err *err)
{
    int rc = open_store(dst, &src->cfg, src->heap, err);
    if (rc)
        return rc;
    struct kvg_store *d = *dst;
    memcpy(d->codecs, src->codecs, sizeof d->codecs);
    memcpy(d->classes, src->classes, sizeof d->classes);
    d->n_codecs = src->n_codecs;
    d->held_bytes = src->held_bytes;
    for (size_t h = 0; h < kvg_store_heads(src); h++) {
        d->heads[h].n_slots = src->heads[h].n_slots;
        for (size_t c = 0; c < kvg_store_cols(src); c++) {
            const struct kvg_list *from = &src->heads[h].cols[c];
            struct kvg_list *to = &d->heads[h].cols[c];
            memcpy(to->segs, from->segs, from->n_segs * sizeof *to->segs);
            to->n_segs = from->n_segs;
            for (uint32_t i = 0; i < to->n_segs; i++)
                to->segs[i].b->refs++;
        }
    }
    return 0;
}

/* ---- appending ---- */

/* 1 when rows [at, at+n) of a block can become ours: unwritten, or written with the same bytes. */
static int rows_fit(const struct kvg_block *b, size_t at, size_t n, size_t row_bytes,
                    const unsigned char *rows, size_t stride)
{
    if (at == b->written || b->refs == 1)
        return 1;
    if (at + n > b->written)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (memcmp(b->data + (at + i) * row_bytes, rows + i * stride, row_bytes))
            return 0;
    return 1;
}

void kvg_store_unshare(struct kvg_store *s, struct kvg_seg *g, size_t col)
{
    size_t rb = kvg_store_row_bytes(s, col, g->codec);
    struct kvg_block *b = kvg_store_get_block(s, col, g->codec);
    memcpy(b->data, kvg_seg_data(g, rb), g->n * rb);
    b->written = g->n;
    s->count.bytes_written += g->n * rb;
    kvg_heap_put(s->heap, g->b);
    g->b = b;
    g->off = 0;
}

/* Takes over the twin's block when it begins with the same rows. */
static int adopt(struct kvg_list *l, const struct kvg_list *twin, size_t row_bytes,
                 const unsigned char *rows, size_t stride, size_t n)
{
    if (!twin || twin == l || twin->n_segs <= l->n_segs)
        return 0;
    const struct kvg_seg *t = &twin->segs[l->n_segs];
    if (t->off || t->n < n)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (memcmp(t->b->data + i * row_bytes, rows + i * stride, row_bytes))
            return 0;
    t->b->refs++;
    l->segs[l->n_segs++] = (struct kvg_seg){.b = t->b, .n = (uint16_t)n, .codec = t->codec};
    return 1;
}

void kvg_store_push(struct kvg_store *s, struct kvg_list *l, const struct kvg_list *twin,
                    size_t col, unsigned codec, const void *data, size_t stride, size_t n)
{
    const unsigned char *rows = data;
    size_t rb = kvg_store_row_bytes(s, col, codec), cap = kvg_store_block_slots(s, col, codec);
    while (n > 0) {
        struct kvg_seg *g = l->n_segs ? &l->segs[l->n_segs - 1] : NULL;
        size_t end = g ? (size_t)g->off + g->n : 0;
        if (!g || g->codec != codec || end >= cap) {
            size_t m = n < cap ? n : cap;
            if (adopt(l, twin, rb, rows, stride, m)) {
                rows += m * stride;
                n -= m;
                continue;
            }
            g = &l->segs[l->n_segs++];
            *g = (struct kvg_seg){.b = kvg_store_get_block(s, col, codec), .codec = (uint8_t)codec};
            end = 0;
        }
        size_t m = cap - end < n ? cap - end : n;
        if (!rows_fit(g->b, end, m, rb, rows, stride)) {
            kvg_store_unshare(s, g, col);
            continue;
        }
        if (end + m > g->b->written || g->b->refs == 1) {
            for (size_t i = 0; i < m; i++)
                memcpy(g->b->data + (end + i) * rb, rows + i * stride, rb);
            s->count.bytes_written += m * rb;
            g->b->written = (uint16_t)(end + m);
        }
        g->n = (uint16_t)(g->n + m);
        rows += m * stride;
        n -= m;
    }
}

void kvg_store_append(struct kvg_store *s, size_t layer, const float *k, const float *v, size_t ld,
                      int32_t pos0, size_t n)
{
    static const float zeros[KVG_ROW_FLOATS_MAX];
    int32_t pos[KVG_TILE_SLOTS];
    const struct kvg_head *first = kvg_store_head(s, 0, 0);
    for (size_t h = 0; h < s->cfg.n_kv_heads; h++) {
        struct kvg_head *hd = kvg_store_head(s, layer, h);
        size_t at = h * s->cfg.d_head, stride = ld * sizeof(float);
        for (size_t c = 0; c < kvg_store_cols(s); c++)
            kvg_store_merge(s, layer * s->cfg.n_kv_heads + h, c, n);
        kvg_store_push(s, &hd->cols[KVG_COL_K], NULL, KVG_COL_K, 0, k + at, stride, n);
        kvg_store_push(s, &hd->cols[KVG_COL_V], NULL, KVG_COL_V, 0, v + at, stride, n);
        for (size_t i = 0; i < n;) {
            size_t m = n - i < KVG_TILE_SLOTS ? n - i : KVG_TILE_SLOTS;
            for (size_t j = 0; j < m; j++)
                pos[j] = pos0 + (int32_t)(i + j);
            kvg_store_push(s, &hd->cols[KVG_COL_POS], &first->cols[KVG_COL_POS], KVG_COL_POS, 0,
                           pos, sizeof pos[0], m);
            i += m;
        }
        for (size_t c = KVG_COL_SIDE; c < kvg_store_cols(s); c++)
            if (!kvg_store_is_paged(s, c))
                kvg_store_push(s, &hd->cols[c], NULL, c, 0, zeros, 0, n);
        hd->n_slots += (uint32_t)n;
    }
}

/* ---- reading ---- */

void kvg_store_positions_range(const struct kvg_store *s, size_t layer, size_t head, size_t from,
                               size_t n, int32_t *out)
{
    const struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[KVG_COL_POS];
    for (uint32_t i = 0; i < l->n_segs && n > 0; i++) {
        const struct kvg_seg *g = &l->segs[i];
        if (from >= g->n) {
            from -= g->n;
            continue;
        }
        size_t m = g->n - from < n ? g->n - from : n;
        memcpy(out, kvg_seg_data(g, sizeof *out) + from * sizeof *out, m * sizeof *out);
        out += m;
        n -= m;
        from = 0;
    }
}

void kvg_store_positions(const struct kvg_store *s, size_t layer, size_t head, int32_t *out)
{
    kvg_store_positions_range(s, layer, head, 0, kvg_store_head(s, layer, head)->n_slots, out);
}

void kvg_store_read(const struct kvg_store *s, size_t layer, size_t head, enum kvg_col col,
                    size_t from, size_t n, float *out)
{
    const struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[col];
    size_t d = s->cfg.d_head, at = 0;
    float tile[KVG_TILE_SLOTS * KVG_ROW_FLOATS_MAX];
    for (uint32_t i = 0; i < l->n_segs && n > 0; at += l->segs[i].n, i++) {
        const struct kvg_seg *g = &l->segs[i];
        if (at + g->n <= from)
            continue;
        const struct kvg_codec *c = &s->codecs[g->codec];
        size_t skip = from - at, m = g->n - skip < n ? g->n - skip : n;
        size_t rb = kvg_store_row_bytes(s, col, g->codec);
        const unsigned char *src = c->group > 1 ? g->b->data : kvg_seg_data(g, rb);
        c->decode(c, s->cfg.kernels, layer * s->cfg.n_kv_heads + head, src, g->n, d, tile);
        memcpy(out, tile + skip * d, m * d * sizeof *out);
        out += m * d;
        from += m;
        n -= m;
    }
}

size_t kvg_store_exact_slots(const struct kvg_store *s, size_t layer, size_t head, enum kvg_col col)
{
    const struct kvg_list *l = &kvg_store_head(s, layer, head)->cols[col];
    size_t at = 0, exact = 0;
    for (uint32_t i = l->n_segs; i-- > 0;) {
        at += l->segs[i].n;
        if (l->segs[i].codec == 0)
            exact = at;
    }
    return exact;
}
