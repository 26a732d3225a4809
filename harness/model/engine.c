/* Owns the engine's memory, streams, and what is fed to whom: sharing of prompts, lockstep steps,
 * recomputation, truncation. The pass itself is in engine_pass.c. */
#include "model/engine.h"

#include "model/engine_internal.h"

#include <stdlib.h>
#include <string.h>

static size_t max_of(size_t a, size_t b)
{
    return a > b ? a : b;
}

static float *room(struct kvg_engine *e, size_t n, int *failed)
{
    float *p = calloc(n + 16, sizeof *p);
    e->scratch_bytes += (n + 16) * sizeof *p;
    if (!p)
        *failed = 1;
    return p;
}

static int alloc_all(struct kvg_engine *e)
{
    const struct kvg_model *m = e->cfg.model;
    size_t t = e->cfg.max_tokens, th = (size_t)kvg_pool_threads(e->cfg.pool);
    size_t rows = t < KVG_CHUNK_ROWS ? t : KVG_CHUNK_ROWS, group = m->n_heads / m->n_kv_heads;
    int failed = 0;
    rows = max_of(rows, e->cfg.max_streams);
    e->rows_max = rows;
    e->x = room(e, max_of(t, rows) * m->n_embd, &failed);
    e->xn = room(e, rows * m->n_embd, &failed);
    e->q = room(e, rows * m->n_heads * m->d_head, &failed);
    e->qr = room(e, rows * m->n_heads * m->d_head, &failed);
    e->k = room(e, rows * m->n_kv_heads * m->d_head, &failed);
    e->kr = room(e, rows * m->n_kv_heads * m->d_head, &failed);
    e->v = room(e, rows * m->n_kv_heads * m->d_head, &failed);
    e->att = room(e, rows * m->n_heads * m->d_head, &failed);
    e->gate = room(e, rows * m->n_ff, &failed);
    e->up = room(e, rows * m->n_ff, &failed);
    e->wtile_floats = KVG_GEMM_TILE * max_of(max_of(m->n_embd, m->n_ff), m->n_heads * m->d_head);
    e->wtile = room(e, th * e->wtile_floats, &failed);
    e->scores_floats = group * KVG_QUERY_TILE * (t + 16);
    e->scores = room(e, th * e->scores_floats, &failed);
    e->row_scores = room(e, e->cfg.max_streams * m->n_heads * t, &failed);
    e->partial = room(e, m->n_heads * m->d_head * (t / 8 / KVG_ATTEND_SEGS + 4), &failed);
    e->tile_floats =
        (2 * group * KVG_QUERY_TILE + KVG_TILE_SLOTS + 2 * group) * m->d_head + 64;
    e->tiles = room(e, th * e->tile_floats, &failed);
    e->colsum = room(e, KVG_WINDOWS_MAX * m->n_heads * t, &failed);
    e->colsum_part = room(e, KVG_ATTEND_PARTS * KVG_WINDOWS_MAX * m->n_heads * t, &failed);
    e->scratch = room(e, 3 * t + KVG_TILE_SLOTS * m->d_head, &failed);
    e->scratch2 = room(e, 2 * t, &failed);
    e->layer_scores = room(e, m->n_kv_heads * t, &failed);
    e->observe_ns = calloc(th * 8, sizeof *e->observe_ns);
    e->feed = calloc(t + 1, sizeof *e->feed);
    return failed || !e->observe_ns || !e->feed ? -1 : 0;
}

int kvg_engine_open(struct kvg_engine **out, const struct kvg_engine_cfg *cfg, struct kvg_err *err)
{
    *out = NULL;
    if (cfg->max_streams < 1 || cfg->max_streams > KVG_STREAMS_MAX ||
        cfg->max_tokens < 1 || cfg->max_tokens > cfg->model->n_ctx)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "an engine takes 1 to %d streams and 1 to %zu tokens (the model's context)",
                        KVG_STREAMS_MAX, cfg->model->n_ctx);
    struct kvg_engine *e = calloc(1, sizeof *e);
    if (!e)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    e->cfg = *cfg;
    e->kern = cfg->kernels;
    e->row_ordered = cfg->row_ordered;
    if (alloc_all(e)) {
        kvg_engine_close(e);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for a context of %zu tokens",
                        cfg->max_tokens);
    }
    *out = e;
    return 0;
}

