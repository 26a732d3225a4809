/* Owns the way from stretches of text to positions of tokens. Must not know what strategies make of
 * them. */
#include "run/marks.h"

#include "base/text.h"

#include <string.h>

enum { RESYNC_BYTES = 64 };

/* ---- tokens and bytes ---- */

static int stands_at(const char *text, size_t n, size_t at, const char *piece, size_t k)
{
    return k && k <= n - at && !memcmp(text + at, piece, k);
}

void kvg_marks_align(const struct kvg_tokenizer *tok, const int32_t *ids, size_t n_ids,
                     const char *text, size_t n, size_t *ends)
{
    size_t at = 0;
    for (size_t i = 0; i < n_ids; i++) {
        size_t k;
        const char *piece = kvg_tokenizer_piece(tok, ids[i], &k);
        size_t skip = k && piece[0] == ' ' && !stands_at(text, n, at, piece, k);
        size_t from = at;
        while (from < n && from - at < RESYNC_BYTES &&
               !stands_at(text, n, from, piece + skip, k - skip))
            from++;
        if (from < n && stands_at(text, n, from, piece + skip, k - skip))
            at = from + k - skip;
        ends[i] = at;
    }
}

/* ---- stretches of one prompt ---- */

/* A stretch of a message. */
struct stretch {
    const char *begin, *end;
};

struct marker {
    const struct kvg_template_pieces *pieces;
    const size_t *ends; /* [n_ids] */
    size_t n_ids;
    struct kvg_span *spans;
    size_t n;
};

/* The part of a message that went into the prompt: it may have been trimmed. */
static struct stretch find_message(const struct kvg_template_pieces *p, const char *message)
{
    size_t n = message ? strlen(message) : 0;
    for (size_t i = 0; i < p->n && n; i++)
        if (p->v[i].s >= message && p->v[i].s < message + n)
            return (struct stretch){p->v[i].s, p->v[i].s + p->v[i].n};
    return (struct stretch){NULL, NULL};
}

/* Offset in the prompt's text of a place inside a piece or at its end. */
static size_t offset_of(const struct kvg_template_pieces *p, const char *at)
{
    size_t sum = 0;
    for (size_t i = 0; i < p->n; sum += p->v[i++].n)
        if (at >= p->v[i].s && at <= p->v[i].s + p->v[i].n)
            return sum + (size_t)(at - p->v[i].s);
    return sum;
}

/* The first token that ends behind a place. */
static size_t token_at(const struct marker *m, const char *at)
{
    size_t offset = offset_of(m->pieces, at), i = 0;
    while (i < m->n_ids && m->ends[i] <= offset)
        i++;
    return i;
}

static int is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80;
}

static int has_word(struct stretch x)
{
    while (x.begin < x.end && !is_word((unsigned char)*x.begin))
        x.begin++;
    return x.begin < x.end;
}

static void add_span(struct marker *m, struct stretch x, enum kvg_span_kind kind)
{
    if (!has_word(x))
        return;
    size_t begin = token_at(m, x.begin), end = token_at(m, x.end);
    if (m->n && begin < m->spans[m->n - 1].end)
        begin = m->spans[m->n - 1].end;
    if (begin < end)
        m->spans[m->n++] = (struct kvg_span){(uint32_t)begin, (uint32_t)end, kind};
}

/* "source = target" at the beginning of a stretch; 0 when it is something else. */
static size_t entry_length(const char *at, const char *end, const struct kvg_term *term)
{
    size_t n = strlen(term->source), k = strlen(term->target);
    const char *p = at + n;
    if ((size_t)(end - at) < n + k || memcmp(at, term->source, n))
        return 0;
    while (p < end && strchr(" \t=:>-\"'", *p))
        p++;
    if (p == at + n || (size_t)(end - p) < k || memcmp(p, term->target, k))
        return 0;
    return (size_t)(p - at) + k;
}

/* The first glossary entry of a stretch; begin = NULL when it has none. */
static struct stretch find_entry(struct stretch x, const struct kvg_item *item)
{
    for (const char *p = x.begin; p < x.end; p++)
        for (size_t i = 0; i < item->n_terms; i++) {
            size_t n = entry_length(p, x.end, &item->terms[i]);
            if (n)
                return (struct stretch){p, p + n};
        }
    return (struct stretch){NULL, NULL};
}

