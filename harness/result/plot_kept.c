/* The map of what is kept: position by layer, one panel per strategy, from kept.csv. */
#include "plot_impl.h"

#include "base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PANELS = 12, MOST_BINS = 240, NAME_CAP = 512 };

struct kept {
    struct kvg_arena *arena;
    const char *names[MOST_PANELS];
    size_t n_panels, n_more; /* strategies with and without a panel */
    const char *last_more;
    uint64_t last_turn[MOST_PANELS];
    uint64_t n_layers, n_pos, n_heads;
    uint64_t bin_width, n_bins;
    double *sum; /* [n_panels, n_layers, n_bins] heads; NULL in the first pass */
};

/* The panel of a strategy, n_panels when it is new. */
static size_t panel_of(const struct kept *k, const char *name)
{
    size_t i = 0;
    while (i < k->n_panels && strcmp(k->names[i], name))
        i++;
    return i;
}

/* A strategy whose compression did not see the question has a panel beside the one that saw it. */
static const char *name_of(const struct kvg_row *row, char out[NAME_CAP])
{
    const char *query = kvg_row_str(row, KVG_KEPT_query);
    int plain = !query[0] || !strcmp(query, "seen");
    snprintf(out, NAME_CAP, "%s%s%s%s", kvg_row_str(row, KVG_KEPT_strategy), plain ? "" : " (",
             plain ? "" : query, plain ? "" : ")");
    return out;
}

/* First pass: strategies, last turn and extents. */
static int measure(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kept *k = arg;
    char room[NAME_CAP];
    const char *name = name_of(row, room);
    uint64_t turn = kvg_row_u64(row, KVG_KEPT_turn), layer = kvg_row_u64(row, KVG_KEPT_layer);
    uint64_t pos = kvg_row_u64(row, KVG_KEPT_pos), heads = kvg_row_u64(row, KVG_KEPT_heads);
    size_t i = panel_of(k, name);
    if (layer >= 4096 || pos >= (uint64_t)1 << 32)
        return KVG_FAIL(err, KVG_EFORMAT, "layer or position out of range: '%s' in kept.csv", name);
    if (i == k->n_panels && i == MOST_PANELS) {
        if (!k->last_more || strcmp(k->last_more, name)) {
            k->last_more = kvg_arena_strdup(k->arena, name);
            k->n_more++;
        }
        return KVG_OK;
    }
    if (i == k->n_panels) {
        if (!(k->names[i] = kvg_arena_strdup(k->arena, name)))
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory while plotting");
        k->n_panels++;
    }
    k->last_turn[i] = turn > k->last_turn[i] ? turn : k->last_turn[i];
    k->n_layers = layer >= k->n_layers ? layer + 1 : k->n_layers;
    k->n_pos = pos >= k->n_pos ? pos + 1 : k->n_pos;
    k->n_heads = heads > k->n_heads ? heads : k->n_heads;
    return KVG_OK;
}

static int accumulate(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct kept *k = arg;
    char name[NAME_CAP];
    size_t i = panel_of(k, name_of(row, name));
    (void)err;
    if (i == k->n_panels || kvg_row_u64(row, KVG_KEPT_turn) != k->last_turn[i])
        return KVG_OK;
    uint64_t at = (i * k->n_layers + kvg_row_u64(row, KVG_KEPT_layer)) * k->n_bins +
                  kvg_row_u64(row, KVG_KEPT_pos) / k->bin_width;
    k->sum[at] += (double)kvg_row_u64(row, KVG_KEPT_heads);
    return KVG_OK;
}

/* Positions of the last bin may be fewer than its width. */
static double bin_share(const struct kept *k, size_t panel, uint64_t layer, uint64_t bin)
{
    uint64_t begin = bin * k->bin_width, left = k->n_pos - begin;
    uint64_t width = left < k->bin_width ? left : k->bin_width;
    return k->sum[(panel * k->n_layers + layer) * k->n_bins + bin] / (double)(width * k->n_heads);
}

static void put_data(struct kvg_plot *p, const struct kept *k)
{
    kvg_str_add(&p->dat, "position layer");
    for (size_t i = 0; i < k->n_panels; i++)
        kvg_str_addf(&p->dat, " share%zu", i + 1);
    kvg_str_addc(&p->dat, '\n');
    for (uint64_t layer = 0; layer < k->n_layers; layer++)
        for (uint64_t bin = 0; bin < k->n_bins; bin++) {
            kvg_str_addf(&p->dat, "%.10g %llu", ((double)bin + 0.5) * (double)k->bin_width,
                         (unsigned long long)layer);
            for (size_t i = 0; i < k->n_panels; i++)
                kvg_str_addf(&p->dat, " %.4g", bin_share(k, i, layer, bin));
            kvg_str_addc(&p->dat, '\n');
        }
}

static void put_vars(struct kvg_plot *p, const struct kept *k)
{
    size_t n_columns = k->n_panels > 6 ? 3 : k->n_panels > 1 ? 2 : 1;
    kvg_str_addf(&p->vars, "n_panels = %zu\nn_more = %zu\nn_columns = %zu\nn_rows = %zu\n",
                 k->n_panels, k->n_more, n_columns, (k->n_panels + n_columns - 1) / n_columns);
    kvg_str_addf(&p->vars, "n_layers = %llu\nn_pos = %llu\narray panel[%zu]\n",
                 (unsigned long long)k->n_layers, (unsigned long long)k->n_pos, k->n_panels);
    for (size_t i = 0; i < k->n_panels; i++) {
        kvg_str_addf(&p->vars, "panel[%zu] = '", i + 1);
        kvg_plot_quote(&p->vars, k->names[i], n_columns > 2 ? 34 : 50);
        kvg_str_add(&p->vars, "'\n");
    }
}

int kvg_plot_kept_map(struct kvg_plot *p)
{
    struct kept k = {.arena = &p->summary->run.arena};
    char path[4200];
    snprintf(path, sizeof path, "%s/kept.csv", p->summary->run.dir);
    if (!kvg_fs_exists(path)) {
        p->why_not = "left out: there is no kept.csv in the run folder";
        return KVG_OK;
    }
    int rc = kvg_csv_read(path, &kvg_table_kept, measure, &k, p->err);
    if (rc)
        return rc;
    if (!k.n_panels || !k.n_heads) {
        p->why_not = "left out: kept.csv has no rows";
        return KVG_OK;
    }
    k.bin_width = (k.n_pos + MOST_BINS - 1) / MOST_BINS;
    k.n_bins = (k.n_pos + k.bin_width - 1) / k.bin_width;
    k.sum = calloc(k.n_panels * k.n_layers * k.n_bins, sizeof *k.sum);
    if (!k.sum)
        return KVG_FAIL(p->err, KVG_ENOMEM, "out of memory while plotting");
    rc = kvg_csv_read(path, &kvg_table_kept, accumulate, &k, p->err);
    if (!rc) {
        put_data(p, &k);
        put_vars(p, &k);
    }
    free(k.sum);
    return rc;
}
