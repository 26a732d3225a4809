/* Owns the naive store; must not know how the real one keeps its rows. */
#include "gen_store.h"

#include "cache/heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kvg_store_cfg gen_store_cfg(size_t n_layers, size_t n_kv_heads)
{
    return (struct kvg_store_cfg){.n_layers = n_layers,
                                  .n_kv_heads = n_kv_heads,
                                  .d_head = GEN_D,
                                  .max_slots = GEN_SLOTS,
                                  .n_side = 3,
                                  .side_floats = {1, 2, GEN_PAGE_FLOATS},
                                  .side_page = {0, 1, GEN_PAGE},
                                  .kernels = kvg_kernels_get("ref")};
}

void gen_store_codecs(struct kvg_store *s)
{
    struct kvg_codec c[GEN_CODECS];
    kvg_codec_row(&c[0], KVG_F16, 0);
    kvg_codec_row(&c[1], KVG_Q8_0, 0);
    kvg_codec_row(&c[2], KVG_Q4_0, 1);
    kvg_codec_kivi_k(&c[3], 2, 32);
    kvg_codec_kivi_k(&c[4], 4, 8);
    kvg_codec_kivi_v(&c[5], 2, 32);
    kvg_codec_kivi_v(&c[6], 4, 32);
    kvg_codec_kivi_k(&c[7], 4, 32);
    c[7].partial = 1;
    kvg_codec_masked(&c[8], KVG_F32, GEN_CHANNELS);
    kvg_codec_masked(&c[9], KVG_F16, GEN_CHANNELS);
    for (int i = 0; i < GEN_CODECS; i++) {
        int index;
        if (kvg_store_add_codec(s, &c[i], &index, NULL) || index != i + 1)
            abort();
    }
}

void gen_rows(struct kvg_rng *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(4 * kvg_rng_unit(r) - 2);
}

void gen_append(struct gen_store *g, size_t layer, const float *k, const float *v, int32_t pos0,
                size_t n)
{
    for (size_t h = 0; h < g->n_kv_heads; h++) {
        size_t head = layer * g->n_kv_heads + h;
        for (size_t i = 0; i < n; i++) {
            struct gen_row *row = &g->rows[head][g->n[head]++];
            memset(row, 0, sizeof *row);
            row->pos = pos0 + (int32_t)i;
            memcpy(row->kv[0], k + (i * g->n_kv_heads + h) * GEN_D, sizeof row->kv[0]);
            memcpy(row->kv[1], v + (i * g->n_kv_heads + h) * GEN_D, sizeof row->kv[1]);
        }
    }
}

static size_t group_rows(const struct gen_store *g, size_t head, int col, uint32_t group)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n[head]; i++)
        n += g->rows[head][i].group[col] == group;
    return n;
}

/* A group that has lost rows is exact from now on, and so is all behind it. */
static void open_broken(struct gen_store *g, size_t head, int col)
{
    struct gen_row *rows = g->rows[head];
    size_t i = 0;
    while (i < g->n[head] && (!rows[i].group[col] ||
                              group_rows(g, head, col, rows[i].group[col]) == rows[i].n_group[col]))
        i++;
    for (uint32_t last = 0; i < g->n[head]; i++) {
        if (rows[i].group[col] && rows[i].group[col] != last)
            g->n_decoded += rows[i].n_group[col];
        last = rows[i].group[col];
        rows[i].codec[col] = 0, rows[i].group[col] = 0;
    }
}

void gen_keep(struct gen_store *g, size_t head, const uint32_t *slots, size_t n, int evict)
{
    size_t same = 0;
    while (same < n && slots[same] == same)
        same++;
    if (n < g->n[head] && g->n_pages[head] > same / GEN_PAGE)
        g->n_pages[head] = same / GEN_PAGE;
    g->n_evicted += evict ? g->n[head] - n : 0;
    for (size_t i = 0; i < n; i++)
        g->rows[head][i] = g->rows[head][slots[i]];
    g->n[head] = n;
    open_broken(g, head, 0);
    open_broken(g, head, 1);
}

static void seal_rows(struct gen_store *g, size_t head, int col, size_t from, size_t n, int codec,
                      uint32_t mask)
{
    const struct kvg_codec *c = &g->codecs->codecs[codec];
    float rows[KVG_TILE_SLOTS * GEN_D];
    static unsigned char packed[KVG_TILE_SLOTS * GEN_D * sizeof(float)];
    for (size_t i = 0; i < n; i++)
        memcpy(rows + i * GEN_D, g->rows[head][from + i].kv[col], GEN_D * sizeof *rows);
    c->encode(c, kvg_kernels_get("ref"), &(struct kvg_place){.channels = &mask}, rows, n, GEN_D,
              packed);
    c->decode(c, kvg_kernels_get("ref"), 0, packed, n, GEN_D, rows);
    g->last_group++;
    for (size_t i = 0; i < n; i++) {
        struct gen_row *row = &g->rows[head][from + i];
        memcpy(row->kv[col], rows + i * GEN_D, GEN_D * sizeof *rows);
        row->codec[col] = (uint8_t)codec;
        row->group[col] = c->group > 1 ? g->last_group : 0;
        row->n_group[col] = (uint8_t)n;
        row->mask[col] = mask;
    }
    g->n_encoded += n;
}

