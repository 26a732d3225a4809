/* Every CPU level against the reference, at every tail length, with derived tolerances; and bit by
 * bit against itself: an output must not depend on what is computed beside it. */
#include "base/rng.h"
#include "kernel/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Half a unit in the last place of 1: what one rounding costs, relative. */
static const double U = 0x1p-24;
static const uint32_t GUARD = 0x7fc0beefu; /* a NaN no kernel makes */

static float guard(void)
{
    float f;
    memcpy(&f, &GUARD, 4);
    return f;
}

static int is_guard(const float *f)
{
    return !memcmp(f, &GUARD, 4);
}

static void fill_guard(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = guard();
}

static void fill(struct kvg_rng *r, float *v, size_t n, double span)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((kvg_rng_unit(r) - 0.5) * span);
}

static void *alloc(size_t bytes)
{
    void *p = malloc(bytes + 1);
    assert_non_null(p);
    return p;
}

/* Random packed rows whose values are finite and below some hundreds. */
static void fill_packed(struct kvg_rng *r, enum kvg_type type, uint8_t *b, size_t bytes)
{
    const size_t step = kvg_type_info(type)->block_bytes;
    int two = type == KVG_Q4_1 || type == KVG_Q5_1 || type == KVG_Q4_K || type == KVG_Q5_K;
    for (size_t i = 0; i < bytes; i++)
        b[i] = (uint8_t)kvg_rng_next(r);
    for (size_t i = 0; i < bytes; i += step) {
        if (type == KVG_F32) {
            float v = (float)kvg_rng_unit(r) - 0.5f;
            memcpy(b + i, &v, 4);
            continue;
        }
        b[i + (type == KVG_Q6_K ? 209 : 1)] &= 0xbb;
        if (two)
            b[i + 3] &= 0xbb;
    }
}

/* --- matvec --- */

enum { MAX_R = 9, MAX_X = 9, LDY = 13 };

struct product {
    enum kvg_type type;
    size_t n_cols, row_bytes, ldx;
    uint8_t *w_block, *w; /* w is unaligned and ends where its allocation ends */
    float *x;
    float y[MAX_X * LDY]; /* all rows and activations at once */
};

/* All outputs against the reference. The chain of one output has at most n/8 + 8 roundings. */
static void check_product(const struct kvg_kernels *k, struct product *p)
{
    float want[MAX_X * LDY];
    float *w = alloc(p->n_cols * sizeof *w);
    fill_guard(p->y, MAX_X * LDY);
    k->matvec[p->type](p->w, p->row_bytes, MAX_R, p->n_cols, p->x, p->ldx, MAX_X, p->y, LDY);
    kvg_kernels_ref()->matvec[p->type](p->w, p->row_bytes, MAX_R, p->n_cols, p->x, p->ldx, MAX_X,
                                       want, LDY);
    for (size_t r = 0; r < MAX_R; r++) {
        kvg_kernels_ref()->decode[p->type](p->w + r * p->row_bytes, w, p->n_cols);
        for (size_t t = 0; t < MAX_X; t++) {
            double truth = 0.0, mass = 0.0;
            for (size_t i = 0; i < p->n_cols; i++) {
                double term = (double)w[i] * (double)p->x[t * p->ldx + i];
                truth += term;
                mass += fabs(term);
            }
            assert_true(want[t * LDY + r] == (float)truth);
            double err = fabs((double)p->y[t * LDY + r] - truth);
            if (!(err <= U * ((double)p->n_cols / 8 + 8) * mass))
                fail_msg("%s matvec %s n_cols %zu [%zu][%zu]: error %g", k->name,
                         kvg_type_info(p->type)->name, p->n_cols, t, r, err);
        }
    }
    free(w);
}

