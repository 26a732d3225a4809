/* Progress on a stream of the caller's (stderr): one rewritten line on a terminal, plain lines
 * otherwise, or nothing. Must not know what a cell is. */
#ifndef KVG_RUN_PROGRESS_H
#define KVG_RUN_PROGRESS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum kvg_progress_kind {
    KVG_PROGRESS_AUTO, /* TTY on a terminal, else PLAIN */
    KVG_PROGRESS_TTY,
    KVG_PROGRESS_PLAIN,
    KVG_PROGRESS_NONE
};

struct kvg_progress {
    FILE *out;
    enum kvg_progress_kind kind;
    size_t n_cells, n_done;
    double total_s, done_s; /* the plan's estimate: all, and of what is done */
    double now_s;           /* estimate of what is going on */
    double now_share;       /* done of that, 0..1 */
    uint64_t start_ns, shown_ns, n_tokens;
    char what[96]; /* current strategy or item */
    int on_line;   /* a line that must be cleared stands on the terminal */
    int colour;
};

void kvg_progress_open(struct kvg_progress *p, enum kvg_progress_kind kind, FILE *out,
                       size_t n_cells, double total_s);
/* What is being run from now on, e.g. "chat-short-qa-01 forced", and the plan's estimate for it. */
void kvg_progress_begin(struct kvg_progress *p, const char *what, double est_s);
/* n tokens more were fed (prompt or step, summed over streams); `share` of the current piece is
 * done (0..1, negative = unknown). Cheap: shows at most ten times a second. */
void kvg_progress_tokens(struct kvg_progress *p, size_t n, double share);
/* The current piece is done, and with it n_cells cells. */
void kvg_progress_end(struct kvg_progress *p, size_t n_cells);
/* A line of its own that stays. */
void kvg_progress_note(struct kvg_progress *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Clears the line. */
void kvg_progress_close(struct kvg_progress *p);

#endif
