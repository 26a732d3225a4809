/* Owns the benchmark's tests: which, in what order, and the machine's limit beside each. Must not
 * know how results are printed. */
#include "run/bench.h"

#include "base/clock.h"
#include "kernel/blas.h"
#include "kernel/probe.h"
#include "result/stats.h"
#include "run/bench_arm.h"
#include "run/describe.h"
#include "run/stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BANDWIDTH_PASSES = 5 };

struct bench {
    const struct kvg_bench_cfg *cfg;
    struct kvg_progress *pr;
    kvg_bench_fn fn;
    void *arg;
    struct kvg_arena arena;
    struct kvg_host host;
    struct kvg_dims dims;
    struct kvg_pool *pool;
    struct kvg_engine *engine;
    struct kvg_bench_arm *arms; /* [n_specs] */
    size_t n_threads, max_tokens;
    size_t room; /* tokens the engine holds */
    size_t *depths; /* ascending */
    int32_t *text;  /* [max_tokens] pseudo-random tokens, the same for all */
    float *hidden, *logits;
    double *ns;       /* [n_specs, reps] */
    uint32_t *order;  /* [n_specs] */
    double gemm_rate; /* multiply-adds/s; 0 = not known */
    struct kvg_rng rng;
};

/* One test of one depth: prefill of n_prompt tokens or decode of n_gen. */
struct test {
    size_t n_prompt, n_gen, depth;
};

/* What the work of a test was, by the store's own counters. */
struct work {
    uint64_t bytes_read, n_macs;
};

static int by_size(const void *a, const void *b)
{
    size_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static size_t largest(const size_t *v, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = v[i] > most ? v[i] : most;
    return most;
}

static int prepare(struct bench *b, struct kvg_err *err)
{
    const struct kvg_bench_cfg *c = b->cfg;
    const struct kvg_model *m = c->model;
    size_t pp = largest(c->prompts, c->n_prompts), tg = largest(c->gens, c->n_gens);
    size_t deepest = largest(c->depths, c->n_depths);
    b->max_tokens = deepest + (pp > tg ? pp : tg);
    if (b->max_tokens > m->n_ctx)
        return KVG_FAIL(
            err, KVG_EUSAGE,
            "a depth of %zu with a test of %zu tokens does not fit: the model's context "
            "is %zu",
            deepest, b->max_tokens - deepest, m->n_ctx);
    b->dims = kvg_model_dims(m);
    b->depths = kvg_arena_array(&b->arena, c->n_depths + 1, sizeof *b->depths);
    b->text = kvg_arena_array(&b->arena, b->max_tokens + 1, sizeof *b->text);
    b->hidden = kvg_arena_array(&b->arena, m->n_embd, sizeof *b->hidden);
    b->logits = kvg_arena_array(&b->arena, m->n_vocab, sizeof *b->logits);
    b->ns = kvg_arena_array(&b->arena, c->n_specs * c->reps + 1, sizeof *b->ns);
    b->order = kvg_arena_array(&b->arena, c->n_specs + 1, sizeof *b->order);
    b->arms = kvg_arena_array(&b->arena, c->n_specs + 1, sizeof *b->arms);
    if (!b->depths || !b->text || !b->hidden || !b->logits || !b->ns || !b->order || !b->arms)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the benchmark");
    if (c->n_depths)
        memcpy(b->depths, c->depths, c->n_depths * sizeof *b->depths);
    qsort(b->depths, c->n_depths, sizeof *b->depths, by_size);
    b->rng = (struct kvg_rng){c->seed};
    for (size_t i = 0; i < b->max_tokens; i++)
        b->text[i] = (int32_t)kvg_rng_below(&b->rng, m->n_vocab);
    kvg_host_probe(&b->host);
    return KVG_OK;
}

/* A wrong spec is an error before anything is measured. */
static int check_specs(struct bench *b, struct kvg_err *err)
{
    struct kvg_pipeline pipe;
    int rc = KVG_OK;
    b->room = b->max_tokens;
    for (size_t i = 0; i < b->cfg->n_specs && !rc; i++) {
        rc = kvg_pipeline_open(&pipe, b->cfg->specs[i], &b->dims, &b->arena, err);
        size_t n = rc ? 0 : kvg_stream_room(&pipe, b->max_tokens);
        b->room = n > b->room ? n : b->room;
    }
    return rc;
}

static int run_prompt(struct bench *b, struct kvg_bench_arm *a, size_t n, struct kvg_err *err)
{
    struct kvg_stream *s = &a->stream;
    uint32_t want = (uint32_t)(n - 1);
    int rc =
        kvg_engine_prompt(b->engine, &s, 1, b->text + s->n_tokens, n, 1, &want, 1, b->hidden, err);
    if (!rc)
        kvg_engine_logits(b->engine, b->hidden, 1, b->logits);
    return rc;
}

static int run_steps(struct bench *b, struct kvg_bench_arm *a, size_t n, struct kvg_err *err)
{
    struct kvg_stream *s = &a->stream;
    int rc = KVG_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        int32_t token = b->text[s->n_tokens];
        rc = kvg_engine_step(b->engine, &s, 1, &token, b->hidden, err);
        if (!rc)
            kvg_engine_logits(b->engine, b->hidden, 1, b->logits);
    }
    return rc;
}

