/* kivi: keys quantised per channel over groups of tokens, values per token over groups of channels,
 * the latest tokens exact. Rows are exact while they are attended to for the first time; when
 * `residual` exact tokens have gathered they are sealed together. With values=slide the values keep
 * a sliding residual instead, as the paper's code does. When a KEEP strategy drops rows inside a
 * sealed group, the group is opened and sealed again, which is billed. */
#include "strategies/strategy.h"

struct opt {
    int64_t bits, group, residual;
    int values, groups;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (o->bits != 2 && o->bits != 4 && o->bits != 8)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'kivi': 'bits=%lld' is not 2, 4 or 8",
                        (long long)o->bits);
    if (o->group != 8 && o->group != 16 && o->group != 32 && o->group != 64)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'kivi': 'group=%lld' is not 8, 16, 32 or 64",
                        (long long)o->group);
    if (o->residual % o->group)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'kivi': 'residual=%lld' is not a multiple of 'group=%lld'",
                        (long long)o->residual, (long long)o->group);
    if (in->dims.d_head % 32)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'kivi': heads of %zu channels do not divide into groups of 32",
                        in->dims.d_head);
    in->whole_groups = o->groups;
    kvg_codec_kivi_k(&in->k_codec, (unsigned)o->bits, (unsigned)o->group);
    kvg_codec_kivi_v(&in->v_codec, (unsigned)o->bits, 32);
    return 0;
}

/* First slot that stays exact when whole residuals are sealed. */
static size_t sealed_end(const struct opt *o, size_t n, size_t exact)
{
    size_t r = (size_t)o->residual;
    return n - exact + exact / r * r;
}

static void seal(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    if (when == KVG_WHEN_APPENDED && !(v->phase == KVG_PHASE_PROMPT && in->prefill_stored))
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h), r = (size_t)o->residual;
        size_t k_exact = kvg_store_exact_slots(v->store, v->layer, h, KVG_COL_K);
        size_t v_exact = kvg_store_exact_slots(v->store, v->layer, h, KVG_COL_V);
        size_t v_end = o->values ? sealed_end(o, n, v_exact) : (n > r ? n - r : 0);
        kvg_plan_seal(plan, v->layer, h, KVG_COL_K, sealed_end(o, n, k_exact), in->k_codec_index);
        kvg_plan_seal(plan, v->layer, h, KVG_COL_V, v_end, in->v_codec_index);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "bits",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, bits),
     .def = "2",
     .min = 2,
     .max = 8,
     .metavar = "2|4|8",
     .help = "bits of a code"},
    {.name = "group",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, group),
     .def = "32",
     .min = 8,
     .max = 64,
     .metavar = "N",
     .help = "tokens of K that share a scale"},
    {.name = "residual",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, residual),
     .def = "128",
     .min = 8,
     .max = 4096,
     .metavar = "N",
     .help = "latest tokens that stay exact before they are sealed together"},
    {.name = "values",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, values),
     .def = "slide",
     .choices = "slide|flush",
     .help = "residual of V: always the latest N, or sealed with K"},
    {.name = "groups",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, groups),
     .def = "reopen",
     .choices = "reopen|whole",
     .help = "sealed groups out of which a KEEP strategy drops rows: opened and sealed again, or "
             "dropped and kept as a whole"},
    {0}};

const struct kvg_strategy kvg_kivi = {
    .name = "kivi",
    .summary = "2, 4 or 8 bits: keys per channel, values per token, the latest tokens exact",
    .source = "Liu et al. 2024, arXiv 2402.02750, section 3 and algorithm 1",
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .seal = seal,
};
