/* Owns opening a tokenizer and turning ids back into text; must not know how text becomes ids. */
#include "model/tokenizer.h"

#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static int is_text(struct kvg_gguf_str v, const char *s)
{
    return v.n == strlen(s) && !memcmp(v.s, s, v.n);
}

/* Optional keys: a missing one leaves the default, a wrong one is an error. */
static int optional(int rc)
{
    return rc == KVG_ENONE ? 0 : rc;
}

static int read_id(const struct kvg_tokenizer *t, const struct kvg_gguf *g, const char *key,
                   int32_t *out, struct kvg_err *err)
{
    uint32_t v = UINT32_MAX;
    int rc = optional(kvg_gguf_u32(g, key, &v, err));
    /* Writers put 4294967295 for "none". */
    if (rc || v == UINT32_MAX)
        return rc;
    if (v >= t->n_vocab)
        return KVG_FAIL(err, KVG_EFORMAT, "metadata key '%s' of '%s' is %u, the vocabulary has %zu",
                        key, g->path, v, t->n_vocab);
    *out = (int32_t)v;
    return 0;
}

static int read_types(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    const struct kvg_gguf_kv *a = NULL;
    memset(t->types, KVG_TOK_NORMAL, t->n_vocab);
    int rc = optional(kvg_gguf_array(g, "tokenizer.ggml.token_type", KVG_GGUF_I32, &a, err));
    if (rc || !a)
        return rc;
    if (a->n != t->n_vocab)
        return KVG_FAIL(err, KVG_EFORMAT, "'%s' has %zu tokens but %zu token types", g->path,
                        t->n_vocab, (size_t)a->n);
    for (size_t i = 0; i < t->n_vocab; i++) {
        int32_t type = kvg_gguf_array_i32(a, i);
        if (type < KVG_TOK_NORMAL || type > KVG_TOK_BYTE)
            return KVG_FAIL(err, KVG_EFORMAT, "token %zu of '%s' has the unknown type %d", i,
                            g->path, type);
        t->types[i] = (unsigned char)type;
    }
    return 0;
}

static int read_vocab(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    const struct kvg_gguf_kv *a;
    int rc = kvg_gguf_array(g, "tokenizer.ggml.tokens", KVG_GGUF_STR, &a, err);
    if (rc)
        return rc == KVG_ENONE ? KVG_EFORMAT : rc;
    if (a->n == 0 || a->n > INT32_MAX)
        return KVG_FAIL(err, KVG_EFORMAT, "the vocabulary of '%s' has %llu tokens", g->path,
                        (unsigned long long)a->n);
    /* Every element was read from the file when it was opened: the sizes below are real. */
    t->n_vocab = (size_t)a->n;
    t->tokens = malloc(t->n_vocab * sizeof *t->tokens);
    t->types = malloc(t->n_vocab);
    t->eog = calloc(t->n_vocab, 1);
    t->bytes = malloc(a->bytes);
    t->bytes_at = malloc((t->n_vocab + 1) * sizeof *t->bytes_at);
    t->specials = malloc(t->n_vocab * sizeof *t->specials);
    if (!t->tokens || !t->types || !t->eog || !t->bytes || !t->bytes_at || !t->specials)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the vocabulary of '%s'", g->path);
    size_t at = 0;
    for (size_t i = 0; i < t->n_vocab; i++)
        t->tokens[i] = kvg_gguf_array_next_str(a, &at);
    rc = read_types(t, g, err);
    return rc ? rc : kvg_vocab_build(t, err);
}

static int read_settings(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    int rc = read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err);
    if (!rc)
        rc = read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err);
    if (!rc)
        rc = read_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unk, err);
    if (!rc)
        rc = read_id(t, g, "tokenizer.ggml.eot_token_id", &t->eot, err);
    if (!rc)
        rc = optional(kvg_gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, err));
    if (!rc && t->is_spm)
        rc = optional(
            kvg_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, err));
    return rc;
}

