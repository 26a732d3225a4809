/* Metrics on texts: chrF2, chrF2++ and BLEU as sacreBLEU 2.x defines them, and an edit distance.
 * Source: Popovic 2015 and 2017, Papineni 2002, Post 2018; checked against sacreBLEU 2.6.0.
 * Scores go from 0 to 100. Statistics of segments are added up, and the score is computed from the
 * sums: a corpus score is not the mean of its segments' scores. One reference per segment. */
#ifndef KVG_RESULT_TEXTMETRIC_H
#define KVG_RESULT_TEXTMETRIC_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { KVG_CHRF_CHARS = 6, KVG_CHRF_WORDS = 2, KVG_CHRF_ORDERS = 8, KVG_BLEU_ORDERS = 4 };

/* Counts by order: characters 1..6, then words 1..2. All zero to begin with. */
struct kvg_chrf_stats {
    uint64_t hyp[KVG_CHRF_ORDERS], ref[KVG_CHRF_ORDERS], match[KVG_CHRF_ORDERS];
};

/* Adds one segment. Texts are UTF-8; a byte that is not counts as U+FFFD. KVG_ENOMEM. */
int kvg_chrf_add(struct kvg_chrf_stats *s, const char *hyp, const char *ref, struct kvg_err *err);
void kvg_chrf_sum(struct kvg_chrf_stats *s, const struct kvg_chrf_stats *add);
double kvg_chrf2_score(const struct kvg_chrf_stats *s);   /* characters only */
double kvg_chrf2pp_score(const struct kvg_chrf_stats *s); /* characters and words */

/* Tokens by the mteval 13a rules. All zero to begin with. */
struct kvg_bleu_stats {
    uint64_t sys_len, ref_len;
    uint64_t correct[KVG_BLEU_ORDERS], total[KVG_BLEU_ORDERS];
};

int kvg_bleu_add(struct kvg_bleu_stats *s, const char *hyp, const char *ref, struct kvg_err *err);
void kvg_bleu_sum(struct kvg_bleu_stats *s, const struct kvg_bleu_stats *add);
/* Of a corpus: all four orders, exponential smoothing. */
double kvg_bleu_score(const struct kvg_bleu_stats *s);
/* Of one segment: effective order, for texts shorter than four tokens. */
double kvg_bleu_segment_score(const struct kvg_bleu_stats *s);
/* 0 for languages that 13a cannot split into words (Chinese, Japanese, Korean, Thai, Lao, Khmer,
 * Burmese, by ISO 639-1 code); use chrF there. */
int kvg_bleu_supports(const char *lang);

/* What was computed, in sacreBLEU's manner; to stand beside each score. */
#define KVG_TEXTMETRIC_IMPL "impl:kvgauge-1|checked:sacrebleu-2.6.0"
#define KVG_CHRF2_SIGNATURE "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|" KVG_TEXTMETRIC_IMPL
#define KVG_CHRF2PP_SIGNATURE "nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|" KVG_TEXTMETRIC_IMPL
#define KVG_BLEU_SIGNATURE "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|" KVG_TEXTMETRIC_IMPL
#define KVG_BLEU_SEGMENT_SIGNATURE                                                                 \
    "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|" KVG_TEXTMETRIC_IMPL

/* Longest text kvg_edit_distance_normalised compares, in code points: its time is quadratic. */
enum { KVG_EDIT_CODE_POINTS_MAX = 32768 };

/* Levenshtein distance over Unicode code points divided by the longer length: 0 equal (also two
 * empty texts), 1 nothing in common. Memory grows with the shorter text. KVG_ELIMIT, KVG_ENOMEM. */
int kvg_edit_distance_normalised(const char *a, const char *b, double *out, struct kvg_err *err);

#endif
