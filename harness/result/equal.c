/* Owns the ranking at equal bytes. Must not know how a grid is drawn. */
#include "result/equal.h"

#include <math.h>
#include <string.h>

#define TOLERANCE 0.02

enum { COLUMNS = 6 };

static double number(const struct kvg_summary *s, const struct kvg_line *line, const char *metric)
{
    const struct kvg_summary_value *v =
        line->drift ? kvg_summary_find(s, line->drift, metric, NULL) : NULL;
    return v ? v->value : (double)NAN;
}

static double off_by(const struct kvg_summary *s, const struct kvg_line *line)
{
    return number(s, line, "prompt_bytes_per_token") / number(s, line, "target_bytes") - 1;
}

static int comparable(const struct kvg_summary *s, const struct kvg_line *line)
{
    return fabs(off_by(s, line)) <= TOLERANCE;
}

static int better(const struct kvg_summary *s, const struct kvg_line *a, const struct kvg_line *b)
{
    int ca = comparable(s, a), cb = comparable(s, b);
    if (ca != cb)
        return ca;
    return number(s, a, "kl_mean") < number(s, b, "kl_mean");
}

static double next_target(const struct kvg_summary *s, const struct kvg_section *x, double after)
{
    double next = (double)INFINITY;
    for (size_t i = 0; i < x->n_lines; i++) {
        double t = number(s, &x->lines[i], "target_bytes");
        if (t > after && t < next)
            next = t;
    }
    return next;
}

/* The lines of a target, best first. */
static size_t rank(const struct kvg_summary *s, const struct kvg_section *x, double target,
                   const struct kvg_line **out)
{
    size_t n = 0;
    for (size_t i = 0; i < x->n_lines; i++) {
        double t = number(s, &x->lines[i], "target_bytes");
        if (!(fabs(t - target) < 0.5) || isnan(number(s, &x->lines[i], "kl_mean")))
            continue;
        size_t at = n++;
        for (; at > 0 && better(s, &x->lines[i], out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = &x->lines[i];
    }
    return n;
}

static int fill_row(struct kvg_summary *s, const struct kvg_line *line, const char **row,
                    size_t place)
{
    struct kvg_arena *a = &s->run.arena;
    char kl[KVG_HUMAN_CAP], bytes[KVG_HUMAN_CAP];
    const struct kvg_summary_value *v = kvg_summary_find(s, line->drift, "kl_mean", NULL);
    kvg_human_kl(kl, v);
    kvg_human_number(bytes, number(s, line, "prompt_bytes_per_token"));
    row[0] = line->strategy;
    row[1] = comparable(s, line) ? kvg_arena_printf(a, "%zu", place) : "-";
    row[2] = kvg_arena_strdup(a, kl);
    row[3] = kvg_arena_printf(a, "%.1f", 100 * number(s, line, "top1_agreement"));
    row[4] = kvg_arena_strdup(a, bytes);
    row[5] = kvg_arena_printf(a, "%+.1f%s", 100 * off_by(s, line),
                              comparable(s, line) ? "" : " not compared");
    for (size_t c = 0; c < COLUMNS; c++)
        if (!row[c])
            return -1;
    return 0;
}

int kvg_equal_grid(struct kvg_summary *s, const struct kvg_section *section, double after,
                   double *target, struct kvg_grid *grid, struct kvg_err *err)
{
    static const char *heads[COLUMNS] = {"strategy", "place",   "KL mean [95 %]",
                                         "top1 %",   "B/token", "off %"};
    static const char *metrics[COLUMNS] = {"",
                                           "",
                                           "kl_mean",
                                           "top1_agreement",
                                           "prompt_bytes_per_token",
                                           "target_bytes"};
    struct kvg_arena *a = &s->run.arena;
    memset(grid, 0, sizeof *grid);
    *target = next_target(s, section, after);
    if (isinf(*target))
        return 0;
    grid->title = kvg_arena_printf(a, "at %.0f bytes a token at the prompt's end, best first",
                                   *target);
    grid->n_columns = COLUMNS;
    grid->heads = heads;
    grid->metrics = metrics;
    grid->lines = kvg_arena_array(a, section->n_lines, sizeof *grid->lines);
    grid->text = kvg_arena_array(a, section->n_lines * COLUMNS, sizeof *grid->text);
    if (!grid->title || !grid->lines || !grid->text)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while making tables");
    grid->n_rows = rank(s, section, *target, grid->lines);
    for (size_t i = 0; i < grid->n_rows; i++)
        if (fill_row(s, grid->lines[i], grid->text + i * COLUMNS, i + 1))
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory while making tables");
    return 0;
}
