/* Owns finding the files of tests; must not know what is in them. */
#include "gen_files.h"

#include "base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int gen_temp_file(char path[GEN_PATH_MAX])
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, GEN_PATH_MAX, "%s/kvgauge-test-XXXXXX", dir && *dir ? dir : "/tmp");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

int gen_model_file(char path[GEN_PATH_MAX])
{
    static const char name[] = "kvgauge/SmolLM2-135M-Instruct.Q4_1.gguf";
    const char *model = getenv("KVGAUGE_MODEL"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (model && *model)
        snprintf(path, GEN_PATH_MAX, "%s", model);
    else if (cache && *cache)
        snprintf(path, GEN_PATH_MAX, "%s/%s", cache, name);
    else
        snprintf(path, GEN_PATH_MAX, "%s/.cache/%s", home ? home : "", name);
    const char *base = strrchr(path, '/');
    /* Goldens belong to this model; another one named by the user is not it. */
    if (!strstr(base ? base : path, "SmolLM2-135M-Instruct"))
        return -1;
    return kvg_fs_exists(path) ? 0 : -1;
}

json_t *gen_json(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (!j)
        fprintf(stderr, "%s:%d: %s\n", path, e.line, e.text);
    return j;
}
