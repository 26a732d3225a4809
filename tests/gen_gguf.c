/* Owns opening GGUF files that a test makes up; must not know what is in them. */
#include "gen_gguf.h"

#include "gen_files.h"

#include <stdio.h>
#include <unistd.h>

int gen_gguf_open(const struct kvg_gguf_writer *g, struct kvg_gguf *out)
{
    char path[GEN_PATH_MAX];
    struct kvg_err err = {0};
    if (gen_temp_file(path))
        return -1;
    int rc = kvg_gguf_writer_save(g, path, &err);
    if (!rc)
        rc = kvg_gguf_open(out, path, &err);
    if (rc)
        fprintf(stderr, "%s\n", err.msg);
    unlink(path);
    return rc ? -1 : 0;
}
