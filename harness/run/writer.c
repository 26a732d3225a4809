/* Owns greedy replies of streams in lockstep. */
#include "run/writer.h"

#include "run/marks.h"
#include "run/prompt.h"
#include "run/stop.h"

#include <string.h>

enum { LOOP_LENGTH = 16, LOOP_TIMES = 4 };

struct state {
    struct kvg_rig *rig;
    struct kvg_writer *w;
    size_t n_fed[KVG_STREAMS_MAX]; /* of the reply being written */
    int32_t *prompts[KVG_STREAMS_MAX];
    struct kvg_span *spans[KVG_STREAMS_MAX]; /* of each stream's own conversation */
    size_t n_prompt[KVG_STREAMS_MAX];
    size_t active[KVG_STREAMS_MAX]; /* slots still writing this turn */
    size_t n_active;
    float *rows; /* [n, n_embd] in the order of slots */
};

int kvg_writer_loops(const int32_t *v, size_t n)
{
    for (size_t len = 1; len <= LOOP_LENGTH && LOOP_TIMES * len <= n; len++) {
        const int32_t *tail = v + n - LOOP_TIMES * len;
        if (!memcmp(tail, tail + len, (LOOP_TIMES - 1) * len * sizeof *v))
            return 1;
    }
    return 0;
}

static int is_dead(const struct state *s, size_t i)
{
    return s->w->slots[i]->rec.error != NULL;
}

static int alloc_all(struct state *s, struct kvg_err *err)
{
    struct kvg_arena *a = &s->rig->arena;
    const struct kvg_item_tokens *item = s->w->item;
    size_t longest = 0;
    for (size_t t = 0; t < item->n_turns; t++)
        longest = item->turns[t].n_prompt > longest ? item->turns[t].n_prompt : longest;
    int ok = (s->rows = kvg_arena_array(a, s->w->n * s->rig->n_embd, sizeof *s->rows)) != NULL;
    for (size_t i = 0; i < s->w->n && ok; i++) {
        struct kvg_written *out = &s->w->out[i];
        s->prompts[i] = kvg_arena_array(a, longest + s->w->limit, sizeof *s->prompts[i]);
        s->spans[i] = kvg_arena_array(a, kvg_marks_room(item) + 1, sizeof *s->spans[i]);
        out->n_turns = item->n_turns;
        out->turns = kvg_arena_array(a, item->n_turns, sizeof *out->turns);
        ok = s->prompts[i] && s->spans[i] && out->turns;
        for (size_t t = 0; t < item->n_turns && ok; t++) {
            out->turns[t].tokens = kvg_arena_array(a, s->w->limit, sizeof(int32_t));
            ok = out->turns[t].tokens != NULL;
        }
    }
    return ok ? KVG_OK : KVG_FAIL(err, KVG_ENOMEM, "out of memory for replies");
}

/* What a stream gets before it writes reply t: what it has not fed of its last reply, the prompt.
 */
static void make_prompt(struct state *s, size_t i, size_t t)
{
    const struct kvg_turn_tokens *u = &s->w->item->turns[t];
    size_t n = 0;
    if (t && !u->rewinds) {
        const struct kvg_written_turn *b = &s->w->out[i].turns[t - 1];
        n = b->n_reply - s->n_fed[i];
        memcpy(s->prompts[i], b->tokens + s->n_fed[i], n * sizeof(int32_t));
    }
    memcpy(s->prompts[i] + n, u->prompt, u->n_prompt * sizeof(int32_t));
    s->n_prompt[i] = n + u->n_prompt;
}

/* Where reply t's prompt begins in a stream's own conversation. */
static size_t begin_of(const struct state *s, size_t i, size_t t)
{
    int32_t parent = s->w->item->turns[t].parent;
    if (parent < 0)
        return 0;
    const struct kvg_written_turn *b = &s->w->out[i].turns[parent];
    return b->begin + s->w->item->turns[parent].n_prompt + b->n_reply;
}

static size_t begin_of_written(const void *written, size_t turn)
{
    const struct kvg_written *w = written;
    return w->turns[turn].begin;
}

static void mark(struct state *s, size_t i, size_t t)
{
    struct kvg_text *text = &s->w->slots[i]->stream.text;
    const struct kvg_written *out = &s->w->out[i];
    text->n_spans = kvg_marks_path(s->w->item, t, begin_of_written, out, s->spans[i]);
    text->spans = s->spans[i];
    text->question = out->turns[t].begin + s->w->item->turns[t].question;
}

