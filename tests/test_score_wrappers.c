/* Wrappers that change scores and counts against their definitions, around the norms of keys: what
 * heads share, whole chunks, what values do to the output; alone and one upon the other. */
#include "gen_record.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_adakv(const struct gen_stream *st, void *arg)
{
    size_t even = (size_t)((double)st->s.n_tokens * 0.4), *uneven = arg;
    for (size_t l = 0; l < LAYERS; l++) {
        double all[KV * CTX];
        int stays[KV * CTX];
        size_t n = 0, sum = 0;
        for (size_t h = 0; h < KV; h++) {
            const struct gen_rec *r = &gen_recs[l * KV + h];
            size_t stay = gen_rec_stayed(st, l * KV + h, stays + n);
            gen_rec_norms(r, all + n);
            gen_rec_check_order("adakv in a head", all + n, stays + n, r->n);
            if (stay == even / 4) /* the floor: no word on the others' scores */
                for (size_t j = 0; j < r->n; j++)
                    all[n + j] = stays[n + j] ? SURE : all[n + j];
            *uneven += stay != even;
            assert_true(stay >= even / 4);
            sum += stay;
            n += r->n;
        }
        assert_int_equal(sum, KV * even);
        gen_rec_check_order("adakv in a layer", all, stays, n);
    }
}

/* Whole chunks of 7, the same in every head, as many as fit. */
static void check_chunks(const struct gen_stream *st, void *arg)
{
    size_t n_keep = (size_t)((double)st->s.n_tokens * 0.4);
    (void)arg;
    for (size_t l = 0; l < LAYERS; l++) {
        double means[CTX] = {0};
        int stays[KV][CTX], chunks[CTX];
        size_t n = gen_recs[l * KV].n, n_chunks = (n + 6) / 7, stay = 0;
        for (size_t h = 0; h < KV; h++) {
            double s[CTX];
            stay = gen_rec_stayed(st, l * KV + h, stays[h]);
            gen_rec_norms(&gen_recs[l * KV + h], s);
            for (size_t j = 0; j < n; j++)
                means[j / 7] += s[j] / (double)(n - j / 7 * 7 < 7 ? n - j / 7 * 7 : 7);
            for (size_t j = 0; j < n; j++) {
                assert_int_equal(stays[h][j], stays[0][j]);
                assert_int_equal(stays[h][j], stays[h][j / 7 * 7]);
            }
        }
        for (size_t c = 0; c < n_chunks; c++)
            chunks[c] = stays[0][c * 7];
        gen_rec_check_order("chunkkv", means, chunks, n_chunks);
        assert_in_range(stay, n_keep - 13, n_keep);
    }
}

/* Both halves of criticalkv with adakv before or behind it: the best half of a head's budget by the
 * plain scores is there, and the layer's budget holds. */
static void check_critical(const struct gen_stream *st, void *arg)
{
    size_t even = (size_t)((double)st->s.n_tokens * 0.4);
    (void)arg;
    for (size_t l = 0; l < LAYERS; l++) {
        size_t sum = 0;
        for (size_t h = 0; h < KV; h++) {
            const struct gen_rec *r = &gen_recs[l * KV + h];
            int stays[CTX];
            double s[CTX];
            size_t stay = gen_rec_stayed(st, l * KV + h, stays), sure = stay < even ? stay : even;
            gen_rec_norms(r, s);
            for (size_t j = 0; j < r->n; j++) {
                size_t above = 0;
                for (size_t i = 0; i < r->n; i++)
                    above += s[i] >= s[j];
                if (above <= sure / 2)
                    assert_true(stays[j]);
            }
            sum += stay;
        }
        assert_int_equal(sum, KV * even);
    }
}

static void test_wrappers(void **state)
{
    (void)state;
    size_t uneven = 0;
    gen_rec_run("knorm:budget=40%+adakv:floor=0.25", check_adakv, &uneven);
    assert_true(uneven > 0);
    gen_rec_run("knorm:budget=40%+adakv:floor=0.25+rerotate", check_adakv, &uneven);
    gen_rec_run("knorm:budget=40%+chunkkv:chunk=7", check_chunks, NULL);
    gen_rec_run("knorm:budget=40%+chunkkv:chunk=7+rerotate", check_chunks, NULL);
    gen_rec_run("knorm:budget=40%+criticalkv", check_critical, NULL);
    gen_rec_run("knorm:budget=40%+adakv+criticalkv", check_critical, NULL);
    gen_rec_run("knorm:budget=40%+criticalkv+adakv", check_critical, NULL);
}

/* criticalkv with nothing sure: scores minus the head's smallest, times the norms of W v. */
static void by_perturbation(const struct gen_rec *r, double *out)
{
    size_t row = (size_t)(r - gen_recs), q = row % KV * GROUP;
    const struct kvg_mat *wo = &gen_rec_model->layers[row / KV].o;
    float w[EMBD];
    double least = 0, s[CTX];
    gen_rec_norms(r, s);
    for (size_t j = 0; j < r->n; j++) {
        least = fmin(least, s[j]);
        out[j] = 0;
    }
    for (size_t i = 0; i < wo->rows; i++) {
        kvg_kernels_get("ref")->decode[wo->type]((const char *)wo->data + i * wo->row_bytes, w,
                                                 wo->cols);
        for (size_t j = 0; j < r->n; j++)
            for (size_t g = q; g < q + GROUP; g++) {
                double dot = 0;
                for (size_t c = 0; c < D; c++)
                    dot += (double)w[g * D + c] * (double)r->v[j * D + c];
                out[j] += (s[j] - least + 1e-4) * fabs(dot) / GROUP;
            }
    }
    size_t best = 0;
    for (size_t j = 0; j < r->n; j++)
        best = s[j] > s[best] ? j : best;
    out[best] = SURE; /* one is sure at least */
}

static void test_critical(void **state)
{
    (void)state;
    static struct gen_rec_case c = {"knorm:budget=40%+criticalkv:first=0", by_perturbation};
    gen_rec_run(c.spec, gen_rec_check_best, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrappers),
        cmocka_unit_test(test_critical),
    };
    return cmocka_run_group_tests(tests, gen_rec_open, gen_rec_close);
}
