/* Owns what a stream holds of past queries for its strategies: the last ones before rotation, and
 * the moments of all of them. Billed as state; copied when a conversation forks. Must not know what
 * strategies do with it. */
#include "model/engine_internal.h"

#include <stdlib.h>
#include <string.h>

struct kvg_held {
    size_t n_layers, n_heads, d, group;
    size_t cap;   /* queries held per layer */
    int across;   /* what is shown goes back beyond the present pass */
    size_t from;  /* queries of positions from here on are held, the last `cap` of them */
    float *ring;  /* [n_layers, cap, n_heads, d]; position p lies at p % cap */
    size_t skip, counted_from;
    double *sum;                 /* [n_layers, n_heads, d]; NULL = no moments wanted */
    double *cross;               /* [n_layers, n_heads, d, d], lower triangle */
    float *queries, *mean, *cov; /* what a view shows of one layer */
};

/* Queries that have to be there in a later pass: those asked for across passes, and those that
 * steps due to compress look back at. */
static size_t held_size(const struct kvg_pipeline *p)
{
    size_t n = p->needs.across ? p->needs.queries : 0;
    const struct kvg_inst *in = p->keep;
    if (!in || in->schedule.kind != KVG_SCHED_EVERY)
        return n;
    for (size_t k = 0; k < p->needs.n_obs; k++) {
        size_t w = p->needs.obs[k].window;
        n = kvg_obs_looks_back(&p->needs.obs[k]) && w > n ? w : n;
    }
    return n;
}

static size_t ring_size(const struct kvg_pipeline *p)
{
    size_t n = held_size(p);
    return p->needs.queries > n ? p->needs.queries : n;
}

size_t kvg_stream_held_bytes(const struct kvg_model *m, const struct kvg_pipeline *p)
{
    size_t bytes = 0, rows = m->n_layers * m->n_heads * m->d_head;
    for (size_t i = 0; i < p->n; i++)
        bytes += p->inst[i].s->state_bytes;
    bytes += held_size(p) * rows * sizeof(float);
    if (p->needs.moments && p->needs.across)
        bytes += rows * (1 + m->d_head) * sizeof(double);
    return bytes;
}

static int alloc_parts(struct kvg_held *h, const struct kvg_needs *w)
{
    size_t heads = h->n_layers * h->n_heads, row = h->n_heads * h->d;
    h->ring = calloc(h->cap * h->n_layers * row + 1, sizeof *h->ring);
    h->queries = calloc(w->queries * row + 1, sizeof *h->queries);
    if (!h->ring || !h->queries)
        return -1;
    if (!w->moments)
        return 0;
    h->sum = calloc(heads * h->d, sizeof *h->sum);
    h->cross = calloc(heads * h->d * h->d, sizeof *h->cross);
    h->mean = calloc(row, sizeof *h->mean);
    h->cov = calloc(row * h->d, sizeof *h->cov);
    return h->sum && h->cross && h->mean && h->cov ? 0 : -1;
}

int kvg_held_open(struct kvg_stream *s, const struct kvg_engine *e, struct kvg_err *err)
{
    const struct kvg_model *m = e->cfg.model;
    const struct kvg_needs *w = &s->pipe->needs;
    size_t cap = ring_size(s->pipe);
    if (!cap && !w->moments)
        return 0;
    struct kvg_held *h = s->held = calloc(1, sizeof *h);
    if (!h)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    *h = (struct kvg_held){.n_layers = m->n_layers,
                           .n_heads = m->n_heads,
                           .d = m->d_head,
                           .group = kvg_engine_group(e),
                           .cap = cap,
                           .across = w->across,
                           .skip = w->moments_skip};
    return alloc_parts(h, w) ? KVG_FAIL(err, KVG_ENOMEM, "out of memory for %zu past queries", cap)
                             : 0;
}

