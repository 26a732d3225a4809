/* Owns the loop over turns and steps of forced replies. Must not know cells or arms. */
#include "run/lockstep.h"

#include "run/prompt.h"
#include "run/stop.h"

#include <string.h>

struct state {
    struct kvg_rig *rig;
    struct kvg_lockstep *run;
    struct kvg_stream *streams[KVG_STREAMS_MAX];
    size_t n_done; /* scored steps so far */
};

static int step_record(struct state *s, size_t turn, size_t j, struct kvg_drift **drift,
                       struct kvg_err *err)
{
    const struct kvg_replay *r = s->run->replay;
    for (size_t i = 0; i < s->run->n; i++) {
        struct kvg_step_record *rec = kvg_record_step(&s->run->slots[i]->rec);
        if (!rec)
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the steps of a cell");
        rec->turn = (uint32_t)turn;
        rec->step = (uint32_t)j;
        rec->pos = (uint32_t)kvg_replay_pos(r, turn, j);
        rec->target = r->turns[turn].reply[j];
        rec->has_drift = 1;
        drift[i] = &rec->drift;
        s->run->slots[i]->rec.n_forward++;
    }
    return KVG_OK;
}

/* Scores the rows in rig->hidden as step j of a turn. */
static int score(struct state *s, size_t turn, size_t j, struct kvg_err *err)
{
    struct kvg_drift *drift[KVG_STREAMS_MAX];
    int32_t targets[KVG_STREAMS_MAX];
    size_t e = s->rig->n_embd, at = s->n_done++;
    for (size_t i = 0; i < s->run->n; i++) {
        targets[i] = s->run->replay->turns[turn].reply[j];
        if (s->run->saved && s->run->saved[i])
            memcpy(s->run->saved[i] + at * e, s->rig->hidden + i * e, e * sizeof(float));
    }
    int rc = step_record(s, turn, j, drift, err);
    if (!rc)
        rc = kvg_rig_drift(s->rig, s->run->base + at * e, s->run->n, targets, drift, err);
    return rc;
}

static int check_all(struct state *s, struct kvg_err *err)
{
    int rc = KVG_OK;
    for (size_t i = 0; i < s->run->n && !rc; i++)
        rc = kvg_record_check(s->streams[i], err);
    return rc;
}

static int begin_turn(struct state *s, size_t turn, size_t n_prompt, struct kvg_err *err)
{
    const struct kvg_replay_turn *u = &s->run->replay->turns[turn];
    for (size_t i = 0; i < s->run->n; i++) {
        struct kvg_turn_record *t = kvg_record_turn(&s->run->slots[i]->rec);
        if (!t)
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the turns of a cell");
        t->turn = (uint32_t)turn;
        t->n_prompt = n_prompt;
        t->n_reply = u->n_reply;
        t->finish = KVG_FINISH_GIVEN;
        t->n_evicted = s->streams[i]->store->count.n_evicted;
        kvg_record_mark(s->streams[i]);
        kvg_replay_mark(s->run->replay, turn, &s->streams[i]->text);
        int rc = kvg_rig_rewind(s->rig, s->streams[i], u, err);
        if (rc)
            return rc;
    }
    return KVG_OK;
}

static int end_turn(struct state *s, size_t turn, struct kvg_err *err)
{
    int is_last = turn + 1 == s->run->replay->n_used, rc = KVG_OK;
    for (size_t i = 0; i < s->run->n && !rc; i++) {
        struct kvg_record *rec = &s->run->slots[i]->rec;
        struct kvg_turn_record *t = &rec->turns[rec->n_turns - 1];
        if (!is_last)
            rc = kvg_engine_end_turn(s->rig->engine, s->streams[i], err);
        kvg_record_peak(rec, t, s->streams[i], s->rig->engine);
        kvg_record_turn_end(t, s->streams[i]);
        t->n_evicted = s->streams[i]->store->count.n_evicted - t->n_evicted;
    }
    return rc;
}

static int prompt(struct state *s, size_t turn, size_t n, struct kvg_err *err)
{
    const struct kvg_prompt p = {.streams = s->streams,
                                 .n_streams = s->run->n,
                                 .tokens = s->rig->tokens,
                                 .n = n,
                                 .n_future = kvg_rig_add_future(s->rig, s->run->replay, turn, n),
                                 .n_context = kvg_replay_question(s->run->replay, turn),
                                 .unseen = s->run->unseen,
                                 .hidden = s->rig->hidden};
    int rc = kvg_stop_check(err);
    if (!rc)
        rc = kvg_prompt_feed(s->rig->engine, &p, err);
    if (!rc)
        rc = check_all(s, err);
    for (size_t i = 0; i < s->run->n && !rc; i++) {
        struct kvg_record *rec = &s->run->slots[i]->rec;
        kvg_record_prompt_end(&rec->turns[rec->n_turns - 1], s->streams[i]);
    }
    int is_last = turn + 1 == s->run->replay->n_used;
    for (size_t i = 0; i < s->run->n && !rc && is_last && s->run->maps_kept; i++)
        rc = kvg_record_kept(&s->run->slots[i]->rec, s->streams[i], turn, err);
    return rc;
}

static int step(struct state *s, size_t turn, size_t j, struct kvg_err *err)
{
    int32_t tokens[KVG_STREAMS_MAX];
    const struct kvg_replay_turn *u = &s->run->replay->turns[turn];
    for (size_t i = 0; i < s->run->n; i++) {
        tokens[i] = u->reply[j];
        kvg_prompt_set_future(s->streams[i], u->reply + j + 1, u->n_reply - j - 1);
    }
    int rc = kvg_stop_check(err);
    return rc ? rc
              : kvg_engine_step(s->rig->engine, s->streams, s->run->n, tokens, s->rig->hidden, err);
}

static void report(struct state *s, size_t n_tokens)
{
    size_t all = s->run->replay->n_scored;
    kvg_progress_tokens(s->rig->pr, n_tokens * s->run->n,
                        all ? (double)s->n_done / (double)all : -1);
}

static int run_turn(struct state *s, size_t turn, struct kvg_err *err)
{
    const struct kvg_replay_turn *u = &s->run->replay->turns[turn];
    size_t n = kvg_replay_prompt(s->run->replay, turn, s->rig->tokens);
    int rc = begin_turn(s, turn, n, err);
    if (!rc)
        rc = prompt(s, turn, n, err);
    report(s, n);
    for (size_t j = 0; j <= u->n_fed && !rc; j++) {
        if (j)
            rc = step(s, turn, j - 1, err);
        if (!rc && j < u->n_scored)
            rc = score(s, turn, j, err);
        report(s, 1);
    }
    return rc ? rc : end_turn(s, turn, err);
}

int kvg_lockstep_run(struct kvg_rig *rig, struct kvg_lockstep *run, struct kvg_err *err)
{
    struct state s = {.rig = rig, .run = run};
    int rc = KVG_OK;
    for (size_t i = 0; i < run->n; i++)
        s.streams[i] = &run->slots[i]->stream;
    for (size_t t = 0; t < run->replay->n_used && !rc; t++)
        rc = run_turn(&s, t, err);
    if (!rc)
        rc = check_all(&s, err);
    for (size_t i = 0; i < run->n && !rc; i++) {
        run->slots[i]->rec.finish = KVG_FINISH_GIVEN;
        rc = kvg_record_end(&run->slots[i]->rec, s.streams[i], err);
    }
    return rc;
}
