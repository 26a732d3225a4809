/* Owns tiny random models of the llama architecture; must not know how kvgauge reads them. */
#include "base/rng.h"
#include "gen_gguf.h"

#include <math.h>
#include <stdio.h>

struct gen_llama gen_llama_default(void)
{
    return (struct gen_llama){.n_layers = 2,
                              .n_embd = 128,
                              .n_heads = 4,
                              .n_kv_heads = 2,
                              .d_head = 32,
                              .n_ff = 96,
                              .n_vocab = 288,
                              .n_ctx = 512,
                              .type = KVG_F32,
                              .tied = 1,
                              .seed = 1};
}

static float uniform(struct kvg_rng *r, float scale)
{
    return scale * (float)(2 * kvg_rng_unit(r) - 1);
}

static void put_f16(struct kvg_str *b, float v)
{
    uint16_t h = kvg_f32_to_f16(v);
    kvg_str_addn(b, (const char *)&h, sizeof h);
}

static void put_random_bytes(struct kvg_str *b, struct kvg_rng *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        kvg_str_addc(b, (char)kvg_rng_below(r, 256));
}

/* n random weights, uniform within +-scale, in the form of `type`. */
static void put_weights(struct kvg_str *b, struct kvg_rng *r, enum kvg_type type, size_t n,
                        float scale)
{
    if (type == KVG_F32) {
        for (size_t i = 0; i < n; i++) {
            float v = uniform(r, scale);
            kvg_str_addn(b, (const char *)&v, sizeof v);
        }
        return;
    }
    for (size_t i = 0; i < n; i += 32) {
        put_f16(b, type == KVG_Q8_0 ? scale / 127 : scale / 7.5f);
        if (type == KVG_Q4_1)
            put_f16(b, -scale);
        put_random_bytes(b, r, type == KVG_Q8_0 ? 32 : 16);
    }
}

static void matrix(struct kvg_gguf_writer *g, struct kvg_rng *r, const char *name, enum kvg_type type,
                   uint64_t n_cols, uint64_t n_rows)
{
    struct kvg_str b = {0};
    uint64_t dims[2] = {n_cols, n_rows};
    put_weights(&b, r, type, (size_t)(n_cols * n_rows), 1.7f / sqrtf((float)n_cols));
    kvg_gguf_put_tensor(g, name, type, 2, dims, b.s, b.len);
    kvg_str_release(&b);
}

static void norm(struct kvg_gguf_writer *g, struct kvg_rng *r, const char *name, uint64_t n)
{
    struct kvg_str b = {0};
    for (uint64_t i = 0; i < n; i++) {
        float v = 1 + uniform(r, 0.25f);
        kvg_str_addn(&b, (const char *)&v, sizeof v);
    }
    kvg_gguf_put_tensor(g, name, KVG_F32, 1, &n, b.s, b.len);
    kvg_str_release(&b);
}

static void layer(struct kvg_gguf_writer *g, struct kvg_rng *r, const struct gen_llama *c, uint32_t l)
{
    uint64_t q = (uint64_t)c->n_heads * c->d_head, kv = (uint64_t)c->n_kv_heads * c->d_head;
    const struct {
        const char *name;
        uint64_t n_cols, n_rows; /* n_rows 0 = a norm */
    } parts[] = {{"attn_norm", c->n_embd, 0},      {"attn_q", c->n_embd, q},
                 {"attn_k", c->n_embd, kv},        {"attn_v", c->n_embd, kv},
                 {"attn_output", q, c->n_embd},    {"ffn_norm", c->n_embd, 0},
                 {"ffn_gate", c->n_embd, c->n_ff}, {"ffn_up", c->n_embd, c->n_ff},
                 {"ffn_down", c->n_ff, c->n_embd}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", l, parts[i].name);
        if (parts[i].n_rows)
            matrix(g, r, name, c->type, parts[i].n_cols, parts[i].n_rows);
        else
            norm(g, r, name, parts[i].n_cols);
    }
}

int gen_llama_write(const struct gen_llama *c, const char *path)
{
    struct kvg_gguf_writer g;
    struct kvg_rng r = {c->seed};
    kvg_gguf_writer_init(&g);
    kvg_gguf_put_str(&g, "general.architecture", "llama");
    kvg_gguf_put_str(&g, "general.name", "tiny random llama");
    kvg_gguf_put_u32(&g, "llama.block_count", c->n_layers);
    kvg_gguf_put_u32(&g, "llama.context_length", c->n_ctx);
    kvg_gguf_put_u32(&g, "llama.embedding_length", c->n_embd);
    kvg_gguf_put_u32(&g, "llama.feed_forward_length", c->n_ff);
    kvg_gguf_put_u32(&g, "llama.attention.head_count", c->n_heads);
    kvg_gguf_put_u32(&g, "llama.attention.head_count_kv", c->n_kv_heads);
    kvg_gguf_put_u32(&g, "llama.attention.key_length", c->d_head);
    kvg_gguf_put_u32(&g, "llama.attention.value_length", c->d_head);
    kvg_gguf_put_u32(&g, "llama.rope.dimension_count", c->d_head);
    kvg_gguf_put_f32(&g, "llama.rope.freq_base", 10000.0f);
    kvg_gguf_put_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    kvg_gguf_put_u32(&g, "llama.vocab_size", c->n_vocab);
    kvg_gguf_put_byte_vocab(&g, c->n_vocab);
    matrix(&g, &r, "token_embd.weight", c->type, c->n_embd, c->n_vocab);
    for (uint32_t l = 0; l < c->n_layers; l++)
        layer(&g, &r, c, l);
    norm(&g, &r, "output_norm.weight", c->n_embd);
    if (!c->tied)
        matrix(&g, &r, "output.weight", c->type, c->n_embd, c->n_vocab);
    int rc = kvg_gguf_writer_save(&g, path, NULL);
    kvg_gguf_writer_release(&g);
    return rc;
}
