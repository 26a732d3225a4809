/* Owns the text formats of kept sets and logits. Must not know workloads. */
#include "run/inspect.h"

#include "model/engine.h"
#include "run/drift.h"
#include "run/prompt.h"
#include "run/stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_FIXED = 32, FIXED_FIRST = 7, FIXED_STEP = 1536, N_TOP = 64 };

/* ---- text ---- */

struct inspector {
    const struct kvg_inspect *in;
    struct kvg_arena arena;
    struct kvg_pipeline pipe;
    struct kvg_engine *engine;
    struct kvg_stream stream;
    int stream_open;
    size_t n_positions; /* of a mask */
    float *hidden, *logits;
    int32_t *positions;
    unsigned char *mask;
    /* the exact cache beside it, when drift is wanted */
    struct kvg_pipeline exact_pipe;
    struct kvg_stream exact;
    struct kvg_drift_base base;
    struct kvg_drift sum, most;
    size_t n_same, n_steps;
};

static void add_header(const struct inspector *x, struct kvg_str *out)
{
    const struct kvg_model *m = x->in->model;
    const char *slash = strrchr(m->path, '/');
    kvg_str_addf(out, "# model: %s\n# model_sha256: %s\n# versions: kvgauge=%s\n",
                 slash ? slash + 1 : m->path, x->in->model_sha256, KVG_VERSION);
    kvg_str_addf(out, "# dtype: float32 (kernels %s)\n# strategy: %s\n# spec: %s\n",
                 x->in->kernels->name, x->pipe.label, x->pipe.resolved);
}

/* Whether the pipeline leaves channels of K out: then the masks are those of channels. */
static int shows_channels(const struct inspector *x)
{
    return x->pipe.encode && x->pipe.encode->k_codec.masked;
}

/* The positions that a head holds, as bits of x->mask; how many. */
static size_t mark_positions(struct inspector *x, size_t l, size_t h)
{
    const struct kvg_store *s = x->stream.store;
    size_t n = kvg_store_head(s, l, h)->n_slots;
    kvg_store_positions(s, l, h, x->positions);
    for (size_t i = 0; i < n; i++)
        x->mask[x->positions[i] / 8] |= (unsigned char)(1u << x->positions[i] % 8);
    return n;
}

/* The channels of K that a head's first group holds; all when nothing is encoded yet. */
static size_t mark_channels(struct inspector *x, size_t l, size_t h)
{
    const struct kvg_store *s = x->stream.store;
    const struct kvg_list *k = &kvg_store_head(s, l, h)->cols[KVG_COL_K];
    size_t d = s->cfg.d_head, n = 0;
    const uint32_t *mask =
        k->n_segs && s->codecs[k->segs[0].codec].masked ? kvg_codec_mask(k->segs[0].b->data) : NULL;
    for (size_t c = 0; c < d; c++) {
        unsigned stays = mask ? mask[c / 32] >> c % 32 & 1 : 1;
        x->mask[c / 8] |= (unsigned char)(stays << c % 8);
        n += stays;
    }
    return n;
}

static void add_kept_header(const struct inspector *x)
{
    struct kvg_str *out = x->in->kept;
    add_header(x, out);
    kvg_str_addf(out,
                 "# n_positions: %zu\n# columns: %slayer head count hexmask(%sbit i%%8 of byte "
                 "i/8, LSB first)%s\n",
                 x->n_positions, x->in->n_kept_at ? "step " : "",
                 shows_channels(x) ? "channels of K; " : "",
                 x->in->n_kept_at ? ", state after that step" : "");
}

static void add_kept(struct inspector *x, size_t step)
{
    struct kvg_str *out = x->in->kept;
    size_t n_bytes = (x->n_positions + 7) / 8;
    const struct kvg_store *s = x->stream.store;
    for (size_t l = 0; l < s->cfg.n_layers; l++)
        for (size_t h = 0; h < s->cfg.n_kv_heads; h++) {
            memset(x->mask, 0, n_bytes);
            size_t n = shows_channels(x) ? mark_channels(x, l, h) : mark_positions(x, l, h);
            if (x->in->n_kept_at)
                kvg_str_addf(out, "%zu\t", step);
            kvg_str_addf(out, "%zu\t%zu\t%zu\t", l, h, n);
            for (size_t i = 0; i < n_bytes; i++)
                kvg_str_addf(out, "%02x", x->mask[i]);
            kvg_str_addc(out, '\n');
        }
}

static size_t n_fixed(size_t n_vocab)
{
    size_t n = n_vocab > FIXED_FIRST ? (n_vocab - FIXED_FIRST - 1) / FIXED_STEP + 1 : 0;
    return n < N_FIXED ? n : N_FIXED;
}

