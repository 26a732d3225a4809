/* fp8: K and V in bytes of floating point, as serving systems with hardware for it keep them. With
 * scale=tensor the codes are those of the values themselves (vLLM's scale 1.0 when nothing was
 * calibrated); with scale=row every row has an f16 scale that brings its largest magnitude to 448.
 * The arithmetic around it stays in f32. */
#include "strategies/strategy.h"

enum scale { SCALE_TENSOR, SCALE_ROW };

struct opt {
    int format, scale;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    if (in->dims.d_head % 32)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'fp8': heads of %zu channels are not a multiple of 32",
                        in->dims.d_head);
    enum kvg_fp8 format = o->format ? KVG_FP8_E5M2 : KVG_FP8_E4M3;
    kvg_codec_fp8(&in->k_codec, format, o->scale == SCALE_ROW);
    in->v_codec = in->k_codec;
    return 0;
}

static const struct kvg_opt opts[] = {
    {.name = "format",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, format),
     .def = "e4m3",
     .choices = "e4m3|e5m2",
     .help = "4 exponent bits and 3 of mantissa up to 448, or 5 and 2 up to 57344"},
    {.name = "scale",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, scale),
     .def = "tensor",
     .choices = "tensor|row",
     .help = "none (1.0 for all), or one per row: its largest magnitude / 448"},
    {0}};

const struct kvg_strategy kvg_fp8 = {
    .name = "fp8",
    .summary = "K and V in 8-bit floating point: 8 bits a value, and 16 a row with scale=row",
    .source = "OCP 8-bit Floating Point Specification 1.0 (2023); vLLM option --kv-cache-dtype",
    .observes = "nothing",
    .kind = KVG_KIND_ENCODE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .seal = kvg_seal_rows,
};
