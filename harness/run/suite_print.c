/* Owns the checks of resolved settings and their print as YAML; must not know how they were read.
 */
#include "run/recall.h"
#include "run/suite.h"

#include <string.h>

int kvg_suite_check(const struct kvg_suite *s, struct kvg_err *err)
{
    if (s->strategies.n == 0)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "no strategy given: add --strategy SPEC; `kvgauge ls "
                        "strategies` lists them");
    if (s->n_workloads == 0)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "no workload given: add --workload FILE|PACK; `kvgauge ls "
                        "workloads` lists the packs");
    if (!s->name[0] || strpbrk(s->name, "/\\\n") || s->name[0] == '.')
        return KVG_FAIL(err, KVG_EUSAGE,
                        "'%s' cannot name a folder of results: change the suite's "
                        "'name'",
                        s->name);
    if (!s->lanes[KVG_LANE_DRIFT] && !s->lanes[KVG_LANE_TIME])
        return KVG_FAIL(err, KVG_EUSAGE, "no lane wanted: the suite needs 'drift:' or 'time:'");
    if (s->lanes[KVG_LANE_DRIFT] && !s->modes[KVG_MODE_FORCED] && !s->modes[KVG_MODE_FREE])
        return KVG_FAIL(err, KVG_EUSAGE, "no mode wanted in the drift lane: forced, free or both");
    if (!s->queries[KVG_QUERY_SEEN] && !s->queries[KVG_QUERY_UNSEEN])
        return KVG_FAIL(err, KVG_EUSAGE, "no choice of 'query' wanted: seen, unseen or both");
    if (s->second_question && !(s->lanes[KVG_LANE_DRIFT] && s->modes[KVG_MODE_FORCED]))
        return KVG_FAIL(err, KVG_EUSAGE,
                        "'second_question' is a part of forced drift, which is not wanted");
    for (size_t i = 0; i < s->n_equal_bytes; i++)
        for (size_t k = 0; k <= i; k++)
            if (!s->equal_bytes[i] || (k < i && s->equal_bytes[k] == s->equal_bytes[i]))
                return KVG_FAIL(err, KVG_EUSAGE,
                                "'equal_bytes': %zu is not a number of bytes above 0, or is given "
                                "twice",
                                s->equal_bytes[i]);
    if (s->n_seeds < 1 || s->n_seeds > 1000)
        return KVG_FAIL(err, KVG_EUSAGE, "'seeds' is %zu: give 1 to 1000", s->n_seeds);
    if (s->lanes[KVG_LANE_TIME] && (s->rounds < 1 || s->rounds > 10000))
        return KVG_FAIL(err, KVG_EUSAGE, "'rounds' is %zu: give 1 to 10000", s->rounds);
    if (s->free_tokens < 1)
        return KVG_FAIL(err, KVG_EUSAGE, "'free_tokens' is 0: a free reply needs a limit");
    if (s->uncached_depths > 64)
        return KVG_FAIL(err, KVG_EUSAGE, "'uncached_depths' is %zu: give at most 64",
                        s->uncached_depths);
    if (s->bench && (s->n_bench_depths == 0 || s->bench_n_gen == 0))
        return KVG_FAIL(err, KVG_EUSAGE, "'bench' needs 'depths' and an 'n_gen' of at least 1");
    if (s->recall) {
        int rc = kvg_recall_check(s->recall_lengths, s->n_recall_lengths, s->recall_facts, err);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < s->strategies.n; i++)
        for (size_t j = 0; j < i; j++)
            if (!strcmp(s->strategies.v[i], s->strategies.v[j]))
                return KVG_FAIL(err, KVG_EUSAGE, "the strategy '%s' is listed twice",
                                s->strategies.v[i]);
    return 0;
}

/* Double-quoted YAML, which takes JSON's escapes. */
static void put_text(struct kvg_str *out, const char *s)
{
    kvg_str_addc(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            kvg_str_addf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            kvg_str_addf(out, "\\x%02x", (unsigned char)*s);
        else
            kvg_str_addc(out, *s);
    }
    kvg_str_addc(out, '"');
}

static void put_list(struct kvg_str *out, const char *indent, const char *key,
                     const struct kvg_strlist *l)
{
    if (l->n == 0)
        return;
    kvg_str_addf(out, "%s%s:\n", indent, key);
    for (size_t i = 0; i < l->n; i++) {
        kvg_str_addf(out, "%s  - ", indent);
        put_text(out, l->v[i]);
        kvg_str_addc(out, '\n');
    }
}

