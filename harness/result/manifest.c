/* manifest.json, the run folder's name and its STATUS, through jansson. Must not know what the
 * fields mean. */
#include "result/manifest.h"

#include "base/fs.h"
#include "base/hash.h"
#include "result/columns.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum field_type { TEXT, UINT, REAL };

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
};

#define IDENTITY(type, name)                                                                       \
    {                                                                                              \
#name, type, offsetof(struct kvg_manifest_identity, name)                                  \
    }
#define CONTEXT(type, name)                                                                        \
    {                                                                                              \
#name, type, offsetof(struct kvg_manifest_context, name)                                   \
    }

static const struct field identity_fields[] = {
    IDENTITY(TEXT, suite),
    IDENTITY(TEXT, model_name),
    IDENTITY(TEXT, model_sha256),
    IDENTITY(UINT, kv_f16_token_bytes),
    IDENTITY(TEXT, tokenizer_sha256),
    IDENTITY(TEXT, template_sha256),
    IDENTITY(UINT, seed),
    IDENTITY(UINT, metrics_version),
    IDENTITY(UINT, schema),
    {NULL, TEXT, 0},
};

static const struct field context_fields[] = {
    CONTEXT(TEXT, version),
    CONTEXT(TEXT, commit),
    CONTEXT(TEXT, compiler),
    CONTEXT(TEXT, flags),
    CONTEXT(TEXT, cpu),
    CONTEXT(TEXT, kernels),
    CONTEXT(TEXT, blas_core),
    CONTEXT(TEXT, blas_version),
    CONTEXT(UINT, n_threads),
    CONTEXT(UINT, memory_bytes),
    CONTEXT(REAL, load),
    CONTEXT(REAL, clock_cost_ns),
    CONTEXT(REAL, read_bandwidth),
    CONTEXT(TEXT, start),
    CONTEXT(TEXT, end),
    CONTEXT(TEXT, command),
    {NULL, TEXT, 0},
};

/* Lists of structs made of texts only. */
struct list {
    const char *name;
    size_t offset, offset_n, elem_bytes;
    const char *const *keys; /* in the order of the struct's members, NULL-terminated */
};

static const char *const workload_keys[] = {"name", "path", "sha256", "licence", "source", NULL};
static const char *const spec_keys[] = {"label", "spec", "role", NULL};
static const char *const pair_keys[] = {"key", "value", NULL};

#define LIST(owner, name, type, keys)                                                              \
    {                                                                                              \
#name, offsetof(struct owner, name), offsetof(struct owner, n_##name),                     \
            sizeof(struct type), keys                                                              \
    }

static const struct list identity_lists[] = {
    LIST(kvg_manifest_identity, workloads, kvg_manifest_workload, workload_keys),
    LIST(kvg_manifest_identity, specs, kvg_manifest_spec, spec_keys),
    LIST(kvg_manifest_identity, settings, kvg_manifest_pair, pair_keys),
    {NULL, 0, 0, 0, NULL},
};
static const struct list context_lists[] = {
    LIST(kvg_manifest_context, notes, kvg_manifest_pair, pair_keys),
    {NULL, 0, 0, 0, NULL},
};

static json_t *text_json(const char *s)
{
    return json_string(s ? s : "");
}

static json_t *list_json(const struct list *l, const char *base)
{
    json_t *array = json_array();
    const char *elem;
    size_t n;
    memcpy(&elem, base + l->offset, sizeof elem);
    memcpy(&n, base + l->offset_n, sizeof n);
    for (size_t i = 0; i < n; i++, elem += l->elem_bytes) {
        json_t *o = json_object();
        for (size_t k = 0; l->keys[k]; k++) {
            const char *s;
            memcpy(&s, elem + k * sizeof s, sizeof s);
            json_object_set_new(o, l->keys[k], text_json(s));
        }
        json_array_append_new(array, o);
    }
    return array;
}

static json_t *struct_json(const struct field *f, const struct list *l, const void *values)
{
    const char *base = values;
    json_t *o = json_object();
    for (; f->name; f++) {
        const void *p = base + f->offset;
        if (f->type == TEXT)
            json_object_set_new(o, f->name, text_json(*(const char *const *)p));
        else if (f->type == UINT)
            json_object_set_new(o, f->name, json_integer((json_int_t) * (const uint64_t *)p));
        else
            json_object_set_new(o, f->name, json_real(*(const double *)p));
    }
    for (; l->name; l++)
        json_object_set_new(o, l->name, list_json(l, base));
    return o;
}

void kvg_manifest_init(struct kvg_manifest *m)
{
    memset(m, 0, sizeof *m);
    m->identity.metrics_version = KVG_METRICS_VERSION;
    m->identity.schema = KVG_SCHEMA;
}

int kvg_manifest_identity_hash(const struct kvg_manifest *m, char hex[65], struct kvg_err *err)
{
    json_t *o = struct_json(identity_fields, identity_lists, &m->identity);
    char *text = o ? json_dumps(o, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
    int rc = KVG_OK;
    if (text)
        kvg_hash_sha256_hex(text, strlen(text), hex);
    else
        rc = KVG_FAIL(err, KVG_EFORMAT,
                      "a text of the manifest is not UTF-8, or memory is short: its hash");
    free(text);
    json_decref(o);
    return rc;
}

int kvg_manifest_run_id(const struct kvg_manifest *m, int64_t unix_time, char id[KVG_RUN_ID_CAP],
                        struct kvg_err *err)
{
    char hex[65], stamp[20];
    time_t t = (time_t)unix_time;
    struct tm tm;
    int rc = kvg_manifest_identity_hash(m, hex, err);
    if (rc)
        return rc;
    if (!gmtime_r(&t, &tm) || !strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm))
        return KVG_FAIL(err, KVG_EUSAGE, "not a time: '%lld'", (long long)unix_time);
    snprintf(id, KVG_RUN_ID_CAP, "%s-%.8s", stamp, hex);
    return KVG_OK;
}

