/* Owns the texts with facts and the asking. Must not know how results are printed. */
#include "run/recall.h"

#include "base/hash.h"
#include "model/engine.h"
#include "model/induction.h"
#include "result/recall.h"
#include "run/drift.h"
#include "run/stop.h"

#include <string.h>

enum query { QUERY_UNSEEN, QUERY_SEEN }; /* in the order of kvg_recall_queries */

struct fact {
    int32_t key, value;
    size_t pos;
    size_t place; /* in the order of asking */
};

/* One strategy of a group. */
struct arm {
    const char *spec;
    struct kvg_arena arena;
    struct kvg_pipeline pipe;
    struct kvg_stream stream;
    const char *reason; /* not run; NULL = it is */
    int32_t got[KVG_RECALL_FACTS_MAX];
    double nll[KVG_RECALL_FACTS_MAX];
    double kept;
    size_t logical_bytes;
};

struct recall {
    const struct kvg_recall_cfg *cfg;
    struct kvg_progress *pr;
    kvg_recall_fn fn;
    void *arg;
    struct kvg_arena arena;
    struct kvg_model *model;
    struct kvg_engine *engine;
    struct kvg_dims dims;
    struct kvg_drift_base base;
    struct kvg_drift_base *drift; /* NULL until its room is there */
    struct arm *arms;             /* [KVG_RECALL_GROUP] */
    size_t n_arms;
    /* the present text */
    size_t length, n_prompt;
    int32_t *prompt; /* [longest + facts] */
    struct fact facts[KVG_RECALL_FACTS_MAX];
    int32_t asks[KVG_RECALL_FACTS_MAX]; /* in the order of asking */
    float *hidden, *logits; /* [KVG_RECALL_GROUP, n_embd], [KVG_RECALL_GROUP, n_vocab] */
};

int kvg_recall_check(const size_t *lengths, size_t n_lengths, size_t n_facts, struct kvg_err *err)
{
    if (n_facts < 1 || n_facts > KVG_RECALL_FACTS_MAX)
        return KVG_FAIL(err, KVG_EUSAGE, "recall: %zu facts: give 1 to %d", n_facts,
                        KVG_RECALL_FACTS_MAX);
    if (n_lengths == 0)
        return KVG_FAIL(err, KVG_EUSAGE, "recall: no length given");
    for (size_t i = 0; i < n_lengths; i++)
        if (lengths[i] < 1 + 3 * n_facts || lengths[i] > KVG_RECALL_LENGTH_MAX)
            return KVG_FAIL(err, KVG_EUSAGE,
                            "recall: a text of %zu tokens: %zu facts need %zu, and %d are the most",
                            lengths[i], n_facts, 1 + 3 * n_facts, KVG_RECALL_LENGTH_MAX);
    return KVG_OK;
}

/* ---- the text ---- */

/* Every stratum of the text has one pair at a random place, the rest is filler; keys, values and
 * filler are disjoint words. */
static void make_text(struct recall *r, size_t length)
{
    struct kvg_rng rng = {kvg_rng_split(r->cfg->seed, length)};
    uint32_t words[KVG_INDUCTION_WORDS], order[KVG_RECALL_FACTS_MAX];
    size_t n = r->cfg->n_facts, filler = KVG_INDUCTION_WORDS - 2 * n;
    for (size_t i = 0; i < KVG_INDUCTION_WORDS; i++)
        words[i] = (uint32_t)i;
    kvg_rng_shuffle(&rng, words, KVG_INDUCTION_WORDS);
    r->length = length;
    r->prompt[0] = KVG_INDUCTION_BEGIN;
    for (size_t i = 1; i < length; i++)
        r->prompt[i] = (int32_t)words[2 * n + kvg_rng_below(&rng, filler)];
    for (size_t i = 0; i < n; i++) {
        size_t from = 1 + i * (length - 1) / n, to = 1 + (i + 1) * (length - 1) / n;
        struct fact *f = &r->facts[i];
        f->key = (int32_t)words[i];
        f->value = (int32_t)words[n + i];
        f->pos = from + (size_t)kvg_rng_below(&rng, to - from - 1);
        r->prompt[f->pos] = f->key;
        r->prompt[f->pos + 1] = f->value;
        order[i] = (uint32_t)i;
    }
    kvg_rng_shuffle(&rng, order, n);
    for (size_t i = 0; i < n; i++) {
        r->facts[order[i]].place = i;
        r->asks[i] = r->prompt[length + i] = kvg_induction_ask(r->facts[order[i]].key);
    }
}

/* ---- asking ---- */

