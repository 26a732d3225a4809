/* Owns option tables: parsing, defaults, printing; must not know any table's meaning. */
#include "base/opt.h"

#include <stdio.h>
#include <string.h>

static void *field(void *values, const struct kvg_opt *o)
{
    return (char *)values + o->offset;
}

static const void *cfield(const void *values, const struct kvg_opt *o)
{
    return (const char *)values + o->offset;
}

const struct kvg_opt *kvg_opt_find(const struct kvg_opt *table, const char *name)
{
    for (const struct kvg_opt *o = table; o && o->name; o++)
        if (!strcmp(o->name, name))
            return o;
    return NULL;
}

int kvg_budget_parse(const char *s, struct kvg_budget *out)
{
    char buf[64];
    size_t n = strlen(s);
    if (n == 0 || n >= sizeof buf)
        return -1;
    memcpy(buf, s, n + 1);
    char last = buf[n - 1];
    out->kind = last == '%' ? KVG_BUDGET_SHARE : last == 'B' ? KVG_BUDGET_BYTES : KVG_BUDGET_TOKENS;
    if (out->kind != KVG_BUDGET_TOKENS)
        buf[n - 1] = 0;
    if (out->kind == KVG_BUDGET_TOKENS) {
        int64_t v;
        if (kvg_text_i64(buf, &v) || v < 1 || v > 1 << 30)
            return -1;
        out->value = (double)v;
        return 0;
    }
    if (kvg_text_double(buf, &out->value) || out->value <= 0)
        return -1;
    if (out->kind == KVG_BUDGET_SHARE) {
        out->value /= 100.0;
        if (out->value > 1)
            return -1;
    }
    return 0;
}

void kvg_budget_print(const struct kvg_budget *b, struct kvg_str *out)
{
    char buf[40];
    double v = b->kind == KVG_BUDGET_SHARE ? b->value * 100 : b->value;
    snprintf(buf, sizeof buf, "%.10g", v);
    kvg_str_add(out, buf);
    kvg_str_add(out, b->kind == KVG_BUDGET_SHARE ? "%" : b->kind == KVG_BUDGET_BYTES ? "B" : "");
}

static int choice_index(const char *choices, const char *text)
{
    size_t n = strlen(text);
    int i = 0;
    for (const char *p = choices; p; i++) {
        const char *bar = strchr(p, '|');
        size_t len = bar ? (size_t)(bar - p) : strlen(p);
        if (len == n && !memcmp(p, text, n))
            return i;
        p = bar ? bar + 1 : NULL;
    }
    return -1;
}

static const char *choice_at(const char *choices, int want, size_t *len)
{
    const char *p = choices;
    for (int i = 0; p; i++) {
        const char *bar = strchr(p, '|');
        *len = bar ? (size_t)(bar - p) : strlen(p);
        if (i == want)
            return p;
        p = bar ? bar + 1 : NULL;
    }
    *len = 0;
    return "";
}

static int out_of_range(const struct kvg_opt *o, double v)
{
    return (o->min != 0 || o->max != 0) && !(v >= o->min && v <= o->max);
}

static int list_add(struct kvg_strlist *l, const char *s, size_t n, struct kvg_arena *a)
{
    const char **v = kvg_arena_array(a, l->n + 1, sizeof *v);
    char *copy = kvg_arena_strndup(a, s, n);
    if (!v || !copy)
        return -1;
    if (l->n)
        memcpy(v, l->v, l->n * sizeof *v);
    v[l->n] = copy;
    l->v = v;
    l->n++;
    return 0;
}

static int list_set(const struct kvg_opt *o, struct kvg_strlist *l, const char *text,
                    struct kvg_arena *a)
{
    if (!o->choices)
        return list_add(l, text, strlen(text), a);
    for (const char *p = text; p;) {
        const char *comma = strchr(p, ',');
        size_t n = comma ? (size_t)(comma - p) : strlen(p);
        if (n && list_add(l, p, n, a))
            return -1;
        p = comma ? comma + 1 : NULL;
    }
    return 0;
}