static void add_instruction(struct marker *m, struct stretch x, const struct kvg_item *item)
{
    struct stretch entry;
    while ((entry = find_entry(x, item)).begin) {
        add_span(m, (struct stretch){x.begin, entry.begin}, KVG_SPAN_SYSTEM);
        add_span(m, entry, KVG_SPAN_GLOSSARY);
        x.begin = entry.end;
    }
    add_span(m, x, KVG_SPAN_SYSTEM);
}

static int is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Behind a line's end, or behind the mark that ends a sentence within it. */
static const char *instruction_end(struct stretch x)
{
    const char *p = x.begin;
    for (; p < x.end && *p != '\n'; p++)
        if (strchr(".!?", *p) && (p + 1 == x.end || is_blank(p[1])))
            return p + 1;
    return p;
}

static void add_system(struct marker *m, struct stretch x, const struct kvg_item *item)
{
    while (x.begin < x.end) {
        const char *end = instruction_end(x);
        add_instruction(m, (struct stretch){x.begin, end}, item);
        x.begin = end;
        while (x.begin < x.end && is_blank(*x.begin))
            x.begin++;
    }
}

/* The named question inside what is left of the message, or the whole of it. */
static struct stretch find_question(struct stretch message, const struct kvg_turn *turn)
{
    struct stretch q = {turn->question, turn->question + turn->n_question};
    if (!turn->question)
        return message;
    if (q.begin < message.begin)
        q.begin = message.begin;
    if (q.end > message.end)
        q.end = message.end;
    return q.begin < q.end ? q : message;
}

static void add_user(struct marker *m, struct stretch x, const struct kvg_turn *turn,
                     struct kvg_turn_tokens *t)
{
    struct stretch q = find_question(x, turn);
    struct stretch before = {x.begin, q.begin}, behind = {q.end, x.end};
    add_span(m, before, KVG_SPAN_TOOL);
    add_span(m, q, KVG_SPAN_USER);
    add_span(m, behind, KVG_SPAN_TOOL);
    t->question = token_at(m, q.begin);
    t->has_context = turn->question && has_word(before) && !has_word(behind);
}

/* A sentence has one of these marks behind it, a line its end, an entry parts around it. */
static size_t most_spans(const char *system, const struct kvg_item *item)
{
    size_t n = 8;
    for (const char *p = system; p && *p; p++) {
        n += strchr(".!?\n", *p) != NULL;
        for (size_t i = 0; i < item->n_terms; i++)
            if (!strncmp(p, item->terms[i].source, strlen(item->terms[i].source)))
                n += 2;
    }
    return n;
}

int kvg_marks_make(struct kvg_turn_tokens *t, const struct kvg_template_pieces *pieces,
                   const char *system, const struct kvg_turn *turn, const struct kvg_item *item,
                   const struct kvg_tokenizer *tok, struct kvg_arena *a, struct kvg_err *err)
{
    struct kvg_str text = {0};
    struct marker m = {.pieces = pieces, .n_ids = t->n_prompt};
    size_t *ends = kvg_arena_array(a, t->n_prompt + 1, sizeof *ends);
    m.spans = kvg_arena_array(a, most_spans(system, item), sizeof *m.spans);
    if (!ends || !m.spans || kvg_template_text(pieces, &text)) {
        kvg_str_release(&text);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the marks of '%s'", item->id);
    }
    kvg_marks_align(tok, t->prompt, t->n_prompt, text.s, text.len, ends);
    kvg_str_release(&text);
    m.ends = ends;
    add_system(&m, find_message(pieces, system), item);
    add_user(&m, find_message(pieces, turn->user), turn, t);
    t->spans = m.spans;
    t->n_spans = m.n;
    return 0;
}

/* ---- the conversation ---- */

size_t kvg_marks_room(const struct kvg_item_tokens *item)
{
    size_t n = 0;
    for (size_t t = 0; t < item->n_turns; t++)
        n += item->turns[t].n_spans;
    return n;
}

size_t kvg_marks_path(const struct kvg_item_tokens *item, size_t turn,
                      size_t (*begin)(const void *arg, size_t turn), const void *arg,
                      struct kvg_span *out)
{
    const struct kvg_turn_tokens *t = &item->turns[turn];
    uint32_t at = (uint32_t)begin(arg, turn);
    size_t n = t->parent < 0 ? 0 : kvg_marks_path(item, (size_t)t->parent, begin, arg, out);
    while (n && out[n - 1].end > at)
        n--;
    for (size_t i = 0; i < t->n_spans; i++)
        out[n++] =
            (struct kvg_span){t->spans[i].begin + at, t->spans[i].end + at, t->spans[i].kind};
    return n;
}
