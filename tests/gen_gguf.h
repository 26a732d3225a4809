/* Writes GGUF files for tests: any metadata, any tensors, damaged ones too, and whole tiny models
 * of the llama architecture with random weights. */
#ifndef KVG_TESTS_GEN_GGUF_H
#define KVG_TESTS_GEN_GGUF_H

#include "base/text.h"
#include "kernel/kernel.h"
#include "model/gguf.h"

#include <stddef.h>
#include <stdint.h>

struct gen_gguf {
    struct kvg_str kv, infos, data;
    uint64_t n_kv, n_tensors;
    uint32_t version, alignment; /* 3 and 32 after init; other alignments must be declared too */
};

void gen_gguf_init(struct gen_gguf *g);
void gen_gguf_release(struct gen_gguf *g);

void gen_gguf_u32(struct gen_gguf *g, const char *key, uint32_t v);
void gen_gguf_f32(struct gen_gguf *g, const char *key, float v);
void gen_gguf_bool(struct gen_gguf *g, const char *key, int v);
void gen_gguf_str(struct gen_gguf *g, const char *key, const char *v);
void gen_gguf_strs(struct gen_gguf *g, const char *key, const char *const *v, size_t n);
void gen_gguf_f32s(struct gen_gguf *g, const char *key, const float *v, size_t n);
void gen_gguf_i32s(struct gen_gguf *g, const char *key, const int32_t *v, size_t n);
/* Any value: `bytes` as they stand in the file. */
void gen_gguf_raw(struct gen_gguf *g, const char *key, uint32_t type, const void *bytes, size_t n);

/* Data as it stands in the file; padded to the alignment. dims fastest first. */
void gen_gguf_tensor(struct gen_gguf *g, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *dims, const void *data, size_t n_bytes);

/* The whole file, appended to out. */
void gen_gguf_finish(const struct gen_gguf *g, struct kvg_str *out);
/* The whole file at path; 0 or -1. */
int gen_gguf_write(const struct gen_gguf *g, const char *path);

/* Writes a temporary file, opens it as `out` and unlinks it; 0 or -1 (with a message on stderr).
 * The caller closes `out`. */
int gen_gguf_open(const struct gen_gguf *g, struct kvg_gguf *out);

/* A vocabulary of all 256 bytes (ids 0..255 = the bytes), <|endoftext|> 256, <|im_start|> 257,
 * <|im_end|> 258 = eos, padded with unused tokens to n_vocab >= 259; no merges; ChatML. */
void gen_gguf_byte_vocab(struct gen_gguf *g, size_t n_vocab);

struct gen_llama {
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, d_head, n_ff, n_vocab, n_ctx;
    enum kvg_type type; /* of the matrices: f32, q8_0 or q4_1; norms are f32 */
    int tied;           /* no output.weight */
    uint64_t seed;
};
/* 2 layers, 128 wide, 4 heads of 32 over 2 KV heads, feed-forward 96, 288 tokens, context 512, f32.
 */
struct gen_llama gen_llama_default(void);
/* A whole model with the byte vocabulary at path; 0 or -1. */
int gen_llama_write(const struct gen_llama *cfg, const char *path);

#endif
