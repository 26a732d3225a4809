/* Owns free-mode cells: running them together, their drift until the first difference. */
#include "run/free.h"

#include "run/freetext.h"
#include "run/own.h"
#include "run/writer.h"

#include <math.h>
#include <string.h>

struct work {
    struct kvg_rig *rig;
    const struct kvg_group *group;
    const struct kvg_plan_item *item;
    struct kvg_own own;
    struct kvg_slot *slots[KVG_STREAMS_MAX];
    struct kvg_written out[KVG_STREAMS_MAX];
    size_t n;
};

static const struct kvg_cell *cell_at(const struct work *w, size_t i)
{
    return &w->rig->plan->cells[w->group->first + i];
}

static int is_open(const struct work *w, size_t i)
{
    return kvg_rows_is_open(w->rig->rows, cell_at(w, i));
}

/* 1 when everything that was written before choice j of turn t equals the baseline's. */
static int same_so_far(const struct work *w, size_t i, size_t t, size_t j)
{
    for (size_t k = 0; k <= t; k++) {
        const struct kvg_written_turn *a = &w->own.text.turns[k], *b = &w->out[i].turns[k];
        size_t n = k < t ? a->n : j;
        if ((k < t && a->n != b->n) || n > a->n ||
            memcmp(a->tokens, b->tokens, n * sizeof *a->tokens))
            return 0;
    }
    return 1;
}

static int add_step(struct work *w, size_t i, size_t t, size_t j, struct kvg_drift **drift,
                    struct kvg_err *err)
{
    const struct kvg_written_turn *own = &w->own.text.turns[t];
    struct kvg_step_record *s = kvg_record_step(&w->slots[i]->rec);
    if (!s)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the steps of a cell");
    s->turn = (uint32_t)t;
    s->step = (uint32_t)j;
    s->pos = (uint32_t)(own->begin + w->item->tokens.turns[t].n_prompt + j);
    s->target = own->tokens[j];
    s->has_drift = 1;
    *drift = &s->drift;
    return KVG_OK;
}

/* Rows of streams whose text is still the baseline's are measured against its row. */
static int on_rows(void *arg, size_t t, size_t j, const size_t *which, size_t n_rows,
                   struct kvg_err *err)
{
    struct work *w = arg;
    struct kvg_drift *drift[KVG_STREAMS_MAX];
    int32_t targets[KVG_STREAMS_MAX];
    size_t n = 0, e = w->rig->n_embd;
    const struct kvg_written_turn *own = &w->own.text.turns[t];
    for (size_t k = 0; k < n_rows; k++) {
        if (j >= own->n || !same_so_far(w, which[k], t, j))
            continue;
        int rc = add_step(w, which[k], t, j, &drift[n], err);
        if (rc)
            return rc;
        memmove(w->rig->hidden + n * e, w->rig->hidden + k * e, e * sizeof *w->rig->hidden);
        targets[n++] = own->tokens[j];
    }
    if (!n)
        return KVG_OK;
    return kvg_rig_drift(w->rig, w->own.rows + (w->own.first_row[t] + j) * e, n, targets, drift,
                         err);
}

/* First differing choice, counted over the item's replies; 0 = none (then *n is all of them). */
static int find_divergence(const struct work *w, const struct kvg_written *text, size_t *n)
{
    *n = 0;
    for (size_t t = 0; t < text->n_turns; t++) {
        const struct kvg_written_turn *a = &w->own.text.turns[t], *b = &text->turns[t];
        for (size_t j = 0; j < a->n && j < b->n; j++, ++*n)
            if (a->tokens[j] != b->tokens[j])
                return 1;
        if (a->n != b->n)
            return 1;
    }
    return 0;
}

static int put_text(struct work *w, const struct kvg_cell *cell, const struct kvg_written *text,
                    struct kvg_record *rec, struct kvg_err *err)
{
    struct kvg_free_record *f = &rec->free_mode;
    const struct kvg_item *item = w->item->tokens.item;
    int rc = KVG_OK;
    if (!rec->error) {
        size_t n;
        f->has_diverged = find_divergence(w, text, &n);
        f->first_divergence = n;
        f->n_compared = n + (f->has_diverged ? 1 : 0);
        rc = kvg_freetext_measure(w->rig->plan->model->tok, item, &w->own.text, text, rec, err);
    }
    return rc ? rc : kvg_rows_put(w->rig->rows, cell, rec, err);
}

static int run_slots(struct work *w, struct kvg_err *err)
{
    struct kvg_writer writer = {.slots = w->slots,
                                .n = w->n,
                                .item = &w->item->tokens,
                                .limit = w->rig->plan->suite->free_tokens,
                                .unseen = w->group->unseen,
                                .out = w->out,
                                .on_rows = on_rows,
                                .arg = w};
    int rc = kvg_writer_run(w->rig, &writer, err);
    for (size_t i = 0; i < w->n && !rc; i++)
        rc = put_text(w, w->slots[i]->cell, &w->out[i], &w->slots[i]->rec, err);
    w->n = 0;
    memset(w->out, 0, sizeof w->out);
    return rc;
}

/* The baseline's own row: its text, answers and references; there is nothing to drift from. */
static int put_own(struct work *w, const struct kvg_cell *cell, struct kvg_err *err)
{
    struct kvg_record rec = {.finish = w->own.finish};
    int rc = KVG_OK;
    for (size_t t = 0; t < w->own.text.n_turns && !rc; t++) {
        struct kvg_turn_record *turn = kvg_record_turn(&rec);
        if (!turn)
            rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory for the turns of a cell");
        else
            *turn = w->own.turns[t];
        rec.n_forward += w->own.text.turns[t].n;
    }
    if (!rc)
        rc = put_text(w, cell, &w->own.text, &rec, err);
    kvg_record_release(&rec);
    return rc;
}

static int add_slot(struct work *w, const struct kvg_cell *cell, struct kvg_err *err)
{
    size_t copy = 0;
    for (size_t k = 0; k < w->n; k++)
        copy += w->slots[k]->strategy == cell->strategy;
    int rc = kvg_rig_slot(w->rig, cell, copy, &w->slots[w->n], err);
    if (!rc)
        w->slots[w->n++]->cell = cell;
    return rc;
}

static int run_cell(struct work *w, size_t i, struct kvg_err *err)
{
    const struct kvg_cell *cell = cell_at(w, i);
    struct kvg_record failed = {.error = w->own.error};
    if (!is_open(w, i))
        return KVG_OK;
    if (w->own.error)
        return kvg_rows_put(w->rig->rows, cell, &failed, err);
    if (w->rig->plan->strategies[cell->strategy].pipe.role == KVG_ROLE_BASELINE)
        return put_own(w, cell, err);
    int rc = add_slot(w, cell, err);
    return !rc && w->n == w->rig->max_streams ? run_slots(w, err) : rc;
}

int kvg_free_group(struct kvg_rig *rig, const struct kvg_group *group, struct kvg_err *err)
{
    struct work w;
    memset(&w, 0, sizeof w);
    w.rig = rig;
    w.group = group;
    w.item = &rig->plan->items[group->item];
    kvg_arena_reset(&rig->arena);
    int rc = kvg_own_write(rig, &w.item->tokens, rig->plan->suite->free_tokens, &w.own, err);
    for (size_t i = 0; i < group->n && !rc; i++)
        rc = run_cell(&w, i, err);
    return !rc && w.n ? run_slots(&w, err) : rc;
}
