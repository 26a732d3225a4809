/* Owns merging neighbours best first, with a heap over a linked list: O(n log n) even for a word of
 * megabytes. Must not know what decides which neighbours merge. */
#include "model/tokenizer_impl.h"

#include <stdlib.h>

void kvg_merge_release(struct kvg_merge *m)
{
    free(m->syms);
    free(m->heap);
    free(m->text);
}

/* v with room for `need` elements, or NULL (v stays valid). */
static void *grow(void *v, size_t *cap, size_t need, size_t elem_bytes)
{
    size_t n = *cap ? *cap : 64;
    while (n < need)
        n *= 2;
    if (v && n == *cap)
        return v;
    void *p = realloc(v, n * elem_bytes);
    if (p)
        *cap = n;
    return p;
}

char *kvg_merge_text(struct kvg_merge *m, size_t n)
{
    char *p = grow(m->text, &m->cap_text, n, 1);
    if (p)
        m->text = p;
    return p;
}

int kvg_merge_start(struct kvg_merge *m, size_t n)
{
    m->n_syms = 0;
    m->n_heap = 0;
    struct kvg_sym *p = grow(m->syms, &m->cap_syms, n, sizeof *p);
    if (!p)
        return KVG_ENOMEM;
    m->syms = p;
    return 0;
}

void kvg_merge_add(struct kvg_merge *m, size_t at, size_t len, int32_t id)
{
    int32_t i = (int32_t)m->n_syms++;
    m->syms[i] = (struct kvg_sym){(uint32_t)at, (uint32_t)len, i - 1, -1, id};
    if (i > 0)
        m->syms[i - 1].next = i;
}

static int push(struct kvg_merge *m, struct kvg_merge_cand c)
{
    struct kvg_merge_cand *p = grow(m->heap, &m->cap_heap, m->n_heap + 1, sizeof *p);
    if (!p)
        return KVG_ENOMEM;
    m->heap = p;
    size_t i = m->n_heap++;
    for (; i > 0 && c.key < m->heap[(i - 1) / 2].key; i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return 0;
}

static struct kvg_merge_cand pop(struct kvg_merge *m)
{
    struct kvg_merge_cand top = m->heap[0], c = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < m->n_heap; i = k) {
        if (k + 1 < m->n_heap && m->heap[k + 1].key < m->heap[k].key)
            k++;
        if (c.key <= m->heap[k].key)
            break;
        m->heap[i] = m->heap[k];
    }
    m->heap[i] = c;
    return top;
}

static int consider(struct kvg_merge *m, const struct kvg_tokenizer *t, const char *text,
                    kvg_merge_fn *pair, int32_t left)
{
    if (left < 0 || m->syms[left].next < 0)
        return 0;
    struct kvg_sym *a = &m->syms[left], *b = &m->syms[a->next];
    struct kvg_merge_cand c;
    uint32_t rank;
    if (!pair(t, text, a, b, &rank, &c.id))
        return 0;
    c.key = (uint64_t)rank << 32 | (uint32_t)left;
    c.len = a->len + b->len;
    c.right = a->next;
    return push(m, c);
}

int kvg_merge_run(struct kvg_merge *m, const struct kvg_tokenizer *t, const char *text,
                  kvg_merge_fn *pair)
{
    for (size_t i = 0; i + 1 < m->n_syms; i++)
        if (consider(m, t, text, pair, (int32_t)i))
            return KVG_ENOMEM;
    while (m->n_heap > 0) {
        struct kvg_merge_cand c = pop(m);
        int32_t left = (int32_t)(uint32_t)c.key;
        struct kvg_sym *a = &m->syms[left], *b = &m->syms[c.right];
        /* A candidate is stale once either side took part in another merge. */
        if (a->len == 0 || a->next != c.right || a->len + b->len != c.len)
            continue;
        a->len = c.len;
        a->id = c.id;
        a->next = b->next;
        b->len = 0;
        if (b->next >= 0)
            m->syms[b->next].prev = left;
        if (consider(m, t, text, pair, a->prev) || consider(m, t, text, pair, left))
            return KVG_ENOMEM;
    }
    return 0;
}
