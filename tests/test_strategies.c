/* Every strategy of the registry against the contract: keepers with every encoding, wrappers around
 * scorers, encodings behind keepers, what reads or shares with every encoding. Budgets hold, reset
 * is fresh, a budget that binds nothing is `full`, turns and truncation keep the store sound. */
#include "gen_engine.h"
#include "gen_spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { W = 96, TURNS = 3, PROMPT = 50, REPLY = 6, COMBOS = 64 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[400];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 256;
    c.n_embd = W;
    c.n_ff = 32;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, 400, model->n_vocab, 21);
    gen_spec_open(model);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_spec_close();
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

static const char *const budgets[] = {"40", "40%"};
static const char *const encodings[] = {"",
                                        "+f16",
                                        "+q4_0",
                                        "+kivi:bits=2,group=8,residual=16",
                                        "+kivi:bits=4,group=8,residual=8,groups=whole",
                                        "+think:channels=50%,window=8,recent=4",
                                        "+requant:group=8,residual=8"};
enum { ENCODINGS = sizeof encodings / sizeof *encodings };

/* What wrappers and encodings are tried around. */
static const struct {
    const char *name, *opts;
} scorers[] = {{"h2o", ""}, {"snapkv", ",window=8"}, {"knorm", ""}};
enum { SCORERS = sizeof scorers / sizeof *scorers };

struct combo {
    char spec[GEN_SPEC_MAX];
    const char *budget; /* NULL: none */
};
struct combos {
    struct combo v[COMBOS];
    size_t n;
};

/* [scorer +] strategy [+ encoding]. */
static void combine(struct combos *c, const struct kvg_strategy *s, int scorer, const char *budget,
                    const char *encoding)
{
    struct combo *x = &c->v[c->n++];
    assert_true(c->n <= COMBOS);
    x->spec[0] = 0;
    x->budget = scorer >= 0 || gen_spec_binds(s) ? budget : NULL;
    if (scorer >= 0)
        snprintf(x->spec, sizeof x->spec, "%s:budget=%s%s", scorers[scorer].name, budget,
                 scorers[scorer].opts);
    gen_spec_add(x->spec, s, budget);
    strncat(x->spec, encoding, sizeof x->spec - strlen(x->spec) - 1);
}

/* Where a strategy is tried, with budgets `b`: every encoding once, exact rows with both budgets;
 * wrappers meet every scorer with some of the encodings: all would take minutes. */
static void combos_of(struct combos *c, const struct kvg_strategy *s, const char *const b[2])
{
    int inner = s->kind == KVG_KIND_WRAP || s->kind == KVG_KIND_ENCODE;
    int bare = s->kind == KVG_KIND_ENCODE || s->recompute;
    c->n = 0;
    for (size_t e = 0; e < (bare ? 1 : ENCODINGS) && s->kind != KVG_KIND_WRAP; e++)
        combine(c, s, -1, b[e % 2], encodings[e]);
    if (gen_spec_binds(s))
        combine(c, s, -1, b[1], "");
    for (int k = 0; k < SCORERS && inner; k++) {
        combine(c, s, k, b[k % 2], "");
        for (size_t e = 1; e < ENCODINGS && !bare; e++)
            if ((e + (size_t)k) % SCORERS == 0)
                combine(c, s, k, b[e % 2], encodings[e]);
    }
}

static void check_store(const struct gen_stream *st, const char *spec)
{
    struct kvg_err err;
    struct kvg_bytes b;
    const struct kvg_store *s = st->s.store;
    if (kvg_store_check(s, &err))
        fail_msg("%s: %s", spec, err.msg);
    kvg_store_bytes(s, &b);
    if (!st->pipe.encode && !b.scales) {
        size_t slots = 0;
        for (size_t h = 0; h < s->cfg.n_layers * s->cfg.n_kv_heads; h++)
            slots += s->heads[h].n_slots;
        if (b.payload != slots * 2 * s->cfg.d_head * 4)
            fail_msg("%s: %zu bytes for %zu exact slots", spec, b.payload, slots);
    }
}

/* A strategy that chooses over all layers and heads is bound by their sum. */
static void check_sum(const struct gen_stream *st, const char *spec, const struct kvg_budget *b,
                      int exactly)
{
    size_t heads = eng.dims.n_layers * eng.dims.n_kv_heads, all = heads * st->s.n_tokens, n = 0;
    double share = kvg_budget_exact(b, st->s.n_tokens, &st->pipe.keep->dims) * (double)heads;
    size_t most = (size_t)ceil(share - 1e-6);
    for (size_t h = 0; h < heads; h++)
        n += st->s.store->heads[h].n_slots;
    if (n > most || (exactly && n < most && n < all))
        fail_msg("%s: %zu slots of %zu in all heads, the budget is %zu", spec, n, all, most);
}

