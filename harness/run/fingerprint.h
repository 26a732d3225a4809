/* The model file's SHA-256, remembered in the user's cache folder by path, size and time of change:
 * a second run need not read the whole file before it starts. */
#ifndef KVG_RUN_FINGERPRINT_H
#define KVG_RUN_FINGERPRINT_H

#include "base/err.h"
#include "base/hash.h"

/* KVG_EIO when the file cannot be read; a cache that cannot be read or written is no error. */
int kvg_fingerprint_file(const char *path, char hex[KVG_SHA256_HEX], struct kvg_err *err);

#endif
