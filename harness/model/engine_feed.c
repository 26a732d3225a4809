/* Owns what is fed to whom: sharing of prompts, chunks, lockstep steps, recomputation. The pass
 * itself is in engine_pass.c. */
#include "model/engine_internal.h"

#include <string.h>

/* How many tokens are fed again with n new ones once the cache is thrown away, or
 * KVG_RECOMPUTE_NOTHING when it stays. */
static size_t fed_again(const struct kvg_stream *s, size_t n)
{
    for (size_t i = 0; i < s->pipe->n && !s->bare; i++)
        if (s->pipe->inst[i].s->recompute)
            return s->pipe->inst[i].s->recompute(&s->pipe->inst[i], s->n_tokens, n);
    return KVG_RECOMPUTE_NOTHING;
}

static int check_room(const struct kvg_engine *e, const struct kvg_stream *s, size_t n,
                      struct kvg_err *err)
{
    if (n == 0)
        return KVG_FAIL(err, KVG_EUSAGE, "a prompt needs at least one token");
    if (s->n_tokens + n > e->cfg.max_tokens)
        return KVG_FAIL(err, KVG_ELIMIT, "context full: %zu tokens and %zu more do not fit in %zu",
                        s->n_tokens, n, e->cfg.max_tokens);
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

/* Every stream's text holds the new tokens while they go through; on failure they are gone again.
 */
static int run_pass(struct kvg_engine *e, struct kvg_pass *p, struct kvg_err *err)
{
    int decode = p->phase == KVG_PHASE_DECODE;
    for (size_t i = 0; i < p->n_streams; i++) {
        struct kvg_stream *s = p->streams[i];
        memmove(s->tokens + s->n_tokens, p->tokens + (decode ? i : 0), p->n * sizeof *s->tokens);
        s->text.n_tokens = s->n_tokens + p->n;
    }
    int rc = kvg_pass_run(e, p, err);
    for (size_t i = 0; i < p->n_streams; i++) {
        struct kvg_stream *s = p->streams[i];
        s->n_tokens += rc ? 0 : p->n;
        s->text.n_tokens = s->n_tokens;
    }
    return rc;
}

/* Nothing of the cache stays: the last tokens and n new ones go through one pass of one stream, at
 * their own positions. */
static int feed_again(struct kvg_engine *e, struct kvg_stream *s, size_t again,
                      const int32_t *tokens, size_t n, int compress, const uint32_t *want,
                      size_t n_want, float *hidden, struct kvg_err *err)
{
    size_t start = s->n_tokens - again;
    for (size_t i = 0; i < n_want; i++)
        e->want[i] = want[i] + (uint32_t)again;
    memcpy(e->feed + again, tokens, n * sizeof *e->feed);
    memcpy(e->feed, s->tokens + start, again * sizeof *e->feed);
    kvg_stream_throw_cache(s);
    kvg_held_restart(s, start);
    s->store->count.n_recomputed += again;
    s->n_tokens = start;
    struct kvg_pass p = {.streams = &s,
                         .n_streams = 1,
                         .tokens = e->feed,
                         .n = again + n,
                         .phase = KVG_PHASE_PROMPT,
                         .compress = compress,
                         .want = e->want,
                         .n_want = n_want,
                         .hidden = hidden};
    return run_pass(e, &p, err);
}

static int wants_auxiliary(const struct kvg_pass *p)
{
    const struct kvg_stream *s = p->streams[0];
    return !s->bare && s->pipe->keep && s->pipe->keep->s->auxiliary && kvg_call_due(p, s);
}

/* Passes on top of the cache: what they leave is what the strategy observed. */
static int feed_auxiliary(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err)
{
    struct kvg_inst *in = s->pipe->keep;
    uint64_t t0 = kvg_engine_now(e);
    struct kvg_times before = e->times;
    int rc = 0;
    for (size_t i = 0; !rc; i++) {
        size_t n = in->s->auxiliary(in, &s->text, i, e->feed, e->cfg.max_tokens - s->n_tokens);
        if (n == 0)
            break;
        if (s->n_tokens + n > e->cfg.max_tokens)
            return KVG_FAIL(err, KVG_ELIMIT,
                            "strategy '%s': an auxiliary pass of %zu tokens on top of %zu does not "
                            "fit in %zu; use a shorter prompt",
                            in->s->name, n, s->n_tokens, e->cfg.max_tokens);
        struct kvg_pass p = {
            .streams = &s, .n_streams = 1, .tokens = e->feed, .n = n, .phase = KVG_PHASE_AUX};
        rc = check_tokens(e, e->feed, n, err);
        if (!rc)
            rc = kvg_pass_run(e, &p, err);
        kvg_store_truncate(s->store, (int32_t)s->n_tokens);
        s->store->count.n_recomputed += n;
    }
    e->times = before;
    e->times.observe += kvg_engine_now(e) - t0;
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
    if (n_streams > 1 || !wants_auxiliary(&p))
        return run_pass(e, &p, err);
    p.postponed = 1;
    int rc = run_pass(e, &p, err);
    if (!rc)
        rc = feed_auxiliary(e, streams[0], err);
    p.postponed = 0;
    p.fed = 1;
    return rc ? rc : kvg_call_settle(e, &p, err);
}

int kvg_feed_prompt(struct kvg_engine *e, struct kvg_stream *s, const int32_t *tokens, size_t n,
                    int last_in_turn, const uint32_t *want, size_t n_want, float *hidden,
                    struct kvg_err *err)
{
    size_t w = e->cfg.model->n_embd, at = 0;
    size_t chunk = s->pipe->keep ? (size_t)s->pipe->keep->prefill_chunk : 0;
    size_t again = fed_again(s, n);
    if (again != KVG_RECOMPUTE_NOTHING)
        return feed_again(e, s, again, tokens, n, last_in_turn, want, n_want, hidden, err);
    if (!chunk || chunk >= n)
        return prompt_pass(e, &s, 1, tokens, n, last_in_turn, want, n_want, hidden, err);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i += chunk) {
        size_t m = n - i < chunk ? n - i : chunk, k = 0;
        for (; at + k < n_want && want[at + k] < i + m; k++)
            e->want[k] = want[at + k] - (uint32_t)i;
        rc = prompt_pass(e, &s, 1, tokens + i, m, 1, e->want, k, hidden ? hidden + at * w : NULL,
                         err);
        at += k;
    }
    return rc;
}

