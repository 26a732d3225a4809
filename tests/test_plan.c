/* Plans: what is not well formed is refused whole, groups that are kept or dropped as one, and the
 * encoded bytes are what is read back. */
#include "gen_store.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 100, KIVI_K = 4, KIVI_V = 6, F16 = 1 };

struct rig {
    struct kvg_store *s;
    struct gen_store *g;
    struct kvg_plan plan;
    float *k, *v; /* [N, 2, GEN_D] as appended */
};

static void rig_open(struct rig *r)
{
    struct kvg_store_cfg cfg = gen_store_cfg(1, 2);
    struct kvg_rng rng = {17};
    size_t n = (size_t)N * 2 * GEN_D;
    assert_int_equal(kvg_store_open(&r->s, &cfg, NULL), 0);
    assert_int_equal(kvg_plan_init(&r->plan, 8, 4 * GEN_SLOTS, NULL), 0);
    gen_store_codecs(r->s);
    r->g = calloc(1, sizeof *r->g);
    r->k = malloc(n * sizeof *r->k);
    r->v = malloc(n * sizeof *r->v);
    assert_true(r->g && r->k && r->v);
    r->g->n_layers = 1;
    r->g->n_kv_heads = 2;
    r->g->codecs = r->s;
    gen_rows(&rng, r->k, n);
    gen_rows(&rng, r->v, n);
    kvg_store_append(r->s, 0, r->k, r->v, 2 * GEN_D, 0, N);
    gen_append(r->g, 0, r->k, r->v, 0, N);
}

static void rig_close(struct rig *r)
{
    kvg_plan_release(&r->plan);
    kvg_store_close(r->s);
    free(r->g);
    free(r->k);
    free(r->v);
}

static void seal(struct rig *r, int col, size_t upto, int codec)
{
    for (size_t h = 0; h < 2; h++) {
        kvg_plan_seal(&r->plan, 0, h, col, upto, codec);
        gen_seal_plain(r->g, h, col, upto, codec);
    }
    assert_int_equal(kvg_store_apply(r->s, &r->plan, NULL), 0);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        enum kvg_plan_kind kind;
        size_t layer, head;
        uint32_t slots[3], n;
        int code;
    } bad[] = {{"not ascending", KVG_PLAN_KEEP, 0, 0, {3, 2, 5}, 3, KVG_ECHECK},
               {"twice the same", KVG_PLAN_DROP, 0, 0, {2, 2, 5}, 3, KVG_ECHECK},
               {"out of range", KVG_PLAN_KEEP, 0, 1, {1, 2, N}, 3, KVG_ECHECK},
               {"no such head", KVG_PLAN_DROP, 0, 2, {1, 2, 3}, 3, KVG_ECHECK},
               {"no such layer", KVG_PLAN_DROP, 1, 0, {1, 2, 3}, 3, KVG_ECHECK},
               {"behind an earlier list", KVG_PLAN_KEEP, 0, 0, {1, 2, N - 1}, 3, KVG_ECHECK},
               {"read", KVG_PLAN_READ, 0, 0, {1, 2, 3}, 3, KVG_ECHECK},
               {"merge into itself", KVG_PLAN_MERGE, 0, 0, {0, 2, 3}, 3, KVG_ECHECK},
               {"merge out of range", KVG_PLAN_MERGE, 0, 0, {1, 2, N - 10}, 3, KVG_ECHECK}};
    struct rig r;
    rig_open(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kvg_err err = {0};
        kvg_plan_drop_range(&r.plan, 0, 0, 10, 20); /* well formed, and yet not carried out */
        kvg_plan_list(&r.plan, bad[i].kind, bad[i].layer, bad[i].head, bad[i].slots, bad[i].n);
        if (kvg_store_apply(r.s, &r.plan, &err) != bad[i].code)
            fail_msg("%s: not refused as it should be: %s", bad[i].what, err.msg);
        assert_int_equal(r.plan.n_ops, 0);
        assert_int_equal(gen_store_compare(r.g, r.s), 0);
    }
    rig_close(&r);
}

static void test_refused_seals(void **state)
{
    (void)state;
    static const struct {
        int col, codec;
        size_t upto;
    } bad[] = {{KVG_COL_POS, F16, N},          {KVG_COL_SIDE, F16, N}, {KVG_COL_K, 0, N},
               {KVG_COL_K, GEN_CODECS + 1, N}, {KVG_COL_V, -1, N},     {KVG_COL_V, F16, N + 1}};
    struct rig r;
    rig_open(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kvg_plan_seal(&r.plan, 0, 0, KVG_COL_K, N, F16);
        kvg_plan_seal(&r.plan, 0, 0, bad[i].col, bad[i].upto, bad[i].codec);
        assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), KVG_ECHECK);
        assert_int_equal(gen_store_compare(r.g, r.s), 0);
    }
    rig_close(&r);
}