const char *kvg_manifest_run_dir(const char *root, const struct kvg_manifest *m, const char *id,
                                 struct kvg_arena *a)
{
    const char *suite = m->identity.suite;
    return kvg_arena_printf(a, "%s/%s/%s", root, suite && *suite ? suite : "run", id);
}

int kvg_manifest_write(const char *run_dir, const struct kvg_manifest *m, struct kvg_err *err)
{
    char hex[65], path[4096];
    int rc = kvg_manifest_identity_hash(m, hex, err);
    if (rc)
        return rc;
    json_t *o = json_object();
    json_object_set_new(o, "identity_sha256", json_string(hex));
    json_object_set_new(o, "identity", struct_json(identity_fields, identity_lists, &m->identity));
    json_object_set_new(o, "context", struct_json(context_fields, context_lists, &m->context));
    char *text = json_dumps(o, JSON_INDENT(2));
    json_decref(o);
    if (!text)
        return KVG_FAIL(err, KVG_EFORMAT, "a text of the manifest is not UTF-8: '%s'", run_dir);
    snprintf(path, sizeof path, "%s/manifest.json", run_dir);
    rc = kvg_fs_write_atomic(path, text, strlen(text), err);
    free(text);
    return rc;
}

static const char *get_text(json_t *o, const char *key, struct kvg_arena *a)
{
    const char *s = json_string_value(json_object_get(o, key));
    return kvg_arena_strdup(a, s ? s : "");
}

static int read_list(const struct list *l, json_t *o, char *base, struct kvg_arena *a)
{
    json_t *array = json_object_get(o, l->name);
    size_t n = json_array_size(array);
    char *elem = kvg_arena_alloc(a, n * l->elem_bytes + 1);
    if (!elem)
        return KVG_ENOMEM;
    memcpy(base + l->offset, &elem, sizeof elem);
    memcpy(base + l->offset_n, &n, sizeof n);
    for (size_t i = 0; i < n; i++, elem += l->elem_bytes)
        for (size_t k = 0; l->keys[k]; k++) {
            const char *s = get_text(json_array_get(array, i), l->keys[k], a);
            memcpy(elem + k * sizeof s, &s, sizeof s);
        }
    return KVG_OK;
}

static int read_struct(const struct field *f, const struct list *l, json_t *o, void *values,
                       struct kvg_arena *a)
{
    char *base = values;
    int rc = KVG_OK;
    for (; f->name; f++) {
        json_t *v = json_object_get(o, f->name);
        void *p = base + f->offset;
        if (f->type == TEXT)
            *(const char **)p = get_text(o, f->name, a);
        else if (f->type == UINT)
            *(uint64_t *)p = (uint64_t)json_integer_value(v);
        else
            *(double *)p = json_number_value(v);
    }
    for (; l->name && !rc; l++)
        rc = read_list(l, o, base, a);
    return rc;
}

int kvg_manifest_read(const char *run_dir, struct kvg_manifest *m, struct kvg_arena *a,
                      struct kvg_err *err)
{
    char path[4096];
    json_error_t je;
    char *text = NULL;
    size_t size = 0;
    json_t *o = NULL;
    memset(m, 0, sizeof *m);
    snprintf(path, sizeof path, "%s/manifest.json", run_dir);
    int rc = kvg_fs_read(path, (size_t)1 << 26, &text, &size, err);
    if (rc)
        return rc;
    o = json_loadb(text, size, 0, &je);
    json_t *identity = json_object_get(o, "identity"), *context = json_object_get(o, "context");
    if (!o)
        rc = KVG_FAIL(err, KVG_EFORMAT, "%s in line %d: '%s'", je.text, je.line, path);
    else if (!json_is_object(identity) || !json_is_object(context))
        rc = KVG_FAIL(err, KVG_EFORMAT, "no 'identity' or no 'context': '%s'", path);
    else if (read_struct(identity_fields, identity_lists, identity, &m->identity, a) ||
             read_struct(context_fields, context_lists, context, &m->context, a))
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory while reading '%s'", path);
    json_decref(o);
    free(text);
    return rc;
}

static const char *const status_names[] = {"running", "complete", "interrupted"};

const char *kvg_status_name(enum kvg_status s)
{
    return status_names[s];
}

int kvg_status_write(const char *run_dir, enum kvg_status s, struct kvg_err *err)
{
    char path[4096], text[32];
    snprintf(path, sizeof path, "%s/STATUS", run_dir);
    int n = snprintf(text, sizeof text, "%s\n", status_names[s]);
    return kvg_fs_write_atomic(path, text, (size_t)n, err);
}

int kvg_status_read(const char *run_dir, enum kvg_status *s, struct kvg_err *err)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/STATUS", run_dir);
    int rc = kvg_fs_read(path, 4096, &text, &size, err);
    if (rc)
        return rc;
    text[strcspn(text, "\r\n")] = 0;
    rc = KVG_EFORMAT;
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, status_names[i])) {
            *s = (enum kvg_status)i;
            rc = KVG_OK;
        }
    if (rc)
        KVG_FAIL(err, KVG_EFORMAT, "not a status: '%s' in '%s'", text, path);
    free(text);
    return rc;
}
