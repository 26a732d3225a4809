/* Owns the way from a text to ids: cuts out special tokens, hands what is between them to the kind
 * of tokenizer. Must not know how words become ids. */
#include "model/tokenizer_impl.h"

#include <string.h>

/* Ordinary text collected since the last special token; copied only when it spans pieces. */
struct stretch {
    const char *s;
    size_t n;
    struct kvg_str joined;
};

struct encoder {
    const struct kvg_tokenizer *t;
    struct kvg_merge merge;
    struct stretch raw;
    struct kvg_id_sink out;
    int prefix; /* the next ordinary text begins with a SentencePiece space */
};

static int is_allowed(const struct kvg_tokenizer *t, int32_t id, int special)
{
    return special || (t->types[id] == KVG_TOK_USER && !t->eog[id]);
}

/* The longest special token at the beginning of s[n], or -1. Specials are sorted: each byte of the
 * text narrows the range that can still match. */
static int32_t special_at(const struct kvg_tokenizer *t, const char *s, size_t n, int special)
{
    size_t lo = 0, hi = t->n_specials;
    int32_t best = -1;
    for (size_t depth = 0; depth < n && lo < hi; depth++) {
        unsigned char c = (unsigned char)s[depth];
        for (size_t a = lo, b = hi; a < b;) {
            size_t mid = (a + b) / 2;
            const struct kvg_gguf_str *v = &t->tokens[t->specials[mid]];
            if (v->n <= depth || (unsigned char)v->s[depth] < c)
                lo = a = mid + 1;
            else
                b = mid;
        }
        for (size_t a = lo, b = hi; a < b;) {
            size_t mid = (a + b) / 2;
            if ((unsigned char)t->tokens[t->specials[mid]].s[depth] > c)
                hi = b = mid;
            else
                a = mid + 1;
        }
        if (lo < hi && t->tokens[t->specials[lo]].n == depth + 1 &&
            is_allowed(t, t->specials[lo], special))
            best = t->specials[lo];
    }
    return best;
}

static int add_raw(struct stretch *r, const char *s, size_t n)
{
    if (r->n == 0 || n == 0) {
        if (n > 0) {
            r->s = s;
            r->n = n;
        }
        return 0;
    }
    if (r->s != r->joined.s) {
        kvg_str_clear(&r->joined);
        kvg_str_addn(&r->joined, r->s, r->n);
    }
    kvg_str_addn(&r->joined, s, n);
    r->s = r->joined.s;
    r->n = r->joined.len;
    return r->joined.failed ? KVG_ENOMEM : 0;
}

static int flush(struct encoder *e)
{
    int rc = 0;
    if (e->raw.n > 0) {
        if (e->t->is_spm)
            rc = kvg_spm_encode(e->t, &e->merge, e->raw.s, e->raw.n, e->prefix, &e->out);
        else
            rc = kvg_bpe_encode(e->t, &e->merge, e->raw.s, e->raw.n, &e->out);
    }
    e->raw.n = 0;
    return rc;
}

static int add_piece(struct encoder *e, const struct kvg_text_piece *p, const unsigned char *first)
{
    size_t from = 0, at = 0;
    int rc = 0;
    while (at < p->n && !rc) {
        int32_t id = -1;
        if (first[(unsigned char)p->s[at]])
            id = special_at(e->t, p->s + at, p->n - at, p->special);
        if (id < 0) {
            at++;
            continue;
        }
        rc = add_raw(&e->raw, p->s + from, at - from);
        if (!rc)
            rc = flush(e);
        kvg_id_put(&e->out, id);
        at += e->t->tokens[id].n;
        from = at;
        e->prefix = e->t->add_space_prefix;
    }
    return rc ? rc : add_raw(&e->raw, p->s + from, at - from);
}

int kvg_tokenizer_encode_pieces(const struct kvg_tokenizer *t, const struct kvg_text_piece *pieces,
                                size_t n_pieces, int flags, int32_t *ids, size_t cap, size_t *n,
                                struct kvg_err *err)
{
    struct encoder e = {.t = t, .out = {ids, cap, 0}};
    unsigned char first[256] = {0};
    size_t n_bytes = 0;
    int rc = 0;
    *n = 0;
    for (size_t i = 0; i < n_pieces; i++) {
        /* Positions inside a word are 32-bit and a space can become three bytes. */
        if (pieces[i].n > INT32_MAX / 4 - n_bytes)
            return KVG_FAIL(err, KVG_ELIMIT, "a text of more than %d bytes cannot be encoded",
                            INT32_MAX / 4);
        n_bytes += pieces[i].n;
    }
    for (size_t i = 0; i < t->n_specials; i++)
        first[(unsigned char)t->tokens[t->specials[i]].s[0]] = 1;
    e.prefix = t->add_space_prefix && !(flags & KVG_ENCODE_CONTINUE);
    for (size_t i = 0; i < n_pieces && !rc; i++)
        rc = add_piece(&e, &pieces[i], first);
    if (!rc)
        rc = flush(&e);
    kvg_merge_release(&e.merge);
    kvg_str_release(&e.raw.joined);
    if (rc)
        return KVG_FAIL(err, rc, "out of memory encoding %zu bytes of text", n_bytes);
    *n = e.out.n;
    if (e.out.n > cap)
        return KVG_FAIL(err, KVG_ELIMIT, "the text needs %zu tokens, there is room for %zu",
                        e.out.n, cap);
    return 0;
}

int kvg_tokenizer_encode(const struct kvg_tokenizer *t, const char *text, size_t n_bytes, int flags,
                         int32_t *ids, size_t cap, size_t *n, struct kvg_err *err)
{
    struct kvg_text_piece piece = {text, n_bytes, flags & KVG_ENCODE_SPECIAL};
    return kvg_tokenizer_encode_pieces(t, &piece, 1, flags, ids, cap, n, err);
}
