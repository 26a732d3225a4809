/* Owns byte-level BPE (GPT-2): the printable alphabet of bytes, the merges, words to ids. Must not
 * know special tokens. */
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* The alphabet writes printable bytes as themselves and the others as U+0100, U+0101, ... */
static int is_printable(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

enum { N_LETTERS = 256 + 68 };

static void make_alphabet(uint16_t letter_of[256], int16_t byte_of[N_LETTERS])
{
    uint16_t next = 256;
    memset(byte_of, -1, N_LETTERS * sizeof *byte_of);
    for (unsigned b = 0; b < 256; b++) {
        letter_of[b] = is_printable(b) ? (uint16_t)b : next++;
        byte_of[letter_of[b]] = (int16_t)b;
    }
}

/* The bytes tokens stand for; characters outside the alphabet, and special tokens, stay as they
 * are. */
static void fill_bytes(struct kvg_tokenizer *t, const int16_t byte_of[N_LETTERS])
{
    char *to = t->bytes;
    for (size_t i = 0; i < t->n_vocab; i++) {
        struct kvg_gguf_str v = t->tokens[i];
        int verbatim = t->types[i] == KVG_TOK_CONTROL || t->types[i] == KVG_TOK_USER;
        t->bytes_at[i] = (size_t)(to - t->bytes);
        for (size_t at = 0, len; at < v.n; at += len) {
            uint32_t cp;
            len = kvg_text_utf8_decode(v.s + at, v.n - at, &cp);
            if (!verbatim && cp < N_LETTERS && byte_of[cp] >= 0) {
                *to++ = (char)byte_of[cp];
            } else {
                memcpy(to, v.s + at, len);
                to += len;
            }
        }
    }
    t->bytes_at[t->n_vocab] = (size_t)(to - t->bytes);
}

static struct kvg_bpe_merge *merge_slot(const struct kvg_tokenizer *t, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t mask = t->n_merge_slots - 1;
    size_t h = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & mask;
    while (t->merges[h].id >= 0 && t->merges[h].pair != pair)
        h = (h + 1) & mask;
    return &t->merges[h];
}

static int add_merge(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_gguf_str v,
                     uint32_t rank, struct kvg_err *err)
{
    const char *gap = v.n > 2 ? memchr(v.s + 1, ' ', v.n - 2) : NULL;
    int32_t left = -1, right = -1, id = -1;
    if (gap) {
        size_t na = (size_t)(gap - v.s), nb = v.n - na - 1;
        left = kvg_vocab_find(t, v.s, na, "", 0);
        right = kvg_vocab_find(t, gap + 1, nb, "", 0);
        id = kvg_vocab_find(t, v.s, na, gap + 1, nb);
    }
    if (left < 0 || right < 0 || id < 0)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "merge %u '%.*s' of '%s' does not join two tokens of the vocabulary to a "
                        "third",
                        rank, v.n < 64 ? (int)v.n : 64, v.s, g->path);
    struct kvg_bpe_merge *m = merge_slot(t, left, right);
    if (m->id < 0)
        *m = (struct kvg_bpe_merge){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, id};
    return 0;
}

static int read_merges(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    const struct kvg_gguf_kv *a;
    int rc = kvg_gguf_array(g, "tokenizer.ggml.merges", KVG_GGUF_STR, &a, err);
    if (rc)
        return rc == KVG_ENONE ? KVG_EFORMAT : rc;
    for (t->n_merge_slots = 64; t->n_merge_slots < 2 * a->n;)
        t->n_merge_slots *= 2;
    t->merges = malloc(t->n_merge_slots * sizeof *t->merges);
    if (!t->merges)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the merges of '%s'", g->path);
    for (size_t i = 0; i < t->n_merge_slots; i++)
        t->merges[i].id = -1;
    size_t at = 0;
    for (uint32_t i = 0; i < a->n && !rc; i++)
        rc = add_merge(t, g, kvg_gguf_array_next_str(a, &at), i, err);
    return rc;
}