static void add_logits_header(const struct inspector *x)
{
    struct kvg_str *out = x->in->logits;
    size_t n = n_fixed(x->in->model->n_vocab);
    add_header(x, out);
    kvg_str_addf(out,
                 "# columns: t pos token target logsumexp target_logit fixed[%zu] (id logit)x%d\n"
                 "# fixed_ids: ",
                 n, N_TOP);
    for (size_t i = 0; i < n; i++)
        kvg_str_addf(out, "%s%zu", i ? "," : "", FIXED_FIRST + FIXED_STEP * i);
    kvg_str_addf(out, "\n# prompt_len: %zu\n# first_continuation_position: %zu\n", x->in->n_tokens,
                 x->in->n_tokens);
}

static double log_sum_exp(const float *z, size_t n)
{
    double max = z[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        max = z[i] > max ? z[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i] - max);
    return max + log(sum);
}

/* The N_TOP largest, largest first, ties by lower id. */
static size_t find_top(const float *z, size_t n, size_t *top)
{
    size_t n_top = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = n_top;
        if (n_top == N_TOP && !(z[i] > z[top[N_TOP - 1]]))
            continue;
        if (n_top < N_TOP)
            n_top++;
        else
            at = N_TOP - 1;
        for (; at && z[i] > z[top[at - 1]]; at--)
            top[at] = top[at - 1];
        top[at] = i;
    }
    return n_top;
}

static void add_logits(struct inspector *x, size_t t)
{
    struct kvg_str *out = x->in->logits;
    size_t n_vocab = x->in->model->n_vocab, top[N_TOP];
    int32_t token = x->in->force[t], target = x->in->force[t + 1];
    const float *z = x->logits;
    kvg_str_addf(out, "%zu\t%zu\t%d\t%d\t%.9g\t%.9g", t, x->in->n_tokens + t, token, target,
                 log_sum_exp(z, n_vocab), (double)z[target]);
    for (size_t i = 0; i < n_fixed(n_vocab); i++)
        kvg_str_addf(out, "\t%.9g", (double)z[FIXED_FIRST + FIXED_STEP * i]);
    size_t n_top = find_top(z, n_vocab, top);
    for (size_t i = 0; i < n_top; i++)
        kvg_str_addf(out, "\t%zu\t%.9g", top[i], (double)z[top[i]]);
    kvg_str_addc(out, '\n');
}

/* ---- the stream ---- */

static int open_exact(struct inspector *x, const struct kvg_dims *dims, struct kvg_err *err)
{
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n), *floor = NULL;
    for (size_t i = 0; i < n && !floor; i++)
        floor = all[i]->role == KVG_ROLE_FLOOR ? all[i] : NULL;
    int rc = floor ? kvg_pipeline_open(&x->exact_pipe, floor->name, dims, &x->arena, err)
                   : KVG_FAIL(err, KVG_ECHECK, "no strategy has the role of a floor");
    if (!rc)
        rc = kvg_stream_open(&x->exact, x->engine, &x->exact_pipe, err);
    return rc ? rc : kvg_drift_base_init(&x->base, x->in->model->n_vocab, err);
}

static int open_all(struct inspector *x, size_t n_steps, struct kvg_err *err)
{
    const struct kvg_inspect *in = x->in;
    const struct kvg_model *m = in->model;
    size_t n = in->n_tokens + n_steps;
    if (n > m->n_ctx)
        return KVG_FAIL(err, KVG_ELIMIT, "context: needs %zu tokens, the model has %zu", n,
                        m->n_ctx);
    const struct kvg_dims dims = kvg_model_dims(m);
    int rc = kvg_pipeline_open(&x->pipe, in->spec, &dims, &x->arena, err);
    if (rc)
        return rc;
    if (x->pipe.needs.spans && !in->n_spans)
        return KVG_FAIL(err, KVG_EUSAGE, "'%s' needs marked spans: give --spans FILE", in->spec);
    if (x->pipe.needs.future && !n_steps)
        return KVG_FAIL(err, KVG_EUSAGE, "'%s' looks at what follows: give --force FILE", in->spec);
    if (in->drift && !n_steps)
        return KVG_FAIL(err, KVG_EUSAGE, "--drift needs at least two forced tokens");
    const struct kvg_engine_cfg cfg = {.model = m,
                                       .kernels = in->kernels,
                                       .pool = in->pool,
                                       .max_tokens = kvg_stream_room(&x->pipe, n),
                                       .max_streams = 2};
    rc = kvg_engine_open(&x->engine, &cfg, err);
    if (!rc)
        rc = kvg_stream_open(&x->stream, x->engine, &x->pipe, err);
    if (rc)
        return rc;
    x->stream_open = 1;
    kvg_stream_reset(&x->stream, in->seed);
    x->stream.text.spans = in->spans;
    x->stream.text.n_spans = in->n_spans;
    x->stream.text.question = in->question;
    kvg_prompt_set_future(&x->stream, in->force, in->n_force);
    x->n_positions = shows_channels(x) ? m->d_head : in->n_kept_at ? n : in->n_tokens;
    x->hidden = kvg_arena_array(&x->arena, 2 * m->n_embd, sizeof *x->hidden);
    x->logits = kvg_arena_array(&x->arena, 2 * m->n_vocab, sizeof *x->logits);
    x->positions = kvg_arena_array(&x->arena, n, sizeof *x->positions);
    x->mask = kvg_arena_alloc(&x->arena, (n + m->d_head) / 8 + 1);
    if (!x->hidden || !x->logits || !x->positions || !x->mask)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    return in->drift ? open_exact(x, &dims, err) : 0;
}