/* Parts of the product must have the bits of the whole, and nothing else may be written. */
static void check_part(const struct kvg_kernels *k, const struct product *p, size_t r0, size_t nr,
                       size_t t0, size_t nx)
{
    float y[(MAX_X + 1) * LDY];
    fill_guard(y, (MAX_X + 1) * LDY);
    k->matvec[p->type](p->w + r0 * p->row_bytes, p->row_bytes, nr, p->n_cols, p->x + t0 * p->ldx,
                       p->ldx, nx, y + 1, LDY);
    for (size_t i = 0; i < (MAX_X + 1) * LDY - 1; i++) {
        size_t t = i / LDY, r = i % LDY;
        int inside = t < nx && r < nr;
        if (inside ? memcmp(y + 1 + i, p->y + (t0 + t) * LDY + r0 + r, 4) : !is_guard(y + 1 + i))
            fail_msg(
                "%s matvec %s n_cols %zu: rows %zu+%zu, activations %zu+%zu differ at [%zu][%zu]",
                k->name, kvg_type_info(p->type)->name, p->n_cols, r0, nr, t0, nx, t, r);
    }
    assert_true(is_guard(y));
}

static void check_matvec(const struct kvg_kernels *k, enum kvg_type type, size_t n_cols)
{
    struct kvg_rng r = {n_cols + 1000u * (unsigned)type};
    struct product p = {.type = type, .n_cols = n_cols, .ldx = n_cols + 3};
    p.row_bytes = kvg_type_row_bytes(type, n_cols);
    p.w_block = alloc(MAX_R * p.row_bytes);
    p.w = p.w_block + 1;
    p.x = alloc(MAX_X * p.ldx * sizeof *p.x);
    fill_packed(&r, type, p.w, MAX_R * p.row_bytes);
    fill(&r, p.x, MAX_X * p.ldx, 2.0);
    check_product(k, &p);
    for (size_t nr = 0; nr <= MAX_R; nr++)
        for (size_t nx = 0; nx <= MAX_X; nx++)
            check_part(k, &p, kvg_rng_below(&r, MAX_R - nr + 1), nr,
                       kvg_rng_below(&r, MAX_X - nx + 1), nx);
    free(p.w_block);
    free(p.x);
}

static void test_matvec(void **state)
{
    (void)state;
    static const size_t plain[] = {0, 1, 7, 15, 16, 17, 31, 33, 100, 576};
    static const size_t b32[] = {0, 32, 64, 96, 128, 160, 192, 224, 576};
    static const size_t b256[] = {0, 256, 512};
    for (const char *const *l = kvg_kernels_levels(); *l; l++)
        for (uint32_t t = 0; t < KVG_TYPE_N; t++) {
            const struct kvg_type_info *info = kvg_type_info(t);
            if (!info)
                continue;
            const size_t *v = info->block_elems == 1 ? plain : info->block_elems == 32 ? b32 : b256;
            size_t n = info->block_elems == 1 ? 10 : info->block_elems == 32 ? 9 : 3;
            for (size_t i = 0; i < n; i++)
                check_matvec(kvg_kernels_get(*l), (enum kvg_type)t, v[i]);
        }
}

/* --- attention --- */

enum { MAX_SLOTS = 70, MAX_Q = 9, LDS = 75, MAX_D = 160 };
static const enum kvg_type store_types[] = {KVG_F32,  KVG_F16,  KVG_BF16, KVG_Q8_0,  KVG_Q5_0,
                                            KVG_Q5_1, KVG_Q4_0, KVG_Q4_1, KVG_IQ4_NL};

struct tile {
    enum kvg_type type;
    size_t d, row_bytes;
    uint8_t *rows_block, *rows;
    float decoded[MAX_SLOTS * MAX_D];
    float q[MAX_Q * MAX_D], p[MAX_Q * LDS], o[MAX_Q * MAX_D];
    float s[MAX_Q * LDS]; /* all slots and heads at once */
};

/* A chain has d/8 + 8 roundings at most. */
static void check_dot(const struct kvg_kernels *k, const struct tile *t)
{
    for (size_t g = 0; g < MAX_Q; g++)
        for (size_t j = 0; j < MAX_SLOTS; j++) {
            double truth = 0.0, mass = 0.0;
            for (size_t c = 0; c < t->d; c++) {
                double term = (double)t->q[g * t->d + c] * (double)t->decoded[j * t->d + c];
                truth += term;
                mass += fabs(term);
            }
            double err = fabs((double)t->s[g * LDS + j] - truth);
            if (!(err <= U * ((double)t->d / 8 + 8) * mass))
                fail_msg("%s attn_dot %s d %zu head %zu slot %zu: error %g", k->name,
                         kvg_type_info(t->type)->name, t->d, g, j, err);
        }
}

