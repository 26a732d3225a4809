/* What the machine and the model are like: one line per finding. Must not know strategies. */
#ifndef KVG_RUN_DOCTOR_H
#define KVG_RUN_DOCTOR_H

#include "base/err.h"
#include "kernel/kernel.h"

#include <stdio.h>

struct kvg_doctor {
    FILE *out;
    const struct kvg_kernels *kernels;
    int n_threads;
    int n_warnings, n_broken;
};

/* CPU, kernels, BLAS, speed, clock, memory, gnuplot. */
int kvg_doctor_machine(struct kvg_doctor *d, struct kvg_err *err);
/* Opens the model and checks what a run needs of it. `path` NULL: none was found, for `why`. */
void kvg_doctor_model(struct kvg_doctor *d, const char *path, const char *why);

#endif
