/* The store's own allocator: blocks of a few fixed sizes from one reserved range of addresses.
 * Everything is reserved when it is opened and touched only when used; taking and giving back a
 * block never calls the system. Forked stores share one heap. */
#ifndef KVG_CACHE_HEAP_H
#define KVG_CACHE_HEAP_H

#include "base/err.h"
#include "cache/store.h"

enum { KVG_HEAP_CLASSES = 24 };

struct kvg_heap {
    unsigned char *base; /* reserved range: descriptors, then data */
    size_t reserved, data_off, cap_blocks;
    size_t n_blocks;  /* descriptors ever used */
    size_t data_used; /* bytes ever handed out */
    struct kvg_block *free[KVG_HEAP_CLASSES];
    size_t class_bytes[KVG_HEAP_CLASSES];
    size_t n_classes;
    size_t used_bytes, peak_bytes; /* blocks in use, descriptors included */
    unsigned owners;
};

int kvg_heap_open(struct kvg_heap **h, size_t data_bytes, size_t n_blocks, struct kvg_err *err);
void kvg_heap_release(struct kvg_heap *h); /* one owner less; the last one unmaps */
/* The class of blocks of this size, made when new; -1 when there are too many. */
int kvg_heap_class(struct kvg_heap *h, size_t bytes);
/* A block with one reference and no rows; NULL when the reserve is used up. */
struct kvg_block *kvg_heap_get(struct kvg_heap *h, int size_class);
/* One reference less. */
void kvg_heap_put(struct kvg_heap *h, struct kvg_block *b);
/* Forgets all blocks (sole owner only) and gives the pages back to the system. */
void kvg_heap_reset(struct kvg_heap *h);

#endif
