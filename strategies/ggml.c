/* The forms llama.cpp offers for K and V: f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, and kv
 * with one for each side. Blocks of K lie along the head with rotary halves apart (layout=half) or
 * interleaved as in the model file (layout=ggml); V has no rotary pairs. With rotate, rows of the
 * block forms are turned by an orthonormal Walsh-Hadamard matrix before they are encoded and turned
 * back when they are read: scores and sums stay what they were, the error of the codes is spread
 * over all channels. */
#include "strategies/strategy.h"

#include <string.h>

static const enum kvg_type forms[] = {KVG_F32,  KVG_F16,  KVG_BF16, KVG_Q8_0,  KVG_Q5_1,
                                      KVG_Q5_0, KVG_Q4_1, KVG_Q4_0, KVG_IQ4_NL};
#define FORMS "f32|f16|bf16|q8_0|q5_1|q5_0|q4_1|q4_0|iq4_nl"

enum rotate { ROTATE_NO, ROTATE_YES, ROTATE_K, ROTATE_V };

struct opt {
    int k, v, layout, rotate;
};

static int set_codec(struct kvg_codec *c, enum kvg_type form, int interleaved, int turned,
                     const struct kvg_inst *in, struct kvg_err *err)
{
    if (form == KVG_F32)
        return 0;
    int blocks = kvg_type_info(form)->block_elems > 1;
    if (blocks && in->dims.d_head % 32)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy '%s': heads of %zu channels do not divide into blocks of 32",
                        in->s->name, in->dims.d_head);
    kvg_codec_row(c, form, interleaved && blocks);
    if (turned && blocks)
        kvg_codec_turn(c);
    return 0;
}

static int open_forms(struct kvg_inst *in, enum kvg_type k, enum kvg_type v, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    int rc = set_codec(&in->k_codec, k, o->layout, o->rotate == ROTATE_YES || o->rotate == ROTATE_K,
                       in, err);
    return rc ? rc
              : set_codec(&in->v_codec, v, 0, o->rotate == ROTATE_YES || o->rotate == ROTATE_V, in,
                          err);
}

static int init_kv(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    return open_forms(in, forms[o->k], forms[o->v], err);
}

/* Both sides in the form that gives the strategy its name. */
static int init_both(struct kvg_inst *in, struct kvg_err *err)
{
    size_t i = 0;
    while (strcmp(kvg_type_info(forms[i])->name, in->s->name))
        i++;
    return open_forms(in, forms[i], forms[i], err);
}

#define BLOCK_OPTS                                                                                 \
    {.name = "layout",                                                                             \
     .type = KVG_OPT_CHOICE,                                                                       \
     .offset = offsetof(struct opt, layout),                                                       \
     .def = "half",                                                                                \
     .choices = "half|ggml",                                                                       \
     .help = "order of K's channels in blocks: rotary halves apart, or as in the file"},           \
    {                                                                                              \
        .name = "rotate", .type = KVG_OPT_CHOICE, .offset = offsetof(struct opt, rotate),          \
        .def = "no", .choices = "no|yes|k|v",                                                      \
        .help = "turn rows of block forms by a Hadamard matrix: both sides, K or V"                \
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
                                         BLOCK_OPTS,
                                         {0}};
static const struct kvg_opt block_opts[] = {BLOCK_OPTS, {0}};
static const struct kvg_opt no_opts[] = {{0}};

#define STRATEGY(ident, options, start, text)                                                      \
    const struct kvg_strategy kvg_##ident = {                                                      \
        .name = #ident,                                                                            \
        .summary = text,                                                                           \
        .source = "ggml block formats (ggml-quants.c of llama.cpp); llama.cpp options -ctk, -ctv " \
                  "and pull request 21038 (rotate)",                                               \
        .observes = "nothing",                                                                     \
        .kind = KVG_KIND_ENCODE,                                                                   \
        .opts = options,                                                                           \
        .opts_bytes = sizeof(struct opt),                                                          \
        .init = start,                                                                             \
        .seal = kvg_seal_rows,                                                                     \
    }

STRATEGY(f16, no_opts, init_both, "K and V in half precision");
STRATEGY(bf16, no_opts, init_both, "K and V in bfloat16: the range of f32, 8 bits of precision");
STRATEGY(q8_0, block_opts, init_both,
         "K and V in blocks of 32 signed bytes with an f16 scale: 8.5 bits a value");
STRATEGY(q5_1, block_opts, init_both,
         "K and V in blocks of 32 5-bit codes with an f16 scale and minimum: 6 bits a value");
STRATEGY(q5_0, block_opts, init_both,
         "K and V in blocks of 32 5-bit codes with an f16 scale: 5.5 bits a value");
STRATEGY(q4_1, block_opts, init_both,
         "K and V in blocks of 32 nibbles with an f16 scale and minimum: 5 bits a value");
STRATEGY(q4_0, block_opts, init_both,
         "K and V in blocks of 32 nibbles with an f16 scale: 4.5 bits a value");
STRATEGY(iq4_nl, block_opts, init_both,
         "K and V in blocks of 32 nibbles into a table of uneven steps: 4.5 bits a value");
STRATEGY(kv, kv_opts, init_kv, "K and V each in a form of its own");
