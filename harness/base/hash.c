/* Owns digests; must not know what they identify. */
#include "base/hash.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>

static void to_hex(const uint8_t *d, char hex[KVG_SHA256_HEX])
{
    for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++)
        snprintf(hex + 2 * i, 3, "%02x", d[i]);
}

void kvg_hash_sha256_hex(const void *data, size_t n, char hex[KVG_SHA256_HEX])
{
    struct sha256_ctx c;
    uint8_t d[SHA256_DIGEST_SIZE];
    sha256_init(&c);
    sha256_update(&c, n, data);
    sha256_digest(&c, sizeof d, d);
    to_hex(d, hex);
}

int kvg_hash_sha256_file(const char *path, char hex[KVG_SHA256_HEX], struct kvg_err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return KVG_FAIL(err, KVG_EIO, "cannot read '%s': %s", path, strerror(errno));
    struct sha256_ctx c;
    uint8_t buf[1 << 16], d[SHA256_DIGEST_SIZE];
    size_t n;
    sha256_init(&c);
    while ((n = fread(buf, 1, sizeof buf, f)) > 0)
        sha256_update(&c, n, buf);
    int bad = ferror(f);
    fclose(f);
    if (bad)
        return KVG_FAIL(err, KVG_EIO, "reading '%s' failed", path);
    sha256_digest(&c, sizeof d, d);
    to_hex(d, hex);
    return 0;
}

uint64_t kvg_hash_fnv(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

uint64_t kvg_hash_fnv_str(uint64_t h, const char *s)
{
    return kvg_hash_fnv(h, s, strlen(s) + 1);
}
