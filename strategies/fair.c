/* fair: equal retention for every instruction. Each span of the named kinds is a class, the tokens
 * outside of them one more. The budget of a head is shared out in proportion to the classes'
 * lengths in the text (largest remainder); what a class has no slots for goes to the others in the
 * same way. Inside a class the best by score stay. Slots that must stay (`protect` before it in the
 * spec) and the newest token do so and are taken off the budget first. Spans beyond the first
 * CLASSES_MAX - 1 count as outside. */
#include "strategies/strategy.h"

#include <string.h>

struct opt {
    const char *spans;
    unsigned kinds;
};

enum { CLASSES_MAX = 256 };

/* The last class is the outside. */
struct class
{
    size_t begin, end; /* positions; of the outside 0, 0 */
    size_t length;     /* tokens of the text so far */
    size_t n_slots;    /* slots that may go */
    size_t quota;
    int full;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    struct opt *o = in->opt;
    in->needs.spans = 1;
    return kvg_span_kinds_parse(in, o->spans, &o->kinds, err);
}

static size_t find_classes(const struct opt *o, const struct kvg_view *v, struct class *c)
{
    const struct kvg_text *t = v->text;
    size_t n = 0, outside = v->n_logical;
    for (size_t i = 0; i < t->n_spans && n < CLASSES_MAX - 1; i++) {
        const struct kvg_span *s = &t->spans[i];
        size_t end = s->end < v->n_logical ? s->end : v->n_logical;
        if (!(o->kinds >> s->kind & 1) || s->begin >= end)
            continue;
        c[n++] = (struct class){.begin = s->begin, .end = end, .length = end - s->begin};
        outside -= end - s->begin;
    }
    c[n++] = (struct class){.length = outside};
    return n;
}

/* The class of every slot, to out; counts the slots that may go. */
static void sort_slots(struct class *c, size_t n_classes, const int32_t *pos, const float *x,
                       size_t n, uint16_t *out)
{
    size_t k = 0, outside = n_classes - 1;
    for (size_t i = 0; i < n_classes; i++)
        c[i].n_slots = 0;
    for (size_t j = 0; j < n; j++) {
        size_t p = (size_t)pos[j];
        while (k < outside && c[k].end <= p)
            k++;
        size_t mine = k < outside && c[k].begin <= p ? k : outside;
        out[j] = (uint16_t)mine;
        c[mine].n_slots += x[j] < KVG_MUST_STAY;
    }
}

/* Classes whose share would be more than they have get all they have; what they leave is shared
 * among the rest, until all shares fit. Returns what is left for the open ones. */
static size_t fill_small(struct class *c, size_t n_classes, size_t room, size_t *open_length)
{
    for (size_t i = 0; i < n_classes; i++)
        c[i].full = 0;
    for (int again = 1; again;) {
        again = 0;
        *open_length = 0;
        for (size_t i = 0; i < n_classes; i++)
            *open_length += c[i].full ? 0 : c[i].length;
        size_t left = room;
        for (size_t i = 0; i < n_classes; i++) {
            if (c[i].full || room * c[i].length < c[i].n_slots * *open_length)
                continue;
            c[i].full = again = 1;
            c[i].quota = c[i].n_slots < left ? c[i].n_slots : left;
            left -= c[i].quota;
        }
        room = left;
    }
    return room;
}

static void share_out(struct class *c, size_t n_classes, size_t room)
{
    size_t length, left = room = fill_small(c, n_classes, room, &length);
    for (size_t i = 0; i < n_classes; i++) {
        if (c[i].full)
            continue;
        c[i].quota = room * c[i].length / length;
        left -= c[i].quota;
    }
    for (; left > 0; left--) {
        size_t most = n_classes;
        for (size_t i = 0; i < n_classes; i++)
            if (!c[i].full &&
                (most == n_classes || room * c[i].length % length > room * c[most].length % length))
                most = i;
        c[most].quota++;
        c[most].full = 1; /* one more at most */
    }
}

/* The best of class k keep their scores; the others fall below every score of the head. */
static void lower_rest(const struct kvg_view *v, const struct class *c, size_t k,
                       const uint16_t *of, float *x, size_t n, float below)
{
    float *own = v->scratch;
    unsigned char *stays = (unsigned char *)(v->scratch + v->max_slots);
    size_t m = 0;
    for (size_t j = 0; j < n; j++)
        if (of[j] == k && x[j] < KVG_MUST_STAY)
            own[m++] = x[j];
    kvg_mark_best(v, own, m, c[k].quota, stays);
    m = 0;
    for (size_t j = 0; j < n; j++)
        if (of[j] == k && x[j] < KVG_MUST_STAY && !stays[m++])
            x[j] -= below;
}

static float spread(const float *x, size_t n)
{
    float lo = INFINITY, hi = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        if (!isfinite(x[j]))
            continue;
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
    }
    return hi > lo ? hi - lo : 0;
}

static void rescore(struct kvg_inst *in, const struct kvg_view *v, struct kvg_scores *scores)
{
    struct class c[CLASSES_MAX];
    size_t n_classes = find_classes(in->opt, v, c);
    int32_t *pos = (int32_t *)(void *)v->scratch;
    uint16_t *of = (uint16_t *)(void *)(v->scratch + 2 * v->max_slots);
    for (size_t h = 0; h < scores->n_heads; h++) {
        float *x = kvg_scores_head(scores, h);
        size_t n = scores->n[h], n_free = 0;
        if (scores->n_keep[h] >= n)
            continue;
        x[n - 1] = KVG_MUST_STAY;
        kvg_store_positions(v->store, v->layer, h, pos);
        sort_slots(c, n_classes, pos, x, n, of);
        for (size_t i = 0; i < n_classes; i++)
            n_free += c[i].n_slots;
        size_t n_must = n - n_free, n_keep = scores->n_keep[h];
        share_out(c, n_classes, n_keep > n_must ? n_keep - n_must : 0);
        float below = 2 * spread(x, n) + 1;
        for (size_t i = 0; i < n_classes; i++)
            lower_rest(v, c, i, of, x, n, below);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "spans",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct opt, spans),
     .def = "system/tool/glossary",
     .metavar = "KIND/KIND",
     .help = "whose spans are treated alike: any of system, tool, glossary, user"},
    {0}};

const struct kvg_strategy kvg_fair = {
    .name = "fair",
    .summary = "keeps the same share of every instruction's tokens",
    .source = "The Pitfalls of KV Cache Compression, 2025, arXiv 2510.00231",
    .observes = "the spans that the workload marks; nothing of the model",
    .kind = KVG_KIND_WRAP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
    .rescore = rescore,
};
