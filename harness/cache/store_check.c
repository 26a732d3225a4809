/* Owns the checking of a store: order, counts, references, bytes. Changes nothing (the scratch of
 * the store apart). */
#include "cache/store_internal.h"

static int check_list(const struct kvg_store *s, size_t head, size_t col, struct kvg_err *err)
{
    const struct kvg_list *l = &s->heads[head].cols[col];
    size_t n = 0;
    for (uint32_t i = 0; i < l->n_segs; i++) {
        const struct kvg_seg *g = &l->segs[i];
        size_t cap = kvg_store_block_slots(s, col, g->codec);
        if (!g->n || g->off + g->n > cap || g->off + g->n > g->b->written || !g->b->refs)
            return KVG_FAIL(err, KVG_ECHECK, "store: bad segment %u of head %zu, column %zu", i,
                            head, col);
        n += g->n;
    }
    size_t page = kvg_store_is_paged(s, col) ? s->cfg.side_page[col - KVG_COL_SIDE] : 0;
    if (page ? n * page > s->heads[head].n_slots : n != s->heads[head].n_slots)
        return KVG_FAIL(err, KVG_ECHECK, "store: head %zu has %u slots but column %zu has %zu",
                        head, s->heads[head].n_slots, col, n);
    return 0;
}

static int check_order(const struct kvg_store *s, size_t head, struct kvg_err *err)
{
    int32_t *pos = (int32_t *)(void *)s->picks;
    kvg_store_positions(s, head / s->cfg.n_kv_heads, head % s->cfg.n_kv_heads, pos);
    for (size_t i = 1; i < s->heads[head].n_slots; i++)
        if (pos[i] <= pos[i - 1])
            return KVG_FAIL(err, KVG_ECHECK, "store: positions of head %zu are not ascending",
                            head);
    return 0;
}

/* What one list may hold beyond its rows: a block of each form in it, and of forms whose groups may
 * be short the room of two (the first and the last); small blocks weigh more than their rows. */
static size_t slack(const struct kvg_store *s, size_t head, size_t col)
{
    const struct kvg_list *l = &s->heads[head].cols[col];
    size_t bytes = 0, n_short = 0;
    unsigned seen = 0;
    for (uint32_t i = 0; i < l->n_segs; i++) {
        unsigned c = l->segs[i].codec, room = kvg_store_block_slots(s, col, c);
        size_t block = s->heap->class_bytes[kvg_store_class(s, col, c)];
        if (s->cfg.block_slots < KVG_TILE_SLOTS && !c)
            bytes += block - room * kvg_store_row_bytes(s, col, c) + sizeof(struct kvg_block);
        int group = kvg_store_is_group(s, col, c);
        if (group ? l->segs[i].n == room || n_short++ == 2 : seen >> c & 1)
            continue;
        seen |= 1u << c;
        bytes += block + sizeof(struct kvg_block);
    }
    return bytes;
}

int kvg_store_check(const struct kvg_store *s, struct kvg_err *err)
{
    size_t block = 0;
    for (size_t h = 0; h < kvg_store_heads(s); h++) {
        for (size_t c = 0; c < kvg_store_cols(s); c++) {
            int rc = check_list(s, h, c, err);
            if (rc)
                return rc;
            block += slack(s, h, c);
        }
        int rc = check_order(s, h, err);
        if (rc)
            return rc;
    }
    struct kvg_bytes b;
    kvg_store_bytes(s, &b);
    if (s->heap->owners == 1 && b.alloc > b.logical + b.logical / 10 + block)
        return KVG_FAIL(err, KVG_ECHECK,
                        "store: %zu bytes allocated for %zu logical ones: more "
                        "than 1.10 x and one block per list and form",
                        b.alloc, b.logical);
    return 0;
}
