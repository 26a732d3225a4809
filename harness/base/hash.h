/* Digests: SHA-256 (FIPS 180-4, through nettle) for identity, FNV-1a 64 for keys. */
#ifndef KVG_BASE_HASH_H
#define KVG_BASE_HASH_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { KVG_SHA256_HEX = 65 };

void kvg_hash_sha256_hex(const void *data, size_t n, char hex[KVG_SHA256_HEX]);
int kvg_hash_sha256_file(const char *path, char hex[KVG_SHA256_HEX], struct kvg_err *err);

#define KVG_FNV_INIT 14695981039346656037u
uint64_t kvg_hash_fnv(uint64_t h, const void *data, size_t n);
uint64_t kvg_hash_fnv_str(uint64_t h, const char *s); /* includes the NUL: fields do not run together */

#endif
