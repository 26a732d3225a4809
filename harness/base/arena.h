/* Arenas: bump allocation with one lifetime (run, cell or step). Memory is zeroed. */
#ifndef KVG_BASE_ARENA_H
#define KVG_BASE_ARENA_H

#include <stddef.h>

struct kvg_arena_chunk;

struct kvg_arena {
    struct kvg_arena_chunk *head;
    size_t used_bytes; /* handed out since the last reset */
    size_t peak_bytes; /* largest used_bytes ever */
};

void kvg_arena_init(struct kvg_arena *a);
void kvg_arena_release(struct kvg_arena *a);
/* Forgets everything but keeps the largest chunk for reuse. */
void kvg_arena_reset(struct kvg_arena *a);
/* Zeroed, 64-byte aligned; NULL when out of memory. */
void *kvg_arena_alloc(struct kvg_arena *a, size_t bytes);
void *kvg_arena_array(struct kvg_arena *a, size_t n, size_t elem_bytes);
char *kvg_arena_strdup(struct kvg_arena *a, const char *s);
char *kvg_arena_strndup(struct kvg_arena *a, const char *s, size_t n);
char *kvg_arena_printf(struct kvg_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
