/* Tests non-uniform quantisation: rows and back, exact bytes, the calibration file and what is
 * refused of it, what calibration finds, and the strategy on a model. */
#include "base/fs.h"
#include "gen_engine.h"
#include "gen_files.h"
#include "gen_nuq.h"
#include "gen_tiny.h"
#include "run/calibrate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 37, D_MOST = 264 };

static struct kvg_arena arena;

static int open_arena(void **state)
{
    (void)state;
    kvg_arena_init(&arena);
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    kvg_arena_release(&arena);
    return 0;
}

static struct kvg_model shape(size_t d)
{
    return (struct kvg_model){.n_layers = 2,
                              .n_heads = 4,
                              .n_kv_heads = 2,
                              .d_head = d,
                              .n_embd = 4 * d,
                              .rope_base = 10000};
}

/* Half the widest distance of two neighbouring levels, or of the ends of [-1, 1] from theirs. */
static float level_error(const float *levels, unsigned n)
{
    float most = fmaxf(levels[0] + 1, 1 - levels[n - 1]);
    for (unsigned i = 1; i < n; i++)
        most = fmaxf(most, 0.5f * (levels[i] - levels[i - 1]));
    return most;
}

/* Rows within the ranges, every third with three values far outside of them. */
static void fill_rows(float *x, size_t n, size_t d, uint64_t seed)
{
    struct kvg_rng r = {seed};
    for (size_t i = 0; i < n * d; i++)
        x[i] = (float)(4 * kvg_rng_unit(&r) - 2);
    for (size_t j = 0; j < n; j += 3) {
        x[j * d + 3] = 9;
        x[j * d + d - 1] = -7.5f;
        x[j * d + 5] = 4;
    }
}

static void check_row_k(const struct kvg_nuq *q, size_t head, unsigned bits, const float *x,
                        const float *y, size_t room)
{
    size_t d = q->d_head, n_exact = 0, n_outside = 0;
    const float *levels = kvg_nuq_levels(q, KVG_NUQ_K, bits, head / q->n_kv_heads);
    float step = level_error(levels, 1u << bits);
    for (size_t c = 0; c < d; c++) {
        float lo = q->lo[head * d + c], hi = q->hi[head * d + c];
        int outside = x[c] < lo || x[c] > hi;
        n_outside += (size_t)outside;
        if (outside && fabsf(y[c] - x[c]) <= 5e-4f * fabsf(x[c])) {
            n_exact++;
            continue;
        }
        float clamped = fminf(fmaxf(x[c], lo), hi);
        assert_true(fabsf(y[c] - clamped) <= 0.5f * (hi - lo) * step * 1.0001f);
    }
    assert_int_equal(n_exact, n_outside < room ? n_outside : room);
    if (n_outside && room) /* the farthest first */
        assert_true(fabsf(y[3] - 9) < 0.01f);
    if (n_outside && room > 1)
        assert_true(fabsf(y[d - 1] + 7.5f) < 0.01f);
}

static void check_row_v(const struct kvg_nuq *q, size_t layer, unsigned bits, const float *x,
                        const float *y, size_t room)
{
    size_t d = q->d_head, n_out = 0;
    unsigned char out[D_MOST];
    float lo, hi;
    kvg_nuq_fit_row(x, d, room, &lo, &hi, out);
    float step = level_error(kvg_nuq_levels(q, KVG_NUQ_V, bits, layer), 1u << bits);
    for (size_t c = 0; c < d; c++) {
        float most = out[c] ? 5e-4f * fabsf(x[c]) : 0.5f * (hi - lo) * step * 1.002f + 2e-3f;
        assert_true(fabsf(y[c] - x[c]) <= most);
        assert_true(out[c] || (x[c] >= lo && x[c] <= hi));
        n_out += out[c];
    }
    assert_int_equal(n_out, room);
}

