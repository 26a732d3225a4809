/* Carries out a plan: opens the engine, runs the groups of cells in order and writes the run folder
 * (manifest, suite.resolved.yaml, STATUS, CSV files). Summary, plots and report are made by the
 * caller from the files. */
#ifndef KVG_RUN_EXECUTE_H
#define KVG_RUN_EXECUTE_H

#include "base/err.h"
#include "base/pool.h"
#include "kernel/kernel.h"
#include "run/progress.h"
#include "run/runplan.h"

enum { KVG_RUN_DIR_CAP = 1024 };

struct kvg_run_options {
    const char *out;     /* results root, e.g. "results" */
    int resume;          /* continue the newest unfinished folder of this identity */
    const char *command; /* what the user typed, for the manifest */
    struct kvg_pool *pool;
    const struct kvg_kernels *kernels;
};

/* run_dir is filled as soon as the folder exists (else ""). KVG_EINTR after a signal (STATUS
 * interrupted, everything finished is flushed), KVG_ENONE when nothing was measured, KVG_EIO. */
int kvg_run_execute(struct kvg_runplan *plan, const struct kvg_run_options *opt,
                    struct kvg_progress *pr, char run_dir[KVG_RUN_DIR_CAP], struct kvg_err *err);

#endif
