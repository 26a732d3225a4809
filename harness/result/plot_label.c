/* What all plots share: the section they show, texts for gnuplot, and the placing of labels at the
 * right margin of a chart. */
#include "plot_impl.h"

#include <math.h>
#include <string.h>

const struct kvg_section *kvg_plot_section(const struct kvg_plot *p, int with_drift)
{
    const struct kvg_section *best = NULL;
    for (size_t i = 0; i < p->n_sections; i++) {
        const struct kvg_section *s = &p->sections[i];
        if ((with_drift && !s->target[0]) || s->question[0])
            continue;
        if (!strcmp(s->workload, KVG_WORKLOAD_ALL))
            return s;
        if (!best || s->n_items > best->n_items)
            best = s;
    }
    return best;
}

/* Adds s with its middle left out when it is longer than `most`, each byte through `put`. */
static void shorten(struct kvg_str *out, const char *s, size_t most,
                    void (*put)(struct kvg_str *, char))
{
    size_t n = strlen(s), head = n, tail = n;
    if (n > most && most > 8) {
        head = most / 2;
        tail = n - (most - head - 2);
    }
    for (size_t i = 0; i < head; i++)
        put(out, s[i]);
    if (tail < n)
        kvg_str_add(out, "..");
    for (size_t i = tail; i < n; i++)
        put(out, s[i]);
}

static void put_quoted(struct kvg_str *out, char c)
{
    if (c == '\'')
        kvg_str_addc(out, c);
    kvg_str_addc(out, (unsigned char)c < ' ' ? ' ' : c);
}

static void put_plain(struct kvg_str *out, char c)
{
    kvg_str_addc(out, c == '"' ? '\'' : (unsigned char)c < ' ' ? ' ' : c);
}

void kvg_plot_quote(struct kvg_str *out, const char *s, size_t most)
{
    shorten(out, s, most, put_quoted);
}

void kvg_plot_put_text(struct kvg_str *out, const char *s, size_t most)
{
    kvg_str_addc(out, '"');
    shorten(out, s, most, put_plain);
    kvg_str_addc(out, '"');
}

static void sort_by_end(struct kvg_series *v, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && v[j].end < v[j - 1].end; j--) {
            struct kvg_series t = v[j];
            v[j] = v[j - 1];
            v[j - 1] = t;
        }
}

/* Least squares with fixed distances is isotonic regression of end - i x gap: neighbours in each
 * other's way are pooled at their mean (pool adjacent violators). When there is no room for all,
 * the distance shrinks. */
void kvg_plot_spread(struct kvg_series *v, size_t n, double gap, double lo, double hi)
{
    sort_by_end(v, n);
    if (n > 1 && gap * (double)(n - 1) > hi - lo)
        gap = (hi - lo) / (double)(n - 1);
    for (size_t i = 0; i < n; i++)
        v[i].label = v[i].end - (double)i * gap;
    for (size_t i = 1; i < n; i++) {
        size_t begin = i;
        double sum = v[i].label;
        while (begin > 0 && v[begin - 1].label > sum / (double)(i - begin + 1))
            sum += v[--begin].label;
        for (size_t k = begin; k <= i; k++)
            v[k].label = sum / (double)(i - begin + 1);
    }
    double top = hi - gap * (double)(n ? n - 1 : 0);
    for (size_t i = 0; i < n; i++) {
        double at = v[i].label > top ? top : v[i].label < lo ? lo : v[i].label;
        v[i].label = at + (double)i * gap;
    }
}

static double axis_value(double v, int log)
{
    return log ? pow(10, v) : v;
}

void kvg_plot_put_series(struct kvg_plot *p, const char *prefix, struct kvg_series *v, size_t n,
                         double lo, double hi, int log, double height_px)
{
    size_t longest = 0;
    kvg_plot_spread(v, n, (hi - lo) * PLOT_LINE / height_px, lo, hi);
    kvg_str_addf(&p->vars, "n_%s = %zu\n", prefix, n);
    kvg_str_addf(&p->vars, "array %s_text[%zu]\narray %s_y[%zu]\narray %s_series[%zu]\n", prefix, n,
                 prefix, n, prefix, n);
    kvg_str_addf(&p->vars, "array %s_end[%zu]\n", prefix, n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(v[i].name);
        longest = len > longest ? len : longest;
        kvg_str_addf(&p->vars, "%s_text[%zu] = '", prefix, i + 1);
        kvg_plot_quote(&p->vars, v[i].name, 30);
        kvg_str_addf(&p->vars, "'; %s_y[%zu] = %.6g; %s_end[%zu] = %.6g; %s_series[%zu] = %zu\n",
                     prefix, i + 1, axis_value(v[i].label, log), prefix, i + 1,
                     axis_value(v[i].end, log), prefix, i + 1, v[i].index);
    }
    longest = longest > 30 ? 30 : longest;
    kvg_str_addf(&p->vars, "%s_margin = %.3f\n", prefix,
                 1 - (double)(longest * PLOT_CHAR + 48) / PLOT_WIDTH);
}
