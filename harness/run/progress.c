/* Owns the progress line. Must not know what a cell is. */
#include "run/progress.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TTY_MS = 100, PLAIN_MS = 2000 };

static size_t columns(const struct kvg_progress *p)
{
    struct winsize w;
    const char *env = getenv("COLUMNS");
    long n = env ? strtol(env, NULL, 10) : 0;
    if (n < 1 && !ioctl(fileno(p->out), TIOCGWINSZ, &w))
        n = w.ws_col;
    return n < 1 ? 80 : (size_t)n;
}

void kvg_progress_open(struct kvg_progress *p, enum kvg_progress_kind kind, FILE *out,
                       size_t n_cells, double total_s)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    memset(p, 0, sizeof *p);
    p->out = out;
    p->kind = kind;
    if (kind == KVG_PROGRESS_AUTO)
        p->kind = isatty(fileno(out)) && term && strcmp(term, "dumb") ? KVG_PROGRESS_TTY
                                                                      : KVG_PROGRESS_PLAIN;
    p->colour = p->kind == KVG_PROGRESS_TTY && !(no_color && *no_color);
    p->n_cells = n_cells;
    p->total_s = total_s;
    p->start_ns = kvg_clock_ns();
}

static void clear_line(struct kvg_progress *p)
{
    if (!p->on_line)
        return;
    fputs("\r\033[K", p->out);
    p->on_line = 0;
}

static void format_left(const struct kvg_progress *p, double elapsed, char *buf, size_t cap)
{
    double share = p->now_share < 1 ? p->now_share : 1;
    double done = p->done_s + share * p->now_s;
    if (p->total_s <= 0 || elapsed < 1) {
        snprintf(buf, cap, "ETA -");
        return;
    }
    /* The plan's estimate at first, then more and more what was seen. */
    double pace = done > 0 ? elapsed / done : 1;
    double trust = done / p->total_s < 0.2 ? done / p->total_s * 5 : 1;
    double left = (p->total_s - done) * (trust * pace + (1 - trust));
    if (left < 0)
        left = 0;
    if (left < 100)
        snprintf(buf, cap, "ETA %.0f s", left);
    else
        snprintf(buf, cap, "ETA %.0f min", left / 60);
}

static void show(struct kvg_progress *p)
{
    char left[32], text[256];
    uint64_t now = kvg_clock_ns();
    double elapsed = (double)(now - p->start_ns) * 1e-9;
    double rate = elapsed > 0 ? (double)p->n_tokens / elapsed : 0;
    p->shown_ns = now;
    format_left(p, elapsed, left, sizeof left);
    snprintf(text, sizeof text, "%zu/%zu cells  %.0f tokens/s  %s  %s", p->n_done, p->n_cells, rate,
             left, p->what);
    if (p->kind == KVG_PROGRESS_PLAIN) {
        fprintf(p->out, "%s\n", text);
    } else {
        size_t width = columns(p);
        if (strlen(text) >= width)
            text[width > 1 ? width - 1 : 0] = 0;
        fprintf(p->out, "\r\033[K%s%s%s", p->colour ? "\033[2m" : "", text,
                p->colour ? "\033[0m" : "");
        p->on_line = 1;
    }
    fflush(p->out);
}

static void show_if_due(struct kvg_progress *p)
{
    uint64_t wait = (p->kind == KVG_PROGRESS_TTY ? TTY_MS : PLAIN_MS) * 1000000ull;
    uint64_t since = p->shown_ns ? p->shown_ns : p->start_ns;
    if (p->kind != KVG_PROGRESS_NONE && kvg_clock_ns() - since >= wait)
        show(p);
}

void kvg_progress_begin(struct kvg_progress *p, const char *what, double est_s)
{
    snprintf(p->what, sizeof p->what, "%s", what);
    p->now_s = est_s;
    p->now_share = 0;
    show_if_due(p);
}

void kvg_progress_tokens(struct kvg_progress *p, size_t n, double share)
{
    p->n_tokens += n;
    if (share >= 0)
        p->now_share = share;
    show_if_due(p);
}

void kvg_progress_end(struct kvg_progress *p, size_t n_cells)
{
    p->n_done += n_cells;
    p->done_s += p->now_s;
    p->now_s = p->now_share = 0;
    show_if_due(p);
}

void kvg_progress_note(struct kvg_progress *p, const char *fmt, ...)
{
    va_list ap;
    clear_line(p);
    va_start(ap, fmt);
    vfprintf(p->out, fmt, ap);
    va_end(ap);
    fputc('\n', p->out);
    fflush(p->out);
}

void kvg_progress_close(struct kvg_progress *p)
{
    if (p->kind == KVG_PROGRESS_PLAIN && p->shown_ns)
        show(p);
    clear_line(p);
    fflush(p->out);
}
