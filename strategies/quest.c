/* quest: reads only the pages of the cache that may matter to the present query. A page of slots is
 * summed up by the smallest and largest value of every channel of its keys; what a query can score
 * against any key of the page is bounded by that, and the pages with the largest bounds are read.
 * The last page always is, and counts. Nothing is ever dropped: memory grows by the summaries.
 *
 * Summaries describe the keys as they were when the page was full; what an encoding changes later
 * is not followed. Pages that have no summary when a query comes (an eviction moved their slots
 * together) are read whole to bound them. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int64_t page, least, dense;
    int gqa;
};

enum { GQA_MAX, GQA_MEAN };

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    (void)err;
    in->needs.n_side = 1;
    in->needs.side_floats[0] = 2 * in->dims.d_head;
    in->needs.side_page[0] = (size_t)o->page;
    return 0;
}

/* Channel minima and maxima of a full page, to room + page * d. */
static const float *summarise(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                              size_t page, float *room)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head, n = (size_t)o->page;
    float *low = room + n * d, *high = low + d;
    kvg_view_keys(v, head, page * n, n, room);
    for (size_t c = 0; c < d; c++)
        low[c] = high[c] = room[c];
    for (size_t j = 1; j < n; j++)
        for (size_t c = 0; c < d; c++) {
            float x = room[j * d + c];
            low[c] = x < low[c] ? x : low[c];
            high[c] = x > high[c] ? x : high[c];
        }
    return low;
}

static void observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    const struct opt *o = in->opt;
    if (v->phase == KVG_PHASE_AUX || v->layer < (size_t)o->dense)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t full = kvg_view_slots(v, h) / (size_t)o->page;
        for (size_t p = kvg_store_page_rows(columns, v->layer, h, in->first_side); p < full; p++)
            kvg_store_page_push(columns, v->layer, h, in->first_side,
                                summarise(in, v, h, p, v->scratch));
    }
}

/* The largest product that a query may have with a key of the page, over the query heads of a KV
 * head. */
static float bound(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                   const float *low)
{
    const struct opt *o = in->opt;
    size_t d = in->dims.d_head, group = in->dims.n_heads / in->dims.n_kv_heads;
    float most = -INFINITY, sum = 0;
    for (size_t g = 0; g < group; g++) {
        const float *q = v->q + (head * group + g) * d;
        float b = 0;
        for (size_t c = 0; c < d; c++) {
            float x = q[c] * low[c], y = q[c] * low[d + c];
            b += x > y ? x : y;
        }
        most = b > most ? b : most;
        sum += b;
    }
    return o->gqa == GQA_MAX ? most : sum / (float)group;
}

static void bound_pages(const struct kvg_inst *in, const struct kvg_view *v, size_t head, size_t n,
                        float *out)
{
    size_t known = kvg_store_page_rows(v->store, v->layer, head, in->first_side);
    float *room = v->scratch + 3 * v->max_slots;
    for (size_t p = 0; p < n; p++) {
        const float *low = p < known ? kvg_store_page(v->store, v->layer, head, in->first_side, p)
                                     : summarise(in, v, head, p, room);
        out[p] = bound(in, v, head, low);
    }
    *v->bytes_read += (known < n ? known : n) * 2 * in->dims.d_head * sizeof(float);
}

static void narrow_head(const struct kvg_inst *in, const struct kvg_view *v, size_t head,
                        struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t page = (size_t)o->page, n = kvg_view_slots(v, head), n_pages = (n + page - 1) / page;
    size_t most = kvg_budget_slots(in->budget, v->n_logical, &in->dims), k = most / page, m = 0;
    float *bounds = v->scratch;
    unsigned char *read = (unsigned char *)(v->scratch + v->max_slots);
    k = k > (size_t)o->least ? k : (size_t)o->least;
    if (most >= n || k >= n_pages)
        return;
    uint32_t *slots = kvg_plan_slots(plan, k * page);
    if (!slots)
        return;
    bound_pages(in, v, head, n_pages - 1, bounds);
    kvg_mark_best(v, bounds, n_pages - 1, k - 1, read);
    read[n_pages - 1] = 1;
    for (size_t j = 0; j < n; j++)
        if (read[j / page])
            slots[m++] = (uint32_t)j;
    kvg_plan_list(plan, KVG_PLAN_READ, v->layer, head, slots, m);
}

static void before_attend(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    if (!v->q || v->layer < (size_t)o->dense)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++)
        narrow_head(in, v, h, plan);
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "1024",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that a step reads, whole pages of them"},
    {.name = "page",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, page),
     .def = "16",
     .min = 2,
     .max = 32,
     .metavar = "N",
     .help = "slots of a page"},
    {.name = "least",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, least),
     .def = "3",
     .min = 1,
     .max = 1024,
     .metavar = "N",
     .help = "pages that are read however small the budget"},
    {.name = "dense",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, dense),
     .def = "2",
     .min = 0,
     .max = 1024,
     .metavar = "N",
     .help = "first layers that read everything"},
    {.name = "gqa",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, gqa),
     .def = "max",
     .choices = "max|mean",
     .help = "how the query heads of a KV head agree on its pages"},
    {0}};

const struct kvg_strategy kvg_quest = {
    .name = "quest",
    .summary = "reads the pages whose key ranges promise the query most; drops nothing",
    .source = "Tang et al. 2024, arXiv 2406.10774, section 3.2",
    .observes = "the step's query and every key once; reads two f32 per channel and page at a step "
                "and holds them",
    .kind = KVG_KIND_READ,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .path_dependent = 1,
    .init = init,
    .before_attend = before_attend,
    .observe = observe,
};
