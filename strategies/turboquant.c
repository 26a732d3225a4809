/* turboquant: every row as its norm and, after a fixed random rotation, codes into one codebook
 * that is optimal for normally distributed channels; no calibration, no groups, no residual of
 * exact rows. Only the form for least squared error (MSE): the paper's form for inner products spends one of
 * the bits on signs of the residual (QJL, algorithm 2), which makes scores unbiased at the price of
 * variance. Whoever measured both in public found it worse at equal bits (llama.cpp pull request
 * 21307: top-1 agreement 80.4 % without, 69.6 % with it), though not undisputed. */
#include "strategies/strategy.h"

struct opt {
    int64_t bits, k_bits, v_bits;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head;
    if (d % 32)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'turboquant': heads of %zu channels are not a multiple of 32", d);
    float *signs = kvg_arena_array(in->arena, d, sizeof *signs);
    if (!signs)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    kvg_codec_turbo_signs(signs, d);
    kvg_codec_turbo(&in->k_codec, (unsigned)(o->k_bits ? o->k_bits : o->bits), signs);
    kvg_codec_turbo(&in->v_codec, (unsigned)(o->v_bits ? o->v_bits : o->bits), signs);
    return 0;
}

static const struct kvg_opt opts[] = {{.name = "bits",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, bits),
                                       .def = "4",
                                       .min = 1,
                                       .max = 4,
                                       .metavar = "1..4",
                                       .help = "bits of a code"},
                                      {.name = "k_bits",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, k_bits),
                                       .def = "0",
                                       .min = 0,
                                       .max = 4,
                                       .metavar = "0..4",
                                       .help = "bits of a code of K; 0 = bits"},
                                      {.name = "v_bits",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, v_bits),
                                       .def = "0",
                                       .min = 0,
                                       .max = 4,
                                       .metavar = "0..4",
                                       .help = "bits of a code of V; 0 = bits"},
                                      {0}};

const struct kvg_strategy kvg_turboquant = {
    .name = "turboquant",
    .summary = "rows turned at random and coded by one Lloyd-Max codebook: 1 to 4 bits a value and "
               "16 a row",
    .source = "Zandieh et al. 2025, arXiv 2504.19874, algorithm 1 (without the QJL residual of "
              "algorithm 2)",
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .seal = kvg_seal_rows,
};
