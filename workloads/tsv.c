/* Reads parallel text: one segment a line, "source<TAB>target", with an optional third column that
 * names the document. Without it an empty line ends a document, and so does the 8th segment. An
 * optional first line "#en<TAB>es" gives the languages. Must not know how messages become turns. */
#include "workloads/build.h"

#include <string.h>

enum { SEGMENTS_MAX = 8, COLUMNS = 3 };

struct tsv {
    struct kvg_build *b;
    const char *source_lang, *lang, *instruction;
    int is_open;     /* an item has begun */
    const char *doc; /* its document name; NULL = unnamed */
    size_t n_segments;
};

struct field {
    const char *s;
    size_t n;
};

static const char *language_name(const char *code)
{
    static const char *const names[][2] = {
        {"en", "English"},  {"es", "Spanish"}, {"fr", "French"},     {"de", "German"},
        {"it", "Italian"},  {"nl", "Dutch"},   {"pt", "Portuguese"}, {"pl", "Polish"},
        {"ro", "Romanian"}, {"ru", "Russian"}, {"ja", "Japanese"},   {"zh", "Chinese"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i][0], code))
            return names[i][1];
    return code;
}

/* Splits a line at tabs; returns the number of columns, of which at most COLUMNS are stored. */
static size_t split(const char *s, size_t n, struct field f[COLUMNS])
{
    size_t count = 0;
    const char *end = s + n;
    for (;;) {
        const char *tab = memchr(s, '\t', (size_t)(end - s));
        if (count < COLUMNS)
            f[count] = (struct field){s, (size_t)((tab ? tab : end) - s)};
        count++;
        if (!tab)
            return count;
        s = tab + 1;
    }
}

static int no_memory(struct tsv *t, struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading the workload '%s'", t->b->path);
}

static int set_languages(struct tsv *t, struct field source, struct field target,
                         struct kvg_err *err)
{
    struct kvg_arena *a = &t->b->w->arena;
    if (source.n == 0 || target.n == 0 || source.n > 16 || target.n > 16)
        return kvg_build_fail(t->b, err, "the header must name two languages, as '#en<TAB>es'");
    t->source_lang = kvg_arena_strndup(a, source.s, source.n);
    t->lang = kvg_arena_strndup(a, target.s, target.n);
    if (!t->source_lang || !t->lang)
        return no_memory(t, err);
    t->instruction = kvg_arena_printf(a,
                                      "Translate each message from %s to %s. Answer with the "
                                      "translation only.",
                                      language_name(t->source_lang), language_name(t->lang));
    return t->instruction ? 0 : no_memory(t, err);
}

static int end_document(struct tsv *t, struct kvg_err *err)
{
    if (!t->is_open)
        return 0;
    t->is_open = 0;
    int rc = kvg_build_end_messages(t->b, err);
    if (rc)
        return rc;
    t->b->cur.source_lang = t->source_lang;
    t->b->cur.lang = t->lang;
    t->b->cur.family = "document";
    return kvg_build_end(t->b, err);
}

static int begin_document(struct tsv *t, const struct field *doc, struct kvg_err *err)
{
    t->doc = NULL;
    if (doc && !(t->doc = kvg_arena_strndup(&t->b->w->arena, doc->s, doc->n)))
        return no_memory(t, err);
    int rc = kvg_build_begin(t->b, t->doc, err);
    if (!rc)
        rc = kvg_build_message(t->b, KVG_ROLE_SYSTEM, NULL, t->instruction, -1, err);
    t->is_open = 1;
    t->n_segments = 0;
    return rc;
}

static int is_same_document(const struct tsv *t, const struct field *doc)
{
    if (!t->is_open)
        return 0;
    if (!doc)
        return !t->doc && t->n_segments < SEGMENTS_MAX;
    return t->doc && strlen(t->doc) == doc->n && !memcmp(t->doc, doc->s, doc->n);
}

static int add_text(struct tsv *t, enum kvg_role role, struct field f, struct kvg_err *err)
{
    struct kvg_str text = {0};
    kvg_str_addn(&text, f.s, f.n);
    int rc = text.failed ? no_memory(t, err) : kvg_build_message(t->b, role, NULL, text.s, -1, err);
    kvg_str_release(&text);
    return rc;
}

static int is_blank(struct field f)
{
    for (size_t i = 0; i < f.n; i++)
        if (f.s[i] != ' ')
            return 0;
    return 1;
}

static int read_line(struct tsv *t, const char *s, size_t n, struct kvg_err *err)
{
    struct field f[COLUMNS];
    size_t n_columns = split(s, n, f);
    if (n == 0)
        return end_document(t, err);
    if (memchr(s, 0, n) || !kvg_text_utf8_valid(s, n))
        return kvg_build_fail(t->b, err, "not valid UTF-8 text, or a NUL byte in it");
    if (t->b->where == 1 && s[0] == '#' && n_columns == 2 && f[0].n <= 16 && f[1].n <= 16)
        return set_languages(t, (struct field){f[0].s + 1, f[0].n - 1}, f[1], err);
    if (n_columns != 2 && n_columns != 3)
        return kvg_build_fail(t->b, err,
                              "%zu column(s); a line is source<TAB>target, with a "
                              "document name as an optional third column",
                              n_columns);
    if (is_blank(f[0]) || is_blank(f[1]))
        return kvg_build_fail(t->b, err, "the %s is empty", is_blank(f[0]) ? "source" : "target");
    const struct field *doc = n_columns == 3 && f[2].n ? &f[2] : NULL;
    int rc = 0;
    if (!is_same_document(t, doc) && !(rc = end_document(t, err)))
        rc = begin_document(t, doc, err);
    if (!rc)
        rc = add_text(t, KVG_ROLE_USER, f[0], err);
    if (!rc)
        rc = add_text(t, KVG_ROLE_ASSISTANT, f[1], err);
    t->n_segments++;
    return rc;
}

static int read_text(struct kvg_build *b, const char *data, size_t n, struct kvg_err *err)
{
    static const char unknown[] = "und";
    static const char neutral[] = "Translate each message. Answer with the translation only.";
    struct tsv t = {.b = b, .source_lang = unknown, .lang = unknown, .instruction = neutral};
    const char *end = data + n, *next;
    int rc = 0;
    for (const char *s = data; s < end && !rc; s = next) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        size_t len = (size_t)((nl ? nl : end) - s);
        next = nl ? nl + 1 : end;
        b->where++;
        if (len > KVG_WORKLOAD_LINE_MAX)
            return KVG_FAIL(err, KVG_ELIMIT, "workload '%s', line %zu is longer than %zu bytes",
                            b->path, b->where, KVG_WORKLOAD_LINE_MAX);
        if (len && s[len - 1] == '\r')
            len--;
        rc = read_line(&t, s, len, err);
    }
    return rc ? rc : end_document(&t, err);
}

const struct kvg_workload_format kvg_workload_tsv = {
    .name = "tsv",
    .help = "source<TAB>target[<TAB>document] lines, first line may be #en<TAB>es (translation)",
    .text = read_text,
};
