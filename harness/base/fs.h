/* Files: read-only mapping, whole reads, atomic writes, folders. */
#ifndef KVG_BASE_FS_H
#define KVG_BASE_FS_H

#include "base/err.h"

#include <stddef.h>

/* A file mapped read-only; `data` is valid until kvg_fs_unmap. */
struct kvg_fs_map {
    const unsigned char *data;
    size_t size;
};
int kvg_fs_map(struct kvg_fs_map *m, const char *path, struct kvg_err *err);
void kvg_fs_unmap(struct kvg_fs_map *m);

/* Reads a whole file of at most max_bytes into malloc'ed memory with a NUL behind it (the caller
 * frees). KVG_EIO or KVG_ELIMIT. */
int kvg_fs_read(const char *path, size_t max_bytes, char **data, size_t *size, struct kvg_err *err);

/* Writes to a temporary name beside path, syncs and renames; a device or a pipe is written in
 * place. */
int kvg_fs_write_atomic(const char *path, const void *data, size_t n, struct kvg_err *err);

/* mkdir -p. */
int kvg_fs_mkdirs(const char *path, struct kvg_err *err);
int kvg_fs_exists(const char *path);
int kvg_fs_is_dir(const char *path);

#endif