void gen_seal(struct gen_store *g, size_t head, int col, size_t upto, int codec, int again,
              size_t first_group, uint32_t mask)
{
    const struct kvg_codec *c = &g->codecs->codecs[codec];
    size_t first = g->n[head], m = first_group ? first_group : c->group;
    while (first > 0 && (again || !g->rows[head][first - 1].codec[col]))
        first--;
    size_t n = upto > first ? upto - first : 0;
    n = c->partial ? n : n / c->group * c->group;
    if (n == 0)
        return;
    for (size_t i = 0; again && i < g->n[head]; i++) {
        g->n_decoded += g->rows[head][i].codec[col] != 0;
        g->rows[head][i].codec[col] = 0;
        g->rows[head][i].group[col] = 0;
    }
    for (size_t i = 0; i < n; i += m, m = c->group) {
        m = n - i < m ? n - i : m;
        seal_rows(g, head, col, first + i, m, codec, mask);
    }
}

void gen_merge(struct gen_store *g, size_t head, size_t from, const uint32_t *slots, size_t n,
               float weight)
{
    struct gen_row *rows = g->rows[head], source = rows[from];
    uint32_t last = 0;
    g->n_decoded += source.group[1] ? source.n_group[1] : source.codec[1] != 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < GEN_D; k++)
            rows[slots[i]].kv[1][k] += weight * source.kv[1][k];
    for (size_t i = 0; i < n; i++) {
        struct gen_row *row = &rows[slots[i]];
        size_t first = slots[i], m = 1;
        if (!row->codec[1] || (row->group[1] && row->group[1] == last))
            continue;
        while (row->group[1] && first > 0 && rows[first - 1].group[1] == row->group[1])
            first--;
        m = row->group[1] ? row->n_group[1] : 1;
        g->n_decoded += m;
        seal_rows(g, head, 1, first, m, row->codec[1], row->mask[1]);
        last = row->group[1];
    }
}

void gen_truncate(struct gen_store *g, int32_t pos)
{
    uint32_t slots[GEN_SLOTS];
    for (size_t head = 0; head < g->n_layers * g->n_kv_heads; head++) {
        size_t n = 0;
        for (uint32_t i = 0; i < g->n[head]; i++)
            if (g->rows[head][i].pos < pos)
                slots[n++] = i;
        gen_keep(g, head, slots, n, 0);
    }
}

/* ---- comparing ---- */

#define DIFFER(...) return fprintf(stderr, __VA_ARGS__), -1

static int compare_head(const struct gen_store *g, const struct kvg_store *s, size_t head)
{
    static int32_t pos[GEN_SLOTS];
    static float rows[2][GEN_SLOTS * GEN_D], side[2][GEN_SLOTS * 2];
    size_t l = head / g->n_kv_heads, h = head % g->n_kv_heads, n = s->heads[head].n_slots;
    if (n != g->n[head])
        DIFFER("head %zu: %zu slots, want %zu\n", head, n, g->n[head]);
    kvg_store_positions(s, l, h, pos);
    for (int c = 0; c < 2; c++) {
        kvg_store_read(s, l, h, (enum kvg_col)c, 0, n, rows[c]);
        kvg_store_side_get(s, l, h, (size_t)c, side[c]);
    }
    for (size_t i = 0; i < n; i++) {
        const struct gen_row *row = &g->rows[head][i];
        if (pos[i] != row->pos)
            DIFFER("head %zu, slot %zu: position %d, want %d\n", head, i, pos[i], row->pos);
        for (int c = 0; c < 2; c++)
            if (memcmp(rows[c] + i * GEN_D, row->kv[c], sizeof row->kv[c]))
                DIFFER("head %zu, slot %zu: another row of %c\n", head, i, c ? 'V' : 'K');
        if (side[0][i] != row->side[0] || memcmp(side[1] + 2 * i, row->side + 1, 8))
            DIFFER("head %zu, slot %zu: other side columns\n", head, i);
    }
    for (int c = 0; c < 2; c++) {
        size_t exact = n;
        for (size_t i = n; i-- > 0;)
            exact = g->rows[head][i].codec[c] ? exact : i;
        if (kvg_store_exact_slots(s, l, h, (enum kvg_col)c) != n - exact)
            DIFFER("head %zu: wrong number of exact slots\n", head);
    }
    if (kvg_store_page_rows(s, l, h, 2) != g->n_pages[head])
        DIFFER("head %zu: %zu pages, want %zu\n", head, kvg_store_page_rows(s, l, h, 2),
               g->n_pages[head]);
    for (size_t i = 0; i < g->n_pages[head]; i++)
        if (memcmp(kvg_store_page(s, l, h, 2, i), g->pages[head][i], sizeof g->pages[head][i]))
            DIFFER("head %zu: another row of page %zu\n", head, i);
    return 0;
}