static void check_dot_part(const struct kvg_kernels *k, const struct tile *t, size_t n_slots,
                           size_t n_q)
{
    float s[MAX_Q * LDS];
    size_t j0 = MAX_SLOTS - n_slots, g0 = MAX_Q - n_q;
    fill_guard(s, MAX_Q * LDS);
    k->attn_dot[t->type](t->rows + j0 * t->row_bytes, t->row_bytes, n_slots, t->d, t->q + g0 * t->d,
                         n_q, s, LDS);
    for (size_t g = 0; g < MAX_Q; g++)
        for (size_t j = 0; j < LDS; j++) {
            const float *got = s + g * LDS + j;
            if (g < n_q && j < n_slots ? memcmp(got, t->s + (g0 + g) * LDS + j0 + j, 4)
                                       : !is_guard(got))
                fail_msg("%s attn_dot %s d %zu: %zu slots, %zu heads differ at [%zu][%zu]", k->name,
                         kvg_type_info(t->type)->name, t->d, n_slots, n_q, g, j);
        }
}

/* n slots, n_q heads: one rounding per slot, in a chain that starts from the old value; one head
 * alone, and the slots in two calls, give the same bits. */
static void check_acc(const struct kvg_kernels *k, const struct tile *t, size_t n_slots, size_t n_q)
{
    float o[MAX_Q * MAX_D + 1], one[MAX_D], cut[MAX_Q * MAX_D];
    size_t d = t->d, half = n_slots / 3;
    memcpy(o, t->o, MAX_Q * d * sizeof *o);
    o[n_q * d] = guard();
    memcpy(cut, t->o, n_q * d * sizeof *cut);
    memcpy(one, t->o + (n_q - 1) * d, d * sizeof *one);
    k->attn_acc[t->type](t->rows, t->row_bytes, n_slots, d, t->p, LDS, n_q, o);
    k->attn_acc[t->type](t->rows, t->row_bytes, n_slots, d, t->p + (n_q - 1) * LDS, LDS, 1, one);
    assert_true(is_guard(o + n_q * d));
    assert_memory_equal(one, o + (n_q - 1) * d, d * sizeof *one);
    k->attn_acc[t->type](t->rows, t->row_bytes, half, d, t->p, LDS, n_q, cut);
    k->attn_acc[t->type](t->rows + half * t->row_bytes, t->row_bytes, n_slots - half, d,
                         t->p + half, LDS, n_q, cut);
    assert_memory_equal(cut, o, n_q * d * sizeof *cut);
    for (size_t i = 0; i < n_q * d; i++) {
        double truth = (double)t->o[i], mass = fabs(truth);
        for (size_t j = 0; j < n_slots; j++) {
            double term = (double)t->p[i / d * LDS + j] * (double)t->decoded[j * d + i % d];
            truth += term;
            mass += fabs(term);
        }
        double err = fabs((double)o[i] - truth);
        if (!(err <= U * (double)(n_slots + 1) * mass))
            fail_msg("%s attn_acc %s d %zu, %zu slots, head %zu channel %zu: error %g", k->name,
                     kvg_type_info(t->type)->name, d, n_slots, i / d, i % d, err);
    }
}

static void check_attn(const struct kvg_kernels *k, enum kvg_type type, size_t d)
{
    static struct tile t;
    struct kvg_rng r = {d * 77u + (unsigned)type};
    t.type = type;
    t.d = d;
    t.row_bytes = kvg_type_row_bytes(type, d);
    t.rows_block = alloc(MAX_SLOTS * t.row_bytes);
    t.rows = t.rows_block + 1;
    fill_packed(&r, type, t.rows, MAX_SLOTS * t.row_bytes);
    kvg_kernels_ref()->decode[type](t.rows, t.decoded, MAX_SLOTS * d);
    fill(&r, t.q, MAX_Q * d, 4.0);
    fill(&r, t.p, MAX_Q * LDS, 0.1);
    fill(&r, t.o, MAX_Q * d, 1.0);
    k->attn_dot[type](t.rows, t.row_bytes, MAX_SLOTS, d, t.q, MAX_Q, t.s, LDS);
    check_dot(k, &t);
    for (size_t n = 0; n <= MAX_SLOTS; n++) {
        size_t n_q = 1 + (n + d / 32) % MAX_Q;
        check_dot_part(k, &t, n, n_q);
        check_acc(k, &t, n, n_q);
    }
    for (size_t n_q = 1; n_q <= MAX_Q; n_q++) {
        check_dot_part(k, &t, 17 + n_q % 4, n_q);
        check_acc(k, &t, 17 + n_q % 4, n_q);
    }
    free(t.rows_block);
}