void kvg_engine_close(struct kvg_engine *e)
{
    if (!e)
        return;
    float *all[] = {e->x,      e->xn,         e->q,       e->qr,    e->k,      e->kr,
                    e->v,      e->att,        e->gate,    e->up,    e->wtile,  e->scores,
                    e->tiles,  e->row_scores, e->partial, e->colsum, e->colsum_part, e->scratch,
                    e->scratch2, e->layer_scores};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    free(e->observe_ns);
    free(e->feed);
    free(e);
}

void kvg_engine_set_timed(struct kvg_engine *e, int timed)
{
    e->timed = timed;
}

const struct kvg_times *kvg_engine_times(const struct kvg_engine *e)
{
    return &e->times;
}

size_t kvg_engine_scratch_bytes(const struct kvg_engine *e)
{
    return e->scratch_bytes;
}

void kvg_engine_set_kernels(struct kvg_engine *e, const struct kvg_kernels *k)
{
    e->kern = k ? k : e->cfg.kernels;
}

void kvg_engine_set_row_ordered(struct kvg_engine *e, int row_ordered)
{
    e->row_ordered = row_ordered;
}

/* ---- streams ---- */

static struct kvg_store_cfg store_cfg(const struct kvg_model *m, const struct kvg_kernels *k,
                                      const struct kvg_pipeline *p, size_t max_tokens)
{
    struct kvg_store_cfg c = {.n_layers = m->n_layers,
                              .n_kv_heads = m->n_kv_heads,
                              .d_head = m->d_head,
                              .max_slots = max_tokens,
                              .raw_keys = p->needs.raw_keys,
                              .n_side = p->needs.n_side,
                              .kernels = k};
    memcpy(c.side_floats, p->needs.side_floats, sizeof c.side_floats);
    return c;
}

static int add_codecs(struct kvg_stream *s, struct kvg_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < s->pipe->n && !rc; i++) {
        struct kvg_inst *in = &s->pipe->inst[i];
        if (in->k_codec.name[0])
            rc = kvg_store_add_codec(s->store, &in->k_codec, &in->k_codec_index, err);
        if (!rc && in->v_codec.name[0])
            rc = kvg_store_add_codec(s->store, &in->v_codec, &in->v_codec_index, err);
        if (!rc && in->extra_codec.name[0])
            rc = kvg_store_add_codec(s->store, &in->extra_codec, &in->extra_codec_index, err);
    }
    return rc;
}

int kvg_stream_open(struct kvg_stream *s, struct kvg_engine *e, struct kvg_pipeline *pipe,
                    struct kvg_err *err)
{
    const struct kvg_model *m = e->cfg.model;
    memset(s, 0, sizeof *s);
    s->pipe = pipe;
    struct kvg_store_cfg c = store_cfg(m, e->cfg.kernels, pipe, e->cfg.max_tokens);
    size_t heads = m->n_layers * m->n_kv_heads;
    s->tokens = calloc(e->cfg.max_tokens + 1, sizeof *s->tokens);
    int rc = s->tokens ? kvg_store_open(&s->store, &c, err)
                       : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!rc)
        rc = kvg_plan_init(&s->plan, heads * 4 + 16, (heads + 2) * (e->cfg.max_tokens + 1), err);
    if (!rc)
        rc = add_codecs(s, err);
    if (rc) {
        kvg_stream_close(s);
        return rc;
    }
    kvg_stream_reset(s, 0);
    return 0;
}

void kvg_stream_close(struct kvg_stream *s)
{
    kvg_store_close(s->store);
    kvg_plan_release(&s->plan);
    free(s->tokens);
    memset(s, 0, sizeof *s);
}

void kvg_stream_reset(struct kvg_stream *s, uint64_t seed)
{
    kvg_store_reset(s->store);
    kvg_plan_clear(&s->plan);
    s->n_tokens = 0;
    s->turn = 0;
    s->n_decode_steps = 0;
    s->seed = seed;
    s->rng = (struct kvg_rng){seed};
    kvg_pipeline_begin_item(s->pipe, seed);
}

