/* Owns the gathering of keys and values and what is computed from them. Must not know where the
 * file goes. */
#include "run/calibrate.h"

#include "cache/nuq.h"
#include "model/engine.h"
#include "run/stop.h"
#include "run/tokens.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The first token of a text draws attention and has keys and values unlike all others. */
enum { SKIP = 1, BINS = 4096, ROUNDS = 200 };

struct calibration {
    const struct kvg_calibrate_cfg *cfg;
    struct kvg_progress *pr;
    struct kvg_arena arena;
    struct kvg_workload workload;
    int workload_open;
    struct kvg_template chat;
    const struct kvg_item **items;
    size_t n_items, n_used;
    struct kvg_engine *engine;
    struct kvg_pipeline pipe;
    struct kvg_stream stream;
    int32_t *tokens;            /* [n_ctx] */
    size_t n_heads, d, n, cap;  /* heads of all layers; tokens gathered, room */
    float *rows[KVG_NUQ_SIDES]; /* [n_heads, cap, d] */
    struct kvg_nuq q;
};

static int no_memory(struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory for calibration: give fewer --tokens");
}

/* ---- items ---- */

static int choose_items(struct calibration *c, struct kvg_err *err)
{
    const struct kvg_strlist *want = &c->cfg->items;
    size_t n = want->n ? want->n : c->workload.n_items;
    c->items = kvg_arena_array(&c->arena, n, sizeof *c->items);
    if (!c->items)
        return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        c->items[i] = want->n ? kvg_workload_find(&c->workload, want->v[i]) : &c->workload.items[i];
        if (!c->items[i])
            return KVG_FAIL(err, KVG_EUSAGE, "the workload '%s' has no item '%s'", c->workload.name,
                            want->v[i]);
    }
    c->n_items = n;
    return KVG_OK;
}

/* The whole conversation, replies included, as it stands at its end; cut to the model's context. */
static int take_tokens(struct calibration *c, const struct kvg_item *item, size_t *n,
                       struct kvg_err *err)
{
    struct kvg_arena a;
    struct kvg_item_tokens it;
    size_t most = c->cfg->model->n_ctx;
    kvg_arena_init(&a);
    *n = 0;
    int rc =
        kvg_item_tokenise(&it, &c->workload, item, c->cfg->model, &c->chat, 0, 0, 0, 0, &a, err);
    for (size_t t = 0; !rc && t < it.n_turns; t++) {
        const struct kvg_turn_tokens *u = &it.turns[t];
        const struct {
            const int32_t *v;
            size_t n;
        } parts[2] = {{u->prompt, u->n_prompt}, {u->reply, u->n_reply}};
        *n = u->start < *n ? u->start : *n; /* a turn that replaces others cuts them off */
        for (size_t k = 0; k < 2; k++) {
            size_t m = parts[k].n < most - *n ? parts[k].n : most - *n;
            if (m)
                memcpy(c->tokens + *n, parts[k].v, m * sizeof *c->tokens);
            *n += m;
        }
    }
    kvg_arena_release(&a);
    return rc;
}

/* ---- gathering ---- */

/* The exact cache, its keys stored before rotation. */
static int open_stream(struct calibration *c, struct kvg_err *err)
{
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n), *floor = NULL;
    const struct kvg_dims dims = kvg_model_dims(c->cfg->model);
    for (size_t i = 0; i < n && !floor; i++)
        floor = all[i]->role == KVG_ROLE_FLOOR ? all[i] : NULL;
    const struct kvg_engine_cfg cfg = {.model = c->cfg->model,
                                       .kernels = c->cfg->kernels,
                                       .pool = c->cfg->pool,
                                       .max_tokens = dims.n_ctx,
                                       .max_streams = 1};
    int rc = floor ? kvg_pipeline_open(&c->pipe, floor->name, &dims, &c->arena, err)
                   : KVG_FAIL(err, KVG_ECHECK, "no strategy has the role of a floor");
    if (rc)
        return rc;
    c->pipe.needs.raw_keys = 1;
    rc = kvg_engine_open(&c->engine, &cfg, err);
    return rc ? rc : kvg_stream_open(&c->stream, c->engine, &c->pipe, err);
}

static int alloc_rows(struct calibration *c, struct kvg_err *err)
{
    const struct kvg_model *m = c->cfg->model;
    c->n_heads = m->n_layers * m->n_kv_heads;
    c->d = m->d_head;
    c->cap = c->cfg->max_tokens;
    c->tokens = kvg_arena_array(&c->arena, m->n_ctx, sizeof *c->tokens);
    for (size_t s = 0; s < KVG_NUQ_SIDES; s++) {
        c->rows[s] = malloc(c->n_heads * c->cap * c->d * sizeof(float));
        if (!c->rows[s])
            return no_memory(err);
    }
    return c->tokens ? KVG_OK : no_memory(err);
}

