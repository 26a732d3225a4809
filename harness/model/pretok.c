/* Owns cutting text into the words inside which BPE merges: hand-written matchers of the regular
 * expressions of GPT-2, SmolLM and Llama 3. Must not know the vocabulary. Each function below names
 * the alternatives it stands for, in the order in which they are tried. */
#include "model/tokenizer_impl.h"

enum cls { END, LETTER, NUMBER, SPACE, OTHER };

struct ch {
    enum cls cls;
    uint32_t cp;
    size_t len;
};

/* \s of the regular expressions: the property White_Space. */
static int is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

static enum cls class_of(uint32_t cp)
{
    if (cp < 0x80) {
        if ((cp | 0x20) >= 'a' && (cp | 0x20) <= 'z')
            return LETTER;
        if (cp >= '0' && cp <= '9')
            return NUMBER;
        return is_space(cp) ? SPACE : OTHER;
    }
    if (is_space(cp))
        return SPACE;
    if (kvg_unicode_is_letter(cp))
        return LETTER;
    return kvg_unicode_is_number(cp) ? NUMBER : OTHER;
}

static struct ch peek(const char *s, size_t n, size_t at)
{
    struct ch c = {END, 0, 0};
    if (at >= n)
        return c;
    c.len = kvg_text_utf8_decode(s + at, n - at, &c.cp);
    c.cls = class_of(c.cp);
    return c;
}

static int is_newline(const struct ch *c)
{
    return c->cls == SPACE && (c->cp == '\r' || c->cp == '\n');
}

static size_t run_end(const char *s, size_t n, size_t at, enum cls cls)
{
    for (;;) {
        struct ch c = peek(s, n, at);
        if (c.cls != cls)
            return at;
        at += c.len;
    }
}

/* \s+(?!\S)|\s+ : a run of white space leaves its last character to the word behind it. */
static size_t space_end(const char *s, size_t n, size_t at, int split_at_numbers)
{
    size_t last = at, end = at;
    struct ch c;
    while ((c = peek(s, n, end)).cls == SPACE) {
        last = end;
        end += c.len;
    }
    int followed = c.cls != END && !(split_at_numbers && c.cls == NUMBER);
    return followed && last > at ? last : end;
}

/* The length of a contraction's letters at s[at], behind an apostrophe: s t re ve m ll d. */
static size_t contraction(const char *s, size_t n, size_t at, int fold)
{
    static const char *const two[] = {"re", "ve", "ll"};
    struct ch a = peek(s, n, at), b = peek(s, n, at + a.len);
    /* U+017F, the long s, folds to s. */
    if (fold && a.cp == 0x17f)
        return a.len;
    uint32_t x = fold && a.cp < 0x80 ? a.cp | 0x20 : a.cp;
    uint32_t y = fold && b.cp < 0x80 ? b.cp | 0x20 : b.cp;
    if (a.cls != LETTER)
        return 0;
    if (x == 's' || x == 't' || x == 'm' || x == 'd')
        return 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (b.cls == LETTER && x == (uint32_t)two[i][0] && y == (uint32_t)two[i][1])
            return 2;
    return 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * SmolLM first makes every number character a text of its own, so that a number ends the text
 * before it. */
static size_t gpt2_end(const char *s, size_t n, size_t at, int lone_numbers)
{
    struct ch c = peek(s, n, at), d = peek(s, n, at + c.len);
    if (c.cp == '\'') {
        size_t len = contraction(s, n, at + 1, 0);
        if (len)
            return at + 1 + len;
    }
    if (c.cls == NUMBER && lone_numbers)
        return at + c.len;
    if (c.cls != SPACE)
        return run_end(s, n, at, c.cls);
    if (c.cp == ' ' && d.cls != SPACE && d.cls != END && !(lone_numbers && d.cls == NUMBER))
        return run_end(s, n, at + 1, d.cls);
    return space_end(s, n, at, lone_numbers);
}

/* \s*[\r\n]+ : up to the last line break of the run of white space; `at` when it has none. */
static size_t line_end(const char *s, size_t n, size_t at)
{
    size_t end = at;
    for (struct ch c; (c = peek(s, n, at)).cls == SPACE;) {
        at += c.len;
        if (is_newline(&c))
            end = at;
    }
    return end;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 * \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t llama3_end(const char *s, size_t n, size_t at)
{
    struct ch c = peek(s, n, at), d = peek(s, n, at + c.len);
    if (c.cp == '\'') {
        size_t len = contraction(s, n, at + 1, 1);
        if (len)
            return at + 1 + len;
    }
    if (c.cls == LETTER)
        return run_end(s, n, at, LETTER);
    if (c.cls != NUMBER && !is_newline(&c) && d.cls == LETTER)
        return run_end(s, n, at + c.len, LETTER);
    if (c.cls == NUMBER) {
        for (int i = 0; i < 3 && (c = peek(s, n, at)).cls == NUMBER; i++)
            at += c.len;
        return at;
    }
    if (c.cls == OTHER || (c.cp == ' ' && d.cls == OTHER)) {
        at = run_end(s, n, at + c.len, OTHER);
        for (c = peek(s, n, at); is_newline(&c); c = peek(s, n, at))
            at += c.len;
        return at;
    }
    size_t end = line_end(s, n, at);
    return end > at ? end : space_end(s, n, at, 0);
}

size_t kvg_pretok_next(enum kvg_pretok pre, const char *s, size_t n, size_t at)
{
    if (pre == KVG_PRETOK_LLAMA3)
        return llama3_end(s, n, at);
    return gpt2_end(s, n, at, pre == KVG_PRETOK_SMOLLM);
}
