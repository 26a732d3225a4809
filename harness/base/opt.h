/* Option tables. One table gives parsing, defaults, ranges, --help, documentation and the echo in
 * the CSV; it serves the command line and the strategies' specs alike. */
#ifndef KVG_BASE_OPT_H
#define KVG_BASE_OPT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_opt_type {
    KVG_OPT_INT,    /* int64_t */
    KVG_OPT_FLOAT,  /* double */
    KVG_OPT_BOOL,   /* int: yes|no; on a command line the bare flag means yes */
    KVG_OPT_CHOICE, /* int: index into `choices` */
    KVG_OPT_STRING, /* const char * in the caller's arena; NULL when the default is NULL */
    KVG_OPT_BUDGET, /* struct kvg_budget: 512 | 25% | 4000B */
    KVG_OPT_LIST    /* struct kvg_strlist: repeatable; commas separate when `choices` is "," */
};

enum kvg_budget_kind { KVG_BUDGET_TOKENS, KVG_BUDGET_SHARE, KVG_BUDGET_BYTES };

/* How much may stay: tokens per KV head, a share (0..1] of the logical length at that moment, or
 * bytes per token of the logical length, over all layers and heads. */
struct kvg_budget {
    enum kvg_budget_kind kind;
    double value;
};

struct kvg_strlist {
    const char **v;
    size_t n;
};

struct kvg_opt {
    const char *name; /* NULL ends a table */
    enum kvg_opt_type type;
    size_t offset;       /* of the field in the values struct */
    const char *def;     /* text form; NULL = none (0 or NULL) */
    double min, max;     /* INT and FLOAT; both 0 = any */
    const char *choices; /* CHOICE: "a|b|c" */
    const char *metavar; /* for help, e.g. "FILE" */
    const char *help;
    char short_name; /* command line only; 0 = none */
};

/* Fills `values` with the defaults. */
int kvg_opt_defaults(const struct kvg_opt *table, void *values, struct kvg_arena *a,
                     struct kvg_err *err);
/* Sets one option from text. `owner` names the table in messages ("strategy 'snapkv'"). Unknown
 * names give KVG_EUSAGE with the nearest known one. */
int kvg_opt_set(const struct kvg_opt *table, void *values, const char *owner, const char *name,
                const char *text, struct kvg_arena *a, struct kvg_err *err);
const struct kvg_opt *kvg_opt_find(const struct kvg_opt *table, const char *name);
/* Appends "name=value" of one option in canonical text form. */
void kvg_opt_print(const struct kvg_opt *o, const void *values, struct kvg_str *out);
/* Appends a help table, one option a line, with `prefix` before names ("--" or ""). */
void kvg_opt_help(const struct kvg_opt *table, const char *prefix, struct kvg_str *out);

/* Parses argv[1..] of a verb; positional arguments go to `rest`. Recognises --name value,
 * --name=value, -x value. */
int kvg_opt_parse_argv(const struct kvg_opt *table, void *values, const char *owner, int argc,
                       char **argv, struct kvg_strlist *rest, struct kvg_arena *a,
                       struct kvg_err *err);

int kvg_budget_parse(const char *s, struct kvg_budget *out);
void kvg_budget_print(const struct kvg_budget *b, struct kvg_str *out);

#endif
