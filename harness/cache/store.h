/* The KV store: for every (layer, KV head) a ragged list of slots. A slot has a K row, a V row, a
 * position and the side columns that strategies declare. Each column is a list of blocks of at most
 * 64 slots, every block with its own codec and a reference count; so segments in different forms,
 * evicted rows that are really gone, and forks that share what they have in common are one thing.
 *
 * Slots are always in ascending order of position. Strategies never touch the store: they fill a
 * struct kvg_plan, and kvg_store_apply carries it out and counts the work. */
#ifndef KVG_CACHE_STORE_H
#define KVG_CACHE_STORE_H

#include "base/arena.h"
#include "base/err.h"
#include "cache/codec.h"
#include "cache/plan.h"

#include <stddef.h>
#include <stdint.h>

enum { KVG_SIDE_MAX = 4, KVG_CODECS_MAX = 12 };

/* Columns of a head; side column i is KVG_COL_SIDE + i. */
enum kvg_col { KVG_COL_K, KVG_COL_V, KVG_COL_POS, KVG_COL_SIDE };
enum { KVG_COL_N = KVG_COL_SIDE + KVG_SIDE_MAX };

/* Exact work counters; they only grow. A row is one head's K or V row. */
struct kvg_counters {
    uint64_t bytes_read;    /* by attention: codes and scales of the slots that were read */
    uint64_t bytes_written; /* appended, encoded and moved */
    uint64_t n_macs;        /* multiply-adds of the forward pass, attention included */
    uint64_t n_evicted;     /* slots dropped, summed over layers and KV heads */
    uint64_t n_recomputed;  /* tokens fed again */
    uint64_t n_encoded, n_decoded, n_moved, n_rotated; /* rows */
};

/* Bytes in use now. */
struct kvg_bytes {
    size_t payload, scales; /* codes and scales of K and V */
    size_t index;           /* positions, shared ones once */
    size_t state;           /* side columns, and what is held for the strategy outside the slots */
    size_t logical;         /* the sum of the four */
    size_t alloc;           /* from the store's own allocator, block descriptors included */
    size_t frag;            /* of it, rows of K's and V's blocks that hold nothing */
};

struct kvg_store_cfg {
    size_t n_layers, n_kv_heads, d_head;
    size_t max_slots; /* capacity per head; reserved when the store is opened */
    int raw_keys;     /* 1: K is stored before rotation and rotated at read */
    size_t block_slots; /* slots of a block of exact rows; 0 = 64 */
    size_t n_side;      /* side columns, each of side_floats[i] f32 per slot, */
    size_t side_floats[KVG_SIDE_MAX];
    size_t side_page[KVG_SIDE_MAX]; /* or per page of so many slots when > 1 */
    const struct kvg_kernels *kernels;
    const float *rope_cos, *rope_sin; /* [max position, d_head/2] */
};

/* A physical block. Rows [0, written) hold data; a list may use fewer of them. */
struct kvg_block {
    unsigned char *data;
    uint32_t refs;
    uint16_t written;
    uint8_t size_class;
    struct kvg_block *next_free;
};

/* A segment: n rows of a block, beginning at row `off`, in one codec (columns that are not K or V:
 * codec 0). A sealed group is always a whole segment. */
struct kvg_seg {
    struct kvg_block *b;
    uint16_t off, n;
    uint8_t codec;
};

struct kvg_list {
    struct kvg_seg *segs;
    uint32_t n_segs;
};

struct kvg_head {
    uint32_t n_slots;
    struct kvg_list cols[KVG_COL_N];
};

struct kvg_heap;

struct kvg_store {
    struct kvg_store_cfg cfg;
    struct kvg_heap *heap;
    struct kvg_head *heads;                  /* [n_layers, n_kv_heads] */
    struct kvg_codec codecs[KVG_CODECS_MAX]; /* 0 is f32 */
    size_t n_codecs;
    size_t list_cap;                             /* segments reserved per column */
    uint8_t classes[KVG_COL_N + KVG_CODECS_MAX]; /* size classes: of columns, then of K/V codecs */
    struct kvg_counters count;
    size_t held_bytes; /* state of strategies outside the slots; counted as state and allocated */
    float *tile;           /* [2 * 64, d_head] scratch of the store's own work */
    uint32_t *picks;       /* [max_slots] scratch */
    struct kvg_seg *spare; /* [list_cap] scratch */
    struct kvg_seg *segs;  /* all lists' room */
};

