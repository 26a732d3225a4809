/* Owns the growing arrays of a cell's measurements and the readings of a store. */
#include "run/record.h"

#include "base/hash.h"
#include "kernel/probe.h"

#include <stdlib.h>
#include <string.h>

const char *kvg_finish_name(enum kvg_finish f)
{
    static const char *const names[] = {"", "given", "eos", "limit", "loop", "mixed"};
    return names[f];
}

void kvg_record_release(struct kvg_record *r)
{
    free(r->steps);
    free(r->turns);
    free(r->kept);
    memset(r, 0, sizeof *r);
}

void kvg_record_clear(struct kvg_record *r)
{
    struct kvg_record old = *r;
    free(r->kept);
    memset(r, 0, sizeof *r);
    r->steps = old.steps;
    r->cap_steps = old.cap_steps;
    r->turns = old.turns;
    r->cap_turns = old.cap_turns;
}

/* Room for element n of v; NULL when out of memory. */
static void *grow(void *v, size_t n, size_t *cap, size_t bytes)
{
    if (n < *cap)
        return v;
    size_t want = *cap ? 2 * *cap : 64;
    void *p = realloc(v, want * bytes);
    if (p)
        *cap = want;
    return p;
}

struct kvg_step_record *kvg_record_step(struct kvg_record *r)
{
    struct kvg_step_record *v = grow(r->steps, r->n_steps, &r->cap_steps, sizeof *v);
    if (!v)
        return NULL;
    r->steps = v;
    memset(&v[r->n_steps], 0, sizeof *v);
    return &v[r->n_steps++];
}

struct kvg_turn_record *kvg_record_turn(struct kvg_record *r)
{
    struct kvg_turn_record *v = grow(r->turns, r->n_turns, &r->cap_turns, sizeof *v);
    if (!v)
        return NULL;
    r->turns = v;
    memset(&v[r->n_turns], 0, sizeof *v);
    return &v[r->n_turns++];
}

void kvg_record_mark(struct kvg_stream *s)
{
    kvg_store_mark_peak(s->store);
}

void kvg_record_peak(struct kvg_record *r, struct kvg_turn_record *turn, const struct kvg_stream *s,
                     const struct kvg_engine *e)
{
    size_t peak = kvg_store_peak_bytes(s->store) + kvg_engine_scratch_bytes(e);
    turn->peak_bytes = peak > turn->peak_bytes ? peak : turn->peak_bytes;
    r->peak_bytes = peak > r->peak_bytes ? peak : r->peak_bytes;
}

static double kept_of(const struct kvg_store *s, size_t *min, size_t *max)
{
    size_t n = s->cfg.n_layers * s->cfg.n_kv_heads, sum = 0;
    *min = SIZE_MAX;
    *max = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = s->heads[i].n_slots;
        sum += k;
        *min = k < *min ? k : *min;
        *max = k > *max ? k : *max;
    }
    return (double)sum / (double)n;
}

void kvg_record_prompt_end(struct kvg_turn_record *turn, const struct kvg_stream *s)
{
    struct kvg_bytes b;
    kvg_store_bytes(s->store, &b);
    turn->prompt_bytes = b.logical;
    turn->prompt_tokens = s->n_tokens;
}

void kvg_record_turn_end(struct kvg_turn_record *turn, const struct kvg_stream *s)
{
    size_t min, max;
    turn->kept_mean = kept_of(s->store, &min, &max);
    turn->logical_tokens = s->n_tokens;
    kvg_store_bytes(s->store, &turn->bytes);
}

/* Calls fn for every (layer, head) with its positions. */
static int each_head(const struct kvg_store *s,
                     void (*fn)(void *arg, size_t layer, const int32_t *pos, size_t n), void *arg,
                     struct kvg_err *err)
{
    int32_t *pos = calloc(s->cfg.max_slots + 1, sizeof *pos);
    if (!pos)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for %zu positions", s->cfg.max_slots);
    for (size_t l = 0; l < s->cfg.n_layers; l++)
        for (size_t h = 0; h < s->cfg.n_kv_heads; h++) {
            kvg_store_positions(s, l, h, pos);
            fn(arg, l, pos, kvg_store_head(s, l, h)->n_slots);
        }
    free(pos);
    return KVG_OK;
}

