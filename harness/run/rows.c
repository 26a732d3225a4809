/* Owns the way from a record to rows of the result files. */
#include "run/rows.h"

#include "base/fs.h"
#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t key_of(const char *id, uint64_t round)
{
    return kvg_hash_fnv(kvg_hash_fnv_str(KVG_FNV_INIT, id), &round, sizeof round);
}

static int by_key(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int has_key(const struct kvg_rows *r, uint64_t key)
{
    return r->n_done && bsearch(&key, r->done, r->n_done, sizeof key, by_key) != NULL;
}

int kvg_rows_is_done(const struct kvg_rows *r, const struct kvg_cell *cell)
{
    return has_key(r, key_of(cell->id, cell->round));
}

int kvg_rows_is_open(const struct kvg_rows *r, const struct kvg_cell *cell)
{
    return cell->status == KVG_CELL_TODO && !kvg_rows_is_done(r, cell);
}

static int note_done(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kvg_rows *r = arg;
    if (r->n_done == r->cap_done) {
        size_t cap = r->cap_done ? 2 * r->cap_done : 256;
        uint64_t *v = realloc(r->done, cap * sizeof *v);
        if (!v)
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory while reading finished cells");
        r->done = v;
        r->cap_done = cap;
    }
    r->done[r->n_done++] =
        key_of(kvg_row_str(row, KVG_CELLS_cell_id), kvg_row_u64(row, KVG_CELLS_round));
    r->n_measured += !strcmp(kvg_row_str(row, KVG_CELLS_status), "ok");
    r->n_failed += !strcmp(kvg_row_str(row, KVG_CELLS_status), "error");
    return KVG_OK;
}

static int keep_turn(void *arg, const struct kvg_row *row)
{
    return has_key(arg,
                   key_of(kvg_row_str(row, KVG_TURNS_cell_id), kvg_row_u64(row, KVG_TURNS_round)));
}

static int keep_step(void *arg, const struct kvg_row *row)
{
    return has_key(arg,
                   key_of(kvg_row_str(row, KVG_STEPS_cell_id), kvg_row_u64(row, KVG_STEPS_round)));
}

/* Rows of the map are those of cells in the drift lane, whose round is 0. */
static int keep_kept(void *arg, const struct kvg_row *row)
{
    return has_key(arg, key_of(kvg_row_str(row, KVG_KEPT_cell_id), 0));
}

static int open_table(const char *dir, const struct kvg_table *table, kvg_csv_keep_fn keep,
                      struct kvg_rows *r, struct kvg_csv **csv, struct kvg_err *err)
{
    char path[4096];
    size_t n_dropped;
    int rc = KVG_OK;
    snprintf(path, sizeof path, "%s/%s.csv", dir, table->name);
    if (keep && kvg_fs_exists(path))
        rc = kvg_csv_filter(path, table, keep, r, &n_dropped, err);
    return rc ? rc : kvg_csv_open_append(csv, path, table, err);
}

int kvg_rows_open(struct kvg_rows *r, const char *dir, const char *run_id,
                  const struct kvg_runplan *plan, struct kvg_err *err)
{
    char path[4096];
    memset(r, 0, sizeof *r);
    r->plan = plan;
    r->run_id = run_id;
    /* Opening first cuts a torn line off that reading would stumble over. */
    int rc = open_table(dir, &kvg_table_cells, NULL, r, &r->cells, err);
    if (!rc)
        rc = kvg_csv_flush(r->cells, err);
    snprintf(path, sizeof path, "%s/%s.csv", dir, kvg_table_cells.name);
    if (!rc)
        rc = kvg_csv_read(path, &kvg_table_cells, note_done, r, err);
    if (!rc && r->n_done)
        qsort(r->done, r->n_done, sizeof *r->done, by_key);
    if (!rc)
        rc = open_table(dir, &kvg_table_turns, keep_turn, r, &r->turns, err);
    if (!rc)
        rc = open_table(dir, &kvg_table_steps, keep_step, r, &r->steps, err);
    if (!rc)
        rc = open_table(dir, &kvg_table_kept, keep_kept, r, &r->kept, err);
    return rc;
}

int kvg_rows_close(struct kvg_rows *r, struct kvg_err *err)
{
    struct kvg_csv *all[] = {r->steps, r->turns, r->kept, r->cells};
    int rc = KVG_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int one = kvg_csv_close(all[i], rc ? NULL : err);
        rc = rc ? rc : one;
    }
    free(r->done);
    memset(r, 0, sizeof *r);
    return rc;
}