/* Runs a test once from the arm's copy; *ns is its time, *work its counters. */
static int run_once(struct bench *b, struct kvg_bench_arm *a, const struct test *t, double *ns,
                    struct work *work, struct kvg_err *err)
{
    int rc = kvg_stop_check(err);
    if (!rc)
        rc = kvg_bench_arm_restore(a, err);
    if (rc)
        return rc;
    struct kvg_counters before = a->stream.store->count;
    uint64_t t0 = kvg_clock_ns();
    rc = t->n_prompt ? run_prompt(b, a, t->n_prompt, err) : run_steps(b, a, t->n_gen, err);
    *ns = (double)(kvg_clock_ns() - t0);
    work->bytes_read = a->stream.store->count.bytes_read - before.bytes_read;
    work->n_macs = a->stream.store->count.n_macs - before.n_macs;
    if (b->pr)
        kvg_progress_tokens(b->pr, t->n_prompt + t->n_gen, -1);
    return rc;
}

/* tokens/s at the machine's limit; NaN when it is not known. Decode: every step reads the weights
 * and the cache once. Prefill: its multiply-adds at the rate of sgemm. */
static double limit_of(struct bench *b, const struct test *t, const struct work *work,
                       struct kvg_row *row)
{
    if (t->n_prompt) {
        double rate = b->gemm_rate;
        return rate > 0 && work->n_macs ? (double)t->n_prompt * rate / (double)work->n_macs
                                        : (double)NAN;
    }
    size_t bytes = b->cfg->model->weight_bytes + (size_t)(work->bytes_read / t->n_gen);
    double bandwidth = kvg_probe_read_bandwidth(b->pool, bytes, BANDWIDTH_PASSES);
    kvg_row_set_f64(row, KVG_BENCH_read_bandwidth, bandwidth);
    return bandwidth / (double)bytes;
}

static const char *form_of(const struct kvg_codec *c)
{
    return c->name[0] ? c->name : "f32";
}

static void put_identity(struct bench *b, const struct kvg_bench_arm *a, const struct test *t,
                         struct kvg_row *row)
{
    const struct kvg_model *m = b->cfg->model;
    const struct kvg_inst *enc = a->pipe.encode;
    const char *slash = strrchr(m->path, '/');
    kvg_row_init(row, &kvg_table_bench);
    kvg_row_set_str(row, KVG_BENCH_build_commit, KVG_COMMIT);
    kvg_row_set_str(row, KVG_BENCH_cpu_info, b->host.cpu_model);
    kvg_row_set_str(row, KVG_BENCH_model_filename, slash ? slash + 1 : m->path);
    kvg_row_set_str(row, KVG_BENCH_model_type,
                    kvg_arena_printf(&b->arena, "%s %s", m->name, m->type_name));
    kvg_row_set_u64(row, KVG_BENCH_model_size, m->weight_bytes);
    kvg_row_set_u64(row, KVG_BENCH_model_n_params, m->n_params);
    kvg_row_set_u64(row, KVG_BENCH_n_threads, b->n_threads);
    kvg_row_set_str(row, KVG_BENCH_type_k, enc ? form_of(&enc->k_codec) : "f32");
    kvg_row_set_str(row, KVG_BENCH_type_v, enc ? form_of(&enc->v_codec) : "f32");
    kvg_row_set_str(row, KVG_BENCH_strategy, a->spec);
    kvg_row_set_u64(row, KVG_BENCH_n_prompt, t->n_prompt);
    kvg_row_set_u64(row, KVG_BENCH_n_gen, t->n_gen);
    kvg_row_set_u64(row, KVG_BENCH_n_depth, t->depth);
    kvg_row_set_str(row, KVG_BENCH_test_time, kvg_describe_now(&b->arena));
}

static int put_row(struct bench *b, size_t arm, const struct test *t, const struct work *work,
                   struct kvg_err *err)
{
    struct kvg_bench_arm *a = &b->arms[arm];
    size_t reps = b->cfg->reps, n = t->n_prompt + t->n_gen;
    const double *ns = b->ns + arm * reps;
    double *ts = kvg_arena_array(&b->arena, reps, sizeof *ts);
    struct kvg_bytes bytes;
    struct kvg_row row;
    if (!ts)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the benchmark");
    for (size_t r = 0; r < reps; r++)
        ts[r] = (double)n * 1e9 / ns[r];
    int rc = kvg_bench_arm_restore(a, err);
    if (rc)
        return rc;
    kvg_store_bytes(a->stream.store, &bytes);
    put_identity(b, a, t, &row);
    kvg_row_set_f64(&row, KVG_BENCH_avg_ns, kvg_stats_mean(ns, reps));
    kvg_row_set_f64(&row, KVG_BENCH_avg_ts, kvg_stats_mean(ts, reps));
    if (reps > 1) {
        kvg_row_set_f64(&row, KVG_BENCH_stddev_ns, kvg_stats_stddev(ns, reps));
        kvg_row_set_f64(&row, KVG_BENCH_stddev_ts, kvg_stats_stddev(ts, reps));
    }
    kvg_row_set_u64(&row, KVG_BENCH_kv_bytes, bytes.logical);
    double limit = limit_of(b, t, work, &row);
    if (!isnan(limit)) {
        kvg_row_set_f64(&row, KVG_BENCH_limit_ts, limit);
        kvg_row_set_f64(&row, KVG_BENCH_limit_fraction, kvg_stats_mean(ts, reps) / limit);
    }
    return b->fn(b->arg, &row, err);
}

