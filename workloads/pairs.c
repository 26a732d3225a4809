/* Reads conversations kept as pairs: MT-Bench-101, {"id", "task", "history": [{"user", "bot"}]},
 * and MT-Eval, {"question_id", "category", "conversation": [{"user", "sys"}]}. Must not know how
 * messages become turns. */
#include "workloads/build.h"

static const json_t *pairs_of(const json_t *record)
{
    const json_t *pairs = json_object_get(record, "history");
    return pairs ? pairs : json_object_get(record, "conversation");
}

static int accepts(const json_t *record)
{
    return json_object_get(json_array_get(pairs_of(record), 0), "user") != NULL;
}

static int read_pair(struct kvg_build *b, const json_t *pair, size_t at, struct kvg_err *err)
{
    const char *user = json_string_value(json_object_get(pair, "user"));
    const char *reply = json_string_value(json_object_get(pair, "bot"));
    if (!reply)
        reply = json_string_value(json_object_get(pair, "sys"));
    if (!user || !reply)
        return kvg_build_fail(b, err, "pair %zu needs the strings 'user' and 'bot' (or 'sys')", at);
    int rc = kvg_build_message(b, KVG_ROLE_USER, NULL, user, -1, err);
    return rc ? rc : kvg_build_message(b, KVG_ROLE_ASSISTANT, NULL, reply, -1, err);
}

static int read_record(struct kvg_build *b, const json_t *record, struct kvg_err *err)
{
    char buf[32];
    const json_t *pairs = pairs_of(record), *id = json_object_get(record, "id");
    const char *family = json_string_value(json_object_get(record, "task"));
    if (!family)
        family = json_string_value(json_object_get(record, "category"));
    if (!json_is_array(pairs))
        return kvg_build_fail(b, err, "no list 'history' or 'conversation' in this item");
    int rc =
        kvg_build_begin(b, kvg_json_id(id ? id : json_object_get(record, "question_id"), buf), err);
    for (size_t i = 0; i < json_array_size(pairs) && !rc; i++)
        rc = read_pair(b, json_array_get(pairs, i), i, err);
    if (rc || (rc = kvg_build_end_messages(b, err)))
        return rc;
    if (family && !(b->cur.family = kvg_arena_strdup(&b->w->arena, family)))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading '%s'", b->path);
    return kvg_build_end(b, err);
}

const struct kvg_workload_format kvg_workload_pairs = {
    .name = "pairs",
    .help = "JSONL, {\"id\", \"history\": [{\"user\", \"bot\"}, ...]} or \"conversation\", \"sys\"",
    .accepts = accepts,
    .record = read_record,
};
