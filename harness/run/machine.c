/* Owns finding the model file, the kernel level and the threads. Must not know what they are for.
 */
#include "base/fs.h"
#include "kernel/probe.h"
#include "run/cli.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int kvg_machine_kernels(const struct kvg_kernels **kernels, int level, struct kvg_err *err)
{
    static const char *const names[] = {"auto", "ref", "avx2", "avx512"};
    *kernels = kvg_kernels_get(names[level]);
    if (*kernels)
        return 0;
    char known[128] = "";
    for (const char *const *l = kvg_kernels_levels(); *l; l++) {
        strncat(known, known[0] ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, *l, sizeof known - strlen(known) - 1);
    }
    return KVG_FAIL(err, KVG_EUSAGE, "this CPU or build cannot run the level '%s'; it has %s",
                    names[level], known);
}

int kvg_machine_cpus(void)
{
    struct kvg_host host;
    kvg_host_probe(&host);
    return host.n_cpus > 0 ? host.n_cpus : 1;
}

int kvg_machine_open(struct kvg_pool **pool, const struct kvg_kernels **kernels, int64_t n_threads,
                     int level, struct kvg_err *err)
{
    int rc = kvg_machine_kernels(kernels, level, err);
    if (rc)
        return rc;
    if (n_threads == 0)
        n_threads = kvg_machine_cpus();
    return kvg_pool_open(pool, (int)n_threads, err);
}

const char *kvg_models_folder(struct kvg_arena *a)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache)
        return kvg_arena_printf(a, "%s/kvgauge", cache);
    return home && *home ? kvg_arena_printf(a, "%s/.cache/kvgauge", home) : NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int kvg_models_list(struct kvg_strlist *out, struct kvg_arena *a, struct kvg_err *err)
{
    *out = (struct kvg_strlist){0};
    const char *folder = kvg_models_folder(a);
    DIR *dir = folder ? opendir(folder) : NULL;
    if (!dir && folder && errno != ENOENT)
        return KVG_FAIL(err, KVG_EIO, "cannot read the folder '%s': %s", folder, strerror(errno));
    size_t cap = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        if (len < 6 || strcmp(e->d_name + len - 5, ".gguf") || e->d_name[0] == '.')
            continue;
        if (out->n == cap) {
            cap = cap ? 2 * cap : 16;
            const char **v = kvg_arena_array(a, cap, sizeof *v);
            if (v && out->n)
                memcpy(v, out->v, out->n * sizeof *v);
            out->v = v;
        }
        const char *path = kvg_arena_printf(a, "%s/%s", folder, e->d_name);
        if (!out->v || !path) {
            closedir(dir);
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
        }
        out->v[out->n++] = path;
    }
    if (dir)
        closedir(dir);
    if (out->n)
        qsort(out->v, out->n, sizeof *out->v, by_name);
    return 0;
}

int kvg_model_find(const char **path, const char *given, struct kvg_arena *a, struct kvg_err *err)
{
    const char *env = getenv("KVGAUGE_MODEL");
    const char *named = given ? given : env && *env ? env : NULL;
    struct kvg_strlist have;
    if (named) {
        *path = named;
        if (kvg_fs_exists(named))
            return 0;
        return KVG_FAIL(err, KVG_EUSAGE, "no model file '%s'%s", named,
                        given ? "" : " (from KVGAUGE_MODEL)");
    }
    int rc = kvg_models_list(&have, a, err);
    if (rc)
        return rc;
    const char *folder = kvg_models_folder(a);
    if (have.n == 0)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "no model: give -m FILE.gguf, set KVGAUGE_MODEL, or let ./run.sh put one "
                        "into '%s'",
                        folder ? folder : "~/.cache/kvgauge");
    if (have.n > 1)
        return KVG_FAIL(err, KVG_EUSAGE, "%zu models in '%s': choose one with -m", have.n, folder);
    *path = have.v[0];
    return 0;
}
