/* kvzip: what the model needs to repeat the text. When a prompt has ended the model is asked to
 * repeat the conversation, chunk by chunk, on top of the cache; a slot scores the largest attention
 * that any of those queries pays to it, and the lowest scores of all layers and heads go. No
 * question is looked at. The slots of the first positions stay, the very first one before all. A
 * chunk is shorter than asked for where the model's context has no room for more; where not even
 * LEAST tokens fit, the engine is told what would be needed and refuses. */
#include "strategies/strategy.h"

#include <string.h>

static const char *const asks[] = {
    "\n\nRepeat the previous context exactly.",
    "\n\nRepeat the part of the previous context exactly, starting with"}; /* and HINT tokens */

enum { INSTRUCTION_MAX = 256, HINT = 8, LEAST = 16 };

struct opt {
    struct kvg_budget budget;
    int64_t chunk, sinks;
    int layerwise;
};

struct state {
    int first_pass; /* the present pass is the first of its round */
    int scored;     /* scores of a round wait to be used */
};

struct user {
    int32_t ask[2][INSTRUCTION_MAX], end[INSTRUCTION_MAX];
    size_t n_ask[2], n_end;
    float *room; /* [n_layers * n_kv_heads * n_ctx] */
};

static int encode(const struct kvg_inst *in, const char *text, int32_t *out, size_t *n,
                  struct kvg_err *err)
{
    *n = in->dims.encode(in->dims.tokenizer, text, out, INSTRUCTION_MAX);
    if (*n > INSTRUCTION_MAX)
        return KVG_FAIL(err, KVG_EUNSUP, "strategy 'kvzip': its instruction has %zu tokens, %d fit",
                        *n, INSTRUCTION_MAX);
    return 0;
}

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct kvg_dims *d = &in->dims;
    if (!d->encode)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'kvzip' asks in words; use a model file with a tokenizer");
    if (in->schedule.kind == KVG_SCHED_EVERY)
        return KVG_FAIL(err, KVG_EUSAGE,
                        "strategy 'kvzip' asks at a prompt's end; use 'schedule=turn'");
    struct user *u = in->user = kvg_arena_alloc(in->arena, sizeof *u);
    if (!u || !(u->room = kvg_arena_array(in->arena, d->n_layers * d->n_kv_heads * d->n_ctx,
                                          sizeof *u->room)))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    in->needs.n_obs = 1;
    in->needs.obs[0].kind = KVG_OBS_MAX;
    in->needs.n_side = 1;
    in->needs.side_floats[0] = 1;
    int rc = encode(in, "\n", u->end, &u->n_end, err);
    for (size_t i = 0; i < 2 && !rc; i++)
        rc = encode(in, asks[i], u->ask[i], &u->n_ask[i], err);
    return rc;
}

static size_t append(int32_t *out, size_t at, const int32_t *tokens, size_t n)
{
    memcpy(out + at, tokens, n * sizeof *tokens);
    return at + n;
}

static size_t auxiliary(struct kvg_inst *in, const struct kvg_text *text, size_t index,
                        int32_t *out, size_t cap)
{
    const struct opt *o = in->opt;
    const struct user *u = in->user;
    struct state *s = in->state;
    size_t later = index > 0, chunk = (size_t)o->chunk, hinted = u->n_ask[1] + HINT;
    size_t words = (u->n_ask[0] > hinted ? u->n_ask[0] : hinted) + u->n_end;
    size_t room = in->dims.n_ctx - text->n_tokens; /* the model's, whatever was reserved */
    if (room < words + LEAST)
        return words + LEAST;
    chunk = chunk < room - words ? chunk : room - words;
    size_t from = index * chunk;
    if (from >= text->n_tokens)
        return 0;
    size_t part = text->n_tokens - from < chunk ? text->n_tokens - from : chunk;
    if (words + part > cap)
        return words + part;
    s->first_pass = !later;
    size_t known = from < HINT ? from : HINT, n = append(out, 0, u->ask[later], u->n_ask[later]);
    n = append(out, n, text->tokens + from - known, known);
    n = append(out, n, u->end, u->n_end);
    return append(out, n, text->tokens + from, part);
}

static void observe(struct kvg_inst *in, const struct kvg_view *v, struct kvg_store *columns)
{
    struct state *s = in->state;
    size_t group = in->dims.n_heads / in->dims.n_kv_heads;
    if (v->phase != KVG_PHASE_AUX)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h);
        float *most = v->scratch;
        if (s->first_pass)
            memset(most, 0, n * sizeof *most);
        else
            kvg_store_side_get(columns, v->layer, h, in->first_side, most);
        for (size_t g = 0; g < group; g++) {
            const float *p = v->obs[in->first_obs] + (h * group + g) * v->obs_ld;
            for (size_t j = 0; j < n; j++)
                most[j] = p[j] > most[j] ? p[j] : most[j];
        }
        kvg_store_side_put(columns, v->layer, h, in->first_side, most);
    }
    s->scored = 1;
}

