/* Looks into one stream: runs a prompt and forced tokens, and writes what was kept and the logits
 * in plain text, to compare with other implementations. Must not know workloads. */
#ifndef KVG_RUN_INSPECT_H
#define KVG_RUN_INSPECT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/text.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "strategies/strategy.h"

#include <stddef.h>
#include <stdint.h>

struct kvg_inspect {
    const struct kvg_model *model;
    const char *model_sha256;
    const struct kvg_kernels *kernels;
    struct kvg_pool *pool;
    const char *spec;
    const int32_t *tokens; /* [n_tokens] the prompt, n_tokens >= 1 */
    size_t n_tokens;
    const int32_t *force; /* [n_force] fed one by one; the last is only a target */
    size_t n_force;
    const struct kvg_span *spans; /* [n_spans] marks of the prompt, ascending */
    size_t n_spans;
    size_t question;       /* position where the question begins; SIZE_MAX = none is marked */
    const size_t *kept_at; /* [n_kept_at] ascending steps, 0 = after the prompt; n 0 = that alone */
    size_t n_kept_at;
    uint64_t seed;
    struct kvg_str *kept;   /* .kept.tsv is appended; NULL = not wanted */
    struct kvg_str *logits; /* .logits.tsv, the same */
    /* Drift of the forced steps from an exact cache that runs beside: a header and one row of
     * strategy, n, mean_kl, max_kl, top1, nll_full, nll, dnll, max_dlogit; NULL = not wanted. */
    struct kvg_str *drift;
};

int kvg_inspect_run(const struct kvg_inspect *in, struct kvg_err *err);
/* Token ids, one a line (further words of a line and lines with # are left out), in `a`.
 * KVG_EFORMAT with the line for what is not an id below n_vocab. */
int kvg_inspect_read_ids(const char *path, size_t n_vocab, int32_t **ids, size_t *n,
                         struct kvg_arena *a, struct kvg_err *err);
/* Spans, "begin end kind" a line, kind one of system, tool, glossary, user; ascending, not
 * overlapping, within n_tokens. Lines with # are left out. In `a`. KVG_EFORMAT with the line. */
int kvg_inspect_read_spans(const char *path, size_t n_tokens, struct kvg_span **spans, size_t *n,
                           struct kvg_arena *a, struct kvg_err *err);

#endif
