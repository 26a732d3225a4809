/* cur: leverage of a token for an approximate CUR decomposition of the head's keys and values. The
 * squared norms of its K and V row, each as a share of its neighbourhood's, are multiplied (or one
 * of them, or their mean, is taken); the largest stay, and the first tokens do.
 *
 * Later turns: neighbourhoods are blocks of slots, so they close up over what went. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t sinks, local;
    int of;
};
enum { OF_PRODUCT, OF_MEAN, OF_KEYS, OF_VALUES };

typedef void (*read_fn)(const struct kvg_view *v, size_t head, size_t from, size_t n, float *out);

static void squares(const struct kvg_view *v, read_fn read, size_t head, size_t n, size_t d,
                    float *out)
{
    float *rows = v->scratch;
    for (size_t j = 0; j < n; j += KVG_TILE_SLOTS) {
        size_t m = n - j < KVG_TILE_SLOTS ? n - j : KVG_TILE_SLOTS;
        read(v, head, j, m, rows);
        for (size_t i = 0; i < m; i++) {
            double sum = 0;
            for (size_t c = 0; c < d; c++)
                sum += (double)rows[i * d + c] * (double)rows[i * d + c];
            out[j + i] = (float)sum;
        }
    }
}

/* x becomes shares of the sum over its block. */
static void to_shares(float *x, size_t n, size_t block)
{
    for (size_t j = 0; j < n; j += block) {
        size_t end = n - j < block ? n : j + block;
        double sum = 0;
        for (size_t i = j; i < end; i++)
            sum += (double)x[i];
        for (size_t i = j; i < end && sum > 0; i++)
            x[i] = (float)((double)x[i] / sum);
    }
}

static float combine(float key, float value, int of)
{
    if (of == OF_PRODUCT)
        return key * value;
    if (of == OF_MEAN)
        return (key + value) / 2;
    return of == OF_KEYS ? key : value;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, head), d = in->dims.d_head;
    size_t block = o->local ? (size_t)o->local : n;
    float *values = v->scratch + KVG_TILE_SLOTS * d;
    if (o->of != OF_VALUES)
        squares(v, kvg_view_keys, head, n, d, out);
    if (o->of != OF_KEYS)
        squares(v, kvg_view_values, head, n, d, values);
    to_shares(out, n, block);
    to_shares(values, n, block);
    for (size_t j = 0; j < n; j++)
        out[j] = combine(out[j], values[j], o->of);
    to_shares(out, n, n); /* so that heads can be compared */
    for (size_t j = 0; j < n && j < (size_t)o->sinks; j++)
        out[j] = KVG_MUST_STAY;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "50%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay"},
    {.name = "sinks",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, sinks),
     .def = "4",
     .min = 0,
     .max = 1024,
     .metavar = "N",
     .help = "first tokens that always stay"},
    {.name = "local",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, local),
     .def = "16",
     .min = 0,
     .max = 4096,
     .metavar = "N",
     .help = "tokens of a neighbourhood; 0 = the whole text"},
    {.name = "of",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, of),
     .def = "product",
     .choices = "product|mean|keys|values",
     .help = "whose leverage: both multiplied, their mean, or one of them"},
    {0}};

const struct kvg_strategy kvg_cur = {
    .name = "cur",
    .summary = "keeps the tokens with the largest leverage: norms of key and value rows",
    .source = "Sengupta et al. 2025, arXiv 2509.15038 (CurDKV)",
    .observes = "keys and values in the store, read once at each compression",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .score = score,
};
