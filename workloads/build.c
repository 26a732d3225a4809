/* Owns the builder: messages in file order become turns, ids are checked, losses are counted. Must
 * not know any file format. */
#include "workloads/build.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKS_MAX = 64 };

static int no_memory(struct kvg_build *b, struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading the workload '%s'", b->path);
}

/* Makes room for one more element. */
static int grow(void *array_ptr, size_t n, size_t *cap, size_t elem_bytes)
{
    void **array = array_ptr;
    if (n < *cap)
        return 0;
    size_t want = *cap ? *cap * 2 : 64;
    void *p = reallocarray(*array, want, elem_bytes);
    if (!p)
        return -1;
    *array = p;
    *cap = want;
    return 0;
}

void kvg_build_init(struct kvg_build *b, struct kvg_workload *w, const char *path)
{
    memset(b, 0, sizeof *b);
    b->w = w;
    b->path = path;
    b->unit = "line";
}

void kvg_build_release(struct kvg_build *b)
{
    free(b->items);
    free(b->turns);
    free(b->turn_of_message);
    kvg_str_release(&b->system);
    kvg_str_release(&b->user);
    kvg_str_release(&b->reply);
    kvg_str_release(&b->question);
}

const char *kvg_build_quote(const char *s, char buf[128])
{
    size_t n = strlen(s), out = 0;
    for (size_t i = 0; i < n && out < 116;) {
        uint32_t cp;
        size_t len = kvg_text_utf8_decode(s + i, n - i, &cp);
        if (cp < 0x20 || cp == 0x7f || (cp >= 0x80 && cp < 0xa0) || (cp == 0xfffd && len == 1)) {
            buf[out++] = '?';
        } else {
            memcpy(buf + out, s + i, len);
            out += len;
        }
        i += len;
    }
    buf[out] = 0;
    return buf;
}

int kvg_build_fail(struct kvg_build *b, struct kvg_err *err, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return KVG_FAIL(err, KVG_EFORMAT, "malformed workload '%s', %s %zu: %s", b->path, b->unit,
                    b->where, msg);
}

static void lose(struct kvg_build *b, enum kvg_loss kind)
{
    if (b->loss[kind].n++ == 0)
        b->loss[kind].first_id = b->cur.id;
}

int kvg_build_begin(struct kvg_build *b, const char *id, struct kvg_err *err)
{
    memset(&b->cur, 0, sizeof b->cur);
    b->n_turns = b->n_messages = 0;
    kvg_str_clear(&b->system);
    kvg_str_clear(&b->user);
    kvg_str_clear(&b->reply);
    kvg_str_clear(&b->question);
    b->state = KVG_AT_START;
    b->last_role = KVG_ROLE_SYSTEM;
    b->is_cut = 0;
    b->cur.id = id && *id ? kvg_arena_strdup(&b->w->arena, id)
                          : kvg_arena_printf(&b->w->arena, "%s-%zu", b->unit, b->where);
    b->cur.line = b->where;
    b->cur.family = "other";
    b->cur.lang = "und";
    b->cur.title = "";
    return b->cur.id ? 0 : no_memory(b, err);
}

static int is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n\v\f")] == 0;
}

/* The last place where `what` stands in `text`; NULL = nowhere. */
static const char *find_last(const char *text, const char *what)
{
    const char *last = NULL;
    for (const char *p = text; (p = strstr(p, what)); p++)
        last = p;
    return last;
}

int kvg_build_question(struct kvg_build *b, const char *question, struct kvg_err *err)
{
    char quoted[128];
    if (b->is_cut)
        return 0;
    if (b->state != KVG_IN_USER || b->last_role != KVG_ROLE_USER)
        return kvg_build_fail(b, err, "a question is named where no user message stands");
    if (is_blank(question) || !find_last(b->user.s, question))
        return kvg_build_fail(b, err, "the question '%s' is not part of its message",
                              kvg_build_quote(question, quoted));
    kvg_str_clear(&b->question);
    kvg_str_add(&b->question, question);
    return b->question.failed ? no_memory(b, err) : 0;
}

/* Copies the gathered user text and reply into the last turn. */
static int flush_turn(struct kvg_build *b, struct kvg_err *err)
{
    if (b->state == KVG_AT_START || b->state == KVG_BETWEEN_TURNS)
        return 0;
    struct kvg_turn *t = &b->turns[b->n_turns - 1];
    struct kvg_arena *a = &b->w->arena;
    t->user = kvg_arena_strndup(a, b->user.s, b->user.len);
    if (b->state == KVG_IN_REPLY)
        t->reply = kvg_arena_strndup(a, b->reply.s, b->reply.len);
    if (!t->user || b->user.failed || b->reply.failed || (b->state == KVG_IN_REPLY && !t->reply))
        return no_memory(b, err);
    if (b->question.len) {
        t->question = find_last(t->user, b->question.s);
        t->n_question = b->question.len;
    }
    kvg_str_clear(&b->user);
    kvg_str_clear(&b->reply);
    kvg_str_clear(&b->question);
    return 0;
}

static int is_on_path(const struct kvg_build *b, int32_t turn)
{
    int32_t t = (int32_t)b->n_turns - 1;
    while (t >= 0 && t != turn)
        t = b->turns[t].parent;
    return t == turn;
}

