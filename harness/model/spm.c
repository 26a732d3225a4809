/* Owns SentencePiece BPE: neighbours merge when their joined text is a token, the highest score
 * first; what is no token falls back to its bytes. Must not know special tokens. */
#include "model/tokenizer_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* U+2581, which stands for the space. */
static const char blank[] = "\xe2\x96\x81";
enum { BLANK_LEN = 3 };

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that a token "<0x4F>" stands for. */
static int byte_of(struct kvg_gguf_str v)
{
    if (v.n != 6 || memcmp(v.s, "<0x", 3) || v.s[5] != '>')
        return -1;
    int hi = hex_digit(v.s[3]), lo = hex_digit(v.s[4]);
    return hi < 0 || lo < 0 ? -1 : 16 * hi + lo;
}

static size_t put_bytes(const struct kvg_tokenizer *t, size_t i, char *to)
{
    struct kvg_gguf_str v = t->tokens[i];
    if (t->types[i] == KVG_TOK_BYTE) {
        *to = (char)byte_of(v);
        return 1;
    }
    if (t->types[i] != KVG_TOK_NORMAL && t->types[i] != KVG_TOK_UNUSED) {
        memcpy(to, v.s, v.n);
        return v.n;
    }
    size_t n = 0;
    for (size_t at = 0; at < v.n;) {
        if (v.n - at >= BLANK_LEN && !memcmp(v.s + at, blank, BLANK_LEN)) {
            to[n++] = ' ';
            at += BLANK_LEN;
        } else {
            to[n++] = v.s[at++];
        }
    }
    return n;
}

/* Ascending order of the result = descending order of the score. */
static uint32_t rank_of(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

static int read_token(struct kvg_tokenizer *t, const struct kvg_gguf *g, size_t i, float score,
                      struct kvg_err *err)
{
    int type = t->types[i];
    if (type == KVG_TOK_BYTE) {
        int b = byte_of(t->tokens[i]);
        if (b < 0)
            return KVG_FAIL(err, KVG_EFORMAT, "byte token %zu of '%s' is not of the form <0xNN>", i,
                            g->path);
        t->byte_id[b] = (int32_t)i;
    }
    if (!isfinite(score))
        return KVG_FAIL(err, KVG_EFORMAT, "the score of token %zu of '%s' is not finite", i,
                        g->path);
    int ordinary = type != KVG_TOK_BYTE && type != KVG_TOK_CONTROL && type != KVG_TOK_UNKNOWN;
    t->ranks[i] = ordinary ? rank_of(score) : UINT32_MAX;
    if (ordinary && t->tokens[i].n > t->longest)
        t->longest = t->tokens[i].n;
    return 0;
}

int kvg_spm_open(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    const struct kvg_gguf_kv *scores;
    int rc = kvg_gguf_array(g, "tokenizer.ggml.scores", KVG_GGUF_F32, &scores, err);
    if (rc)
        return rc == KVG_ENONE ? KVG_EFORMAT : rc;
    if (scores->n != t->n_vocab)
        return KVG_FAIL(err, KVG_EFORMAT, "'%s' has %zu tokens but %zu scores", g->path, t->n_vocab,
                        (size_t)scores->n);
    t->ranks = calloc(t->n_vocab, sizeof *t->ranks);
    if (!t->ranks)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the scores of '%s'", g->path);
    int n_bytes = 0;
    for (size_t i = 0; i < 256; i++)
        t->byte_id[i] = -1;
    for (size_t i = 0; i < t->n_vocab && !rc; i++)
        rc = read_token(t, g, i, kvg_gguf_array_f32(scores, i), err);
    if (rc)
        return rc;
    for (size_t i = 0; i < 256; i++)
        n_bytes += t->byte_id[i] >= 0;
    if (n_bytes < 256 && t->unk < 0)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "the vocabulary of '%s' has neither all 256 byte tokens nor an unknown "
                        "token",
                        g->path);
    size_t at = 0;
    for (size_t i = 0; i < t->n_vocab; i++) {
        t->bytes_at[i] = at;
        at += put_bytes(t, i, t->bytes + at);
    }
    t->bytes_at[t->n_vocab] = at;
    return 0;
}

static int pair(const struct kvg_tokenizer *t, const char *text, const struct kvg_sym *a,
                const struct kvg_sym *b, uint32_t *rank, int32_t *id)
{
    if (a->len + b->len > t->longest)
        return 0;
    *id = kvg_vocab_find(t, text + a->at, a->len, text + b->at, b->len);
    *rank = *id >= 0 ? t->ranks[*id] : UINT32_MAX;
    return *rank != UINT32_MAX;
}

static void put_symbol(const struct kvg_tokenizer *t, const char *s, size_t n,
                       struct kvg_id_sink *out)
{
    int32_t id = kvg_vocab_find(t, s, n, "", 0);
    if (id >= 0 && t->ranks[id] != UINT32_MAX) {
        kvg_id_put(out, id);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        id = t->byte_id[(unsigned char)s[i]];
        kvg_id_put(out, id >= 0 ? id : t->unk);
    }
}

int kvg_spm_encode(const struct kvg_tokenizer *t, struct kvg_merge *m, const char *s, size_t n,
                   int space_prefix, struct kvg_id_sink *out)
{
    char *text = kvg_merge_text(m, BLANK_LEN * (n + 1));
    size_t len = 0;
    if (!text || kvg_merge_start(m, n + 1))
        return KVG_ENOMEM;
    if (space_prefix) {
        memcpy(text, blank, BLANK_LEN);
        kvg_merge_add(m, 0, BLANK_LEN, -1);
        len = BLANK_LEN;
    }
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        size_t from = kvg_text_utf8_decode(s + at, n - at, &cp), to = cp == ' ' ? BLANK_LEN : from;
        memcpy(text + len, cp == ' ' ? blank : s + at, to);
        kvg_merge_add(m, len, to, -1);
        at += from;
        len += to;
    }
    if (kvg_merge_run(m, t, text, pair))
        return KVG_ENOMEM;
    for (int32_t i = m->n_syms ? 0 : -1; i >= 0; i = m->syms[i].next)
        put_symbol(t, text + m->syms[i].at, m->syms[i].len, out);
    return 0;
}
