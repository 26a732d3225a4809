/* Owns the cache of model hashes: sha256.tsv, one line a file: hash, size, time of change, path. */
#include "run/fingerprint.h"

#include "base/arena.h"
#include "base/fs.h"
#include "base/text.h"
#include "run/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CACHE_MAX_BYTES = 1 << 20, CACHE_MAX_LINES = 64 };

/* What a line must have behind the hash: size, time, path. */
static int make_key(const char *path, struct kvg_str *key, struct kvg_err *err)
{
    struct stat st;
    char *real = realpath(path, NULL);
    if (!real || stat(real, &st)) {
        free(real);
        return KVG_FAIL(err, KVG_EIO, "cannot read '%s': %s", path, strerror(errno));
    }
    kvg_str_addf(key, "\t%lld\t%lld.%09ld\t%s\n", (long long)st.st_size,
                 (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, real);
    free(real);
    return key->failed ? KVG_FAIL(err, KVG_ENOMEM, "out of memory") : KVG_OK;
}

static int find(const char *cache, const char *key, char hex[KVG_SHA256_HEX])
{
    size_t n = strlen(key);
    for (const char *line = cache; line && *line;) {
        const char *end = strchr(line, '\n');
        if (end && (size_t)(end + 1 - line) == n + KVG_SHA256_HEX - 1 &&
            !memcmp(line + KVG_SHA256_HEX - 1, key, n)) {
            memcpy(hex, line, KVG_SHA256_HEX - 1);
            hex[KVG_SHA256_HEX - 1] = 0;
            return strspn(hex, "0123456789abcdef") == KVG_SHA256_HEX - 1;
        }
        line = end ? end + 1 : NULL;
    }
    return 0;
}

/* The new line goes first, the oldest ones fall off. */
static void remember(const char *file, const char *cache, const char *key, const char *hex)
{
    struct kvg_str out = {0};
    size_t lines = 0, n = 0;
    kvg_str_addf(&out, "%s%s", hex, key);
    for (; cache && cache[n]; n++)
        if (cache[n] == '\n' && ++lines == CACHE_MAX_LINES - 1)
            break;
    if (cache)
        kvg_str_addn(&out, cache, n + (cache[n] == '\n'));
    if (!out.failed)
        kvg_fs_write_atomic(file, out.s, out.len, NULL);
    kvg_str_release(&out);
}

int kvg_fingerprint_file(const char *path, char hex[KVG_SHA256_HEX], struct kvg_err *err)
{
    struct kvg_str key = {0};
    struct kvg_arena a;
    char *cache = NULL;
    size_t n;
    kvg_arena_init(&a);
    const char *folder = kvg_models_folder(&a);
    const char *file = folder ? kvg_arena_printf(&a, "%s/sha256.tsv", folder) : NULL;
    int rc = make_key(path, &key, err);
    if (rc)
        goto out;
    if (file && kvg_fs_read(file, CACHE_MAX_BYTES, &cache, &n, NULL))
        cache = NULL;
    if (cache && find(cache, key.s, hex))
        goto out;
    rc = kvg_hash_sha256_file(path, hex, err);
    if (!rc && file && !kvg_fs_mkdirs(folder, NULL))
        remember(file, cache, key.s, hex);
out:
    free(cache);
    kvg_str_release(&key);
    kvg_arena_release(&a);
    return rc;
}