size_t kvg_stream_store_bytes(const struct kvg_model *m, const struct kvg_pipeline *p,
                              size_t n_tokens)
{
    size_t heads = m->n_layers * m->n_kv_heads, row = 2 * m->d_head * sizeof(float) + 4;
    for (size_t i = 0; i < p->needs.n_side; i++)
        row += p->needs.side_floats[i] * sizeof(float);
    return heads * (n_tokens + 2 * KVG_TILE_SLOTS) * row;
}

/* ---- feeding ---- */

static size_t recompute_count(const struct kvg_stream *s)
{
    for (size_t i = 0; i < s->pipe->n && !s->bare; i++)
        if (s->pipe->inst[i].s->recompute)
            return s->pipe->inst[i].s->recompute(&s->pipe->inst[i], s->n_tokens, 1);
    return 0;
}

static int check_room(const struct kvg_engine *e, const struct kvg_stream *s, size_t n,
                      struct kvg_err *err)
{
    if (n == 0)
        return KVG_FAIL(err, KVG_EUSAGE, "a prompt needs at least one token");
    if (s->n_tokens + n > e->cfg.max_tokens)
        return KVG_FAIL(err, KVG_ELIMIT,
                        "context full: %zu tokens and %zu more do not fit in %zu", s->n_tokens, n,
                        e->cfg.max_tokens);
    return 0;
}

static int check_tokens(const struct kvg_engine *e, const int32_t *tokens, size_t n,
                        struct kvg_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= e->cfg.model->n_vocab)
            return KVG_FAIL(err, KVG_EUSAGE, "token id %d is not in the vocabulary of %zu",
                            tokens[i], e->cfg.model->n_vocab);
    return 0;
}

static void record(struct kvg_stream *s, const int32_t *tokens, size_t n)
{
    memcpy(s->tokens + s->n_tokens, tokens, n * sizeof *tokens);
    s->n_tokens += n;
}

/* The last `again` tokens and n new ones go through one pass of one stream. */
static int feed_again(struct kvg_engine *e, struct kvg_stream *s, size_t again,
                      const int32_t *tokens, size_t n, int compress, const uint32_t *want,
                      size_t n_want, float *hidden, struct kvg_err *err)
{
    size_t start = s->n_tokens - again;
    uint32_t shifted[64];
    if (n_want > 64)
        return KVG_FAIL(err, KVG_EUSAGE, "at most 64 rows can be asked of a recomputed prompt");
    for (size_t i = 0; i < n_want; i++)
        shifted[i] = want[i] + (uint32_t)again;
    memcpy(e->feed, s->tokens + start, again * sizeof *e->feed);
    memcpy(e->feed + again, tokens, n * sizeof *e->feed);
    if (start == 0) {
        struct kvg_counters kept = s->store->count;
        kvg_store_reset(s->store);
        s->store->count = kept;
    } else {
        kvg_store_truncate(s->store, (int32_t)start);
    }
    s->store->count.n_recomputed += again;
    s->n_tokens = start;
    struct kvg_pass p = {.streams = &s,
                         .n_streams = 1,
                         .tokens = e->feed,
                         .n = again + n,
                         .phase = KVG_PHASE_PROMPT,
                         .compress = compress,
                         .want = shifted,
                         .n_want = n_want,
                         .hidden = hidden};
    int rc = kvg_pass_run(e, &p, err);
    if (!rc)
        record(s, e->feed, again + n);
    return rc;
}

static int prompt_pass(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                       const int32_t *tokens, size_t n, int compress, const uint32_t *want,
                       size_t n_want, float *hidden, struct kvg_err *err)
{
    struct kvg_pass p = {.streams = streams,
                         .n_streams = n_streams,
                         .tokens = tokens,
                         .n = n,
                         .phase = KVG_PHASE_PROMPT,
                         .compress = compress,
                         .want = want,
                         .n_want = n_want,
                         .hidden = hidden};
    int rc = kvg_pass_run(e, &p, err);
    for (size_t i = 0; i < n_streams && !rc; i++)
        record(streams[i], tokens, n);
    return rc;
}

