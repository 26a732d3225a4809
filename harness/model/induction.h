/* A constructed model of the llama architecture that recalls any token exactly. Given a text with
 * `A B ... A` it predicts B with certainty at any length up to its context, so whatever it forgets
 * under a strategy the cache has lost. Its weights are set by hand, not trained:
 *
 *   layer 1  a previous-token head: constant queries and keys on the fast rotary pairs meet best at
 *            an offset of one; it copies the previous token's code into the residual stream
 *   layer 2  a content match on the slow pairs: the query is the code of the present token, a key
 * is the code of the token before its own; the value is the code of its own token
 *
 * In both layers the second KV head only looks at the previous token and writes nothing, so budgets
 * by head have something to share out. */
#ifndef KVG_MODEL_INDUCTION_H
#define KVG_MODEL_INDUCTION_H

#include "base/err.h"
#include "model/model.h"

#include <stddef.h>
#include <stdint.h>

enum {
    KVG_INDUCTION_WORDS = 256, /* ids 0..255: any may be a key, a value or filler */
    KVG_INDUCTION_BEGIN =
        KVG_INDUCTION_WORDS + 1, /* begins a text, so that no word is at position 0 */
    KVG_INDUCTION_ASKS = KVG_INDUCTION_WORDS + 3,
    KVG_INDUCTION_VOCAB = KVG_INDUCTION_ASKS + KVG_INDUCTION_WORDS,
    KVG_INDUCTION_ATTENTION = 2 * 2 * 64 /* layers x heads x channels, what attention costs */
};

/* A token that asks for what followed `word`, as the word itself would, but is not that word: it
 * can stand in a prompt without making another pair. */
static inline int32_t kvg_induction_ask(int32_t word)
{
    return KVG_INDUCTION_ASKS + word;
}

/* The model as a GGUF file. */
int kvg_induction_save(const char *path, size_t n_ctx, struct kvg_err *err);
/* The model, opened; its file is a temporary one that is gone already. */
int kvg_induction_open(struct kvg_model **m, size_t n_ctx, struct kvg_err *err);

#endif