void kvg_held_close(struct kvg_stream *s)
{
    struct kvg_held *h = s->held;
    if (!h)
        return;
    free(h->ring);
    free(h->queries);
    free(h->sum);
    free(h->cross);
    free(h->mean);
    free(h->cov);
    free(h);
}

/* Moments begin anew at a position; what lies before it is not counted. */
static void clear_moments(struct kvg_held *h, size_t from)
{
    size_t heads = h->n_layers * h->n_heads;
    h->counted_from = from > h->skip ? from : h->skip;
    if (!h->sum)
        return;
    memset(h->sum, 0, heads * h->d * sizeof *h->sum);
    memset(h->cross, 0, heads * h->d * h->d * sizeof *h->cross);
}

void kvg_held_clear(struct kvg_stream *s)
{
    if (!s->held)
        return;
    s->held->from = 0;
    clear_moments(s->held, 0);
}

void kvg_held_restart(struct kvg_stream *s, size_t start)
{
    if (!s->held)
        return;
    s->held->from = s->held->from < start ? s->held->from : start;
    clear_moments(s->held, start);
}

void kvg_held_copy(struct kvg_stream *dst, const struct kvg_stream *src)
{
    const struct kvg_held *from = src->held;
    struct kvg_held *to = dst->held;
    if (!from)
        return;
    size_t heads = from->n_layers * from->n_heads;
    to->from = from->from;
    to->counted_from = from->counted_from;
    memcpy(to->ring, from->ring, from->cap * heads * from->d * sizeof *to->ring);
    if (!from->sum)
        return;
    memcpy(to->sum, from->sum, heads * from->d * sizeof *to->sum);
    memcpy(to->cross, from->cross, heads * from->d * from->d * sizeof *to->cross);
}

int kvg_held_cut(struct kvg_stream *s, size_t n_tokens)
{
    struct kvg_held *h = s->held;
    if (!h)
        return 1;
    if (h->sum && h->across && n_tokens > 0)
        return 0; /* a sum does not tell what went into it last */
    if (s->n_tokens > h->from + h->cap)
        h->from = s->n_tokens - h->cap;
    h->from = h->from < n_tokens ? h->from : n_tokens;
    if (n_tokens == 0)
        kvg_held_clear(s);
    return 1;
}

/* ---- taking in ---- */

struct moments_job {
    struct kvg_held *h;
    const float *q; /* [n, n_heads * d] */
    size_t layer, n;
};

static void moments_part(void *arg, size_t head, int thread)
{
    const struct moments_job *j = arg;
    const struct kvg_held *h = j->h;
    size_t d = h->d, at = j->layer * h->n_heads + head;
    double *sum = h->sum + at * d, *cross = h->cross + at * d * d;
    (void)thread;
    for (size_t r = 0; r < j->n; r++) {
        const float *q = j->q + (r * h->n_heads + head) * d;
        for (size_t i = 0; i < d; i++) {
            double x = (double)q[i], *row = cross + i * d;
            sum[i] += x;
            for (size_t k = 0; k <= i; k++)
                row[k] += x * (double)q[k];
        }
    }
}

/* Without a past, the moments of a layer begin with every pass. */
static void begin_layer(struct kvg_held *h, const struct kvg_stream *s, size_t layer, size_t pos0)
{
    size_t at = layer * h->n_heads * h->d;
    if (pos0 != s->n_tokens)
        return;
    h->counted_from = pos0 > h->skip ? pos0 : h->skip;
    memset(h->sum + at, 0, h->n_heads * h->d * sizeof *h->sum);
    memset(h->cross + at * h->d, 0, h->n_heads * h->d * h->d * sizeof *h->cross);
}