static int set_text(const struct kvg_opt *o, void *values, const char *owner, const char *text,
                    struct kvg_arena *a, struct kvg_err *err)
{
    void *f = field(values, o);
    switch (o->type) {
    case KVG_OPT_INT:
        if (kvg_text_i64(text, f) || out_of_range(o, (double)*(int64_t *)f))
            return KVG_FAIL(err, KVG_EUSAGE, "%s: '%s=%s' is not a whole number from %.0f to %.0f",
                            owner, o->name, text, o->min, o->max);
        return 0;
    case KVG_OPT_FLOAT:
        if (kvg_text_double(text, f) || out_of_range(o, *(double *)f))
            return KVG_FAIL(err, KVG_EUSAGE, "%s: '%s=%s' is not a number from %g to %g", owner,
                            o->name, text, o->min, o->max);
        return 0;
    case KVG_OPT_BOOL:
        *(int *)f = !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "1");
        if (!*(int *)f && strcmp(text, "no") && strcmp(text, "false") && strcmp(text, "0"))
            return KVG_FAIL(err, KVG_EUSAGE, "%s: '%s=%s' is neither yes nor no", owner, o->name,
                            text);
        return 0;
    case KVG_OPT_CHOICE:
        *(int *)f = choice_index(o->choices, text);
        if (*(int *)f < 0)
            return KVG_FAIL(err, KVG_EUSAGE, "%s: '%s=%s' is not one of %s", owner, o->name, text,
                            o->choices);
        return 0;
    case KVG_OPT_STRING:
        *(const char **)f = kvg_arena_strdup(a, text);
        if (!*(const char **)f)
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
        return 0;
    case KVG_OPT_BUDGET:
        if (kvg_budget_parse(text, f))
            return KVG_FAIL(err, KVG_EUSAGE,
                            "%s: '%s=%s' is not a budget: give tokens (512), a share (25%%) or "
                            "bytes per token (4000B)",
                            owner, o->name, text);
        return 0;
    case KVG_OPT_LIST:
        if (list_set(o, f, text, a))
            return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
        return 0;
    }
    return KVG_FAIL(err, KVG_ECHECK, "%s: option '%s' has no type", owner, o->name);
}