/* Streams that begin together with exact prompts go through one computation. */
static int can_share(const struct kvg_stream *s)
{
    const struct kvg_inst *keep = s->pipe->keep;
    return s->n_tokens == 0 && !(keep && (keep->prefill_chunk || keep->s->auxiliary)) &&
           !(s->pipe->encode && s->pipe->encode->prefill_stored);
}

/* Streams that share a pass look at so many different things only. */
static int can_join(struct kvg_engine *e, struct kvg_stream **streams, size_t n, size_t n_tokens,
                    int compress)
{
    struct kvg_pass p = {.streams = streams,
                         .n_streams = n,
                         .n = n_tokens,
                         .phase = KVG_PHASE_PROMPT,
                         .compress = compress};
    return kvg_observe_collect(e, &p) <= KVG_STATS_MAX;
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
        shared[n_shared] = streams[i];
        if (can_share(streams[i]) && can_join(e, shared, n_shared + 1, n, last_in_turn))
            first = n_shared++ ? first : i;
    }
    if (!rc && n_shared > 1)
        rc = prompt_pass(e, shared, n_shared, tokens, n, last_in_turn, want, n_want, NULL, err);
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
        rc = kvg_feed_prompt(e, streams[i], tokens, n, last_in_turn, want, n_want, out, err);
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
        size_t again = fed_again(streams[i], 1);
        if (again != KVG_RECOMPUTE_NOTHING) {
            rc = feed_again(e, streams[i], again, &tokens[i], 1, 0, first_row, 1, hidden + i * w,
                            err);
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
        rc = run_pass(e, &p, err);
        for (size_t i = 0; i < n && !rc; i++) {
            if (out != hidden)
                memcpy(hidden + at[i] * w, out + i * w, w * sizeof *out);
            together[i]->n_decode_steps++;
        }
    }
    e->times.total = kvg_engine_now(e) - t0;
    return rc;
}

int kvg_engine_end_turn(struct kvg_engine *e, struct kvg_stream *s, struct kvg_err *err)
{
    int rc = kvg_call_end_turn(e, s, err);
    s->turn++;
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
