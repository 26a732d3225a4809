/* Owns the division of a conversation into prompt calls and steps. Must not know who is measured
 * on it. */
#include "run/replay.h"

#include "run/marks.h"

#include <string.h>

/* Positions and limits follow from the replies and what is fed of them. */
static void settle(struct kvg_replay *r)
{
    r->n_max = r->n_used = r->n_call_max = r->n_scored = 0;
    for (size_t t = 0; t < r->n_turns; t++) {
        r->n_scored += r->turns[t].n_scored;
        if (r->turns[t].n_scored || r->turns[t].n_fed)
            r->n_used = t + 1;
    }
    for (size_t t = 0; t < r->n_turns; t++) {
        struct kvg_replay_turn *u = &r->turns[t];
        const struct kvg_replay_turn *p = u->in->parent < 0 ? NULL : &r->turns[u->in->parent];
        u->begin = u->in->cuts ? u->in->start : p ? p->begin + p->in->n_prompt + p->n_reply : 0;
        if (t >= r->n_used)
            continue;
        int is_last = t + 1 == r->n_used;
        size_t call = u->in->n_prompt;
        if (t && !u->in->rewinds)
            call += r->turns[t - 1].n_reply;
        size_t end = u->begin + u->in->n_prompt + (is_last ? u->n_fed : u->n_reply);
        r->n_max = end > r->n_max ? end : r->n_max;
        r->n_call_max = call > r->n_call_max ? call : r->n_call_max;
    }
}

int kvg_replay_init(struct kvg_replay *r, const struct kvg_item_tokens *item, struct kvg_arena *a,
                    struct kvg_err *err)
{
    memset(r, 0, sizeof *r);
    r->item = item;
    r->n_turns = item->n_turns;
    r->turns = kvg_arena_array(a, r->n_turns, sizeof *r->turns);
    r->spans = kvg_arena_array(a, kvg_marks_room(item) + 1, sizeof *r->spans);
    if (!r->turns || !r->spans)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for item '%s'", item->item->id);
    for (size_t t = 0; t < r->n_turns; t++)
        r->turns[t] = (struct kvg_replay_turn){.in = &item->turns[t],
                                               .reply = item->turns[t].reply,
                                               .n_reply = item->turns[t].n_reply};
    settle(r);
    return KVG_OK;
}

void kvg_replay_set_reply(struct kvg_replay *r, size_t turn, const int32_t *reply, size_t n)
{
    r->turns[turn].reply = reply;
    r->turns[turn].n_reply = n;
    settle(r);
}

void kvg_replay_score_turn(struct kvg_replay *r, size_t turn, size_t n)
{
    r->turns[turn].n_scored = n;
    r->turns[turn].n_fed = n ? n - 1 : 0;
    settle(r);
}

int kvg_replay_score(struct kvg_replay *r, size_t limit, struct kvg_arena *a, struct kvg_err *err)
{
    size_t *cap = kvg_arena_array(a, 2 * r->n_turns, sizeof *cap);
    if (!cap)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for item '%s'", r->item->item->id);
    size_t *out = cap + r->n_turns;
    for (size_t t = 0; t < r->n_turns; t++)
        cap[t] = r->turns[t].n_reply;
    kvg_spread_tokens(limit, cap, r->n_turns, out);
    for (size_t t = 0; t < r->n_turns; t++)
        kvg_replay_score_turn(r, t, out[t]);
    return KVG_OK;
}

void kvg_replay_step_timed(struct kvg_replay *r)
{
    for (size_t t = 0; t < r->n_turns; t++) {
        size_t n = r->turns[t].in->n_timed;
        r->turns[t].n_scored = 0;
        r->turns[t].n_fed = n < r->turns[t].n_reply ? n : r->turns[t].n_reply;
    }
    settle(r);
}

void kvg_replay_score_planned(struct kvg_replay *r)
{
    for (size_t t = 0; t < r->n_turns; t++) {
        r->turns[t].n_scored = r->turns[t].in->n_scored;
        r->turns[t].n_fed = kvg_turn_steps(r->turns[t].in);
    }
    settle(r);
}

size_t kvg_replay_prompt(const struct kvg_replay *r, size_t turn, int32_t *out)
{
    const struct kvg_replay_turn *u = &r->turns[turn];
    size_t n = 0;
    if (turn && !u->in->rewinds) {
        const struct kvg_replay_turn *b = &r->turns[turn - 1];
        n = b->n_reply - b->n_fed;
        if (n)
            memcpy(out, b->reply + b->n_fed, n * sizeof *out);
    }
    memcpy(out + n, u->in->prompt, u->in->n_prompt * sizeof *out);
    return n + u->in->n_prompt;
}

size_t kvg_replay_pos(const struct kvg_replay *r, size_t turn, size_t j)
{
    return r->turns[turn].begin + r->turns[turn].in->n_prompt + j;
}

size_t kvg_replay_question(const struct kvg_replay *r, size_t turn)
{
    const struct kvg_turn_tokens *in = r->turns[turn].in;
    size_t n = in->question;
    if (turn && !in->rewinds)
        n += r->turns[turn - 1].n_reply - r->turns[turn - 1].n_fed;
    return n;
}

static size_t begin_of(const void *replay, size_t turn)
{
    const struct kvg_replay *r = replay;
    return r->turns[turn].begin;
}

void kvg_replay_mark(const struct kvg_replay *r, size_t turn, struct kvg_text *text)
{
    text->n_spans = kvg_marks_path(r->item, turn, begin_of, r, r->spans);
    text->spans = r->spans;
    text->question = r->turns[turn].begin + r->turns[turn].in->question;
}