int kvg_opt_defaults(const struct kvg_opt *table, void *values, struct kvg_arena *a,
                     struct kvg_err *err)
{
    for (const struct kvg_opt *o = table; o && o->name; o++) {
        if (!o->def)
            continue;
        int rc = set_text(o, values, "default", o->def, a, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int unknown(const struct kvg_opt *table, const char *owner, const char *name,
                   struct kvg_err *err)
{
    const char *names[64];
    size_t n = 0;
    for (const struct kvg_opt *o = table; o && o->name && n < 64; o++)
        names[n++] = o->name;
    const char *near = kvg_text_nearest(name, names, n);
    if (near)
        return KVG_FAIL(err, KVG_EUSAGE, "%s has no option '%s'; did you mean '%s'?", owner, name,
                        near);
    return KVG_FAIL(err, KVG_EUSAGE, "%s has no option '%s'", owner, name);
}

int kvg_opt_set(const struct kvg_opt *table, void *values, const char *owner, const char *name,
                const char *text, struct kvg_arena *a, struct kvg_err *err)
{
    const struct kvg_opt *o = kvg_opt_find(table, name);
    if (!o)
        return unknown(table, owner, name, err);
    return set_text(o, values, owner, text, a, err);
}

void kvg_opt_print(const struct kvg_opt *o, const void *values, struct kvg_str *out)
{
    const void *f = cfield(values, o);
    char buf[40];
    size_t len;
    const char *s;
    kvg_str_addf(out, "%s=", o->name);
    switch (o->type) {
    case KVG_OPT_INT:
        kvg_str_addf(out, "%lld", (long long)*(const int64_t *)f);
        break;
    case KVG_OPT_FLOAT:
        kvg_text_put_double(buf, sizeof buf, *(const double *)f);
        kvg_str_add(out, buf);
        break;
    case KVG_OPT_BOOL:
        kvg_str_add(out, *(const int *)f ? "yes" : "no");
        break;
    case KVG_OPT_CHOICE:
        s = choice_at(o->choices, *(const int *)f, &len);
        kvg_str_addn(out, s, len);
        break;
    case KVG_OPT_STRING:
        s = *(const char *const *)f;
        kvg_str_add(out, s ? s : "");
        break;
    case KVG_OPT_BUDGET:
        kvg_budget_print(f, out);
        break;
    case KVG_OPT_LIST:
        for (size_t i = 0; i < ((const struct kvg_strlist *)f)->n; i++)
            kvg_str_addf(out, "%s%s", i ? "," : "", ((const struct kvg_strlist *)f)->v[i]);
        break;
    }
}

static void help_range(const struct kvg_opt *o, struct kvg_str *out)
{
    if (o->type == KVG_OPT_CHOICE)
        kvg_str_addf(out, " {%s}", o->choices);
    else if ((o->type == KVG_OPT_INT || o->type == KVG_OPT_FLOAT) && (o->min != 0 || o->max != 0))
        kvg_str_addf(out, " [%g..%g]", o->min, o->max);
    if (o->def && o->type != KVG_OPT_BOOL)
        kvg_str_addf(out, " (default %s)", o->def);
    else if (o->type == KVG_OPT_BOOL && o->def)
        kvg_str_addf(out, " (default %s)", o->def);
}

void kvg_opt_help(const struct kvg_opt *table, const char *prefix, struct kvg_str *out)
{
    for (const struct kvg_opt *o = table; o && o->name; o++) {
        char left[96];
        const char *mv = o->metavar ? o->metavar : "";
        if (o->short_name)
            snprintf(left, sizeof left, "-%c, %s%s %s", o->short_name, prefix, o->name, mv);
        else
            snprintf(left, sizeof left, "%s%s %s", prefix, o->name, mv);
        kvg_str_addf(out, "  %-28s %s", left, o->help ? o->help : "");
        help_range(o, out);
        kvg_str_addc(out, '\n');
    }
}

static const struct kvg_opt *find_short(const struct kvg_opt *table, char c)
{
    for (const struct kvg_opt *o = table; o && o->name; o++)
        if (o->short_name == c)
            return o;
    return NULL;
}

int kvg_opt_parse_argv(const struct kvg_opt *table, void *values, const char *owner, int argc,
                       char **argv, struct kvg_strlist *rest, struct kvg_arena *a,
                       struct kvg_err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || arg[1] == 0) {
            if (list_add(rest, arg, strlen(arg), a))
                return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
            continue;
        }
        char name[64];
        const char *eq = strchr(arg, '='), *value = NULL;
        const struct kvg_opt *o;
        if (arg[1] == '-') {
            size_t n = eq ? (size_t)(eq - arg) - 2 : strlen(arg) - 2;
            if (n >= sizeof name)
                n = sizeof name - 1;
            memcpy(name, arg + 2, n);
            name[n] = 0;
            value = eq ? eq + 1 : NULL;
            o = kvg_opt_find(table, name);
        } else {
            snprintf(name, sizeof name, "%.60s", arg + 1);
            o = arg[2] ? NULL : find_short(table, arg[1]);
        }
        if (!o)
            return unknown(table, owner, name, err);
        if (!value && o->type == KVG_OPT_BOOL)
            value = "yes";
        if (!value && i + 1 < argc)
            value = argv[++i];
        if (!value)
            return KVG_FAIL(err, KVG_EUSAGE, "%s: option '%s' needs a value %s", owner, o->name,
                            o->metavar ? o->metavar : "");
        int rc = set_text(o, values, owner, value, a, err);
        if (rc)
            return rc;
    }
    return 0;
}
