/* Owns the reading of what `inspect` is given: token ids and spans, one a line. Must not know what
 * is done with them. */
#include "base/fs.h"
#include "run/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 64 << 20 };

static size_t count_lines(const char *text)
{
    size_t n = 1;
    for (const char *p = text; *p; p++)
        n += *p == '\n';
    return n;
}

int kvg_inspect_read_ids(const char *path, size_t n_vocab, int32_t **ids, size_t *n,
                         struct kvg_arena *a, struct kvg_err *err)
{
    char *text;
    size_t size, line = 0;
    int rc = kvg_fs_read(path, FILE_MAX_BYTES, &text, &size, err);
    if (rc)
        return rc;
    *n = 0;
    *ids = kvg_arena_array(a, count_lines(text), sizeof **ids);
    if (!*ids)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (const char *p = text; *p && !rc;) {
        char *end;
        line++;
        p += strspn(p, " \t");
        if (*p != '#' && *p != '\n' && *p != '\r' && *p) {
            long v = strtol(p, &end, 10);
            if (end == p || !strchr(" \t\r\n", *end) || v < 0 || (size_t)v >= n_vocab)
                rc = KVG_FAIL(err, KVG_EFORMAT, "%s:%zu: not a token id from 0 to %zu", path, line,
                              n_vocab - 1);
            else
                (*ids)[(*n)++] = (int32_t)v;
        }
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
    free(text);
    if (!rc && *n == 0)
        rc = KVG_FAIL(err, KVG_EFORMAT, "no token ids in '%s'", path);
    return rc;
}

static int kind_named(const char *name)
{
    static const char *const names[KVG_SPAN_KINDS] = {"system", "tool", "glossary", "user"};
    int k = 0;
    while (k < KVG_SPAN_KINDS && strcmp(names[k], name))
        k++;
    return k;
}

/* One line; `from` is where the span before ended. */
static int parse_span(const char *line, size_t n_tokens, size_t from, struct kvg_span *out)
{
    char kind[16];
    unsigned long begin, end;
    if (sscanf(line, "%9lu %9lu %15[a-z]", &begin, &end, kind) != 3)
        return -1;
    int k = kind_named(kind);
    if (begin < from || end <= begin || end > n_tokens || k == KVG_SPAN_KINDS)
        return -1;
    *out = (struct kvg_span){(uint32_t)begin, (uint32_t)end, (enum kvg_span_kind)k};
    return 0;
}

int kvg_inspect_read_spans(const char *path, size_t n_tokens, struct kvg_span **spans, size_t *n,
                           struct kvg_arena *a, struct kvg_err *err)
{
    char *text;
    size_t size, line = 0;
    int rc = kvg_fs_read(path, FILE_MAX_BYTES, &text, &size, err);
    if (rc)
        return rc;
    *n = 0;
    *spans = kvg_arena_array(a, count_lines(text), sizeof **spans);
    if (!*spans)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (const char *p = text; *p && !rc;) {
        size_t from = *n ? (*spans)[*n - 1].end : 0;
        line++;
        if (*p != '#' && p[strspn(p, " \t\r")] != '\n' && p[strspn(p, " \t\r")]) {
            if (parse_span(p, n_tokens, from, *spans + *n))
                rc = KVG_FAIL(err, KVG_EFORMAT,
                              "%s:%zu: not 'begin end kind' with %zu <= begin < end <= %zu and "
                              "system, tool, glossary or user",
                              path, line, from, n_tokens);
            ++*n;
        }
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
    free(text);
    return rc;
}
