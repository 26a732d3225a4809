/* Specs drawn at random from the whole registry: a keeper, wrappers around it, an encoding, a
 * reader and a form of the store, in any order. Whatever the parser takes must keep its budget,
 * leave the store sound, begin anew as it began, and go on in a fork as in the original. */
#include "gen_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SPECS = 40, DRAWS = 4000, TURNS = 3, STEPS = 5, W = 128, PARTS = 6 };

static struct kvg_model *model;
static struct gen_engine eng;
static int32_t text[400];

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 256;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, 400, model->n_vocab, 5);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

/* A strategy of a kind (any: KVG_KIND_N) with a budget where it takes one, to the end of out. */
static void draw_part(struct kvg_rng *rng, enum kvg_kind kind, char *out, size_t cap)
{
    static const char *const budgets[] = {"24", "35%", "70%"};
    size_t n, at = strlen(out);
    const struct kvg_strategy *const *all = kvg_strategies(&n), *s;
    do
        s = all[kvg_rng_below(rng, n)];
    while (s->kind != kind);
    int binds = kvg_opt_find(s->opts, "budget") != NULL;
    snprintf(out + at, cap - at, "%s%s%s%s", at ? "+" : "", s->name, binds ? ":budget=" : "",
             binds ? budgets[kvg_rng_below(rng, 3)] : "");
}

/* A keeper, and up to three more parts of which most wrap it. */
static void draw_spec(struct kvg_rng *rng, char *out, size_t cap)
{
    static const enum kvg_kind kinds[PARTS] = {KVG_KIND_WRAP,   KVG_KIND_WRAP, KVG_KIND_WRAP,
                                               KVG_KIND_ENCODE, KVG_KIND_READ, KVG_KIND_SHARE};
    size_t more = 1 + kvg_rng_below(rng, 3);
    out[0] = 0;
    draw_part(rng, KVG_KIND_KEEP, out, cap);
    for (size_t i = 0; i < more; i++)
        draw_part(rng, kinds[kvg_rng_below(rng, PARTS)], out, cap);
}

/* 1 when the parser takes it and it needs nothing that these texts lack. */
static int fits(const char *spec)
{
    struct kvg_arena a;
    struct kvg_pipeline p;
    struct kvg_err err;
    kvg_arena_init(&a);
    int rc = kvg_pipeline_open(&p, spec, &eng.dims, &a, &err);
    int ok = !rc && !p.needs.future;
    if (rc && rc != KVG_EUSAGE && rc != KVG_EUNSUP)
        fail_msg("%s: %d, %s", spec, rc, err.msg);
    kvg_arena_release(&a);
    return ok;
}

/* Slots that a keeper may leave in all heads together: what it says of each layer, or the whole
 * budget shared out over all of them before anything is cut to whole slots. */
static double all_slots(const struct gen_stream *st)
{
    const struct kvg_inst *keep = st->pipe.keep;
    size_t n = st->s.n_tokens, heads = eng.dims.n_kv_heads, rows = eng.dims.n_layers * heads;
    double sum = 0, even = (double)(n * rows);
    if (!keep->budget || keep->s->role == KVG_ROLE_BASELINE)
        return even;
    even = kvg_budget_exact(keep->budget, n, &keep->dims) * (double)rows;
    for (size_t h = 0; h < rows; h++)
        sum += (double)kvg_pipeline_keep(&st->pipe, h / heads, n, n);
    return sum > even ? sum : even;
}

static void check(const struct gen_stream *st, const char *spec, int due)
{
    struct kvg_err err;
    const struct kvg_store *s = st->s.store;
    size_t sum = 0;
    if (kvg_store_check(s, &err))
        fail_msg("%s: %s", spec, err.msg);
    for (size_t h = 0; h < s->cfg.n_layers * s->cfg.n_kv_heads; h++)
        sum += s->heads[h].n_slots;
    if (due && (double)sum > all_slots(st))
        fail_msg("%s: %zu slots in all, the budget is %g", spec, sum, all_slots(st));
}

/* Three turns; the rows of prompts' ends and steps to out. */
static void run(struct gen_stream *st, const char *spec, float *out)
{
    const int32_t *t = text;
    for (size_t turn = 0; turn < TURNS; turn++) {
        size_t n = turn ? 30 : 70;
        gen_prompt(&eng, st, t, n, out);
        check(st, spec, turn == 0 || st->pipe.keep->schedule.kind != KVG_SCHED_PROMPT);
        gen_steps(&eng, st, t + n, STEPS, out + W);
        check(st, spec, 0);
        assert_int_equal(kvg_engine_end_turn(eng.e, &st->s, NULL), 0);
        t += n + STEPS;
        out += (1 + STEPS) * W;
    }
}

static void try_spec(const char *spec)
{
    enum { FLOATS = TURNS * (1 + STEPS) * W };
    static float first[FLOATS], again[FLOATS];
    struct gen_stream st, fork;
    gen_stream_open(&st, &eng, spec, 3);
    run(&st, spec, first);
    gen_stream_fork(&fork, &eng, &st);
    gen_prompt(&eng, &st, text + 200, 9, first);
    gen_steps(&eng, &st, text + 209, 2, first + W);
    gen_prompt(&eng, &fork, text + 200, 9, again);
    gen_steps(&eng, &fork, text + 209, 2, again + W);
    check(&fork, spec, 0);
    if (memcmp(first, again, 3 * W * sizeof *first))
        fail_msg("%s: a fork goes another way", spec);
    gen_stream_close(&fork);
    uint64_t hash = gen_store_hash(st.s.store);
    kvg_stream_reset(&st.s, 3);
    run(&st, spec, first);
    gen_prompt(&eng, &st, text + 200, 9, first);
    gen_steps(&eng, &st, text + 209, 2, first + W);
    if (gen_store_hash(st.s.store) != hash)
        fail_msg("%s: reset is not fresh", spec);
    gen_stream_close(&st);
}

static void test_random_specs(void **state)
{
    (void)state;
    struct kvg_rng rng = {2024};
    char spec[512];
    size_t done = 0, refused = 0;
    for (size_t i = 0; i < DRAWS && done < SPECS; i++) {
        draw_spec(&rng, spec, sizeof spec);
        if (!fits(spec)) {
            refused++;
            continue;
        }
        try_spec(spec);
        done++;
    }
    assert_int_equal(done, SPECS);
    assert_true(refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_specs)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
