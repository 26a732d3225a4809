/* protect: slots whose position lies in a span of the named kinds (the lines of the system prompt,
 * tool schemas, glossary terms) are never evicted; the keeper's choice is among the others. They
 * count inside the budget. Where they and the present token do not fit in it, the head keeps just
 * these: its count grows over the budget, and the realised bytes say so. */
#include "strategies/strategy.h"

#include <float.h>

struct opt {
    const char *spans;
    unsigned kinds;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    struct opt *o = in->opt;
    in->needs.spans = 1;
    return kvg_span_kinds_parse(in, o->spans, &o->kinds, err);
}

static void rescore(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *scores)
{
    const struct opt *o = in->opt;
    int32_t *pos = (int32_t *)(void *)v->scratch;
    for (size_t h = 0; h < scores->n_heads; h++) {
        float *x = kvg_scores_head(scores, h);
        size_t n = scores->n[h], n_protected = 0;
        kvg_store_positions(v->store, v->layer, h, pos);
        for (size_t j = 0; j < n; j++) {
            /* the newest row may have its attention still before it: it is never the one to go */
            if (j + 1 < n && !kvg_text_in_span(v->text, (size_t)pos[j], o->kinds)) {
                /* what others let stay whatever happens stands behind */
                x[j] = x[j] < KVG_MUST_STAY ? x[j] : FLT_MAX;
                continue;
            }
            x[j] = KVG_MUST_STAY;
            n_protected++;
        }
        if (scores->n_keep[h] < n_protected)
            scores->n_keep[h] = n_protected;
    }
}

static const struct kvg_opt opts[] = {
    {.name = "spans",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct opt, spans),
     .def = "system/tool/glossary",
     .metavar = "KIND/KIND",
     .help = "what is never evicted: any of system, tool, glossary, user"},
    {0}};

const struct kvg_strategy kvg_protect = {
    .name = "protect",
    .summary = "never evicts spans: the system prompt, tool schemas, glossary terms",
    .source = "The Pitfalls of KV Cache Compression, 2025, arXiv 2510.00231",
    .observes = "the spans that the workload marks; nothing of the model",
    .kind = KVG_KIND_WRAP,
    .guards = 1,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .rescore = rescore,
};
