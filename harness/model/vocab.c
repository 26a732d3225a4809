/* Owns finding a token by its text; must not know how texts become tokens. */
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static int same(const struct kvg_gguf_str *v, const char *a, size_t na, const char *b, size_t nb)
{
    return v->n == na + nb && !memcmp(v->s, a, na) && !memcmp(v->s + na, b, nb);
}

static size_t slot_of(const struct kvg_tokenizer *t, const char *a, size_t na, const char *b,
                      size_t nb)
{
    size_t mask = t->n_slots - 1;
    size_t h = (size_t)kvg_hash_fnv(kvg_hash_fnv(KVG_FNV_INIT, a, na), b, nb) & mask;
    while (t->slots[h] >= 0 && !same(&t->tokens[t->slots[h]], a, na, b, nb))
        h = (h + 1) & mask;
    return h;
}

int kvg_vocab_build(struct kvg_tokenizer *t, struct kvg_err *err)
{
    t->n_slots = 64;
    while (t->n_slots < 2 * t->n_vocab)
        t->n_slots *= 2;
    t->slots = malloc(t->n_slots * sizeof *t->slots);
    if (!t->slots)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for a vocabulary of %zu tokens",
                        t->n_vocab);
    for (size_t i = 0; i < t->n_slots; i++)
        t->slots[i] = -1;
    /* Of two equal texts the later id wins, as in the libraries that wrote the files. */
    for (size_t i = 0; i < t->n_vocab; i++)
        t->slots[slot_of(t, t->tokens[i].s, t->tokens[i].n, "", 0)] = (int32_t)i;
    return 0;
}

int32_t kvg_vocab_find(const struct kvg_tokenizer *t, const char *a, size_t na, const char *b,
                       size_t nb)
{
    return t->slots[slot_of(t, a, na, b, nb)];
}
