/* Owns n-gram counting by sorting: all suffixes of both texts, cut to six symbols, are sorted once;
 * n-grams of every order then lie side by side. Must not know any metric. */
#include "result/ngram.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum { ORDER_MAX = 6 };

int kvg_symbols_decode(struct kvg_symbols *out, const char *s)
{
    size_t left = strlen(s);
    out->n = 0;
    out->v = malloc((left + 1) * sizeof *out->v);
    if (!out->v)
        return -1;
    while (left) {
        size_t len = kvg_text_utf8_decode(s, left, &out->v[out->n++]);
        s += len;
        left -= len;
    }
    return 0;
}

int kvg_symbols_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

/* A word of one of the two texts, and where its number goes. */
struct word {
    const uint32_t *v;
    size_t n;
    uint32_t *number;
};

static int compare_words(const void *pa, const void *pb)
{
    const struct word *a = pa, *b = pb;
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    return memcmp(a->v, b->v, a->n * sizeof *a->v);
}

static size_t find_words(struct word *out, const struct kvg_symbols *text, struct kvg_symbols *to)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n;) {
        size_t start = i;
        while (i < text->n && !kvg_symbols_is_space(text->v[i]))
            i++;
        if (i > start) {
            out[n] = (struct word){text->v + start, i - start, to->v + n};
            n++;
        } else {
            i++;
        }
    }
    to->n = n;
    return n;
}

int kvg_symbols_words(struct kvg_symbols out[2], const struct kvg_symbols text[2])
{
    size_t cap = text[0].n + text[1].n + 1, n = 0;
    struct word *words = calloc(cap, sizeof *words);
    memset(out, 0, 2 * sizeof *out);
    for (int side = 0; side < 2; side++)
        out[side].v = malloc((text[side].n + 1) * sizeof *out[side].v);
    if (!words || !out[0].v || !out[1].v) {
        free(words);
        free(out[0].v);
        free(out[1].v);
        memset(out, 0, 2 * sizeof *out);
        return -1;
    }
    for (int side = 0; side < 2; side++)
        n += find_words(words + n, &text[side], &out[side]);
    qsort(words, n, sizeof *words, compare_words);
    uint32_t number = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && compare_words(&words[i - 1], &words[i]) != 0)
            number++;
        *words[i].number = number;
    }
    free(words);
    return 0;
}

/* Symbols from one place on, each plus 1; 0 stands behind the end. */
struct suffix {
    uint32_t sym[ORDER_MAX];
    uint32_t is_ref;
};

static int compare_suffixes(const void *pa, const void *pb)
{
    const struct suffix *a = pa, *b = pb;
    for (int i = 0; i < ORDER_MAX; i++)
        if (a->sym[i] != b->sym[i])
            return a->sym[i] < b->sym[i] ? -1 : 1;
    return 0;
}

static void add_suffixes(struct suffix *out, const struct kvg_symbols *text, uint32_t is_ref)
{
    for (size_t i = 0; i < text->n; i++) {
        for (size_t j = 0; j < ORDER_MAX && i + j < text->n; j++)
            out[i].sym[j] = text->v[i + j] + 1;
        out[i].is_ref = is_ref;
    }
}

static void count_order(const struct suffix *s, size_t n, size_t order, uint64_t sum[2],
                        uint64_t *match)
{
    for (size_t i = 0, j; i < n; i = j) {
        uint64_t count[2] = {0, 0};
        for (j = i; j < n && !memcmp(s[j].sym, s[i].sym, order * sizeof *s->sym); j++)
            count[s[j].is_ref]++;
        if (!s[i].sym[order - 1])
            continue; /* shorter than the order */
        sum[0] += count[0];
        sum[1] += count[1];
        *match += count[0] < count[1] ? count[0] : count[1];
    }
}

int kvg_ngram_count(const struct kvg_symbols *hyp_text, const struct kvg_symbols *ref_text,
                    int max_order, uint64_t *hyp, uint64_t *ref, uint64_t *match)
{
    size_t n = hyp_text->n + ref_text->n;
    struct suffix *s = calloc(n + 1, sizeof *s);
    if (!s)
        return -1;
    add_suffixes(s, hyp_text, 0);
    add_suffixes(s + hyp_text->n, ref_text, 1);
    qsort(s, n, sizeof *s, compare_suffixes);
    for (int order = 1; order <= max_order; order++) {
        uint64_t sum[2] = {0, 0};
        count_order(s, n, (size_t)order, sum, &match[order - 1]);
        hyp[order - 1] += sum[0];
        ref[order - 1] += sum[1];
    }
    free(s);
    return 0;
}
