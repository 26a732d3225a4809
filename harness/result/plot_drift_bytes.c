/* The plot of drift against bytes: Pareto front, the place for what is under the noise floor, and
 * labels that do not cover one another. */
#include "plot_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 110, RIGHT = 970, TOP = 60, BOTTOM = 520, MARK = 7, LABEL_MOST = 34 };

struct point {
    const struct kvg_line *line;
    double bytes, kl, lo, hi;
    int covered; /* at or under the noise floor */
    int front;
    double x, y;             /* pixels, y downwards */
    double label_x, label_y; /* the label's left middle */
    int placed, leads;
};

struct chart {
    double x_lo, x_hi, y_lo, y_hi; /* log10; y_lo includes the band below the break */
    int has_band;
};

static size_t collect(struct kvg_plot *p, const struct kvg_section *s, struct point *v)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_lines; i++) {
        const struct kvg_line *line = &s->lines[i];
        if (!line->drift)
            continue;
        const struct kvg_summary_value *kl =
            kvg_summary_find(p->summary, line->drift, "kl_mean", NULL);
        const struct kvg_summary_value *bytes =
            kvg_summary_find(p->summary, line->bytes, "bytes_per_token", NULL);
        if (!kl || !bytes || !isfinite(kl->value) || !(bytes->value > 0))
            continue;
        v[n++] = (struct point){.line = line,
                                .bytes = bytes->value,
                                .kl = kl->value,
                                .lo = kl->lo,
                                .hi = kl->hi,
                                .covered = line->indistinct || !(kl->value > 0)};
    }
    return n;
}

/* Everything at or under the floor counts as equal there: only bytes tell such points apart. */
static void mark_front(struct point *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double a = v[i].covered ? 0 : v[i].kl;
        v[i].front = 1;
        for (size_t j = 0; j < n; j++) {
            double b = v[j].covered ? 0 : v[j].kl;
            if (v[j].bytes <= v[i].bytes && b <= a && (v[j].bytes < v[i].bytes || b < a))
                v[i].front = 0;
        }
    }
}

static struct chart make_chart(struct point *v, size_t n)
{
    struct chart c = {HUGE_VAL, -HUGE_VAL, HUGE_VAL, -HUGE_VAL, 0};
    for (size_t i = 0; i < n; i++) {
        double x = log10(v[i].bytes), y = log10(v[i].kl);
        c.x_lo = fmin(c.x_lo, x - 0.15);
        c.x_hi = fmax(c.x_hi, x + 0.25);
        c.has_band |= v[i].covered;
        if (!v[i].covered) {
            c.y_lo = fmin(c.y_lo, floor(y - 0.1));
            c.y_hi = fmax(c.y_hi, ceil(y + 0.1));
        }
    }
    if (c.y_lo > c.y_hi) { /* nothing above the floor */
        c.y_lo = -3;
        c.y_hi = 0;
    }
    if (c.has_band)
        c.y_lo -= (c.y_hi - c.y_lo) / 6;
    return c;
}

static void to_pixels(const struct chart *c, struct point *v)
{
    double band = (c->y_hi - c->y_lo) / 7;
    double y = v->covered ? c->y_lo + band / 2 : log10(v->kl);
    v->x = LEFT + (log10(v->bytes) - c->x_lo) / (c->x_hi - c->x_lo) * (RIGHT - LEFT);
    v->y = BOTTOM - (y - c->y_lo) / (c->y_hi - c->y_lo) * (BOTTOM - TOP);
}

static size_t label_chars(const struct point *v)
{
    size_t n = strlen(v->line->strategy);
    return n > LABEL_MOST ? LABEL_MOST : n;
}

