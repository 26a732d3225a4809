/* Calibration tables for tests: made up for a model, not measured. */
#ifndef KVG_TESTS_GEN_NUQ_H
#define KVG_TESTS_GEN_NUQ_H

#include "cache/nuq.h"
#include "model/model.h"

/* Ranges that differ by channel around [-2, 2], levels denser in the middle, in `a`. */
void gen_nuq(struct kvg_nuq *q, const struct kvg_model *m, double outliers, struct kvg_arena *a);
/* The same with 1 % outliers as a file at path. */
void gen_nuq_file(const char *path, const struct kvg_model *m);

#endif
