/* Owns the last step of building a workload: the id index, kind, languages and warnings. Must not
 * know any file format. */
#include "workloads/build.h"

#include <stdio.h>
#include <string.h>

static int no_memory(struct kvg_build *b, struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading the workload '%s'", b->path);
}

static int index_ids(struct kvg_build *b, struct kvg_err *err)
{
    struct kvg_workload *w = b->w;
    size_t cap = 16;
    while (cap < 2 * b->n_items)
        cap *= 2;
    w->index = kvg_arena_array(&w->arena, cap, sizeof *w->index);
    if (!w->index)
        return no_memory(b, err);
    w->n_index = cap;
    for (size_t i = 0; i < w->n_items; i++) {
        size_t at = (size_t)kvg_hash_fnv_str(KVG_FNV_INIT, w->items[i].id) & (cap - 1);
        for (; w->index[at]; at = (at + 1) & (cap - 1)) {
            const struct kvg_item *other = &w->items[w->index[at] - 1];
            char quoted[128];
            b->where = w->items[i].line;
            if (!strcmp(other->id, w->items[i].id))
                return kvg_build_fail(b, err,
                                      "the id '%s' was used before, at %s %zu; ids must be "
                                      "unique",
                                      kvg_build_quote(other->id, quoted), b->unit, other->line);
        }
        w->index[at] = (uint32_t)i + 1;
    }
    return 0;
}

/* All items must be of one kind: a translation knows the language of its source. */
static int find_kind(struct kvg_build *b, struct kvg_err *err)
{
    struct kvg_workload *w = b->w;
    int is_translation = w->items[0].source_lang != NULL;
    for (size_t i = 1; i < w->n_items; i++) {
        b->where = w->items[i].line;
        if ((w->items[i].source_lang != NULL) != is_translation)
            return kvg_build_fail(b, err,
                                  "chat and translation items are mixed (only some have a "
                                  "'source_lang'); split the file");
    }
    w->kind = is_translation ? KVG_WORKLOAD_TRANSLATION : KVG_WORKLOAD_CHAT;
    return 0;
}

static int find_languages(struct kvg_build *b, struct kvg_err *err)
{
    struct kvg_workload *w = b->w;
    enum { MAX = 64 };
    const char *seen[MAX];
    size_t n = 0;
    for (size_t i = 0; i < w->n_items; i++) {
        size_t j = 0;
        while (j < n && strcmp(seen[j], w->items[i].lang) != 0)
            j++;
        if (j < n)
            continue;
        b->where = w->items[i].line;
        if (n == MAX)
            return kvg_build_fail(b, err, "more than %d languages", MAX);
        seen[n++] = w->items[i].lang;
    }
    const char **list = kvg_arena_array(&w->arena, n, sizeof *list);
    if (!list)
        return no_memory(b, err);
    memcpy(list, seen, n * sizeof *list);
    w->languages = list;
    w->n_languages = n;
    return 0;
}

static int write_warnings(struct kvg_build *b, struct kvg_err *err)
{
    static const char *const text[KVG_N_LOSSES] = {
        [KVG_LOSS_LEADING] = "%zu assistant message(s) before the first user message were left out"
                             " (first in '%s')",
        [KVG_LOSS_JOINED] = "%zu message(s) were joined to the one before, of the same role (first"
                            " in '%s')",
        [KVG_LOSS_CUT] = "%zu item(s) were cut before an empty message (first '%s')",
        [KVG_LOSS_NO_USER] = "%zu item(s) without any user message were left out (first '%s')",
    };
    struct kvg_workload *w = b->w;
    const char **list = kvg_arena_array(&w->arena, KVG_N_LOSSES, sizeof *list);
    if (!list)
        return no_memory(b, err);
    for (size_t k = 0; k < KVG_N_LOSSES; k++) {
        if (!b->loss[k].n)
            continue;
        char line[320], quoted[128];
        snprintf(line, sizeof line, text[k], b->loss[k].n,
                 kvg_build_quote(b->loss[k].first_id, quoted));
        if (!(list[w->n_warnings++] = kvg_arena_strdup(&w->arena, line)))
            return no_memory(b, err);
    }
    w->warnings = list;
    return 0;
}

int kvg_build_finish(struct kvg_build *b, struct kvg_err *err)
{
    struct kvg_workload *w = b->w;
    if (b->n_items == 0 && b->loss[KVG_LOSS_NO_USER].n)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "nothing to replay in the workload '%s': none of its %zu item(s) has a "
                        "user message",
                        b->path, b->loss[KVG_LOSS_NO_USER].n);
    if (b->n_items == 0)
        return KVG_FAIL(err, KVG_EFORMAT, "nothing in the workload '%s': it has no items", b->path);
    struct kvg_item *items = kvg_arena_array(&w->arena, b->n_items, sizeof *items);
    if (!items)
        return no_memory(b, err);
    memcpy(items, b->items, b->n_items * sizeof *items);
    w->items = items;
    w->n_items = b->n_items;
    int rc = index_ids(b, err);
    if (!rc)
        rc = find_kind(b, err);
    if (!rc)
        rc = find_languages(b, err);
    if (!rc)
        rc = write_warnings(b, err);
    return rc;
}

const struct kvg_item *kvg_workload_find(const struct kvg_workload *w, const char *id)
{
    size_t mask = w->n_index - 1;
    size_t at = (size_t)kvg_hash_fnv_str(KVG_FNV_INIT, id) & mask;
    for (; w->index[at]; at = (at + 1) & mask)
        if (!strcmp(w->items[w->index[at] - 1].id, id))
            return &w->items[w->index[at] - 1];
    return NULL;
}
