/* GGUF model files, versions 2 and 3, little endian, mapped read-only. Every count, length, offset,
 * type and alignment of the file is checked before it is used, so a damaged or hostile file ends
 * in one error that names the file and the field. Opening reads the header only; tensor data is
 * touched by whoever uses it. Format: the GGUF specification of the ggml project.
 *
 * All pointers handed out point into the mapping and live until kvg_gguf_close. Strings of the file
 * are not NUL-terminated. */
#ifndef KVG_MODEL_GGUF_H
#define KVG_MODEL_GGUF_H

#include "base/err.h"
#include "base/fs.h"
#include "kernel/kernel.h"

#include <stddef.h>
#include <stdint.h>

/* Types of metadata values, numbered as in the file. */
enum kvg_gguf_type {
    KVG_GGUF_U8,
    KVG_GGUF_I8,
    KVG_GGUF_U16,
    KVG_GGUF_I16,
    KVG_GGUF_U32,
    KVG_GGUF_I32,
    KVG_GGUF_F32,
    KVG_GGUF_BOOL,
    KVG_GGUF_STR,
    KVG_GGUF_ARRAY,
    KVG_GGUF_U64,
    KVG_GGUF_I64,
    KVG_GGUF_F64,
    KVG_GGUF_TYPE_N
};

enum { KVG_GGUF_MAX_DIMS = 4 };

struct kvg_gguf_str {
    const char *s;
    size_t n;
};

struct kvg_gguf_kv {
    struct kvg_gguf_str key;
    enum kvg_gguf_type type; /* of the value; of the elements for an array */
    int is_array;
    uint64_t n;                /* elements; 1 unless is_array */
    const unsigned char *data; /* strings: each behind its u64 length */
    size_t bytes;
};

struct kvg_gguf_tensor {
    struct kvg_gguf_str name;
    uint32_t type; /* enum kvg_type; other values are types kvgauge does not read */
    uint32_t n_dims;
    uint64_t dims[KVG_GGUF_MAX_DIMS]; /* fastest first, 1 behind n_dims: [n_cols, n_rows, 1, 1] */
    uint64_t offset;                  /* from the start of the data section */
    const unsigned char *data;        /* NULL when the type is not supported */
    size_t bytes;                     /* 0 when the type is not supported */
};

/* Name -> index, open addressing; private. */
struct kvg_gguf_index {
    uint32_t *slots;
    size_t n_slots, n;
};

struct kvg_gguf {
    struct kvg_fs_map map;
    char *path;
    uint32_t version, alignment;
    size_t data_at; /* offset of the data section in the file */
    struct kvg_gguf_kv *kv;
    struct kvg_gguf_tensor *tensors;
    size_t n_kv, n_tensors;
    struct kvg_gguf_index kv_index, tensor_index;
};

/* KVG_EIO, KVG_EFORMAT, KVG_EUNSUP (version, byte order) or KVG_ENOMEM; after an error there is
 * nothing to close, but closing is harmless. */
int kvg_gguf_open(struct kvg_gguf *g, const char *path, struct kvg_err *err);
void kvg_gguf_close(struct kvg_gguf *g);

/* NULL when missing. */
const struct kvg_gguf_kv *kvg_gguf_find(const struct kvg_gguf *g, const char *key);

/* One value. KVG_ENONE when the key is missing, KVG_EFORMAT when it has another type or does not
 * fit; *out is untouched then. u32 takes every integer type, f32 takes f64 too. */
int kvg_gguf_u32(const struct kvg_gguf *g, const char *key, uint32_t *out, struct kvg_err *err);
int kvg_gguf_f32(const struct kvg_gguf *g, const char *key, float *out, struct kvg_err *err);
int kvg_gguf_bool(const struct kvg_gguf *g, const char *key, int *out, struct kvg_err *err);
int kvg_gguf_str(const struct kvg_gguf *g, const char *key, struct kvg_gguf_str *out,
                 struct kvg_err *err);

/* An array of elements of `type`; codes as above. */
int kvg_gguf_array(const struct kvg_gguf *g, const char *key, enum kvg_gguf_type type,
                   const struct kvg_gguf_kv **out, struct kvg_err *err);
/* Element i < a->n of an f32 or i32 array (the file aligns nothing). */
float kvg_gguf_array_f32(const struct kvg_gguf_kv *a, size_t i);
int32_t kvg_gguf_array_i32(const struct kvg_gguf_kv *a, size_t i);
/* Walks a string array: *at starts at 0; call at most a->n times. */
struct kvg_gguf_str kvg_gguf_array_next_str(const struct kvg_gguf_kv *a, size_t *at);

/* The tensor, or NULL when there is none; its type may be unsupported. */
const struct kvg_gguf_tensor *kvg_gguf_find_tensor(const struct kvg_gguf *g, const char *name);
/* The tensor ready for use: KVG_EFORMAT when missing, KVG_EUNSUP when its type is not supported. */
int kvg_gguf_tensor(const struct kvg_gguf *g, const char *name, const struct kvg_gguf_tensor **out,
                    struct kvg_err *err);

#endif