/* 1 when the front's line from a to b passes through the box. Front points come in order of x. */
static int line_hits(const struct point *a, const struct point *b, double x, double y, double w,
                     double h)
{
    double lo = fmax(x, fmin(a->x, b->x)), hi = fmin(x + w, fmax(a->x, b->x));
    if (lo > hi)
        return 0;
    double slope = b->x > a->x || b->x < a->x ? (b->y - a->y) / (b->x - a->x) : 0;
    double y1 = a->y + slope * (lo - a->x), y2 = a->y + slope * (hi - a->x);
    return fmin(y1, y2) < y + h && fmax(y1, y2) > y - h;
}

static int is_free(const struct point *all, size_t n, const struct point *self, double x, double y)
{
    double w = (double)label_chars(self) * PLOT_CHAR, h = PLOT_LINE / 2.0;
    if (x < LEFT + 4 || x + w > RIGHT + 20 || y - h < TOP || y + h > BOTTOM)
        return 0;
    for (size_t i = 0; i < n; i++) {
        const struct point *q = &all[i];
        if (i + 1 < n && q->front && all[i + 1].front && line_hits(q, &all[i + 1], x, y, w, h - 2))
            return 0;
        if (q->x > x - MARK && q->x < x + w + MARK && fabs(q->y - y) < h + MARK)
            return 0;
        double qw = (double)label_chars(q) * PLOT_CHAR;
        if (q->placed && q->label_x < x + w + 4 && x < q->label_x + qw + 4 &&
            fabs(q->label_y - y) < PLOT_LINE)
            return 0;
    }
    return 1;
}

/* Beside the point, then above and below, then further away with a line leading there. */
static void place(const struct point *all, size_t n, struct point *v)
{
    double w = (double)label_chars(v) * PLOT_CHAR;
    for (int ring = 0; ring < 12; ring++)
        for (int side = 0; side < 6; side++) {
            double dy = (side % 2 ? -1 : 1) * ring * 0.8 * PLOT_LINE;
            double x = side < 2   ? v->x + 11 + 5 * ring
                       : side < 4 ? v->x - w - 11 - 5 * ring
                                  : v->x - w / 2;
            if (side >= 4 && !ring)
                continue;
            if (!is_free(all, n, v, x, v->y + dy))
                continue;
            v->label_x = x;
            v->label_y = v->y + dy;
            v->placed = 1;
            v->leads = ring > 1;
            return;
        }
}

static void place_all(struct point *v, size_t n)
{
    for (int front = 1; front >= 0; front--)
        for (size_t i = 0; i < n; i++)
            if (v[i].front == front)
                place(v, n, &v[i]);
}

static double x_value(const struct chart *c, double px)
{
    return pow(10, c->x_lo + (px - LEFT) / (RIGHT - LEFT) * (c->x_hi - c->x_lo));
}

static double y_value(const struct chart *c, double px)
{
    return pow(10, c->y_lo + (BOTTOM - px) / (BOTTOM - TOP) * (c->y_hi - c->y_lo));
}

/* Where the leading line meets the label. */
static double lead_x(const struct point *v)
{
    double w = (double)label_chars(v) * PLOT_CHAR;
    return v->label_x > v->x ? v->label_x - 2 : v->label_x + w < v->x ? v->label_x + w + 2 : v->x;
}

static double lead_y(const struct point *v)
{
    double w = (double)label_chars(v) * PLOT_CHAR;
    int beside = v->label_x > v->x || v->label_x + w < v->x;
    return beside ? v->label_y : v->label_y + (v->label_y > v->y ? -9 : 9);
}

static int has_interval(const struct point *v)
{
    return isfinite(v->lo) && v->lo > 0 && !v->covered;
}