/* One stream, maybe in chunks that are compressed one after the other. */
static int prompt_alone(struct kvg_engine *e, struct kvg_stream *s, const int32_t *tokens, size_t n,
                        int last_in_turn, const uint32_t *want, size_t n_want, float *hidden,
                        struct kvg_err *err)
{
    size_t again = recompute_count(s), w = e->cfg.model->n_embd, at = 0;
    size_t chunk = s->pipe->keep ? (size_t)s->pipe->keep->prefill_chunk : 0;
    uint32_t local[64];
    if (again)
        return feed_again(e, s, again, tokens, n, last_in_turn, want, n_want, hidden, err);
    if (!chunk || chunk >= n)
        return prompt_pass(e, &s, 1, tokens, n, last_in_turn, want, n_want, hidden, err);
    for (size_t i = 0; i < n; i += chunk) {
        size_t m = n - i < chunk ? n - i : chunk, k = 0;
        while (at + k < n_want && want[at + k] < i + m && k < 64) {
            local[k] = want[at + k] - (uint32_t)i;
            k++;
        }
        int rc = prompt_pass(e, &s, 1, tokens + i, m, 1, local, k, hidden ? hidden + at * w : NULL,
                             err);
        if (rc)
            return rc;
        at += k;
    }
    return at == n_want ? 0
                        : KVG_FAIL(err, KVG_EUSAGE, "at most 64 rows can be asked of one chunk");
}

/* Streams that begin together with exact prompts go through one computation. */
static int can_share(const struct kvg_stream *s)
{
    return s->n_tokens == 0 && !(s->pipe->keep && s->pipe->keep->prefill_chunk) &&
           !(s->pipe->encode && s->pipe->encode->prefill_stored);
}

int kvg_engine_prompt(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                      const int32_t *tokens, size_t n, int last_in_turn, const uint32_t *want,
                      size_t n_want, float *hidden, struct kvg_err *err)
{
    struct kvg_stream *shared[KVG_STREAMS_MAX];
    size_t n_shared = 0, w = e->cfg.model->n_embd, first = 0;
    uint64_t t0 = kvg_engine_now(e);
    memset(&e->times, 0, sizeof e->times);
    int rc = check_tokens(e, tokens, n, err);
    for (size_t i = 0; i < n_streams && !rc; i++) {
        rc = check_room(e, streams[i], n, err);
        if (can_share(streams[i])) {
            first = n_shared ? first : i;
            shared[n_shared++] = streams[i];
        }
    }
    if (!rc && n_shared > 1)
        rc = prompt_pass(e, shared, n_shared, tokens, n, last_in_turn, want, n_want,
                         NULL, err);
    if (!rc && n_shared > 1 && hidden) {
        const struct kvg_model *m = e->cfg.model;
        for (size_t i = 0; i < n_want; i++)
            e->kern->rmsnorm(e->x + want[i] * w, m->output_norm, w, m->rms_eps,
                             hidden + (first * n_want + i) * w);
    }
    for (size_t i = 0, k = 0; i < n_streams && !rc; i++) {
        float *out = hidden ? hidden + i * n_want * w : NULL;
        if (n_shared > 1 && k < n_shared && streams[i] == shared[k]) {
            if (out && i != first)
                memcpy(out, hidden + first * n_want * w, n_want * w * sizeof *out);
            k++;
            continue;
        }
        rc = prompt_alone(e, streams[i], tokens, n, last_in_turn, want, n_want, out, err);
    }
    e->times.total = kvg_engine_now(e) - t0;
    return rc;
}

