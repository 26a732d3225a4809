/* Specs over the whole registry and the texts they need, for tests: files that strategies read,
 * options small enough to matter in short texts, spans, questions and what follows. */
#ifndef KVG_TESTS_GEN_SPEC_H
#define KVG_TESTS_GEN_SPEC_H

#include "model/engine.h"

enum { GEN_SPEC_MAX = 512, GEN_SPANS_PROTECTED = 20 };

/* Files for options `file`: a set of positions below 48 for a model of 2 layers and 2 KV heads, and
 * calibration tables of the model. */
void gen_spec_open(const struct kvg_model *m);
void gen_spec_close(void);

/* Whether a strategy takes a budget. */
int gen_spec_binds(const struct kvg_strategy *s);
/* Appends "name:option=value,..." to out [GEN_SPEC_MAX], behind a '+' when out is not empty. The
 * budget is left out where a strategy takes none. */
void gen_spec_add(char *out, const struct kvg_strategy *s, const char *budget);

/* Marks spans of every kind (GEN_SPANS_PROTECTED tokens of them are not a user's), a question in
 * the last third of a prompt of n_prompt tokens to come, and what will follow it. */
void gen_spec_text(struct kvg_stream *s, size_t n_prompt, const int32_t *future, size_t n_future);

#endif
