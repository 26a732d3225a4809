/* Owns the scores. Counting is in ngram.c, the tokeniser of BLEU in tok13a.c. Must not know where
 * texts come from. */
#include "result/textmetric.h"

#include "result/ngram.h"
#include "result/tok13a.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_ENOMEM, "out of memory comparing two texts");
}

static int is_ascii_punctuation(uint32_t c)
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

/* Copies the text with one ASCII punctuation mark split off each word longer than one: the last
 * symbol or, failing that, the first. A word grows by one space at most. */
static int split_punctuation(struct kvg_symbols *out, const struct kvg_symbols *in)
{
    out->n = 0;
    out->v = malloc((2 * in->n + 1) * sizeof *out->v);
    if (!out->v)
        return -1;
    for (size_t i = 0, end; i < in->n; i = end) {
        end = i;
        while (end < in->n && !kvg_symbols_is_space(in->v[end]))
            end++;
        size_t cut = end; /* a space goes before this symbol */
        if (end - i > 1 && is_ascii_punctuation(in->v[end - 1]))
            cut = end - 1;
        else if (end - i > 1 && is_ascii_punctuation(in->v[i]))
            cut = i + 1;
        for (size_t k = i; k < end; k++) {
            if (k == cut)
                out->v[out->n++] = ' ';
            out->v[out->n++] = in->v[k];
        }
        if (end < in->n)
            out->v[out->n++] = in->v[end++];
    }
    return 0;
}

static void remove_space(struct kvg_symbols *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++)
        if (!kvg_symbols_is_space(t->v[i]))
            t->v[n++] = t->v[i];
    t->n = n;
}

int kvg_chrf_add(struct kvg_chrf_stats *s, const char *hyp, const char *ref, struct kvg_err *err)
{
    struct kvg_symbols chars[2] = {0}, split[2] = {0}, words[2] = {0};
    struct kvg_chrf_stats add = {0};
    const int c = KVG_CHRF_CHARS, w = KVG_CHRF_WORDS;
    int rc = kvg_symbols_decode(&chars[0], hyp) || kvg_symbols_decode(&chars[1], ref) ||
             split_punctuation(&split[0], &chars[0]) || split_punctuation(&split[1], &chars[1]) ||
             kvg_symbols_words(words, split);
    if (!rc) {
        remove_space(&chars[0]);
        remove_space(&chars[1]);
        rc = kvg_ngram_count(&chars[0], &chars[1], c, add.hyp, add.ref, add.match) ||
             kvg_ngram_count(&words[0], &words[1], w, add.hyp + c, add.ref + c, add.match + c);
    }
    if (!rc) {
        for (int i = 0; i < KVG_CHRF_ORDERS; i++)
            if (!add.ref[i]) /* sacreBLEU: an order the reference lacks costs no precision */
                add.hyp[i] = 0;
        kvg_chrf_sum(s, &add);
    }
    for (int side = 0; side < 2; side++) {
        free(chars[side].v);
        free(split[side].v);
        free(words[side].v);
    }
    return rc ? no_memory(err) : 0;
}

void kvg_chrf_sum(struct kvg_chrf_stats *s, const struct kvg_chrf_stats *add)
{
    for (int i = 0; i < KVG_CHRF_ORDERS; i++) {
        s->hyp[i] += add->hyp[i];
        s->ref[i] += add->ref[i];
        s->match[i] += add->match[i];
    }
}

/* F of the averages over the orders where both texts have n-grams; beta is 2. */
static double chrf_score(const struct kvg_chrf_stats *s, int n_orders)
{
    const double beta2 = 4;
    double p = 0, r = 0;
    int n = 0;
    for (int i = 0; i < n_orders; i++) {
        if (!s->hyp[i] || !s->ref[i])
            continue;
        p += (double)s->match[i] / (double)s->hyp[i];
        r += (double)s->match[i] / (double)s->ref[i];
        n++;
    }
    if (!(p + r > 0))
        return 0;
    p /= n;
    r /= n;
    return 100 * ((1 + beta2) * p * r / (beta2 * p + r));
}

double kvg_chrf2_score(const struct kvg_chrf_stats *s)
{
    return chrf_score(s, KVG_CHRF_CHARS);
}

double kvg_chrf2pp_score(const struct kvg_chrf_stats *s)
{
    return chrf_score(s, KVG_CHRF_ORDERS);
}

