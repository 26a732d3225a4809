/* One prompt of a turn on several streams, in one or two calls: compression is due before the
 * question when it must not see it. Must not know what the rows are compared with. */
#ifndef KVG_RUN_PROMPT_H
#define KVG_RUN_PROMPT_H

#include "model/engine.h"

struct kvg_prompt {
    struct kvg_stream **streams; /* [n_streams] with spans and question set */
    size_t n_streams;
    const int32_t *tokens; /* [n], and behind them [n_future] tokens that are known to follow */
    size_t n, n_future;
    size_t n_context;        /* tokens before the question */
    int unseen;              /* 1: compression is due there; 0: at the prompt's end */
    float *hidden;           /* [n_streams, n_embd] receives the row of the last token */
    struct kvg_times *times; /* NULL, or receives what the calls took by phase */
};

int kvg_prompt_feed(struct kvg_engine *e, const struct kvg_prompt *p, struct kvg_err *err);

/* What follows is known: token j of a reply [n] has been fed or not. */
void kvg_prompt_set_future(struct kvg_stream *s, const int32_t *future, size_t n);

#endif