static void hash_head(void *arg, size_t layer, const int32_t *pos, size_t n)
{
    uint64_t *h = arg;
    (void)layer;
    *h = kvg_hash_fnv(*h, &n, sizeof n);
    *h = kvg_hash_fnv(*h, pos, n * sizeof *pos);
}

int kvg_record_end(struct kvg_record *r, const struct kvg_stream *s, struct kvg_err *err)
{
    r->has_store = 1;
    r->logical_tokens = s->n_tokens;
    r->kept_mean = kept_of(s->store, &r->kept_min, &r->kept_max);
    kvg_store_bytes(s->store, &r->bytes);
    r->count = s->store->count;
    r->rss_bytes = kvg_probe_rss_bytes();
    r->digest = kvg_hash_fnv(KVG_FNV_INIT, s->tokens, s->n_tokens * sizeof *s->tokens);
    return each_head(s->store, hash_head, &r->digest, err);
}

struct map {
    uint32_t *heads; /* [n_layers, n_tokens] */
    size_t n_tokens;
};

static void map_head(void *arg, size_t layer, const int32_t *pos, size_t n)
{
    struct map *m = arg;
    for (size_t i = 0; i < n; i++)
        m->heads[layer * m->n_tokens + (size_t)pos[i]]++;
}

int kvg_record_kept(struct kvg_record *r, const struct kvg_stream *s, size_t turn,
                    struct kvg_err *err)
{
    size_t n = s->store->cfg.n_layers * s->n_tokens, n_kept = 0;
    struct map m = {calloc(n + 1, sizeof *m.heads), s->n_tokens};
    int rc = m.heads ? each_head(s->store, map_head, &m, err)
                     : KVG_FAIL(err, KVG_ENOMEM, "out of memory for the map of kept tokens");
    if (rc)
        goto out;
    for (size_t i = 0; i < n; i++)
        n_kept += m.heads[i] > 0;
    free(r->kept);
    r->n_kept = 0;
    r->kept = calloc(n_kept + 1, sizeof *r->kept);
    if (!r->kept) {
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory for the map of kept tokens");
        goto out;
    }
    r->kept_turn = (uint32_t)turn;
    for (size_t i = 0; i < n; i++)
        if (m.heads[i])
            r->kept[r->n_kept++] = (struct kvg_kept_record){.layer = (uint32_t)(i / s->n_tokens),
                                                            .pos = (uint32_t)(i % s->n_tokens),
                                                            .heads = m.heads[i]};
out:
    free(m.heads);
    return rc;
}

void kvg_record_add_times(struct kvg_times *sum, const struct kvg_times *t)
{
    sum->total += t->total;
    sum->observe += t->observe;
    sum->manage += t->manage;
    sum->append += t->append;
    sum->attend += t->attend;
    sum->logits += t->logits;
}

/* Bytes of an element when everything is kept in one plain form, else 0. */
static size_t plain_element_bytes(const struct kvg_pipeline *p)
{
    const struct kvg_inst *e = p->encode;
    if (p->role == KVG_ROLE_FLOOR)
        return sizeof(float);
    if (kvg_pipeline_evicts(p))
        return 0;
    if (!e || p->role != KVG_ROLE_STRATEGY || e->k_codec.type != KVG_F16 ||
        e->v_codec.type != KVG_F16)
        return 0;
    return sizeof(uint16_t);
}

int kvg_record_check(const struct kvg_stream *s, struct kvg_err *err)
{
    struct kvg_bytes b;
    size_t elem = plain_element_bytes(s->pipe);
    int rc = kvg_store_check(s->store, err);
    if (rc)
        return kvg_err_prefix(err, "strategy '%s'", s->pipe->label), rc;
    if (!elem)
        return KVG_OK;
    const struct kvg_store_cfg *c = &s->store->cfg;
    size_t want = 2 * c->n_layers * c->n_kv_heads * c->d_head * elem * s->n_tokens;
    kvg_store_bytes(s->store, &b);
    if (b.payload != want)
        return KVG_FAIL(
            err, KVG_ECHECK,
            "the store of '%s' holds %zu payload bytes at %zu tokens where a full cache "
            "has %zu",
            s->pipe->label, b.payload, s->n_tokens, want);
    return KVG_OK;
}