/* Step 0 comes from the prompt's own pass: what is due at the prompt's end had not happened yet.
 * Where compression came before the question it had, and so it had where a second question is asked
 * after what is left of the context. */
static int is_uncompressed(const struct kvg_cell *cell, const struct kvg_step_record *s)
{
    return s->step == 0 && !cell->unseen && cell->question_index != 2;
}

static void put_drift(struct kvg_row *row, const struct kvg_cell *cell,
                      const struct kvg_step_record *s)
{
    const struct kvg_drift *d = &s->drift;
    kvg_row_set_u64(row, KVG_STEPS_token, (uint64_t)d->token);
    kvg_row_set_u64(row, KVG_STEPS_target, (uint64_t)s->target);
    kvg_row_set_u64(row, KVG_STEPS_uncompressed, (uint64_t)is_uncompressed(cell, s));
    kvg_row_set_f64(row, KVG_STEPS_kl, d->kl);
    kvg_row_set_u64(row, KVG_STEPS_top1, d->top1 != 0);
    kvg_row_set_f64(row, KVG_STEPS_top10, d->top10);
    kvg_row_set_f64(row, KVG_STEPS_nll_base, d->nll_base);
    kvg_row_set_f64(row, KVG_STEPS_nll, d->nll);
    kvg_row_set_f64(row, KVG_STEPS_dprob, d->dprob);
    kvg_row_set_f64(row, KVG_STEPS_gap, d->gap);
    kvg_row_set_f64(row, KVG_STEPS_max_dlogit, d->max_dlogit);
}

static uint64_t rest_of(const struct kvg_times *t)
{
    uint64_t known = t->observe + t->manage + t->append + t->attend + t->logits;
    return t->total > known ? t->total - known : 0;
}

static int put_step(struct kvg_rows *r, const struct kvg_cell *cell,
                    const struct kvg_step_record *s, struct kvg_err *err)
{
    struct kvg_row row;
    kvg_row_init(&row, &kvg_table_steps);
    kvg_row_set_str(&row, KVG_STEPS_cell_id, cell->id);
    kvg_row_set_u64(&row, KVG_STEPS_round, cell->round);
    kvg_row_set_u64(&row, KVG_STEPS_turn, s->turn);
    kvg_row_set_u64(&row, KVG_STEPS_step, s->step);
    kvg_row_set_u64(&row, KVG_STEPS_pos, s->pos);
    if (s->has_drift)
        put_drift(&row, cell, s);
    if (s->has_times) {
        kvg_row_set_u64(&row, KVG_STEPS_step_ns, s->times.total);
        kvg_row_set_u64(&row, KVG_STEPS_observe_ns, s->times.observe);
        kvg_row_set_u64(&row, KVG_STEPS_manage_ns, s->times.manage);
        kvg_row_set_u64(&row, KVG_STEPS_append_ns, s->times.append);
        kvg_row_set_u64(&row, KVG_STEPS_attend_ns, s->times.attend);
        kvg_row_set_u64(&row, KVG_STEPS_rest_ns, rest_of(&s->times));
        kvg_row_set_u64(&row, KVG_STEPS_logits_ns, s->times.logits);
    }
    return kvg_csv_write(r->steps, &row, err);
}

static int put_turn(struct kvg_rows *r, const struct kvg_cell *cell,
                    const struct kvg_turn_record *t, struct kvg_err *err)
{
    struct kvg_row row;
    kvg_row_init(&row, &kvg_table_turns);
    kvg_row_set_str(&row, KVG_TURNS_cell_id, cell->id);
    kvg_row_set_u64(&row, KVG_TURNS_round, cell->round);
    kvg_row_set_u64(&row, KVG_TURNS_turn, t->turn);
    kvg_row_set_u64(&row, KVG_TURNS_n_prompt_tokens, t->n_prompt);
    kvg_row_set_u64(&row, KVG_TURNS_n_reply_tokens, t->n_reply);
    if (t->ttft_ns) {
        kvg_row_set_u64(&row, KVG_TURNS_ttft_ns, t->ttft_ns);
        kvg_row_set_u64(&row, KVG_TURNS_prefill_ns, t->prefill_ns);
    }
    if (t->n_timed)
        kvg_row_set_f64(&row, KVG_TURNS_itl_ns, (double)t->steps_ns / (double)t->n_timed);
    kvg_row_set_u64(&row, KVG_TURNS_logical_tokens, t->logical_tokens);
    kvg_row_set_f64(&row, KVG_TURNS_kept_tokens_mean, t->kept_mean);
    kvg_row_set_u64(&row, KVG_TURNS_logical_bytes, t->bytes.logical);
    kvg_row_set_u64(&row, KVG_TURNS_alloc_bytes, t->bytes.alloc);
    kvg_row_set_u64(&row, KVG_TURNS_frag_bytes, t->bytes.frag);
    kvg_row_set_u64(&row, KVG_TURNS_step_peak_bytes, t->peak_bytes);
    kvg_row_set_u64(&row, KVG_TURNS_n_evicted, t->n_evicted);
    kvg_row_set_str(&row, KVG_TURNS_finish, kvg_finish_name(t->finish));
    if (cell->mode == KVG_MODE_FREE) {
        kvg_row_set_u64(&row, KVG_TURNS_answer_expected, t->answer_expected != 0);
        if (t->answer_expected) {
            kvg_row_set_u64(&row, KVG_TURNS_answer_right, t->answer_right != 0);
            kvg_row_set_u64(&row, KVG_TURNS_baseline_right, t->baseline_right != 0);
        }
    }
    return kvg_csv_write(r->turns, &row, err);
}

