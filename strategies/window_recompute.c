/* window-recompute: the latest tokens and nothing else. Before every pass the cache is thrown away
 * and the tokens of the window are fed again, so that no layer has ever seen an older one: what a
 * window is worth when its rows are not stale. Expensive on purpose; the quality ceiling of
 * windows. A prompt longer than the window is seen whole once, as every prompt is. While the window
 * covers the whole text the cache is what feeding it again would give, and stays. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
};

struct state {
    int partial; /* the cache does not hold the whole text */
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    if (in->prefill_chunk)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'window-recompute' feeds every prompt at once; leave "
                        "'prefill_chunk' out");
    return 0;
}

static size_t recompute(const struct kvg_inst *in, size_t n_logical, size_t n_new)
{
    const struct state *s = in->state;
    size_t total = n_logical + n_new, window = kvg_budget_slots(in->budget, total, &in->dims);
    if (window >= total)
        return s->partial ? n_logical : KVG_RECOMPUTE_NOTHING;
    return window > n_new ? window - n_new : 0;
}

static void observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    struct state *s = in->state;
    (void)columns;
    s->partial = kvg_view_slots(v, 0) < v->n_logical;
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    struct state *s = in->state;
    size_t window = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        if (n <= window)
            continue;
        kvg_plan_drop_range(plan, v->layer, h, 0, n - window);
        s->partial = 1;
    }
}

static const struct kvg_opt opts[] = {{.name = "budget",
                                       .type = KVG_OPT_BUDGET,
                                       .offset = offsetof(struct opt, budget),
                                       .def = "256",
                                       .metavar = "TOKENS|SHARE%|BYTES",
                                       .help = "tokens of the window, new ones included"},
                                      {0}};

const struct kvg_strategy kvg_window_recompute = {
    .name = "window-recompute",
    .summary = "feeds the latest tokens again before every step: the quality ceiling of windows",
    .source =
        "Xiao et al. 2023, arXiv 2309.17453, section 3.1 (sliding window with re-computation)",
    .observes = "nothing; each step costs a prefill of the window",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .state_bytes = sizeof(struct state),
    .schedule = {KVG_SCHED_TURN, 0},
    .init = init,
    .recompute = recompute,
    .observe = observe,
    .compress = compress,
};
