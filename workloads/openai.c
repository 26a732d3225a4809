/* Reads items in OpenAI's form, {"messages": [{"role", "content"}, ...]}, with an optional "meta"
 * of our own: the format of the packs. A batch request ({"custom_id", "body": {...}}) is read too.
 * Content is a string or a list of text parts; a user message may name its "question", a stretch of
 * the content beside which the rest is pasted material. Must not know how messages become turns. */
#include "workloads/build.h"

#include <string.h>

static const json_t *messages_of(const json_t *record)
{
    const json_t *m = json_object_get(record, "messages");
    return m ? m : json_object_get(json_object_get(record, "body"), "messages");
}

static int accepts(const json_t *record)
{
    return json_is_array(messages_of(record));
}

/* Appends the text of a message's content. */
static int add_content(struct kvg_build *b, const json_t *content, size_t at, struct kvg_str *out,
                       struct kvg_err *err)
{
    size_t i;
    const json_t *part;
    if (json_is_string(content)) {
        kvg_str_add(out, json_string_value(content));
        return 0;
    }
    if (!content || json_is_null(content))
        return 0;
    if (!json_is_array(content))
        return kvg_build_fail(b, err, "the content of message %zu is neither a string nor a list",
                              at);
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *text = json_string_value(json_object_get(part, "text"));
        char quoted[128];
        if (type && strcmp(type, "text") != 0)
            return kvg_build_fail(b, err,
                                  "message %zu holds a part of type '%s'; only text is "
                                  "supported",
                                  at, kvg_build_quote(type, quoted));
        if (!text)
            return kvg_build_fail(b, err, "part %zu of message %zu has no 'text'", i, at);
        kvg_str_addf(out, "%s%s", i ? "\n" : "", text);
    }
    return 0;
}

/* A call of a tool is part of what the assistant said: the model has to write it. */
static void add_tool_calls(const json_t *calls, struct kvg_str *out)
{
    size_t i;
    const json_t *call;
    json_array_foreach(calls, i, call)
    {
        const json_t *f = json_object_get(call, "function");
        const char *name = json_string_value(json_object_get(f, "name"));
        const char *args = json_string_value(json_object_get(f, "arguments"));
        kvg_str_addf(out, "%s[call] %s(%s)", out->len ? "\n" : "", name ? name : "?",
                     args ? args : "");
    }
}

static int read_role(struct kvg_build *b, const json_t *message, size_t at, enum kvg_role *role,
                     struct kvg_err *err)
{
    static const struct {
        const char *name;
        enum kvg_role role;
    } roles[] = {
        {"system", KVG_ROLE_SYSTEM}, {"developer", KVG_ROLE_SYSTEM},
        {"user", KVG_ROLE_USER},     {"assistant", KVG_ROLE_ASSISTANT},
        {"tool", KVG_ROLE_TOOL},     {"function", KVG_ROLE_TOOL},
    };
    const char *name = json_string_value(json_object_get(message, "role"));
    char quoted[128];
    for (size_t i = 0; name && i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i].name, name)) {
            *role = roles[i].role;
            return 0;
        }
    if (!name)
        return kvg_build_fail(b, err, "message %zu has no 'role'", at);
    return kvg_build_fail(b, err,
                          "message %zu has the unknown role '%s'; known are system, "
                          "developer, user, assistant, tool",
                          at, kvg_build_quote(name, quoted));
}

static int read_message(struct kvg_build *b, const json_t *m, size_t at, struct kvg_err *err)
{
    struct kvg_str text = {0}, label = {0};
    const json_t *replaces = json_object_get(m, "replaces");
    const json_t *question = json_object_get(m, "question");
    const char *name = json_string_value(json_object_get(m, "name"));
    enum kvg_role role = KVG_ROLE_USER;
    int rc = read_role(b, m, at, &role, err);
    if (rc)
        goto out;
    if (replaces &&
        (role != KVG_ROLE_USER || !json_is_integer(replaces) || json_integer_value(replaces) < 0)) {
        rc = kvg_build_fail(b, err,
                            "'replaces' of message %zu must be the index of an earlier user "
                            "message, on a user message",
                            at);
        goto out;
    }
    if (question && (role != KVG_ROLE_USER || !json_is_string(question))) {
        rc = kvg_build_fail(b, err, "'question' of message %zu must be a string on a user message",
                            at);
        goto out;
    }
    if ((rc = add_content(b, json_object_get(m, "content"), at, &text, err)))
        goto out;
    if (role == KVG_ROLE_ASSISTANT)
        add_tool_calls(json_object_get(m, "tool_calls"), &text);
    if (role == KVG_ROLE_TOOL)
        kvg_str_addf(&label, "tool%s%s", name ? " " : "", name ? name : "");
    if (text.failed || label.failed)
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory reading the workload '%s'", b->path);
    else
        rc = kvg_build_message(b, role, label.s, text.s ? text.s : "",
                               replaces ? json_integer_value(replaces) : -1, err);
    if (!rc && question)
        rc = kvg_build_question(b, json_string_value(question), err);
out:
    kvg_str_release(&text);
    kvg_str_release(&label);
    return rc;
}

