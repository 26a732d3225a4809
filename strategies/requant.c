/* requant: how not to quantise a cache, as a widely used library does it. The prompt is encoded at
 * once; then exact tokens gather, and when there are `residual` of them everything, what is encoded
 * already too, is decoded and encoded anew. With axis=channel the groups of a channel run through
 * the heads of the flattened tensor, so that their borders move in all heads but the first whenever
 * the text grows, and errors add up. With axis=token a group is one token's own and its codes
 * mostly stay. A group that would span two heads is cut at the border here, because heads are
 * stored apart.
 */
#include "strategies/strategy.h"

struct opt {
    int64_t bits, group, residual;
    int axis;
};
enum { AXIS_CHANNEL, AXIS_TOKEN };

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head, width = (size_t)o->group < d ? (size_t)o->group : d;
    if (o->bits != 2 && o->bits != 4 && o->bits != 8)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'requant': 'bits=%lld' is not 2, 4 or 8",
                        (long long)o->bits);
    if (o->group != 8 && o->group != 16 && o->group != 32 && o->group != 64)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'requant': 'group=%lld' is not 8, 16, 32 or 64",
                        (long long)o->group);
    if (d % width || (o->axis == AXIS_TOKEN && width % 32))
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'requant': heads of %zu channels do not divide into groups of "
                        "%zu, of which axis=token asks for multiples of 32",
                        d, width);
    if (o->axis == AXIS_CHANNEL)
        kvg_codec_kivi_k(&in->k_codec, (unsigned)o->bits, (unsigned)o->group);
    else
        kvg_codec_kivi_v(&in->k_codec, (unsigned)o->bits, (unsigned)width);
    in->k_codec.partial = o->axis == AXIS_CHANNEL;
    in->v_codec = in->k_codec;
    return 0;
}

/* Slots of head h's first group when n slots of every head follow each other in one row. */
static size_t first_group(const struct opt *o, size_t h, size_t n)
{
    size_t group = (size_t)o->group;
    return o->axis == AXIS_CHANNEL ? group - h * n % group : 0;
}

static void seal(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    if (when == KVG_WHEN_APPENDED && !(v->phase == KVG_PHASE_PROMPT && in->prefill_stored))
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h), first = first_group(o, h, n);
        size_t exact = kvg_store_exact_slots(v->store, v->layer, h, KVG_COL_K);
        int whole_prompt = v->phase == KVG_PHASE_PROMPT && exact == n;
        if (!whole_prompt && exact < (size_t)o->residual)
            continue;
        kvg_plan_reseal(plan, v->layer, h, KVG_COL_K, n, in->k_codec_index, first);
        kvg_plan_reseal(plan, v->layer, h, KVG_COL_V, n, in->v_codec_index, first);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "bits",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, bits),
     .def = "4",
     .min = 2,
     .max = 8,
     .metavar = "2|4|8",
     .help = "bits of a code"},
    {.name = "group",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, group),
     .def = "64",
     .min = 8,
     .max = 64,
     .metavar = "N",
     .help = "values that share a scale"},
    {.name = "residual",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, residual),
     .def = "128",
     .min = 1,
     .max = 4096,
     .metavar = "N",
     .help = "exact tokens that gather before everything is encoded anew"},
    {.name = "axis",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, axis),
     .def = "channel",
     .choices = "channel|token",
     .help = "K and V in groups along each channel, or within each token (the library's default)"},
    {0}};

const struct kvg_strategy kvg_requant = {
    .name = "requant",
    .summary = "negative example: the whole cache is decoded and encoded again at every flush",
    .source = "QuantizedCache of the transformers library (cache_utils.py)",
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .seal = seal,
};
