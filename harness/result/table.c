/* The views as tables of columns, and how numbers are written for people. */
#include "result/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum from { DRIFT, FREE, TIME, BYTES };
enum format {
    AS_NUMBER,
    AS_MEGABYTES,
    AS_FACTOR,
    AS_RATIO,
    AS_PERCENT,
    AS_KL,
    AS_SIGNED,
    AS_COUNT
};

struct column {
    const char *head, *metric, *stat;
    enum from from;
    enum format format;
    const char *second; /* shown behind a slash; NULL = none */
};

static const struct column main_columns[] = {
    {"B/token", "bytes_per_token", NULL, BYTES, AS_NUMBER, NULL},
    {"f16/x", "compression", NULL, BYTES, AS_FACTOR, NULL},
    {"KL mean [95 %]", "kl_mean", NULL, DRIFT, AS_KL, NULL},
    {"top1 %", "top1_agreement", NULL, DRIFT, AS_PERCENT, NULL},
    {"PPL x", "ppl_ratio", NULL, DRIFT, AS_RATIO, NULL},
    {"dNLL", "dnll_mean", NULL, DRIFT, AS_SIGNED, NULL},
    {"-/+ans", "answers_lost", NULL, FREE, AS_COUNT, "answers_gained"},
    {"TTFT ms", "ttft_ms", "p50", TIME, AS_NUMBER, NULL},
    {"ITL ms", "itl_ms", "p50", TIME, AS_NUMBER, NULL},
    {"peak MB", "step_peak_bytes", NULL, BYTES, AS_MEGABYTES, NULL},
    {NULL, NULL, NULL, DRIFT, AS_NUMBER, NULL},
};
static const struct column tail_columns[] = {
    {"KL p99", "kl_p99", NULL, DRIFT, AS_NUMBER, NULL},
    {"KL max", "kl_max", NULL, DRIFT, AS_NUMBER, NULL},
    {"KL first", "kl_uncompressed", NULL, DRIFT, AS_NUMBER, NULL},
    {"top10 %", "top10_overlap", NULL, DRIFT, AS_PERCENT, NULL},
    {"TTFT p99", "ttft_ms", "p99", TIME, AS_NUMBER, NULL},
    {"ITL p90", "itl_ms", "p90", TIME, AS_NUMBER, NULL},
    {"ITL p99", "itl_ms", "p99", TIME, AS_NUMBER, NULL},
    {"prompt/s", "prompt_tps", NULL, TIME, AS_NUMBER, NULL},
    {"reply/s", "gen_tps", NULL, TIME, AS_NUMBER, NULL},
    {"manage ms", "manage_ms", NULL, TIME, AS_NUMBER, NULL},
    {NULL, NULL, NULL, DRIFT, AS_NUMBER, NULL},
};
static const struct column free_columns[] = {
    {"same %", "undiverged_share", NULL, FREE, AS_PERCENT, NULL},
    {"diverges at", "first_divergence", NULL, FREE, AS_NUMBER, NULL},
    {"chrF2", "chrf2_baseline", NULL, FREE, AS_NUMBER, NULL},
    {"edits %", "edit_distance", NULL, FREE, AS_PERCENT, NULL},
    {"chrF2 ref", "chrf2_reference", NULL, FREE, AS_NUMBER, NULL},
    {"BLEU ref", "bleu_reference", NULL, FREE, AS_NUMBER, NULL},
    {"answers", "answers_total", NULL, FREE, AS_COUNT, NULL},
    {"lost", "answers_lost", NULL, FREE, AS_COUNT, NULL},
    {"gained", "answers_gained", NULL, FREE, AS_COUNT, NULL},
    {NULL, NULL, NULL, DRIFT, AS_NUMBER, NULL},
};
static const struct {
    const char *title;
    const struct column *columns;
} views[KVG_N_VIEWS] = {
    {"costs and drift", main_columns},
    {"tails and speeds", tail_columns},
    {"own replies (free)", free_columns},
};

enum { COLUMNS_CAP = 16 };

