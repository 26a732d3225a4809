/* Calibration of non-uniform quantisation (cache/nuq.h): runs an exact cache over items of a
 * workload and finds ranges of keys before rotation, by layer, KV head and channel, and levels by
 * layer for keys and values. The items should be others than those that are measured later. */
#ifndef KVG_RUN_CALIBRATE_H
#define KVG_RUN_CALIBRATE_H

#include "base/err.h"
#include "base/opt.h"
#include "base/pool.h"
#include "base/text.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "run/progress.h"

#include <stddef.h>

enum { KVG_CALIBRATE_TOKENS_LEAST = 32 };

struct kvg_calibrate_cfg {
    const struct kvg_model *model;
    const char *model_sha256;
    const struct kvg_kernels *kernels;
    struct kvg_pool *pool;
    const char *workload;     /* pack or path */
    struct kvg_strlist items; /* ids; n 0 = all, until there are enough tokens */
    size_t max_tokens;        /* that are looked at */
    double outliers;          /* share of values left outside of the ranges */
};

/* Appends the calibration file. The same settings give the same bytes on any number of threads.
 * KVG_EUSAGE for unknown items or too few tokens. progress may be NULL. */
int kvg_calibrate_run(const struct kvg_calibrate_cfg *cfg, struct kvg_progress *pr,
                      struct kvg_str *out, struct kvg_err *err);

#endif