/* Groups and channels that a form cannot have, slots that are not there, weights that are none. */
static void test_refused_operations(void **state)
{
    (void)state;
    enum { PARTIAL = 8, MASKED = 9 };
    const uint32_t few = 7, right = (1u << GEN_CHANNELS) - 1;
    const struct kvg_plan_op bad[] = {
        {.kind = KVG_PLAN_SEAL, .codec = KIVI_K, .upto = 64, .again = 1, .first_group = 5},
        {.kind = KVG_PLAN_SEAL, .codec = PARTIAL, .upto = 64, .again = 1, .first_group = 33},
        {.kind = KVG_PLAN_SEAL, .codec = PARTIAL, .upto = 64, .first_group = 5},
        {.kind = KVG_PLAN_SEAL, .codec = F16, .upto = 64, .again = 1, .first_group = 2},
        {.kind = KVG_PLAN_SEAL, .codec = MASKED, .upto = 64},
        {.kind = KVG_PLAN_SEAL, .codec = MASKED, .upto = 64, .channels = &few},
        {.kind = KVG_PLAN_SEAL, .codec = F16, .upto = 64, .channels = &right},
        {.kind = KVG_PLAN_MERGE, .from = N - 10, .weight = 1},
        {.kind = KVG_PLAN_MERGE, .from = 0, .weight = NAN},
        {.kind = KVG_PLAN_MERGE, .from = 0, .weight = INFINITY},
        {.kind = KVG_PLAN_MERGE, .layer = 1, .weight = 1},
    };
    struct rig r;
    rig_open(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kvg_plan_drop_range(&r.plan, 0, 0, 10, 20);
        r.plan.ops[r.plan.n_ops++] = bad[i];
        if (kvg_store_apply(r.s, &r.plan, NULL) != KVG_ECHECK)
            fail_msg("operation %zu is not refused", i);
        assert_int_equal(gen_store_compare(r.g, r.s), 0);
    }
    rig_close(&r);
}

/* What CaM does: the slot that goes is added to others first, in one plan, in every form of V. */
static void test_merge_then_drop(void **state)
{
    (void)state;
    for (int codec = 0; codec <= GEN_CODECS; codec++) {
        struct rig r;
        static const uint32_t to[] = {1, 6, 7, 40, 90}, mask = 0xfffffu;
        uint32_t stay[N], n = 0;
        rig_open(&r);
        int masked = r.s->codecs[codec].masked;
        if (codec) {
            kvg_plan_seal(&r.plan, 0, 1, KVG_COL_V, 70, codec);
            r.plan.ops[0].channels = masked ? &mask : NULL;
            assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
            gen_seal(r.g, 1, KVG_COL_V, 70, codec, 0, 0, mask);
        }
        uint64_t written = r.s->count.bytes_written;
        kvg_plan_merge(&r.plan, 0, 1, 5, to, 5, 0.25f);
        kvg_plan_merge(&r.plan, 0, 1, 95, to, 5, -0.5f);
        kvg_plan_drop_range(&r.plan, 0, 1, 5, 6);
        gen_merge(r.g, 1, 5, to, 5, 0.25f);
        gen_merge(r.g, 1, 95, to, 5, -0.5f);
        for (uint32_t i = 0; i < N; i++)
            if (i != 5)
                stay[n++] = i;
        gen_keep(r.g, 1, stay, n, 1);
        assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
        assert_int_equal(gen_store_compare(r.g, r.s), 0);
        assert_true(r.s->count.bytes_written > written);
        if (codec == 0) /* the sum itself, once by hand */
            for (size_t c = 0; c < GEN_D; c++) {
                const float *v = r.v + GEN_D + c; /* head 1 */
                float want = v[1 * 2 * GEN_D] + 0.25f * v[5 * 2 * GEN_D];
                want += -0.5f * v[95 * 2 * GEN_D];
                assert_true(r.g->rows[1][1].kv[1][c] == want);
            }
        rig_close(&r);
    }
}

