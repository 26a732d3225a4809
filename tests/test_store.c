/* The store beside a naive model of it: thousands of random operations, everything that can be seen
 * compared after each; and the things that have one right answer: bytes, shared positions, reset.
 */
#include "gen_store.h"

#include "cache/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDES = 2 }; /* the store and one fork of it */

struct bench {
    struct kvg_rng r;
    struct kvg_store *s[SIDES];
    struct gen_store *g[SIDES];
    int32_t next[SIDES]; /* position of the next token */
    struct kvg_plan plan;
    size_t n_layers, n_kv_heads;
    int form[2];   /* codecs of K and V, as a pipeline has them */
    char what[96]; /* the last operation, for messages */
};

static size_t below(struct bench *b, size_t n)
{
    return (size_t)kvg_rng_below(&b->r, n);
}

static void bench_open(struct bench *b, size_t n_layers, size_t n_kv_heads, size_t block_slots,
                       uint64_t seed)
{
    struct kvg_store_cfg cfg = gen_store_cfg(n_layers, n_kv_heads);
    cfg.block_slots = block_slots;
    *b = (struct bench){.r = {seed}, .n_layers = n_layers, .n_kv_heads = n_kv_heads};
    assert_int_equal(kvg_store_open(&b->s[0], &cfg, NULL), 0);
    assert_int_equal(kvg_plan_init(&b->plan, 64, 8 * GEN_SLOTS, NULL), 0);
    gen_store_codecs(b->s[0]);
    for (int i = 0; i < SIDES; i++) {
        b->g[i] = calloc(1, sizeof *b->g[i]);
        assert_non_null(b->g[i]);
        b->g[i]->n_layers = n_layers;
        b->g[i]->n_kv_heads = n_kv_heads;
        b->g[i]->codecs = b->s[0];
    }
}

static void bench_close(struct bench *b)
{
    kvg_plan_release(&b->plan);
    for (int i = 0; i < SIDES; i++) {
        kvg_store_close(b->s[i]);
        free(b->g[i]);
    }
}

static void append(struct bench *b, int i)
{
    static float k[GEN_SLOTS * 3 * GEN_D], v[GEN_SLOTS * 3 * GEN_D];
    size_t most = 0, heads = b->n_layers * b->n_kv_heads;
    for (size_t h = 0; h < heads; h++)
        most = b->g[i]->n[h] > most ? b->g[i]->n[h] : most;
    size_t room = GEN_SLOTS - most, n = below(b, 3) ? 1 + below(b, 4) : 1 + below(b, 150);
    n = n < room ? n : room;
    snprintf(b->what, sizeof b->what, "append %zu at %d", n, b->next[i]);
    for (size_t l = 0; l < b->n_layers; l++) {
        gen_rows(&b->r, k, n * b->n_kv_heads * GEN_D);
        gen_rows(&b->r, v, n * b->n_kv_heads * GEN_D);
        kvg_store_append(b->s[i], l, k, v, b->n_kv_heads * GEN_D, b->next[i], n);
        gen_append(b->g[i], l, k, v, b->next[i], n);
        memset(k, 0xff, sizeof k); /* the store must not look at the caller's rows again */
        memset(v, 0xff, sizeof v);
    }
    b->next[i] += (int32_t)n;
}

static void apply(struct bench *b, int i)
{
    struct kvg_err err;
    if (kvg_store_apply(b->s[i], &b->plan, &err))
        fail_msg("%s: %s", b->what, err.msg);
}

/* A random subset stays; the same one for all heads, or each head its own. */
static void keep(struct bench *b, int i)
{
    size_t heads = b->n_layers * b->n_kv_heads, only = below(b, heads + 2);
    uint64_t seed = kvg_rng_next(&b->r);
    size_t of = 1 + below(b, 40), drop = below(b, 2);
    snprintf(b->what, sizeof b->what, "%s 1 of %zu", drop ? "drop" : "keep all but", of);
    for (size_t h = 0; h < heads; h++) {
        struct kvg_rng own = {only > heads ? seed : kvg_rng_next(&b->r)};
        uint32_t *listed = kvg_plan_slots(&b->plan, b->g[i]->n[h]), stay[GEN_SLOTS];
        size_t n = 0, n_stay = 0;
        if (only < heads && only != h)
            continue;
        for (uint32_t j = 0; j < b->g[i]->n[h]; j++) {
            int gone = kvg_rng_below(&own, of) == 0;
            if (gone == (int)drop)
                listed[n++] = j;
            if (!gone)
                stay[n_stay++] = j;
        }
        kvg_plan_list(&b->plan, drop ? KVG_PLAN_DROP : KVG_PLAN_KEEP, h / b->n_kv_heads,
                      h % b->n_kv_heads, listed, n);
        gen_keep(b->g[i], h, stay, n_stay, 1);
    }
    apply(b, i);
}