static int gather_item(struct calibration *c, const struct kvg_item *item, struct kvg_err *err)
{
    struct kvg_stream *s = &c->stream;
    size_t n, m;
    int rc = take_tokens(c, item, &n, err);
    if (rc || n <= SKIP)
        return rc;
    kvg_stream_reset(s, 0);
    rc = kvg_engine_prompt(c->engine, &s, 1, c->tokens, n, 1, NULL, 0, NULL, err);
    if (rc)
        return kvg_err_prefix(err, "item '%s'", item->id);
    m = n - SKIP < c->cap - c->n ? n - SKIP : c->cap - c->n;
    for (size_t h = 0; h < c->n_heads; h++) {
        size_t layer = h / s->store->cfg.n_kv_heads, head = h % s->store->cfg.n_kv_heads;
        size_t at = (h * c->cap + c->n) * c->d;
        kvg_store_read(s->store, layer, head, KVG_COL_K, SKIP, m, c->rows[KVG_NUQ_K] + at);
        kvg_store_read(s->store, layer, head, KVG_COL_V, SKIP, m, c->rows[KVG_NUQ_V] + at);
    }
    c->n += m;
    c->n_used++;
    if (c->pr)
        kvg_progress_tokens(c->pr, n, (double)c->n / (double)c->cap);
    return KVG_OK;
}

static int gather(struct calibration *c, struct kvg_err *err)
{
    int rc = KVG_OK;
    for (size_t i = 0; i < c->n_items && c->n < c->cap && !rc; i++) {
        rc = kvg_stop_check(err);
        if (!rc)
            rc = gather_item(c, c->items[i], err);
    }
    if (!rc && c->n < KVG_CALIBRATE_TOKENS_LEAST)
        rc = KVG_FAIL(err, KVG_EUSAGE, "only %zu tokens to calibrate with: give more items", c->n);
    return rc;
}

/* ---- ranges ---- */

/* [lo, hi] of one channel without half the outliers in each tail. */
static void find_range(const struct calibration *c, size_t head, size_t channel, float *tmp)
{
    const float *x = c->rows[KVG_NUQ_K] + head * c->cap * c->d + channel;
    size_t tail = (size_t)((double)c->n * c->cfg->outliers / 2);
    for (size_t j = 0; j < c->n; j++)
        tmp[j] = x[j * c->d];
    c->q.hi[head * c->d + channel] = kvg_select_largest(tmp, c->n, tail + 1);
    c->q.lo[head * c->d + channel] = kvg_select_largest(tmp, c->n, c->n - tail);
}

/* ---- levels: k-means over a histogram of [-1, 1] ---- */

static double bin_middle(size_t bin)
{
    return ((double)bin + 0.5) * 2 / BINS - 1;
}

static void count_value(uint64_t *bins, float x, float lo, float hi)
{
    double t = hi > lo ? ((double)x - (double)lo) / ((double)hi - (double)lo) : 0.5;
    if (t < 0 || t > 1)
        return;
    bins[t < 1 ? (size_t)(t * BINS) : BINS - 1]++;
}

static void count_layer(const struct calibration *c, enum kvg_nuq_side side, size_t layer,
                        uint64_t *bins)
{
    size_t n_kv = c->q.n_kv_heads, d = c->d, room = kvg_nuq_room(c->cfg->outliers, d);
    unsigned char out[512];
    memset(bins, 0, BINS * sizeof *bins);
    for (size_t h = layer * n_kv; h < (layer + 1) * n_kv; h++)
        for (size_t j = 0; j < c->n; j++) {
            const float *x = c->rows[side] + (h * c->cap + j) * d;
            float lo = 0, hi = 0;
            if (side == KVG_NUQ_V)
                kvg_nuq_fit_row(x, d, room, &lo, &hi, out);
            for (size_t ch = 0; ch < d; ch++)
                if (side == KVG_NUQ_K)
                    count_value(bins, x[ch], c->q.lo[h * d + ch], c->q.hi[h * d + ch]);
                else if (!out[ch])
                    count_value(bins, x[ch], lo, hi);
        }
}

/* Centres in the middle of k equal shares of the values. */
static void begin_levels(const uint64_t *bins, size_t k, double *level)
{
    uint64_t total = 0, sum = 0;
    size_t at = 0;
    for (size_t b = 0; b < BINS; b++)
        total += bins[b];
    for (size_t b = 0; b < BINS && at < k; b++) {
        sum += bins[b];
        while (at < k && (double)sum >= ((double)at + 0.5) * (double)total / (double)k)
            level[at++] = bin_middle(b);
    }
}

/* One round of Lloyd's: each centre moves to the mean of the values nearest to it. */
static double move_levels(const uint64_t *bins, size_t k, double *level)
{
    double moved = 0;
    for (size_t i = 0, b = 0; i < k; i++) {
        double end = i + 1 < k ? 0.5 * (level[i] + level[i + 1]) : 1, sum = 0, n = 0;
        for (; b < BINS && bin_middle(b) <= end; b++) {
            sum += (double)bins[b] * bin_middle(b);
            n += (double)bins[b];
        }
        double to = n > 0 ? sum / n : level[i];
        moved = fmax(moved, fabs(to - level[i]));
        level[i] = to;
    }
    return moved;
}

