/* Owns the worker threads; must not know what they compute. Workers spin for a moment before they
 * sleep, because a decode step hands out work some hundreds of times within a few milliseconds. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SPINS = 20000 };

struct worker {
    struct kvg_pool *pool;
    pthread_t id;
    int index;
};

/* A ticket names a job and one part of it: generation, number of parts, next part. Whoever draws a
 * ticket whose part exists has a valid job in front of it, because the job cannot end before that
 * part is done; a worker that comes late draws a part of the next job, or none. So nobody waits
 * for a worker that the system has not scheduled. */
enum { PART_BITS = 20 };
#define PART_MASK (((uint64_t)1 << PART_BITS) - 1)

struct kvg_pool {
    int n_threads;
    struct worker *workers; /* n_threads - 1 */
    int n_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint generation;
    _Atomic uint64_t ticket;
    atomic_size_t n_done; /* parts of this job */
    atomic_int stop;
    int sleepers; /* under lock */
    kvg_pool_fn fn;
    void *arg;
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void work(struct kvg_pool *p, int thread)
{
    for (;;) {
        uint64_t t = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acquire);
        size_t part = (size_t)(t & PART_MASK), n = (size_t)(t >> PART_BITS & PART_MASK);
        if (part >= n)
            return;
        p->fn(p->arg, part, thread);
        atomic_fetch_add_explicit(&p->n_done, 1, memory_order_release);
    }
}

static unsigned wait_generation(struct kvg_pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        unsigned g = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (g != seen)
            return g;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    unsigned g;
    p->sleepers++;
    while ((g = atomic_load(&p->generation)) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    p->sleepers--;
    pthread_mutex_unlock(&p->lock);
    return g;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct kvg_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_generation(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        work(p, w->index);
    }
}

static void announce(struct kvg_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->generation, 1);
    if (p->sleepers)
        pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

int kvg_pool_open(struct kvg_pool **pool, int n_threads, struct kvg_err *err)
{
    struct kvg_pool *p = calloc(1, sizeof *p);
    struct worker *w = calloc((size_t)(n_threads > 1 ? n_threads : 1), sizeof *w);
    *pool = NULL;
    if (!p || !w) {
        free(p);
        free(w);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    }
    p->n_threads = n_threads;
    p->workers = w;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 0; i < n_threads - 1; i++) {
        w[i] = (struct worker){.pool = p, .index = i + 1};
        if (pthread_create(&w[i].id, NULL, worker_main, &w[i])) {
            kvg_pool_close(p);
            return KVG_FAIL(err, KVG_EIO, "cannot start thread %d of %d", i + 2, n_threads);
        }
        p->n_started++;
    }
    *pool = p;
    return 0;
}

void kvg_pool_close(struct kvg_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, 1);
    announce(p);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].id, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->workers);
    free(p);
}

int kvg_pool_threads(const struct kvg_pool *p)
{
    return p->n_threads;
}

void kvg_pool_run(struct kvg_pool *p, size_t n_parts, kvg_pool_fn fn, void *arg)
{
    if (p->n_threads <= 1 || n_parts <= 1 || n_parts >= PART_MASK - 64) {
        for (size_t i = 0; i < n_parts; i++)
            fn(arg, i, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->n_done, 0, memory_order_relaxed);
    uint64_t job = (uint64_t)(atomic_load(&p->generation) + 1) << (2 * PART_BITS);
    atomic_store_explicit(&p->ticket, job | (uint64_t)n_parts << PART_BITS, memory_order_release);
    announce(p);
    work(p, 0);
    for (int i = 0; atomic_load_explicit(&p->n_done, memory_order_acquire) < n_parts; i++) {
        relax();
        if (i > SPINS)
            sched_yield(); /* somebody else has the processor that our worker needs */
    }
}
