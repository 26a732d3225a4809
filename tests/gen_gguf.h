/* Opens GGUF files that a test makes up, and writes whole tiny models of the llama architecture
 * with random weights. */
#ifndef KVG_TESTS_GEN_GGUF_H
#define KVG_TESTS_GEN_GGUF_H

#include "kernel/kernel.h"
#include "model/gguf.h"
#include "model/gguf_write.h"

#include <stddef.h>
#include <stdint.h>

/* Writes a temporary file, opens it as `out` and unlinks it; 0 or -1 (with a message on stderr).
 * The caller closes `out`. */
int gen_gguf_open(const struct kvg_gguf_writer *g, struct kvg_gguf *out);

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
