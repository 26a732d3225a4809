/* Owns writing GGUF files for tests; must not know how kvgauge reads them. */
#include "gen_gguf.h"

#include "base/fs.h"
#include "gen_files.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void put(struct kvg_str *b, uint64_t v, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        kvg_str_addc(b, (char)(v >> (8 * i)));
}

static void put_str(struct kvg_str *b, const char *s)
{
    put(b, strlen(s), 8);
    kvg_str_add(b, s);
}

static uint32_t f32_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

void gen_gguf_init(struct gen_gguf *g)
{
    memset(g, 0, sizeof *g);
    g->version = 3;
    g->alignment = 32;
}

void gen_gguf_release(struct gen_gguf *g)
{
    kvg_str_release(&g->kv);
    kvg_str_release(&g->infos);
    kvg_str_release(&g->data);
}

static void begin(struct gen_gguf *g, const char *key, uint32_t type)
{
    put_str(&g->kv, key);
    put(&g->kv, type, 4);
    g->n_kv++;
}

static void begin_array(struct gen_gguf *g, const char *key, uint32_t type, size_t n)
{
    begin(g, key, KVG_GGUF_ARRAY);
    put(&g->kv, type, 4);
    put(&g->kv, n, 8);
}

void gen_gguf_u32(struct gen_gguf *g, const char *key, uint32_t v)
{
    begin(g, key, KVG_GGUF_U32);
    put(&g->kv, v, 4);
}

void gen_gguf_f32(struct gen_gguf *g, const char *key, float v)
{
    begin(g, key, KVG_GGUF_F32);
    put(&g->kv, f32_bits(v), 4);
}

void gen_gguf_bool(struct gen_gguf *g, const char *key, int v)
{
    begin(g, key, KVG_GGUF_BOOL);
    put(&g->kv, v != 0, 1);
}

void gen_gguf_str(struct gen_gguf *g, const char *key, const char *v)
{
    begin(g, key, KVG_GGUF_STR);
    put_str(&g->kv, v);
}

void gen_gguf_strs(struct gen_gguf *g, const char *key, const char *const *v, size_t n)
{
    begin_array(g, key, KVG_GGUF_STR, n);
    for (size_t i = 0; i < n; i++)
        put_str(&g->kv, v[i]);
}

void gen_gguf_f32s(struct gen_gguf *g, const char *key, const float *v, size_t n)
{
    begin_array(g, key, KVG_GGUF_F32, n);
    for (size_t i = 0; i < n; i++)
        put(&g->kv, f32_bits(v[i]), 4);
}

void gen_gguf_i32s(struct gen_gguf *g, const char *key, const int32_t *v, size_t n)
{
    begin_array(g, key, KVG_GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        put(&g->kv, (uint32_t)v[i], 4);
}

void gen_gguf_raw(struct gen_gguf *g, const char *key, uint32_t type, const void *bytes, size_t n)
{
    begin(g, key, type);
    kvg_str_addn(&g->kv, bytes, n);
}

static void pad(struct kvg_str *b, size_t alignment)
{
    while (b->len % alignment)
        kvg_str_addc(b, 0);
}

void gen_gguf_tensor(struct gen_gguf *g, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *dims, const void *data, size_t n_bytes)
{
    put_str(&g->infos, name);
    put(&g->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put(&g->infos, dims[i], 8);
    put(&g->infos, type, 4);
    put(&g->infos, g->data.len, 8);
    kvg_str_addn(&g->data, data, n_bytes);
    pad(&g->data, g->alignment);
    g->n_tensors++;
}

void gen_gguf_finish(const struct gen_gguf *g, struct kvg_str *out)
{
    struct kvg_str file = {0};
    kvg_str_add(&file, "GGUF");
    put(&file, g->version, 4);
    put(&file, g->n_tensors, 8);
    put(&file, g->n_kv, 8);
    kvg_str_addn(&file, g->kv.s, g->kv.len);
    kvg_str_addn(&file, g->infos.s, g->infos.len);
    if (g->n_tensors)
        pad(&file, g->alignment);
    kvg_str_addn(&file, g->data.s, g->data.len);
    kvg_str_addn(out, file.s, file.len);
    kvg_str_release(&file);
}

int gen_gguf_write(const struct gen_gguf *g, const char *path)
{
    struct kvg_str file = {0};
    gen_gguf_finish(g, &file);
    int rc = file.failed || kvg_fs_write_atomic(path, file.s, file.len, NULL) ? -1 : 0;
    kvg_str_release(&file);
    return rc;
}

int gen_gguf_open(const struct gen_gguf *g, struct kvg_gguf *out)
{
    char path[GEN_PATH_MAX];
    struct kvg_err err = {0};
    if (gen_temp_file(path))
        return -1;
    int rc = gen_gguf_write(g, path) || kvg_gguf_open(out, path, &err) ? -1 : 0;
    if (rc)
        fprintf(stderr, "%s\n", err.msg);
    unlink(path);
    return rc;
}

/* Byte-level BPE writes bytes that do not print as U+0100, U+0101, ... in their order. */
static uint32_t letter_of(unsigned byte)
{
    uint32_t next = 256;
    for (unsigned b = 0; b < 256; b++) {
        int prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte)
            return prints ? b : next;
        next += !prints;
    }
    return 0;
}

void gen_gguf_byte_vocab(struct gen_gguf *g, size_t n_vocab)
{
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    gen_gguf_str(g, "tokenizer.ggml.model", "gpt2");
    gen_gguf_str(g, "tokenizer.ggml.pre", "smollm");
    begin_array(g, "tokenizer.ggml.tokens", KVG_GGUF_STR, n_vocab);
    for (size_t i = 0; i < n_vocab; i++) {
        char text[32] = {0};
        if (i < 256)
            kvg_text_utf8_encode(letter_of((unsigned)i), text);
        else if (i < 259)
            snprintf(text, sizeof text, "%s", control[i - 256]);
        else
            snprintf(text, sizeof text, "<unused%zu>", i);
        put_str(&g->kv, text);
    }
    begin_array(g, "tokenizer.ggml.token_type", KVG_GGUF_I32, n_vocab);
    for (size_t i = 0; i < n_vocab; i++)
        put(&g->kv, i < 256 ? 1 : i < 259 ? 3 : 5, 4);
    gen_gguf_strs(g, "tokenizer.ggml.merges", NULL, 0);
    gen_gguf_u32(g, "tokenizer.ggml.bos_token_id", 257);
    gen_gguf_u32(g, "tokenizer.ggml.eos_token_id", 258);
    gen_gguf_str(g, "tokenizer.chat_template",
                 "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
                 "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
                 "{{ '<|im_start|>assistant\\n' }}{% endif %}");
}
