/* What gguf.c and gguf_meta.c share: a bounded reader over the mapped file. Nobody else includes
 * this. */
#ifndef KVG_MODEL_GGUF_IMPL_H
#define KVG_MODEL_GGUF_IMPL_H

#include "model/gguf.h"

/* Reads forward through the file. `kind` and `name` say what is being read, for messages:
 * "metadata key 'general.name'". The first failure is kept in *err, everything after it fails. */
struct kvg_gguf_reader {
    const struct kvg_gguf *g;
    size_t at;
    const char *kind;
    struct kvg_gguf_str name;
    struct kvg_err *err;
};

enum { KVG_GGUF_SHOWN = 64 }; /* bytes of a name shown in a message */

/* Moves over n bytes, or fails with KVG_EFORMAT; *p may be NULL. */
int kvg_gguf_take(struct kvg_gguf_reader *r, uint64_t n, const unsigned char **p);
int kvg_gguf_take_u32(struct kvg_gguf_reader *r, uint32_t *out);
int kvg_gguf_take_u64(struct kvg_gguf_reader *r, uint64_t *out);
int kvg_gguf_take_str(struct kvg_gguf_reader *r, struct kvg_gguf_str *out);
/* "broken model '/x.gguf': <field>: <what>"; returns KVG_EFORMAT. */
int kvg_gguf_broken(const struct kvg_gguf_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A printable form of a name taken from a file; buf holds KVG_GGUF_SHOWN + 4 bytes. */
const char *kvg_gguf_show(struct kvg_gguf_str s, char *buf);

/* Reads one key with its value at r. */
int kvg_gguf_read_kv(struct kvg_gguf_reader *r, struct kvg_gguf_kv *kv);

uint64_t kvg_gguf_le(const unsigned char *p, size_t n_bytes);

#endif
