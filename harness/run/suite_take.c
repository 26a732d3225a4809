/* Owns the settings' names and defaults, and their way from the keys of a file. Must not know how a
 * file is read. */
#include "run/suite_impl.h"

#include <string.h>

const char *kvg_mode_name(enum kvg_mode m)
{
    return m == KVG_MODE_FORCED ? "forced" : "free";
}

const char *kvg_lane_name(enum kvg_lane l)
{
    return l == KVG_LANE_DRIFT ? "drift" : "time";
}

const char *kvg_target_name(enum kvg_target t)
{
    return t == KVG_TARGET_RECORDED ? "recorded" : "greedy";
}

const char *kvg_query_name(enum kvg_query q)
{
    return q == KVG_QUERY_SEEN ? "seen" : "unseen";
}

void kvg_suite_defaults(struct kvg_suite *s)
{
    *s = (struct kvg_suite){.name = "flags",
                            .description = "",
                            .seed = 1,
                            .n_seeds = 5,
                            .lanes = {1, 0},
                            .modes = {1, 0},
                            .queries = {1, 0},
                            .reply_tokens = 50,
                            .free_tokens = 48,
                            .floor_items = 1,
                            .time_reply_tokens = 32,
                            .rounds = 3,
                            .uncached_depths = 8,
                            .bench_n_gen = 8,
                            .recall_facts = 16};
}

static int put(const struct kvg_raw_source *t, const char *key, const char *text, size_t *to)
{
    int64_t v;
    if (!text)
        return 0;
    if (kvg_text_i64(text, &v) || v < 0)
        return KVG_FAIL(t->err, KVG_EUSAGE, "%s: '%s: %s' is not a whole number of 0 or more",
                        t->path, key, text);
    *to = (size_t)v;
    return 0;
}

static int take_drift(const struct kvg_raw_source *t, struct kvg_suite *s,
                      const struct kvg_raw_drift *d)
{
    s->lanes[KVG_LANE_DRIFT] = d != NULL;
    if (!d)
        return 0;
    if (d->n_modes)
        memset(s->modes, 0, sizeof s->modes);
    for (size_t i = 0; i < d->n_modes; i++)
        s->modes[d->modes[i]] = 1;
    if (d->target)
        s->target = (enum kvg_target) * d->target;
    s->free_items = (struct kvg_strlist){d->free_items, d->n_free_items};
    s->kept_item = d->kept_item;
    int rc = put(t, "reply_tokens", d->reply_tokens, &s->reply_tokens);
    if (!rc)
        rc = put(t, "free_tokens", d->free_tokens, &s->free_tokens);
    return rc ? rc : put(t, "floor_items", d->floor_items, &s->floor_items);
}

static int take_time(const struct kvg_raw_source *t, struct kvg_suite *s,
                     const struct kvg_raw_time *r)
{
    s->lanes[KVG_LANE_TIME] = r != NULL;
    if (!r)
        return 0;
    s->time_items = (struct kvg_strlist){r->items, r->n_items};
    s->time_strategies = (struct kvg_strlist){r->strategies, r->n_strategies};
    int rc = put(t, "reply_tokens", r->reply_tokens, &s->time_reply_tokens);
    if (!rc)
        rc = put(t, "rounds", r->rounds, &s->rounds);
    return rc ? rc : put(t, "uncached_depths", r->uncached_depths, &s->uncached_depths);
}

static int take_sizes(const struct kvg_raw_source *t, const char *key, const char **text, size_t n,
                      size_t **to, size_t *n_to)
{
    *to = kvg_arena_array(t->a, n + 1, sizeof **to);
    if (!*to)
        return KVG_FAIL(t->err, KVG_ENOMEM, "out of memory");
    *n_to = n;
    for (size_t i = 0; i < n; i++) {
        int rc = put(t, key, text[i], &(*to)[i]);
        if (rc)
            return rc;
    }
    return 0;
}

static int take_bench(const struct kvg_raw_source *t, struct kvg_suite *s,
                      const struct kvg_raw_bench *b)
{
    s->bench = b != NULL;
    if (!b)
        return 0;
    s->bench_strategies = (struct kvg_strlist){b->strategies, b->n_strategies};
    int rc = take_sizes(t, "depths", b->depths, b->n_depths, &s->bench_depths, &s->n_bench_depths);
    return rc ? rc : put(t, "n_gen", b->n_gen, &s->bench_n_gen);
}

static int take_recall(const struct kvg_raw_source *t, struct kvg_suite *s,
                       const struct kvg_raw_recall *r)
{
    s->recall = r != NULL;
    if (!r)
        return 0;
    s->recall_strategies = (struct kvg_strlist){r->strategies, r->n_strategies};
    int rc = take_sizes(t, "lengths", r->lengths, r->n_lengths, &s->recall_lengths,
                        &s->n_recall_lengths);
    return rc ? rc : put(t, "facts", r->facts, &s->recall_facts);
}

static int take_equal_bytes(const struct kvg_raw_source *t, struct kvg_suite *s,
                            const struct kvg_raw_suite *r)
{
    int rc = 0;
    s->n_equal_bytes = r->n_equal_bytes;
    s->equal_bytes = kvg_arena_array(t->a, r->n_equal_bytes + 1, sizeof *s->equal_bytes);
    if (!s->equal_bytes)
        return KVG_FAIL(t->err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < r->n_equal_bytes && !rc; i++)
        rc = put(t, "equal_bytes", r->equal_bytes[i], &s->equal_bytes[i]);
    return rc;
}

static int take_numbers(const struct kvg_raw_source *t, struct kvg_suite *s,
                        const struct kvg_raw_suite *r)
{
    size_t seed = (size_t)s->seed;
    int rc = put(t, "seed", r->seed, &seed);
    s->seed = seed;
    if (!rc)
        rc = put(t, "seeds", r->seeds, &s->n_seeds);
    if (!rc)
        rc = put(t, "max_items", r->max_items, &s->max_items);
    return rc ? rc : put(t, "max_turns", r->max_turns, &s->max_turns);
}

static void take_queries(struct kvg_suite *s, const struct kvg_raw_suite *r)
{
    if (r->n_query)
        memset(s->queries, 0, sizeof s->queries);
    for (size_t i = 0; i < r->n_query; i++)
        s->queries[r->query[i]] = 1;
    s->second_question = r->second_question && *r->second_question;
}

int kvg_suite_take(const struct kvg_raw_source *t, struct kvg_suite *s,
                   const struct kvg_raw_suite *r)
{
    s->path = t->path;
    s->name = r->name;
    if (r->description)
        s->description = r->description;
    s->strategies = (struct kvg_strlist){r->strategies, r->n_strategies};
    s->n_workloads = r->n_workloads;
    s->workloads = kvg_arena_array(t->a, r->n_workloads + 1, sizeof *s->workloads);
    if (!s->workloads)
        return KVG_FAIL(t->err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < r->n_workloads; i++) {
        s->workloads[i].source = r->workloads[i].source;
        s->workloads[i].items =
            (struct kvg_strlist){r->workloads[i].items, r->workloads[i].n_items};
    }
    if (r->seeds_mode)
        s->seeds_mode = (enum kvg_seeds_mode) * r->seeds_mode;
    take_queries(s, r);
    int rc = take_numbers(t, s, r);
    if (!rc)
        rc = take_equal_bytes(t, s, r);
    if (!rc)
        rc = take_drift(t, s, r->drift);
    if (!rc)
        rc = take_time(t, s, r->time);
    if (!rc)
        rc = take_bench(t, s, r->bench);
    return rc ? rc : take_recall(t, s, r->recall);
}