static void put_sizes(struct kvg_str *out, const char *key, const size_t *v, size_t n)
{
    kvg_str_addf(out, "%s: [", key);
    for (size_t i = 0; i < n; i++)
        kvg_str_addf(out, "%s%zu", i ? ", " : "", v[i]);
    kvg_str_add(out, "]\n");
}

static void put_drift(const struct kvg_suite *s, struct kvg_str *out)
{
    kvg_str_add(out, "drift:\n  modes: [");
    for (int m = 0, n = 0; m < KVG_MODE_N; m++)
        if (s->modes[m])
            kvg_str_addf(out, "%s%s", n++ ? ", " : "", kvg_mode_name((enum kvg_mode)m));
    kvg_str_addf(out, "]\n  target: %s\n  reply_tokens: %zu\n", kvg_target_name(s->target),
                 s->reply_tokens);
    put_list(out, "  ", "free_items", &s->free_items);
    kvg_str_addf(out, "  free_tokens: %zu\n  floor_items: %zu\n", s->free_tokens, s->floor_items);
    if (s->kept_item) {
        kvg_str_add(out, "  kept_item: ");
        put_text(out, s->kept_item);
        kvg_str_addc(out, '\n');
    }
}

static void put_time(const struct kvg_suite *s, struct kvg_str *out)
{
    kvg_str_add(out, "time:\n");
    put_list(out, "  ", "items", &s->time_items);
    kvg_str_addf(out, "  reply_tokens: %zu\n  rounds: %zu\n", s->time_reply_tokens, s->rounds);
    put_list(out, "  ", "strategies", &s->time_strategies);
    kvg_str_addf(out, "  uncached_depths: %zu\n", s->uncached_depths);
}

void kvg_suite_print(const struct kvg_suite *s, struct kvg_str *out)
{
    kvg_str_add(out, "name: ");
    put_text(out, s->name);
    kvg_str_add(out, "\ndescription: ");
    put_text(out, s->description);
    kvg_str_addc(out, '\n');
    put_list(out, "", "strategies", &s->strategies);
    if (s->n_equal_bytes) {
        kvg_str_add(out, "equal_bytes: [");
        for (size_t i = 0; i < s->n_equal_bytes; i++)
            kvg_str_addf(out, "%s%zu", i ? ", " : "", s->equal_bytes[i]);
        kvg_str_add(out, "]\n");
    }
    kvg_str_add(out, "workloads:\n");
    for (size_t i = 0; i < s->n_workloads; i++) {
        kvg_str_add(out, "  - source: ");
        put_text(out, s->workloads[i].source);
        kvg_str_addc(out, '\n');
        put_list(out, "    ", "items", &s->workloads[i].items);
    }
    kvg_str_addf(out, "seed: %llu\nseeds: %zu\nseeds_mode: %s\nmax_items: %zu\nmax_turns: %zu\n",
                 (unsigned long long)s->seed, s->n_seeds,
                 s->seeds_mode == KVG_SEEDS_ALL ? "all" : "rotate", s->max_items, s->max_turns);
    kvg_str_add(out, "query: [");
    for (int q = 0, n = 0; q < KVG_QUERY_N; q++)
        if (s->queries[q])
            kvg_str_addf(out, "%s%s", n++ ? ", " : "", kvg_query_name((enum kvg_query)q));
    kvg_str_addf(out, "]\nsecond_question: %s\n", s->second_question ? "yes" : "no");
    if (s->lanes[KVG_LANE_DRIFT])
        put_drift(s, out);
    if (s->lanes[KVG_LANE_TIME])
        put_time(s, out);
    if (s->bench) {
        put_sizes(out, "bench:\n  depths", s->bench_depths, s->n_bench_depths);
        kvg_str_addf(out, "  n_gen: %zu\n", s->bench_n_gen);
        put_list(out, "  ", "strategies", &s->bench_strategies);
    }
    if (s->recall) {
        put_sizes(out, "recall:\n  lengths", s->recall_lengths, s->n_recall_lengths);
        kvg_str_addf(out, "  facts: %zu\n", s->recall_facts);
        put_list(out, "  ", "strategies", &s->recall_strategies);
    }
}
