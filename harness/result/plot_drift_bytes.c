/* The plot of drift against bytes: Pareto front with its labels, which do not cover one another,
 * the rest in grey, and the place for what is under the noise floor. */
#include "plot_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 110, RIGHT = 970, TOP = 60, BOTTOM = 520, MARK = 7, LABEL_MOST = 34, RINGS = 16 };

/* What a label must not touch beside other labels and the front: the other points and leading
 * lines, those lines alone, nothing. */
enum { CARE_POINTS, CARE_LEADS, CARE_LABELS };

struct point {
    const struct kvg_line *line;
    double bytes, kl, lo, hi;
    int covered; /* at or under the noise floor */
    int front, oracle;
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
                                .covered = line->indistinct || !(kl->value > 0),
                                .oracle = !strcmp(line->role, "oracle")};
    }
    return n;
}

/* Everything at or under the floor counts as equal there: only bytes tell such points apart. What
 * cannot be deployed is no choice anybody has: it is not part of the front and beats nobody. */
static void mark_front(struct point *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double a = v[i].covered ? 0 : v[i].kl;
        v[i].front = !v[i].oracle;
        for (size_t j = 0; j < n; j++) {
            if (v[j].oracle)
                continue;
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

/* A label's surroundings: its left middle, half its height. */
struct box {
    double x, y, w, h;
};

static struct box label_box(const struct point *v, double x, double y)
{
    return (struct box){x, y, (double)label_chars(v) * PLOT_CHAR, PLOT_LINE / 2.0};
}

/* Narrows [t[0], t[1]] to where p + t d lies in [lo, hi]; 0 when nothing is left. */
static int clip(double p, double d, double lo, double hi, double t[2])
{
    if (!(fabs(d) > 0))
        return p >= lo && p <= hi;
    double a = (lo - p) / d, b = (hi - p) / d;
    t[0] = fmax(t[0], fmin(a, b));
    t[1] = fmin(t[1], fmax(a, b));
    return t[0] <= t[1];
}

/* 1 when the line from (ax, ay) to (bx, by) passes through the box. */
static int line_hits(double ax, double ay, double bx, double by, const struct box *o)
{
    double t[2] = {0, 1};
    return clip(ax, bx - ax, o->x, o->x + o->w, t) &&
           clip(ay, by - ay, o->y - o->h, o->y + o->h, t);
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

static int boxes_touch(const struct box *a, const struct box *b)
{
    return a->x < b->x + b->w + 4 && b->x < a->x + a->w + 4 && fabs(a->y - b->y) < a->h + b->h;
}

/* 1 when neither the other's label nor its leading line is in the way of v, and v's not in its. */
static int get_along(const struct point *v, const struct box *box, const struct point *q, int care)
{
    if (!q->placed || q == v)
        return 1;
    struct box other = label_box(q, q->label_x, q->label_y);
    if (boxes_touch(box, &other))
        return 0;
    if (care == CARE_LABELS)
        return 1;
    if (q->leads && line_hits(q->x, q->y, lead_x(q), lead_y(q), box))
        return 0;
    return !v->leads || !line_hits(v->x, v->y, lead_x(v), lead_y(v), &other);
}

/* 1 when v's label lies inside the picture and covers no other label and nothing of the front;
 * `care` says what more. */
static int is_free(const struct point *all, size_t n, const struct point *v, int care)
{
    struct box o = label_box(v, v->label_x, v->label_y), tight = {o.x, o.y, o.w, o.h - 2};
    if (o.x < LEFT + 4 || o.x + o.w > RIGHT + 20 || o.y - o.h < TOP || o.y + o.h > BOTTOM)
        return 0;
    for (size_t i = 0; i < n; i++) {
        const struct point *q = &all[i];
        if (i + 1 < n && q->front && all[i + 1].front &&
            line_hits(q->x, q->y, all[i + 1].x, all[i + 1].y, &tight))
            return 0;
        if ((care == CARE_POINTS || q->front) && q->x > o.x - MARK && q->x < o.x + o.w + MARK &&
            fabs(q->y - o.y) < o.h + MARK)
            return 0;
        if (!get_along(v, &o, q, care))
            return 0;
    }
    return 1;
}

/* Beside the point, then above and below, then further away with a line leading there; `slant`
 * pixels to the side for every step up or down. */
static void place(const struct point *all, size_t n, struct point *v, int care, double slant)
{
    double w = (double)label_chars(v) * PLOT_CHAR;
    for (int ring = 0; ring < RINGS; ring++)
        for (int side = 0; side < (ring ? 6 : 4); side++) {
            double off = 11 + ring * slant;
            v->label_y = v->y + (side % 2 ? -1 : 1) * ring * 0.8 * PLOT_LINE;
            v->label_x = side < 2 ? v->x + off : side < 4 ? v->x - w - off : v->x - w / 2;
            v->leads = ring > 1;
            if (is_free(all, n, v, care)) {
                v->placed = 1;
                return;
            }
        }
    v->leads = 0;
}

/* Only the front has labels. One may lie on grey points when there is no place beside them, and be
 * crossed by a leading line when there is no other. */
static void place_all(struct point *v, size_t n)
{
    static const struct {
        int care;
        double slant;
    } passes[] = {{CARE_POINTS, 5}, {CARE_POINTS, 20}, {CARE_LEADS, 5},  {CARE_LEADS, 20},
                  {CARE_LEADS, 60}, {CARE_LABELS, 5},  {CARE_LABELS, 20}};
    for (size_t k = 0; k < sizeof passes / sizeof passes[0]; k++)
        for (size_t i = 0; i < n; i++)
            if (v[i].front && !v[i].placed)
                place(v, n, &v[i], passes[k].care, passes[k].slant);
}

static double x_value(const struct chart *c, double px)
{
    return pow(10, c->x_lo + (px - LEFT) / (RIGHT - LEFT) * (c->x_hi - c->x_lo));
}

static double y_value(const struct chart *c, double px)
{
    return pow(10, c->y_lo + (BOTTOM - px) / (BOTTOM - TOP) * (c->y_hi - c->y_lo));
}

static int has_interval(const struct point *v)
{
    return v->front && isfinite(v->lo) && v->lo > 0 && !v->covered;
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
    size_t n_unlabelled = 0, n_leads = 0, n_intervals = 0, n_other = 0, n_oracles = 0;
    for (size_t i = 0; i < n; i++) {
        n_unlabelled += v[i].front && !v[i].placed;
        n_oracles += v[i].oracle != 0;
        n_leads += v[i].leads != 0;
        n_intervals += has_interval(&v[i]) != 0;
        n_other += !v[i].front && !v[i].oracle;
    }
    kvg_str_addf(&p->vars, "has_leads = %d\nhas_intervals = %d\nhas_other = %d\n", n_leads > 0,
                 n_intervals > 0, n_other > 0);
    kvg_str_addf(&p->vars, "has_oracles = %d\n", n_oracles > 0);
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