static int put_kept(struct kvg_rows *r, const struct kvg_cell *cell, const struct kvg_record *rec,
                    struct kvg_err *err)
{
    int rc = KVG_OK;
    struct kvg_row row;
    kvg_row_init(&row, &kvg_table_kept);
    kvg_row_set_str(&row, KVG_KEPT_cell_id, cell->id);
    kvg_row_set_str(&row, KVG_KEPT_strategy, r->plan->strategies[cell->strategy].label);
    kvg_row_set_str(&row, KVG_KEPT_query, cell->query);
    kvg_row_set_u64(&row, KVG_KEPT_turn, rec->kept_turn);
    for (size_t i = 0; i < rec->n_kept && !rc; i++) {
        kvg_row_set_u64(&row, KVG_KEPT_layer, rec->kept[i].layer);
        kvg_row_set_u64(&row, KVG_KEPT_pos, rec->kept[i].pos);
        kvg_row_set_u64(&row, KVG_KEPT_heads, rec->kept[i].heads);
        rc = kvg_csv_write(r->kept, &row, err);
    }
    return rc;
}

static void put_store(struct kvg_row *row, const struct kvg_record *rec)
{
    const struct kvg_bytes *b = &rec->bytes;
    const struct kvg_counters *n = &rec->count;
    kvg_row_set_u64(row, KVG_CELLS_logical_tokens, rec->logical_tokens);
    kvg_row_set_f64(row, KVG_CELLS_kept_tokens_mean, rec->kept_mean);
    kvg_row_set_u64(row, KVG_CELLS_kept_tokens_min, rec->kept_min);
    kvg_row_set_u64(row, KVG_CELLS_kept_tokens_max, rec->kept_max);
    kvg_row_set_u64(row, KVG_CELLS_logical_bytes, b->logical);
    kvg_row_set_u64(row, KVG_CELLS_alloc_bytes, b->alloc);
    kvg_row_set_u64(row, KVG_CELLS_payload_bytes, b->payload);
    kvg_row_set_u64(row, KVG_CELLS_scale_bytes, b->scales);
    kvg_row_set_u64(row, KVG_CELLS_index_bytes, b->index);
    kvg_row_set_u64(row, KVG_CELLS_state_bytes, b->state);
    kvg_row_set_u64(row, KVG_CELLS_step_peak_bytes, rec->peak_bytes);
    kvg_row_set_u64(row, KVG_CELLS_rss_bytes, rec->rss_bytes);
    if (rec->logical_tokens)
        kvg_row_set_f64(row, KVG_CELLS_bytes_per_token,
                        (double)b->logical / (double)rec->logical_tokens);
    kvg_row_set_u64(row, KVG_CELLS_bytes_read, n->bytes_read);
    kvg_row_set_u64(row, KVG_CELLS_bytes_written, n->bytes_written);
    kvg_row_set_u64(row, KVG_CELLS_n_macs, n->n_macs);
    kvg_row_set_u64(row, KVG_CELLS_n_evicted, n->n_evicted);
    kvg_row_set_u64(row, KVG_CELLS_n_recomputed, n->n_recomputed);
    kvg_row_set_u64(row, KVG_CELLS_n_encoded, n->n_encoded);
    kvg_row_set_u64(row, KVG_CELLS_n_decoded, n->n_decoded);
    kvg_row_set_u64(row, KVG_CELLS_n_rotated, n->n_rotated);
}

