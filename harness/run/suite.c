/* Owns the YAML schema of suite files and their defaults; must not know strategies or workloads. */
#include "run/suite.h"

#include "base/fs.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUITE_MAX_BYTES = 1 << 20 };

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

/* ---- the file: a field that is absent stays NULL (or n 0) and so keeps its default ---- */

struct raw_workload {
    const char *source;
    const char **items;
    size_t n_items;
};

struct raw_drift {
    int *modes;
    size_t n_modes;
    int *target;
    const char *reply_tokens, *free_tokens, *floor_items;
    const char **free_items;
    size_t n_free_items;
    const char *kept_item;
};

struct raw_time {
    const char **items, **strategies;
    size_t n_items, n_strategies;
    const char *reply_tokens, *rounds, *uncached_depths;
};

struct raw_bench {
    const char **depths;
    size_t n_depths;
    const char *n_gen;
    const char **strategies;
    size_t n_strategies;
};

struct raw_recall {
    const char **lengths;
    size_t n_lengths;
    const char *facts;
    const char **strategies;
    size_t n_strategies;
};

struct raw_suite {
    const char *name, *description;
    const char **strategies, **equal_bytes;
    size_t n_strategies, n_equal_bytes;
    struct raw_workload *workloads;
    size_t n_workloads;
    const char *seed, *seeds, *max_items, *max_turns;
    int *seeds_mode;
    int *query;
    size_t n_query;
    int *second_question;
    struct raw_drift *drift;
    struct raw_time *time;
    struct raw_bench *bench;
    struct raw_recall *recall;
};

static const cyaml_strval_t modes[] = {{"forced", KVG_MODE_FORCED}, {"free", KVG_MODE_FREE}};
static const cyaml_strval_t targets[] = {{"recorded", KVG_TARGET_RECORDED},
                                         {"greedy", KVG_TARGET_GREEDY}};
static const cyaml_strval_t queries[] = {{"seen", KVG_QUERY_SEEN}, {"unseen", KVG_QUERY_UNSEEN}};
static const cyaml_strval_t seeds_modes[] = {{"rotate", KVG_SEEDS_ROTATE}, {"all", KVG_SEEDS_ALL}};

static const cyaml_strval_t yes_no[] = {{"no", 0}, {"yes", 1}};

static const cyaml_schema_value_t text_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, CYAML_UNLIMITED)};
static const cyaml_schema_value_t mode_value = {
    CYAML_VALUE_ENUM(CYAML_FLAG_STRICT, int, modes, KVG_MODE_N)};
static const cyaml_schema_value_t query_value = {
    CYAML_VALUE_ENUM(CYAML_FLAG_STRICT, int, queries, KVG_QUERY_N)};

enum { OPT = CYAML_FLAG_OPTIONAL, OPT_PTR = CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER };

#define TEXT(st, key, flags) CYAML_FIELD_STRING_PTR(#key, flags, st, key, 0, CYAML_UNLIMITED)
/* Numbers are read as text: libcyaml would take '5x' for 5. */
#define UINT(st, key) TEXT(st, key, OPT_PTR)
#define LIST(st, key, flags, value)                                                                \
    CYAML_FIELD_SEQUENCE_COUNT(#key, flags, st, key, n_##key, value, 0, CYAML_UNLIMITED)
#define ENUM(st, key, names)                                                                       \
    CYAML_FIELD_ENUM_PTR(#key, OPT_PTR | CYAML_FLAG_STRICT, st, key, names,                        \
                         sizeof names / sizeof *names)

static const cyaml_schema_field_t workload_fields[] = {
    TEXT(struct raw_workload, source, CYAML_FLAG_POINTER),
    LIST(struct raw_workload, items, OPT_PTR, &text_value),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t workload_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_workload, workload_fields)};

