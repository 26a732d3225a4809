/* Replays one item on several streams in lockstep and scores each step against given rows. */
#ifndef KVG_RUN_LOCKSTEP_H
#define KVG_RUN_LOCKSTEP_H

#include "run/replay.h"
#include "run/rig.h"

struct kvg_lockstep {
    struct kvg_slot **slots; /* [n], reset; results go to their records */
    size_t n;                /* <= max_streams of the rig */
    const struct kvg_replay *replay;
    const float *base; /* [replay->n_scored, n_embd] rows to compare with */
    float **saved;     /* [n] each NULL or [replay->n_scored, n_embd]: receives the stream's rows */
    int unseen;        /* 1: compression is due before each question */
    int maps_kept;     /* 1: what is kept after the last prompt is recorded */
};

int kvg_lockstep_run(struct kvg_rig *rig, struct kvg_lockstep *run, struct kvg_err *err);

#endif
