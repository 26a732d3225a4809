/* Text to token ids and back, from the vocabulary inside a GGUF file. Two kinds, by the key
 * tokenizer.ggml.model: "gpt2" = byte-level BPE with the pre-tokenisers smollm, llama-bpe, gpt-2
 * and default (tokenizer.ggml.pre), "llama" = SentencePiece BPE by scores with byte fallback.
 * Anything else is refused with its name.
 *
 * A tokenizer is read-only after opening: threads may share it. Ids are int32_t, -1 = none. */
#ifndef KVG_MODEL_TOKENIZER_H
#define KVG_MODEL_TOKENIZER_H

#include "base/err.h"
#include "base/hash.h"
#include "base/text.h"
#include "model/gguf.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_tokenizer;

/* `g` must outlive the tokenizer. KVG_EUNSUP for an unknown kind, KVG_EFORMAT for a vocabulary that
 * contradicts itself. */
int kvg_tokenizer_open(struct kvg_tokenizer **out, const struct kvg_gguf *g, struct kvg_err *err);
void kvg_tokenizer_close(struct kvg_tokenizer *t); /* NULL is allowed */

size_t kvg_tokenizer_n_vocab(const struct kvg_tokenizer *t);
int32_t kvg_tokenizer_bos(const struct kvg_tokenizer *t);
int32_t kvg_tokenizer_eos(const struct kvg_tokenizer *t);
int32_t kvg_tokenizer_unk(const struct kvg_tokenizer *t);
/* The token that ends a turn: the file's eot_token_id, else a control token known for it
 * (<|im_end|>, <|eot_id|>, ...), else eos. */
int32_t kvg_tokenizer_eot(const struct kvg_tokenizer *t);
/* Whether the model expects BOS before plain text. Encoding never adds it: the caller does, unless
 * a chat template writes it. */
int kvg_tokenizer_add_bos(const struct kvg_tokenizer *t);
/* End of generation: eos, eot and other control tokens that end a text. 0 for ids out of range. */
int kvg_tokenizer_is_eog(const struct kvg_tokenizer *t, int32_t id);
int kvg_tokenizer_is_control(const struct kvg_tokenizer *t, int32_t id);
/* The id whose text in the file is exactly s[n] (for gpt2 in its printable byte alphabet), or -1.
 */
int32_t kvg_tokenizer_find(const struct kvg_tokenizer *t, const char *s, size_t n);

enum {
    KVG_ENCODE_SPECIAL = 1, /* control tokens spelled in the text become those tokens */
    KVG_ENCODE_CONTINUE = 2 /* the text goes on after other tokens: no SentencePiece space prefix */
};

/* Encodes n_bytes of text. User-defined tokens (ordinary words to the model) are matched always,
 * control tokens only under KVG_ENCODE_SPECIAL. Invalid UTF-8 is taken byte by byte. A byte for
 * which the vocabulary has no token vanishes (gpt2) or becomes unk (llama), as in the library each
 * kind comes from. *n is the number of ids the text needs; KVG_ELIMIT when that is more than cap
 * (the first cap are stored, so cap 0 counts). Time O(n log n) of the longest word. */
int kvg_tokenizer_encode(const struct kvg_tokenizer *t, const char *text, size_t n_bytes, int flags,
                         int32_t *ids, size_t cap, size_t *n, struct kvg_err *err);

/* A text in pieces: control tokens are parsed in the special ones only, while ordinary text is
 * encoded across the borders as if it were one string. */
struct kvg_text_piece {
    const char *s;
    size_t n;
    int special;
};
/* As kvg_tokenizer_encode; of the flags only KVG_ENCODE_CONTINUE matters. */
int kvg_tokenizer_encode_pieces(const struct kvg_tokenizer *t, const struct kvg_text_piece *pieces,
                                size_t n_pieces, int flags, int32_t *ids, size_t cap, size_t *n,
                                struct kvg_err *err);

/* The bytes of one token (maybe part of a character), not NUL-terminated; control tokens give their
 * text. NULL and 0 for ids out of range. */
const char *kvg_tokenizer_piece(const struct kvg_tokenizer *t, int32_t id, size_t *n);
/* Appends the pieces of n ids; a SentencePiece vocabulary with a space prefix loses the one space
 * at the beginning. KVG_EUSAGE for an id out of range, KVG_ENOMEM. */
int kvg_tokenizer_decode(const struct kvg_tokenizer *t, const int32_t *ids, size_t n,
                         struct kvg_str *out, struct kvg_err *err);

/* SHA-256 over kind, pre-tokeniser, settings, tokens, types, scores and merges. */
const char *kvg_tokenizer_digest(const struct kvg_tokenizer *t);

#endif
