/* How an item is replayed: which tokens go in with each prompt, which are fed one by one, which are
 * scored. Stands on the item's tokens (tokens.h); replies are the recorded ones or the baseline's
 * own. Must not know strategies, stores or measurement. */
#ifndef KVG_RUN_REPLAY_H
#define KVG_RUN_REPLAY_H

#include "base/arena.h"
#include "base/err.h"
#include "run/tokens.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_replay_turn {
    const struct kvg_turn_tokens *in;
    const int32_t *reply; /* [n_reply] borrowed */
    size_t n_reply;
    size_t begin;    /* position of the prompt's first token in the conversation */
    size_t n_scored; /* reply tokens that are scored, the first ones */
    size_t n_fed;    /* reply tokens fed one by one; the rest goes in with the next prompt */
};

struct kvg_replay {
    const struct kvg_item_tokens *item;
    struct kvg_replay_turn *turns; /* [n_turns] */
    size_t n_turns;
    size_t n_used;          /* turns up to the last one that is scored or stepped */
    size_t n_scored;        /* over all turns */
    size_t n_max;           /* longest conversation that is fed, in tokens */
    size_t n_call_max;      /* longest prompt call */
    struct kvg_span *spans; /* room for those of a conversation; kvg_replay_mark fills it */
};

/* Takes over the recorded replies where there are any; nothing is scored yet. Memory in `a`.
 * KVG_ENOMEM. */
int kvg_replay_init(struct kvg_replay *r, const struct kvg_item_tokens *item, struct kvg_arena *a,
                    struct kvg_err *err);
/* Another reply for a turn, borrowed. Before scores are set. */
void kvg_replay_set_reply(struct kvg_replay *r, size_t turn, const int32_t *reply, size_t n);

/* What is scored or stepped. Drift lane: `limit` reply tokens are scored over the item (0 = all),
 * the first from the prompt's logits. Time lane: as many steps as the item's tokens say. */
int kvg_replay_score(struct kvg_replay *r, size_t limit, struct kvg_arena *a, struct kvg_err *err);
void kvg_replay_step_timed(struct kvg_replay *r);
/* What the item's tokens say themselves (items of kvg_item_second). */
void kvg_replay_score_planned(struct kvg_replay *r);
/* n targets of a turn are scored: its reply's tokens, and with n = n_reply + 1 what closes it. */
void kvg_replay_score_turn(struct kvg_replay *r, size_t turn, size_t n);

/* The tokens of a turn's prompt call: what was left of the reply before, then the prompt. A turn
 * that rewinds starts from the cut. out has room for n_call_max ids. */
size_t kvg_replay_prompt(const struct kvg_replay *r, size_t turn, int32_t *out);
/* Where in those tokens the turn's question begins. */
size_t kvg_replay_question(const struct kvg_replay *r, size_t turn);
/* Position of reply token j. */
size_t kvg_replay_pos(const struct kvg_replay *r, size_t turn, size_t j);
/* Spans and question of the conversation that ends with a turn's prompt; what lies in r->spans
 * before goes. */
void kvg_replay_mark(const struct kvg_replay *r, size_t turn, struct kvg_text *text);

#endif
