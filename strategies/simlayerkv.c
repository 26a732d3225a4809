/* simlayerkv: a layer whose last query looks at nothing but the first tokens and the latest ones is
 * lazy; it keeps only those. All other layers keep everything, so how much goes depends on the text
 * and a threshold, not on a budget. What a lazy layer keeps is one token less than what is looked
 * at, as published (`recent - 1` latest tokens, the query's own among them).
 *
 * Later turns: every layer is judged again by the slots it has; one that was lazy and has few
 * besides is left alone. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    double threshold;
    int64_t sinks, recent;
    const char *params;
};

static int set_param(struct opt *o, const char *name, const char *value)
{
    int64_t one;
    if (!strcmp(name, "lazy_threshold"))
        return kvg_text_double(value, &o->threshold) || !(o->threshold >= 0 && o->threshold <= 1);
    if (!strcmp(name, "n_recent"))
        return kvg_text_i64(value, &o->recent) || o->recent < 2;
    if (!strcmp(name, "n_initial"))
        return kvg_text_i64(value, &o->sinks) || o->sinks < 0;
    if (!strcmp(name, "n_last")) /* the last query alone decides */
        return kvg_text_i64(value, &one) || one != 1;
    return -1;
}

/* `name=value name=value`, as another implementation prints its settings. */
static int take_params(struct kvg_inst *in, struct kvg_err *err)
{
    struct opt *o = in->opt;
    char *text = kvg_arena_strdup(in->arena, o->params), *rest = NULL;
    if (!text)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (char *p = strtok_r(text, " ", &rest); p; p = strtok_r(NULL, " ", &rest)) {
        char *eq = strchr(p, '=');
        if (eq)
            *eq = 0;
        if (!eq || set_param(o, p, eq + 1))
            return KVG_FAIL(err, KVG_EUSAGE,
                            "strategy 'simlayerkv': 'params' takes lazy_threshold, n_recent, "
                            "n_initial and n_last=1 as name=value with spaces between, not '%s'",
                            p);
    }
    return 0;
}

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    int rc = o->params ? take_params(in, err) : 0;
    if (rc)
        return rc;
    in->needs.n_obs = 1;
    in->needs.obs[0].window = 1;
    return 0;
}

/* Attention of the last query on the first `sinks` slots and on the `recent` before its own, mean
 * over the query heads. */
static double looked_at(const struct kvg_inst *in, const struct kvg_view *v, size_t n)
{
    const struct opt *o = in->opt;
    const float *rows = v->obs[in->first_obs];
    double sum = 0;
    for (size_t g = 0; g < in->dims.n_heads; g++) {
        for (size_t j = 0; j < (size_t)o->sinks; j++)
            sum += (double)rows[g * v->obs_ld + j];
        for (size_t j = n - 1 - (size_t)o->recent; j < n - 1; j++)
            sum += (double)rows[g * v->obs_ld + j];
    }
    return sum / (double)in->dims.n_heads;
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct opt *o = in->opt;
    size_t n = kvg_view_slots(v, 0), sinks = (size_t)o->sinks, recent = (size_t)o->recent;
    if (n <= sinks + recent + 1 || looked_at(in, v, n) <= o->threshold)
        return;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++)
        kvg_plan_drop_range(plan, v->layer, h, sinks, n - (recent - 1));
}

static const struct kvg_opt opts[] = {
    {.name = "threshold",
     .type = KVG_OPT_FLOAT,
     .offset = offsetof(struct opt, threshold),
     .def = "0.9",
     .min = 0,
     .max = 1,
     .metavar = "SHARE",
     .help = "attention on first and recent tokens above which a layer is lazy"},
    {.name = "sinks",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, sinks),
     .def = "4",
     .min = 0,
     .max = 1024,
     .metavar = "N",
     .help = "first tokens that stay in a lazy layer"},
    {.name = "recent",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct opt, recent),
     .def = "1024",
     .min = 2,
     .max = 1 << 20,
     .metavar = "N",
     .help = "tokens before the last one that count as recent; N - 1 tokens stay"},
    {.name = "params",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct opt, params),
     .metavar = "TEXT",
     .help = "the three in kvpress' words: 'lazy_threshold=0.9 n_last=1 n_recent=1024 n_initial=4'"},
    {0}};

const struct kvg_strategy kvg_simlayerkv = {
    .name = "simlayerkv",
    .summary = "lazy layers keep only first and recent tokens, the others everything",
    .source = "Zhang et al. 2024, arXiv 2410.13846",
    .observes = "the attention row of a prompt's last query",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_TURN, 0},
    .path_dependent = 1,
    .init = init,
    .compress = compress,
};
