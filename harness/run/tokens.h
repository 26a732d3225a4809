/* Items as token ids: every turn's prompt and recorded reply with its marks, made once per run with
 * the model's chat template and tokenizer. Must not know strategies or what is measured. */
#ifndef KVG_RUN_TOKENS_H
#define KVG_RUN_TOKENS_H

#include "base/arena.h"
#include "base/err.h"
#include "model/model.h"
#include "strategies/strategy.h"
#include "workloads/workload.h"

#include <stddef.h>
#include <stdint.h>

/* One turn. The two stretches follow each other in the conversation; a reply always begins at a
 * token border, because a model's own reply does. */
struct kvg_turn_tokens {
    const int32_t *prompt; /* [n_prompt] first turn: begin of text and system message; later turns:
                              what closes the reply before (encoded in one go with what follows, as
                              words may cross that border); then user block, header of the reply */
    size_t n_prompt;
    const int32_t *reply; /* [n_reply] the recorded reply; n_reply 0 = none is recorded */
    size_t n_reply;
    size_t start;    /* recorded replies: position of prompt[0]; for a turn that rewinds this is
                        where the conversation is cut */
    int32_t parent;  /* turn before this one, -1 = none */
    int rewinds;     /* 1: cut the conversation to `start` first */
    int cuts;        /* 1, with rewinds: `start` lies inside the prompt of turn `parent`. The
                        cache is cut there whatever the strategy would do with a turn that is taken
                        back: what it threw away stays away */
    int has_reply;   /* 1: a reply is recorded */
    size_t n_scored; /* m_t: drift lane, forced: reply tokens that are scored (n_scored - 1 steps
                        plus the prompt's logits); 0 = the turn is prompt only */
    size_t n_timed;  /* the same in the time lane */
    int steps_whole; /* 1, with n_scored 0: all of the reply is fed step by step all the same */
    const struct kvg_span *spans; /* [n_spans] of the prompt, relative to prompt[0] */
    size_t n_spans;
    size_t question; /* index in prompt of the token where the turn's question begins */
    int has_context; /* 1: something was pasted before the question, which ends the message */
};

struct kvg_item_tokens {
    const struct kvg_workload *workload;
    const struct kvg_item *item;
    struct kvg_turn_tokens *turns;  /* [n_turns] in file order */
    size_t n_turns;                 /* of the item, or the first ones of it */
    size_t n_total;                 /* longest conversation of the item, replies included */
    size_t last_scored, last_timed; /* turn that ends the item in its lane: the last with n > 0 */
};

/* Everything in arena `a`. reply_tokens, time_tokens: limits per item, 0 = all;
 * max_turns: only the first turns, 0 = all. `unknown_tokens`
 * is how long a reply without recorded text is taken to be. */
int kvg_item_tokenise(struct kvg_item_tokens *out, const struct kvg_workload *w,
                      const struct kvg_item *item, const struct kvg_model *m,
                      const struct kvg_template *chat, size_t reply_tokens, size_t time_tokens,
                      size_t unknown_tokens, size_t max_turns, struct kvg_arena *a,
                      struct kvg_err *err);

/* Steps of a turn in the drift lane, forced. */
static inline size_t kvg_turn_steps(const struct kvg_turn_tokens *t)
{
    return t->n_scored ? t->n_scored - 1 : t->steps_whole ? t->n_reply : 0;
}

/* Two questions after one context, each asked where the context ends: the first question with its
 * reply (out[0]), and the second after the conversation was cut back to the context (out[1]; there
 * the first is fed but not scored). The second is the turn that follows the first in the item.
 * KVG_ENONE when the item has no context before a question, no second one, or no recorded replies.
 */
int kvg_item_second(struct kvg_item_tokens out[2], const struct kvg_item_tokens *it,
                    const struct kvg_model *m, const struct kvg_template *chat, size_t reply_tokens,
                    struct kvg_arena *a, struct kvg_err *err);

/* Spreads `limit` (0 = no limit) evenly over n turns that have room for cap[i] each: everyone gets
 * the same, earlier turns the remainder, and what a short reply leaves goes to the others. */
void kvg_spread_tokens(size_t limit, const size_t *cap, size_t n, size_t *out);

#endif
