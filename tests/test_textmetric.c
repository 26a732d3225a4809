/* Tests of the text metrics against sacreBLEU: our own sentences (golden/metrics.tsv), and a larger
 * set that is not part of the project and is skipped when absent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/fs.h"
#include "result/textmetric.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS_MAX = 12, FILE_BYTES_MAX = 1 << 22 };
static const double TOLERANCE = 1e-9;

static void assert_near(double got, const char *want, const char *row, const char *metric)
{
    if (!(fabs(got - strtod(want, NULL)) <= TOLERANCE))
        fail_msg("%s of '%s': %.17g, sacreBLEU has %s", metric, row, got, want);
}

/* Undoes \\, \t and \n in place. */
static void unescape(char *s)
{
    char *out = s;
    for (; *s; s++) {
        if (*s != '\\') {
            *out++ = *s;
            continue;
        }
        s++;
        *out++ = (char)(*s == 't' ? '\t' : *s == 'n' ? '\n' : *s);
    }
    *out = 0;
}

/* The next line's fields; 0 at the end. Missing ones are "". */
static int next_row(char **text, char *field[FIELDS_MAX])
{
    static char nothing[] = "";
    char *line = strsep(text, "\n");
    if (!line || !*line)
        return 0;
    for (int i = 0; i < FIELDS_MAX; i++) {
        char *f = strsep(&line, "\t");
        field[i] = f ? f : nothing;
    }
    return 1;
}

static void assert_bleu_stats(const struct kvg_bleu_stats *s, const char *want, const char *row)
{
    char got[256];
    snprintf(got, sizeof got,
             "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
             " %" PRIu64 " %" PRIu64 " %" PRIu64,
             s->sys_len, s->ref_len, s->correct[0], s->correct[1], s->correct[2], s->correct[3],
             s->total[0], s->total[1], s->total[2], s->total[3]);
    if (strcmp(got, want) != 0)
        fail_msg("BLEU counts of '%s': %s, sacreBLEU has %s", row, got, want);
}

struct scores {
    struct kvg_chrf_stats chrf;
    struct kvg_bleu_stats bleu;
};

static void add_pair(struct scores *s, const char *hyp, const char *ref)
{
    assert_int_equal(kvg_chrf_add(&s->chrf, hyp, ref, NULL), 0);
    assert_int_equal(kvg_bleu_add(&s->bleu, hyp, ref, NULL), 0);
}

static void sum(struct scores *s, const struct scores *add)
{
    kvg_chrf_sum(&s->chrf, &add->chrf);
    kvg_bleu_sum(&s->bleu, &add->bleu);
}

/* name hyp ref bleu chrf2 chrf2pp bleu_stats */
static void test_own_goldens(void **state)
{
    (void)state;
    char *data, *text, *f[FIELDS_MAX];
    size_t n, rows = 0;
    int has_corpus = 0;
    struct scores all = {0};
    assert_int_equal(kvg_fs_read("tests/golden/metrics.tsv", FILE_BYTES_MAX, &data, &n, NULL), 0);
    text = data;
    assert_true(next_row(&text, f));
    while (next_row(&text, f)) {
        struct scores s = {0};
        int is_corpus = !strcmp(f[0], "corpus");
        unescape(f[1]);
        unescape(f[2]);
        if (is_corpus) {
            s = all;
            has_corpus = 1;
        } else {
            add_pair(&s, f[1], f[2]);
            sum(&all, &s);
            rows++;
        }
        assert_bleu_stats(&s.bleu, f[6], f[0]);
        assert_near(is_corpus ? kvg_bleu_score(&s.bleu) : kvg_bleu_segment_score(&s.bleu), f[3],
                    f[0], "BLEU");
        assert_near(kvg_chrf2_score(&s.chrf), f[4], f[0], "chrF2");
        assert_near(kvg_chrf2pp_score(&s.chrf), f[5], f[0], "chrF2++");
    }
    assert_true(has_corpus);
    assert_true(rows >= 30);
    free(data);
}

static char *read_shared(const char *name)
{
    char path[256], *data;
    size_t n;
    snprintf(path, sizeof path, "../shared/golden/metrics/%s", name);
    if (kvg_fs_read(path, FILE_BYTES_MAX, &data, &n, NULL))
        skip();
    return data;
}

/* id lang hyp ref sent_bleu sent_chrf2 sent_chrfpp sent_ter bleu_stats ... */
static void test_shared_sentences(void **state)
{
    (void)state;
    char *data = read_shared("mt_sentences.tsv"), *text = data, *f[FIELDS_MAX];
    size_t rows = 0;
    assert_true(next_row(&text, f));
    for (; next_row(&text, f); rows++) {
        struct scores s = {0};
        unescape(f[2]);
        unescape(f[3]);
        add_pair(&s, f[2], f[3]);
        assert_bleu_stats(&s.bleu, f[8], f[0]);
        assert_near(kvg_bleu_segment_score(&s.bleu), f[4], f[0], "BLEU");
        assert_near(kvg_chrf2_score(&s.chrf), f[5], f[0], "chrF2");
        assert_near(kvg_chrf2pp_score(&s.chrf), f[6], f[0], "chrF2++");
    }
    assert_int_equal(rows, 239);
    free(data);
}

