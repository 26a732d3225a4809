/* Owns going back to a depth without computing it again: forks of the store, copies of the
 * strategy's state. */
#include "run/bench_arm.h"

#include <string.h>

int kvg_bench_arm_open(struct kvg_bench_arm *a, const char *spec, const struct kvg_dims *dims,
                       struct kvg_engine *e, uint64_t seed, struct kvg_err *err)
{
    memset(a, 0, sizeof *a);
    kvg_arena_init(&a->arena);
    a->spec = spec;
    int rc = kvg_pipeline_open(&a->pipe, spec, dims, &a->arena, err);
    if (!rc)
        rc = kvg_pipeline_open(&a->saved_pipe, spec, dims, &a->arena, err);
    if (!rc)
        rc = kvg_stream_open(&a->stream, e, &a->pipe, err);
    a->is_open = !rc;
    if (!rc)
        kvg_stream_reset(&a->stream, seed);
    return rc;
}

void kvg_bench_arm_close(struct kvg_bench_arm *a)
{
    if (a->saved)
        kvg_store_close(a->saved);
    if (a->is_open)
        kvg_stream_close(&a->stream);
    kvg_arena_release(&a->arena);
    memset(a, 0, sizeof *a);
}

/* The stream is at the copy, in `store`. */
static void take_back(struct kvg_bench_arm *a, struct kvg_store *store)
{
    kvg_store_close(a->stream.store);
    a->stream.store = store;
    a->stream.n_tokens = a->depth;
    a->stream.turn = a->turn;
    a->stream.n_decode_steps = a->n_decode_steps;
    a->stream.rng = a->rng;
    kvg_pipeline_copy_state(&a->pipe, &a->saved_pipe);
}

int kvg_bench_arm_restore(struct kvg_bench_arm *a, struct kvg_err *err)
{
    struct kvg_store *fork;
    if (!a->saved) {
        kvg_stream_reset(&a->stream, a->stream.seed);
        return KVG_OK;
    }
    int rc = kvg_store_open_fork(&fork, a->saved, err);
    if (!rc)
        take_back(a, fork);
    return rc;
}

int kvg_bench_arm_deepen(struct kvg_bench_arm *a, struct kvg_engine *e, const int32_t *tokens,
                         size_t to, struct kvg_err *err)
{
    struct kvg_stream *s = &a->stream;
    if (to <= a->depth)
        return KVG_OK;
    /* The copy itself grows, not a fork of it: its blocks then have one owner and need no copying.
     */
    if (a->saved)
        take_back(a, a->saved);
    else
        kvg_stream_reset(s, s->seed);
    a->saved = NULL;
    int rc = kvg_engine_prompt(e, &s, 1, tokens + a->depth, to - a->depth, 1, NULL, 0, NULL, err);
    if (!rc)
        rc = kvg_store_open_fork(&a->saved, s->store, err);
    if (rc)
        return rc;
    a->depth = to;
    a->turn = s->turn;
    a->n_decode_steps = s->n_decode_steps;
    a->rng = s->rng;
    kvg_pipeline_copy_state(&a->saved_pipe, &a->pipe);
    return KVG_OK;
}