static void test_rows(void **state)
{
    static const size_t widths[] = {8, 32, 64, D_MOST};
    static const double shares[] = {0, 0.01, 0.05};
    static float x[N * D_MOST], y[N * D_MOST];
    static unsigned char bytes[N * D_MOST * 2 + 8];
    const struct kvg_kernels *kern = kvg_kernels_get("auto");
    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t s = 0; s < sizeof shares / sizeof *shares; s++)
            for (unsigned bits = 2; bits <= 4; bits++) {
                struct kvg_model m = shape(widths[w]);
                struct kvg_nuq q;
                struct kvg_codec k, v;
                size_t d = widths[w], room = kvg_nuq_room(shares[s], d), payload, scales;
                const struct kvg_place at = {.head = 3};
                gen_nuq(&q, &m, shares[s], &arena);
                kvg_codec_nuq_k(&k, &q, bits);
                kvg_codec_nuq_v(&v, &q, bits);
                fill_rows(x, N, d, d + bits);
                size_t row = d * bits / 8 + room * (d < 256 ? 3 : 4);
                k.bytes(&k, N, d, &payload, &scales);
                assert_int_equal(payload, N * row);
                assert_int_equal(scales, 0);
                memset(bytes, 0xa5, sizeof bytes);
                k.encode(&k, kern, &at, x, N, d, bytes);
                assert_int_equal(bytes[payload], 0xa5);
                k.decode(&k, kern, at.head, bytes, N, d, y);
                for (size_t j = 0; j < N; j++)
                    check_row_k(&q, at.head, bits, x + j * d, y + j * d, room);
                v.bytes(&v, N, d, &payload, &scales);
                assert_int_equal(payload, N * row);
                assert_int_equal(scales, N * 4);
                memset(bytes, 0xa5, sizeof bytes);
                v.encode(&v, kern, &at, x, N, d, bytes);
                assert_int_equal(bytes[payload + scales], 0xa5);
                v.decode(&v, kern, at.head, bytes, N, d, y);
                for (size_t j = 0; j < N; j++)
                    check_row_v(&q, 1, bits, x + j * d, y + j * d, room);
            }
}

/* A channel that never moves, a row of equal values: no division by a range of nothing. */
static void test_flat(void **state)
{
    const struct kvg_kernels *kern = kvg_kernels_get("auto");
    struct kvg_model m = shape(32);
    struct kvg_nuq q;
    struct kvg_codec k, v;
    const struct kvg_place at = {.head = 0};
    float x[32], y[32];
    unsigned char bytes[256];
    (void)state;
    gen_nuq(&q, &m, 0.01, &arena);
    for (size_t c = 0; c < 32; c++)
        q.lo[c] = q.hi[c] = x[c] = 1.5f;
    x[7] = 2.5f;
    kvg_codec_nuq_k(&k, &q, 2);
    k.encode(&k, kern, &at, x, 1, 32, bytes);
    k.decode(&k, kern, 0, bytes, 1, 32, y);
    assert_memory_equal(x, y, sizeof x);
    x[7] = 1.5f;
    kvg_codec_nuq_v(&v, &q, 2);
    v.encode(&v, kern, &at, x, 1, 32, bytes);
    v.decode(&v, kern, 0, bytes, 1, 32, y);
    assert_memory_equal(x, y, sizeof x);
}

/* ---- the file ---- */

static void test_file_round_trip(void **state)
{
    char path[GEN_PATH_MAX];
    struct kvg_model m = shape(32);
    struct kvg_nuq q, got;
    struct kvg_str first = {0}, second = {0};
    struct kvg_err err = {0};
    (void)state;
    gen_nuq(&q, &m, 0.01, &arena);
    kvg_nuq_print(&q, &first);
    assert_int_equal(gen_temp_file(path), 0);
    assert_int_equal(kvg_fs_write_atomic(path, first.s, first.len, &err), 0);
    if (kvg_nuq_read(&got, path, &arena, &err))
        fail_msg("%s", err.msg);
    kvg_nuq_print(&got, &second);
    assert_string_equal(first.s, second.s);
    assert_memory_equal(got.lo, q.lo, 2 * 2 * 32 * sizeof *q.lo);
    assert_memory_equal(kvg_nuq_levels(&got, KVG_NUQ_V, 3, 1), kvg_nuq_levels(&q, KVG_NUQ_V, 3, 1),
                        8 * sizeof(float));
    unlink(path);
    kvg_str_release(&first);
    kvg_str_release(&second);
}

