/* Owns the division of a prompt into calls. */
#include "run/prompt.h"

#include "run/record.h"

#include <string.h>

void kvg_prompt_set_future(struct kvg_stream *s, const int32_t *future, size_t n)
{
    s->text.future = n ? future : NULL;
    s->text.n_future = n;
}

/* Tokens [from, to) of the prompt. Only the last call gives a row. */
static int feed_part(struct kvg_engine *e, const struct kvg_prompt *p, size_t from, size_t to,
                     int is_due, struct kvg_err *err)
{
    int is_last = to == p->n;
    uint32_t want = (uint32_t)(to - from - 1);
    for (size_t i = 0; i < p->n_streams; i++)
        kvg_prompt_set_future(p->streams[i], p->tokens + to,
                              p->n_future ? p->n - to + p->n_future : 0);
    int rc = kvg_engine_prompt(e, p->streams, p->n_streams, p->tokens + from, to - from, is_due,
                               &want, is_last ? 1 : 0, is_last ? p->hidden : NULL, err);
    if (!rc && p->times)
        kvg_record_add_times(p->times, kvg_engine_times(e));
    return rc;
}

int kvg_prompt_feed(struct kvg_engine *e, const struct kvg_prompt *p, struct kvg_err *err)
{
    size_t split = p->unseen && p->n_context < p->n ? p->n_context : p->n;
    int rc = 0;
    if (p->times)
        memset(p->times, 0, sizeof *p->times);
    if (split)
        rc = feed_part(e, p, 0, split, 1, err);
    if (!rc && split < p->n)
        rc = feed_part(e, p, split, p->n, 0, err);
    return rc;
}
