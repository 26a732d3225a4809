/* Owns the writing and the verification of the baseline's own replies. */
#include "run/own.h"

#include "run/baseline.h"

#include <string.h>

/* Two logits closer than this may change places by rounding alone. */
static const double TIE_LOGITS = 1e-4;

void kvg_own_replies(const struct kvg_own *own, struct kvg_replay *r)
{
    for (size_t t = 0; t < own->text.n_turns; t++)
        kvg_replay_set_reply(r, t, own->text.turns[t].tokens, own->text.turns[t].n_reply);
}

static int verify_row(struct kvg_rig *rig, const float *z, int32_t chosen, size_t turn, size_t j,
                      struct kvg_err *err)
{
    int32_t token;
    int rc = kvg_drift_argmax(z, rig->n_vocab, &token, err);
    if (rc || token == chosen)
        return rc;
    double gap = (double)z[token] - (double)z[chosen];
    if (gap < TIE_LOGITS) {
        rig->n_ties++;
        return KVG_OK;
    }
    return KVG_FAIL(err, KVG_ECHECK,
                    "the causal pass of the baseline chooses token %d where its own reply has %d "
                    "(turn %zu, step %zu, %g logits apart)",
                    token, chosen, turn, j, gap);
}

static int verify(struct kvg_rig *rig, const struct kvg_own *own, struct kvg_err *err)
{
    int rc = KVG_OK;
    for (size_t t = 0; t < own->text.n_turns && !rc; t++) {
        const struct kvg_written_turn *u = &own->text.turns[t];
        for (size_t j = 0; j < u->n && !rc; j++) {
            kvg_engine_logits(rig->engine, own->rows + (own->first_row[t] + j) * rig->n_embd, 1,
                              rig->logits);
            rc = verify_row(rig, rig->logits, u->tokens[j], t, j, err);
        }
    }
    return rc;
}

static int take_rows(struct kvg_rig *rig, const struct kvg_item_tokens *item, struct kvg_own *own,
                     struct kvg_err *err)
{
    struct kvg_replay r;
    size_t n = 0;
    int rc = kvg_replay_init(&r, item, &rig->arena, err);
    if (rc)
        return rc;
    own->first_row = kvg_arena_array(&rig->arena, item->n_turns, sizeof *own->first_row);
    if (!own->first_row)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the baseline's replies");
    kvg_own_replies(own, &r);
    for (size_t t = 0; t < item->n_turns; t++) {
        kvg_replay_score_turn(&r, t, own->text.turns[t].n);
        own->first_row[t] = n;
        n += own->text.turns[t].n;
    }
    own->rows = kvg_arena_array(&rig->arena, n * rig->n_embd + 1, sizeof *own->rows);
    if (!own->rows)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the baseline's rows");
    return kvg_baseline_rows(rig, &r, own->rows, err);
}

int kvg_own_write(struct kvg_rig *rig, const struct kvg_item_tokens *item, size_t limit,
                  struct kvg_own *own, struct kvg_err *err)
{
    struct kvg_slot *slot = &rig->writer;
    struct kvg_writer w = {.slots = &slot, .n = 1, .item = item, .limit = limit, .out = &own->text};
    memset(own, 0, sizeof *own);
    int rc = kvg_rig_helper(rig, slot, KVG_ROLE_FLOOR, err);
    if (!rc)
        rc = kvg_writer_run(rig, &w, err);
    own->error = rc ? NULL : slot->rec.error;
    own->turns = slot->rec.turns;
    own->finish = slot->rec.finish;
    if (rc || own->error)
        return rc;
    rc = take_rows(rig, item, own, err);
    if (!rc)
        rc = verify(rig, own, err);
    return rc ? (kvg_err_prefix(err, "item '%s'", item->item->id), rc) : KVG_OK;
}
