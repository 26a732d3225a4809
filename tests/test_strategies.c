/* Every strategy of the registry against the contract, alone and with every encoding: budgets hold,
 * reset is fresh, a budget that binds nothing is `full`, turns and truncation keep the store sound.
 * Specs: what is refused and how, and resolved texts that say the same again. */
#include "gen_engine.h"
#include "gen_files.h"
#include "gen_nuq.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { W = 128, TURNS = 3, PROMPT = 50, REPLY = 8 };

static struct kvg_model *model;
static struct gen_engine eng;
static char kept_file[GEN_PATH_MAX], tables_file[GEN_PATH_MAX];
static int32_t text[400];

/* A set for `fixed`: positions 0, 3, 6, ... below 48 of every head. */
static void write_kept(void)
{
    assert_int_equal(gen_temp_file(kept_file), 0);
    FILE *f = fopen(kept_file, "w");
    assert_non_null(f);
    for (int i = 0; i < 4; i++)
        fprintf(f, "%d\t%d\t16\t499224499224\n", i / 2, i % 2);
    assert_int_equal(fclose(f), 0);
}

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    c.n_ctx = 256;
    model = gen_model(&c);
    gen_engine_open(&eng, model, "auto", 1, 0);
    gen_tokens(text, 400, model->n_vocab, 21);
    write_kept();
    assert_int_equal(gen_temp_file(tables_file), 0);
    gen_nuq_file(tables_file, model);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    unlink(kept_file);
    unlink(tables_file);
    gen_engine_close(&eng);
    kvg_model_close(model);
    return 0;
}

static const char *const budgets[] = {"40", "40%", NULL};
static const char *const encodings[] = {"",
                                        "+f16",
                                        "+q8_0",
                                        "+q4_0",
                                        "+kivi:bits=2,group=8,residual=16",
                                        "+kivi:bits=4,group=8,residual=8,groups=whole",
                                        "+think:channels=50%,window=8,recent=4",
                                        "+requant:group=8,residual=8"};
enum { ENCODINGS = sizeof encodings / sizeof *encodings };

/* What a wrapper is tried around; [0]: strategies that stand alone. */
static const struct {
    const char *name, *opts;
} scorers[] = {{"", ""}, {"h2o", ""}, {"snapkv", ",window=8"}, {"knorm", ""}};
enum { SCORERS = sizeof scorers / sizeof *scorers };

/* Every wrapper meets every scorer, each with two of the encodings: all would take minutes. */
static int meet(size_t scorer, size_t encoding)
{
    return scorer == 0 || (encoding + scorer) % (SCORERS - 1) == 0;
}

/* The text of a strategy, around a scorer, with a budget and an encoding; 0 when there is no such
 * combination. */
