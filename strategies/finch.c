/* finch: the question at the end of a prompt decides what stays of the text before it. Attention of
 * the question's tokens, each weighted by how many slots it had to spread it over, is averaged; the
 * best slots stay and the question does. Keys that stay are then rotated to contiguous positions
 * (position=slot), as in the paper. It sees the question by construction; where none is marked all
 * of the prompt's tokens vote and none of them is sure to stay. */
#include "strategies/strategy.h"

struct opt {
    struct kvg_budget budget;
    int position;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    (void)err;
    in->needs.n_obs = 1;
    in->needs.obs[0].kind = KVG_OBS_WEIGHTED;
    in->needs.obs[0].window = KVG_WINDOW_QUESTION;
    in->needs.question = 1;
    in->position = o->position ? KVG_POSITION_TRUE : KVG_POSITION_SLOT;
    in->needs.raw_keys = in->position == KVG_POSITION_SLOT;
    return 0;
}

/* Slots at the end of a head that belong to the question. */
static size_t question_slots(const struct kvg_view *v, size_t head)
{
    size_t lo = 0, hi = kvg_view_slots(v, head), n = hi;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int32_t pos;
        kvg_store_positions_range(v->store, v->layer, head, mid, 1, &pos);
        if ((size_t)pos < v->text->question)
            lo = mid + 1;
        else
            hi = mid;
    }
    return n - lo;
}

static void score(struct kvg_inst *in, const struct kvg_view *v, size_t head, float *out)
{
    size_t n = kvg_view_slots(v, head);
    size_t n_keep = kvg_budget_slots(in->budget, v->n_logical, &in->dims);
    size_t n_old = n - kvg_window_slots(question_slots(v, head), n, n_keep);
    kvg_obs_votes(in, v, in->first_obs, head, n_old, 1, 0, out);
    for (size_t j = n_old; j < n; j++)
        out[j] = KVG_MUST_STAY;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "50%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, the question included"},
    {.name = "position",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct opt, position),
     .def = "slot",
     .choices = "slot|true",
     .help = "rotary positions: place in the cache, or place in the text"},
    {0}};

const struct kvg_strategy kvg_finch = {
    .name = "finch",
    .summary = "keeps what the question attends to, with contiguous positions",
    .source = "Corallo and Papotti 2024, arXiv 2408.00167, section 3",
    .observes = "weighted column sums of attention over the question's queries; every key is "
                "rotated at every read",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .score = score,
};