/* Control tokens that end a text, by the names models give them; the first ones end a turn. */
static void find_eog(struct kvg_tokenizer *t)
{
    static const char *const names[] = {"<|im_end|>",    "<|eot_id|>",     "<|end|>",
                                        "<end_of_turn>", "<|eom_id|>",     "<|endoftext|>",
                                        "</s>",          "<|end_of_text|>"};
    enum { N_TURN = 4 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t id = kvg_vocab_find(t, names[i], strlen(names[i]), "", 0);
        if (id < 0 || (t->types[id] != KVG_TOK_CONTROL && t->types[id] != KVG_TOK_USER))
            continue;
        t->eog[id] = 1;
        if (i < N_TURN && t->eot < 0)
            t->eot = id;
    }
    if (t->eot < 0)
        t->eot = t->eos;
    if (t->eos >= 0)
        t->eog[t->eos] = 1;
    if (t->eot >= 0)
        t->eog[t->eot] = 1;
}

static int by_bytes(const void *pa, const void *pb, void *arg)
{
    const struct kvg_tokenizer *t = arg;
    const struct kvg_gguf_str *a = &t->tokens[*(const int32_t *)pa];
    const struct kvg_gguf_str *b = &t->tokens[*(const int32_t *)pb];
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

static void find_specials(struct kvg_tokenizer *t)
{
    for (size_t i = 0; i < t->n_vocab; i++) {
        int type = t->types[i];
        if (t->tokens[i].n > 0 &&
            (type == KVG_TOK_CONTROL || type == KVG_TOK_USER || type == KVG_TOK_UNKNOWN))
            t->specials[t->n_specials++] = (int32_t)i;
    }
    qsort_r(t->specials, t->n_specials, sizeof *t->specials, by_bytes, t);
}

static void digest_array(struct kvg_str *b, const struct kvg_gguf *g, const char *key)
{
    char hex[KVG_SHA256_HEX] = "none";
    const struct kvg_gguf_kv *kv = kvg_gguf_find(g, key);
    if (kv)
        kvg_hash_sha256_hex(kv->data, kv->bytes, hex);
    kvg_str_addf(b, "%s %s\n", key, hex);
}

static int make_digest(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    struct kvg_str b = {0};
    kvg_str_addf(&b, "spm %d pre %d ignore_merges %d space_prefix %d ids %d %d %d %d\n", t->is_spm,
                 t->pre, t->ignore_merges, t->add_space_prefix, t->bos, t->eos, t->unk, t->eot);
    digest_array(&b, g, "tokenizer.ggml.tokens");
    digest_array(&b, g, "tokenizer.ggml.token_type");
    digest_array(&b, g, t->is_spm ? "tokenizer.ggml.scores" : "tokenizer.ggml.merges");
    int failed = b.failed;
    if (!failed)
        kvg_hash_sha256_hex(b.s, b.len, t->digest);
    kvg_str_release(&b);
    return failed ? KVG_FAIL(err, KVG_ENOMEM, "out of memory opening '%s'", g->path) : 0;
}

static int read_kind(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err)
{
    struct kvg_gguf_str kind, pre = {"", 0};
    int rc = kvg_gguf_str(g, "tokenizer.ggml.model", &kind, err);
    if (rc)
        return rc == KVG_ENONE ? KVG_EFORMAT : rc;
    rc = optional(kvg_gguf_str(g, "tokenizer.ggml.pre", &pre, err));
    if (rc)
        return rc;
    t->is_spm = is_text(kind, "llama");
    if (!t->is_spm && !is_text(kind, "gpt2"))
        return KVG_FAIL(err, KVG_EUNSUP,
                        "tokenizer '%.*s' of '%s' is not supported; gpt2 (byte-level BPE) and "
                        "llama (SentencePiece BPE) are",
                        kind.n < 64 ? (int)kind.n : 64, kind.s, g->path);
    /* What these kinds do when the file does not say. */
    t->add_bos = t->is_spm || is_text(pre, "llama-bpe");
    t->add_space_prefix = t->is_spm;
    t->bos = t->eos = t->unk = t->eot = -1;
    return 0;
}

int kvg_tokenizer_open(struct kvg_tokenizer **out, const struct kvg_gguf *g, struct kvg_err *err)
{
    *out = NULL;
    struct kvg_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory opening '%s'", g->path);
    int rc = read_kind(t, g, err);
    if (!rc)
        rc = read_vocab(t, g, err);
    if (!rc)
        rc = read_settings(t, g, err);
    if (!rc)
        rc = t->is_spm ? kvg_spm_open(t, g, err) : kvg_bpe_open(t, g, err);
    if (!rc)
        rc = make_digest(t, g, err);
    if (rc) {
        kvg_tokenizer_close(t);
        return rc;
    }
    find_eog(t);
    find_specials(t);
    *out = t;
    return 0;
}

void kvg_tokenizer_close(struct kvg_tokenizer *t)
{
    if (!t)
        return;
    free(t->tokens);
    free(t->types);
    free(t->eog);
    free(t->slots);
    free(t->bytes);
    free(t->bytes_at);
    free(t->specials);
    free(t->merges);
    free(t->ranks);
    free(t);
}

size_t kvg_tokenizer_n_vocab(const struct kvg_tokenizer *t)
{
    return t->n_vocab;
}

int32_t kvg_tokenizer_bos(const struct kvg_tokenizer *t)
{
    return t->bos;
}

int32_t kvg_tokenizer_eos(const struct kvg_tokenizer *t)
{
    return t->eos;
}

int32_t kvg_tokenizer_unk(const struct kvg_tokenizer *t)
{
    return t->unk;
}

int32_t kvg_tokenizer_eot(const struct kvg_tokenizer *t)
{
    return t->eot;
}

int kvg_tokenizer_add_bos(const struct kvg_tokenizer *t)
{
    return t->add_bos;
}

static int in_vocab(const struct kvg_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_vocab;
}

int kvg_tokenizer_is_eog(const struct kvg_tokenizer *t, int32_t id)
{
    return in_vocab(t, id) && t->eog[id];
}

int kvg_tokenizer_is_control(const struct kvg_tokenizer *t, int32_t id)
{
    return in_vocab(t, id) && t->types[id] == KVG_TOK_CONTROL;
}

int32_t kvg_tokenizer_find(const struct kvg_tokenizer *t, const char *s, size_t n)
{
    return kvg_vocab_find(t, s, n, "", 0);
}

const char *kvg_tokenizer_piece(const struct kvg_tokenizer *t, int32_t id, size_t *n)
{
    *n = 0;
    if (!in_vocab(t, id))
        return NULL;
    *n = t->bytes_at[id + 1] - t->bytes_at[id];
    return t->bytes + t->bytes_at[id];
}

int kvg_tokenizer_decode(const struct kvg_tokenizer *t, const int32_t *ids, size_t n,
                         struct kvg_str *out, struct kvg_err *err)
{
    int strip = t->add_space_prefix;
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *s = kvg_tokenizer_piece(t, ids[i], &len);
        if (!s)
            return KVG_FAIL(err, KVG_EUSAGE, "token id %d is outside the vocabulary of %zu", ids[i],
                            t->n_vocab);
        if (strip && len > 0 && *s == ' ') {
            s++;
            len--;
        }
        /* The space that encoding put in front belongs to the first ordinary token. */
        strip = strip && kvg_tokenizer_is_control(t, ids[i]);
        kvg_str_addn(out, s, len);
    }
    return out->failed ? KVG_FAIL(err, KVG_ENOMEM, "out of memory decoding %zu tokens", n) : 0;
}

const char *kvg_tokenizer_digest(const struct kvg_tokenizer *t)
{
    return t->digest;
}
