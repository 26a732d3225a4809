/* One strategy of a benchmark: a stream brought to a depth, and the copy it goes back to. */
#ifndef KVG_RUN_BENCH_ARM_H
#define KVG_RUN_BENCH_ARM_H

#include "base/arena.h"
#include "model/engine.h"

struct kvg_bench_arm {
    const char *spec;
    struct kvg_arena arena;
    struct kvg_pipeline pipe, saved_pipe; /* of the stream and of the copy */
    struct kvg_stream stream, saved;
};

int kvg_bench_arm_open(struct kvg_bench_arm *a, const char *spec, const struct kvg_dims *dims,
                       struct kvg_engine *e, uint64_t seed, struct kvg_err *err);
void kvg_bench_arm_close(struct kvg_bench_arm *a);
/* Feeds tokens[from, to) in one prompt, compression included, and takes the copy there; from is
 * the depth reached before. */
int kvg_bench_arm_deepen(struct kvg_bench_arm *a, struct kvg_engine *e, const int32_t *tokens,
                         size_t to, struct kvg_err *err);
/* Back to the copy: store, strategy state and counters of the stream. */
int kvg_bench_arm_restore(struct kvg_bench_arm *a, struct kvg_err *err);

#endif