/* Layers are given the budget, or everything, or different budgets whose mean it is (each rounded
 * to a whole slot). */
static void check_layers(const struct gen_stream *st, const char *spec, const struct kvg_budget *b)
{
    const struct kvg_dims *dims = &st->pipe.keep->dims;
    size_t all = st->s.n_tokens, sum = 0, uneven = 0;
    size_t even = kvg_budget_slots(b, all, dims);
    even = even < all ? even : all;
    for (size_t l = 0; l < dims->n_layers; l++) {
        size_t n = kvg_pipeline_keep(&st->pipe, l, all, all);
        uneven |= n != even && n != all;
        sum += n;
    }
    double most = (kvg_budget_exact(b, all, dims) + 0.5) * (double)dims->n_layers;
    if (uneven && (double)sum > most)
        fail_msg("%s: %zu slots in all layers together, the budget is %g", spec, sum, most);
}

/* Slots against the budget, now that the schedule was due: in every head never more, and not fewer
 * either where all that went was evicted (`exactly`). Where a wrapper changes scores the heads of a
 * layer may share their budgets, and whole chunks may leave some over. */
static void check_budget(const struct gen_stream *st, const char *spec, const char *budget,
                         int exactly)
{
    struct kvg_budget b;
    if (!budget || !st->pipe.keep) /* what only reads drops nothing */
        return;
    assert_int_equal(kvg_budget_parse(budget, &b), 0);
    size_t heads = eng.dims.n_kv_heads, all = st->s.n_tokens, shared = 0;
    exactly &= st->pipe.keep->schedule.kind != KVG_SCHED_EVERY;
    exactly &= !(st->pipe.encode && st->pipe.encode->whole_groups);
    if (st->pipe.keep->s->end_pass) {
        check_sum(st, spec, &b, exactly);
        return;
    }
    check_layers(st, spec, &b);
    for (size_t i = 0; i < st->pipe.n_wraps; i++)
        shared |= st->pipe.wrap[i]->s->rescore != NULL;
    for (size_t l = 0; l < eng.dims.n_layers; l++) {
        size_t most = kvg_pipeline_keep(&st->pipe, l, all, all), sum = 0;
        for (size_t h = 0; h < heads; h++) {
            size_t n = kvg_store_head(st->s.store, l, h)->n_slots;
            sum += n;
            if (!shared && (n > most || (exactly && n < most)))
                fail_msg("%s: %zu slots of %zu tokens in head %zu of layer %zu, the budget is %zu",
                         spec, n, all, h, l, most);
        }
        if (st->pipe.needs.spans) /* spans that must stay may not fit: then they come on top */
            most += GEN_SPANS_PROTECTED + 1;
        if (sum > heads * most || sum == 0)
            fail_msg("%s: %zu slots of %zu tokens in layer %zu, the budget is %zu for a head", spec,
                     sum, all, l, most);
    }
}

/* Three turns; hidden rows of prompts' ends and steps to out [TURNS * (REPLY + 1)][W]. */
static void run_turns(struct gen_stream *st, const char *spec, const char *budget, float *out)
{
    const int32_t *t = text;
    for (size_t turn = 0; turn < TURNS; turn++) {
        size_t n = turn ? PROMPT / 2 : PROMPT;
        gen_spec_text(&st->s, n, t + n, REPLY);
        gen_prompt(&eng, st, t, n, out);
        check_store(st, spec);
        check_budget(st, spec, budget, 1);
        t += n;
        out += W;
        for (size_t i = 0; i < REPLY; i++, t++, out += W) {
            gen_steps(&eng, st, t, 1, out);
            check_store(st, spec);
            const struct kvg_inst *keep = st->pipe.keep;
            if (keep && keep->schedule.kind == KVG_SCHED_EVERY &&
                st->s.n_decode_steps % (size_t)keep->schedule.every == 0)
                check_budget(st, spec, budget, 1);
        }
        assert_int_equal(kvg_engine_end_turn(eng.e, &st->s, NULL), 0);
    }
}

enum { ROWS = TURNS * (REPLY + 1) * W };

/* Taken back again and again, a conversation goes on soundly. */
static void take_back(struct gen_stream *st, const char *spec, const char *budget)
{
    static const size_t cuts[] = {90, 50, 7, 0};
    int once = st->pipe.keep && st->pipe.keep->schedule.kind == KVG_SCHED_PROMPT;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        float x[W];
        assert_int_equal(kvg_stream_truncate(eng.e, &st->s, cuts[i], NULL), 0);
        check_store(st, spec);
        gen_prompt(&eng, st, text + 200, 12, x);
        check_budget(st, spec, once ? NULL : budget, 0);
        gen_steps(&eng, st, text + 220, 1, x);
        check_store(st, spec);
    }
}