static void test_attn(void **state)
{
    (void)state;
    for (const char *const *l = kvg_kernels_levels(); *l; l++)
        for (size_t t = 0; t < sizeof store_types / sizeof *store_types; t++)
            for (size_t d = 32; d <= MAX_D; d += 32)
                check_attn(kvg_kernels_get(*l), store_types[t], d);
}

/* --- row functions --- */

enum { MAX_N = 4200 };

/* Runs fn for each level and for lengths that cover all tails; x[0] and x[n + 1] are guards. */
static void each_row(void (*fn)(const struct kvg_kernels *k, size_t n, struct kvg_rng *r))
{
    static const size_t longer[] = {100, 576, 577, 1536, 4099};
    for (const char *const *l = kvg_kernels_levels(); *l; l++) {
        struct kvg_rng r = {99};
        for (size_t n = 1; n <= 70; n++)
            fn(kvg_kernels_get(*l), n, &r);
        for (size_t i = 0; i < sizeof longer / sizeof *longer; i++)
            fn(kvg_kernels_get(*l), longer[i], &r);
    }
}

static void close_to(const struct kvg_kernels *k, const char *what, size_t n, float got,
                     long double want, double relative)
{
    /* Below the normal range only that it is small can be asked. */
    double err = (double)fabsl((long double)got - want);
    if (!(err <= relative * (double)fabsl(want) + 0x1p-126))
        fail_msg("%s %s n %zu: %.9g, not %.9Lg", k->name, what, n, (double)got, want);
}

static void check_softmax(const struct kvg_kernels *k, size_t n, struct kvg_rng *r)
{
    static float x[MAX_N], y[MAX_N];
    static const double spans[] = {0.01, 4.0, 60.0, 400.0};
    for (size_t s = 0; s < 4; s++) {
        float scale = 0.125f;
        fill(r, x, n, spans[s] / 0.125);
        if (n > 2 && s == 1)
            x[n / 2] = -INFINITY;
        memcpy(y + 1, x, n * sizeof *x);
        y[0] = y[n + 1] = guard();
        k->softmax(y + 1, n, scale);
        assert_true(is_guard(y) && is_guard(y + n + 1));
        float max = -INFINITY;
        long double sum = 0.0L;
        for (size_t i = 0; i < n; i++)
            max = fmaxf(max, x[i] * scale);
        for (size_t i = 0; i < n; i++)
            sum += expl((long double)(x[i] * scale) - (long double)max);
        for (size_t i = 0; i < n; i++)
            close_to(k, "softmax", n, y[i + 1],
                     expl((long double)(x[i] * scale) - (long double)max) / sum, 2e-7);
    }
}

static void check_swiglu(const struct kvg_kernels *k, size_t n, struct kvg_rng *r)
{
    static float gate[MAX_N], up[MAX_N], y[MAX_N];
    static const double spans[] = {1.0, 20.0, 160.0, 2000.0};
    for (size_t s = 0; s < 4; s++) {
        fill(r, gate, n, spans[s]);
        fill(r, up, n, 4.0);
        y[0] = y[n + 1] = guard();
        memcpy(y + 1, gate, n * sizeof *gate);
        k->swiglu(y + 1, up, n, y + 1);
        assert_true(is_guard(y) && is_guard(y + n + 1));
        for (size_t i = 0; i < n; i++) {
            long double g = (long double)gate[i];
            /* The exponential twice, and four operations. */
            close_to(k, "swiglu", n, y[i + 1], g / (1.0L + expl(-g)) * (long double)up[i], 6 * U);
        }
    }
}

