/* What readers of workload files share: the format table's row, the builder that turns messages
 * into turns, and errors that carry file and line. Private to workloads/. */
#ifndef KVG_WORKLOADS_BUILD_H
#define KVG_WORKLOADS_BUILD_H

#include "workloads/workload.h"

#include <jansson.h>
#include <stdarg.h>

/* Longest line of a JSONL or TSV file, largest JSON document read in one piece, largest file. */
#define KVG_WORKLOAD_LINE_MAX ((size_t)32 << 20)
#define KVG_WORKLOAD_JSON_MAX ((size_t)256 << 20)
#define KVG_WORKLOAD_FILE_MAX ((size_t)1 << 30)

struct kvg_build;

/* One row of the format table. A JSON format reads records (objects, one a line or in one array)
 * with `record`; a text format reads the whole file with `text`. */
struct kvg_workload_format {
    const char *name;
    const char *help;                     /* what a file looks like */
    int (*accepts)(const json_t *record); /* is the first record of this format? NULL: text */
    int (*record)(struct kvg_build *b, const json_t *record, struct kvg_err *err);
    int (*text)(struct kvg_build *b, const char *data, size_t n, struct kvg_err *err);
};

enum kvg_role {
    KVG_ROLE_SYSTEM, /* leads the conversation; later ones join the user's side with a label */
    KVG_ROLE_USER,
    KVG_ROLE_ASSISTANT,
    KVG_ROLE_TOOL /* joins the user's side with a label */
};

/* What a reader leaves out or changes; counted, and reported in kvg_workload.warnings. */
enum kvg_loss {
    KVG_LOSS_LEADING, /* assistant messages before the first user message */
    KVG_LOSS_JOINED,  /* two messages of the same role in a row */
    KVG_LOSS_CUT,     /* the rest of an item behind an empty message */
    KVG_LOSS_NO_USER, /* whole items */
    KVG_N_LOSSES
};

struct kvg_loss_count {
    size_t n;
    const char *first_id; /* item that showed it first */
};

#define WORKLOAD(name) extern const struct kvg_workload_format kvg_workload_##name;
#include "workloads/list.h"
#undef WORKLOAD

/* The workload under construction. Text goes to w->arena, growing arrays to the heap. */
struct kvg_build {
    struct kvg_workload *w;
    const char *path; /* for messages */
    const char *unit; /* "line" or "item": what `where` counts */
    size_t where;     /* place of the record being read, from 1 */

    struct kvg_item *items;
    size_t n_items, cap_items;

    /* the item being built */
    struct kvg_item cur;
    struct kvg_turn *turns;
    size_t n_turns, cap_turns;
    int32_t *turn_of_message; /* user messages: their turn; others -1 */
    size_t n_messages, cap_messages;
    struct kvg_str system, user, reply;
    struct kvg_str question; /* of the turn being built; empty = none was named */
    enum { KVG_AT_START, KVG_IN_USER, KVG_IN_REPLY, KVG_BETWEEN_TURNS } state;
    int is_cut;
    enum kvg_role last_role;

    struct kvg_loss_count loss[KVG_N_LOSSES];
};

void kvg_build_init(struct kvg_build *b, struct kvg_workload *w, const char *path);
void kvg_build_release(struct kvg_build *b);

/* "malformed workload '<path>', line <where>: <message>"; returns KVG_EFORMAT. */
int kvg_build_fail(struct kvg_build *b, struct kvg_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Starts an item. `id` may be NULL or empty: "<unit>-<where>" then. */
int kvg_build_begin(struct kvg_build *b, const char *id, struct kvg_err *err);
/* Adds a message of the item. `label` (tools) may be NULL. `replaces` is the index among the
 * messages added so far of the user message that this user message replaces, or -1. */
int kvg_build_message(struct kvg_build *b, enum kvg_role role, const char *label, const char *text,
                      int64_t replaces, struct kvg_err *err);
/* Names the question within the user message that was just added. */
int kvg_build_question(struct kvg_build *b, const char *question, struct kvg_err *err);
/* Ends the turn although no reply came: a user message that follows is a turn of its own. */
int kvg_build_close_turn(struct kvg_build *b, struct kvg_err *err);
/* Ends the messages: from here on cur.* may be set, and checks added. */
int kvg_build_end_messages(struct kvg_build *b, struct kvg_err *err);
/* Adds a check to a turn; any[n_any] lives in the workload's arena. */
int kvg_build_check(struct kvg_build *b, int64_t turn, const char **any, size_t n_any,
                    struct kvg_err *err);
/* Ends the item; one without a user message is left out and counted. */
int kvg_build_end(struct kvg_build *b, struct kvg_err *err);

/* Moves everything into the workload: items, index, languages, kind, warnings. */
int kvg_build_finish(struct kvg_build *b, struct kvg_err *err);

/* Feeds all records of a JSON file to the format that accepts the first one. */
int kvg_json_read(struct kvg_build *b, const char *data, size_t n,
                  const struct kvg_workload_format *(*choose)(const json_t *record),
                  struct kvg_err *err);
/* A string, or an integer printed into buf; NULL when it is neither. */
const char *kvg_json_id(const json_t *v, char buf[32]);
/* `s` with control characters and bytes that are not UTF-8 replaced, at most 120 bytes of it. */
const char *kvg_build_quote(const char *s, char buf[128]);

/* Where packs are: the folder of a pack by bare name or folder, in `arena`; NULL = there is none.
 */
const char *kvg_pack_folder(const char *name_or_folder, struct kvg_arena *arena);
/* KVG_EUSAGE: no such workload; names the packs there are. */
int kvg_pack_unknown(const char *name, struct kvg_err *err);

#endif