/* Slots that stay of `rows` heads together. A budget in tokens is per head; a share drops the whole
 * part of its complement, as the original does. */
static size_t total_keep(const struct kvg_inst *in, size_t rows, size_t n_logical)
{
    const struct kvg_budget *b = in->budget;
    if (b->kind == KVG_BUDGET_TOKENS)
        return rows * kvg_budget_slots(b, n_logical, &in->dims);
    double share = b->kind == KVG_BUDGET_SHARE ? b->value : b->value / (double)in->dims.slot_bytes;
    double all = (double)(rows * n_logical), drop = all * (1 - (share < 1 ? share : 1));
    size_t keep = rows * n_logical - (size_t)drop;
    return keep > rows ? keep : rows;
}

/* Scores of one head. Attention is at most 1 (and rounding): sinks score 2 and more, so that every
 * head is left with one of them whatever the budget. */
static size_t head_scores(const struct kvg_inst *in, const struct kvg_view *v, size_t layer,
                          size_t head, float *out)
{
    const struct opt *o = in->opt;
    size_t n = kvg_store_head(v->store, layer, head)->n_slots;
    kvg_store_side_get(v->store, layer, head, in->first_side, out);
    for (size_t j = 0; j < n && j < (size_t)o->sinks; j++) {
        int32_t pos;
        kvg_store_positions_range(v->store, layer, head, j, 1, &pos);
        if (pos < (int32_t)o->sinks)
            out[j] = (float)(o->sinks + 1 - pos);
    }
    return n;
}

static void keep_head(const struct kvg_inst *in, const struct kvg_view *v, size_t layer,
                      size_t head, float cut, size_t *ties, struct kvg_plan *plan)
{
    size_t n = head_scores(in, v, layer, head, v->scratch), m = 0;
    uint32_t *slots = kvg_plan_slots(plan, n);
    for (size_t j = 0; j < n && slots; j++) {
        int tie = v->scratch[j] == cut && *ties > 0;
        *ties -= (size_t)tie;
        if (v->scratch[j] > cut || tie)
            slots[m++] = (uint32_t)j;
    }
    if (slots && m < n)
        kvg_plan_list(plan, KVG_PLAN_KEEP, layer, head, slots, m);
}

/* The best slots of some layers together stay (ties: the lower layer, head, slot). */
static void keep_best_of(struct kvg_inst *in, const struct kvg_view *v, size_t layer0,
                         size_t n_layers, struct kvg_plan *plan)
{
    const struct user *u = in->user;
    size_t heads = in->dims.n_kv_heads, rows = n_layers * heads, n = 0, above = 0;
    size_t keep = total_keep(in, rows, v->n_logical);
    for (size_t i = 0; i < rows; i++)
        n += head_scores(in, v, layer0 + i / heads, i % heads, u->room + n);
    if (keep >= n)
        return;
    float cut = kvg_select_largest(u->room, n, keep);
    for (size_t j = 0; j < n; j++)
        above += u->room[j] > cut;
    size_t ties = keep - above;
    for (size_t i = 0; i < rows; i++)
        keep_head(in, v, layer0 + i / heads, i % heads, cut, &ties, plan);
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    const struct state *s = in->state;
    if (o->layerwise && s->scored)
        keep_best_of(in, v, v->layer, 1, plan);
}

static void end_pass(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    struct state *s = in->state;
    if (!o->layerwise && s->scored)
        keep_best_of(in, v, 0, in->dims.n_layers, plan);
    s->scored = 0;
}

static const struct kvg_opt opts[] = {
    {.name = "budget",
     .type = KVG_OPT_BUDGET,
     .offset = offsetof(struct opt, budget),
     .def = "30%",
     .metavar = "TOKENS|SHARE%|BYTES",
     .help = "tokens that stay, on average over all layers and heads"},
    {.name = "chunk",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, chunk),
     .def = "2048",
     .min = LEAST,
     .max = 1 << 20,
     .metavar = "N",
     .help = "tokens that are repeated at a time"},
    {.name = "sinks",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, sinks),
     .def = "4",
     .min = 1,
     .max = 64,
     .metavar = "N",
     .help = "first positions that stay in every head"},
    {.name = "layerwise",
     .type = KVG_OPT_BOOL,
     .offset = offsetof(struct opt, layerwise),
     .def = "no",
     .help = "every layer drops its own lowest instead of all layers together"},
    {0}};

const struct kvg_strategy kvg_kvzip = {
    .name = "kvzip",
    .summary =
        "keeps what the model attends to when it repeats the text, over all layers and heads",
    .source = "Kim et al. 2025, arXiv 2505.23416, section 3",
    .observes = "extra passes that repeat the text, about two prefills more; one f32 per slot",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .state_bytes = sizeof(struct state),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .auxiliary = auxiliary,
    .observe = observe,
    .compress = compress,
    .end_pass = end_pass,
};