/* What window and sink do: a range goes, behind some sinks. */
static void drop_range(struct bench *b, int i)
{
    size_t sinks = below(b, 5), n_drop = below(b, 3) ? 1 : below(b, 60);
    snprintf(b->what, sizeof b->what, "drop %zu behind %zu", n_drop, sinks);
    for (size_t h = 0; h < b->n_layers * b->n_kv_heads; h++) {
        uint32_t stay[GEN_SLOTS];
        size_t n = b->g[i]->n[h], to = sinks + n_drop < n ? sinks + n_drop : n, n_stay = 0;
        for (uint32_t j = 0; j < n; j++)
            if (j < sinks || j >= to)
                stay[n_stay++] = j;
        kvg_plan_drop_range(&b->plan, h / b->n_kv_heads, h % b->n_kv_heads, sinks, to);
        gen_keep(b->g[i], h, stay, n_stay, 1);
    }
    apply(b, i);
}

/* GEN_CHANNELS random channels, in the plan's room. */
static const uint32_t *some_channels(struct bench *b)
{
    uint32_t *mask = kvg_plan_slots(&b->plan, 1);
    *mask = 0;
    for (size_t n = 0; n < GEN_CHANNELS;) {
        uint32_t bit = 1u << below(b, GEN_D);
        n += !(*mask & bit);
        *mask |= bit;
    }
    return mask;
}

/* Exact rows are encoded, or all of them anew. A list has at most two short groups: one is only
 * sealed where nothing is sealed yet, or together with everything. */
static void seal(struct bench *b, int i)
{
    int col = (int)below(b, 2), codec = b->form[col], again = below(b, 3) == 0;
    const struct kvg_codec *c = &b->g[i]->codecs->codecs[codec];
    snprintf(b->what, sizeof b->what, "%s column %d with codec %d", again ? "reseal" : "seal", col,
             codec);
    for (size_t h = 0; h < b->n_layers * b->n_kv_heads; h++) {
        size_t n = b->g[i]->n[h], upto = below(b, 2) ? n : below(b, n + 1), first = 0, sealed = 0;
        const uint32_t *channels = c->masked ? some_channels(b) : NULL;
        while (sealed < n && b->g[i]->rows[h][sealed].codec[col])
            sealed++;
        if (!again && sealed && upto > sealed)
            upto = sealed + (upto - sealed) / c->group * c->group;
        if (again && c->partial)
            first = below(b, c->group + 1);
        if (again)
            kvg_plan_reseal(&b->plan, h / b->n_kv_heads, h % b->n_kv_heads, col, upto, codec,
                            first);
        else
            kvg_plan_seal(&b->plan, h / b->n_kv_heads, h % b->n_kv_heads, col, upto, codec);
        b->plan.ops[b->plan.n_ops - 1].channels = channels;
        gen_seal(b->g[i], h, col, upto, codec, again, first, channels ? *channels : 0);
    }
    apply(b, i);
}

/* A slot's V goes to some others, and often the slot goes too. */
static void merge(struct bench *b, int i)
{
    float weight = (float)(kvg_rng_unit(&b->r) - 0.3);
    snprintf(b->what, sizeof b->what, "merge with weight %g", (double)weight);
    for (size_t h = 0; h < b->n_layers * b->n_kv_heads; h++) {
        size_t n = b->g[i]->n[h], from = n ? below(b, n) : 0, m = 0, of = 1 + below(b, 20);
        uint32_t *slots = kvg_plan_slots(&b->plan, n), stay[GEN_SLOTS];
        if (!n)
            continue;
        for (uint32_t j = 0; j < n; j++)
            if (j != from && below(b, of) == 0)
                slots[m++] = j;
        kvg_plan_merge(&b->plan, h / b->n_kv_heads, h % b->n_kv_heads, from, slots, m, weight);
        gen_merge(b->g[i], h, from, slots, m, weight);
        if (below(b, 3) == 0)
            continue;
        kvg_plan_drop_range(&b->plan, h / b->n_kv_heads, h % b->n_kv_heads, from, from + 1);
        for (uint32_t j = 0; j + 1 < n; j++)
            stay[j] = j < from ? j : j + 1;
        gen_keep(b->g[i], h, stay, n - 1, 1);
    }
    apply(b, i);
}