/* Resealing: every row decoded and encoded, group borders where the first group puts them. */
static void test_reseal(void **state)
{
    (void)state;
    enum { PARTIAL = 8 };
    struct rig r;
    rig_open(&r);
    kvg_plan_seal(&r.plan, 0, 0, KVG_COL_K, 50, PARTIAL);
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
    gen_seal_plain(r.g, 0, KVG_COL_K, 50, PARTIAL);
    struct kvg_counters was = r.s->count;
    kvg_plan_reseal(&r.plan, 0, 0, KVG_COL_K, N, PARTIAL, 11);
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
    gen_seal(r.g, 0, KVG_COL_K, N, PARTIAL, 1, 11, 0);
    assert_int_equal(gen_store_compare(r.g, r.s), 0);
    assert_int_equal(r.s->count.n_decoded - was.n_decoded, 50);
    assert_int_equal(r.s->count.n_encoded - was.n_encoded, N);
    const struct kvg_list *l = &kvg_store_head(r.s, 0, 0)->cols[KVG_COL_K];
    static const size_t want[] = {11, 32, 32, 25};
    assert_int_equal(l->n_segs, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(l->segs[i].n, want[i]);
    assert_int_equal(r.s->count.bytes_written - was.bytes_written,
                     N * GEN_D / 2 + 4 * GEN_D * 4); /* 4-bit codes, scale and zero per group */
    /* only the first 40: what was encoded behind them is exact again */
    kvg_plan_reseal(&r.plan, 0, 0, KVG_COL_K, 40, PARTIAL, 0);
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
    gen_seal(r.g, 0, KVG_COL_K, 40, PARTIAL, 1, 0, 0);
    assert_int_equal(gen_store_compare(r.g, r.s), 0);
    assert_int_equal(kvg_store_exact_slots(r.s, 0, 0, KVG_COL_K), N - 40);
    rig_close(&r);
}

/* A masked form holds the channels of its plan and nothing else; fewer bytes are really there. */
static void test_masked(void **state)
{
    (void)state;
    enum { MASKED = 9 };
    struct rig r;
    struct kvg_bytes before, after;
    rig_open(&r);
    kvg_store_bytes(r.s, &before);
    uint32_t *mask = kvg_plan_slots(&r.plan, 1);
    *mask = 0xa5f0ff3fu & ~0x3u; /* 20 of 32 */
    kvg_plan_seal_channels(&r.plan, 0, 0, KVG_COL_K, N, MASKED, mask);
    uint32_t bits = *mask;
    assert_int_equal(__builtin_popcount(bits), GEN_CHANNELS);
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
    gen_seal(r.g, 0, KVG_COL_K, N, MASKED, 0, 0, bits);
    assert_int_equal(gen_store_compare(r.g, r.s), 0);
    float rows[N * GEN_D];
    kvg_store_read(r.s, 0, 0, KVG_COL_K, 0, N, rows);
    for (size_t j = 0; j < N; j++)
        for (size_t c = 0; c < GEN_D; c++)
            assert_true(rows[j * GEN_D + c] == (bits >> c & 1 ? r.k[j * 2 * GEN_D + c] : 0));
    kvg_store_bytes(r.s, &after);
    assert_int_equal(before.payload - after.payload, N * (GEN_D - GEN_CHANNELS) * 4);
    assert_int_equal(after.scales, 2 * 4); /* two groups, the second one short */
    assert_true(after.alloc < before.alloc);
    rig_close(&r);
}

/* A plan that outgrows its room is refused whole, and the next one is not. */
static void test_overflow(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r);
    for (size_t i = 0; i < 9; i++)
        kvg_plan_drop_range(&r.plan, 0, 0, 0, 1);
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), KVG_ECHECK);
    assert_int_equal(gen_store_compare(r.g, r.s), 0);
    assert_null(kvg_plan_slots(&r.plan, 5 * GEN_SLOTS));
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), KVG_ECHECK);
    seal(&r, KVG_COL_K, 40, F16);
    assert_int_equal(gen_store_compare(r.g, r.s), 0);
    rig_close(&r);
}

/* What lies in the store afterwards is whole groups and wanted single slots, never more than asked.
 */
