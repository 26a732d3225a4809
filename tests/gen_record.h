/* What a stream's store held when the choice was made, and what stayed of it, for tests of
 * strategies. One record at a time; the model is a tiny one. Everything that goes wrong here ends
 * the test program with a message or fails the test. */
#ifndef KVG_TESTS_GEN_RECORD_H
#define KVG_TESTS_GEN_RECORD_H

#include "gen_engine.h"

enum { LAYERS = 2, KV = 2, GROUP = 2, D = 32, CTX = 256, ROWS = LAYERS * KV, EMBD = 128 };
enum { TURNS = 3, PROMPT = 70, STEPS = 3 };
#define SURE 1e30

extern struct kvg_model *gen_rec_model;
extern struct gen_engine gen_rec_eng;
extern int32_t gen_rec_text[400];
extern float gen_rec_hidden[CTX * EMBD];

/* A (layer, KV head) before something goes. */
struct gen_rec {
    size_t n;
    int32_t pos[CTX];
    float k[CTX * D], v[CTX * D]; /* keys as attention sees them */
    float mean[GROUP * D], cov[GROUP * D * D];
    double row[GROUP][CTX]; /* attention of the last query */
    double sum[CTX];        /* by position: attention received so far, mean over the group */
    const float *cos, *sin;
    size_t n_text;
};
extern struct gen_rec gen_recs[ROWS];

int gen_rec_open(void **state);  /* the model and its engine: cmocka's group setup */
int gen_rec_close(void **state); /* and teardown */
/* A stream that is recorded before every choice. */
void gen_rec_stream(struct gen_stream *st, const char *spec);
/* Three turns of a recorded stream; check() after every prompt. */
void gen_rec_run(const char *spec, void (*check)(const struct gen_stream *st, void *arg),
                 void *arg);
/* 1 for every recorded slot of a (layer, head) that is still there, to stays; how many. */
size_t gen_rec_stayed(const struct gen_stream *st, size_t row, int *stays);
/* Nothing that went scores more than what stayed, rounding aside. */
void gen_rec_check_order(const char *spec, const double *score, const int *stays, size_t n);
/* -|k| of every recorded slot. */
void gen_rec_norms(const struct gen_rec *r, double *out);
double gen_rec_square(const float *x); /* of D channels */

/* A spec and the definition of its scores; all of them keep 40 %. */
struct gen_rec_case {
    const char *spec;
    void (*score)(const struct gen_rec *r, double *out);
};
/* check() of gen_rec_run for such a case: the best of every head stay. */
void gen_rec_check_best(const struct gen_stream *st, void *arg);

#endif
