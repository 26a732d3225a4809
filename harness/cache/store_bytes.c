/* Owns the counting of bytes in use: what rows need, and what blocks hold. Changes nothing but the
 * mark of the peak. */
#include "cache/store_internal.h"

#include <string.h>

static void kv_bytes(const struct kvg_store *s, size_t col, const struct kvg_list *l,
                     struct kvg_bytes *out)
{
    for (uint32_t i = 0; i < l->n_segs; i++) {
        size_t payload, scales, room = kvg_store_block_slots(s, col, l->segs[i].codec);
        const struct kvg_codec *c = &s->codecs[l->segs[i].codec];
        c->bytes(c, l->segs[i].n, s->cfg.d_head, &payload, &scales);
        out->payload += payload;
        out->scales += scales;
        out->frag += kvg_codec_total_bytes(c, room, s->cfg.d_head) - payload - scales;
    }
}

/* Whether an earlier head's list already counts this block of positions. */
static int counted(const struct kvg_store *s, size_t head, uint32_t seg)
{
    const struct kvg_block *b = s->heads[head].cols[KVG_COL_POS].segs[seg].b;
    if (b->refs == 1)
        return 0;
    size_t layer_first = head - head % s->cfg.n_kv_heads;
    const size_t twins[] = {0, layer_first};
    for (size_t i = 0; i < 2; i++) {
        const struct kvg_list *t = &s->heads[twins[i]].cols[KVG_COL_POS];
        if (twins[i] < head && seg < t->n_segs && t->segs[seg].b == b)
            return 1;
    }
    return 0;
}

static size_t side_rows(const struct kvg_store *s, size_t head, size_t i)
{
    size_t heads = s->cfg.n_kv_heads;
    return kvg_store_is_paged(s, KVG_COL_SIDE + i)
               ? kvg_store_page_rows(s, head / heads, head % heads, i)
               : s->heads[head].n_slots;
}

void kvg_store_bytes(const struct kvg_store *s, struct kvg_bytes *out)
{
    memset(out, 0, sizeof *out);
    for (size_t h = 0; h < kvg_store_heads(s); h++) {
        const struct kvg_head *hd = &s->heads[h];
        kv_bytes(s, KVG_COL_K, &hd->cols[KVG_COL_K], out);
        kv_bytes(s, KVG_COL_V, &hd->cols[KVG_COL_V], out);
        for (uint32_t i = 0; i < hd->cols[KVG_COL_POS].n_segs; i++)
            if (!counted(s, h, i))
                out->index += hd->cols[KVG_COL_POS].segs[i].n * sizeof(int32_t);
        for (size_t c = 0; c < s->cfg.n_side; c++)
            out->state += side_rows(s, h, c) * s->cfg.side_floats[c] * sizeof(float);
    }
    out->state += s->held_bytes;
    out->logical = out->payload + out->scales + out->index + out->state;
    out->alloc = s->heap->used_bytes + s->held_bytes;
}

void kvg_store_mark_peak(struct kvg_store *s)
{
    s->heap->peak_bytes = s->heap->used_bytes;
}

size_t kvg_store_peak_bytes(const struct kvg_store *s)
{
    return s->heap->peak_bytes + s->held_bytes;
}