static int open_arm(struct recall *r, struct arm *a, const char *spec, struct kvg_err *err)
{
    struct kvg_err cause = {0};
    memset(a, 0, sizeof *a);
    a->spec = spec;
    kvg_arena_init(&a->arena);
    int rc = kvg_pipeline_open(&a->pipe, spec, &r->dims, &a->arena, &cause);
    if (rc == KVG_EUSAGE && r->cfg->skip_unfit) {
        a->reason = kvg_arena_strdup(&a->arena, cause.msg);
        return a->reason ? KVG_OK : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    }
    if (rc) {
        if (err)
            *err = cause;
        return rc;
    }
    if (a->pipe.needs.spans) {
        a->reason = "needs labelled spans, which these texts do not have";
        return KVG_OK;
    }
    return kvg_stream_open(&a->stream, r->engine, &a->pipe, err);
}

static void close_arms(struct recall *r)
{
    for (size_t i = 0; i < r->n_arms; i++) {
        if (r->arms[i].stream.store)
            kvg_stream_close(&r->arms[i].stream);
        kvg_arena_release(&r->arms[i].arena);
    }
    r->n_arms = 0;
}

static void look_at_store(struct arm *a)
{
    const struct kvg_store *s = a->stream.store;
    size_t heads = s->cfg.n_layers * s->cfg.n_kv_heads, slots = 0;
    struct kvg_bytes bytes;
    for (size_t h = 0; h < heads; h++)
        slots += s->heads[h].n_slots;
    kvg_store_bytes(s, &bytes);
    a->kept = (double)slots / (double)heads;
    a->logical_bytes = bytes.logical;
}

/* Answers of all streams to question `k`, out of their rows of logits. */
static int take_answers(struct recall *r, struct arm **arms, size_t n, size_t k,
                        struct kvg_err *err)
{
    size_t fact = 0;
    int rc = KVG_OK;
    while (r->facts[fact].place != k)
        fact++;
    kvg_engine_logits(r->engine, r->hidden, n, r->logits);
    for (size_t i = 0; i < n && !rc; i++) {
        struct kvg_drift d;
        rc = kvg_drift_base_set(r->drift, r->logits + i * r->model->n_vocab, err);
        if (!rc)
            rc = kvg_drift_measure(r->drift, r->drift->z, r->facts[fact].value, &d, err);
        arms[i]->got[fact] = rc ? 0 : d.token;
        arms[i]->nll[fact] = rc ? 0 : d.nll;
    }
    return rc;
}

/* The text goes in as a prompt, with all questions behind it or without, then every question is one
 * step. */
static int ask(struct recall *r, enum query query, struct arm **arms, size_t n, struct kvg_err *err)
{
    struct kvg_stream *streams[KVG_RECALL_GROUP];
    size_t n_facts = r->cfg->n_facts;
    for (size_t i = 0; i < n; i++) {
        struct kvg_stream *s = streams[i] = &arms[i]->stream;
        uint64_t name = kvg_hash_fnv_str(KVG_FNV_INIT, arms[i]->spec);
        kvg_stream_reset(s, kvg_rng_split(r->cfg->seed, name ^ r->length));
        s->text.question = r->length;
        s->text.future = r->asks;
        s->text.n_future = n_facts;
    }
    size_t n_prompt = r->length + (query == QUERY_SEEN ? n_facts : 0);
    int rc = kvg_engine_prompt(r->engine, streams, n, r->prompt, n_prompt, 1, NULL, 0, NULL, err);
    if (r->pr)
        kvg_progress_tokens(r->pr, n * n_prompt, -1);
    for (size_t i = 0; i < n && !rc; i++)
        look_at_store(arms[i]);
    for (size_t k = 0; k < n_facts && !rc; k++) {
        int32_t tokens[KVG_RECALL_GROUP];
        for (size_t i = 0; i < n; i++) {
            tokens[i] = r->asks[k];
            streams[i]->text.future = r->asks + k + 1;
            streams[i]->text.n_future = n_facts - k - 1;
        }
        rc = kvg_stop_check(err);
        if (!rc)
            rc = kvg_engine_step(r->engine, streams, n, tokens, r->hidden, err);
        if (!rc)
            rc = take_answers(r, arms, n, k, err);
    }
    return rc;
}

/* ---- rows ---- */

static void put_identity(const struct recall *r, const struct arm *a, enum query query,
                         struct kvg_row *row)
{
    kvg_row_init(row, &kvg_table_recall);
    kvg_row_set_str(row, KVG_RECALL_strategy, a->spec);
    kvg_row_set_str(row, KVG_RECALL_query, kvg_recall_queries[query]);
    kvg_row_set_u64(row, KVG_RECALL_length, r->length);
    kvg_row_set_str(row, KVG_RECALL_status, a->reason ? "skipped" : "ok");
    kvg_row_set_str(row, KVG_RECALL_reason, a->reason);
    if (!a->pipe.resolved)
        return;
    kvg_row_set_str(row, KVG_RECALL_spec, a->pipe.resolved);
    kvg_row_set_str(row, KVG_RECALL_role, kvg_role_name(a->pipe.role));
}

