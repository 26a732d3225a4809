/* Owns the search for a budget by bytes. Must not know suites or cells. */
#include "run/equalbytes.h"

#include "base/rng.h"
#include "model/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHARING_TOKENS = 256, GRID = 64 };

struct kvg_equal {
    struct kvg_pipeline pipe;
    struct kvg_budget own; /* as the spec says */
    const struct kvg_model *m;
    struct kvg_store *store;
    struct kvg_plan plan;
    size_t max_tokens;
    float *rows;    /* [max_tokens, n_kv_heads * d_head] */
    float *noise;   /* [n_heads, max_tokens] what attention might have been */
    float *queries; /* [max(needs.queries, 1), n_heads, d_head] */
    float *moments; /* [n_heads, d] and [n_heads, d, d] */
    float *weights; /* [n_embd, n_heads * d] */
    float *scratch, *scratch2, *room;
    size_t *memo;   /* [max_tokens + 1] bytes of a layer that keeps so many slots; 0 = unknown */
    double n_lists; /* different lists of positions in a layer with n_kv_heads; below 1: shared
                       between layers too */
    struct kvg_rng rng;
};

static float *floats(size_t n, int *failed)
{
    float *p = calloc(n + 16, sizeof *p);
    if (!p)
        *failed = 1;
    return p;
}

static int alloc_all(struct kvg_equal *e)
{
    const struct kvg_model *m = e->m;
    size_t n = e->max_tokens, d = m->d_head, heads = m->n_heads, rows = e->pipe.needs.queries;
    int failed = 0;
    e->rows = floats(n * m->n_kv_heads * d, &failed);
    e->noise = floats(heads * n, &failed);
    e->queries = floats((rows ? rows : 1) * heads * d, &failed);
    e->moments = floats(heads * d * (d + 1), &failed);
    e->weights = floats(m->n_embd * heads * d, &failed);
    e->scratch = floats(3 * n + KVG_TILE_SLOTS * d, &failed);
    e->scratch2 = floats(2 * n, &failed);
    e->room = floats(m->n_kv_heads * n, &failed);
    e->memo = calloc(n + 1, sizeof *e->memo);
    return failed || !e->memo ? -1 : 0;
}

static struct kvg_view view_of(struct kvg_equal *e, const struct kvg_text *text, size_t layer)
{
    const struct kvg_model *m = e->m;
    size_t d = m->d_head, n = text->n_tokens;
    struct kvg_view v = {
        .store = e->store,
        .text = text,
        .layer = layer,
        .phase = KVG_PHASE_PROMPT,
        .n_new = n,
        .n_logical = n,
        .position = e->pipe.position,
        .queries = e->queries,
        .n_queries = e->pipe.needs.queries < n ? e->pipe.needs.queries : n,
        .q_mean = e->moments,
        .q_cov = e->moments + m->n_heads * d,
        .n_moments = n,
        .obs_ld = e->max_tokens,
        .wo = {KVG_F32, e->weights, m->n_heads * d * sizeof(float), m->n_embd, m->n_heads * d},
        .rope_cos = m->rope_cos,
        .rope_sin = m->rope_sin,
        .bytes_read = &e->store->count.bytes_read,
        .rng = &e->rng,
        .scratch = e->scratch,
        .scratch2 = e->scratch2,
        .max_slots = e->max_tokens};
    for (size_t i = 0; i < e->pipe.needs.n_obs; i++) {
        v.obs[i] = e->noise;
        v.obs_rows[i] = 1;
    }
    return v;
}

/* A layer of n tokens out of which the strategy chooses (unless nothing goes), upon which n_more
 * come, and which is sealed then. */
static int fill_layer(struct kvg_equal *e, size_t layer, size_t n, size_t n_more, int choose)
{
    size_t width = e->m->n_kv_heads * e->m->d_head;
    const struct kvg_text text = {.n_tokens = n, .question = n / 2};
    struct kvg_view v = view_of(e, &text, layer);
    struct kvg_inst *keep = e->pipe.keep, *encode = e->pipe.encode;
    int rc = 0;
    kvg_store_append(e->store, layer, e->rows, e->rows, width, 0, n);
    for (size_t i = 0; choose && i < e->m->n_heads * e->max_tokens; i++)
        e->noise[i] = (float)kvg_rng_unit(&e->rng);
    if (choose && keep && keep->s->score)
        kvg_pipeline_choose(&e->pipe, &v, e->room, &e->plan);
    else if (choose && keep && keep->s->compress)
        keep->s->compress(keep, &v, &e->plan);
    if (choose)
        rc = kvg_store_apply(e->store, &e->plan, NULL);
    if (!rc && n_more)
        kvg_store_append(e->store, layer, e->rows, e->rows, width, (int32_t)n, n_more);
    if (!rc && encode && encode->s->seal) {
        encode->s->seal(encode, &v, KVG_WHEN_ATTENDED, &e->plan);
        rc = kvg_store_apply(e->store, &e->plan, NULL);
    }
    return rc;
}

