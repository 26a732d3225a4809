/* Owns the memory of blocks; must not know what rows mean. */
#include "cache/heap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

int kvg_heap_open(struct kvg_heap **out, size_t data_bytes, size_t n_blocks, struct kvg_err *err)
{
    *out = NULL;
    struct kvg_heap *h = calloc(1, sizeof *h);
    if (!h)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    h->data_off = round_up(n_blocks * sizeof(struct kvg_block), 4096);
    h->reserved = h->data_off + round_up(data_bytes, 4096);
    h->cap_blocks = n_blocks;
    void *p = mmap(NULL, h->reserved, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        size_t mib = h->reserved >> 20;
        free(h);
        return KVG_FAIL(err, KVG_ENOMEM,
                        "cannot reserve %zu MiB of addresses for a KV store; use a shorter context",
                        mib);
    }
    h->base = p;
    h->owners = 1;
    *out = h;
    return 0;
}

void kvg_heap_release(struct kvg_heap *h)
{
    if (!h || --h->owners > 0)
        return;
    munmap(h->base, h->reserved);
    free(h);
}

int kvg_heap_class(struct kvg_heap *h, size_t bytes)
{
    bytes = round_up(bytes, ALIGN);
    for (size_t i = 0; i < h->n_classes; i++)
        if (h->class_bytes[i] == bytes)
            return (int)i;
    if (h->n_classes == KVG_HEAP_CLASSES)
        return -1;
    h->class_bytes[h->n_classes] = bytes;
    return (int)h->n_classes++;
}

struct kvg_block *kvg_heap_get(struct kvg_heap *h, int size_class)
{
    struct kvg_block *b = h->free[size_class];
    size_t bytes = h->class_bytes[size_class];
    if (b) {
        h->free[size_class] = b->next_free;
    } else {
        if (h->n_blocks == h->cap_blocks || h->data_off + h->data_used + bytes > h->reserved)
            return NULL;
        b = (struct kvg_block *)(void *)h->base + h->n_blocks++;
        b->data = h->base + h->data_off + h->data_used;
        h->data_used += bytes;
        b->size_class = (uint8_t)size_class;
    }
    b->refs = 1;
    b->written = 0;
    b->next_free = NULL;
    h->used_bytes += bytes + sizeof *b;
    if (h->used_bytes > h->peak_bytes)
        h->peak_bytes = h->used_bytes;
    return b;
}

void kvg_heap_put(struct kvg_heap *h, struct kvg_block *b)
{
    if (--b->refs > 0)
        return;
    h->used_bytes -= h->class_bytes[b->size_class] + sizeof *b;
    b->next_free = h->free[b->size_class];
    h->free[b->size_class] = b;
}

void kvg_heap_reset(struct kvg_heap *h)
{
    madvise(h->base, h->data_off + round_up(h->data_used, 4096), MADV_DONTNEED);
    memset(h->free, 0, sizeof h->free);
    h->n_blocks = 0;
    h->data_used = 0;
    h->used_bytes = 0;
    h->peak_bytes = 0;
}