static const cyaml_schema_field_t drift_fields[] = {
    LIST(struct raw_drift, modes, OPT_PTR, &mode_value),
    ENUM(struct raw_drift, target, targets),
    UINT(struct raw_drift, reply_tokens),
    LIST(struct raw_drift, free_items, OPT_PTR, &text_value),
    UINT(struct raw_drift, free_tokens),
    UINT(struct raw_drift, floor_items),
    TEXT(struct raw_drift, kept_item, OPT_PTR),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t time_fields[] = {
    LIST(struct raw_time, items, OPT_PTR, &text_value),
    UINT(struct raw_time, reply_tokens),
    UINT(struct raw_time, rounds),
    LIST(struct raw_time, strategies, OPT_PTR, &text_value),
    UINT(struct raw_time, uncached_depths),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t bench_fields[] = {
    LIST(struct raw_bench, depths, OPT_PTR, &text_value),
    UINT(struct raw_bench, n_gen),
    LIST(struct raw_bench, strategies, OPT_PTR, &text_value),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t recall_fields[] = {
    LIST(struct raw_recall, lengths, OPT_PTR, &text_value),
    UINT(struct raw_recall, facts),
    LIST(struct raw_recall, strategies, OPT_PTR, &text_value),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t suite_fields[] = {
    TEXT(struct raw_suite, name, CYAML_FLAG_POINTER),
    TEXT(struct raw_suite, description, OPT_PTR),
    LIST(struct raw_suite, strategies, CYAML_FLAG_POINTER, &text_value),
    LIST(struct raw_suite, equal_bytes, OPT_PTR, &text_value),
    LIST(struct raw_suite, workloads, CYAML_FLAG_POINTER, &workload_value),
    UINT(struct raw_suite, seed),
    UINT(struct raw_suite, seeds),
    ENUM(struct raw_suite, seeds_mode, seeds_modes),
    LIST(struct raw_suite, query, OPT_PTR, &query_value),
    ENUM(struct raw_suite, second_question, yes_no),
    UINT(struct raw_suite, max_items),
    UINT(struct raw_suite, max_turns),
    CYAML_FIELD_MAPPING_PTR("drift", OPT_PTR, struct raw_suite, drift, drift_fields),
    CYAML_FIELD_MAPPING_PTR("time", OPT_PTR, struct raw_suite, time, time_fields),
    CYAML_FIELD_MAPPING_PTR("bench", OPT_PTR, struct raw_suite, bench, bench_fields),
    CYAML_FIELD_MAPPING_PTR("recall", OPT_PTR, struct raw_suite, recall, recall_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t suite_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_suite, suite_fields)};

/* ---- reading ---- */

/* libcyaml's memory comes from the arena, so nothing has to be copied or freed. A size stands
 * before each piece because realloc must know it. */
static void *arena_mem(void *ctx, void *ptr, size_t size)
{
    enum { HEAD = 16 };
    if (size == 0)
        return NULL;
    size_t old = 0;
    if (ptr)
        memcpy(&old, (char *)ptr - HEAD, sizeof old);
    char *p = kvg_arena_alloc(ctx, size + HEAD);
    if (!p)
        return NULL;
    memcpy(p, &size, sizeof size);
    if (ptr)
        memcpy(p + HEAD, ptr, old < size ? old : size);
    return p + HEAD;
}

static size_t add_keys(const cyaml_schema_field_t *f, const char **names, size_t n)
{
    for (; f->key; f++)
        names[n++] = f->key;
    return n;
}

/* The mapping in which the log says an error is; the innermost is named first. */
static const char *known_keys_near(const char *log, const char *key)
{
    const char *names[32];
    size_t n;
    if (strstr(log, "'drift'"))
        n = add_keys(drift_fields, names, 0);
    else if (strstr(log, "'time'"))
        n = add_keys(time_fields, names, 0);
    else if (strstr(log, "'bench'"))
        n = add_keys(bench_fields, names, 0);
    else if (strstr(log, "'recall'"))
        n = add_keys(recall_fields, names, 0);
    else if (strstr(log, "'workloads'"))
        n = add_keys(workload_fields, names, 0);
    else
        n = add_keys(suite_fields, names, 0);
    return kvg_text_nearest(key, names, n);
}

/* What stands behind `what` on its line of the log; "" when it is not there. */
static void log_subject(const char *log, const char *what, char *out, size_t cap)
{
    const char *p = strstr(log, what);
    out[0] = 0;
    if (!p)
        return;
    p += strlen(what);
    size_t n = strcspn(p, "\n");
    snprintf(out, cap, "%.*s", (int)(n < cap ? n : cap - 1), p);
}

/* libcyaml names the line of the key before an unknown one: the first line from there on that
 * begins with the key is meant. */
static long key_line(const char *text, const char *key, long from)
{
    long line = 1;
    size_t n = strlen(key);
    for (const char *p = text; p; line++) {
        const char *q = p + strspn(p, " -");
        if (line >= from && !strncmp(q, key, n) && q[n + strspn(q + n, " ")] == ':')
            return line;
        p = strchr(p, '\n');
        p = p ? p + 1 : NULL;
    }
    return from;
}

static int fail_key(const char *path, const char *text, long line, const char *log, const char *key,
                    struct kvg_err *err)
{
    const char *near = known_keys_near(log, key);
    line = key_line(text, key, line);
    if (near)
        return KVG_FAIL(err, KVG_EUSAGE, "%s:%ld: unknown key '%s'; did you mean '%s'?", path, line,
                        key, near);
    return KVG_FAIL(err, KVG_EUSAGE, "%s:%ld: unknown key '%s'", path, line, key);
}

static int fail_parse(cyaml_err_t rc, const char *path, const char *text, const char *log,
                      struct kvg_err *err)
{
    char subject[200];
    const char *l = strstr(log, "line: ");
    long line = l ? strtol(l + 6, NULL, 10) : 1;
    log_subject(log, "Unexpected key: ", subject, sizeof subject);
    if (subject[0])
        return fail_key(path, text, line, log, subject, err);
    log_subject(log, "Missing required mapping field: ", subject, sizeof subject);
    if (subject[0])
        return KVG_FAIL(err, KVG_EUSAGE, "%s: the key '%s' is missing", path, subject);
    log_subject(log, "Invalid ENUM value: ", subject, sizeof subject);
    if (subject[0]) {
        static const char *const known[] = {"forced", "free", "recorded", "greedy", "rotate",
                                            "all",    "seen", "unseen",   "yes",    "no"};
        const char *near = kvg_text_nearest(subject, known, sizeof known / sizeof *known);
        return KVG_FAIL(err, KVG_EUSAGE, "%s:%ld: '%s' is not a value of this key%s%s%s", path,
                        line, subject, near ? "; did you mean '" : "", near ? near : "",
                        near ? "'?" : "");
    }
    log_subject(log, "Load: ", subject, sizeof subject);
    return KVG_FAIL(err, KVG_EUSAGE, "%s:%ld: %s%s%s", path, line, cyaml_strerror(rc),
                    subject[0] ? ": " : "", subject);
}

/* ---- from the file to the settings ---- */

struct taker {
    const char *path;
    struct kvg_arena *a;
    struct kvg_err *err;
};

static int put(const struct taker *t, const char *key, const char *text, size_t *to)
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

static int take_drift(const struct taker *t, struct kvg_suite *s, const struct raw_drift *d)
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

static int take_time(const struct taker *t, struct kvg_suite *s, const struct raw_time *r)
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

static int take_sizes(const struct taker *t, const char *key, const char **text, size_t n,
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

static int take_bench(const struct taker *t, struct kvg_suite *s, const struct raw_bench *b)
{
    s->bench = b != NULL;
    if (!b)
        return 0;
    s->bench_strategies = (struct kvg_strlist){b->strategies, b->n_strategies};
    int rc = take_sizes(t, "depths", b->depths, b->n_depths, &s->bench_depths, &s->n_bench_depths);
    return rc ? rc : put(t, "n_gen", b->n_gen, &s->bench_n_gen);
}

static int take_recall(const struct taker *t, struct kvg_suite *s, const struct raw_recall *r)
{
    s->recall = r != NULL;
    if (!r)
        return 0;
    s->recall_strategies = (struct kvg_strlist){r->strategies, r->n_strategies};
    int rc = take_sizes(t, "lengths", r->lengths, r->n_lengths, &s->recall_lengths,
                        &s->n_recall_lengths);
    return rc ? rc : put(t, "facts", r->facts, &s->recall_facts);
}

static int take_equal_bytes(const struct taker *t, struct kvg_suite *s, const struct raw_suite *r)
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

static int take_numbers(const struct taker *t, struct kvg_suite *s, const struct raw_suite *r)
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

static void take_queries(struct kvg_suite *s, const struct raw_suite *r)
{
    if (r->n_query)
        memset(s->queries, 0, sizeof s->queries);
    for (size_t i = 0; i < r->n_query; i++)
        s->queries[r->query[i]] = 1;
    s->second_question = r->second_question && *r->second_question;
}

static int take(const struct taker *t, struct kvg_suite *s, const struct raw_suite *r)
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

static void log_to_str(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    if (level < CYAML_LOG_ERROR)
        return;
    char line[512];
    vsnprintf(line, sizeof line, fmt, args);
    kvg_str_add(ctx, line);
}

int kvg_suite_read(struct kvg_suite *s, const char *path, struct kvg_arena *a, struct kvg_err *err)
{
    char *text = NULL;
    size_t n;
    struct kvg_str log = {0};
    struct raw_suite *raw = NULL;
    kvg_suite_defaults(s);
    int rc = kvg_fs_read(path, SUITE_MAX_BYTES, &text, &n, err);
    if (rc)
        return rc;
    cyaml_config_t cfg = {.log_fn = log_to_str,
                          .log_ctx = &log,
                          .mem_fn = arena_mem,
                          .mem_ctx = a,
                          .log_level = CYAML_LOG_ERROR};
    cyaml_err_t yrc = cyaml_load_data((const uint8_t *)text, n, &cfg, &suite_schema,
                                      (cyaml_data_t **)(void *)&raw, NULL);
    const struct taker t = {kvg_arena_strdup(a, path), a, err};
    if (!t.path)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    else if (yrc != CYAML_OK)
        rc = fail_parse(yrc, path, text, log.s ? log.s : "", err);
    else if (!raw)
        rc = KVG_FAIL(err, KVG_EUSAGE, "%s: the suite is empty", path);
    else
        rc = take(&t, s, raw);
    kvg_str_release(&log);
    free(text);
    return rc;
}