static int put_rows(struct recall *r, const struct arm *a, enum query query, struct kvg_err *err)
{
    struct kvg_row row;
    int rc = KVG_OK;
    put_identity(r, a, query, &row);
    if (a->reason)
        return r->fn(r->arg, &row, err);
    kvg_row_set_f64(&row, KVG_RECALL_kept_tokens_mean, a->kept);
    kvg_row_set_u64(&row, KVG_RECALL_logical_bytes, a->logical_bytes);
    for (size_t i = 0; i < r->cfg->n_facts && !rc; i++) {
        const struct fact *f = &r->facts[i];
        kvg_row_set_u64(&row, KVG_RECALL_fact, i);
        kvg_row_set_u64(&row, KVG_RECALL_pos, f->pos);
        kvg_row_set_u64(&row, KVG_RECALL_key, (uint64_t)f->key);
        kvg_row_set_u64(&row, KVG_RECALL_expected, (uint64_t)f->value);
        kvg_row_set_u64(&row, KVG_RECALL_got, (uint64_t)a->got[i]);
        kvg_row_set_u64(&row, KVG_RECALL_recalled, a->got[i] == f->value);
        kvg_row_set_f64(&row, KVG_RECALL_nll, a->nll[i]);
        rc = r->fn(r->arg, &row, err);
    }
    return rc;
}

static int run_query(struct recall *r, enum query query, struct kvg_err *err)
{
    struct arm *arms[KVG_RECALL_GROUP];
    size_t n = 0;
    for (size_t i = 0; i < r->n_arms; i++)
        if (!r->arms[i].reason)
            arms[n++] = &r->arms[i];
    int rc = n ? ask(r, query, arms, n, err) : KVG_OK;
    for (size_t i = 0; i < r->n_arms && !rc; i++)
        rc = put_rows(r, &r->arms[i], query, err);
    return rc;
}

static int run_group(struct recall *r, size_t first, struct kvg_err *err)
{
    const struct kvg_recall_cfg *c = r->cfg;
    int rc = KVG_OK;
    for (size_t i = first; i < c->n_specs && i < first + KVG_RECALL_GROUP && !rc; i++)
        rc = open_arm(r, &r->arms[r->n_arms++], c->specs[i], err);
    for (size_t k = 0; k < c->n_lengths && !rc; k++) {
        make_text(r, c->lengths[k]);
        for (int q = 0; q < KVG_RECALL_QUERIES && !rc; q++)
            rc = run_query(r, (enum query)q, err);
    }
    close_arms(r);
    return rc;
}

/* Room for a text that is fed twice: strategies may run the prompt again on top of their cache. */
static int open_model(struct recall *r, struct kvg_err *err)
{
    const struct kvg_recall_cfg *c = r->cfg;
    size_t longest = 0;
    for (size_t i = 0; i < c->n_lengths; i++)
        longest = c->lengths[i] > longest ? c->lengths[i] : longest;
    size_t n_ctx = 2 * (longest + 2 * c->n_facts) + 256;
    int rc = kvg_induction_open(&r->model, n_ctx, err);
    if (rc)
        return rc;
    r->dims = kvg_model_dims(r->model);
    r->arms = kvg_arena_array(&r->arena, KVG_RECALL_GROUP, sizeof *r->arms);
    r->prompt = kvg_arena_array(&r->arena, longest + c->n_facts, sizeof *r->prompt);
    r->hidden = kvg_arena_array(&r->arena, KVG_RECALL_GROUP * r->model->n_embd, sizeof *r->hidden);
    r->logits = kvg_arena_array(&r->arena, KVG_RECALL_GROUP * r->model->n_vocab, sizeof *r->logits);
    if (!r->arms || !r->prompt || !r->hidden || !r->logits)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the recall texts");
    rc = kvg_drift_base_init(&r->base, r->model->n_vocab, err);
    if (rc)
        return rc;
    r->drift = &r->base;
    const struct kvg_engine_cfg cfg = {.model = r->model,
                                       .kernels = c->kernels,
                                       .pool = c->pool,
                                       .max_tokens = n_ctx,
                                       .max_streams = KVG_RECALL_GROUP};
    return kvg_engine_open(&r->engine, &cfg, err);
}

int kvg_recall_run(const struct kvg_recall_cfg *cfg, struct kvg_progress *pr, kvg_recall_fn fn,
                   void *arg, struct kvg_err *err)
{
    struct recall r = {.cfg = cfg, .pr = pr, .fn = fn, .arg = arg};
    int rc = kvg_recall_check(cfg->lengths, cfg->n_lengths, cfg->n_facts, err);
    if (rc)
        return rc;
    kvg_arena_init(&r.arena);
    rc = open_model(&r, err);
    for (size_t i = 0; i < cfg->n_specs && !rc; i += KVG_RECALL_GROUP)
        rc = run_group(&r, i, err);
    if (r.engine)
        kvg_engine_close(r.engine);
    if (r.drift)
        kvg_drift_base_release(r.drift);
    kvg_model_close(r.model);
    kvg_arena_release(&r.arena);
    return rc;
}