/* text with the first `from` replaced. */
static void put_changed(struct kvg_str *out, const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    kvg_str_clear(out);
    kvg_str_addn(out, text, (size_t)(at - text));
    kvg_str_add(out, to);
    kvg_str_add(out, at + strlen(from));
}

static void test_file_refused(void **state)
{
    static const struct {
        const char *from, *to, *says;
    } cases[] = {{"kvgauge-nuq 1", "kvgauge-nuq 2", "first line"},
                 {"model a", "modl a", "'model' should stand"},
                 {"model aa", "model a", "SHA-256"},
                 {"shape 2", "shape 0", "count"},
                 {"shape 2", "shape 99999999", "count"},
                 {"shape 2", "shape 3", ":8: tables are not in their order"},
                 {"outliers 0.01", "outliers 0.6", "share"},
                 {"outliers 0.01", "outliers x", "not a number"},
                 {"levels k 2 0 -", "levels k 2 0 ", "ascend"},
                 {"levels k 2 1", "levels k 2 0", "order"},
                 {"low 0 0 -2", "low 0 0 5", "range"},
                 {"low 0 1", "low 1 1", "order"},
                 {"end", "# end", "cut short"}};
    char path[GEN_PATH_MAX];
    struct kvg_model m = shape(32);
    struct kvg_nuq q;
    struct kvg_str text = {0}, bad = {0};
    struct kvg_err err = {0};
    (void)state;
    gen_nuq(&q, &m, 0.01, &arena);
    kvg_nuq_print(&q, &text);
    assert_int_equal(gen_temp_file(path), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_changed(&bad, text.s, cases[i].from, cases[i].to);
        assert_int_equal(kvg_fs_write_atomic(path, bad.s, bad.len, &err), 0);
        int rc = kvg_nuq_read(&q, path, &arena, &err);
        if (rc != KVG_EFORMAT || !strstr(err.msg, cases[i].says))
            fail_msg("'%s': %d %s", cases[i].to, rc, err.msg);
    }
    for (size_t n = 0; n + 1 < text.len; n += 997) { /* cut anywhere */
        assert_int_equal(kvg_fs_write_atomic(path, text.s, n, &err), 0);
        assert_int_equal(kvg_nuq_read(&q, path, &arena, &err), KVG_EFORMAT);
    }
    unlink(path);
    assert_int_equal(kvg_nuq_read(&q, path, &arena, &err), KVG_EIO);
    kvg_str_release(&text);
    kvg_str_release(&bad);
}

/* ---- calibration ---- */

static struct kvg_calibrate_cfg config(const struct gen_tiny *t)
{
    return (struct kvg_calibrate_cfg){
        .model = t->model,
        .model_sha256 = "0123456789012345678901234567890123456789012345678901234567890123",
        .kernels = t->kernels,
        .pool = t->pool,
        .workload = t->workload.source,
        .max_tokens = 300,
        .outliers = 0.1};
}

static void calibrate(const struct kvg_calibrate_cfg *cfg, struct kvg_str *out)
{
    struct kvg_err err = {0};
    kvg_str_clear(out);
    if (kvg_calibrate_run(cfg, NULL, out, &err))
        fail_msg("%s", err.msg);
}

static void read_text(struct kvg_nuq *q, const struct kvg_str *text)
{
    char path[GEN_PATH_MAX];
    struct kvg_err err = {0};
    assert_int_equal(gen_temp_file(path), 0);
    assert_int_equal(kvg_fs_write_atomic(path, text->s, text->len, &err), 0);
    if (kvg_nuq_read(q, path, &arena, &err))
        fail_msg("%s", err.msg);
    unlink(path);
}

/* More outliers, narrower ranges; levels lie within [-1, 1]; one thread or three, the same bytes.
 */