static int open_turn(struct kvg_build *b, int64_t replaces, struct kvg_err *err)
{
    struct kvg_turn t = {.rewind_to = -1, .parent = (int32_t)b->n_turns - 1};
    if (b->n_turns >= INT32_MAX)
        return kvg_build_fail(b, err, "too many turns");
    if (replaces >= 0) {
        t.rewind_to = (uint64_t)replaces < b->n_messages ? b->turn_of_message[replaces] : -1;
        if (t.rewind_to < 0)
            return kvg_build_fail(b, err,
                                  "'replaces' is %lld, which is not an earlier user "
                                  "message of '%s'",
                                  (long long)replaces, b->cur.id);
        t.parent = b->turns[t.rewind_to].parent;
        if (!is_on_path(b, t.parent))
            return kvg_build_fail(b, err,
                                  "'replaces' is %lld, which goes back to a part of '%s' "
                                  "that was thrown away before",
                                  (long long)replaces, b->cur.id);
    }
    if (grow(&b->turns, b->n_turns, &b->cap_turns, sizeof *b->turns))
        return no_memory(b, err);
    b->turns[b->n_turns++] = t;
    b->state = KVG_IN_USER;
    return 0;
}

static void append(struct kvg_str *s, const char *label, const char *text)
{
    if (s->len)
        kvg_str_add(s, "\n\n");
    if (label)
        kvg_str_addf(s, "[%s]\n", label);
    kvg_str_add(s, text);
}

static int add_user_side(struct kvg_build *b, enum kvg_role role, const char *label,
                         const char *text, int64_t replaces, struct kvg_err *err)
{
    int rc;
    if (b->state == KVG_IN_USER) {
        if (replaces >= 0)
            return kvg_build_fail(b, err,
                                  "'replaces' stands in '%s' behind a user message without "
                                  "a reply; give that one a reply",
                                  b->cur.id);
        if (role == KVG_ROLE_USER && b->last_role == KVG_ROLE_USER)
            lose(b, KVG_LOSS_JOINED);
    } else if ((rc = flush_turn(b, err)) || (rc = open_turn(b, replaces, err))) {
        return rc;
    }
    append(&b->user, label, text);
    if (role == KVG_ROLE_USER)
        b->turn_of_message[b->n_messages] = (int32_t)b->n_turns - 1;
    return 0;
}

static void add_reply(struct kvg_build *b, const char *text)
{
    if (b->state == KVG_AT_START) {
        lose(b, KVG_LOSS_LEADING);
        return;
    }
    if (b->state == KVG_IN_REPLY)
        lose(b, KVG_LOSS_JOINED);
    append(&b->reply, NULL, text);
    b->state = KVG_IN_REPLY;
}

int kvg_build_message(struct kvg_build *b, enum kvg_role role, const char *label, const char *text,
                      int64_t replaces, struct kvg_err *err)
{
    int rc = 0;
    if (grow(&b->turn_of_message, b->n_messages, &b->cap_messages, sizeof *b->turn_of_message))
        return no_memory(b, err);
    b->turn_of_message[b->n_messages] = -1;
    if (b->is_cut)
        goto out;
    if (is_blank(text) && (role == KVG_ROLE_USER || role == KVG_ROLE_ASSISTANT)) {
        /* Going on behind a hole would invent a conversation that nobody had. */
        b->is_cut = 1;
        lose(b, KVG_LOSS_CUT);
    } else if (role == KVG_ROLE_ASSISTANT) {
        add_reply(b, text);
    } else if (role == KVG_ROLE_SYSTEM && b->state == KVG_AT_START) {
        if (!is_blank(text))
            append(&b->system, NULL, text);
    } else {
        rc =
            add_user_side(b, role, role == KVG_ROLE_SYSTEM ? "system" : label, text, replaces, err);
    }
    b->last_role = role;
out:
    b->n_messages++;
    return rc;
}

int kvg_build_close_turn(struct kvg_build *b, struct kvg_err *err)
{
    int rc = flush_turn(b, err);
    b->state = KVG_BETWEEN_TURNS;
    return rc;
}

int kvg_build_end_messages(struct kvg_build *b, struct kvg_err *err)
{
    int rc = kvg_build_close_turn(b, err);
    if (rc)
        return rc;
    if (b->system.failed)
        return no_memory(b, err);
    if (b->system.len) {
        b->cur.system = kvg_arena_strndup(&b->w->arena, b->system.s, b->system.len);
        if (!b->cur.system)
            return no_memory(b, err);
    }
    return 0;
}

int kvg_build_check(struct kvg_build *b, int64_t turn, const char **any, size_t n_any,
                    struct kvg_err *err)
{
    if (turn >= (int64_t)b->n_turns && b->is_cut)
        return 0;
    if (turn < 0 || turn >= (int64_t)b->n_turns)
        return kvg_build_fail(b, err, "a check names turn %lld, but '%s' has turns 0 to %lld",
                              (long long)turn, b->cur.id, (long long)b->n_turns - 1);
    struct kvg_turn *t = &b->turns[turn];
    if (t->n_checks == CHECKS_MAX)
        return kvg_build_fail(b, err, "turn %lld of '%s' has more than %d checks", (long long)turn,
                              b->cur.id, CHECKS_MAX);
    struct kvg_check *list = kvg_arena_array(&b->w->arena, t->n_checks + 1, sizeof *list);
    if (!list)
        return no_memory(b, err);
    if (t->n_checks)
        memcpy(list, t->checks, t->n_checks * sizeof *list);
    list[t->n_checks++] = (struct kvg_check){any, n_any};
    t->checks = list;
    return 0;
}

int kvg_build_end(struct kvg_build *b, struct kvg_err *err)
{
    if (b->n_turns == 0) {
        lose(b, KVG_LOSS_NO_USER);
        return 0;
    }
    struct kvg_turn *turns = kvg_arena_array(&b->w->arena, b->n_turns, sizeof *turns);
    if (!turns || grow(&b->items, b->n_items, &b->cap_items, sizeof *b->items))
        return no_memory(b, err);
    memcpy(turns, b->turns, b->n_turns * sizeof *turns);
    b->cur.turns = turns;
    b->cur.n_turns = b->n_turns;
    b->items[b->n_items++] = b->cur;
    return 0;
}