void kvg_held_push(struct kvg_engine *e, struct kvg_stream *s, size_t layer, const float *q,
                   size_t pos0, size_t n, int decode)
{
    struct kvg_held *h = s->held;
    if (!h)
        return;
    size_t row = h->n_heads * h->d;
    for (size_t i = n > h->cap ? n - h->cap : 0; i < n; i++)
        memcpy(h->ring + (layer * h->cap + (pos0 + i) % h->cap) * row, q + i * row,
               row * sizeof *q);
    if (h->sum && !h->across && decode)
        return;
    if (h->sum && !h->across)
        begin_layer(h, s, layer, pos0);
    if (!h->sum || pos0 + n <= h->counted_from)
        return;
    size_t skipped = pos0 < h->counted_from ? h->counted_from - pos0 : 0;
    struct moments_job j = {.h = h, .q = q + skipped * row, .layer = layer, .n = n - skipped};
    kvg_pool_run(e->cfg.pool, h->n_heads, moments_part, &j);
}

/* ---- showing ---- */

size_t kvg_held_queries(const struct kvg_stream *s, size_t n_logical, size_t most)
{
    const struct kvg_held *h = s->held;
    if (!h)
        return 0;
    size_t n = n_logical > h->from ? n_logical - h->from : 0;
    n = n < h->cap ? n : h->cap;
    return n < most ? n : most;
}

void kvg_held_load(const struct kvg_engine *e, const struct kvg_stream *s, size_t layer,
                   size_t head, size_t n_logical, size_t n, size_t i, float *out)
{
    const struct kvg_held *h = s->held;
    const struct kvg_model *m = e->cfg.model;
    size_t pos = n_logical - n + i, half = h->d / 2, at = pos;
    if (s->pipe->position == KVG_POSITION_SLOT) {
        size_t n_slots = kvg_store_head(s->store, layer, head)->n_slots;
        at = n_slots + i > n ? n_slots + i - n : 0;
    }
    memcpy(out, h->ring + ((layer * h->cap + pos % h->cap) * h->n_heads + head * h->group) * h->d,
           h->group * h->d * sizeof *out);
    for (size_t g = 0; g < h->group; g++)
        e->kern->rope(out + g * h->d, m->rope_cos + at * half, m->rope_sin + at * half, h->d);
}

static void show_queries(const struct kvg_engine *e, const struct kvg_stream *s, struct kvg_view *v)
{
    const struct kvg_held *h = s->held;
    size_t most = s->pipe->needs.queries, here = v->n_logical - (size_t)v->pos0;
    v->n_queries = kvg_held_queries(s, v->n_logical, h->across || here > most ? most : here);
    v->queries = h->queries;
    for (size_t i = 0; i < v->n_queries; i++)
        for (size_t k = 0; k * h->group < h->n_heads; k++)
            kvg_held_load(e, s, v->layer, k, v->n_logical, v->n_queries, i,
                          h->queries + (i * h->n_heads + k * h->group) * h->d);
}

static void show_moments(const struct kvg_stream *s, struct kvg_view *v)
{
    const struct kvg_held *h = s->held;
    size_t d = h->d;
    v->n_moments = v->n_logical > h->counted_from ? v->n_logical - h->counted_from : 0;
    v->q_mean = h->mean;
    v->q_cov = h->cov;
    double n = v->n_moments ? (double)v->n_moments : 1.0;
    for (size_t head = 0; head < h->n_heads; head++) {
        size_t at = v->layer * h->n_heads + head;
        const double *sum = h->sum + at * d, *cross = h->cross + at * d * d;
        float *cov = h->cov + head * d * d;
        for (size_t i = 0; i < d; i++) {
            h->mean[head * d + i] = (float)(sum[i] / n);
            for (size_t k = 0; k <= i; k++)
                cov[i * d + k] = cov[k * d + i] =
                    (float)(cross[i * d + k] / n - sum[i] / n * (sum[k] / n));
        }
    }
}

void kvg_held_view(struct kvg_engine *e, const struct kvg_stream *s, struct kvg_view *v)
{
    if (s->pipe->needs.queries)
        show_queries(e, s, v);
    if (s->pipe->needs.moments)
        show_moments(s, v);
}
