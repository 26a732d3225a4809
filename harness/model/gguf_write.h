/* Writes GGUF files, version 3: any metadata, any tensors. It checks nothing: what it is told to
 * write it writes, so tests can make damaged files with it. */
#ifndef KVG_MODEL_GGUF_WRITE_H
#define KVG_MODEL_GGUF_WRITE_H

#include "base/err.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_gguf_writer {
    struct kvg_str kv, infos, data;
    uint64_t n_kv, n_tensors;
    uint32_t version, alignment; /* 3 and 32 after init; other alignments must be declared too */
};

void kvg_gguf_writer_init(struct kvg_gguf_writer *g);
void kvg_gguf_writer_release(struct kvg_gguf_writer *g);

void kvg_gguf_put_u32(struct kvg_gguf_writer *g, const char *key, uint32_t v);
void kvg_gguf_put_f32(struct kvg_gguf_writer *g, const char *key, float v);
void kvg_gguf_put_bool(struct kvg_gguf_writer *g, const char *key, int v);
void kvg_gguf_put_str(struct kvg_gguf_writer *g, const char *key, const char *v);
void kvg_gguf_put_strs(struct kvg_gguf_writer *g, const char *key, const char *const *v, size_t n);
void kvg_gguf_put_f32s(struct kvg_gguf_writer *g, const char *key, const float *v, size_t n);
void kvg_gguf_put_i32s(struct kvg_gguf_writer *g, const char *key, const int32_t *v, size_t n);
/* Any value: `bytes` as they stand in the file. */
void kvg_gguf_put_raw(struct kvg_gguf_writer *g, const char *key, uint32_t type, const void *bytes,
                      size_t n);

/* Data as it stands in the file; padded to the alignment. dims fastest first. */
void kvg_gguf_put_tensor(struct kvg_gguf_writer *g, const char *name, uint32_t type,
                         uint32_t n_dims, const uint64_t *dims, const void *data, size_t n_bytes);

/* A vocabulary of all 256 bytes (ids 0..255 = the bytes), <|endoftext|> 256, <|im_start|> 257,
 * <|im_end|> 258 = eos, padded with unused tokens to n_vocab >= 259; no merges; ChatML. */
void kvg_gguf_put_byte_vocab(struct kvg_gguf_writer *g, size_t n_vocab);

/* The whole file, appended to out; out->failed when memory ran out on the way. */
void kvg_gguf_writer_finish(const struct kvg_gguf_writer *g, struct kvg_str *out);
/* The whole file at path. KVG_EIO, KVG_ENOMEM. */
int kvg_gguf_writer_save(const struct kvg_gguf_writer *g, const char *path, struct kvg_err *err);

#endif
