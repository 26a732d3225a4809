/* Owns the text of the catalogue page. Must not know any strategy by name. */
#include "run/catalogue.h"

#include "result/csv.h"
#include "strategies/strategy.h"

#include <math.h>
#include <string.h>

/* What a run says of one spec, over all its workloads. */
struct measured {
    const char *label;
    double kl, kl_lo, kl_hi, bytes;
    uint64_t n_items;
    struct measured *next;
};

struct reading {
    struct measured *first, **end;
    struct kvg_arena *a;
};

static struct measured *find(struct reading *r, const char *label)
{
    for (struct measured *m = r->first; m; m = m->next)
        if (!strcmp(m->label, label))
            return m;
    struct measured *m = kvg_arena_alloc(r->a, sizeof *m);
    if (!m || !(m->label = kvg_arena_strdup(r->a, label)))
        return NULL;
    m->kl = m->kl_lo = m->kl_hi = m->bytes = NAN;
    *r->end = m;
    r->end = &m->next;
    return m;
}

/* Forced drift of the strategies themselves, over everything; not their floors, nor free replies. */
static int take_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct reading *r = arg;
    const char *metric = kvg_row_str(row, KVG_SUMMARY_metric);
    int is_kl = !strcmp(metric, "kl_mean"), is_bytes = !strcmp(metric, "bytes_per_token");
    if ((!is_kl && !is_bytes) || strcmp(kvg_row_str(row, KVG_SUMMARY_workload), "all") ||
        strcmp(kvg_row_str(row, KVG_SUMMARY_arm), "main") ||
        strcmp(kvg_row_str(row, KVG_SUMMARY_mode), "forced") ||
        strcmp(kvg_row_str(row, KVG_SUMMARY_lane), "drift"))
        return 0;
    struct measured *m = find(r, kvg_row_str(row, KVG_SUMMARY_strategy));
    if (!m)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (is_bytes) {
        m->bytes = kvg_row_f64(row, KVG_SUMMARY_value);
        return 0;
    }
    m->kl = kvg_row_f64(row, KVG_SUMMARY_value);
    m->kl_lo = kvg_row_f64(row, KVG_SUMMARY_ci_lo);
    m->kl_hi = kvg_row_f64(row, KVG_SUMMARY_ci_hi);
    m->n_items = kvg_row_u64(row, KVG_SUMMARY_n_items);
    return 0;
}

/* Whether a spec has a part of this name. */
static int has_part(const char *spec, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = spec; p; p = strchr(p, '+')) {
        p += *p == '+';
        if (!strncmp(p, name, n) && !strchr("abcdefghijklmnopqrstuvwxyz0123456789_-", p[n]))
            return 1;
        if (!strncmp(p, name, n) && !p[n])
            return 1;
    }
    return 0;
}

static size_t n_parts(const char *spec)
{
    size_t n = 1;
    for (; *spec; spec++)
        n += *spec == '+';
    return n;
}

/* The spec that has the strategy and least beside it, the first of those. */
static const struct measured *plainest(const struct reading *r, const char *name)
{
    const struct measured *best = NULL;
    for (const struct measured *m = r->first; m; m = m->next)
        if (has_part(m->label, name) && !isnan(m->kl) &&
            (!best || n_parts(m->label) < n_parts(best->label)))
            best = m;
    return best;
}

static void print_measured(const struct reading *r, const char *name, struct kvg_str *out)
{
    const struct measured *m = plainest(r, name);
    if (m) {
        kvg_str_addf(out, "\nMeasured: `%s`: mean KL %.3g nats", m->label, m->kl);
        if (!isnan(m->kl_lo))
            kvg_str_addf(out, " [%.3g, %.3g]", m->kl_lo, m->kl_hi);
        kvg_str_addf(out, " over %llu items, %.0f bytes a token.\n",
                     (unsigned long long)m->n_items, m->bytes);
        return;
    }
    kvg_str_add(out, "\nMeasured: not in that run.\n");
}

static void print_cell(const char *text, struct kvg_str *out)
{
    for (; *text; text++) {
        if (*text == '|')
            kvg_str_addc(out, '\\');
        kvg_str_addc(out, *text);
    }
}

static void print_options(const struct kvg_opt *table, struct kvg_str *out)
{
    for (const struct kvg_opt *o = table; o && o->name; o++) {
        kvg_str_addf(out, "| `%s` | `%s` | ", o->name, o->def && *o->def ? o->def : "-");
        print_cell(o->choices ? o->choices : o->metavar ? o->metavar : "", out);
        kvg_str_add(out, " | ");
        print_cell(o->help ? o->help : "", out);
        kvg_str_add(out, " |\n");
    }
}

static void print_strategy(const struct kvg_strategy *s, struct kvg_str *out)
{
    kvg_str_addf(out, "\n## %s\n\n%s (%s%s%s).\n\n- source: %s\n- observes: %s\n- edits: %s\n",
                 s->name, s->summary, kvg_kind_name(s->kind),
                 s->role == KVG_ROLE_STRATEGY ? "" : ", ",
                 s->role == KVG_ROLE_STRATEGY ? "" : kvg_role_name(s->role), s->source, s->observes,
                 s->truncation == KVG_TRUNCATE_CUT ? "cut; what was kept before stays"
                                                   : "the conversation is fed again");
    if (s->path_dependent)
        kvg_str_add(out, "- its choices depend on rounding along the path: gets a floor of its "
                         "own\n");
    if (!s->opts || !s->opts->name)
        return;
    kvg_str_add(out, "\n| option | default | values | meaning |\n|---|---|---|---|\n");
    print_options(s->opts, out);
}

static void print_common(enum kvg_kind kind, struct kvg_str *out)
{
    const struct kvg_opt *table = kvg_common_opts(kind);
    if (!table || !table->name)
        return;
    kvg_str_addf(out, "\nOptions of every strategy that is of kind %s:\n\n"
                      "| option | default | values | meaning |\n|---|---|---|---|\n",
                 kvg_kind_name(kind));
    print_options(table, out);
}

int kvg_catalogue_print(const char *measured, struct kvg_arena *a, struct kvg_str *out,
                        struct kvg_err *err)
{
    struct reading r = {.end = &r.first, .a = a};
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    int rc = measured ? kvg_csv_read(measured, &kvg_table_summary, take_row, &r, err) : 0;
    if (rc)
        return rc;
    kvg_str_addf(out,
                 "# Strategies\n\nMade by `kvgauge ls strategies --markdown` from the tables that "
                 "also parse specs; do not edit. %zu strategies of five kinds: keep (which tokens "
                 "stay), wrap (changes what a keeper chooses), encode (in what form), read (what "
                 "a step reads), share (how the store lies in memory). A spec joins them with "
                 "`+`: `snapkv:budget=25%%+adakv+q8_0`.\n",
                 n);
    if (measured)
        kvg_str_addf(out,
                     "\nMeasured lines are the rows of `%s`: the spec with least beside the "
                     "strategy, `@4000B` when its budget was fitted to that many bytes per token "
                     "at the prompt's end; 95 %% bootstrap over items; bytes as held at the end.\n",
                     measured);
    print_common(KVG_KIND_KEEP, out);
    print_common(KVG_KIND_ENCODE, out);
    for (size_t i = 0; i < n; i++) {
        print_strategy(all[i], out);
        if (measured)
            print_measured(&r, all[i]->name, out);
    }
    return out->failed ? KVG_FAIL(err, KVG_ENOMEM, "out of memory") : 0;
}
