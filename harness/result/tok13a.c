/* Owns the 13a rules: a few substitutions of text, then four rewriting passes over code points,
 * each the left-to-right, non-overlapping replacement of one regular expression. Must not know
 * BLEU. */
#include "result/tok13a.h"

#include <stdlib.h>
#include <string.h>

/* Replaces each occurrence of `from` by `to` (not longer) in place. */
static void replace(struct kvg_symbols *t, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to), out = 0;
    for (size_t i = 0; i < t->n;) {
        size_t k = 0;
        while (k < n_from && i + k < t->n && t->v[i + k] == (unsigned char)from[k])
            k++;
        if (k == n_from) {
            for (size_t j = 0; j < n_to; j++)
                t->v[out++] = (unsigned char)to[j];
            i += n_from;
        } else {
            t->v[out++] = t->v[i++];
        }
    }
    t->n = out;
}

static int is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static int is_stop(uint32_t c)
{
    return c == '.' || c == ',';
}

/* ASCII punctuation except the apostrophe, comma, hyphen and full stop; the space is in the
 * expression too, and makes no difference. */
static int is_symbol(uint32_t c)
{
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

/* ([{-~[-` -&(-+:-@/]) -> ' \1 ' */
static size_t pass_symbols(const uint32_t *in, size_t n, uint32_t *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_symbol(in[i])) {
            out[k++] = ' ';
            out[k++] = in[i];
            out[k++] = ' ';
        } else {
            out[k++] = in[i];
        }
    }
    return k;
}

/* ([^0-9])([.,]) -> '\1 \2 ' */
static size_t pass_stop_after_nondigit(const uint32_t *in, size_t n, uint32_t *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        out[k++] = in[i];
        if (!is_digit(in[i]) && i + 1 < n && is_stop(in[i + 1])) {
            out[k++] = ' ';
            out[k++] = in[++i];
            out[k++] = ' ';
        }
    }
    return k;
}

/* ([.,])([^0-9]) -> ' \1 \2' */
static size_t pass_stop_before_nondigit(const uint32_t *in, size_t n, uint32_t *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_stop(in[i]) && i + 1 < n && !is_digit(in[i + 1])) {
            out[k++] = ' ';
            out[k++] = in[i++];
            out[k++] = ' ';
        }
        out[k++] = in[i];
    }
    return k;
}

/* ([0-9])(-) -> '\1 \2 ' */
static size_t pass_dash_after_digit(const uint32_t *in, size_t n, uint32_t *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        out[k++] = in[i];
        if (is_digit(in[i]) && i + 1 < n && in[i + 1] == '-') {
            out[k++] = ' ';
            out[k++] = in[++i];
            out[k++] = ' ';
        }
    }
    return k;
}

/* Deletions and entities, and a space on either side; `t` has room for two more symbols. */
static void prepare(struct kvg_symbols *t)
{
    while (t->n && kvg_symbols_is_space(t->v[t->n - 1]))
        t->n--;
    replace(t, "<skipped>", "");
    replace(t, "-\n", "");
    replace(t, "\n", " ");
    replace(t, "&quot;", "\"");
    replace(t, "&amp;", "&");
    replace(t, "&lt;", "<");
    replace(t, "&gt;", ">");
    memmove(t->v + 1, t->v, t->n * sizeof *t->v);
    t->v[0] = t->v[t->n + 1] = ' ';
    t->n += 2;
}

int kvg_tok13a(struct kvg_symbols *out, const char *text)
{
    struct kvg_symbols t = {0};
    uint32_t *a = NULL, *b = NULL;
    int rc = -1;
    out->v = NULL;
    out->n = 0;
    if (kvg_symbols_decode(&t, text))
        return -1;
    uint32_t *grown = realloc(t.v, (t.n + 2) * sizeof *t.v);
    if (!grown)
        goto out;
    t.v = grown;
    /* A code point gains four spaces at most: a symbol two in the first pass, a full stop or comma
     * two in each of the next two, a digit and its dash two in the last. */
    const size_t room = 5 * (t.n + 2);
    a = malloc(room * sizeof *a);
    b = malloc(room * sizeof *b);
    if (!a || !b)
        goto out;
    prepare(&t);
    size_t n = pass_symbols(t.v, t.n, a);
    n = pass_stop_after_nondigit(a, n, b);
    n = pass_stop_before_nondigit(b, n, a);
    n = pass_dash_after_digit(a, n, b);
    out->v = b;
    out->n = n;
    b = NULL;
    rc = 0;
out:
    free(t.v);
    free(a);
    free(b);
    return rc;
}