/* Copies a string field of meta, when it is there and not empty, to *out. */
static int read_field(struct kvg_build *b, const json_t *meta, const char *key, const char **out,
                      struct kvg_err *err)
{
    const json_t *v = json_object_get(meta, key);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return kvg_build_fail(b, err, "'meta.%s' must be a string", key);
    if (!*json_string_value(v))
        return 0;
    *out = kvg_arena_strdup(&b->w->arena, json_string_value(v));
    return *out ? 0 : KVG_FAIL(err, KVG_ENOMEM, "out of memory reading '%s'", b->path);
}

static int read_checks(struct kvg_build *b, const json_t *checks, struct kvg_err *err)
{
    size_t i, j;
    const json_t *check, *s;
    if (checks && !json_is_array(checks))
        return kvg_build_fail(b, err, "'meta.checks' must be a list");
    json_array_foreach(checks, i, check)
    {
        const json_t *turn = json_object_get(check, "turn"), *any = json_object_get(check, "any");
        size_t n = json_array_size(any);
        if (!json_is_integer(turn) || n == 0)
            return kvg_build_fail(b, err,
                                  "check %zu needs an integer 'turn' and a list 'any' that "
                                  "is not empty",
                                  i);
        const char **list = kvg_arena_array(&b->w->arena, n, sizeof *list);
        json_array_foreach(any, j, s)
        {
            const char *text = json_string_value(s);
            if (!text || !text[strspn(text, " \t\r\n")])
                return kvg_build_fail(b, err,
                                      "check %zu: 'any' must hold strings that are not "
                                      "empty",
                                      i);
            if (!list || !(list[j] = kvg_arena_strdup(&b->w->arena, text)))
                return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading '%s'", b->path);
        }
        int rc = kvg_build_check(b, json_integer_value(turn), list, n, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_terms(struct kvg_build *b, const json_t *terms, struct kvg_err *err)
{
    size_t i, n = json_array_size(terms);
    const json_t *pair;
    if (terms && !json_is_array(terms))
        return kvg_build_fail(b, err, "'meta.terms' must be a list of [source, target]");
    if (n == 0)
        return 0;
    struct kvg_term *list = kvg_arena_array(&b->w->arena, n, sizeof *list);
    json_array_foreach(terms, i, pair)
    {
        const char *source = json_string_value(json_array_get(pair, 0));
        const char *target = json_string_value(json_array_get(pair, 1));
        if (!source || !target || json_array_size(pair) != 2)
            return kvg_build_fail(b, err, "term %zu must be [source, target]", i);
        if (!list || !(list[i].source = kvg_arena_strdup(&b->w->arena, source)) ||
            !(list[i].target = kvg_arena_strdup(&b->w->arena, target)))
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading '%s'", b->path);
    }
    b->cur.terms = list;
    b->cur.n_terms = n;
    return 0;
}

static int read_meta(struct kvg_build *b, const json_t *meta, struct kvg_err *err)
{
    int rc;
    if (!meta || b->n_turns == 0)
        return 0;
    if (!json_is_object(meta))
        return kvg_build_fail(b, err, "'meta' must be an object");
    if ((rc = read_field(b, meta, "family", &b->cur.family, err)) ||
        (rc = read_field(b, meta, "lang", &b->cur.lang, err)) ||
        (rc = read_field(b, meta, "source_lang", &b->cur.source_lang, err)) ||
        (rc = read_field(b, meta, "title", &b->cur.title, err)) ||
        (rc = read_terms(b, json_object_get(meta, "terms"), err)))
        return rc;
    return read_checks(b, json_object_get(meta, "checks"), err);
}

static int read_record(struct kvg_build *b, const json_t *record, struct kvg_err *err)
{
    char buf[32];
    const json_t *id = json_object_get(record, "id"), *messages = messages_of(record);
    if (!id)
        id = json_object_get(record, "custom_id");
    if (!json_is_array(messages))
        return kvg_build_fail(b, err, "no list 'messages' in this item");
    int rc = kvg_build_begin(b, kvg_json_id(id, buf), err);
    for (size_t i = 0; i < json_array_size(messages) && !rc; i++)
        rc = read_message(b, json_array_get(messages, i), i, err);
    if (rc || (rc = kvg_build_end_messages(b, err)))
        return rc;
    if ((rc = read_meta(b, json_object_get(record, "meta"), err)))
        return rc;
    return kvg_build_end(b, err);
}

const struct kvg_workload_format kvg_workload_openai = {
    .name = "openai",
    .help = "JSONL, {\"messages\": [{\"role\", \"content\"}, ...], \"meta\"?: {...}} (packs)",
    .accepts = accepts,
    .record = read_record,
};