void kvg_human_number(char out[KVG_HUMAN_CAP], double v)
{
    double a = fabs(v);
    if (!(a > 0))
        snprintf(out, KVG_HUMAN_CAP, isnan(v) ? "nan" : "0");
    else if (a < 0.001)
        snprintf(out, KVG_HUMAN_CAP, "%.1e", v);
    else if (a >= 1e7)
        snprintf(out, KVG_HUMAN_CAP, "%.2e", v);
    else
        snprintf(out, KVG_HUMAN_CAP, "%.*f", a >= 100 ? 0 : a >= 10 ? 1 : a >= 1 ? 2 : 4, v);
}

void kvg_human_bytes(char out[KVG_HUMAN_CAP], double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t u = 0;
    while (fabs(bytes) >= 1000 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, KVG_HUMAN_CAP, "%.*f %s", bytes >= 100 || !u ? 0 : 1, bytes, units[u]);
}

/* Mantissas of the interval share the mean's exponent: 1.23e-05 [1.10 1.36]. */
void kvg_human_kl(char out[KVG_HUMAN_CAP], const struct kvg_summary_value *v)
{
    char mean[KVG_HUMAN_CAP];
    double a = fabs(v->value);
    int small = a > 0 && a < 0.001;
    double scale = small ? pow(10, floor(log10(a))) : 1;
    if (small)
        snprintf(mean, sizeof mean, "%.2e", v->value);
    else
        snprintf(mean, sizeof mean, "%.*f", a >= 1 ? 2 : 4, v->value);
    if (isnan(v->lo))
        snprintf(out, KVG_HUMAN_CAP, "%.12s n=%zu", mean, v->n_items);
    else
        snprintf(out, KVG_HUMAN_CAP, "%.12s [%.*f %.*f]", mean,
                 small    ? 2
                 : a >= 1 ? 2
                          : 4,
                 v->lo / scale,
                 small    ? 2
                 : a >= 1 ? 2
                          : 4,
                 v->hi / scale);
}

static void human_value(char out[KVG_HUMAN_CAP], const struct kvg_summary_value *v,
                        enum format format)
{
    switch (format) {
    case AS_MEGABYTES:
        snprintf(out, KVG_HUMAN_CAP, "%.*f", v->value >= 1e8 ? 0 : 2, v->value * 1e-6);
        break;
    case AS_FACTOR:
        snprintf(out, KVG_HUMAN_CAP, "%.*f", v->value >= 10 ? 1 : 2, v->value);
        break;
    case AS_RATIO:
        snprintf(out, KVG_HUMAN_CAP, "%.*f", v->value >= 100 ? 0 : v->value >= 2 ? 2 : 4, v->value);
        break;
    case AS_PERCENT: /* never round up to a perfect score */
        snprintf(out, KVG_HUMAN_CAP, "%.1f",
                 v->value < 1 && v->value > 0.9995 ? 99.9 : v->value * 100);
        break;
    case AS_KL:
        kvg_human_kl(out, v);
        break;
    case AS_SIGNED:
        snprintf(out, KVG_HUMAN_CAP,
                 fabs(v->value) > 0 && fabs(v->value) < 0.001 ? "%+.0e" : "%+.3f", v->value);
        break;
    case AS_COUNT:
        snprintf(out, KVG_HUMAN_CAP, "%.4g", v->value);
        break;
    case AS_NUMBER:
        kvg_human_number(out, v->value);
        break;
    }
}

static const struct kvg_slice *slice_from(const struct kvg_line *line, enum from from)
{
    switch (from) {
    case DRIFT:
        return line->drift;
    case FREE:
        return line->free;
    case TIME:
        return line->time;
    case BYTES:
        break;
    }
    return line->bytes;
}

/* NULL when not measured. */
static const struct kvg_summary_value *value_of(const struct kvg_summary *s,
                                                const struct kvg_line *line, const struct column *c,
                                                const char *metric)
{
    const struct kvg_slice *x = slice_from(line, c->from);
    return x ? kvg_summary_find(s, x, metric, c->stat) : NULL;
}

