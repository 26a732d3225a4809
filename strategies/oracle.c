/* oracle: sees the future. When a prompt has ended the recorded reply is fed on top of the cache,
 * what its queries attend to on average is noted, and the slots with the largest mean stay: what a
 * choice by attention could come to if it knew what follows. An upper bound, never deployable.
 * Where no future is known there is nothing to see and everything stays. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    struct kvg_budget budget;
    int64_t horizon;
};

struct state {
    int blind; /* nothing was known of the future when the last prompt ended */
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    if (in->schedule.kind == KVG_SCHED_EVERY)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'oracle' looks ahead at a prompt's end; use 'schedule=turn'");
    in->needs.future = 1;
    in->needs.n_obs = 1;
    in->needs.n_side = 1;
    in->needs.side_floats[0] = 1;
    return 0;
}

static size_t auxiliary(struct kvg_inst *in, const struct kvg_text *text, size_t index,
                        int32_t *out, size_t cap)
{
    const struct opt *o = in->opt;
    struct state *s = in->state;
    size_t n = text->n_future < (size_t)o->horizon ? text->n_future : (size_t)o->horizon;
    if (index > 0)
        return 0;
    n = n < cap ? n : cap;
    s->blind = n == 0;
    if (n)
        memcpy(out, text->future, n * sizeof *out);
    return n;
}

static void observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    if (v->phase != KVG_PHASE_AUX)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        kvg_obs_mean(in, v, in->first_obs, h, n, v->scratch);
        for (size_t j = 0; j < n; j++)
            v->scratch[j] /= (float)v->obs_rows[in->first_obs];
        kvg_store_side_put(columns, v->layer, h, in->first_side, v->scratch);
    }
}

static size_t keep(const struct kvg_inst *in, size_t layer, size_t n_slots, size_t n_logical)
{
    const struct state *s = in->state;
    (void)layer;
    return s->blind ? n_slots : kvg_budget_slots(in->budget, n_logical, &in->dims);
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    kvg_store_side_get(v->store, v->layer, head, in->first_side, out);
}

static const struct kvg_opt opts[] = {{.name = "budget",
                                       .type = KVG_OPT_BUDGET,
                                       .offset = offsetof(struct opt, budget),
                                       .def = "25%",
                                       .metavar = "TOKENS|SHARE%|BYTES",
                                       .help = "tokens that stay"},
                                      {.name = "horizon",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, horizon),
                                       .def = "512",
                                       .min = 1,
                                       .max = 1 << 20,
                                       .metavar = "N",
                                       .help = "future tokens it sees"},
                                      {0}};

const struct kvg_strategy kvg_oracle = {
    .name = "oracle",
    .summary = "keeps what the recorded reply will attend to: an upper bound, not deployable",
    .source = "kvgauge (the hindsight bound on choosing by attention)",
    .observes = "attention of the next `horizon` tokens of the recording, fed in an extra pass",
    .kind = KVG_KIND_KEEP,
    .role = KVG_ROLE_ORACLE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .state_bytes = sizeof(struct state),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .keep = keep,
    .auxiliary = auxiliary,
    .observe = observe,
    .score = score,
};
