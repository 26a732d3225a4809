/* Counting n-grams of two texts, and the texts' symbols: private to the text metrics. */
#ifndef KVG_RESULT_NGRAM_H
#define KVG_RESULT_NGRAM_H

#include <stddef.h>
#include <stdint.h>

/* A heap-allocated text as symbols: code points, or numbers of words. */
struct kvg_symbols {
    uint32_t *v;
    size_t n;
};

/* UTF-8 to code points; -1 when out of memory. Free v afterwards, here and below. */
int kvg_symbols_decode(struct kvg_symbols *out, const char *s);
/* What Python calls white space: str.split() and \s agree on it. */
int kvg_symbols_is_space(uint32_t c);

/* Splits both texts at white space and numbers the words: equal words, equal numbers (from 0). */
int kvg_symbols_words(struct kvg_symbols out[2], const struct kvg_symbols text[2]);

/* For orders 1..max_order (at most 6): adds the number of n-grams of the hypothesis and of the
 * reference, and the sum over distinct n-grams of the smaller of both counts, to hyp[order - 1],
 * ref[...] and match[...]. -1 when out of memory. */
int kvg_ngram_count(const struct kvg_symbols *hyp_text, const struct kvg_symbols *ref_text,
                    int max_order, uint64_t *hyp, uint64_t *ref, uint64_t *match);

#endif