static void put_point(struct kvg_plot *p, const struct chart *c, const struct point *v)
{
    kvg_plot_put_text(&p->dat, v->line->strategy, LABEL_MOST);
    kvg_str_addf(&p->dat, " \"%s\" %.10g %.10g %.6g", v->line->role, v->bytes, v->kl,
                 y_value(c, v->y));
    if (has_interval(v))
        kvg_str_addf(&p->dat, " %.6g %.6g", v->lo, v->hi);
    else
        kvg_str_add(&p->dat, " NaN NaN");
    kvg_str_addf(&p->dat, " %d", v->front);
    if (v->placed)
        kvg_str_addf(&p->dat, " %.6g %.6g", x_value(c, v->label_x), y_value(c, v->label_y));
    else
        kvg_str_add(&p->dat, " NaN NaN");
    if (v->leads)
        kvg_str_addf(&p->dat, " %.6g %.6g\n", x_value(c, lead_x(v)), y_value(c, lead_y(v)));
    else
        kvg_str_add(&p->dat, " NaN NaN\n");
}

static void put_vars(struct kvg_plot *p, const struct kvg_section *s, const struct chart *c,
                     const struct point *v, size_t n)
{
    size_t n_unlabelled = 0, n_leads = 0, n_intervals = 0, n_other = 0;
    for (size_t i = 0; i < n; i++) {
        n_unlabelled += !v[i].placed;
        n_leads += v[i].leads != 0;
        n_intervals += has_interval(&v[i]) != 0;
        n_other += !v[i].front;
    }
    kvg_str_addf(&p->vars, "has_leads = %d\nhas_intervals = %d\nhas_other = %d\n", n_leads > 0,
                 n_intervals > 0, n_other > 0);
    char floor_text[KVG_HUMAN_CAP] = "not measured";
    double band = (c->y_hi - c->y_lo) / 7;
    if (!isnan(s->floor))
        kvg_human_number(floor_text, s->floor);
    kvg_str_add(&p->vars, "workload = '");
    kvg_plot_quote(&p->vars, kvg_workload_title(s->workload), 40);
    kvg_str_addf(&p->vars, "'\ntarget = '%s'\nfloor_text = '%s'\n", s->target, floor_text);
    kvg_str_addf(&p->vars, "x_lo = %.6g\nx_hi = %.6g\ny_lo = %.6g\ny_hi = %.6g\n", pow(10, c->x_lo),
                 pow(10, c->x_hi), pow(10, c->y_lo), pow(10, c->y_hi));
    kvg_str_addf(&p->vars, "has_band = %d\ny_break = %.6g\ny_band = %.6g\n", c->has_band,
                 pow(10, c->y_lo + band), pow(10, c->y_lo + band / 2));
    kvg_str_addf(&p->vars, "first_decade = %d\nlast_decade = %d\nn_unlabelled = %zu\n",
                 (int)ceil(c->y_lo + (c->has_band ? band : 0) - 1e-9), (int)floor(c->y_hi),
                 n_unlabelled);
}

/* The front first: its rows are joined by a line. */
static int by_front(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    if (x->front != y->front)
        return y->front - x->front;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

int kvg_plot_drift_bytes(struct kvg_plot *p)
{
    const struct kvg_section *s = kvg_plot_section(p, 1);
    if (!s) {
        p->why_not = "left out: no forced drift was measured";
        return KVG_OK;
    }
    struct point *v = kvg_arena_array(&p->summary->run.arena, s->n_lines + 1, sizeof *v);
    if (!v)
        return KVG_FAIL(p->err, KVG_ENOMEM, "out of memory while plotting");
    size_t n = collect(p, s, v);
    if (!n) {
        p->why_not = "left out: no strategy has both drift and bytes";
        return KVG_OK;
    }
    mark_front(v, n);
    qsort(v, n, sizeof *v, by_front);
    struct chart c = make_chart(v, n);
    for (size_t i = 0; i < n; i++)
        to_pixels(&c, &v[i]);
    place_all(v, n);
    kvg_str_add(&p->dat, "strategy role bytes_per_token kl y kl_lo kl_hi front label_x label_y "
                         "lead_x lead_y\n");
    for (size_t i = 0; i < n; i++)
        put_point(p, &c, &v[i]);
    put_vars(p, s, &c, v, n);
    return KVG_OK;
}