/* All arms in another random order each repetition: slow drifts of the machine hit all alike. */
static int run_test(struct bench *b, const struct test *t, struct kvg_err *err)
{
    size_t n = b->cfg->n_specs, reps = b->cfg->reps;
    struct work *work = kvg_arena_array(&b->arena, n, sizeof *work);
    double ignored;
    int rc = work ? KVG_OK : KVG_FAIL(err, KVG_ENOMEM, "out of memory for the benchmark");
    struct test warm = *t;
    warm.n_gen = t->n_gen ? 1 : 0;
    for (size_t i = 0; i < n && !rc; i++) {
        b->order[i] = (uint32_t)i;
        rc = run_once(b, &b->arms[i], &warm, &ignored, &work[i], err);
    }
    for (size_t r = 0; r < reps && !rc; r++) {
        kvg_rng_shuffle(&b->rng, b->order, n);
        for (size_t k = 0; k < n && !rc; k++) {
            size_t i = b->order[k];
            rc = run_once(b, &b->arms[i], t, &b->ns[i * reps + r], &work[i], err);
        }
    }
    for (size_t i = 0; i < n && !rc; i++)
        rc = put_row(b, i, t, &work[i], err);
    return rc;
}

static int run_depth(struct bench *b, size_t depth, struct kvg_err *err)
{
    const struct kvg_bench_cfg *c = b->cfg;
    int rc = KVG_OK;
    for (size_t i = 0; i < c->n_specs && !rc; i++) {
        rc = kvg_stop_check(err);
        if (!rc)
            rc = kvg_bench_arm_deepen(&b->arms[i], b->engine, b->text, depth, err);
    }
    for (size_t k = 0; k < c->n_prompts && !rc; k++)
        if (c->prompts[k])
            rc = run_test(b, &(struct test){.n_prompt = c->prompts[k], .depth = depth}, err);
    for (size_t k = 0; k < c->n_gens && !rc; k++)
        if (c->gens[k])
            rc = run_test(b, &(struct test){.n_gen = c->gens[k], .depth = depth}, err);
    return rc;
}

static int open_threads(struct bench *b, size_t n_threads, struct kvg_err *err)
{
    const struct kvg_bench_cfg *c = b->cfg;
    b->n_threads = n_threads;
    int rc = kvg_pool_open(&b->pool, (int)n_threads, err);
    struct kvg_engine_cfg cfg = {.model = c->model,
                                 .kernels = c->kernels,
                                 .pool = b->pool,
                                 .max_tokens = b->room,
                                 .max_streams = 1};
    if (!rc)
        rc = kvg_engine_open(&b->engine, &cfg, err);
    for (size_t i = 0; i < c->n_specs && !rc; i++)
        rc = kvg_bench_arm_open(&b->arms[i], c->specs[i], &b->dims, b->engine, c->seed, err);
    if (!rc && largest(c->prompts, c->n_prompts) && kvg_blas_present())
        b->gemm_rate = kvg_blas_rate((int)n_threads) * 1e9 / 2;
    return rc;
}

static void close_threads(struct bench *b)
{
    for (size_t i = 0; i < b->cfg->n_specs; i++)
        kvg_bench_arm_close(&b->arms[i]);
    if (b->engine)
        kvg_engine_close(b->engine);
    if (b->pool)
        kvg_pool_close(b->pool);
    b->engine = NULL;
    b->pool = NULL;
}

int kvg_bench_run(const struct kvg_bench_cfg *cfg, struct kvg_progress *pr, kvg_bench_fn fn,
                  void *arg, struct kvg_err *err)
{
    struct bench b = {.cfg = cfg, .pr = pr, .fn = fn, .arg = arg};
    kvg_arena_init(&b.arena);
    int rc = prepare(&b, err);
    if (!rc)
        rc = check_specs(&b, err);
    for (size_t t = 0; t < cfg->n_threads && !rc; t++) {
        rc = open_threads(&b, cfg->threads[t], err);
        for (size_t d = 0; d < cfg->n_depths && !rc; d++)
            rc = run_depth(&b, b.depths[d], err);
        close_threads(&b);
    }
    kvg_arena_release(&b.arena);
    return rc;
}
