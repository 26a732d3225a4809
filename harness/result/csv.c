/* The CSV writer: headers, quoting through libcsv, torn last lines, disk-full errors. Knows the
 * column table's shape but no column. */
#include "result/csv.h"

#include "base/fs.h"
#include "base/text.h"

#include <csv.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct kvg_csv {
    FILE *fp;
    char *path;
    const struct kvg_table *table;
    locale_t c_locale; /* numbers are printed with `.` whatever the process uses */
};

size_t kvg_csv_complete_bytes(const char *data, size_t n)
{
    size_t end = 0;
    int in_quotes = 0;
    for (size_t i = 0; i < n; i++) {
        if (data[i] == '"')
            in_quotes = !in_quotes;
        else if (data[i] == '\n' && !in_quotes)
            end = i + 1;
    }
    return end;
}

static void header_text(const struct kvg_table *table, struct kvg_str *out)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        if (i)
            kvg_str_addc(out, ',');
        kvg_str_add(out, table->columns[i].name);
    }
    kvg_str_addc(out, '\n');
}

/* Checks an existing file and cuts a torn line off; *is_new tells whether a header is needed. */
static int adopt(const char *path, const char *header, size_t header_len, int *is_new,
                 struct kvg_err *err)
{
    char *data = NULL;
    size_t size = 0;
    struct stat st;
    *is_new = 1;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return KVG_OK;
    int rc = kvg_fs_read(path, SIZE_MAX / 2, &data, &size, err);
    if (rc)
        return rc;
    size_t good = kvg_csv_complete_bytes(data, size);
    if (good && (good < header_len || memcmp(data, header, header_len))) {
        rc = KVG_FAIL(err, KVG_EFORMAT,
                      "its header is not this version's columns: '%s'; start a new run", path);
        goto out;
    }
    *is_new = good == 0;
    if (good < size && truncate(path, (off_t)good))
        rc = KVG_FAIL(err, KVG_EIO, "%s: cannot cut the torn last line of '%s'", strerror(errno),
                      path);
out:
    free(data);
    return rc;
}

int kvg_csv_open_append(struct kvg_csv **csv, const char *path, const struct kvg_table *table,
                        struct kvg_err *err)
{
    struct kvg_str header = {0};
    int is_new = 1, rc;
    struct kvg_csv *c = calloc(1, sizeof *c);
    *csv = NULL;
    header_text(table, &header);
    if (!c || header.failed || !(c->path = strdup(path))) {
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory while opening '%s'", path);
        goto out;
    }
    c->table = table;
    rc = adopt(path, header.s, header.len, &is_new, err);
    if (rc)
        goto out;
    c->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    c->fp = fopen(path, "a");
    if (!c->fp || !c->c_locale) {
        rc = KVG_FAIL(err, KVG_EIO, "%s: cannot open '%s' for appending", strerror(errno), path);
        goto out;
    }
    if (is_new && fwrite(header.s, 1, header.len, c->fp) != header.len) {
        rc = KVG_FAIL(err, KVG_EIO, "%s: cannot write '%s'", strerror(errno), path);
        goto out;
    }
    *csv = c;
    c = NULL;
out:
    kvg_str_release(&header);
    if (c)
        kvg_csv_close(c, NULL);
    return rc;
}

/* A text needs quotes when a reader could take it for something else. */
static int needs_quotes(const char *s, size_t n)
{
    return strpbrk(s, "\",\r\n") != NULL || s[0] == ' ' || s[n - 1] == ' ';
}

static int put_text(FILE *fp, const char *s)
{
    size_t n = strlen(s);
    if (needs_quotes(s, n))
        return csv_fwrite2(fp, s, n, '"');
    return fwrite(s, 1, n, fp) == n ? 0 : EOF;
}

static int put_value(FILE *fp, const struct kvg_row *row, size_t i)
{
    char buf[40];
    switch (row->table->columns[i].type) {
    case KVG_COL_U64:
        return fprintf(fp, "%" PRIu64, row->v[i].u64) < 0 ? EOF : 0;
    case KVG_COL_I64:
        return fprintf(fp, "%" PRId64, row->v[i].i64) < 0 ? EOF : 0;
    case KVG_COL_F64:
        kvg_text_put_double(buf, sizeof buf, row->v[i].f64);
        return fputs(buf, fp) < 0 ? EOF : 0;
    case KVG_COL_STR:
        return put_text(fp, row->v[i].str);
    }
    return EOF;
}

