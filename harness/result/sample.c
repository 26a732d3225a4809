/* Takes the values of a metric from the cells of a slice, and the noise floor from the floor's. */
#include "result/slice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put(struct kvg_sample *sample, uint32_t item, double v, double weight)
{
    if (isnan(v) || isnan(weight)) {
        sample->n_missing++;
        return;
    }
    sample->v[sample->n++] = v;
    sample->clusters[item].sum += v;
    sample->clusters[item].count += weight;
}

static void take_cell(struct kvg_sample *sample, const struct kvg_run *run, size_t cell,
                      uint32_t item, const struct kvg_metric *m)
{
    const struct kvg_run_range *steps = &run->cell_steps[cell], *turns = &run->cell_turns[cell];
    const struct kvg_row *row = &run->cells[cell];
    switch (m->of) {
    case KVG_METRIC_OF_STEPS:
        for (size_t i = steps->begin; i < steps->end; i++)
            if (m->which == KVG_STEPS_ALL ||
                run->steps[i].uncompressed == (m->which == KVG_STEPS_UNCOMPRESSED))
                put(sample, item, m->of_step(&run->steps[i]), 1);
        break;
    case KVG_METRIC_OF_TURNS:
        for (size_t i = turns->begin; i < turns->end; i++)
            put(sample, item, m->of_turn(&run->turns[i]), 1);
        break;
    case KVG_METRIC_OF_CELLS:
        put(sample, item, m->of_cell(run, row), m->weight ? m->weight(run, row) : 1);
        break;
    case KVG_METRIC_SURVIVAL:
    case KVG_METRIC_FLOOR:
        break;
    }
}

static size_t capacity(const struct kvg_run *run, const struct kvg_slice *s)
{
    size_t n = 1;
    for (size_t i = 0; i < s->n_cells; i++) {
        const struct kvg_run_range *steps = &run->cell_steps[s->cells[i]],
                                   *turns = &run->cell_turns[s->cells[i]];
        n += 1 + (steps->end - steps->begin) + (turns->end - turns->begin);
    }
    return n;
}

int kvg_sample_take(struct kvg_sample *sample, const struct kvg_run *run, const struct kvg_slice *s,
                    const struct kvg_metric *m, struct kvg_err *err)
{
    memset(sample, 0, sizeof *sample);
    sample->v = malloc(capacity(run, s) * sizeof *sample->v);
    sample->clusters = calloc(s->n_items + 1, sizeof *sample->clusters);
    if (!sample->v || !sample->clusters)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while pooling '%s'", m->name);
    for (size_t i = 0; i < s->n_cells; i++)
        take_cell(sample, run, s->cells[i], s->items[i], m);
    for (size_t i = 0; i < s->n_items; i++)
        if (sample->clusters[i].count > 0)
            sample->clusters[sample->n_clusters++] = sample->clusters[i];
    kvg_stats_sort(sample->v, sample->n);
    return KVG_OK;
}

void kvg_sample_release(struct kvg_sample *sample)
{
    free(sample->v);
    free(sample->clusters);
    memset(sample, 0, sizeof *sample);
}

size_t kvg_slice_survival_obs(const struct kvg_slice *s, const struct kvg_run *run,
                              struct kvg_survival_obs *obs)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_cells; i++) {
        const struct kvg_row *c = &run->cells[s->cells[i]];
        int event = kvg_row_has(c, KVG_CELLS_first_divergence);
        if (event)
            obs[n++] = (struct kvg_survival_obs){kvg_row_f64(c, KVG_CELLS_first_divergence), event};
        else if (kvg_row_has(c, KVG_CELLS_n_free_steps))
            obs[n++] = (struct kvg_survival_obs){kvg_row_f64(c, KVG_CELLS_n_free_steps), event};
    }
    return n;
}

enum { NO_FLOOR, FLOOR, STAND_IN };

static int floor_kind(const struct kvg_slice *f, const struct kvg_slice *s)
{
    int baseline = !strcmp(f->role, "baseline"), floor = !strcmp(f->role, "floor");
    int own = !strcmp(f->key, s->key) && !strcmp(f->query, s->query);
    if (strcmp(f->workload, s->workload) || strcmp(f->question, s->question) ||
        strcmp(f->target, s->target) || strcmp(f->mode, "forced") || strcmp(f->lane, "drift"))
        return NO_FLOOR;
    if (!strcmp(f->arm, "floor"))
        return baseline || floor || own ? FLOOR : NO_FLOOR;
    if (strcmp(f->arm, "main"))
        return NO_FLOOR;
    return floor ? FLOOR : baseline ? STAND_IN : NO_FLOOR;
}

/* Larger of mean and p99 of the slice's KL; NaN without steps. */
static int level(const struct kvg_run *run, const struct kvg_slice *f, double *out, size_t *n,
                 struct kvg_err *err)
{
    struct kvg_sample sample;
    int rc = kvg_sample_take(&sample, run, f, kvg_metric_find("kl_mean"), err);
    *out = (double)NAN;
    if (!rc && sample.n) {
        double mean = kvg_stats_mean(sample.v, sample.n);
        double p99 = kvg_stats_percentile(sample.v, sample.n, 0.99);
        *out = mean > p99 ? mean : p99;
        *n = sample.n;
    }
    kvg_sample_release(&sample);
    return rc;
}

int kvg_slice_floor(const struct kvg_slices *all, const struct kvg_run *run,
                    const struct kvg_slice *s, double *floor, size_t *n, struct kvg_err *err)
{
    double stand_in = (double)NAN;
    size_t n_stand_in = 0;
    int rc = KVG_OK, have_main = 0;
    *floor = (double)NAN;
    *n = 0;
    for (size_t i = 0; i < all->n && !rc; i++) {
        const struct kvg_slice *f = &all->v[i];
        int kind = floor_kind(f, s);
        size_t n_here = 0;
        double here = (double)NAN;
        if (kind != NO_FLOOR)
            rc = level(run, f, &here, &n_here, err);
        if (rc || isnan(here))
            continue;
        if (kind == STAND_IN &&
            (isnan(stand_in) || (here > 0 && !(here > stand_in)) || !(stand_in > 0))) {
            stand_in = here;
            n_stand_in = n_here;
        } else if (kind == FLOOR) {
            have_main |= !strcmp(f->arm, "main");
            *floor = isnan(*floor) || here > *floor ? here : *floor;
            *n += n_here;
        }
    }
    if (!have_main && !isnan(stand_in) && !(*floor > stand_in)) {
        *floor = stand_in;
        *n += n_stand_in;
    }
    return rc;
}
