/* think: when a prompt has ended, the channels of K that matter least to its last queries are left
 * out of the prompt's keys, per KV head: energy of the channel in the queries times its energy in
 * the keys. What stays is packed, so the bytes really go. Values are untouched; keys of a reply
 * keep all channels until the next prompt has ended. Keys that are stored before rotation lose
 * whole rotary pairs, because rotation mixes the two channels of a pair.
 *
 * A group out of which a keeper drops rows is opened: its rows are exact again, with zeros where
 * channels went, and take whole rows until a later prompt's end seals them. So with what evicts at
 * every step, or after the last layer, the loss stays and the saving does not. */
#include "strategies/strategy.h"

#include <string.h>

enum { D_MAX = 512 };

struct opt {
    struct kvg_budget channels;
    int64_t window, recent;
    int form;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head;
    if (o->channels.kind != KVG_BUDGET_SHARE)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'think': 'channels' is not a share; write for example "
                        "'channels=60%%'");
    if (in->prefill_stored)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'think': 'prefill=stored' cannot be, the prompt's own queries "
                        "choose the channels; leave it at 'prefill=exact'");
    size_t kept = d - (size_t)((double)d * (1 - o->channels.value));
    kvg_codec_masked(&in->k_codec, o->form ? KVG_F16 : KVG_F32, (unsigned)(kept ? kept : 1));
    in->needs.queries = (size_t)o->window;
    return 0;
}

/* Adds the squares of n rows to sum [d]. */
static void add_squares(const float *rows, size_t n, size_t stride, size_t d, double *sum)
{
    for (size_t j = 0; j < n; j++)
        for (size_t c = 0; c < d; c++)
            sum[c] += (double)rows[j * stride + c] * (double)rows[j * stride + c];
}

/* Energy of the channels in the queries of a KV head's group and in its keys [from, n). */
static void energies(const struct kvg_inst *in, const struct kvg_view *v, size_t head, size_t from,
                     size_t n, double *q, double *k)
{
    size_t d = in->dims.d_head, group = in->dims.n_heads / in->dims.n_kv_heads;
    memset(q, 0, d * sizeof *q);
    memset(k, 0, d * sizeof *k);
    for (size_t g = 0; g < group; g++)
        add_squares(v->queries + (head * group + g) * d, v->n_queries, in->dims.n_heads * d, d, q);
    for (size_t at = from; at < n; at += KVG_TILE_SLOTS) {
        size_t m = n - at < KVG_TILE_SLOTS ? n - at : KVG_TILE_SLOTS;
        kvg_view_keys(v, head, at, m, v->scratch);
        add_squares(v->scratch, m, d, d, k);
    }
}

/* Sets the bits of the kept best channels (ties: the lower one). */
static void choose(const double *score, size_t d, size_t kept, uint32_t *mask)
{
    memset(mask, 0, kvg_codec_mask_words(d) * sizeof *mask);
    for (size_t c = 0; c < d; c++) {
        size_t better = 0;
        for (size_t i = 0; i < d; i++)
            better += score[i] > score[c] || (score[i] == score[c] && i < c);
        if (better < kept)
            mask[c / 32] |= 1u << c % 32;
    }
}

/* Where a head's seal ends. Only the first one may end in a short group, so that a list never has
 * more of them than one; later what does not fill a group waits with all its channels. */
static size_t seal_end(const struct opt *o, const struct kvg_inst *in, size_t n, size_t sealed)
{
    size_t group = in->k_codec.group, recent = (size_t)o->recent;
    if (n < sealed + recent)
        return 0;
    return sealed ? sealed + (n - recent - sealed) / group * group : n - recent;
}

static void seal_head(struct kvg_inst *in, const struct kvg_view *v, size_t head,
                      struct kvg_plan *plan)
{
    double score[D_MAX], k[D_MAX];
    size_t d = in->dims.d_head, half = d / 2, n = kvg_view_slots(v, head);
    size_t sealed = n - kvg_store_exact_slots(v->store, v->layer, head, KVG_COL_K);
    size_t end = seal_end(in->opt, in, n, sealed);
    if (end <= sealed)
        return;
    uint32_t *mask = kvg_plan_slots(plan, kvg_codec_mask_words(d));
    if (!mask)
        return;
    energies(in, v, head, sealed, n, score, k);
    for (size_t c = 0; v->store->cfg.raw_keys && c < half; c++) {
        score[c] = score[c + half] = score[c] + score[c + half];
        k[c] = k[c + half] = k[c] + k[c + half];
    }
    for (size_t c = 0; c < d; c++)
        score[c] *= k[c];
    choose(score, d, in->k_codec.channels, mask);
    kvg_plan_seal_channels(plan, v->layer, head, KVG_COL_K, end, in->k_codec_index, mask);
}

static void seal(struct kvg_inst *in, const struct kvg_view *v, enum kvg_when when,
                 struct kvg_plan *plan)
{
    if (when != KVG_WHEN_ATTENDED || v->phase != KVG_PHASE_PROMPT || !v->queries)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++)
        seal_head(in, v, h, plan);
}

static const struct kvg_opt opts[] = {
    {.name = "channels",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, channels),
     .def = "60%",
     .metavar = "SHARE%",
     .help = "share of K's channels that stay"},
    {.name = "window",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, window),
     .def = "32",
     .min = 1,
     .max = 4096,
     .metavar = "N",
     .help = "last queries of the prompt that are looked at"},
    {.name = "recent",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, recent),
     .def = "32",
     .min = 0,
     .max = 4096,
     .metavar = "N",
     .help = "last tokens of the prompt whose keys keep all channels"},
    {.name = "form",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, form),
     .def = "f32",
     .choices = "f32|f16",
     .help = "form of the channels that stay"},
    {0}};

const struct kvg_strategy kvg_think = {
    .name = "think",
    .summary = "leaves the channels of K out that matter least to the prompt's last queries",
    .source = "Xu et al. 2024, ThinK, arXiv 2407.21018, section 3",
    .observes = "the last `window` queries of a prompt and its keys, which are read once",
    .kind = KVG_KIND_ENCODE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .seal = seal,
};