/* A number with its marks: `?` too few values, `*` fewer items than other lines have. */
static const char *cell_text(struct kvg_summary *s, const struct kvg_line *line,
                             const struct column *c, size_t most)
{
    char a[KVG_HUMAN_CAP], b[KVG_HUMAN_CAP];
    const struct kvg_summary_value *v = value_of(s, line, c, c->metric);
    if (!v)
        return "";
    if (isnan(v->value))
        return v->note[0] ? "none" : "nan";
    human_value(a, v, c->format);
    const char *few = strcmp(v->note, "few") ? "" : "?";
    const char *less = v->n_items < most ? "*" : "";
    const struct kvg_summary_value *w = c->second ? value_of(s, line, c, c->second) : NULL;
    if (!w)
        return kvg_arena_printf(&s->run.arena, "%s%s%s", a, few, less);
    human_value(b, w, c->format);
    return kvg_arena_printf(&s->run.arena, "%s/%s%s%s", a, b, few, less);
}

/* The perplexity ratio says what dNLL says: where there is one, the other is left out. */
static int is_wanted(const struct kvg_section *section, const struct column *c)
{
    if (!strcmp(c->metric, "dnll_mean"))
        return strcmp(section->target, "recorded") != 0;
    return 1;
}

static int has_any(struct kvg_summary *s, const struct kvg_section *section, const struct column *c)
{
    for (size_t i = 0; i < section->n_lines; i++)
        if (value_of(s, &section->lines[i], c, c->metric))
            return is_wanted(section, c);
    return 0;
}

/* Items behind a column's best-covered line: a number from fewer is not comparable. */
static size_t most_items(struct kvg_summary *s, const struct kvg_section *section,
                         const struct column *c)
{
    size_t most = 0;
    for (size_t i = 0; i < section->n_lines; i++) {
        const struct kvg_summary_value *v = value_of(s, &section->lines[i], c, c->metric);
        if (v && v->n_items > most)
            most = v->n_items;
    }
    return most;
}

int kvg_grid_make(struct kvg_summary *s, const struct kvg_section *section,
                  enum kvg_table_view view, struct kvg_grid *grid, struct kvg_err *err)
{
    struct kvg_arena *a = &s->run.arena;
    const struct column *used[COLUMNS_CAP];
    size_t most[COLUMNS_CAP], n_used = 0, n = section->n_lines;
    memset(grid, 0, sizeof *grid);
    grid->title = views[view].title;
    for (const struct column *c = views[view].columns; c->head && n_used < COLUMNS_CAP; c++)
        if (has_any(s, section, c)) {
            most[n_used] = most_items(s, section, c);
            used[n_used++] = c;
        }
    if (!n_used)
        return KVG_OK;
    grid->n_columns = n_used + 1;
    grid->heads = kvg_arena_array(a, grid->n_columns, sizeof *grid->heads);
    grid->metrics = kvg_arena_array(a, grid->n_columns, sizeof *grid->metrics);
    grid->text = kvg_arena_array(a, grid->n_columns * n, sizeof *grid->text);
    grid->lines = kvg_arena_array(a, n, sizeof *grid->lines);
    if (!grid->heads || !grid->metrics || !grid->text || !grid->lines)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while making tables");
    grid->heads[0] = "strategy";
    grid->metrics[0] = "";
    for (size_t c = 0; c < n_used; c++) {
        grid->heads[c + 1] = used[c]->head;
        grid->metrics[c + 1] = used[c]->metric;
    }
    for (size_t i = 0; i < n; i++) {
        const struct kvg_line *line = &section->lines[i];
        const char **row = grid->text + grid->n_rows * grid->n_columns;
        int any = 0;
        row[0] = line->strategy;
        for (size_t c = 0; c < n_used; c++) {
            row[c + 1] = cell_text(s, line, used[c], most[c]);
            if (!row[c + 1])
                return KVG_FAIL(err, KVG_ENOMEM, "out of memory while making tables");
            any |= row[c + 1][0] != 0;
        }
        if (any)
            grid->lines[grid->n_rows++] = line;
    }
    return KVG_OK;
}
