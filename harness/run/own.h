/* The baseline's own replies: written greedily by the strategy with role floor (an exact f32 cache)
 * and verified by one causal pass of the baseline. They are the targets of greedy forced cells and
 * what free replies are compared with. */
#ifndef KVG_RUN_OWN_H
#define KVG_RUN_OWN_H

#include "run/replay.h"
#include "run/writer.h"

struct kvg_own {
    struct kvg_written text;
    const struct kvg_turn_record *turns; /* [text.n_turns] of the stream that wrote it */
    enum kvg_finish finish;
    float *rows;       /* [sum of n, n_embd] baseline rows that predict each choice */
    size_t *first_row; /* [n_turns] row of a turn's first choice */
    const char *error; /* NULL, or why there is no text: the context is too short */
};

/* Everything in the rig's arena. KVG_ECHECK when the causal pass chooses another token and it was
 * no tie (a gap under 1e-4 logits; ties are counted in rig->n_ties). */
int kvg_own_write(struct kvg_rig *rig, const struct kvg_item_tokens *item, size_t limit,
                  struct kvg_own *own, struct kvg_err *err);
/* Gives a replay of the same item these replies. */
void kvg_own_replies(const struct kvg_own *own, struct kvg_replay *r);

#endif