static int spec_of(char out[GEN_PATH_MAX + 128], const struct kvg_strategy *s, size_t scorer,
                   const char *budget, const char *encoding)
{
    int wraps = s->kind == KVG_KIND_WRAP;
    int binds = wraps || kvg_opt_find(s->opts, "budget") != NULL;
    int file = kvg_opt_find(s->opts, "file") != NULL;
    if (binds != (budget != NULL) || wraps != (scorer > 0) ||
        (*encoding && ((s->kind != KVG_KIND_KEEP && !wraps) || s->recompute)))
        return 0;
    snprintf(out, GEN_PATH_MAX + 128, "%s%s%s%s%s%s%s", wraps ? scorers[scorer].name : s->name,
             binds  ? ":budget="
             : file ? ":file="
                    : "",
             binds  ? budget
             : file ? (s->kind == KVG_KIND_ENCODE ? tables_file : kept_file)
                    : "",
             scorers[scorer].opts, wraps ? "+" : "", wraps ? s->name : "", encoding);
    return 1;
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

/* 1 when random numbers are drawn. */
static int conform(const char *spec, const char *budget)
{
    static float first[ROWS], again[ROWS];
    static const size_t cuts[] = {90, 61, 50, 7, 0};
    struct gen_stream st, fresh;
    gen_stream_open(&st, &eng, spec, 5);
    run_turns(&st, spec, budget, first);
    uint64_t hash = gen_store_hash(st.s.store);
    int once = st.pipe.keep && st.pipe.keep->schedule.kind == KVG_SCHED_PROMPT;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        float x[W];
        assert_int_equal(kvg_stream_truncate(eng.e, &st.s, cuts[i], NULL), 0);
        check_store(&st, spec);
        gen_prompt(&eng, &st, text + 200, 12, x);
        check_budget(&st, spec, once ? NULL : budget, 0);
        gen_steps(&eng, &st, text + 220, 1, x);
        check_store(&st, spec);
    }
    kvg_stream_reset(&st.s, 5);
    run_turns(&st, spec, budget, again);
    if (memcmp(first, again, sizeof first) || gen_store_hash(st.s.store) != hash)
        fail_msg("%s: reset is not fresh", spec);
    gen_stream_open(&fresh, &eng, spec, 6);
    run_turns(&fresh, spec, budget, again);
    int drawn = fresh.s.rng.state != 6 || gen_store_hash(fresh.s.store) != hash;
    if (drawn && !fresh.pipe.random)
        fail_msg("%s: draws random numbers without saying so", spec);
    gen_stream_close(&fresh);
    gen_stream_close(&st);
    return drawn;
}

static void test_conformance(void **state)
{
    (void)state;
    size_t n, done = 0;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    char spec[GEN_PATH_MAX + 128];
    for (size_t i = 0; i < n; i++) {
        int draws = 0;
        for (size_t b = 0; b < 3; b++)
            for (size_t e = 0; e < ENCODINGS * SCORERS; e++)
                if (meet(e % SCORERS, e / SCORERS) &&
                    spec_of(spec, all[i], e % SCORERS, budgets[b], encodings[e / SCORERS])) {
                    draws |= conform(spec, budgets[b]);
                    done++;
                }
        if (all[i]->random && !draws)
            fail_msg("%s: draws no random numbers", all[i]->name);
    }
    assert_true(done >= n);
}

/* A budget that binds nothing: the rows of `full` with the same encoding, bit for bit. */
static void test_budget_of_everything(void **state)
{
    (void)state;
    static float full[ROWS], got[ROWS];
    static const char *const most[] = {"256", "100%"};
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    for (size_t e = 0; e < ENCODINGS; e++) {
        char spec[GEN_PATH_MAX + 128];
        struct gen_stream st;
        snprintf(spec, sizeof spec, "full%s", encodings[e]);
        gen_stream_open(&st, &eng, spec, 1);
        run_turns(&st, spec, NULL, full);
        gen_stream_close(&st);
        for (size_t i = 0; i < n; i++)
            for (size_t b = 0; b < 2 * SCORERS; b++) {
                if (!meet(b / 2, e) || !spec_of(spec, all[i], b / 2, most[b % 2], encodings[e]))
                    continue;
                gen_stream_open(&st, &eng, spec, 1);
                /* keys that are rotated after encoding are other keys */
                int other = st.pipe.needs.raw_keys && *encodings[e];
                run_turns(&st, spec, most[b % 2], got);
                if (!other && memcmp(full, got, sizeof full))
                    fail_msg("%s: not what full%s gives", spec, encodings[e]);
                assert_int_equal(st.s.store->count.n_evicted, 0);
                gen_stream_close(&st);
            }
    }
}

static void test_resolved(void **state)
{
    (void)state;
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    char spec[GEN_PATH_MAX + 128];
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < 3; b++)
            for (size_t e = 0; e < ENCODINGS * SCORERS; e++) {
                struct kvg_arena a;
                struct kvg_pipeline p, q;
                struct kvg_err err;
                if (!spec_of(spec, all[i], e % SCORERS, budgets[b], encodings[e / SCORERS]))
                    continue;
                kvg_arena_init(&a);
                if (kvg_pipeline_open(&p, spec, &eng.dims, &a, &err))
                    fail_msg("%s", err.msg);
                if (kvg_pipeline_open(&q, p.resolved, &eng.dims, &a, &err))
                    fail_msg("%s: %s", p.resolved, err.msg);
                assert_string_equal(p.resolved, q.resolved);
                assert_non_null(strstr(p.resolved, all[i]->name));
                kvg_arena_release(&a);
            }
}

