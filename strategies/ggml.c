/* f16, q8_0, q4_0, kv: rows in ggml's forms, K and V apart. A row is encoded as soon as it is in the
 * store, so while decoding even a token's own row is read back encoded; prompts read exact rows
 * unless prefill=stored. Blocks of K lie along the head with rotary halves apart (layout=half) or
 * interleaved as in the model file (layout=ggml); V has no rotary pairs. */
#include "strategies/strategy.h"

enum form { FORM_F32, FORM_F16, FORM_Q8_0, FORM_Q4_0 };
static const enum kvg_type form_type[] = {KVG_F32, KVG_F16, KVG_Q8_0, KVG_Q4_0};

struct opt {
    int k, v, layout;
};

static int set_codec(struct kvg_codec *c, int form, int interleaved, const struct kvg_inst *in,
                     struct kvg_err *err)
{
    if (form == FORM_F32)
        return 0;
    if (form != FORM_F16 && in->dims.d_head % 32)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy '%s': heads of %zu channels do not divide into blocks of 32",
                        in->s->name, in->dims.d_head);
    kvg_codec_row(c, form_type[form], interleaved && form != FORM_F16);
    return 0;
}

static int open_forms(struct kvg_inst *in, int k, int v, int interleaved, struct kvg_err *err)
{
    int rc = set_codec(&in->k_codec, k, interleaved, in, err);
    return rc ? rc : set_codec(&in->v_codec, v, 0, in, err);
}

static int init_kv(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    return open_forms(in, o->k, o->v, o->layout, err);
}

static int init_f16(struct kvg_inst *in, struct kvg_err *err)
{
    return open_forms(in, FORM_F16, FORM_F16, 0, err);
}

static int init_q8_0(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    return open_forms(in, FORM_Q8_0, FORM_Q8_0, o->layout, err);
}

static int init_q4_0(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    return open_forms(in, FORM_Q4_0, FORM_Q4_0, o->layout, err);
}

static void seal(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan)
{
    if (when == KVG_WHEN_APPENDED && v->phase == KVG_PHASE_PROMPT && !in->prefill_stored)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        if (in->k_codec_index > 0)
            kvg_plan_seal(plan, v->layer, h, KVG_COL_K, n, in->k_codec_index);
        if (in->v_codec_index > 0)
            kvg_plan_seal(plan, v->layer, h, KVG_COL_V, n, in->v_codec_index);
    }
}

#define FORMS "f32|f16|q8_0|q4_0"
#define LAYOUT                                                                                     \
    {                                                                                              \
        .name = "layout", .type = KVG_OPT_CHOICE, .offset = offsetof(struct opt, layout),          \
        .def = "half", .choices = "half|ggml",                                                     \
        .help = "order of K's channels in blocks: rotary halves apart, or as in the file"          \
    }

static const struct kvg_opt kv_opts[] = {{.name = "k",
                                          .type = KVG_OPT_CHOICE,
                                          .offset = offsetof(struct opt, k),
                                          .def = "q8_0",
                                          .choices = FORMS,
                                          .help = "form of keys"},
                                         {.name = "v",
                                          .type = KVG_OPT_CHOICE,
                                          .offset = offsetof(struct opt, v),
                                          .def = "q8_0",
                                          .choices = FORMS,
                                          .help = "form of values"},
                                         LAYOUT,
                                         {0}};
static const struct kvg_opt block_opts[] = {LAYOUT, {0}};
static const struct kvg_opt no_opts[] = {{0}};

#define SOURCE "ggml block formats (ggml-quants.c of llama.cpp); llama.cpp options -ctk, -ctv"

const struct kvg_strategy kvg_f16 = {
    .name = "f16",
    .summary = "K and V in half precision",
    .source = SOURCE,
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = no_opts,
    .init = init_f16,
    .seal = seal,
};

const struct kvg_strategy kvg_q8_0 = {
    .name = "q8_0",
    .summary = "K and V in blocks of 32 signed bytes with an f16 scale: 8.5 bits a value",
    .source = SOURCE,
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = block_opts,
    .opts_bytes = sizeof(struct opt),
    .init = init_q8_0,
    .seal = seal,
};

const struct kvg_strategy kvg_q4_0 = {
    .name = "q4_0",
    .summary = "K and V in blocks of 32 nibbles with an f16 scale: 4.5 bits a value",
    .source = SOURCE,
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = block_opts,
    .opts_bytes = sizeof(struct opt),
    .init = init_q4_0,
    .seal = seal,
};

const struct kvg_strategy kvg_kv = {
    .name = "kv",
    .summary = "K and V each in a form of its own",
    .source = SOURCE,
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = kv_opts,
    .opts_bytes = sizeof(struct opt),
    .init = init_kv,
    .seal = seal,
};
