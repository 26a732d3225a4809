/* kvquant: keys quantised per channel before rotation and rotated when they are read, values per
 * token; both with non-uniform levels and a few outliers in f16. Ranges of keys and all levels come
 * from a calibration file. The first `sinks` tokens stay in f16. A row is encoded as soon as it is
 * in the store; prompts read exact rows unless prefill=stored. The tables belong to the model, as
 * weights do: they are read from the file and not billed to a conversation. */
#include "cache/nuq.h"
#include "strategies/strategy.h"

struct opt {
    const char *file;
    int64_t bits, sinks;
};

static int check_model(const struct kvg_inst *in, const char *path, const struct kvg_nuq *q,
                       struct kvg_err *err)
{
    const struct kvg_dims *m = &in->dims;
    if (q->n_layers == m->n_layers && q->n_heads == m->n_heads && q->n_kv_heads == m->n_kv_heads &&
        q->d_head == m->d_head && q->n_embd == m->n_embd && (float)q->rope_base == m->rope_base)
        return 0;
    return KVG_FAIL(err, KVG_EUSAGE,
                    "strategy '%s': '%s' was made for another model (%zu layers, %zu heads, %zu KV "
                    "heads of %zu channels; this one has %zu, %zu, %zu of %zu): make one with "
                    "`kvgauge calibrate`",
                    in->s->name, path, q->n_layers, q->n_heads, q->n_kv_heads, q->d_head,
                    m->n_layers, m->n_heads, m->n_kv_heads, m->d_head);
}

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    struct kvg_nuq *q = kvg_arena_alloc(in->arena, sizeof *q);
    if (!q)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!o->file)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy '%s' needs 'file=PATH', the ranges and levels of this model: "
                        "`kvgauge calibrate -m MODEL --workload W --out PATH` makes it",
                        in->s->name);
    int rc = kvg_nuq_read(q, o->file, in->arena, err);
    if (rc == KVG_EIO)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy '%s': cannot read 'file=%s': `kvgauge calibrate -m MODEL "
                        "--workload W --out %s` makes it",
                        in->s->name, o->file, o->file);
    if (rc)
        return kvg_err_prefix(err, "strategy '%s'", in->s->name), KVG_EUSAGE;
    rc = check_model(in, o->file, q, err);
    if (!rc && q->d_head % 8)
        rc = KVG_FAIL(err, KVG_EUSAGE, "strategy '%s': heads of %zu channels do not fill bytes",
                      in->s->name, q->d_head);
    if (rc)
        return rc;
    in->needs.raw_keys = 1;
    kvg_codec_nuq_k(&in->k_codec, q, (unsigned)o->bits);
    kvg_codec_nuq_v(&in->v_codec, q, (unsigned)o->bits);
    if (o->sinks)
        kvg_codec_row(&in->extra_codec, KVG_F16, 0);
    return 0;
}

/* Slots at the head of a list that hold the first `sinks` tokens. */
static size_t sink_slots(const struct kvg_view *v, size_t head, size_t n, int64_t sinks)
{
    int32_t pos[KVG_TILE_SLOTS];
    size_t m = n < (size_t)sinks ? n : (size_t)sinks, i = 0;
    kvg_store_positions_range(v->store, v->layer, head, 0, m, pos);
    while (i < m && pos[i] < sinks)
        i++;
    return i;
}

static void seal(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    if (when == KVG_WHEN_APPENDED && v->phase == KVG_PHASE_PROMPT && !in->prefill_stored)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h), sinks = sink_slots(v, h, n, o->sinks);
        for (int col = KVG_COL_K; col <= KVG_COL_V; col++) {
            int codec = col == KVG_COL_K ? in->k_codec_index : in->v_codec_index;
            if (sinks)
                kvg_plan_seal(plan, v->layer, h, col, sinks, in->extra_codec_index);
            kvg_plan_seal(plan, v->layer, h, col, n, codec);
        }
    }
}

static const struct kvg_opt opts[] = {{.name = "file",
                                       .type = KVG_OPT_STRING,
                                       .offset = offsetof(struct opt, file),
                                       .metavar = "PATH",
                                       .help = "ranges and levels, made by `kvgauge calibrate`"},
                                      {.name = "bits",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, bits),
                                       .def = "4",
                                       .min = KVG_NUQ_BITS_LEAST,
                                       .max = KVG_NUQ_BITS_MOST,
                                       .metavar = "2|3|4",
                                       .help = "bits of a code"},
                                      {.name = "sinks",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, sinks),
                                       .def = "1",
                                       .min = 0,
                                       .max = KVG_TILE_SLOTS,
                                       .metavar = "N",
                                       .help = "first tokens that stay in f16"},
                                      {0}};

const struct kvg_strategy kvg_kvquant = {
    .name = "kvquant",
    .summary =
        "2 to 4 bits at calibrated levels (k-means without the paper's Fisher weights): keys "
        "per channel before rotation, values per token, outliers and first tokens in f16",
    .source = "Hooper et al. 2024, arXiv 2401.18079, section 3",
    .observes = "nothing; needs a calibration file",
    .kind = KVG_KIND_ENCODE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .seal = seal,
};