/* Rows for some of the pages that have none. */
static void push_pages(struct bench *b, int i)
{
    snprintf(b->what, sizeof b->what, "push pages");
    for (size_t h = 0; h < b->n_layers * b->n_kv_heads; h++) {
        struct gen_store *g = b->g[i];
        size_t most = g->n[h] / GEN_PAGE;
        for (size_t left = below(b, 12); left > 0 && g->n_pages[h] < most; left--) {
            float *row = g->pages[h][g->n_pages[h]++];
            gen_rows(&b->r, row, GEN_PAGE_FLOATS);
            kvg_store_page_push(b->s[i], h / b->n_kv_heads, h % b->n_kv_heads, 2, row);
        }
    }
}

static void put_side(struct bench *b, int i)
{
    static float values[GEN_SLOTS * 2];
    size_t h = below(b, b->n_layers * b->n_kv_heads), c = below(b, 2), w = c + 1;
    snprintf(b->what, sizeof b->what, "write side column %zu of head %zu", c, h);
    gen_rows(&b->r, values, b->g[i]->n[h] * w);
    for (size_t j = 0; j < b->g[i]->n[h]; j++)
        memcpy(b->g[i]->rows[h][j].side + c, values + j * w, w * sizeof *values);
    kvg_store_side_put(b->s[i], h / b->n_kv_heads, h % b->n_kv_heads, c, values);
}

static void truncate_at(struct bench *b, int i)
{
    int32_t pos = b->next[i] - (int32_t)below(b, below(b, 4) ? 20 : 300);
    pos = pos < 0 ? 0 : pos;
    snprintf(b->what, sizeof b->what, "truncate to %d", pos);
    kvg_store_truncate(b->s[i], pos);
    gen_truncate(b->g[i], pos);
    b->next[i] = pos < b->next[i] ? pos : b->next[i];
}

/* Opens the fork that is missing, or closes one of the two. */
static void fork_or_close(struct bench *b)
{
    int gone = b->s[0] == NULL ? 0 : b->s[1] == NULL ? 1 : -1;
    if (gone < 0) {
        gone = (int)below(b, 2);
        snprintf(b->what, sizeof b->what, "close side %d", gone);
        kvg_store_close(b->s[gone]);
        b->s[gone] = NULL;
        b->g[0]->codecs = b->g[1]->codecs = b->s[!gone];
        return;
    }
    snprintf(b->what, sizeof b->what, "fork to side %d", gone);
    assert_int_equal(kvg_store_open_fork(&b->s[gone], b->s[!gone], NULL), 0);
    *b->g[gone] = *b->g[!gone];
    b->g[gone]->n_evicted = b->g[gone]->n_encoded = b->g[gone]->n_decoded = 0;
    b->next[gone] = b->next[!gone];
}

static void random_op(struct bench *b)
{
    size_t op = below(b, 20);
    int i = b->s[1] && (!b->s[0] || below(b, 2));
    if (op < 6)
        append(b, i);
    else if (op < 8)
        keep(b, i);
    else if (op < 10)
        drop_range(b, i);
    else if (op < 13)
        seal(b, i);
    else if (op == 13)
        put_side(b, i);
    else if (op == 14)
        truncate_at(b, i);
    else if (op == 15)
        b->s[i]->held_bytes = below(b, 1000);
    else if (op < 18)
        merge(b, i);
    else if (op == 18)
        push_pages(b, i);
    else
        fork_or_close(b);
}

static const size_t blocks[] = {0, 16, 1, 8, 5}; /* slots of a block of exact rows; 0 = 64 */