static void put_times(struct kvg_row *row, const struct kvg_record *rec)
{
    const struct kvg_times *t = &rec->times;
    kvg_row_set_u64(row, KVG_CELLS_total_ns, t->total);
    if (rec->prefill_ns)
        kvg_row_set_u64(row, KVG_CELLS_prefill_ns, rec->prefill_ns);
    kvg_row_set_u64(row, KVG_CELLS_observe_ns, t->observe);
    kvg_row_set_u64(row, KVG_CELLS_manage_ns, t->manage);
    kvg_row_set_u64(row, KVG_CELLS_append_ns, t->append);
    kvg_row_set_u64(row, KVG_CELLS_attend_ns, t->attend);
    kvg_row_set_u64(row, KVG_CELLS_rest_ns, rest_of(t));
    kvg_row_set_u64(row, KVG_CELLS_logits_ns, t->logits);
    if (rec->has_overhead)
        kvg_row_set_i64(row, KVG_CELLS_overhead_ns, rec->overhead_ns);
}

static void set_known(struct kvg_row *row, int column, double v)
{
    if (!isnan(v))
        kvg_row_set_f64(row, column, v);
}

static void put_free(struct kvg_row *row, const struct kvg_free_record *f)
{
    if (f->has_diverged)
        kvg_row_set_u64(row, KVG_CELLS_first_divergence, f->first_divergence);
    kvg_row_set_u64(row, KVG_CELLS_n_free_steps, f->n_compared);
    set_known(row, KVG_CELLS_chrf2_baseline, f->chrf2_baseline);
    set_known(row, KVG_CELLS_edit_distance, f->edit_distance);
    set_known(row, KVG_CELLS_chrf2_reference, f->chrf2_reference);
    set_known(row, KVG_CELLS_bleu_reference, f->bleu_reference);
    kvg_row_set_u64(row, KVG_CELLS_answers_total, f->answers_total);
    kvg_row_set_u64(row, KVG_CELLS_answers_right, f->answers_right);
    kvg_row_set_u64(row, KVG_CELLS_answers_lost, f->answers_lost);
    kvg_row_set_u64(row, KVG_CELLS_answers_gained, f->answers_gained);
}

static void put_budget(struct kvg_row *row, const struct kvg_pipeline *p,
                       const struct kvg_cell *cell, struct kvg_str *text)
{
    if (!p->keep || !p->keep->budget)
        return;
    kvg_budget_print(cell->fit && cell->fit->is_set ? &cell->fit->budget : p->keep->budget, text);
    kvg_row_set_str(row, KVG_CELLS_budget, text->s);
}

static void put_identity(const struct kvg_rows *r, struct kvg_row *row, const struct kvg_cell *cell)
{
    const struct kvg_plan_strategy *s = &r->plan->strategies[cell->strategy];
    const struct kvg_item_tokens *it = &r->plan->items[cell->item].tokens;
    kvg_row_set_str(row, KVG_CELLS_run_id, r->run_id);
    kvg_row_set_str(row, KVG_CELLS_cell_id, cell->id);
    kvg_row_set_str(row, KVG_CELLS_model, r->plan->model->name);
    kvg_row_set_str(row, KVG_CELLS_strategy, s->label);
    kvg_row_set_str(row, KVG_CELLS_spec, s->resolved);
    kvg_row_set_str(row, KVG_CELLS_role, kvg_role_name(s->pipe.role));
    kvg_row_set_str(row, KVG_CELLS_workload, it->workload->name);
    kvg_row_set_str(row, KVG_CELLS_item, it->item->id);
    kvg_row_set_str(row, KVG_CELLS_family, it->item->family);
    kvg_row_set_str(row, KVG_CELLS_mode, kvg_mode_name(cell->mode));
    if (cell->mode == KVG_MODE_FORCED)
        kvg_row_set_str(row, KVG_CELLS_target, kvg_target_name(cell->target));
    kvg_row_set_str(row, KVG_CELLS_lane, kvg_lane_name(cell->lane));
    kvg_row_set_str(row, KVG_CELLS_arm, kvg_arm_name(cell->arm));
    kvg_row_set_u64(row, KVG_CELLS_round, cell->round);
    kvg_row_set_u64(row, KVG_CELLS_order, (uint64_t)(cell - r->plan->cells));
    kvg_row_set_u64(row, KVG_CELLS_seed, cell->seed);
    if (s->target_bytes > 0)
        kvg_row_set_u64(row, KVG_CELLS_target_bytes, (uint64_t)s->target_bytes);
}

