/* Files tests need: temporary ones, and real ones that may be absent (the test then skips). */
#ifndef KVG_TESTS_GEN_FILES_H
#define KVG_TESTS_GEN_FILES_H

#include <jansson.h>

enum { GEN_PATH_MAX = 4096 };

/* Makes an empty temporary file and writes its path; the caller unlinks it. 0 or -1. */
int gen_temp_file(char path[GEN_PATH_MAX]);
/* The SmolLM2 model: $KVGAUGE_MODEL when it names one, else the file in the user's cache folder
 * ($XDG_CACHE_HOME or ~/.cache, then kvgauge/). 0, or -1 when there is none. */
int gen_model_file(char path[GEN_PATH_MAX]);
/* A committed golden, path from the project's root; NULL (with a message) when it cannot be read.
 */
json_t *gen_json(const char *path);

#endif
