/* Owns the way from an item's text to token ids; must not know what is done with them. */
#include "run/tokens.h"

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
    t->parent = turn->parent;
    t->rewinds = turn->rewind_to >= 0;
    t->has_reply = turn->reply != NULL;
    kvg_template_prompt(chat, turn->parent < 0 ? 0 : 1, it->item->system, turn->user, &pieces);
    int rc = encode(m, &pieces, turn->parent < 0, &t->prompt, &t->n_prompt, a, err);
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
