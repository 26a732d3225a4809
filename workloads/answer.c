/* Owns questions about one turn: does a reply hold the expected fact, and what came before the
 * turn. Must not know where items come from. */
#include "workloads/workload.h"

#include <string.h>

/* Walks a text as folded code points: small letters, single spaces, plain apostrophes. */
struct folded {
    const char *s;
    size_t left;
};

static int is_space(uint32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xa0 || c == 0x202f || c == 0x2009;
}

/* Simple case folding (Unicode CaseFolding.txt, status C) for ASCII, Latin-1, Latin Extended-A. */
static uint32_t fold(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if (c >= 0xc0 && c <= 0xde)
        return c == 0xd7 ? c : c + 32;
    if (c == 0x2019)
        return '\'';
    if (c < 0x100 || c > 0x17e)
        return c;
    if (c == 0x178)
        return 0xff;
    if (c == 0x130 || c == 0x131 || c == 0x138 || c == 0x149)
        return c; /* the Turkish i, and letters without a capital */
    int odd_is_capital = (c >= 0x139 && c <= 0x148) || c >= 0x179;
    return (c & 1) == (uint32_t)odd_is_capital ? c + 1 : c;
}

/* The next folded code point; 0 at the end. */
static uint32_t next(struct folded *f)
{
    uint32_t c;
    if (!f->left)
        return 0;
    size_t len = kvg_text_utf8_decode(f->s, f->left, &c);
    f->s += len;
    f->left -= len;
    if (!is_space(c))
        return fold(c);
    while (f->left && (len = kvg_text_utf8_decode(f->s, f->left, &c), is_space(c))) {
        f->s += len;
        f->left -= len;
    }
    return ' ';
}

static int starts_with(struct folded text, struct folded wanted)
{
    uint32_t c;
    while ((c = next(&wanted)) != 0)
        if (next(&text) != c)
            return 0;
    return 1;
}

static int contains(const char *text, const char *wanted)
{
    struct folded t = {text, strlen(text)}, w = {wanted, strlen(wanted)};
    do {
        if (starts_with(t, w))
            return 1;
    } while (next(&t) != 0);
    return 0;
}

static int passes(const struct kvg_check *check, const char *text)
{
    for (size_t i = 0; i < check->n_any; i++)
        if (contains(text, check->any[i]))
            return 1;
    return 0;
}

size_t kvg_workload_checks_passed(const struct kvg_turn *turn, const char *text)
{
    size_t n = 0;
    for (size_t i = 0; i < turn->n_checks; i++)
        n += (size_t)passes(&turn->checks[i], text);
    return n;
}

int kvg_workload_check_answer(const struct kvg_turn *turn, const char *text)
{
    if (turn->n_checks == 0)
        return -1;
    return kvg_workload_checks_passed(turn, text) == turn->n_checks;
}

size_t kvg_workload_history(const struct kvg_item *item, size_t turn, size_t *out)
{
    size_t n = 0;
    for (int32_t t = (int32_t)turn; t >= 0; t = item->turns[t].parent)
        n++;
    int32_t t = (int32_t)turn;
    for (size_t i = n; i-- > 0; t = item->turns[t].parent)
        out[i] = (size_t)t;
    return n;
}