static void test_bad_specs(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *says;
    } bad[] = {{"snapvk", "snapkv"},
               {"", "unknown strategy"},
               {"windw:budget=3", "window"},
               {"window:budgt=3", "budget"},
               {"window:budget=0", "budget"},
               {"window:budget=-4", "budget"},
               {"window:budget=150%", "budget"},
               {"window:budget", "option=value"},
               {"window:budget=12x", "budget"},
               {"sink:budget=4,sinks=4", "sinks"},
               {"sink:budget=64,sinks=-1", "sinks"},
               {"sink:budget=64,position=sideways", "position"},
               {"h2o:recent=1.5", "recent"},
               {"h2o:schedule=every:0", "schedule"},
               {"h2o:schedule=often", "schedule"},
               {"snapkv:kernel=4", "odd"},
               {"pyramidkv:kernel=4", "odd"},
               {"pyramidkv:budget=4,window=8", "window"},
               {"lagkv:lag=1", "lag"},
               {"cur:of=norms", "of"},
               {"simlayerkv+adakv", "scores"},
               {"simlayerkv:budget=10", "budget"},
               {"kivi:bits=3", "bits"},
               {"kivi:group=32,residual=40", "residual"},
               {"kv:k=q9_9", "k"},
               {"fixed", "file"},
               {"scissorhands:window=7", "even"},
               {"r-kv:kernel=4", "odd"},
               {"r-kv:budget=8", "window"},
               {"kvquant", "kvgauge calibrate"},
               {"kvquant:file=/nowhere/x.nuq", "kvgauge calibrate"},
               {"kvquant:bits=5", "bits"},
               {"ctx-shift:budget=4", "keep"},
               {"interval", "wraps"},
               {"h2o+protect:spans=system/glosary", "glosary"},
               {"h2o+fair:spans=", "span"},
               {"full+fair", "wraps"},
               {"h2o+fair+fair", "twice"},
               {"window+h2o", "combined"},
               {"f16+q8_0", "combined"},
               {"uncached+f16", "combined"},
               {"full+", "unknown strategy"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kvg_arena a;
        struct kvg_pipeline p;
        struct kvg_err err = {0};
        kvg_arena_init(&a);
        int rc = kvg_pipeline_open(&p, bad[i].spec, &eng.dims, &a, &err);
        if (rc != KVG_EUSAGE || !strstr(err.msg, bad[i].says))
            fail_msg("'%s': %d, %s", bad[i].spec, rc, rc ? err.msg : "accepted");
        kvg_arena_release(&a);
    }
}

/* ---- positions ---- */

static void rotate(float *x, size_t pos)
{
    size_t half = model->d_head / 2;
    const float *c = model->rope_cos + pos * half, *s = model->rope_sin + pos * half;
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * c[i] - b * s[i];
        x[i + half] = b * c[i] + a * s[i];
    }
}

static int n_probed;

/* The last query's attention, computed from the store's rows and the positions a policy names,
 * against what the engine observed. */