static void run_random(size_t n_layers, size_t n_kv_heads, uint64_t seed, size_t n_ops)
{
    struct bench b;
    bench_open(&b, n_layers, n_kv_heads, blocks[seed / 3 % 5], seed);
    b.form[0] = 1 + (int)(seed % GEN_CODECS);
    b.form[1] = 1 + (int)(seed / GEN_CODECS % GEN_CODECS);
    for (size_t i = 0; i < n_ops; i++) {
        random_op(&b);
        for (int k = 0; k < SIDES; k++)
            if (b.s[k] && gen_store_compare(b.g[k], b.s[k]))
                fail_msg("seed %llu, operation %zu (%s), side %d", (unsigned long long)seed, i,
                         b.what, k);
        if (gen_heap_check(b.s, SIDES))
            fail_msg("seed %llu, operation %zu (%s)", (unsigned long long)seed, i, b.what);
    }
    int last = b.s[0] == NULL;
    kvg_store_close(b.s[!last]);
    b.s[!last] = NULL;
    kvg_store_reset(b.s[last]);
    b.s[last]->held_bytes = 0;
    struct kvg_bytes bytes;
    kvg_store_bytes(b.s[last], &bytes);
    assert_int_equal(bytes.logical, 0);
    assert_int_equal(bytes.alloc, 0);
    assert_int_equal(b.s[last]->count.n_evicted, 0);
    bench_close(&b);
}

static void test_random(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {2, 2}, {1, 3}, {3, 1}, {2, 3}};
    for (uint64_t seed = 0; seed < 100; seed++)
        run_random(shapes[seed / 7 % 5][0], shapes[seed / 7 % 5][1], seed, 70);
}

/* 2 x layers x KV heads x head size x 4 x tokens, exactly; positions once while all heads agree. */
static void test_bytes_of_an_exact_store(void **state)
{
    (void)state;
    struct bench b;
    size_t n = 0;
    bench_open(&b, 2, 3, 0, 1);
    for (int step = 0; step < 40; step++) {
        struct kvg_bytes bytes;
        append(&b, 0);
        n = b.g[0]->n[0];
        kvg_store_bytes(b.s[0], &bytes);
        assert_int_equal(bytes.payload, 2 * 2 * 3 * GEN_D * 4 * n);
        assert_int_equal(bytes.scales, 0);
        assert_int_equal(bytes.index, 4 * n);
        assert_int_equal(bytes.state, 2 * 3 * GEN_SIDE * 4 * n);
        assert_int_equal(bytes.alloc, b.s[0]->heap->used_bytes);
        if (n == GEN_SLOTS)
            truncate_at(&b, 0);
    }
    bench_close(&b);
}

/* Positions are shared again after all heads have dropped the same slots. */
static void test_positions_stay_shared(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 2, 2, 0, 2);
    for (int i = 0; i < 30; i++) {
        struct kvg_bytes bytes;
        while (b.g[0]->n[0] < 100)
            append(&b, 0);
        drop_range(&b, 0);
        kvg_store_bytes(b.s[0], &bytes);
        assert_int_equal(bytes.index, 4 * b.g[0]->n[0]);
    }
    bench_close(&b);
}

/* The peak is the most that was allocated since it was marked. */
static void test_peak(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 1, 2, 0, 3);
    while (b.g[0]->n[0] < 200)
        append(&b, 0);
    size_t full = b.s[0]->heap->used_bytes;
    truncate_at(&b, 0);
    assert_int_equal(kvg_store_peak_bytes(b.s[0]) >= full, 1);
    kvg_store_truncate(b.s[0], 0);
    kvg_store_mark_peak(b.s[0]);
    assert_int_equal(kvg_store_peak_bytes(b.s[0]), b.s[0]->heap->used_bytes);
    assert_int_equal(b.s[0]->heap->used_bytes, 0);
    bench_close(&b);
}

/* What is held outside the slots counts as state and as allocated, and in the peak. */
static void test_held_bytes(void **state)
{
    (void)state;
    struct bench b;
    struct kvg_bytes before, after;
    bench_open(&b, 1, 2, 0, 4);
    append(&b, 0);
    size_t peak = kvg_store_peak_bytes(b.s[0]);
    kvg_store_bytes(b.s[0], &before);
    b.s[0]->held_bytes = 1000;
    kvg_store_bytes(b.s[0], &after);
    assert_int_equal(after.state, before.state + 1000);
    assert_int_equal(after.logical, before.logical + 1000);
    assert_int_equal(after.alloc, before.alloc + 1000);
    assert_int_equal(kvg_store_peak_bytes(b.s[0]), peak + 1000);
    bench_close(&b);
}