static int read_pre(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    static const struct {
        const char *name;
        enum kvg_pretok pre;
        int ignore_merges;
    } known[] = {
        {"default", KVG_PRETOK_GPT2, 0},
        {"gpt-2", KVG_PRETOK_GPT2, 0},
        {"smollm", KVG_PRETOK_SMOLLM, 0},
        {"llama-bpe", KVG_PRETOK_LLAMA3, 1},
    };
    struct kvg_gguf_str pre = {"default", 7};
    int rc = kvg_gguf_str(g, "tokenizer.ggml.pre", &pre, err);
    if (rc && rc != KVG_ENONE)
        return rc;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != pre.n || memcmp(known[i].name, pre.s, pre.n))
            continue;
        t->pre = known[i].pre;
        t->ignore_merges = known[i].ignore_merges;
        return 0;
    }
    return KVG_FAIL(err, KVG_EUNSUP,
                    "pre-tokeniser '%.*s' of '%s' is not supported; default, gpt-2, smollm and "
                    "llama-bpe are",
                    pre.n < 64 ? (int)pre.n : 64, pre.s, g->path);
}

int kvg_bpe_open(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    int16_t byte_of[N_LETTERS];
    int rc = read_pre(t, g, err);
    if (!rc)
        rc = read_merges(t, g, err);
    if (rc)
        return rc;
    make_alphabet(t->letter_of, byte_of);
    fill_bytes(t, byte_of);
    for (unsigned b = 0; b < 256; b++) {
        char c[4];
        t->byte_id[b] = kvg_vocab_find(t, c, kvg_text_utf8_encode(t->letter_of[b], c), "", 0);
    }
    for (size_t i = 0; i < t->n_vocab; i++)
        if (t->types[i] == KVG_TOK_NORMAL && t->tokens[i].n > t->longest)
            t->longest = t->tokens[i].n;
    return 0;
}

static int pair(const struct kvg_tokenizer *t, const char *text, const struct kvg_sym *a,
                const struct kvg_sym *b, uint32_t *rank, int32_t *id)
{
    (void)text;
    const struct kvg_bpe_merge *m = merge_slot(t, a->id, b->id);
    *rank = m->rank;
    *id = m->id;
    return m->id >= 0;
}

/* *id = the token that is the whole word, its bytes written in the alphabet; -1 = none. */
static int whole_word(const struct kvg_tokenizer *t, struct kvg_merge *m, const char *s, size_t n,
                      int32_t *id)
{
    *id = -1;
    if (n > t->longest)
        return 0;
    char *to = kvg_merge_text(m, 2 * n);
    if (!to)
        return KVG_ENOMEM;
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += kvg_text_utf8_encode(t->letter_of[(unsigned char)s[i]], to + len);
    int32_t found = kvg_vocab_find(t, to, len, "", 0);
    if (found >= 0 && t->types[found] == KVG_TOK_NORMAL)
        *id = found;
    return 0;
}

static int encode_word(const struct kvg_tokenizer *t, struct kvg_merge *m, const char *s, size_t n,
                       struct kvg_id_sink *out)
{
    int32_t whole = -1;
    if (t->ignore_merges && whole_word(t, m, s, n, &whole))
        return KVG_ENOMEM;
    if (whole >= 0) {
        kvg_id_put(out, whole);
        return 0;
    }
    if (kvg_merge_start(m, n))
        return KVG_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[(unsigned char)s[i]];
        if (id >= 0)
            kvg_merge_add(m, i, 1, id);
    }
    if (kvg_merge_run(m, t, s, pair))
        return KVG_ENOMEM;
    for (int32_t i = m->n_syms ? 0 : -1; i >= 0; i = m->syms[i].next)
        kvg_id_put(out, m->syms[i].id);
    return 0;
}

int kvg_bpe_encode(const struct kvg_tokenizer *t, struct kvg_merge *m, const char *s, size_t n,
                   struct kvg_id_sink *out)
{
    int rc = 0;
    for (size_t at = 0, end; at < n && !rc; at = end) {
        end = kvg_pretok_next(t->pre, s, n, at);
        rc = encode_word(t, m, s + at, end - at, out);
    }
    return rc;
}
