/* What the files of the tokenizer share: tokenizer.c opens and decodes, encode.c cuts out special
 * tokens, pretok.c cuts words, bpe.c and spm.c turn a stretch of text into ids, merge.c is the
 * merging both use, vocab.c finds tokens by text. Nobody else includes this. */
#ifndef KVG_MODEL_TOKENIZER_IMPL_H
#define KVG_MODEL_TOKENIZER_IMPL_H

#include "model/tokenizer.h"

/* Token types of the file. */
enum {
    KVG_TOK_NORMAL = 1,
    KVG_TOK_UNKNOWN = 2,
    KVG_TOK_CONTROL = 3,
    KVG_TOK_USER = 4,
    KVG_TOK_UNUSED = 5,
    KVG_TOK_BYTE = 6
};

enum kvg_pretok { KVG_PRETOK_GPT2, KVG_PRETOK_SMOLLM, KVG_PRETOK_LLAMA3 };

/* Two neighbours that may merge; key = ids of left and right, rank = order of preference. */
struct kvg_bpe_merge {
    uint64_t pair;
    uint32_t rank;
    int32_t id; /* -1 = free */
};

struct kvg_tokenizer {
    int is_spm;
    enum kvg_pretok pre;
    int ignore_merges; /* a word that is a token is that token, whatever the merges say */
    int add_bos, add_space_prefix;
    int32_t bos, eos, unk, eot;
    char digest[KVG_SHA256_HEX];

    size_t n_vocab;
    struct kvg_gguf_str *tokens; /* [n_vocab] as in the file */
    unsigned char *types;        /* [n_vocab] KVG_TOK_... */
    unsigned char *eog;          /* [n_vocab] */
    int32_t *slots;              /* text -> id, open addressing, -1 = free */
    size_t n_slots;

    char *bytes;      /* decoded bytes of all tokens */
    size_t *bytes_at; /* [n_vocab + 1] */

    int32_t *specials; /* ids matched in text before anything else, sorted by their bytes */
    size_t n_specials;

    int32_t byte_id[256];         /* token of a single byte, -1 = none */
    uint16_t letter_of[256];      /* bpe: byte -> code point of the printable alphabet */
    struct kvg_bpe_merge *merges; /* bpe: open addressing */
    size_t n_merge_slots;
    uint32_t *ranks; /* spm: [n_vocab] ascending = higher score; UINT32_MAX = never merged into */
    size_t longest;  /* bytes of the longest ordinary token, as in the file */
};

/* Where ids go; n counts on past cap. */
struct kvg_id_sink {
    int32_t *v;
    size_t cap, n;
};
static inline void kvg_id_put(struct kvg_id_sink *s, int32_t id)
{
    if (s->n < s->cap)
        s->v[s->n] = id;
    s->n++;
}

/* A linked list of adjacent stretches of text; len 0 = merged away. */
struct kvg_sym {
    uint32_t at, len; /* bytes */
    int32_t prev, next;
    int32_t id; /* bpe only */
};
struct kvg_merge_cand {
    uint64_t key; /* rank << 32 | index of the left symbol: best first, then leftmost */
    uint32_t len; /* of both together; stale when it no longer fits */
    int32_t right, id;
};
/* Scratch memory of one encode call, growing to its longest word. */
struct kvg_merge {
    struct kvg_sym *syms;
    struct kvg_merge_cand *heap;
    size_t n_syms, cap_syms, n_heap, cap_heap;
    char *text;
    size_t cap_text;
};
void kvg_merge_release(struct kvg_merge *m);
/* Room for n symbols; drops the old ones. 0 or KVG_ENOMEM. */
int kvg_merge_start(struct kvg_merge *m, size_t n);
void kvg_merge_add(struct kvg_merge *m, size_t at, size_t len, int32_t id);
/* Room for n bytes of text; NULL when out of memory. */
char *kvg_merge_text(struct kvg_merge *m, size_t n);
/* 1 and rank and id when a and its right neighbour b may merge. */
typedef int kvg_merge_fn(const struct kvg_tokenizer *t, const char *text, const struct kvg_sym *a,
                         const struct kvg_sym *b, uint32_t *rank, int32_t *id);
/* Merges best first until nothing merges. 0 or KVG_ENOMEM. */
int kvg_merge_run(struct kvg_merge *m, const struct kvg_tokenizer *t, const char *text,
                  kvg_merge_fn *pair);

/* vocab.c: finds the token whose text is a[na] followed by b[nb]; -1 = none. */
int kvg_vocab_build(struct kvg_tokenizer *t, struct kvg_err *err);
int32_t kvg_vocab_find(const struct kvg_tokenizer *t, const char *a, size_t na, const char *b,
                       size_t nb);

/* bpe.c, spm.c: _open fills the part of *t that belongs to the kind, `bytes` included. _encode
 * takes text free of special tokens. */
int kvg_bpe_open(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err);
int kvg_bpe_encode(const struct kvg_tokenizer *t, struct kvg_merge *m, const char *s, size_t n,
                   struct kvg_id_sink *out);
int kvg_spm_open(struct kvg_tokenizer *t, const struct kvg_gguf *g, struct kvg_err *err);
int kvg_spm_encode(const struct kvg_tokenizer *t, struct kvg_merge *m, const char *s, size_t n,
                   int space_prefix, struct kvg_id_sink *out);

/* pretok.c: the end of the word that begins at `at` < n. */
size_t kvg_pretok_next(enum kvg_pretok pre, const char *s, size_t n, size_t at);

/* unicode.c: general categories L* and N*. */
int kvg_unicode_is_letter(uint32_t cp);
int kvg_unicode_is_number(uint32_t cp);

#endif
