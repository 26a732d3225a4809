/* The catalogue of strategies as a Markdown page, made from the descriptors and, for the measured
 * line of each, from the summary.csv of a run. Must not know any strategy by name. */
#ifndef KVG_RUN_CATALOGUE_H
#define KVG_RUN_CATALOGUE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/text.h"

/* Appends the page. `measured`: a summary.csv, or NULL to leave the measured lines out. */
int kvg_catalogue_print(const char *measured, struct kvg_arena *a, struct kvg_str *out,
                        struct kvg_err *err);

#endif
