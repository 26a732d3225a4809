/* Reads MT-Bench questions, {"question_id", "category", "turns": [...]}. There are no recorded
 * replies; "reference" is a judge's note, not a reply, and is not read. Must not know how messages
 * become turns. */
#include "workloads/build.h"

static int accepts(const json_t *record)
{
    return json_is_array(json_object_get(record, "turns"));
}

/* Each question is a turn of its own although no reply stands between them. */
static int read_turns(struct kvg_build *b, const json_t *turns, struct kvg_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < json_array_size(turns) && !rc; i++) {
        const char *text = json_string_value(json_array_get(turns, i));
        if (!text)
            return kvg_build_fail(b, err, "turn %zu is not a string", i);
        rc = kvg_build_message(b, KVG_ROLE_USER, NULL, text, -1, err);
        if (!rc)
            rc = kvg_build_close_turn(b, err);
    }
    return rc;
}

static int read_record(struct kvg_build *b, const json_t *record, struct kvg_err *err)
{
    char buf[32];
    const json_t *turns = json_object_get(record, "turns");
    const char *category = json_string_value(json_object_get(record, "category"));
    if (!json_is_array(turns))
        return kvg_build_fail(b, err, "no list 'turns' in this item");
    int rc = kvg_build_begin(b, kvg_json_id(json_object_get(record, "question_id"), buf), err);
    if (rc || (rc = read_turns(b, turns, err)) || (rc = kvg_build_end_messages(b, err)))
        return rc;
    if (category && !(b->cur.family = kvg_arena_strdup(&b->w->arena, category)))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading '%s'", b->path);
    return kvg_build_end(b, err);
}

const struct kvg_workload_format kvg_workload_mtbench = {
    .name = "mtbench",
    .help =
        "JSONL, {\"question_id\", \"category\", \"turns\": [\"...\", ...]}, no recorded replies",
    .accepts = accepts,
    .record = read_record,
};
