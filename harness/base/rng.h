/* Seeded random numbers: splitmix64 (Steele, Lea, Flood 2014). The same seed gives the same stream
 * on every machine. */
#ifndef KVG_BASE_RNG_H
#define KVG_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct kvg_rng {
    uint64_t state;
};

static inline uint64_t kvg_rng_next(struct kvg_rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, n); n > 0. */
static inline uint64_t kvg_rng_below(struct kvg_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, v;
    do
        v = kvg_rng_next(r);
    while (v >= limit);
    return v % n;
}

/* Uniform in [0, 1). */
static inline double kvg_rng_unit(struct kvg_rng *r)
{
    return (double)(kvg_rng_next(r) >> 11) * 0x1p-53;
}

/* A seed for a sub-stream named by `key`, e.g. one per cell. */
static inline uint64_t kvg_rng_split(uint64_t seed, uint64_t key)
{
    struct kvg_rng r = {seed ^ (key * 0xd1342543de82ef95u)};
    kvg_rng_next(&r);
    return kvg_rng_next(&r);
}

static inline void kvg_rng_shuffle(struct kvg_rng *r, uint32_t *v, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)kvg_rng_below(r, i);
        uint32_t t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}

#endif
