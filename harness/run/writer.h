/* Streams that feed on their own output: greedy replies to an item's prompts, several streams in
 * lockstep, each with its own history. A reply ends at an end-of-text token, at the limit, or in a
 * loop (16 tokens or fewer repeated four times in a row). Must not know baselines or metrics. */
#ifndef KVG_RUN_WRITER_H
#define KVG_RUN_WRITER_H

#include "run/rig.h"
#include "run/tokens.h"

struct kvg_written_turn {
    int32_t *tokens; /* [n] the choices, an end-of-text token included */
    size_t n;
    size_t n_reply; /* without the end-of-text token */
    size_t begin;   /* position of the prompt's first token */
    enum kvg_finish finish;
};

/* Replies of one stream, in the rig's arena. */
struct kvg_written {
    struct kvg_written_turn *turns; /* [n_turns] */
    size_t n_turns;
};

struct kvg_writer {
    struct kvg_slot **slots; /* [n], reset; turns and store readings go to their records */
    size_t n;                /* <= max_streams of the rig */
    const struct kvg_item_tokens *item;
    size_t limit;            /* tokens of a reply, >= 1 */
    int unseen;              /* 1: compression is due before each question */
    struct kvg_written *out; /* [n] filled */
    /* Called with the rows of rig->hidden of each step, before a token is chosen: row i belongs to
     * slots[which[i]], whose choice will be number j of `turn`. May be NULL. */
    int (*on_rows)(void *arg, size_t turn, size_t j, const size_t *which, size_t n_rows,
                   struct kvg_err *err);
    void *arg;
};

/* A stream that would run out of context ends with rec.error set; the others go on. */
int kvg_writer_run(struct kvg_rig *rig, struct kvg_writer *w, struct kvg_err *err);

/* 1 when v[n] ends in a loop. */
int kvg_writer_loops(const int32_t *v, size_t n);

#endif
