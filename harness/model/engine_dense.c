/* Owns products with weights and the row-wise operations of the forward pass. Must not know stores
 * or strategies. */
#include "model/engine_internal.h"

#include "kernel/blas.h"

#include <string.h>

enum { ROWS_PER_PART = 48, ROWS_PER_BLOCK = 32 };

struct product_job {
    struct kvg_engine *e;
    const struct kvg_product *p;
    size_t n_products, n_x, ldx, part_rows;
    const float *x;
    int row_mode;
};

static void product_part(void *arg, size_t part, int thread)
{
    const struct product_job *j = arg;
    const struct kvg_product *p = j->p;
    size_t in_this;
    while (part >= (in_this = (p->w->rows + j->part_rows - 1) / j->part_rows)) {
        part -= in_this;
        p++;
    }
    const struct kvg_mat *w = p->w;
    size_t r0 = part * j->part_rows, n = w->rows - r0 < j->part_rows ? w->rows - r0 : j->part_rows;
    const unsigned char *rows = w->data + r0 * w->row_bytes;
    const struct kvg_kernels *k = j->e->kern;
    if (j->row_mode) {
        k->matvec[w->type](rows, w->row_bytes, n, w->cols, j->x, j->ldx, j->n_x, p->y + r0, p->ldy);
        return;
    }
#ifdef KVG_BLAS
    float *tile = j->e->wtile + (size_t)thread * j->e->wtile_floats;
    for (size_t r = 0; r < n; r++)
        k->decode[w->type](rows + r * w->row_bytes, tile + r * w->cols, w->cols);
    kvg_gemm_nt(j->n_x, n, w->cols, j->x, j->ldx, tile, w->cols, 0.0f, p->y + r0, p->ldy);
#else
    (void)thread;
#endif
}

void kvg_dense_products(struct kvg_engine *e, const struct kvg_product *p, size_t n_products,
                        const float *x, size_t ldx, size_t n_x, int row_mode)
{
    struct product_job j = {.e = e,
                            .p = p,
                            .n_products = n_products,
                            .n_x = n_x,
                            .ldx = ldx,
                            .part_rows = row_mode ? ROWS_PER_PART : KVG_GEMM_TILE,
                            .x = x,
                            .row_mode = row_mode};
    size_t parts = 0;
    for (size_t i = 0; i < n_products; i++)
        parts += (p[i].w->rows + j.part_rows - 1) / j.part_rows;
    kvg_pool_run(e->cfg.pool, parts, product_part, &j);
}

/* ---- row-wise work, in blocks of rows ---- */

struct rows_job {
    struct kvg_engine *e;
    size_t n, n_heads;
    const float *x, *w;
    float *out;
    const int32_t *ids; /* tokens or positions */
    int32_t pos0;
};

static void run_rows(struct kvg_engine *e, struct rows_job *j, kvg_pool_fn fn)
{
    j->e = e;
    kvg_pool_run(e->cfg.pool, (j->n + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK, fn, j);
}

static size_t block_end(const struct rows_job *j, size_t part)
{
    size_t end = (part + 1) * ROWS_PER_BLOCK;
    return end < j->n ? end : j->n;
}

static void embed_part(void *arg, size_t part, int thread)
{
    const struct rows_job *j = arg;
    const struct kvg_mat *w = &j->e->cfg.model->embd;
    (void)thread;
    for (size_t i = part * ROWS_PER_BLOCK; i < block_end(j, part); i++)
        j->e->kern->decode[w->type](w->data + (size_t)j->ids[i] * w->row_bytes,
                                    j->out + i * w->cols, w->cols);
}

void kvg_dense_embed(struct kvg_engine *e, const int32_t *tokens, size_t n, float *x)
{
    struct rows_job j = {.n = n, .ids = tokens, .out = x};
    run_rows(e, &j, embed_part);
}

static void norm_part(void *arg, size_t part, int thread)
{
    const struct rows_job *j = arg;
    size_t w = j->e->cfg.model->n_embd;
    (void)thread;
    for (size_t i = part * ROWS_PER_BLOCK; i < block_end(j, part); i++)
        j->e->kern->rmsnorm(j->x + i * w, j->w, w, j->e->cfg.model->rms_eps, j->out + i * w);
}

void kvg_dense_norm(struct kvg_engine *e, const float *x, const float *w, size_t n, float *out)
{
    struct rows_job j = {.n = n, .x = x, .w = w, .out = out};
    run_rows(e, &j, norm_part);
}

static void swiglu_part(void *arg, size_t part, int thread)
{
    const struct rows_job *j = arg;
    size_t w = j->e->cfg.model->n_ff;
    (void)thread;
    for (size_t i = part * ROWS_PER_BLOCK; i < block_end(j, part); i++)
        j->e->kern->swiglu(j->e->gate + i * w, j->e->up + i * w, w, j->e->gate + i * w);
}

void kvg_dense_swiglu(struct kvg_engine *e, size_t n)
{
    struct rows_job j = {.n = n};
    run_rows(e, &j, swiglu_part);
}

void kvg_dense_add(struct kvg_engine *e, float *x, const float *y, size_t n)
{
    e->kern->add(x, y, n * e->cfg.model->n_embd);
}

static void rope_part(void *arg, size_t part, int thread)
{
    const struct rows_job *j = arg;
    const struct kvg_model *m = j->e->cfg.model;
    size_t w = j->n_heads * m->d_head, half = m->d_head / 2;
    (void)thread;
    for (size_t i = part * ROWS_PER_BLOCK; i < block_end(j, part); i++) {
        size_t pos = (size_t)(j->ids ? j->ids[i] : j->pos0 + (int32_t)i);
        memcpy(j->out + i * w, j->x + i * w, w * sizeof *j->out);
        for (size_t h = 0; h < j->n_heads; h++)
            j->e->kern->rope(j->out + i * w + h * m->d_head, m->rope_cos + pos * half,
                             m->rope_sin + pos * half, m->d_head);
    }
}

void kvg_dense_rope(struct kvg_engine *e, const float *src, float *dst, size_t n, size_t n_heads,
                    const int32_t *pos, int32_t pos0)
{
    struct rows_job j = {
        .n = n, .n_heads = n_heads, .x = src, .out = dst, .ids = pos, .pos0 = pos0};
    run_rows(e, &j, rope_part);
}
