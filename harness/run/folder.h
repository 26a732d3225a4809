/* The folder of a run: a new one, or the unfinished one that is to be continued. */
#ifndef KVG_RUN_FOLDER_H
#define KVG_RUN_FOLDER_H

#include "base/arena.h"
#include "result/manifest.h"

/* Makes <root>/<suite>/<run id>, or with `resume` finds the newest unfinished folder of the same
 * identity there (a new one when there is none). *dir and *id live in the arena. KVG_EIO. */
int kvg_folder_open(const char *root, const struct kvg_manifest *m, int resume, struct kvg_arena *a,
                    const char **dir, const char **id, int *is_resumed, struct kvg_err *err);

#endif