static int is_in_subset(const char *subset, const char *id, const char *lang, const char *ref)
{
    const char *bar = strrchr(id, '|');
    if (!strncmp(subset, "kind=", 5))
        return bar && !strcmp(bar + 1, subset + 5);
    int is_edge = !strncmp(id, "edge", 4);
    if (!strncmp(subset, "lang=", 5))
        return !is_edge && !strcmp(lang, subset + 5);
    if (!strcmp(subset, "edge"))
        return is_edge;
    if (!strcmp(subset, "all-nonempty-ref"))
        return *ref != 0;
    return !strcmp(subset, "all");
}

static struct scores corpus_scores(const char *subset, uint64_t want_rows)
{
    char *data = read_shared("mt_sentences.tsv"), *text = data, *f[FIELDS_MAX];
    struct scores all = {0};
    uint64_t rows = 0;
    assert_true(next_row(&text, f));
    while (next_row(&text, f)) {
        unescape(f[2]);
        unescape(f[3]);
        if (!is_in_subset(subset, f[0], f[1], f[3]))
            continue;
        struct scores s = {0};
        add_pair(&s, f[2], f[3]);
        sum(&all, &s);
        rows++;
    }
    free(data);
    if (rows != want_rows)
        fail_msg("subset '%s' has %" PRIu64 " rows, not %" PRIu64, subset, rows, want_rows);
    return all;
}

/* subset n metric score stats signature */
static void test_shared_corpora(void **state)
{
    (void)state;
    char *data = read_shared("mt_corpus.tsv"), *text = data, *f[FIELDS_MAX];
    size_t rows = 0;
    assert_true(next_row(&text, f));
    while (next_row(&text, f)) {
        int is_bleu = !strcmp(f[2], "BLEU"), is_chrf2 = !strcmp(f[2], "chrF2");
        if (!is_bleu && !is_chrf2 && strcmp(f[2], "chrF2++") != 0)
            continue;
        struct scores s = corpus_scores(f[0], strtoull(f[1], NULL, 10));
        assert_near(is_bleu    ? kvg_bleu_score(&s.bleu)
                    : is_chrf2 ? kvg_chrf2_score(&s.chrf)
                               : kvg_chrf2pp_score(&s.chrf),
                    f[3], f[0], f[2]);
        if (is_bleu)
            assert_bleu_stats(&s.bleu, f[4], f[0]);
        rows++;
    }
    assert_true(rows >= 40);
    free(data);
}

static void test_edit_distance(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        double want;
    } rows[] = {
        {"", "", 0},
        {"a", "", 1},
        {"", "abcd", 1},
        {"kitten", "sitting", 3.0 / 7},
        {"abc", "abc", 0},
        {"año", "ano", 1.0 / 3},
        {"\xf0\x9f\x98\x80x", "x", 0.5},
        {"abcdef", "bcdefa", 2.0 / 6},
        {"ab", "ba", 1},
        {"\xff", "\xef\xbf\xbd", 0}, /* a bad byte counts as U+FFFD */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int swap = 0; swap < 2; swap++) {
            double d;
            assert_int_equal(kvg_edit_distance_normalised(swap ? rows[i].b : rows[i].a,
                                                          swap ? rows[i].a : rows[i].b, &d, NULL),
                             0);
            if (!(fabs(d - rows[i].want) <= 1e-15))
                fail_msg("'%s' to '%s': %.17g", rows[i].a, rows[i].b, d);
        }
}

static void test_edit_distance_is_bounded(void **state)
{
    (void)state;
    size_t n = KVG_EDIT_CODE_POINTS_MAX;
    char *s = malloc(n + 2);
    double d;
    struct kvg_err err = {0};
    memset(s, 'x', n + 1);
    s[n] = 0;
    assert_int_equal(kvg_edit_distance_normalised(s, "x", &d, &err), 0);
    assert_true(fabs(d - (double)(n - 1) / (double)n) <= 1e-15);
    s[n] = 'x';
    s[n + 1] = 0;
    assert_int_equal(kvg_edit_distance_normalised("x", s, &d, &err), KVG_ELIMIT);
    assert_non_null(strstr(err.msg, "32769"));
    free(s);
}

static void test_languages_of_bleu(void **state)
{
    (void)state;
    assert_true(kvg_bleu_supports("es"));
    assert_true(kvg_bleu_supports("und"));
    assert_true(kvg_bleu_supports("kok")); /* Konkani: three letters, not Korean */
    assert_false(kvg_bleu_supports("zh"));
    assert_false(kvg_bleu_supports("zh-CN"));
    assert_false(kvg_bleu_supports("ja"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_goldens),
        cmocka_unit_test(test_shared_sentences),
        cmocka_unit_test(test_shared_corpora),
        cmocka_unit_test(test_edit_distance),
        cmocka_unit_test(test_edit_distance_is_bounded),
        cmocka_unit_test(test_languages_of_bleu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
