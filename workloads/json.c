/* Owns the way from a JSON file to records: JSONL, one array, or {"data": [...]}. Must not know
 * what is in a record. Jansson limits nesting to 2048 levels and refuses lone surrogates and
 * bytes that are not UTF-8; \u0000 and repeated keys are refused by the flags given here. */
#include "workloads/build.h"

#include <stdio.h>
#include <string.h>

typedef const struct kvg_workload_format *(*choose_fn)(const json_t *record);

/* Jansson's text without what it quotes of the file beyond our limits. */
static int fail_syntax(struct kvg_build *b, const json_error_t *e, struct kvg_err *err)
{
    char quoted[128];
    const char *why = json_error_code(e) == json_error_null_character
                          ? "the text holds \\u0000, which no reply can contain; remove it"
                          : kvg_build_quote(e->text, quoted);
    return kvg_build_fail(b, err, "%s (column %d)", why, e->column);
}

static json_t *parse(const char *data, size_t n, json_error_t *e)
{
    return json_loadb(data, n, JSON_REJECT_DUPLICATES, e);
}

static int is_blank_line(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return 0;
    return 1;
}

/* Hands one record to its reader; the first record decides which. */
static int feed(struct kvg_build *b, const struct kvg_workload_format **f, choose_fn choose,
                const json_t *record, struct kvg_err *err)
{
    if (!json_is_object(record))
        return kvg_build_fail(b, err, "not a JSON object; each item must be one");
    if (!*f && !(*f = choose(record))) {
        struct kvg_str help = {0};
        kvg_workload_formats_help(&help);
        int rc = kvg_build_fail(b, err, "no reader knows this kind of item; supported are:\n%s",
                                help.s ? help.s : "");
        kvg_str_release(&help);
        return rc;
    }
    b->w->format = (*f)->name;
    return (*f)->record(b, record, err);
}

static int read_array(struct kvg_build *b, choose_fn choose, const json_t *array,
                      struct kvg_err *err)
{
    const struct kvg_workload_format *f = NULL;
    int rc = 0;
    b->unit = "item";
    for (size_t i = 0; i < json_array_size(array) && !rc; i++) {
        b->where = i + 1;
        rc = feed(b, &f, choose, json_array_get(array, i), err);
    }
    return rc;
}

static int read_lines(struct kvg_build *b, choose_fn choose, const char *data, size_t n,
                      struct kvg_err *err)
{
    const struct kvg_workload_format *f = NULL;
    const char *end = data + n, *next;
    for (const char *s = data; s < end; s = next) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        size_t len = (size_t)((nl ? nl : end) - s);
        next = nl ? nl + 1 : end;
        b->where++;
        if (is_blank_line(s, len))
            continue;
        if (len > KVG_WORKLOAD_LINE_MAX)
            return KVG_FAIL(err, KVG_ELIMIT, "workload '%s', line %zu is longer than %zu bytes",
                            b->path, b->where, KVG_WORKLOAD_LINE_MAX);
        json_error_t e;
        json_t *record = parse(s, len, &e);
        if (!record)
            return fail_syntax(b, &e, err);
        int rc = feed(b, &f, choose, record, err);
        json_decref(record);
        if (rc)
            return rc;
    }
    return 0;
}

/* The records of a document that is not JSONL: an array, or an object holding one as "data". */
static const json_t *records_of(const json_t *document)
{
    if (json_is_array(document))
        return document;
    const json_t *data = json_object_get(document, "data");
    return json_is_object(json_array_get(data, 0)) ? data : NULL;
}

int kvg_json_read(struct kvg_build *b, const char *data, size_t n, choose_fn choose,
                  struct kvg_err *err)
{
    json_error_t e;
    size_t lead = 0;
    while (lead < n && strchr(" \t\r\n", data[lead]) && data[lead])
        lead++;
    const char *nl = memchr(data + lead, '\n', n - lead);
    size_t first_line = nl ? (size_t)(nl - data) - lead : n - lead;
    int is_lines = 0;
    if (data[lead] == '{' && first_line <= KVG_WORKLOAD_LINE_MAX) {
        json_t *first = parse(data + lead, first_line, &e);
        is_lines = first && !records_of(first);
        json_decref(first);
    }
    if (is_lines)
        return read_lines(b, choose, data, n, err);

    if (n > KVG_WORKLOAD_JSON_MAX)
        return KVG_FAIL(err, KVG_ELIMIT,
                        "the JSON document '%s' is larger than %zu bytes; convert it to one item a "
                        "line (JSONL)",
                        b->path, KVG_WORKLOAD_JSON_MAX);
    json_t *document = parse(data, n, &e);
    if (!document && data[lead] == '{')
        return read_lines(b, choose, data, n, err); /* says what is wrong with which line */
    if (!document) {
        b->where = e.line > 0 ? (size_t)e.line : 1;
        return fail_syntax(b, &e, err);
    }
    const json_t *records = records_of(document);
    int rc = 0;
    if (records) {
        rc = read_array(b, choose, records, err);
    } else {
        const struct kvg_workload_format *f = NULL;
        b->unit = "item";
        b->where = 1;
        rc = feed(b, &f, choose, document, err);
    }
    json_decref(document);
    return rc;
}

const char *kvg_json_id(const json_t *v, char buf[32])
{
    if (json_is_integer(v)) {
        snprintf(buf, 32, "%lld", (long long)json_integer_value(v));
        return buf;
    }
    return json_string_value(v);
}
