/* Owns the causal passes of the baseline. Must not know what its rows are compared with. */
#include "run/baseline.h"

#include "run/stop.h"

#include <string.h>

/* The conversation up to a rewind, or to the end: it goes in as one pass. rig->tokens holds it by
 * position, so what a rewind leaves is still there. */
struct path {
    size_t n;
    uint32_t *want; /* positions whose rows are wanted */
    size_t n_want;
};

static void add_turn(struct kvg_rig *rig, const struct kvg_replay *r, size_t t, struct path *p)
{
    const struct kvg_replay_turn *u = &r->turns[t];
    int goes_on = t + 1 < r->n_used && !r->turns[t + 1].in->rewinds;
    size_t n_reply = goes_on ? u->n_reply : u->n_fed;
    p->n = u->begin;
    memcpy(rig->tokens + p->n, u->in->prompt, u->in->n_prompt * sizeof *rig->tokens);
    p->n += u->in->n_prompt;
    /* The row at a position predicts the token behind it. */
    for (size_t j = 0; j < u->n_scored; j++)
        p->want[p->n_want++] = (uint32_t)(p->n + j - 1);
    if (n_reply)
        memcpy(rig->tokens + p->n, u->reply, n_reply * sizeof *rig->tokens);
    p->n += n_reply;
}

static int pass(struct kvg_rig *rig, const struct path *p, float *rows, struct kvg_err *err)
{
    struct kvg_stream *stream = &rig->base.stream;
    int rc = kvg_stop_check(err);
    kvg_stream_reset(stream, 0);
    if (!rc)
        rc = kvg_engine_prompt(rig->engine, &stream, 1, rig->tokens, p->n, 1, p->want, p->n_want,
                               rows, err);
    if (!rc)
        kvg_progress_tokens(rig->pr, p->n, -1);
    return rc;
}

int kvg_baseline_rows(struct kvg_rig *rig, const struct kvg_replay *r, float *rows,
                      struct kvg_err *err)
{
    struct path p = {0};
    size_t done = 0;
    int rc = kvg_rig_helper(rig, &rig->base, KVG_ROLE_BASELINE, err);
    if (rc)
        return rc;
    p.want = kvg_arena_array(&rig->arena, r->n_scored + 1, sizeof *p.want);
    if (!p.want)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the baseline's positions");
    for (size_t t = 0; t < r->n_used && !rc; t++) {
        add_turn(rig, r, t, &p);
        if (t + 1 < r->n_used && !r->turns[t + 1].in->rewinds)
            continue;
        rc = pass(rig, &p, rows + done * rig->n_embd, err);
        done += p.n_want;
        p.n_want = 0;
    }
    return rc;
}
