/* Owns the byte layout of GGUF files that are written; must not know what a model is. */
#include "model/gguf_write.h"

#include "base/fs.h"
#include "model/gguf.h"

#include <stdio.h>
#include <string.h>

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

void kvg_gguf_writer_init(struct kvg_gguf_writer *g)
{
    memset(g, 0, sizeof *g);
    g->version = 3;
    g->alignment = 32;
}

void kvg_gguf_writer_release(struct kvg_gguf_writer *g)
{
    kvg_str_release(&g->kv);
    kvg_str_release(&g->infos);
    kvg_str_release(&g->data);
}

static void begin(struct kvg_gguf_writer *g, const char *key, uint32_t type)
{
    put_str(&g->kv, key);
    put(&g->kv, type, 4);
    g->n_kv++;
}

static void begin_array(struct kvg_gguf_writer *g, const char *key, uint32_t type, size_t n)
{
    begin(g, key, KVG_GGUF_ARRAY);
    put(&g->kv, type, 4);
    put(&g->kv, n, 8);
}

void kvg_gguf_put_u32(struct kvg_gguf_writer *g, const char *key, uint32_t v)
{
    begin(g, key, KVG_GGUF_U32);
    put(&g->kv, v, 4);
}

void kvg_gguf_put_f32(struct kvg_gguf_writer *g, const char *key, float v)
{
    begin(g, key, KVG_GGUF_F32);
    put(&g->kv, f32_bits(v), 4);
}

void kvg_gguf_put_bool(struct kvg_gguf_writer *g, const char *key, int v)
{
    begin(g, key, KVG_GGUF_BOOL);
    put(&g->kv, v != 0, 1);
}

void kvg_gguf_put_str(struct kvg_gguf_writer *g, const char *key, const char *v)
{
    begin(g, key, KVG_GGUF_STR);
    put_str(&g->kv, v);
}

void kvg_gguf_put_strs(struct kvg_gguf_writer *g, const char *key, const char *const *v, size_t n)
{
    begin_array(g, key, KVG_GGUF_STR, n);
    for (size_t i = 0; i < n; i++)
        put_str(&g->kv, v[i]);
}

void kvg_gguf_put_f32s(struct kvg_gguf_writer *g, const char *key, const float *v, size_t n)
{
    begin_array(g, key, KVG_GGUF_F32, n);
    for (size_t i = 0; i < n; i++)
        put(&g->kv, f32_bits(v[i]), 4);
}

void kvg_gguf_put_i32s(struct kvg_gguf_writer *g, const char *key, const int32_t *v, size_t n)
{
    begin_array(g, key, KVG_GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        put(&g->kv, (uint32_t)v[i], 4);
}

void kvg_gguf_put_raw(struct kvg_gguf_writer *g, const char *key, uint32_t type, const void *bytes,
                      size_t n)
{
    begin(g, key, type);
    kvg_str_addn(&g->kv, bytes, n);
}

/* Zeros up to the next multiple of the alignment, counted from byte `from`. */
static void pad(struct kvg_str *b, size_t from, size_t alignment)
{
    while ((b->len - from) % alignment && !b->failed)
        kvg_str_addc(b, 0);
}

void kvg_gguf_put_tensor(struct kvg_gguf_writer *g, const char *name, uint32_t type,
                         uint32_t n_dims, const uint64_t *dims, const void *data, size_t n_bytes)
{
    put_str(&g->infos, name);
    put(&g->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put(&g->infos, dims[i], 8);
    put(&g->infos, type, 4);
    put(&g->infos, g->data.len, 8);
    kvg_str_addn(&g->data, data, n_bytes);
    pad(&g->data, 0, g->alignment);
    g->n_tensors++;
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

void kvg_gguf_put_byte_vocab(struct kvg_gguf_writer *g, size_t n_vocab)
{
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    kvg_gguf_put_str(g, "tokenizer.ggml.model", "gpt2");
    kvg_gguf_put_str(g, "tokenizer.ggml.pre", "smollm");
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
    kvg_gguf_put_strs(g, "tokenizer.ggml.merges", NULL, 0);
    kvg_gguf_put_u32(g, "tokenizer.ggml.bos_token_id", 257);
    kvg_gguf_put_u32(g, "tokenizer.ggml.eos_token_id", 258);
    kvg_gguf_put_str(
        g, "tokenizer.chat_template",
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
        "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\\n' }}{% endif %}");
}

void kvg_gguf_writer_finish(const struct kvg_gguf_writer *g, struct kvg_str *out)
{
    size_t from = out->len;
    kvg_str_add(out, "GGUF");
    put(out, g->version, 4);
    put(out, g->n_tensors, 8);
    put(out, g->n_kv, 8);
    kvg_str_addn(out, g->kv.s, g->kv.len);
    kvg_str_addn(out, g->infos.s, g->infos.len);
    if (g->n_tensors)
        pad(out, from, g->alignment);
    kvg_str_addn(out, g->data.s, g->data.len);
    out->failed |= g->kv.failed | g->infos.failed | g->data.failed;
}

int kvg_gguf_writer_save(const struct kvg_gguf_writer *g, const char *path, struct kvg_err *err)
{
    struct kvg_str file = {0};
    kvg_gguf_writer_finish(g, &file);
    int rc = file.failed ? KVG_FAIL(err, KVG_ENOMEM, "out of memory for '%s'", path)
                         : kvg_fs_write_atomic(path, file.s, file.len, err);
    kvg_str_release(&file);
    return rc;
}