/* Heads that keep the same tokens share their positions: 1 = all lists differ, else the share of
 * the lists that stay apart. Strategies with passes of their own are taken to differ. */
static void find_sharing(struct kvg_equal *e)
{
    struct kvg_bytes b;
    const struct kvg_inst *keep = e->pipe.keep;
    size_t n = e->max_tokens < SHARING_TOKENS ? e->max_tokens : SHARING_TOKENS, slots = 0;
    size_t layers = e->m->n_layers < 2 ? e->m->n_layers : 2;
    e->n_lists = 1;
    if (keep && !keep->s->score && !keep->s->compress)
        return;
    if (keep && keep->budget)
        *keep->budget = (struct kvg_budget){KVG_BUDGET_SHARE, 0.5};
    kvg_store_reset(e->store);
    for (size_t l = 0; l < layers; l++) {
        for (size_t i = 0; i < n * e->m->n_kv_heads * e->m->d_head; i++)
            e->rows[i] = (float)kvg_rng_unit(&e->rng) - 0.5f;
        if (fill_layer(e, l, n, 0, 1))
            return;
    }
    kvg_store_bytes(e->store, &b);
    for (size_t h = 0; h < layers * e->m->n_kv_heads; h++)
        slots += e->store->heads[h].n_slots;
    e->n_lists = (double)b.index / (double)(slots * sizeof(int32_t));
    if (layers == 2 && e->n_lists < 0.75 / (double)e->m->n_kv_heads)
        e->n_lists = 1.0 / (double)(e->m->n_kv_heads * e->m->n_layers); /* one list for all */
}

int kvg_equal_open(struct kvg_equal **out, const char *spec, const struct kvg_model *m,
                   size_t max_tokens, struct kvg_arena *a, struct kvg_err *err)
{
    *out = NULL;
    struct kvg_equal *e = calloc(1, sizeof *e);
    if (!e)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    e->m = m;
    e->max_tokens = max_tokens;
    e->rng = (struct kvg_rng){1};
    const struct kvg_dims dims = kvg_model_dims(m);
    int rc = kvg_pipeline_open(&e->pipe, spec, &dims, a, err);
    if (rc) {
        kvg_equal_close(e);
        return rc;
    }
    struct kvg_store_cfg cfg =
        kvg_stream_store_cfg(m, kvg_kernels_get("auto"), &e->pipe, max_tokens);
    size_t heads = m->n_layers * m->n_kv_heads;
    if (alloc_all(e))
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!rc)
        rc = kvg_store_open(&e->store, &cfg, err);
    if (!rc)
        rc = kvg_plan_init(&e->plan, heads * 4 + 16, (heads + 2) * (max_tokens + 1), err);
    if (!rc)
        rc = kvg_stream_add_codecs(&e->pipe, e->store, err);
    if (rc) {
        kvg_equal_close(e);
        return rc;
    }
    if (e->pipe.keep && e->pipe.keep->budget)
        e->own = *e->pipe.keep->budget;
    kvg_pipeline_begin_item(&e->pipe, 1);
    find_sharing(e);
    *out = e;
    return 0;
}

void kvg_equal_close(struct kvg_equal *e)
{
    if (!e)
        return;
    float *all[] = {e->rows,    e->noise,   e->queries,  e->moments,
                    e->weights, e->scratch, e->scratch2, e->room};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(e->memo);
    kvg_store_close(e->store);
    kvg_plan_release(&e->plan);
    free(e);
}

/* K, V and side columns of one layer whose heads keep n_slots each. */
static size_t filled_bytes(struct kvg_equal *e, size_t n_slots)
{
    struct kvg_bytes b;
    if (e->memo[n_slots])
        return e->memo[n_slots];
    kvg_store_reset(e->store);
    fill_layer(e, 0, n_slots, 0, 0);
    kvg_store_bytes(e->store, &b);
    return e->memo[n_slots] = b.payload + b.scales + b.state - e->store->held_bytes;
}

/* 1 when every slot takes the same bytes: no groups, no third form, no rows per page. */
static int is_even(const struct kvg_pipeline *p)
{
    const struct kvg_inst *in = p->encode;
    for (size_t i = 0; i < p->needs.n_side; i++)
        if (p->needs.side_page[i] > 1)
            return 0;
    return !in || (in->k_codec.group <= 1 && in->v_codec.group <= 1 && !in->extra_codec.name[0]);
}

static size_t layer_bytes(struct kvg_equal *e, size_t n_slots)
{
    return is_even(&e->pipe) ? n_slots * filled_bytes(e, 1) : filled_bytes(e, n_slots);
}

