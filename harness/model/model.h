/* A model's weights and constants, read-only after opening; the weights stay mapped from the file.
 * Keys and queries are half-split inside: the rows of attn_q and attn_k are un-permuted here. */
#ifndef KVG_MODEL_MODEL_H
#define KVG_MODEL_MODEL_H

#include "base/err.h"
#include "kernel/kernel.h"
#include "model/gguf.h"
#include "model/template.h"
#include "model/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_mat { /* [rows, cols], rows of row_bytes */
    enum kvg_type type;
    size_t rows, cols, row_bytes;
    const unsigned char *data;
};

struct kvg_layer {
    struct kvg_mat q, k, v, o, gate, up, down;
    const float *attn_norm, *ffn_norm; /* [n_embd] */
};

struct kvg_model {
    struct kvg_gguf gguf;
    char *path;
    char name[96];      /* general.name or the file's stem */
    size_t n_layers, n_embd, n_heads, n_kv_heads, d_head, n_ff, n_vocab, n_ctx;
    float rms_eps, rope_base;
    struct kvg_layer *layers;
    struct kvg_mat embd, output;
    const float *output_norm;
    float *rope_cos, *rope_sin; /* [n_ctx, d_head/2] */
    float *owned;               /* f32 norms of models that store them otherwise; NULL else */
    unsigned char *qk;          /* un-permuted rows of attn_q and attn_k */
    struct kvg_tokenizer *tok;
    size_t n_params, weight_bytes; /* bytes a decode step must read: all matrices once */
    char type_name[24];            /* type of most weights, e.g. "q4_1" */
};

/* KVG_MODEL_HEADER reads and checks the header only (dims, tokenizer), for plans. */
enum kvg_model_mode { KVG_MODEL_HEADER, KVG_MODEL_FULL };
int kvg_model_open(struct kvg_model **m, const char *path, enum kvg_model_mode mode,
                   struct kvg_err *err);
void kvg_model_close(struct kvg_model *m);

#endif
