/* Owns chunks of bump-allocated memory; must not know what is put in them. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_MIN = 64 * 1024, ALIGN = 64 };

struct kvg_arena_chunk {
    struct kvg_arena_chunk *next;
    size_t cap, used;
    unsigned char *data;
};

void kvg_arena_init(struct kvg_arena *a)
{
    memset(a, 0, sizeof *a);
}

static void chunk_free(struct kvg_arena_chunk *c)
{
    free(c->data);
    free(c);
}

void kvg_arena_release(struct kvg_arena *a)
{
    for (struct kvg_arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        chunk_free(c);
    }
    memset(a, 0, sizeof *a);
}

void kvg_arena_reset(struct kvg_arena *a)
{
    struct kvg_arena_chunk *keep = NULL;
    for (struct kvg_arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        if (!keep || c->cap > keep->cap) {
            if (keep)
                chunk_free(keep);
            keep = c;
        } else {
            chunk_free(c);
        }
    }
    if (keep) {
        memset(keep->data, 0, keep->used);
        keep->used = 0;
        keep->next = NULL;
    }
    a->head = keep;
    a->used_bytes = 0;
}

void *kvg_arena_alloc(struct kvg_arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGN)
        return NULL;
    size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (need == 0)
        need = ALIGN;
    struct kvg_arena_chunk *c = a->head;
    if (!c || c->cap - c->used < need) {
        size_t cap = need > CHUNK_MIN ? need : CHUNK_MIN;
        c = calloc(1, sizeof *c);
        if (!c)
            return NULL;
        c->data = aligned_alloc(ALIGN, cap);
        if (!c->data) {
            free(c);
            return NULL;
        }
        memset(c->data, 0, cap);
        c->cap = cap;
        c->next = a->head;
        a->head = c;
    }
    void *p = c->data + c->used;
    c->used += need;
    a->used_bytes += need;
    if (a->used_bytes > a->peak_bytes)
        a->peak_bytes = a->used_bytes;
    return p;
}

void *kvg_arena_array(struct kvg_arena *a, size_t n, size_t elem_bytes)
{
    if (elem_bytes && n > SIZE_MAX / elem_bytes)
        return NULL;
    return kvg_arena_alloc(a, n * elem_bytes);
}

char *kvg_arena_strndup(struct kvg_arena *a, const char *s, size_t n)
{
    char *p = kvg_arena_alloc(a, n + 1);
    if (p)
        memcpy(p, s, n);
    return p;
}

char *kvg_arena_strdup(struct kvg_arena *a, const char *s)
{
    return kvg_arena_strndup(a, s, strlen(s));
}

char *kvg_arena_printf(struct kvg_arena *a, const char *fmt, ...)
{
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : kvg_arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, ap2);
    va_end(ap2);
    return p;
}