static void put_record(struct kvg_row *row, const struct kvg_cell *cell,
                       const struct kvg_record *rec)
{
    size_t n_prompt = 0, n_scored = 0;
    for (size_t i = 0; i < rec->n_turns; i++)
        n_prompt += rec->turns[i].n_prompt;
    for (size_t i = 0; i < rec->n_steps; i++)
        n_scored += rec->steps[i].has_drift != 0;
    const struct kvg_turn_record *last = rec->n_turns ? &rec->turns[rec->n_turns - 1] : NULL;
    if (last && last->prompt_tokens)
        kvg_row_set_f64(row, KVG_CELLS_prompt_bytes_per_token,
                        (double)last->prompt_bytes / (double)last->prompt_tokens);
    kvg_row_set_str(row, KVG_CELLS_finish, kvg_finish_name(rec->finish));
    kvg_row_set_u64(row, KVG_CELLS_n_turns, rec->n_turns);
    kvg_row_set_u64(row, KVG_CELLS_n_prompt_tokens, n_prompt);
    kvg_row_set_u64(row, KVG_CELLS_n_steps, rec->n_forward);
    if (cell->lane == KVG_LANE_DRIFT)
        kvg_row_set_u64(row, KVG_CELLS_n_scored, n_scored);
    if (rec->has_store)
        put_store(row, rec);
    if (rec->has_times)
        put_times(row, rec);
    if (rec->free_mode.is_set)
        put_free(row, &rec->free_mode);
}

static int put_cell(struct kvg_rows *r, const struct kvg_cell *cell, const struct kvg_record *rec,
                    struct kvg_err *err)
{
    static const char *const status[] = {"ok", "skipped", "error"};
    const struct kvg_pipeline *pipe = &r->plan->strategies[cell->strategy].pipe;
    const struct kvg_item *item = r->plan->items[cell->item].tokens.item;
    int state = rec && rec->error ? KVG_CELL_ERROR : (int)cell->status;
    struct kvg_str budget = {0}, lang = {0};
    struct kvg_row row;
    char digest[24];
    kvg_row_init(&row, &kvg_table_cells);
    put_identity(r, &row, cell);
    if (item->source_lang)
        kvg_str_addf(&lang, "%s-", item->source_lang);
    kvg_str_add(&lang, item->lang);
    kvg_row_set_str(&row, KVG_CELLS_lang, lang.s);
    kvg_row_set_str(&row, KVG_CELLS_query, cell->query);
    if (cell->question_index)
        kvg_row_set_u64(&row, KVG_CELLS_question_index, cell->question_index);
    kvg_row_set_str(&row, KVG_CELLS_status, status[state]);
    kvg_row_set_str(&row, KVG_CELLS_reason, rec && rec->error ? rec->error : cell->reason);
    put_budget(&row, pipe, cell, &budget);
    if (rec && !rec->error) {
        put_record(&row, cell, rec);
        snprintf(digest, sizeof digest, "%016llx", (unsigned long long)rec->digest);
        kvg_row_set_str(&row, KVG_CELLS_digest, rec->has_store ? digest : "");
    }
    int rc = budget.failed || lang.failed
                 ? KVG_FAIL(err, KVG_ENOMEM, "out of memory while writing a cell")
                 : kvg_csv_write(r->cells, &row, err);
    r->n_measured += state == KVG_CELL_TODO;
    r->n_failed += state == KVG_CELL_ERROR;
    kvg_str_release(&budget);
    kvg_str_release(&lang);
    return rc;
}

int kvg_rows_put(struct kvg_rows *r, const struct kvg_cell *cell, const struct kvg_record *rec,
                 struct kvg_err *err)
{
    int rc = KVG_OK;
    if (rec && !rec->error) {
        for (size_t i = 0; i < rec->n_steps && !rc; i++)
            rc = put_step(r, cell, &rec->steps[i], err);
        for (size_t i = 0; i < rec->n_turns && !rc; i++)
            rc = put_turn(r, cell, &rec->turns[i], err);
        if (!rc && rec->n_kept)
            rc = put_kept(r, cell, rec, err);
    }
    /* The cell's row goes to disk last: a cell that has it has all of its other rows. */
    if (!rc)
        rc = kvg_csv_flush(r->steps, err);
    if (!rc)
        rc = kvg_csv_flush(r->turns, err);
    if (!rc)
        rc = kvg_csv_flush(r->kept, err);
    if (!rc)
        rc = put_cell(r, cell, rec, err);
    return rc ? rc : kvg_csv_flush(r->cells, err);
}