/* Opens an empty store; all memory a cell may need is reserved here, untouched. */
int kvg_store_open(struct kvg_store **s, const struct kvg_store_cfg *cfg, struct kvg_err *err);
void kvg_store_close(struct kvg_store *s);
void kvg_store_reset(struct kvg_store *s); /* empties it; counters go to 0 */

/* Registers a codec and gives its index for plans. */
int kvg_store_add_codec(struct kvg_store *s, const struct kvg_codec *c, int *index,
                        struct kvg_err *err);

static inline struct kvg_head *kvg_store_head(const struct kvg_store *s, size_t layer, size_t head)
{
    return &s->heads[layer * s->cfg.n_kv_heads + head];
}

/* Appends n exact rows to every head of a layer. k, v: [n, n_kv_heads, d_head] f32 with a row
 * stride of ld floats; pos0.. are their positions. Side columns start at 0. Cannot fail: the
 * caller keeps within max_slots. */
void kvg_store_append(struct kvg_store *s, size_t layer, const float *k, const float *v, size_t ld,
                      int32_t pos0, size_t n);

/* Carries out a plan and empties it. KVG_ECHECK on a plan that is not well formed (READ among
 * them: the engine takes those out before); then nothing of it is carried out. */
int kvg_store_apply(struct kvg_store *s, struct kvg_plan *plan, struct kvg_err *err);

/* Drops every slot at a position >= pos. A sealed group that is cut in two is opened. */
void kvg_store_truncate(struct kvg_store *s, int32_t pos);
/* dst (empty, of the same configuration, opened by kvg_store_open_fork) gets all slots of src;
 * blocks are shared until one side writes. */
int kvg_store_open_fork(struct kvg_store **dst, struct kvg_store *src, struct kvg_err *err);

void kvg_store_bytes(const struct kvg_store *s, struct kvg_bytes *out);
/* Starts a new peak; the largest allocation since then. */
void kvg_store_mark_peak(struct kvg_store *s);
size_t kvg_store_peak_bytes(const struct kvg_store *s);
/* Copies positions of a head to out[n_slots]. */
void kvg_store_positions(const struct kvg_store *s, size_t layer, size_t head, int32_t *out);
/* The same of slots [from, from + n). */
void kvg_store_positions_range(const struct kvg_store *s, size_t layer, size_t head, size_t from,
                               size_t n, int32_t *out);
/* Decodes rows [from, from+n) of K or V to out [n, d_head], half-split order; raw keys stay raw. */
void kvg_store_read(const struct kvg_store *s, size_t layer, size_t head, enum kvg_col col,
                    size_t from, size_t n, float *out);
/* Slots from the first exact (unencoded) one of K or V to the end of a head. */
size_t kvg_store_exact_slots(const struct kvg_store *s, size_t layer, size_t head,
                             enum kvg_col col);
/* Side column i of a head, gathered to or scattered from a flat array [n_slots, side_floats[i]]. */
void kvg_store_side_get(const struct kvg_store *s, size_t layer, size_t head, size_t i, float *out);
void kvg_store_side_put(struct kvg_store *s, size_t layer, size_t head, size_t i, const float *in);
/* Paged side columns (side_page > 1): row r describes slots [r * page, (r + 1) * page) and only
 * exists while these are the slots it was made from: when a slot goes, its page's row and all rows
 * behind go too. Rows that exist; read access to one [side_floats]; room for the next one. */
size_t kvg_store_page_rows(const struct kvg_store *s, size_t layer, size_t head, size_t i);
const float *kvg_store_page(const struct kvg_store *s, size_t layer, size_t head, size_t i,
                            size_t row);
void kvg_store_page_push(struct kvg_store *s, size_t layer, size_t head, size_t i,
                         const float *in);
/* Every invariant that can be checked from outside: order, counts, references, byte sums, the bound
 * alloc <= 1.10 logical + one block per column, form, layer and head (a form whose groups may be
 * short: two; blocks of fewer than 64 slots: their descriptors and rounding too). */
int kvg_store_check(const struct kvg_store *s, struct kvg_err *err);

#endif