/* 1 when random numbers are drawn; `hash` is what another seed gave. */
static int draws(const char *spec, const char *budget, uint64_t hash)
{
    static float rows[ROWS];
    struct gen_stream st;
    gen_stream_open(&st, &eng, spec, 6);
    run_turns(&st, spec, budget, rows);
    int drawn = st.s.rng.state != 6 || gen_store_hash(st.s.store) != hash;
    if (drawn && !st.pipe.random)
        fail_msg("%s: draws random numbers without saying so", spec);
    gen_stream_close(&st);
    return drawn;
}

/* With `reseed`: 1 when random numbers are drawn. */
static int conform(const char *spec, const char *budget, int reseed)
{
    static float first[ROWS], again[ROWS];
    struct gen_stream st;
    gen_stream_open(&st, &eng, spec, 5);
    run_turns(&st, spec, budget, first);
    uint64_t hash = gen_store_hash(st.s.store);
    take_back(&st, spec, budget);
    kvg_stream_reset(&st.s, 5);
    run_turns(&st, spec, budget, again);
    if (memcmp(first, again, sizeof first) || gen_store_hash(st.s.store) != hash)
        fail_msg("%s: reset is not fresh", spec);
    gen_stream_close(&st);
    return reseed && draws(spec, budget, hash);
}

static void test_conformance(void **state)
{
    (void)state;
    static struct combos c;
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    for (size_t i = 0; i < n; i++) {
        int drawn = 0;
        combos_of(&c, all[i], budgets);
        assert_true(c.n > 0);
        for (size_t k = 0; k < c.n; k++)
            drawn |= conform(c.v[k].spec, c.v[k].budget, k == 0 || all[i]->random);
        if (all[i]->random && !drawn)
            fail_msg("%s: draws no random numbers", all[i]->name);
    }
}

/* What the rows of `full` are with the encoding of a spec, computed once for each. */
static const float *rows_of_full(const char *spec)
{
    static float rows[ENCODINGS][ROWS];
    static int done[ENCODINGS];
    size_t e = ENCODINGS - 1;
    while (e > 0 && !strstr(spec, encodings[e]))
        e--;
    if (!done[e]++) {
        char text_of_full[GEN_SPEC_MAX];
        struct gen_stream st;
        snprintf(text_of_full, sizeof text_of_full, "full%s", encodings[e]);
        gen_stream_open(&st, &eng, text_of_full, 1);
        run_turns(&st, text_of_full, NULL, rows[e]);
        gen_stream_close(&st);
    }
    return rows[e];
}

/* A budget that binds nothing, and a form of the store: the rows of `full` with the same encoding,
 * bit for bit. */
static void test_budget_of_everything(void **state)
{
    (void)state;
    static const char *const most[] = {"256", "100%"};
    static float got[ROWS];
    static struct combos c;
    size_t n, done = 0;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    for (size_t i = 0; i < n; i++) {
        combos_of(&c, all[i], most);
        for (size_t k = 0; k < c.n && all[i]->kind != KVG_KIND_ENCODE; k++) {
            struct gen_stream st;
            const char *spec = c.v[k].spec;
            if (!c.v[k].budget && all[i]->kind != KVG_KIND_SHARE)
                continue;
            gen_stream_open(&st, &eng, spec, 1);
            run_turns(&st, spec, c.v[k].budget, got);
            /* keys that are rotated after encoding are other keys */
            int other = st.pipe.needs.raw_keys && st.pipe.encode;
            if (!other && memcmp(rows_of_full(spec), got, sizeof got))
                fail_msg("%s: not what full gives", spec);
            assert_int_equal(st.s.store->count.n_evicted, 0);
            gen_stream_close(&st);
            done++;
        }
    }
    assert_true(done > n);
}

/* Streams that look at different things share a prompt that does not end the turn. */
static void test_unfinished_prompt(void **state)
{
    (void)state;
    struct gen_stream a, b;
    gen_stream_open(&a, &eng, "h2o:budget=20", 1);
    gen_stream_open(&b, &eng, "snapkv:budget=20,window=8", 1);
    struct kvg_stream *both[] = {&a.s, &b.s};
    assert_int_equal(kvg_engine_prompt(eng.e, both, 2, text, 40, 0, NULL, 0, NULL, NULL), 0);
    assert_int_equal(a.s.store->heads[0].n_slots, 40);
    assert_int_equal(kvg_engine_prompt(eng.e, both, 2, text + 40, 20, 1, NULL, 0, NULL, NULL), 0);
    check_budget(&a, "h2o", "20", 1);
    check_budget(&b, "snapkv", "20", 1);
    gen_stream_close(&a);
    gen_stream_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conformance),
        cmocka_unit_test(test_budget_of_everything),
        cmocka_unit_test(test_unfinished_prompt),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