static void test_calibrate(void **state)
{
    struct gen_tiny one, three;
    struct kvg_str text = {0}, again = {0};
    struct kvg_nuq narrow, wide;
    (void)state;
    gen_tiny_open(&one, 1);
    gen_tiny_open(&three, 3);
    struct kvg_calibrate_cfg cfg = config(&one), other = config(&three);
    calibrate(&cfg, &text);
    calibrate(&other, &again);
    assert_string_equal(text.s, again.s);
    read_text(&narrow, &text);
    cfg.outliers = 0;
    calibrate(&cfg, &text);
    read_text(&wide, &text);
    assert_int_equal(narrow.n_layers, one.model->n_layers);
    assert_int_equal(narrow.d_head, one.model->d_head);
    size_t n = wide.n_layers * wide.n_kv_heads * wide.d_head, n_narrower = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(narrow.lo[i] >= wide.lo[i] && narrow.hi[i] <= wide.hi[i]);
        assert_true(wide.lo[i] < wide.hi[i]);
        n_narrower += narrow.hi[i] - narrow.lo[i] < wide.hi[i] - wide.lo[i];
    }
    assert_true(n_narrower > n * 9 / 10);
    for (int s = 0; s < KVG_NUQ_SIDES; s++)
        for (unsigned b = 2; b <= 4; b++)
            for (size_t l = 0; l < wide.n_layers; l++) {
                const float *v = kvg_nuq_levels(&wide, (enum kvg_nuq_side)s, b, l);
                for (unsigned i = 0; i < 1u << b; i++)
                    assert_true(fabsf(v[i]) <= 1 && (!i || v[i] > v[i - 1]));
            }
    kvg_str_release(&text);
    kvg_str_release(&again);
    gen_tiny_close(&one);
    gen_tiny_close(&three);
}

static void test_calibrate_refuses(void **state)
{
    static const char *none[] = {"chat", "nosuch"};
    struct gen_tiny t;
    struct kvg_str text = {0};
    struct kvg_err err = {0};
    (void)state;
    gen_tiny_open(&t, 1);
    struct kvg_calibrate_cfg cfg = config(&t);
    cfg.items = (struct kvg_strlist){none, 2};
    assert_int_equal(kvg_calibrate_run(&cfg, NULL, &text, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "nosuch"));
    cfg = config(&t);
    cfg.max_tokens = 8;
    assert_int_equal(kvg_calibrate_run(&cfg, NULL, &text, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, "only 8 tokens"));
    cfg.workload = "/nowhere/x.jsonl";
    assert_int_equal(kvg_calibrate_run(&cfg, NULL, &text, &err), KVG_EUSAGE);
    assert_int_equal(text.len, 0);
    gen_tiny_close(&t);
}

/* ---- the strategy ---- */

enum { PROMPT = 70, STEPS = 20 };

/* Mean squared distance of the steps' rows from those of `full`, and the store as it ends. */
static double distance(struct gen_engine *g, const char *spec, const float *exact, float *rows,
                       struct kvg_bytes *bytes, size_t *n_f16)
{
    int32_t tokens[PROMPT + STEPS];
    struct gen_stream st;
    double sum = 0;
    gen_tokens(tokens, PROMPT + STEPS, 256, 3);
    gen_stream_open(&st, g, spec, 1);
    gen_prompt(g, &st, tokens, PROMPT, rows);
    gen_steps(g, &st, tokens + PROMPT, STEPS, rows);
    assert_int_equal(kvg_store_check(st.s.store, NULL), 0);
    kvg_store_bytes(st.s.store, bytes);
    const struct kvg_list *l = &st.s.store->heads[0].cols[KVG_COL_K];
    *n_f16 = l->segs[0].codec == 3 ? l->segs[0].n : 0;
    gen_stream_close(&st);
    for (size_t i = 0; exact && i < STEPS * g->m->n_embd; i++)
        sum += pow((double)rows[i] - (double)exact[i], 2);
    return sum / (double)(STEPS * g->m->n_embd);
}