static void check_rmsnorm(const struct kvg_kernels *k, size_t n, struct kvg_rng *r)
{
    static float x[MAX_N], w[MAX_N], y[MAX_N];
    static const double spans[] = {1e-4, 2.0, 3000.0};
    for (size_t s = 0; s < 3; s++) {
        fill(r, x, n, spans[s]);
        fill(r, w, n, 2.0);
        y[0] = y[n + 1] = guard();
        memcpy(y + 1, x, n * sizeof *x);
        k->rmsnorm(y + 1, w, n, 1e-5f, y + 1);
        assert_true(is_guard(y) && is_guard(y + n + 1));
        long double sum = 0.0L;
        for (size_t i = 0; i < n; i++)
            sum += (long double)x[i] * (long double)x[i];
        long double f = 1.0L / sqrtl(sum / (long double)n + (long double)1e-5f);
        for (size_t i = 0; i < n; i++)
            close_to(k, "rmsnorm", n, y[i + 1], (long double)x[i] * f * (long double)w[i], 3e-7);
    }
}

static void check_add(const struct kvg_kernels *k, size_t n, struct kvg_rng *r)
{
    static float x[MAX_N], y[MAX_N], z[MAX_N];
    fill(r, x, n, 2.0);
    fill(r, y, n, 2.0);
    z[0] = z[n + 1] = guard();
    memcpy(z + 1, y, n * sizeof *y);
    k->add(z + 1, x, n);
    assert_true(is_guard(z) && is_guard(z + n + 1));
    for (size_t i = 0; i < n; i++)
        assert_true(z[i + 1] == x[i] + y[i]);
}

static void check_rope(const struct kvg_kernels *k, size_t h, struct kvg_rng *r)
{
    static float x[2 * MAX_N], y[2 * MAX_N + 2], c[MAX_N], s[MAX_N];
    fill(r, x, 2 * h, 8.0);
    for (size_t i = 0; i < h; i++) {
        double angle = kvg_rng_unit(r) * 6.3;
        c[i] = (float)cos(angle);
        s[i] = (float)sin(angle);
    }
    y[0] = y[2 * h + 1] = guard();
    memcpy(y + 1, x, 2 * h * sizeof *x);
    k->rope(y + 1, c, s, 2 * h);
    assert_true(is_guard(y) && is_guard(y + 2 * h + 1));
    for (size_t i = 0; i < 2 * h; i++) {
        double a = (double)x[i % h], b = (double)x[i % h + h];
        double ci = (double)c[i % h], si = (double)s[i % h];
        double want = i < h ? a * ci - b * si : b * ci + a * si;
        double err = fabs((double)y[i + 1] - want);
        assert_true(err <= 2 * U * (fabs(a) + fabs(b)));
    }
}

static void test_softmax(void **state)
{
    (void)state;
    each_row(check_softmax);
}

static void test_swiglu(void **state)
{
    (void)state;
    each_row(check_swiglu);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    each_row(check_rmsnorm);
}

static void test_add_rope(void **state)
{
    (void)state;
    each_row(check_add);
    each_row(check_rope);
}

static void test_levels(void **state)
{
    (void)state;
    const char *const *l = kvg_kernels_levels();
    assert_string_equal(*l, "ref");
    assert_ptr_equal(kvg_kernels_get("ref"), kvg_kernels_ref());
    assert_null(kvg_kernels_get("sse9"));
    for (; *l; l++) {
        const struct kvg_kernels *k = kvg_kernels_get(*l);
        assert_string_equal(k->name, *l);
        for (uint32_t t = 0; t < KVG_TYPE_N; t++) {
            int known = kvg_type_info(t) != NULL;
            int stored = 0;
            for (size_t i = 0; i < sizeof store_types / sizeof *store_types; i++)
                stored |= t == store_types[i];
            assert_int_equal(k->decode[t] != NULL, known);
            assert_int_equal(k->matvec[t] != NULL, known);
            assert_int_equal(k->encode[t] != NULL, stored);
            assert_int_equal(k->attn_dot[t] != NULL, stored);
            assert_int_equal(k->attn_acc[t] != NULL, stored);
        }
        if (!l[1])
            assert_ptr_equal(kvg_kernels_get("auto"), k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),   cmocka_unit_test(test_matvec),
        cmocka_unit_test(test_attn),     cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_swiglu),   cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_add_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
