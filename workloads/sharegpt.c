/* Reads items in ShareGPT's form, {"id", "conversations": [{"from", "value"}, ...]}; files are one
 * array, {"data": [...]} or JSONL. All turns are kept: reuse happens in the later ones. Must not
 * know how messages become turns. */
#include "workloads/build.h"

#include <string.h>

static int accepts(const json_t *record)
{
    return json_is_array(json_object_get(record, "conversations"));
}

/* Who speaks, by the names found in published files; -1 = unknown. */
static int role_of(const char *from)
{
    static const struct {
        const char *from;
        enum kvg_role role;
    } roles[] = {
        {"human", KVG_ROLE_USER},          {"user", KVG_ROLE_USER},
        {"gpt", KVG_ROLE_ASSISTANT},       {"chatgpt", KVG_ROLE_ASSISTANT},
        {"bing", KVG_ROLE_ASSISTANT},      {"bard", KVG_ROLE_ASSISTANT},
        {"assistant", KVG_ROLE_ASSISTANT}, {"system", KVG_ROLE_SYSTEM},
        {"tool", KVG_ROLE_TOOL},
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i].from, from))
            return (int)roles[i].role;
    return -1;
}

static int read_message(struct kvg_build *b, const json_t *m, size_t at, struct kvg_err *err)
{
    const char *from = json_string_value(json_object_get(m, "from"));
    const char *value = json_string_value(json_object_get(m, "value"));
    char quoted[128];
    if (!from || !value)
        return kvg_build_fail(b, err, "message %zu needs the strings 'from' and 'value'", at);
    int role = role_of(from);
    if (role < 0)
        return kvg_build_fail(b, err,
                              "message %zu is from '%s'; known are human, user, gpt, "
                              "chatgpt, bing, bard, assistant, system, tool",
                              at, kvg_build_quote(from, quoted));
    return kvg_build_message(b, (enum kvg_role)role, role == KVG_ROLE_TOOL ? "tool" : NULL, value,
                             -1, err);
}

static int read_record(struct kvg_build *b, const json_t *record, struct kvg_err *err)
{
    char buf[32];
    const json_t *messages = json_object_get(record, "conversations");
    if (!json_is_array(messages))
        return kvg_build_fail(b, err, "no list 'conversations' in this item");
    int rc = kvg_build_begin(b, kvg_json_id(json_object_get(record, "id"), buf), err);
    for (size_t i = 0; i < json_array_size(messages) && !rc; i++)
        rc = read_message(b, json_array_get(messages, i), i, err);
    if (rc || (rc = kvg_build_end_messages(b, err)))
        return rc;
    return kvg_build_end(b, err);
}

const struct kvg_workload_format kvg_workload_sharegpt = {
    .name = "sharegpt",
    .help = "[{\"id\", \"conversations\": [{\"from\", \"value\"}, ...]}, ...] (or one a line)",
    .accepts = accepts,
    .record = read_record,
};
