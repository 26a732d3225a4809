/* A naive KV store: plain arrays per (layer, head), every operation written the slow and obvious
 * way. Tests run it beside the real store and compare everything that can be seen. */
#ifndef KVG_TESTS_GEN_STORE_H
#define KVG_TESTS_GEN_STORE_H

#include "base/rng.h"
#include "cache/store.h"

enum { GEN_D = 32, GEN_SLOTS = 256, GEN_SIDE = 3, GEN_HEADS_MAX = 6 };
enum { GEN_PAGE = 8, GEN_PAGE_FLOATS = 5, GEN_CODECS = 10, GEN_CHANNELS = 20 };

struct gen_row {
    int32_t pos;
    float kv[2][GEN_D];   /* what reading gives back */
    uint8_t codec[2];     /* of K and of V; 0 = exact */
    uint32_t group[2];    /* rows sealed together have the same number; 0 = none */
    uint8_t n_group[2];   /* how many these are */
    uint32_t mask[2];     /* the group's channels, in a masked form */
    float side[GEN_SIDE]; /* side column 0 has one float, column 1 has two */
};

struct gen_store {
    size_t n_layers, n_kv_heads;
    const struct kvg_store *codecs; /* any store with the codecs in use */
    struct gen_row rows[GEN_HEADS_MAX][GEN_SLOTS];
    size_t n[GEN_HEADS_MAX];
    float pages[GEN_HEADS_MAX][GEN_SLOTS / GEN_PAGE][GEN_PAGE_FLOATS];
    size_t n_pages[GEN_HEADS_MAX];
    uint64_t n_evicted, n_encoded, n_decoded;
    uint32_t last_group;
};

/* The configuration of a store of this shape. */
struct kvg_store_cfg gen_store_cfg(size_t n_layers, size_t n_kv_heads);
/* Registers f16, q8_0, interleaved q4_0, kivi of 2 bits (groups of 32) and 4 bits (groups of 8)
 * for keys and of 2 and 4 bits for values, kivi keys whose groups of 32 may be short, and masked
 * forms of GEN_CHANNELS channels in f32 and f16, as codecs 1..GEN_CODECS. */
void gen_store_codecs(struct kvg_store *s);

/* Random rows [n, n_kv_heads, GEN_D]. */
void gen_rows(struct kvg_rng *r, float *out, size_t n);
void gen_append(struct gen_store *g, size_t layer, const float *k, const float *v, int32_t pos0,
                size_t n);
/* Only slots[0..n) of a head stay; n_evicted grows when `evict`. */
void gen_keep(struct gen_store *g, size_t head, const uint32_t *slots, size_t n, int evict);
/* `again`: everything is encoded anew, in a first group of so many rows (0 = a whole one). `mask`:
 * channels of a masked form. */
void gen_seal(struct gen_store *g, size_t head, int col, size_t upto, int codec, int again,
              size_t first, uint32_t mask);
static inline void gen_seal_plain(struct gen_store *g, size_t head, int col, size_t upto, int codec)
{
    gen_seal(g, head, col, upto, codec, 0, 0, 0);
}
/* V of slots[0..n) += weight * V of slot `from`. */
void gen_merge(struct gen_store *g, size_t head, size_t from, const uint32_t *slots, size_t n,
               float weight);
void gen_truncate(struct gen_store *g, int32_t pos);
/* 0 when the real store looks the same in every way; else -1 and a message on stderr. */
int gen_store_compare(const struct gen_store *g, const struct kvg_store *s);
/* Walks the lists of all stores on one heap: references and bytes in use; 0 or -1 as above. */
int gen_heap_check(struct kvg_store *const *stores, size_t n);

#endif