static int add_drift(struct inspector *x, int32_t target, struct kvg_err *err)
{
    struct kvg_drift d;
    int rc = kvg_drift_base_set(&x->base, x->logits + x->in->model->n_vocab, err);
    if (!rc)
        rc = kvg_drift_measure(&x->base, x->logits, target, &d, err);
    if (rc)
        return rc;
    x->n_steps++;
    x->n_same += d.top1 != 0;
    x->sum.kl += d.kl;
    x->sum.nll_base += d.nll_base;
    x->sum.nll += d.nll;
    x->most.kl = fmax(x->most.kl, d.kl);
    x->most.max_dlogit = fmax(x->most.max_dlogit, d.max_dlogit);
    return 0;
}

static void print_drift(const struct inspector *x)
{
    double n = (double)x->n_steps;
    kvg_str_add(x->in->drift,
                "strategy\tn\tmean_kl\tmax_kl\ttop1\tnll_full\tnll\tdnll\tmax_dlogit\n");
    kvg_str_addf(x->in->drift, "%s\t%zu\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\n", x->pipe.label,
                 x->n_steps, x->sum.kl / n, x->most.kl, (double)x->n_same / n, x->sum.nll_base / n,
                 x->sum.nll / n, (x->sum.nll - x->sum.nll_base) / n, x->most.max_dlogit);
}

static int step_through(struct inspector *x, size_t n_steps, struct kvg_err *err)
{
    const struct kvg_inspect *in = x->in;
    struct kvg_stream *both[2] = {&x->stream, &x->exact};
    size_t at = in->n_kept_at && in->kept_at[0] == 0, n = in->drift ? 2 : 1;
    int rc = kvg_engine_prompt(x->engine, both, n, in->tokens, in->n_tokens, 1, NULL, 0, NULL, err);
    if (!rc && in->kept && (at || !in->n_kept_at))
        add_kept(x, 0);
    for (size_t t = 0; t < n_steps && !rc; t++) {
        int32_t tokens[2] = {in->force[t], in->force[t]};
        kvg_prompt_set_future(&x->stream, in->force + t + 1, in->n_force - t - 1);
        rc = kvg_engine_step(x->engine, both, n, tokens, x->hidden, err);
        if (!rc)
            rc = kvg_stop_check(err);
        if (rc)
            return rc;
        if (in->logits || in->drift)
            kvg_engine_logits(x->engine, x->hidden, n, x->logits);
        if (in->logits)
            add_logits(x, t);
        if (in->drift)
            rc = add_drift(x, in->force[t + 1], err);
        if (in->kept && at < in->n_kept_at && in->kept_at[at] == t + 1) {
            add_kept(x, t + 1);
            at++;
        }
    }
    return rc;
}

int kvg_inspect_run(const struct kvg_inspect *in, struct kvg_err *err)
{
    struct inspector x = {.in = in};
    size_t n_steps = in->n_force ? in->n_force - 1 : 0;
    kvg_arena_init(&x.arena);
    int rc = open_all(&x, n_steps, err);
    if (rc)
        goto out;
    if (in->kept)
        add_kept_header(&x);
    if (in->logits)
        add_logits_header(&x);
    rc = step_through(&x, n_steps, err);
    if (!rc && ((in->kept && in->kept->failed) || (in->logits && in->logits->failed)))
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!rc && in->drift)
        print_drift(&x);
out:
    kvg_drift_base_release(&x.base);
    if (x.exact.store)
        kvg_stream_close(&x.exact);
    if (x.stream_open)
        kvg_stream_close(&x.stream);
    if (x.engine)
        kvg_engine_close(x.engine);
    kvg_arena_release(&x.arena);
    return rc;
}