/* Fewer bits, more drift; bytes as computed; the first tokens in f16. */
static void test_on_a_model(void **state)
{
    static float exact[STEPS * 128], rows[STEPS * 128];
    struct gen_tiny t;
    struct gen_engine g;
    struct kvg_bytes b;
    struct kvg_str text = {0};
    char path[GEN_PATH_MAX], spec[GEN_PATH_MAX + 64];
    double last = 0;
    size_t n_f16;
    (void)state;
    gen_tiny_open(&t, 1);
    assert_int_equal(t.model->n_embd, 128);
    struct kvg_calibrate_cfg cfg = config(&t);
    cfg.outliers = 0.01;
    calibrate(&cfg, &text);
    assert_int_equal(gen_temp_file(path), 0);
    assert_int_equal(kvg_fs_write_atomic(path, text.s, text.len, NULL), 0);
    gen_engine_open(&g, t.model, "auto", 1, 0);
    distance(&g, "full", NULL, exact, &b, &n_f16);
    size_t heads = t.model->n_layers * t.model->n_kv_heads, d = t.model->d_head;
    size_t room = kvg_nuq_room(0.01, d);
    for (unsigned bits = 4; bits >= 2; bits--) {
        snprintf(spec, sizeof spec, "kvquant:file=%s,bits=%u,sinks=3", path, bits);
        double far = distance(&g, spec, exact, rows, &b, &n_f16);
        assert_true(far > 2 * last);
        last = far;
        assert_int_equal(n_f16, 3);
        assert_int_equal(
            b.payload, heads * 2 * (3 * d * 2 + (PROMPT + STEPS - 3) * (d * bits / 8 + 3 * room)));
        assert_int_equal(b.scales, heads * (PROMPT + STEPS - 3) * 4);
    }
    snprintf(spec, sizeof spec, "kvquant:file=%s,sinks=0", path);
    distance(&g, spec, exact, rows, &b, &n_f16);
    assert_int_equal(n_f16, 0);
    gen_engine_close(&g);
    unlink(path);
    kvg_str_release(&text);
    gen_tiny_close(&t);
}

static void test_other_model(void **state)
{
    char path[GEN_PATH_MAX], spec[GEN_PATH_MAX + 64];
    struct gen_llama c = gen_llama_default();
    struct kvg_model *m = gen_model(&c);
    struct kvg_model others[4] = {*m, *m, *m, *m};
    const struct kvg_dims dims = kvg_model_dims(m);
    (void)state;
    others[0].n_layers++;
    others[1].n_kv_heads = 1;
    others[2].n_embd += 8;
    others[3].rope_base = 500;
    assert_int_equal(gen_temp_file(path), 0);
    snprintf(spec, sizeof spec, "kvquant:file=%s", path);
    for (size_t i = 0; i < 4; i++) {
        struct kvg_pipeline p;
        struct kvg_err err = {0};
        gen_nuq_file(path, &others[i]);
        assert_int_equal(kvg_pipeline_open(&p, spec, &dims, &arena, &err), KVG_EUSAGE);
        assert_non_null(strstr(err.msg, "another model"));
        assert_non_null(strstr(err.msg, "kvgauge calibrate"));
    }
    struct kvg_pipeline p;
    struct kvg_err err = {0};
    gen_nuq_file(path, m);
    assert_int_equal(kvg_pipeline_open(&p, spec, &dims, &arena, &err), 0);
    assert_int_equal(p.needs.raw_keys, 1);
    assert_int_equal(kvg_fs_write_atomic(path, "kvgauge-nuq 1\nmodel", 19, NULL), 0);
    assert_int_equal(kvg_pipeline_open(&p, spec, &dims, &arena, &err), KVG_EUSAGE);
    assert_non_null(strstr(err.msg, path));
    unlink(path);
    kvg_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_file_round_trip),
        cmocka_unit_test(test_file_refused),
        cmocka_unit_test(test_calibrate),
        cmocka_unit_test(test_calibrate_refuses),
        cmocka_unit_test(test_on_a_model),
        cmocka_unit_test(test_other_model),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