/* Small blocks: less is allocated that holds nothing, and a block of one slot never is. */
static void test_fragments(void **state)
{
    (void)state;
    static const size_t slots[] = {1, 16, 64};
    for (size_t i = 0; i < 3; i++) {
        struct bench b;
        struct kvg_bytes bytes;
        static float rows[GEN_SLOTS * 2 * GEN_D];
        bench_open(&b, 1, 2, slots[i], 5);
        kvg_store_append(b.s[0], 0, rows, rows, (size_t)2 * GEN_D, 0, 100);
        gen_append(b.g[0], 0, rows, rows, 0, 100);
        assert_int_equal(gen_store_compare(b.g[0], b.s[0]), 0);
        kvg_store_bytes(b.s[0], &bytes);
        size_t room = (100 + slots[i] - 1) / slots[i] * slots[i];
        assert_int_equal(bytes.frag, 2 * 2 * GEN_D * 4 * (room - 100));
        assert_int_equal(b.s[0]->heads[0].cols[KVG_COL_K].n_segs, room / slots[i]);
        bench_close(&b);
    }
}

/* A page's row goes with the first slot of the page, and so do all behind; forks have their own. */
static void test_pages(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 1, 1, 0, 6);
    while (b.g[0]->n[0] < 120)
        append(&b, 0);
    while (b.g[0]->n_pages[0] < 15)
        push_pages(&b, 0);
    size_t all = b.g[0]->n_pages[0];
    assert_int_equal(kvg_store_open_fork(&b.s[1], b.s[0], NULL), 0);
    kvg_plan_drop_range(&b.plan, 0, 0, 8 * GEN_PAGE + 7, 8 * GEN_PAGE + 8);
    apply(&b, 0);
    assert_int_equal(kvg_store_page_rows(b.s[0], 0, 0, 2), 8);
    assert_int_equal(kvg_store_page_rows(b.s[1], 0, 0, 2), all);
    float row[GEN_PAGE_FLOATS] = {1, 2, 3, 4, 5};
    kvg_store_page_push(b.s[0], 0, 0, 2, row);
    assert_memory_equal(kvg_store_page(b.s[0], 0, 0, 2, 8), row, sizeof row);
    for (size_t i = 0; i < all; i++)
        assert_memory_equal(kvg_store_page(b.s[1], 0, 0, 2, i), b.g[0]->pages[0][i], sizeof row);
    kvg_store_truncate(b.s[1], 3 * GEN_PAGE + 1);
    assert_int_equal(kvg_store_page_rows(b.s[1], 0, 0, 2), 3);
    assert_int_equal(gen_heap_check(b.s, SIDES), 0);
    bench_close(&b);
}

static void test_limits(void **state)
{
    (void)state;
    struct kvg_store *s;
    struct kvg_err err;
    struct kvg_store_cfg cfg = gen_store_cfg(1, 1);
    cfg.n_side = KVG_SIDE_MAX + 1;
    assert_int_equal(kvg_store_open(&s, &cfg, &err), KVG_EUNSUP);
    cfg.n_side = 1;
    cfg.side_floats[0] = 4096;
    assert_int_equal(kvg_store_open(&s, &cfg, &err), KVG_EUNSUP);
    cfg.side_floats[0] = 1;
    cfg.d_head = 1024;
    assert_int_equal(kvg_store_open(&s, &cfg, &err), KVG_EUNSUP);
    cfg.d_head = GEN_D;
    cfg.block_slots = 65;
    assert_int_equal(kvg_store_open(&s, &cfg, &err), KVG_EUNSUP);
    cfg.block_slots = 64;
    assert_int_equal(kvg_store_open(&s, &cfg, &err), 0);
    gen_store_codecs(s);
    struct kvg_codec c;
    int index;
    kvg_codec_kivi_k(&c, 2, 32); /* known already: the same index again */
    assert_int_equal(kvg_store_add_codec(s, &c, &index, &err), 0);
    assert_int_equal(index, 4);
    for (size_t i = s->n_codecs; i < KVG_CODECS_MAX; i++) {
        kvg_codec_masked(&c, KVG_F32, (unsigned)i);
        assert_int_equal(kvg_store_add_codec(s, &c, &index, &err), 0);
        assert_int_equal(index, i);
    }
    kvg_codec_kivi_k(&c, 2, 16);
    assert_int_equal(kvg_store_add_codec(s, &c, &index, &err), KVG_EUNSUP);
    kvg_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_bytes_of_an_exact_store),
        cmocka_unit_test(test_positions_stay_shared),
        cmocka_unit_test(test_peak),
        cmocka_unit_test(test_held_bytes),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
