/* Owns the comparison of written texts. Must not know streams or cells. */
#include "run/freetext.h"

#include "result/textmetric.h"

#include <math.h>
#include <string.h>

struct texts {
    struct kvg_str own, text;         /* of a turn */
    struct kvg_str all_own, all_text; /* of the item, a line end between turns */
    struct kvg_chrf_stats base, ref;
    struct kvg_bleu_stats bleu;
    size_t n_refs;
};

static int decode(const struct kvg_tokenizer *tok, const struct kvg_written_turn *t,
                  struct kvg_str *turn, struct kvg_str *all, struct kvg_err *err)
{
    kvg_str_clear(turn);
    int rc = kvg_tokenizer_decode(tok, t->tokens, t->n_reply, turn, err);
    kvg_str_add(turn, ""); /* an empty reply is a text too */
    kvg_str_addn(all, turn->s ? turn->s : "", turn->len);
    kvg_str_addc(all, '\n');
    if (!rc && (turn->failed || all->failed))
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory for the texts of a cell");
    return rc;
}

static const char *text_of(const struct kvg_str *s)
{
    return s->s ? s->s : "";
}

static void check_answer(const struct kvg_turn *turn, const struct texts *x,
                         struct kvg_turn_record *t, struct kvg_free_record *f)
{
    int right = kvg_workload_check_answer(turn, text_of(&x->text));
    if (right < 0)
        return;
    t->answer_expected = 1;
    t->answer_right = right;
    t->baseline_right = kvg_workload_check_answer(turn, text_of(&x->own));
    f->answers_total++;
    f->answers_right += t->answer_right != 0;
    f->answers_lost += t->baseline_right && !t->answer_right;
    f->answers_gained += !t->baseline_right && t->answer_right;
}

static int add_turn(const struct kvg_item *item, size_t t, struct texts *x, struct kvg_record *rec,
                    struct kvg_err *err)
{
    const struct kvg_turn *turn = &item->turns[t];
    const char *text = text_of(&x->text);
    check_answer(turn, x, &rec->turns[t], &rec->free_mode);
    int rc = kvg_chrf_add(&x->base, text, text_of(&x->own), err);
    if (rc || !item->source_lang || !turn->reply)
        return rc;
    x->n_refs++;
    rc = kvg_chrf_add(&x->ref, text, turn->reply, err);
    return rc ? rc : kvg_bleu_add(&x->bleu, text, turn->reply, err);
}

static int finish(const struct kvg_item *item, struct texts *x, struct kvg_free_record *f,
                  struct kvg_err *err)
{
    const char *own = text_of(&x->all_own), *text = text_of(&x->all_text);
    /* Two empty texts are equal, which the formula, without any match, would call 0. */
    f->chrf2_baseline = strcmp(own, text) ? kvg_chrf2_score(&x->base) : 100;
    if (x->n_refs) {
        f->chrf2_reference = kvg_chrf2_score(&x->ref);
        if (kvg_bleu_supports(item->lang))
            f->bleu_reference = kvg_bleu_score(&x->bleu);
    }
    int rc = kvg_edit_distance_normalised(text, own, &f->edit_distance, err);
    if (rc == KVG_ELIMIT) {
        f->edit_distance = (double)NAN;
        rc = KVG_OK;
    }
    return rc;
}

int kvg_freetext_measure(const struct kvg_tokenizer *tok, const struct kvg_item *item,
                         const struct kvg_written *own, const struct kvg_written *text,
                         struct kvg_record *rec, struct kvg_err *err)
{
    struct texts x;
    struct kvg_free_record *f = &rec->free_mode;
    int rc = KVG_OK;
    memset(&x, 0, sizeof x);
    f->is_set = 1;
    f->chrf2_reference = f->bleu_reference = f->edit_distance = (double)NAN;
    for (size_t t = 0; t < own->n_turns && !rc; t++) {
        rc = decode(tok, &own->turns[t], &x.own, &x.all_own, err);
        if (!rc)
            rc = decode(tok, &text->turns[t], &x.text, &x.all_text, err);
        if (!rc)
            rc = add_turn(item, t, &x, rec, err);
    }
    if (!rc)
        rc = finish(item, &x, f, err);
    kvg_str_release(&x.own);
    kvg_str_release(&x.text);
    kvg_str_release(&x.all_own);
    kvg_str_release(&x.all_text);
    return rc;
}
