/* Owns going back to a depth without computing it again: a copy of the stream. */
#include "run/bench_arm.h"

#include <string.h>

int kvg_bench_arm_open(struct kvg_bench_arm *a, const char *spec, const struct kvg_dims *dims,
                       struct kvg_engine *e, uint64_t seed, struct kvg_err *err)
{
    struct kvg_pipeline *pipes[2] = {&a->pipe, &a->saved_pipe};
    struct kvg_stream *streams[2] = {&a->stream, &a->saved};
    int rc = 0;
    memset(a, 0, sizeof *a);
    kvg_arena_init(&a->arena);
    a->spec = spec;
    for (size_t i = 0; i < 2 && !rc; i++) {
        rc = kvg_pipeline_open(pipes[i], spec, dims, &a->arena, err);
        if (!rc)
            rc = kvg_stream_open(streams[i], e, pipes[i], err);
        if (!rc)
            kvg_stream_reset(streams[i], seed);
    }
    return rc;
}

void kvg_bench_arm_close(struct kvg_bench_arm *a)
{
    if (a->stream.store)
        kvg_stream_close(&a->stream);
    if (a->saved.store)
        kvg_stream_close(&a->saved);
    kvg_arena_release(&a->arena);
    memset(a, 0, sizeof *a);
}

int kvg_bench_arm_restore(struct kvg_bench_arm *a, struct kvg_err *err)
{
    return kvg_stream_copy(&a->stream, &a->saved, err);
}

int kvg_bench_arm_deepen(struct kvg_bench_arm *a, struct kvg_engine *e, const int32_t *tokens,
                         size_t to, struct kvg_err *err)
{
    struct kvg_stream *s = &a->saved;
    size_t depth = s->n_tokens;
    if (to <= depth)
        return KVG_OK;
    /* The copy itself grows: its blocks then have one owner and need no copying. */
    kvg_stream_reset(&a->stream, s->seed);
    return kvg_engine_prompt(e, &s, 1, tokens + depth, to - depth, 1, NULL, 0, NULL, err);
}