int kvg_bleu_add(struct kvg_bleu_stats *s, const char *hyp, const char *ref, struct kvg_err *err)
{
    struct kvg_symbols text[2] = {0}, words[2] = {0};
    struct kvg_bleu_stats add = {0};
    uint64_t ref_total[KVG_BLEU_ORDERS] = {0};
    int rc =
        kvg_tok13a(&text[0], hyp) || kvg_tok13a(&text[1], ref) || kvg_symbols_words(words, text) ||
        kvg_ngram_count(&words[0], &words[1], KVG_BLEU_ORDERS, add.total, ref_total, add.correct);
    if (!rc) {
        add.sys_len = words[0].n;
        add.ref_len = words[1].n;
        kvg_bleu_sum(s, &add);
    }
    for (int side = 0; side < 2; side++) {
        free(text[side].v);
        free(words[side].v);
    }
    return rc ? no_memory(err) : 0;
}

void kvg_bleu_sum(struct kvg_bleu_stats *s, const struct kvg_bleu_stats *add)
{
    s->sys_len += add->sys_len;
    s->ref_len += add->ref_len;
    for (int i = 0; i < KVG_BLEU_ORDERS; i++) {
        s->correct[i] += add->correct[i];
        s->total[i] += add->total[i];
    }
}

static double bleu_score(const struct kvg_bleu_stats *s, int effective)
{
    double log_sum = 0, smooth = 1;
    uint64_t any = 0;
    int n = 0;
    for (int i = 0; i < KVG_BLEU_ORDERS; i++)
        any += s->correct[i];
    if (!any)
        return 0;
    for (; n < KVG_BLEU_ORDERS && s->total[n]; n++) {
        double correct = (double)s->correct[n], total = (double)s->total[n];
        if (!s->correct[n])
            smooth *= 2;
        log_sum += log(s->correct[n] ? 100 * correct / total : 100 / (smooth * total));
    }
    if (n < KVG_BLEU_ORDERS && !effective)
        return 0; /* a precision of 0 in a geometric mean */
    double bp = s->sys_len >= s->ref_len ? 1 : exp(1 - (double)s->ref_len / (double)s->sys_len);
    return bp * exp(log_sum / n);
}

double kvg_bleu_score(const struct kvg_bleu_stats *s)
{
    return bleu_score(s, 0);
}

double kvg_bleu_segment_score(const struct kvg_bleu_stats *s)
{
    return bleu_score(s, 1);
}

int kvg_bleu_supports(const char *lang)
{
    static const char *const unsplit[] = {"zh", "ja", "ko", "th", "lo", "km", "my"};
    for (size_t i = 0; i < sizeof unsplit / sizeof *unsplit; i++)
        if (!strncmp(lang, unsplit[i], 2) && !(lang[2] >= 'a' && lang[2] <= 'z'))
            return 0;
    return 1;
}

/* Levenshtein with one row, as long as the shorter text. */
static size_t edit_distance(const struct kvg_symbols *longer, const struct kvg_symbols *shorter,
                            size_t *row)
{
    for (size_t j = 0; j <= shorter->n; j++)
        row[j] = j;
    for (size_t i = 1; i <= longer->n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= shorter->n; j++) {
            size_t best = diagonal + (longer->v[i - 1] != shorter->v[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[shorter->n];
}

int kvg_edit_distance_normalised(const char *a, const char *b, double *out, struct kvg_err *err)
{
    struct kvg_symbols t[2] = {0};
    size_t *row = NULL;
    int rc = 0;
    *out = 0;
    if (kvg_symbols_decode(&t[0], a) || kvg_symbols_decode(&t[1], b)) {
        rc = no_memory(err);
        goto out;
    }
    int i_long = t[1].n > t[0].n;
    const struct kvg_symbols *longer = &t[i_long], *shorter = &t[!i_long];
    if (longer->n > KVG_EDIT_CODE_POINTS_MAX) {
        rc = KVG_FAIL(err, KVG_ELIMIT,
                      "a text of %zu characters is too long for an edit distance; at most %d",
                      longer->n, KVG_EDIT_CODE_POINTS_MAX);
        goto out;
    }
    if (!longer->n)
        goto out;
    if (!(row = malloc((shorter->n + 1) * sizeof *row))) {
        rc = no_memory(err);
        goto out;
    }
    *out = (double)edit_distance(longer, shorter, row) / (double)longer->n;
out:
    free(row);
    free(t[0].v);
    free(t[1].v);
    return rc;
}