static int begin_turn(struct state *s, size_t i, size_t t, struct kvg_err *err)
{
    struct kvg_slot *slot = s->w->slots[i];
    const struct kvg_turn_tokens *u = &s->w->item->turns[t];
    struct kvg_written_turn *out = &s->w->out[i].turns[t];
    struct kvg_turn_record *rec = kvg_record_turn(&slot->rec);
    if (!rec)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the turns of a cell");
    make_prompt(s, i, t);
    out->begin = begin_of(s, i, t);
    size_t need = out->begin + u->n_prompt + s->w->limit;
    if (need > s->rig->max_tokens) {
        slot->rec.error = kvg_rig_context_reason(s->rig, need);
        return KVG_OK;
    }
    rec->turn = (uint32_t)t;
    rec->n_prompt = s->n_prompt[i];
    rec->n_evicted = slot->stream.store->count.n_evicted;
    kvg_record_mark(&slot->stream);
    mark(s, i, t);
    return u->rewinds ? kvg_stream_truncate(s->rig->engine, &slot->stream, out->begin, err)
                      : KVG_OK;
}

/* Streams with the same history and the same prompt share the work of it. */
static int same_text(const struct state *s, size_t a, size_t b)
{
    const struct kvg_stream *x = &s->w->slots[a]->stream, *y = &s->w->slots[b]->stream;
    return x->n_tokens == y->n_tokens && s->n_prompt[a] == s->n_prompt[b] &&
           !memcmp(x->tokens, y->tokens, x->n_tokens * sizeof *x->tokens) &&
           !memcmp(s->prompts[a], s->prompts[b], s->n_prompt[a] * sizeof(int32_t));
}

/* Feeds the prompt of slot `first` to it and to all of todo[] that have the same text; those leave
 * todo. */
static int prompt_group(struct state *s, size_t t, size_t *todo, size_t *n_todo,
                        struct kvg_err *err)
{
    struct kvg_stream *streams[KVG_STREAMS_MAX];
    size_t who[KVG_STREAMS_MAX], n = 0, left = 0, first = todo[0], e = s->rig->n_embd;
    for (size_t k = 0; k < *n_todo; k++) {
        if (same_text(s, first, todo[k]))
            who[n++] = todo[k];
        else
            todo[left++] = todo[k];
    }
    *n_todo = left;
    for (size_t k = 0; k < n; k++)
        streams[k] = &s->w->slots[who[k]]->stream;
    const struct kvg_turn_tokens *u = &s->w->item->turns[t];
    const struct kvg_prompt p = {.streams = streams,
                                 .n_streams = n,
                                 .tokens = s->prompts[first],
                                 .n = s->n_prompt[first],
                                 .n_context = s->n_prompt[first] - u->n_prompt + u->question,
                                 .unseen = s->w->unseen,
                                 .hidden = s->rig->hidden};
    int rc = kvg_stop_check(err);
    if (!rc)
        rc = kvg_prompt_feed(s->rig->engine, &p, err);
    for (size_t k = 0; k < n && !rc; k++) {
        memcpy(s->rows + who[k] * e, s->rig->hidden + k * e, e * sizeof *s->rows);
        rc = kvg_record_check(streams[k], err);
    }
    kvg_progress_tokens(s->rig->pr, n * s->n_prompt[first], -1);
    return rc;
}

static int prompt_all(struct state *s, size_t t, struct kvg_err *err)
{
    size_t todo[KVG_STREAMS_MAX], n = 0;
    int rc = KVG_OK;
    s->n_active = 0;
    for (size_t i = 0; i < s->w->n && !rc; i++) {
        if (!is_dead(s, i))
            rc = begin_turn(s, i, t, err);
        s->n_fed[i] = 0;
        if (!is_dead(s, i))
            todo[n++] = s->active[s->n_active++] = i;
    }
    while (n && !rc)
        rc = prompt_group(s, t, todo, &n, err);
    return rc;
}