static void find_levels(const uint64_t *bins, unsigned bits, float *out)
{
    double level[1 << KVG_NUQ_BITS_MOST];
    size_t k = (size_t)1 << bits;
    begin_levels(bins, k, level);
    for (size_t r = 0; r < ROUNDS && move_levels(bins, k, level) > 1e-7; r++)
        ;
    for (size_t i = 0; i < k; i++)
        out[i] = (float)level[i];
}

/* ---- one layer after the other, shared out over threads ---- */

struct job {
    struct calibration *c;
    float *tmp;     /* [threads, n] */
    uint64_t *bins; /* [threads, BINS] */
};

static void do_layer(void *arg, size_t layer, int thread)
{
    const struct job *job = arg;
    struct calibration *c = job->c;
    uint64_t *bins = job->bins + (size_t)thread * BINS;
    size_t n_kv = c->q.n_kv_heads;
    for (size_t h = layer * n_kv; h < (layer + 1) * n_kv; h++)
        for (size_t ch = 0; ch < c->d; ch++)
            find_range(c, h, ch, job->tmp + (size_t)thread * c->n);
    for (int side = 0; side < KVG_NUQ_SIDES; side++) {
        count_layer(c, (enum kvg_nuq_side)side, layer, bins);
        for (unsigned b = KVG_NUQ_BITS_LEAST; b <= KVG_NUQ_BITS_MOST; b++)
            find_levels(bins, b, kvg_nuq_levels(&c->q, (enum kvg_nuq_side)side, b, layer));
    }
}

static int compute(struct calibration *c, struct kvg_err *err)
{
    const struct kvg_model *m = c->cfg->model;
    size_t threads = (size_t)kvg_pool_threads(c->cfg->pool);
    c->q = (struct kvg_nuq){.n_layers = m->n_layers,
                            .n_heads = m->n_heads,
                            .n_kv_heads = m->n_kv_heads,
                            .d_head = m->d_head,
                            .n_embd = m->n_embd,
                            .rope_base = (double)m->rope_base,
                            .outliers = c->cfg->outliers};
    memcpy(c->q.model_sha256, c->cfg->model_sha256, sizeof c->q.model_sha256);
    int rc = kvg_nuq_alloc(&c->q, &c->arena, err);
    struct job job = {c, kvg_arena_array(&c->arena, threads * c->n, sizeof *job.tmp),
                      kvg_arena_array(&c->arena, threads * BINS, sizeof *job.bins)};
    if (rc || !job.tmp || !job.bins)
        return rc ? rc : no_memory(err);
    kvg_pool_run(c->cfg->pool, m->n_layers, do_layer, &job);
    return KVG_OK;
}

static void print(const struct calibration *c, struct kvg_str *out)
{
    kvg_nuq_print(&c->q, out);
    kvg_str_addf(out, "# %s: %zu tokens of %zu items of the workload %s (sha256 %s):\n",
                 c->cfg->model->name, c->n, c->n_used, c->workload.name, c->workload.sha256);
    for (size_t i = 0; i < c->n_used; i++)
        kvg_str_addf(out, "# %s\n", c->items[i]->id);
}

static int open_all(struct calibration *c, struct kvg_err *err)
{
    int rc = kvg_workload_open(&c->workload, c->cfg->workload, err);
    c->workload_open = !rc;
    if (!rc)
        rc = choose_items(c, err);
    if (!rc)
        rc = kvg_template_open(&c->chat, &c->cfg->model->gguf, c->cfg->model->tok, err);
    if (rc == KVG_ENONE)
        rc = KVG_FAIL(err, KVG_EUNSUP,
                      "the model '%s' has no chat template, which workloads need: use an instruct "
                      "model",
                      c->cfg->model->name);
    if (!rc)
        rc = alloc_rows(c, err);
    return rc ? rc : open_stream(c, err);
}

int kvg_calibrate_run(const struct kvg_calibrate_cfg *cfg, struct kvg_progress *pr,
                      struct kvg_str *out, struct kvg_err *err)
{
    struct calibration c = {.cfg = cfg, .pr = pr};
    if (!(cfg->outliers >= 0 && cfg->outliers <= 0.5) || cfg->model->d_head > 512)
        return KVG_FAIL(err, KVG_EUSAGE, "the share of outliers is not from 0 to 50 %%");
    kvg_arena_init(&c.arena);
    int rc = open_all(&c, err);
    if (!rc)
        rc = gather(&c, err);
    if (!rc)
        rc = compute(&c, err);
    if (!rc)
        print(&c, out);
    if (!rc && out->failed)
        rc = no_memory(err);
    if (c.stream.store)
        kvg_stream_close(&c.stream);
    if (c.engine)
        kvg_engine_close(c.engine);
    for (size_t s = 0; s < KVG_NUQ_SIDES; s++)
        free(c.rows[s]);
    kvg_template_release(&c.chat);
    if (c.workload_open)
        kvg_workload_close(&c.workload);
    kvg_arena_release(&c.arena);
    return rc;
}