static void probe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    (void)columns;
    if (!v->q)
        return; /* a prompt */
    size_t d = model->d_head, group = model->n_heads / model->n_kv_heads;
    int by_slot = v->store->cfg.raw_keys;
    float k[256 * 32], q[32];
    int32_t pos[256];
    for (size_t g = 0; g < model->n_heads; g++) {
        size_t h = g / group, n = kvg_view_slots(v, h);
        double p[256], sum = 0, max = -INFINITY;
        kvg_store_positions(v->store, v->layer, h, pos);
        kvg_store_read(v->store, v->layer, h, KVG_COL_K, 0, n, k);
        assert_int_equal(pos[n - 1], v->n_logical - 1);
        assert_int_equal(v->n_queries, 1);
        memcpy(q, v->queries + g * d, d * sizeof *q);
        if (v->phase == KVG_PHASE_DECODE)
            assert_memory_equal(v->q + g * d, q, d * sizeof *q);
        for (size_t j = 0; j < n; j++) {
            if (by_slot)
                rotate(k + j * d, j);
            p[j] = 0;
            for (size_t c = 0; c < d; c++)
                p[j] += (double)q[c] * (double)k[j * d + c] / sqrt((double)d);
            max = p[j] > max ? p[j] : max;
        }
        for (size_t j = 0; j < n; j++)
            sum += p[j] = exp(p[j] - max);
        for (size_t j = 0; j < n; j++)
            assert_true(fabs(p[j] / sum - (double)v->obs[in->first_obs][g * v->obs_ld + j]) < 2e-5);
    }
    n_probed++;
}

static const struct kvg_strategy prober = {
    .name = "probe", .kind = KVG_KIND_READ, .observe = probe};

/* A stream whose pipeline has the prober at its end. */
static void open_probed(struct gen_stream *st, const char *spec)
{
    struct kvg_err err;
    kvg_arena_init(&st->arena);
    if (kvg_pipeline_open(&st->pipe, spec, &eng.dims, &st->arena, &err))
        fail_msg("%s", err.msg);
    struct kvg_needs *w = &st->pipe.needs;
    struct kvg_inst *in = &st->pipe.inst[st->pipe.n++];
    *in = (struct kvg_inst){
        .s = &prober, .state = &n_probed, .first_obs = w->n_obs, .dims = eng.dims};
    w->obs[w->n_obs++] = (struct kvg_obs){.kind = KVG_OBS_SUM, .window = 1};
    w->queries = w->queries ? w->queries : 1;
    if (kvg_stream_open(&st->s, eng.e, &st->pipe, &err))
        fail_msg("%s", err.msg);
    kvg_stream_reset(&st->s, 3);
}

static void test_positions(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        enum kvg_position position;
    } cases[] = {{"full", KVG_POSITION_TRUE},
                 {"window:budget=20", KVG_POSITION_TRUE},
                 {"sink:budget=20", KVG_POSITION_SLOT},
                 {"sink:budget=20,position=true", KVG_POSITION_TRUE},
                 {"ctx-shift:budget=20", KVG_POSITION_SLOT},
                 {"hybrid:budget=20,full=2", KVG_POSITION_TRUE},
                 {"h2o:budget=40%", KVG_POSITION_TRUE},
                 {"h2o:budget=40%+adakv", KVG_POSITION_TRUE},
                 {"h2o:budget=40%+rerotate", KVG_POSITION_SLOT},
                 {"snapkv:budget=40%,window=8+adakv+rerotate", KVG_POSITION_SLOT},
                 {"finch:budget=40%", KVG_POSITION_SLOT},
                 {"snapkv:budget=40%,window=8", KVG_POSITION_TRUE},
                 {"random:budget=30%", KVG_POSITION_TRUE}};
    static float rows[ROWS];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gen_stream st;
        open_probed(&st, cases[i].spec);
        assert_int_equal(st.pipe.position, cases[i].position);
        assert_int_equal(st.s.store->cfg.raw_keys, cases[i].position == KVG_POSITION_SLOT);
        n_probed = 0;
        run_turns(&st, cases[i].spec, NULL, rows);
        assert_int_equal(n_probed, TURNS * REPLY * (int)model->n_layers);
        gen_stream_close(&st);
    }
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
        cmocka_unit_test(test_conformance), cmocka_unit_test(test_budget_of_everything),
        cmocka_unit_test(test_resolved),    cmocka_unit_test(test_bad_specs),
        cmocka_unit_test(test_positions),   cmocka_unit_test(test_unfinished_prompt),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