/* Bytes of one column of a head: groups as they were sealed, other rows one by one. */
static void column_bytes(const struct gen_store *g, size_t head, int col, size_t *payload,
                         size_t *scales)
{
    for (size_t i = 0; i < g->n[head]; i++) {
        const struct gen_row *row = &g->rows[head][i];
        const struct kvg_codec *c = &g->codecs->codecs[row->codec[col]];
        size_t p, q;
        if (i && row->group[col] && row->group[col] == row[-1].group[col])
            continue;
        c->bytes(c, row->group[col] ? row->n_group[col] : 1, GEN_D, &p, &q);
        *payload += p;
        *scales += q;
    }
}

/* Allocated for K and V and not used by their rows, block by block. */
static size_t unused_bytes(const struct kvg_store *s)
{
    size_t bytes = 0;
    for (size_t head = 0; head < s->cfg.n_layers * s->cfg.n_kv_heads; head++)
        for (int col = 0; col < 2; col++)
            for (uint32_t i = 0; i < s->heads[head].cols[col].n_segs; i++) {
                const struct kvg_seg *x = &s->heads[head].cols[col].segs[i];
                const struct kvg_codec *c = &s->codecs[x->codec];
                size_t room = x->codec ? c->block_slots : s->cfg.block_slots;
                bytes +=
                    kvg_codec_total_bytes(c, room, GEN_D) - kvg_codec_total_bytes(c, x->n, GEN_D);
            }
    return bytes;
}

static int compare_bytes(const struct gen_store *g, const struct kvg_store *s)
{
    struct kvg_bytes b;
    size_t payload = 0, scales = 0, n = 0, state = s->held_bytes;
    for (size_t head = 0; head < g->n_layers * g->n_kv_heads; head++) {
        n += g->n[head];
        state += g->n[head] * GEN_SIDE * 4 + g->n_pages[head] * GEN_PAGE_FLOATS * 4;
        column_bytes(g, head, 0, &payload, &scales);
        column_bytes(g, head, 1, &payload, &scales);
    }
    kvg_store_bytes(s, &b);
    if (b.payload != payload || b.scales != scales || b.state != state)
        DIFFER("payload %zu, scales %zu, state %zu; want %zu, %zu, %zu\n", b.payload, b.scales,
               b.state, payload, scales, state);
    if (b.index > n * sizeof(int32_t) || (n && !b.index))
        DIFFER("%zu bytes of positions for %zu slots\n", b.index, n);
    if (b.logical != b.payload + b.scales + b.index + b.state || b.alloc < b.logical)
        DIFFER("%zu logical bytes, %zu allocated\n", b.logical, b.alloc);
    if (b.frag != unused_bytes(s) || b.frag > b.alloc - b.payload - b.scales)
        DIFFER("%zu bytes of fragments of %zu allocated\n", b.frag, b.alloc);
    return 0;
}

int gen_store_compare(const struct gen_store *g, const struct kvg_store *s)
{
    struct kvg_err err;
    if (kvg_store_check(s, &err))
        DIFFER("%s\n", err.msg);
    for (size_t head = 0; head < g->n_layers * g->n_kv_heads; head++)
        if (compare_head(g, s, head))
            return -1;
    const struct kvg_counters *c = &s->count;
    if (c->n_evicted != g->n_evicted || c->n_encoded != g->n_encoded ||
        c->n_decoded != g->n_decoded)
        DIFFER("evicted %llu, encoded %llu, decoded %llu; want %llu, %llu, %llu\n",
               (unsigned long long)c->n_evicted, (unsigned long long)c->n_encoded,
               (unsigned long long)c->n_decoded, (unsigned long long)g->n_evicted,
               (unsigned long long)g->n_encoded, (unsigned long long)g->n_decoded);
    return compare_bytes(g, s);
}

static int by_address(const void *a, const void *b)
{
    const struct kvg_block *const *x = a, *const *y = b;
    return *x < *y ? -1 : *x > *y;
}

int gen_heap_check(struct kvg_store *const *stores, size_t n)
{
    static const struct kvg_block *seen[1 << 16];
    const struct kvg_heap *heap = NULL;
    size_t m = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const struct kvg_store *s = stores[i];
        if (!s)
            continue;
        heap = s->heap;
        for (size_t h = 0; h < s->cfg.n_layers * s->cfg.n_kv_heads; h++)
            for (size_t c = 0; c < KVG_COL_SIDE + s->cfg.n_side; c++)
                for (uint32_t k = 0; k < s->heads[h].cols[c].n_segs; k++)
                    seen[m++] = s->heads[h].cols[c].segs[k].b;
    }
    qsort(seen, m, sizeof *seen, by_address);
    for (size_t i = 0, k; i < m; i = k) {
        for (k = i; k < m && seen[k] == seen[i]; k++)
            ;
        if (seen[i]->refs != k - i)
            DIFFER("a block has %u references, %zu are there\n", seen[i]->refs, k - i);
        bytes += heap->class_bytes[seen[i]->size_class] + sizeof(struct kvg_block);
    }
    if (heap && bytes != heap->used_bytes)
        DIFFER("%zu bytes of blocks in use, the heap says %zu\n", bytes, heap->used_bytes);
    return 0;
}