/* Chooses the next token of every active stream from its row; those that end leave. */
static int choose(struct state *s, size_t t, size_t j, struct kvg_err *err)
{
    const struct kvg_tokenizer *tok = s->rig->plan->model->tok;
    size_t e = s->rig->n_embd, n = s->n_active, left = 0;
    for (size_t k = 0; k < n; k++)
        memcpy(s->rig->hidden + k * e, s->rows + s->active[k] * e, e * sizeof *s->rows);
    int rc = s->w->on_rows ? s->w->on_rows(s->w->arg, t, j, s->active, n, err) : KVG_OK;
    for (size_t k = 0; k < n; k++) /* the callback may have used the scratch */
        memcpy(s->rig->hidden + k * e, s->rows + s->active[k] * e, e * sizeof *s->rows);
    if (!rc)
        kvg_engine_logits(s->rig->engine, s->rig->hidden, n, s->rig->logits);
    for (size_t k = 0; k < n && !rc; k++) {
        size_t i = s->active[k];
        struct kvg_written_turn *out = &s->w->out[i].turns[t];
        int32_t token = 0;
        rc = kvg_drift_argmax(s->rig->logits + k * s->rig->n_vocab, s->rig->n_vocab, &token, err);
        out->tokens[out->n++] = token;
        out->n_reply = out->n;
        s->w->slots[i]->rec.n_forward++;
        if (kvg_tokenizer_is_eog(tok, token)) {
            out->finish = KVG_FINISH_EOS;
            out->n_reply--;
        } else if (kvg_writer_loops(out->tokens, out->n)) {
            out->finish = KVG_FINISH_LOOP;
        } else if (out->n == s->w->limit) {
            out->finish = KVG_FINISH_LIMIT;
        } else {
            s->active[left++] = i;
        }
    }
    s->n_active = left;
    return rc;
}

static int step_all(struct state *s, size_t t, struct kvg_err *err)
{
    struct kvg_stream *streams[KVG_STREAMS_MAX];
    int32_t tokens[KVG_STREAMS_MAX];
    size_t e = s->rig->n_embd;
    for (size_t k = 0; k < s->n_active; k++) {
        size_t i = s->active[k];
        streams[k] = &s->w->slots[i]->stream;
        tokens[k] = s->w->out[i].turns[t].tokens[s->n_fed[i]++];
    }
    int rc = kvg_stop_check(err);
    if (!rc)
        rc = kvg_engine_step(s->rig->engine, streams, s->n_active, tokens, s->rig->hidden, err);
    for (size_t k = 0; k < s->n_active && !rc; k++)
        memcpy(s->rows + s->active[k] * e, s->rig->hidden + k * e, e * sizeof *s->rows);
    kvg_progress_tokens(s->rig->pr, s->n_active, -1);
    return rc;
}

static int end_turn(struct state *s, size_t i, size_t t, struct kvg_err *err)
{
    struct kvg_slot *slot = s->w->slots[i];
    struct kvg_turn_record *rec = &slot->rec.turns[slot->rec.n_turns - 1];
    const struct kvg_written_turn *out = &s->w->out[i].turns[t];
    int rc = KVG_OK;
    if (t + 1 < s->w->item->n_turns)
        rc = kvg_engine_end_turn(s->rig->engine, &slot->stream, err);
    rec->finish = out->finish;
    rec->n_reply = out->n_reply;
    kvg_record_peak(&slot->rec, rec, &slot->stream, s->rig->engine);
    kvg_record_turn_end(rec, &slot->stream);
    rec->n_evicted = slot->stream.store->count.n_evicted - rec->n_evicted;
    slot->rec.finish = t == 0 || slot->rec.finish == out->finish ? out->finish : KVG_FINISH_MIXED;
    return rc;
}

static int write_turn(struct state *s, size_t t, struct kvg_err *err)
{
    int rc = prompt_all(s, t, err);
    for (size_t j = 0; s->n_active && !rc; j++) {
        rc = choose(s, t, j, err);
        if (!rc && s->n_active)
            rc = step_all(s, t, err);
    }
    for (size_t i = 0; i < s->w->n && !rc; i++)
        if (!is_dead(s, i))
            rc = end_turn(s, i, t, err);
    return rc;
}

int kvg_writer_run(struct kvg_rig *rig, struct kvg_writer *w, struct kvg_err *err)
{
    struct state s = {.rig = rig, .w = w};
    int rc = alloc_all(&s, err);
    for (size_t t = 0; t < w->item->n_turns && !rc; t++)
        rc = write_turn(&s, t, err);
    for (size_t i = 0; i < w->n && !rc; i++) {
        if (is_dead(&s, i))
            continue;
        rc = kvg_record_check(&w->slots[i]->stream, err);
        if (!rc)
            rc = kvg_record_end(&w->slots[i]->rec, &w->slots[i]->stream, err);
    }
    return rc;
}