int kvg_engine_step(struct kvg_engine *e, struct kvg_stream **streams, size_t n_streams,
                    const int32_t *tokens, float *hidden, struct kvg_err *err)
{
    struct kvg_stream *together[KVG_STREAMS_MAX];
    int32_t fed[KVG_STREAMS_MAX];
    size_t at[KVG_STREAMS_MAX], n = 0, w = e->cfg.model->n_embd;
    static const uint32_t first_row[1] = {0};
    uint64_t t0 = kvg_engine_now(e);
    memset(&e->times, 0, sizeof e->times);
    int rc = check_tokens(e, tokens, n_streams, err);
    for (size_t i = 0; i < n_streams && !rc; i++)
        rc = check_room(e, streams[i], 1, err);
    for (size_t i = 0; i < n_streams && !rc; i++) {
        size_t again = recompute_count(streams[i]);
        if (again) {
            rc = feed_again(e, streams[i], again, &tokens[i], 1, 0, first_row, 1,
                            hidden + i * w, err);
            streams[i]->n_decode_steps++;
            continue;
        }
        together[n] = streams[i];
        fed[n] = tokens[i];
        at[n++] = i;
    }
    if (!rc && n > 0) {
        float *out = n == n_streams ? hidden : e->xn; /* free once the layers are through */
        struct kvg_pass p = {.streams = together,
                             .n_streams = n,
                             .tokens = fed,
                             .n = 1,
                             .phase = KVG_PHASE_DECODE,
                             .hidden = out};
        rc = kvg_pass_run(e, &p, err);
        for (size_t i = 0; i < n && !rc; i++) {
            if (out != hidden)
                memcpy(hidden + at[i] * w, out + i * w, w * sizeof *out);
            record(together[i], &fed[i], 1);
            together[i]->n_decode_steps++;
        }
    }
    e->times.total = kvg_engine_now(e) - t0;
    return rc;
}

int kvg_engine_end_turn(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err)
{
    int rc = 0;
    for (size_t k = 0; k < s->pipe->n && !s->bare && !rc; k++) {
        struct kvg_inst *in = &s->pipe->inst[k];
        struct kvg_view v = {.store = s->store,
                             .phase = KVG_PHASE_DECODE,
                             .pos0 = (int32_t)s->n_tokens,
                             .n_logical = s->n_tokens,
                             .turn = s->turn,
                             .rng = &s->rng,
                             .scratch = e->scratch,
                             .scratch2 = e->scratch2};
        if (!in->s->end_turn)
            continue;
        in->s->end_turn(in, &v, &s->plan);
        rc = kvg_store_apply(s->store, &s->plan, err);
    }
    s->turn++;
    return rc;
}

/* Whether nothing was dropped so far: then cutting is always right. */
static int complete(const struct kvg_stream *s)
{
    const struct kvg_store_cfg *c = &s->store->cfg;
    for (size_t h = 0; h < c->n_layers * c->n_kv_heads; h++)
        if (s->store->heads[h].n_slots != s->n_tokens)
            return 0;
    return 1;
}

int kvg_stream_truncate(struct kvg_engine *e, struct kvg_stream *s, size_t n_tokens,
                        struct kvg_err *err)
{
    if (n_tokens >= s->n_tokens)
        return 0;
    if (s->pipe->truncation == KVG_TRUNCATE_CUT || s->bare || complete(s) || n_tokens == 0) {
        kvg_store_truncate(s->store, (int32_t)n_tokens);
        s->n_tokens = n_tokens;
        return 0;
    }
    kvg_pipeline_begin_item(s->pipe, s->seed);
    struct kvg_counters kept = s->store->count;
    kvg_store_reset(s->store);
    s->store->count = kept;
    s->store->count.n_recomputed += n_tokens;
    memcpy(e->feed, s->tokens, n_tokens * sizeof *e->feed);
    size_t turn = s->turn;
    s->n_tokens = 0;
    s->turn = 0; /* the first prompt again: schedule=prompt is due */
    int rc = prompt_alone(e, s, e->feed, n_tokens, 1, NULL, 0, NULL, err);
    s->turn = turn;
    return rc;
}

void kvg_engine_logits(struct kvg_engine *e, const float *hidden, size_t n, float *logits)
{
    const struct kvg_model *m = e->cfg.model;
    uint64_t t0 = kvg_engine_now(e);
    struct kvg_product p = {&m->output, logits, m->n_vocab};
    kvg_dense_products(e, &p, 1, hidden, m->n_embd, n, 1);
    uint64_t dt = kvg_engine_now(e) - t0;
    e->times.logits += dt;
    e->times.total += dt;
}
