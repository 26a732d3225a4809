/* Owns the text form of calibration files: a first line with the version, then words and numbers;
 * `#` begins a comment that ends with the line. Must not know how the numbers are found. */
#include "cache/nuq.h"

#include "base/fs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 256 << 20, COUNT_MAX = 65536 };

static const char first_line[] = "kvgauge-nuq 1";
static const char *const side_names[KVG_NUQ_SIDES] = {"k", "v"};

int kvg_nuq_alloc(struct kvg_nuq *q, struct kvg_arena *a, struct kvg_err *err)
{
    size_t n = q->n_layers * q->n_kv_heads * q->d_head;
    q->lo = kvg_arena_array(a, n, sizeof *q->lo);
    q->hi = kvg_arena_array(a, n, sizeof *q->hi);
    int ok = q->lo && q->hi;
    for (size_t s = 0; s < KVG_NUQ_SIDES && ok; s++)
        for (size_t b = 0; b < KVG_NUQ_BITS_N && ok; b++) {
            q->levels[s][b] = kvg_arena_array(a, q->n_layers << (b + KVG_NUQ_BITS_LEAST),
                                              sizeof *q->levels[s][b]);
            ok = q->levels[s][b] != NULL;
        }
    return ok ? 0 : KVG_FAIL(err, KVG_ENOMEM, "out of memory for calibration tables");
}

/* ---- writing ---- */

static void put_floats(struct kvg_str *out, const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        kvg_str_addf(out, " %.9g", (double)v[i]);
    kvg_str_addc(out, '\n');
}

void kvg_nuq_print(const struct kvg_nuq *q, struct kvg_str *out)
{
    size_t d = q->d_head;
    kvg_str_addf(out, "%s\nmodel %s\nshape %zu %zu %zu %zu %zu\nrope_base %.9g\noutliers %.9g\n",
                 first_line, q->model_sha256, q->n_layers, q->n_heads, q->n_kv_heads, d, q->n_embd,
                 q->rope_base, q->outliers);
    for (size_t s = 0; s < KVG_NUQ_SIDES; s++)
        for (unsigned b = KVG_NUQ_BITS_LEAST; b <= KVG_NUQ_BITS_MOST; b++)
            for (size_t l = 0; l < q->n_layers; l++) {
                kvg_str_addf(out, "levels %s %u %zu", side_names[s], b, l);
                put_floats(out, kvg_nuq_levels(q, (enum kvg_nuq_side)s, b, l), 1u << b);
            }
    for (size_t h = 0; h < q->n_layers * q->n_kv_heads; h++) {
        kvg_str_addf(out, "low %zu %zu", h / q->n_kv_heads, h % q->n_kv_heads);
        put_floats(out, q->lo + h * d, d);
        kvg_str_addf(out, "high %zu %zu", h / q->n_kv_heads, h % q->n_kv_heads);
        put_floats(out, q->hi + h * d, d);
    }
    kvg_str_add(out, "end\n");
}

/* ---- reading ---- */

struct reader {
    const char *path;
    char *at;    /* what is not read yet */
    size_t line; /* of the word read last */
    int ended;   /* that word was the last of its line */
    struct kvg_err *err;
};

/* The next word, cut off by a NUL; NULL at the end. */
static char *next_word(struct reader *r)
{
    r->line += (size_t)r->ended;
    r->ended = 0;
    for (;; r->at++) {
        if (*r->at == '#')
            r->at += strcspn(r->at, "\n");
        if (*r->at == '\n')
            r->line++;
        else if (!*r->at)
            return NULL;
        else if (!strchr(" \t\r", *r->at))
            break;
    }
    char *word = r->at;
    size_t n = strcspn(word, " \t\r\n");
    r->ended = word[n] == '\n';
    r->at = word + n + (word[n] != 0);
    word[n] = 0;
    return word;
}

static int fail(const struct reader *r, const char *what)
{
    return KVG_FAIL(r->err, KVG_EFORMAT, "%s:%zu: %s; make the file anew with `kvgauge calibrate`",
                    r->path, r->line, what);
}

static int expect(struct reader *r, const char *word)
{
    const char *got = next_word(r);
    if (!got)
        return fail(r, "the file is cut short");
    if (!strcmp(got, word))
        return 0;
    return KVG_FAIL(r->err, KVG_EFORMAT,
                    "%s:%zu: '%.40s' where '%s' should stand; make the file anew with `kvgauge "
                    "calibrate`",
                    r->path, r->line, got, word);
}

static int take_number(struct reader *r, double *out)
{
    const char *word = next_word(r);
    if (!word)
        return fail(r, "the file is cut short");
    return kvg_text_double(word, out) || !isfinite(*out) ? fail(r, "not a number") : 0;
}

static int take_count(struct reader *r, size_t *out)
{
    double v = 0;
    int rc = take_number(r, &v);
    if (!rc && (v < 1 || v > COUNT_MAX || v != floor(v)))
        rc = fail(r, "a count is out of range");
    *out = rc ? 0 : (size_t)v;
    return rc;
}