static double index_bytes(const struct kvg_equal *e, size_t n_slots, size_t n)
{
    size_t heads = e->m->n_kv_heads;
    double lists = n_slots < n ? e->n_lists : 1.0 / (double)(heads * e->m->n_layers);
    return lists * (double)(n_slots * heads * sizeof(int32_t));
}

/* A wrapper that leaves other counts than it was given is carried out. */
static int recounts(const struct kvg_pipeline *p)
{
    for (size_t i = 0; i < p->n_wraps; i++)
        if (p->wrap[i]->s->recounts)
            return 1;
    return 0;
}

static double carried_out(struct kvg_equal *e, size_t layer, struct kvg_equal_at at)
{
    struct kvg_bytes b;
    kvg_store_reset(e->store);
    fill_layer(e, layer, at.n_tokens, at.n_more, 1);
    kvg_store_bytes(e->store, &b);
    return (double)(b.logical - e->store->held_bytes);
}

double kvg_equal_bytes(struct kvg_equal *e, struct kvg_equal_at at, const struct kvg_budget *budget)
{
    const struct kvg_pipeline *p = &e->pipe;
    size_t layers = e->m->n_layers, before = SIZE_MAX, n = at.n_tokens + at.n_more;
    double sum = (double)kvg_stream_held_bytes(e->m, p), last = 0;
    if (p->keep && p->keep->budget)
        *p->keep->budget = budget ? *budget : e->own;
    for (size_t l = 0; l < layers; l++) {
        size_t slots = kvg_pipeline_keep(p, l, at.n_tokens, at.n_tokens) + at.n_more;
        if (slots != before && recounts(p))
            last = carried_out(e, l, at);
        else if (slots != before)
            last = (double)layer_bytes(e, slots) + index_bytes(e, slots, n);
        before = slots;
        sum += last;
    }
    return sum / (double)n;
}

/* A share that leaves n_keep of n slots, safely so where every head is cut to whole slots. */
static struct kvg_budget share_of(const struct kvg_equal *e, size_t n_keep, size_t n)
{
    double more = e->pipe.keep->s->end_pass ? 1e-6 : 0.5;
    double share = n_keep < n ? ((double)n_keep + more) / (double)n : 1;
    return (struct kvg_budget){KVG_BUDGET_SHARE, share};
}

static double keeping(struct kvg_equal *e, size_t n_keep, struct kvg_equal_at at)
{
    struct kvg_budget b = share_of(e, n_keep, at.n_tokens);
    return kvg_equal_bytes(e, at, &b);
}

/* Bytes need not grow with the budget (a strategy may halve its cache at once): the nearest of a grid
 * of budgets. */
static size_t look_around(struct kvg_equal *e, size_t best, struct kvg_equal_at at, double target)
{
    for (size_t i = 1; i < GRID; i++) {
        size_t n = at.n_tokens * i / GRID;
        if (n > 0 && fabs(keeping(e, n, at) - target) < fabs(keeping(e, best, at) - target))
            best = n;
    }
    return best;
}

int kvg_equal_find(struct kvg_equal *e, struct kvg_equal_at at, double target,
                   struct kvg_budget *budget, struct kvg_err *err)
{
    const struct kvg_inst *keep = e->pipe.keep;
    if (!keep || !keep->budget) {
        double fixed = kvg_equal_bytes(e, at, NULL);
        if (fabs(fixed / target - 1) <= KVG_EQUAL_TOLERANCE)
            return 0;
        return KVG_FAIL(err, KVG_ENONE,
                        "%.0f bytes a token are out of reach: it has no budget to fit; combine "
                        "it with a strategy that evicts",
                        target);
    }
    size_t lo = 1, hi = at.n_tokens;
    double least = keeping(e, lo, at), most = keeping(e, hi, at);
    if (least > target * (1 + KVG_EQUAL_TOLERANCE))
        return KVG_FAIL(err, KVG_ENONE,
                        "%.0f bytes a token are out of reach: one slot a head takes more", target);
    if (most < target * (1 - KVG_EQUAL_TOLERANCE))
        return KVG_FAIL(err, KVG_ENONE,
                        "%.0f bytes a token are out of reach: everything takes less", target);
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (keeping(e, mid, at) <= target)
            lo = mid;
        else
            hi = mid;
    }
    size_t best = fabs(keeping(e, lo, at) - target) <= fabs(keeping(e, hi, at) - target) ? lo : hi;
    if (!(fabs(keeping(e, best, at) / target - 1) <= 5 * KVG_EQUAL_TOLERANCE))
        best = look_around(e, best, at, target);
    *budget = share_of(e, best, at.n_tokens);
    return 0;
}
