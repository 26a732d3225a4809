/* The CSV reader: libcsv in strict mode, columns found by name, every value checked against the
 * column table. Knows no column. */
#include "result/csv.h"

#include "base/fs.h"
#include "base/text.h"

#include <csv.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *path;
    const struct kvg_table *table;
    kvg_csv_fn fn;
    void *arg;
    struct kvg_err *err;
    int rc;            /* first failure; everything after it is ignored */
    size_t line;       /* of the record being read, from 1 */
    size_t line_feeds; /* inside the record's quoted fields */
    int have_header;
    int *map; /* file column -> table column, -1 = ignored */
    size_t n_map, cap_map;
    size_t field;               /* index of the next field of this record */
    struct kvg_str text;        /* the record's texts, NUL-separated */
    size_t at[KVG_COLUMNS_MAX]; /* where each text column starts in `text` */
    struct kvg_row row;
};

static int fail(struct reader *r, const char *what, const char *subject)
{
    return r->rc = KVG_FAIL(r->err, KVG_EFORMAT, "%s: '%s' in line %zu of '%s'", what, subject,
                            r->line, r->path);
}

static int parse_u64(const char *s, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(s, &end, 10);
    return errno || *end || s[0] < '0' || s[0] > '9' ? -1 : 0;
}

/* Accepts what the writer makes: inf, nan and denormals (for which strtod reports ERANGE). */
static int parse_f64(const char *s, double *out)
{
    char *end;
    *out = strtod(s, &end);
    return end == s || *end || *s == ' ' ? -1 : 0;
}

static void add_header(struct reader *r, const char *name)
{
    if (r->n_map == r->cap_map) {
        size_t cap = r->cap_map ? 2 * r->cap_map : 64;
        int *map = realloc(r->map, cap * sizeof *map);
        if (!map) {
            r->rc = KVG_FAIL(r->err, KVG_ENOMEM, "out of memory while reading '%s'", r->path);
            return;
        }
        r->map = map;
        r->cap_map = cap;
    }
    int column = kvg_table_column(r->table, name);
    for (size_t i = 0; i < r->n_map && column >= 0; i++)
        if (r->map[i] == column) {
            fail(r, "column appears twice", name);
            return;
        }
    r->map[r->n_map++] = column;
}

static void end_header(struct reader *r)
{
    for (size_t c = 0; c < r->table->n_columns; c++) {
        int found = 0;
        for (size_t i = 0; i < r->n_map; i++)
            found |= r->map[i] == (int)c;
        if (!found && r->table->columns[c].required) {
            r->rc = KVG_FAIL(r->err, KVG_EFORMAT, "missing column: '%s' in '%s'",
                             r->table->columns[c].name, r->path);
            return;
        }
    }
    r->have_header = 1;
}

static void set_value(struct reader *r, int c, const char *s, size_t n)
{
    struct kvg_row *row = &r->row;
    int64_t i64;
    int bad = 0;
    if (!n)
        return;
    row->is_set[c] = 1;
    switch (r->table->columns[c].type) {
    case KVG_COL_U64:
        bad = parse_u64(s, &row->v[c].u64);
        break;
    case KVG_COL_I64:
        bad = kvg_text_i64(s, &i64);
        row->v[c].i64 = bad ? 0 : i64;
        break;
    case KVG_COL_F64:
        bad = parse_f64(s, &row->v[c].f64);
        break;
    case KVG_COL_STR:
        r->at[c] = r->text.len;
        kvg_str_addn(&r->text, s, n);
        kvg_str_addc(&r->text, '\0');
        break;
    }
    if (bad) {
        fail(r, "not a number", s);
        kvg_err_prefix(r->err, "column '%s'", r->table->columns[c].name);
    }
}

static void on_field(void *data, size_t n, void *arg)
{
    struct reader *r = arg;
    const char *s = data ? data : "";
    if (r->rc)
        return;
    for (const char *p = s; (p = memchr(p, '\n', n - (size_t)(p - s))); p++)
        r->line_feeds++;
    if (!r->have_header)
        add_header(r, s);
    else if (r->field >= r->n_map)
        fail(r, "more fields than the header has", s);
    else if (r->map[r->field] >= 0)
        set_value(r, r->map[r->field], s, n);
    r->field++;
}

static void deliver(struct reader *r)
{
    if (r->text.failed) {
        r->rc = KVG_FAIL(r->err, KVG_ENOMEM, "out of memory while reading '%s'", r->path);
        return;
    }
    for (size_t c = 0; c < r->table->n_columns; c++)
        if (r->row.is_set[c] && r->table->columns[c].type == KVG_COL_STR)
            r->row.v[c].str = r->text.s + r->at[c];
    r->rc = r->fn(r->arg, &r->row, r->err);
}

static void on_record(int terminator, void *arg)
{
    struct reader *r = arg;
    (void)terminator;
    if (r->rc)
        return;
    if (!r->have_header)
        end_header(r);
    else if (r->field < r->n_map)
        fail(r, "fewer fields than the header has", r->table->name);
    else
        deliver(r);
    r->field = 0;
    r->line += 1 + r->line_feeds;
    r->line_feeds = 0;
    kvg_str_clear(&r->text);
    memset(r->row.is_set, 0, sizeof r->row.is_set);
}

/* Spaces belong to the text: libcsv must not trim them. */
static int is_no_space(unsigned char c)
{
    (void)c;
    return 0;
}

static size_t count_lines(const char *s, size_t n)
{
    size_t lines = 1;
    for (size_t i = 0; i < n; i++)
        lines += s[i] == '\n';
    return lines;
}

static int parse(struct reader *r, const char *data, size_t n)
{
    struct csv_parser p;
    if (csv_init(&p, CSV_STRICT | CSV_APPEND_NULL))
        return KVG_FAIL(r->err, KVG_ENOMEM, "out of memory while reading '%s'", r->path);
    csv_set_space_func(&p, is_no_space);
    size_t done = csv_parse(&p, data, n, on_field, on_record, r);
    if (done == n && !r->rc)
        csv_fini(&p, on_field, on_record, r);
    else if (!r->rc)
        r->rc = KVG_FAIL(r->err, KVG_EFORMAT, "%s: line %zu of '%s'", csv_strerror(csv_error(&p)),
                         count_lines(data, done), r->path);
    csv_free(&p);
    return r->rc;
}

int kvg_csv_read(const char *path, const struct kvg_table *table, kvg_csv_fn fn, void *arg,
                 struct kvg_err *err)
{
    struct reader r = {.path = path, .table = table, .fn = fn, .arg = arg, .err = err, .line = 1};
    char *data = NULL;
    size_t size = 0;
    locale_t c_locale = (locale_t)0, before = (locale_t)0;
    int rc = kvg_fs_read(path, SIZE_MAX / 2, &data, &size, err);
    if (rc)
        return rc;
    r.row.table = table;
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale) {
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory while reading '%s'", path);
        goto out;
    }
    before = uselocale(c_locale);
    rc = parse(&r, data, kvg_csv_complete_bytes(data, size));
    uselocale(before);
    if (!rc && !r.have_header)
        rc = KVG_FAIL(err, KVG_EFORMAT, "no header line: '%s'", path);
out:
    if (c_locale)
        freelocale(c_locale);
    kvg_str_release(&r.text);
    free(r.map);
    free(data);
    return rc;
}