static int check_row(const struct kvg_csv *csv, const struct kvg_row *row, struct kvg_err *err)
{
    if (row->table != csv->table)
        return KVG_FAIL(err, KVG_ECHECK, "a row of table '%s' was written to '%s'",
                        row->table->name, csv->path);
    if (row->misuse)
        return KVG_FAIL(err, KVG_ECHECK, "column set with a wrong type: '%s' of '%s'", row->misuse,
                        row->table->name);
    for (size_t i = 0; i < row->table->n_columns; i++)
        if (row->table->columns[i].required && !row->is_set[i])
            return KVG_FAIL(err, KVG_ECHECK, "required column not set: '%s' of '%s'",
                            row->table->columns[i].name, row->table->name);
    return KVG_OK;
}

int kvg_csv_write(struct kvg_csv *csv, const struct kvg_row *row, struct kvg_err *err)
{
    int rc = check_row(csv, row, err);
    if (rc)
        return rc;
    locale_t before = uselocale(csv->c_locale);
    int bad = 0;
    for (size_t i = 0; i < row->table->n_columns && !bad; i++) {
        if (i)
            bad = fputc(',', csv->fp) == EOF;
        if (!bad && row->is_set[i])
            bad = put_value(csv->fp, row, i) != 0;
    }
    if (!bad)
        bad = fputc('\n', csv->fp) == EOF;
    uselocale(before);
    if (bad)
        return KVG_FAIL(err, KVG_EIO, "%s: cannot write '%s'", strerror(errno), csv->path);
    return KVG_OK;
}

int kvg_csv_flush(struct kvg_csv *csv, struct kvg_err *err)
{
    errno = 0;
    if (fflush(csv->fp) || ferror(csv->fp))
        return KVG_FAIL(err, KVG_EIO, "%s: cannot write '%s'",
                        errno ? strerror(errno) : "an earlier write failed", csv->path);
    return KVG_OK;
}

int kvg_csv_close(struct kvg_csv *csv, struct kvg_err *err)
{
    if (!csv)
        return KVG_OK;
    int rc = KVG_OK;
    if (csv->fp) {
        rc = kvg_csv_flush(csv, err);
        if (fclose(csv->fp) && !rc)
            rc = KVG_FAIL(err, KVG_EIO, "%s: cannot close '%s'", strerror(errno), csv->path);
    }
    if (csv->c_locale)
        freelocale(csv->c_locale);
    free(csv->path);
    free(csv);
    return rc;
}

struct filter {
    struct kvg_csv *out;
    kvg_csv_keep_fn keep;
    void *arg;
    size_t n_dropped;
};

static int filter_row(void *arg, const struct kvg_row *row, struct kvg_err *err)
{
    struct filter *f = arg;
    if (f->keep(f->arg, row))
        return kvg_csv_write(f->out, row, err);
    f->n_dropped++;
    return KVG_OK;
}

int kvg_csv_filter(const char *path, const struct kvg_table *table, kvg_csv_keep_fn keep, void *arg,
                   size_t *n_dropped, struct kvg_err *err)
{
    struct filter f = {NULL, keep, arg, 0};
    struct kvg_str tmp = {0};
    kvg_str_addf(&tmp, "%s.tmp", path);
    if (tmp.failed)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while filtering '%s'", path);
    unlink(tmp.s); /* left by a killed run */
    int rc = kvg_csv_open_append(&f.out, tmp.s, table, err);
    if (!rc)
        rc = kvg_csv_read(path, table, filter_row, &f, err);
    if (!rc && (rc = kvg_csv_flush(f.out, err)) == 0 && fsync(fileno(f.out->fp)))
        rc = KVG_FAIL(err, KVG_EIO, "%s: cannot sync '%s'", strerror(errno), tmp.s);
    int rc2 = kvg_csv_close(f.out, rc ? NULL : err);
    rc = rc ? rc : rc2;
    if (!rc && rename(tmp.s, path))
        rc = KVG_FAIL(err, KVG_EIO, "%s: cannot replace '%s'", strerror(errno), path);
    if (rc)
        unlink(tmp.s);
    else if (n_dropped)
        *n_dropped = f.n_dropped;
    kvg_str_release(&tmp);
    return rc;
}
