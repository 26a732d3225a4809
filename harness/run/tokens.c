/* Owns the way from an item's text to token ids; must not know what is done with them. */
#include "run/tokens.h"

#include "run/marks.h"

#include <string.h>

void kvg_spread_tokens(size_t limit, const size_t *cap, size_t n, size_t *out)
{
    size_t left = limit ? limit : SIZE_MAX;
    memset(out, 0, n * sizeof *out);
    for (;;) {
        size_t open = 0;
        for (size_t i = 0; i < n; i++)
            open += out[i] < cap[i];
        if (open == 0 || left == 0)
            return;
        size_t share = left / open, extra = left % open;
        for (size_t i = 0; i < n; i++) {
            size_t room = cap[i] - out[i];
            if (room == 0)
                continue;
            size_t give = share + (extra > 0);
            extra -= extra > 0;
            if (give > room)
                give = room;
            out[i] += give;
            left -= give;
        }
    }
}

/* Encodes pieces twice: to count, and to fill memory of that size. */
static int encode(const struct kvg_model *m, const struct kvg_template_pieces *p, int begin,
                  const int32_t **ids, size_t *n, struct kvg_arena *a, struct kvg_err *err)
{
    struct kvg_err counting;
    int rc = kvg_template_encode(m->tok, p, begin, NULL, 0, n, &counting);
    if (rc && rc != KVG_ELIMIT) {
        *err = counting;
        return rc;
    }
    int32_t *v = kvg_arena_array(a, *n + 1, sizeof *v);
    if (!v)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    *ids = v;
    return kvg_template_encode(m->tok, p, begin, v, *n, n, err);
}

static int tokenise_turn(struct kvg_item_tokens *it, size_t i, const struct kvg_model *m,
                         const struct kvg_template *chat, struct kvg_arena *a, struct kvg_err *err)
{
    const struct kvg_turn *turn = &it->item->turns[i];
    struct kvg_turn_tokens *t = &it->turns[i];
    struct kvg_template_pieces pieces;
    const char *system = turn->parent >= 0 ? NULL : it->item->system;
    if (turn->parent < 0 && !system && chat->default_system.len)
        system = chat->default_system.s;
    t->parent = turn->parent;
    t->rewinds = turn->rewind_to >= 0;
    t->has_reply = turn->reply != NULL;
    kvg_template_prompt(chat, turn->parent < 0 ? 0 : 1, it->item->system, turn->user, &pieces);
    int rc = encode(m, &pieces, turn->parent < 0, &t->prompt, &t->n_prompt, a, err);
    if (!rc)
        rc = kvg_marks_make(t, &pieces, system, turn, it->item, m->tok, a, err);
    if (!rc && t->has_reply) {
        kvg_template_reply(chat, turn->reply, &pieces);
        rc = encode(m, &pieces, 0, &t->reply, &t->n_reply, a, err);
    }
    return rc ? kvg_err_prefix(err, "item '%s' turn %zu", it->item->id, i) : 0;
}

static size_t last_used(const struct kvg_item_tokens *it, int timed)
{
    size_t last = 0;
    for (size_t i = 0; i < it->n_turns; i++)
        if (timed ? it->turns[i].n_timed : it->turns[i].n_scored)
            last = i;
    return last;
}

static int spread(struct kvg_item_tokens *it, size_t reply_tokens, size_t time_tokens,
                  size_t unknown, struct kvg_arena *a, struct kvg_err *err)
{
    size_t n = it->n_turns;
    size_t *cap = kvg_arena_array(a, 2 * n, sizeof *cap);
    if (!cap)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        cap[i] = it->turns[i].has_reply ? it->turns[i].n_reply : unknown;
    kvg_spread_tokens(reply_tokens, cap, n, cap + n);
    for (size_t i = 0; i < n; i++)
        it->turns[i].n_scored = cap[n + i];
    kvg_spread_tokens(time_tokens, cap, n, cap + n);
    for (size_t i = 0; i < n; i++)
        it->turns[i].n_timed = cap[n + i];
    it->last_scored = last_used(it, 0);
    it->last_timed = last_used(it, 1);
    return 0;
}

