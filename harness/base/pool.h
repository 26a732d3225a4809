/* A fixed pool of worker threads. One job at a time: kvg_pool_run splits the indices 0..n_parts-1
 * over the workers and the caller and returns when all are done. No allocation while running. */
#ifndef KVG_BASE_POOL_H
#define KVG_BASE_POOL_H

#include "base/err.h"

#include <stddef.h>

struct kvg_pool;

typedef void (*kvg_pool_fn)(void *arg, size_t part, int thread);

int kvg_pool_open(struct kvg_pool **pool, int n_threads, struct kvg_err *err);
void kvg_pool_close(struct kvg_pool *pool);
int kvg_pool_threads(const struct kvg_pool *pool);
/* fn(arg, part, thread) is called once for each part; `thread` is 0..n_threads-1 and selects
 * per-thread scratch. Parts are handed out dynamically; results must not depend on who did them. */
void kvg_pool_run(struct kvg_pool *pool, size_t n_parts, kvg_pool_fn fn, void *arg);

#endif