static int take_floats(struct reader *r, float *out, size_t n)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        double v = 0;
        rc = take_number(r, &v);
        if (!rc && !(fabs(v) < 1e30))
            rc = fail(r, "a number is out of range");
        out[i] = rc ? 0 : (float)v;
    }
    return rc;
}

/* "name 3 1": the word and the numbers that follow it must be these. */
static int expect_place(struct reader *r, const char *name, size_t a, size_t b)
{
    double x = 0, y = 0;
    int rc = expect(r, name);
    if (!rc)
        rc = take_number(r, &x);
    if (!rc)
        rc = take_number(r, &y);
    if (!rc && (x != (double)a || y != (double)b))
        rc = fail(r, "tables are not in their order");
    return rc;
}

static int take_levels(struct reader *r, const struct kvg_nuq *q, enum kvg_nuq_side side,
                       unsigned bits, size_t layer)
{
    float *v = kvg_nuq_levels(q, side, bits, layer);
    int rc = expect(r, "levels");
    if (!rc)
        rc = expect_place(r, side_names[side], bits, layer);
    if (!rc)
        rc = take_floats(r, v, (size_t)1 << bits);
    for (size_t i = 1; i < (size_t)1 << bits && !rc; i++)
        if (v[i] < v[i - 1])
            rc = fail(r, "levels do not ascend");
    return rc;
}

static int take_range(struct reader *r, const struct kvg_nuq *q, size_t head)
{
    size_t d = q->d_head, layer = head / q->n_kv_heads, h = head % q->n_kv_heads;
    int rc = expect_place(r, "low", layer, h);
    if (!rc)
        rc = take_floats(r, q->lo + head * d, d);
    if (!rc)
        rc = expect_place(r, "high", layer, h);
    if (!rc)
        rc = take_floats(r, q->hi + head * d, d);
    for (size_t c = head * d; c < (head + 1) * d && !rc; c++)
        if (q->hi[c] < q->lo[c])
            rc = fail(r, "a range ends below its beginning");
    return rc;
}

static int take_header(struct reader *r, struct kvg_nuq *q)
{
    size_t *const counts[] = {&q->n_layers, &q->n_heads, &q->n_kv_heads, &q->d_head, &q->n_embd};
    int rc = expect(r, "model");
    const char *sha = rc ? NULL : next_word(r);
    if (!rc && (!sha || strlen(sha) != KVG_SHA256_HEX - 1))
        return fail(r, "not the SHA-256 of a model");
    if (!rc)
        memcpy(q->model_sha256, sha, KVG_SHA256_HEX);
    if (!rc)
        rc = expect(r, "shape");
    for (size_t i = 0; i < sizeof counts / sizeof *counts && !rc; i++)
        rc = take_count(r, counts[i]);
    if (!rc)
        rc = expect(r, "rope_base");
    if (!rc)
        rc = take_number(r, &q->rope_base);
    if (!rc)
        rc = expect(r, "outliers");
    if (!rc)
        rc = take_number(r, &q->outliers);
    if (!rc && !(q->outliers >= 0 && q->outliers <= 0.5))
        rc = fail(r, "the share of outliers is not from 0 to 0.5");
    if (!rc && (q->d_head > 512 || q->n_layers * q->n_kv_heads > COUNT_MAX))
        rc = fail(r, "a count is out of range");
    return rc;
}

static int take_all(struct reader *r, struct kvg_nuq *q, struct kvg_arena *a)
{
    size_t n = strlen(first_line);
    if (strncmp(r->at, first_line, n) || !strchr("\r\n", r->at[n]))
        return KVG_FAIL(r->err, KVG_EFORMAT,
                        "'%s' is no calibration file of this version: its first line is not '%s'",
                        r->path, first_line);
    r->at += n;
    int rc = take_header(r, q);
    if (!rc)
        rc = kvg_nuq_alloc(q, a, r->err);
    for (int s = 0; s < KVG_NUQ_SIDES && !rc; s++)
        for (unsigned b = KVG_NUQ_BITS_LEAST; b <= KVG_NUQ_BITS_MOST && !rc; b++)
            for (size_t l = 0; l < q->n_layers && !rc; l++)
                rc = take_levels(r, q, (enum kvg_nuq_side)s, b, l);
    for (size_t h = 0; h < q->n_layers * q->n_kv_heads && !rc; h++)
        rc = take_range(r, q, h);
    return rc ? rc : expect(r, "end");
}

int kvg_nuq_read(struct kvg_nuq *q, const char *path, struct kvg_arena *a, struct kvg_err *err)
{
    struct reader r = {.path = path, .line = 1, .err = err};
    char *text;
    size_t size;
    memset(q, 0, sizeof *q);
    int rc = kvg_fs_read(path, FILE_MAX_BYTES, &text, &size, err);
    if (rc)
        return rc;
    r.at = text;
    rc = take_all(&r, q, a);
    free(text);
    return rc;
}