int kvg_item_tokenise(struct kvg_item_tokens *out, const struct kvg_workload *w,
                      const struct kvg_item *item, const struct kvg_model *m,
                      const struct kvg_template *chat, size_t reply_tokens, size_t time_tokens,
                      size_t unknown_tokens, size_t max_turns, struct kvg_arena *a,
                      struct kvg_err *err)
{
    *out = (struct kvg_item_tokens){.workload = w, .item = item, .n_turns = item->n_turns};
    if (max_turns && max_turns < out->n_turns)
        out->n_turns = max_turns;
    out->turns = kvg_arena_array(a, out->n_turns, sizeof *out->turns);
    if (!out->turns)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < out->n_turns; i++) {
        struct kvg_turn_tokens *t = &out->turns[i];
        int rc = tokenise_turn(out, i, m, chat, a, err);
        if (rc)
            return rc;
        if (t->parent >= 0) {
            const struct kvg_turn_tokens *p = &out->turns[t->parent];
            t->start = p->start + p->n_prompt + (p->has_reply ? p->n_reply : unknown_tokens);
        }
        size_t end = t->start + t->n_prompt + (t->has_reply ? t->n_reply : unknown_tokens);
        if (end > out->n_total)
            out->n_total = end;
    }
    return spread(out, reply_tokens, time_tokens, unknown_tokens, a, err);
}

/* ---- two questions after one context ---- */

static const struct kvg_turn_tokens *find_second(const struct kvg_item_tokens *it, size_t *index)
{
    for (size_t i = 1; i < it->n_turns; i++)
        if (it->turns[i].parent == 0 && !it->turns[i].rewinds && it->turns[i].has_reply) {
            *index = i;
            return &it->turns[i];
        }
    return NULL;
}

/* The user message and what closes it, as they follow the context inside its message. */
static int ask_again(struct kvg_turn_tokens *t, const struct kvg_item *item,
                     const struct kvg_turn *turn, const struct kvg_model *m,
                     const struct kvg_template *chat, struct kvg_arena *a, struct kvg_err *err)
{
    struct kvg_template_pieces all, rest = {.n = 0};
    size_t n = strlen(turn->user), from = 0;
    kvg_template_prompt(chat, 1, NULL, turn->user, &all);
    while (from < all.n && !(all.v[from].s >= turn->user && all.v[from].s < turn->user + n))
        from++;
    for (; from < all.n; from++)
        rest.v[rest.n++] = all.v[from];
    int rc = encode(m, &rest, 0, &t->prompt, &t->n_prompt, a, err);
    return rc ? rc : kvg_marks_make(t, &rest, NULL, turn, item, m->tok, a, err);
}

static void count_second(struct kvg_item_tokens *out, const struct kvg_turn_tokens *turns)
{
    out->last_timed = out->last_scored = out->n_turns - 1;
    for (size_t i = 0; i < out->n_turns; i++) {
        size_t end = turns[i].start + turns[i].n_prompt + turns[i].n_reply;
        out->n_total = end > out->n_total ? end : out->n_total;
    }
}

int kvg_item_second(struct kvg_item_tokens out[2], const struct kvg_item_tokens *it,
                    const struct kvg_model *m, const struct kvg_template *chat, size_t reply_tokens,
                    struct kvg_arena *a, struct kvg_err *err)
{
    size_t second = 0, caps[2], n_scored[2];
    const struct kvg_turn_tokens *next = find_second(it, &second);
    if (!it->turns[0].has_context || !it->turns[0].has_reply || !next)
        return KVG_ENONE;
    struct kvg_turn_tokens *turns = kvg_arena_array(a, 3, sizeof *turns);
    if (!turns)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    caps[0] = it->turns[0].n_reply;
    caps[1] = next->n_reply;
    kvg_spread_tokens(reply_tokens, caps, 2, n_scored);
    turns[0] = turns[1] = it->turns[0];
    turns[0].n_scored = n_scored[0];
    turns[1].n_scored = 0;
    turns[1].steps_whole = 1;
    turns[2] = (struct kvg_turn_tokens){.reply = next->reply,
                                        .n_reply = next->n_reply,
                                        .start = it->turns[0].question,
                                        .rewinds = 1,
                                        .cuts = 1,
                                        .has_reply = 1,
                                        .n_scored = n_scored[1]};
    int rc = ask_again(&turns[2], it->item, &it->item->turns[second], m, chat, a, err);
    for (size_t k = 0; k < 2; k++) {
        out[k] = (struct kvg_item_tokens){
            .workload = it->workload, .item = it->item, .turns = turns + k, .n_turns = k + 1};
        count_second(&out[k], out[k].turns);
    }
    return rc ? kvg_err_prefix(err, "item '%s'", it->item->id) : 0;
}
