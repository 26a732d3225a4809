/* Owns the naming and finding of run folders. Must not know what is in them but STATUS. */
#include "run/folder.h"

#include "base/fs.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Ends the name in "-<8 hex of the identity>", and is it unfinished? */
static int fits(const char *parent, const char *name, const char *suffix, struct kvg_arena *a)
{
    size_t n = strlen(name), k = strlen(suffix);
    enum kvg_status status;
    if (n <= k || strcmp(name + n - k, suffix))
        return 0;
    const char *dir = kvg_arena_printf(a, "%s/%s", parent, name);
    return dir && !kvg_status_read(dir, &status, NULL) && status != KVG_STATUS_COMPLETE;
}

/* The newest unfinished folder: names begin with the time, so the largest one. NULL = none. */
static const char *find_unfinished(const char *parent, const char *suffix, struct kvg_arena *a)
{
    const char *best = NULL;
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));)
        if (fits(parent, e->d_name, suffix, a) && (!best || strcmp(e->d_name, best) > 0))
            best = kvg_arena_strdup(a, e->d_name);
    if (d)
        closedir(d);
    return best;
}

/* Two runs of the same second must not share a folder: the later one waits. */
static int make_new(const char *root, const struct kvg_manifest *m, struct kvg_arena *a,
                    const char **dir, const char **id, struct kvg_err *err)
{
    char name[KVG_RUN_ID_CAP];
    do {
        if (*dir)
            usleep(100000);
        int rc = kvg_manifest_run_id(m, (int64_t)time(NULL), name, err);
        if (rc)
            return rc;
        *id = kvg_arena_strdup(a, name);
        *dir = *id ? kvg_manifest_run_dir(root, m, *id, a) : NULL;
        if (!*dir)
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the run's folder");
    } while (kvg_fs_exists(*dir));
    return kvg_fs_mkdirs(*dir, err);
}

int kvg_folder_open(const char *root, const struct kvg_manifest *m, int resume, struct kvg_arena *a,
                    const char **dir, const char **id, int *is_resumed, struct kvg_err *err)
{
    char hex[65], suffix[16];
    *dir = *id = NULL;
    *is_resumed = 0;
    int rc = kvg_manifest_identity_hash(m, hex, err);
    if (rc)
        return rc;
    snprintf(suffix, sizeof suffix, "-%.8s", hex);
    const char *parent = kvg_manifest_run_dir(root, m, ".", a);
    if (!parent)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the run's folder");
    *id = resume ? find_unfinished(parent, suffix, a) : NULL;
    if (!*id)
        return make_new(root, m, a, dir, id, err);
    *is_resumed = 1;
    *dir = kvg_manifest_run_dir(root, m, *id, a);
    return *dir ? KVG_OK : KVG_FAIL(err, KVG_ENOMEM, "out of memory for the run's folder");
}
