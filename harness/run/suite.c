/* Owns the YAML schema of suite files and what is said of a wrong one; must not know strategies or
 * workloads. */
#include "run/suite_impl.h"

#include "base/fs.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUITE_MAX_BYTES = 1 << 20 };

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
    TEXT(struct kvg_raw_workload, source, CYAML_FLAG_POINTER),
    LIST(struct kvg_raw_workload, items, OPT_PTR, &text_value),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t workload_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kvg_raw_workload, workload_fields)};

static const cyaml_schema_field_t drift_fields[] = {
    LIST(struct kvg_raw_drift, modes, OPT_PTR, &mode_value),
    ENUM(struct kvg_raw_drift, target, targets),
    UINT(struct kvg_raw_drift, reply_tokens),
    LIST(struct kvg_raw_drift, free_items, OPT_PTR, &text_value),
    UINT(struct kvg_raw_drift, free_tokens),
    UINT(struct kvg_raw_drift, floor_items),
    TEXT(struct kvg_raw_drift, kept_item, OPT_PTR),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t time_fields[] = {
    LIST(struct kvg_raw_time, items, OPT_PTR, &text_value),
    UINT(struct kvg_raw_time, reply_tokens),
    UINT(struct kvg_raw_time, rounds),
    LIST(struct kvg_raw_time, strategies, OPT_PTR, &text_value),
    UINT(struct kvg_raw_time, uncached_depths),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t bench_fields[] = {
    LIST(struct kvg_raw_bench, depths, OPT_PTR, &text_value),
    UINT(struct kvg_raw_bench, n_gen),
    LIST(struct kvg_raw_bench, strategies, OPT_PTR, &text_value),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t recall_fields[] = {
    LIST(struct kvg_raw_recall, lengths, OPT_PTR, &text_value),
    UINT(struct kvg_raw_recall, facts),
    LIST(struct kvg_raw_recall, strategies, OPT_PTR, &text_value),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t suite_fields[] = {
    TEXT(struct kvg_raw_suite, name, CYAML_FLAG_POINTER),
    TEXT(struct kvg_raw_suite, description, OPT_PTR),
    LIST(struct kvg_raw_suite, strategies, CYAML_FLAG_POINTER, &text_value),
    LIST(struct kvg_raw_suite, equal_bytes, OPT_PTR, &text_value),
    LIST(struct kvg_raw_suite, workloads, CYAML_FLAG_POINTER, &workload_value),
    UINT(struct kvg_raw_suite, seed),
    UINT(struct kvg_raw_suite, seeds),
    ENUM(struct kvg_raw_suite, seeds_mode, seeds_modes),
    LIST(struct kvg_raw_suite, query, OPT_PTR, &query_value),
    ENUM(struct kvg_raw_suite, second_question, yes_no),
    UINT(struct kvg_raw_suite, max_items),
    UINT(struct kvg_raw_suite, max_turns),
    CYAML_FIELD_MAPPING_PTR("drift", OPT_PTR, struct kvg_raw_suite, drift, drift_fields),
    CYAML_FIELD_MAPPING_PTR("time", OPT_PTR, struct kvg_raw_suite, time, time_fields),
    CYAML_FIELD_MAPPING_PTR("bench", OPT_PTR, struct kvg_raw_suite, bench, bench_fields),
    CYAML_FIELD_MAPPING_PTR("recall", OPT_PTR, struct kvg_raw_suite, recall, recall_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t suite_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kvg_raw_suite, suite_fields)};

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
    struct kvg_raw_suite *raw = NULL;
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
    const struct kvg_raw_source t = {kvg_arena_strdup(a, path), a, err};
    if (!t.path)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    else if (yrc != CYAML_OK)
        rc = fail_parse(yrc, path, text, log.s ? log.s : "", err);
    else if (!raw)
        rc = KVG_FAIL(err, KVG_EUSAGE, "%s: the suite is empty", path);
    else
        rc = kvg_suite_take(&t, s, raw);
    kvg_str_release(&log);
    free(text);
    return rc;
}