static void test_whole_groups(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct kvg_rng rng = {seed};
        struct rig r;
        int32_t pos[N];
        uint32_t stay[N], n = 0, kept[N];
        rig_open(&r);
        seal(&r, KVG_COL_K, 70, KIVI_K); /* 2 groups of 32, then 36 exact slots */
        seal(&r, KVG_COL_V, 70, KIVI_V);
        uint64_t of = 1 + kvg_rng_below(&rng, 5);
        for (uint32_t i = 0; i < N; i++)
            if (kvg_rng_below(&rng, 6) < of)
                stay[n++] = i;
        kvg_plan_list(&r.plan, KVG_PLAN_KEEP, 0, 1, stay, n);
        r.plan.ops[0].whole_groups = 1;
        assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
        size_t m = kvg_store_head(r.s, 0, 1)->n_slots, in[2] = {0, 0}, wanted[2] = {0, 0}, tail = 0;
        assert_true(m <= n);
        kvg_store_positions(r.s, 0, 1, pos);
        for (size_t i = 0; i < m; i++) {
            kept[i] = (uint32_t)pos[i];
            if (pos[i] < 64)
                in[pos[i] / 32]++;
        }
        for (size_t i = 0; i < n; i++) {
            if (stay[i] < 64)
                wanted[stay[i] / 32]++;
            else
                assert_int_equal(kept[m - (n - i)], stay[i]), tail++;
        }
        for (size_t g = 0; g < 2; g++) {
            assert_true(in[g] == 0 || (in[g] == 32 && wanted[g] >= 16));
            if (in[g] == 0 && wanted[g] >= 16) /* no room for it beside the other */
                assert_true(n - tail < 32 || (in[1 - g] == 32 && n - tail < 64));
        }
        assert_int_equal(r.s->count.n_decoded, 0);
        gen_keep(r.g, 1, kept, m, 1);
        assert_int_equal(gen_store_compare(r.g, r.s), 0);
        rig_close(&r);
    }
}

/* Opening a group is billed: 32 rows decoded, the rest of it and all behind exact again. */
static void test_opening_is_billed(void **state)
{
    (void)state;
    struct rig r;
    struct kvg_bytes before, after;
    uint32_t stay[N], n = 0;
    rig_open(&r);
    seal(&r, KVG_COL_K, 96, KIVI_K);
    kvg_store_bytes(r.s, &before);
    for (uint32_t i = 0; i < N; i++)
        if (i != 40)
            stay[n++] = i;
    kvg_plan_drop_range(&r.plan, 0, 0, 40, 41);
    assert_int_equal(kvg_store_apply(r.s, &r.plan, NULL), 0);
    gen_keep(r.g, 0, stay, n, 1);
    assert_int_equal(gen_store_compare(r.g, r.s), 0);
    kvg_store_bytes(r.s, &after);
    assert_int_equal(r.s->count.n_decoded, 64);
    assert_int_equal(kvg_store_exact_slots(r.s, 0, 0, KVG_COL_K), 67);
    assert_int_equal(before.scales - after.scales, 2 * GEN_D * 4);
    assert_int_equal(after.payload - before.payload,
                     63 * GEN_D * 4 - 64 * GEN_D * 2 / 8 - GEN_D * 4);
    rig_close(&r);
}

/* The encoded bytes are what is read: the exact rows they came from are gone, wherever they lay. */
static void test_read_back_from_bytes(void **state)
{
    (void)state;
    static const int forms[][2] = {{1, 1}, {2, 2}, {3, 3}, {4, 6}, {5, 7}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct rig r;
        float before[N * GEN_D], after[N * GEN_D];
        rig_open(&r);
        seal(&r, KVG_COL_K, N, forms[i][0]);
        seal(&r, KVG_COL_V, N, forms[i][1]);
        memset(r.k, 0xff, (size_t)N * 2 * GEN_D * sizeof *r.k);
        memset(r.v, 0xff, (size_t)N * 2 * GEN_D * sizeof *r.v);
        for (int c = 0; c < 2; c++) {
            size_t sealed = N - kvg_store_exact_slots(r.s, 0, 1, (enum kvg_col)c);
            assert_true(sealed >= 96);
            kvg_store_read(r.s, 0, 1, (enum kvg_col)c, 0, sealed, before);
            for (size_t h = 0; h < 2; h++) /* blocks that still hold exact rows */
                for (uint32_t k = 0; k < r.s->heads[h].cols[c].n_segs; k++)
                    if (r.s->heads[h].cols[c].segs[k].codec == 0)
                        memset(r.s->heads[h].cols[c].segs[k].b->data, 0xff,
                               KVG_TILE_SLOTS * GEN_D * sizeof(float));
            memset(r.s->tile, 0xff, KVG_TILE_SLOTS * GEN_D * sizeof(float));
            kvg_store_read(r.s, 0, 1, (enum kvg_col)c, 0, sealed, after);
            assert_memory_equal(before, after, sealed * GEN_D * sizeof *after);
            for (size_t j = 0; j < sealed; j++) /* and it is those rows, encoded once */
                assert_memory_equal(r.g->rows[1][j].kv[c], after + j * GEN_D, GEN_D * 4);
        }
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_seals),
        cmocka_unit_test(test_refused_operations),
        cmocka_unit_test(test_merge_then_drop),
        cmocka_unit_test(test_reseal),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_whole_groups),
        cmocka_unit_test(test_opening_is_billed),
        cmocka_unit_test(test_read_back_from_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
