/* Owns made-up calibration tables; must not know what is done with them. */
#include "gen_nuq.h"

#include "base/fs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gen_nuq(struct kvg_nuq *q, const struct kvg_model *m, double outliers, struct kvg_arena *a)
{
    *q = (struct kvg_nuq){.n_layers = m->n_layers,
                          .n_heads = m->n_heads,
                          .n_kv_heads = m->n_kv_heads,
                          .d_head = m->d_head,
                          .n_embd = m->n_embd,
                          .rope_base = (double)m->rope_base,
                          .outliers = outliers};
    memset(q->model_sha256, 'a', KVG_SHA256_HEX - 1);
    if (kvg_nuq_alloc(q, a, NULL))
        abort();
    for (size_t i = 0; i < m->n_layers * m->n_kv_heads * m->d_head; i++) {
        q->lo[i] = -2 - 0.01f * (float)(i % 7);
        q->hi[i] = 2 + 0.02f * (float)(i % 5);
    }
    for (int s = 0; s < KVG_NUQ_SIDES; s++)
        for (unsigned b = KVG_NUQ_BITS_LEAST; b <= KVG_NUQ_BITS_MOST; b++)
            for (size_t l = 0; l < m->n_layers; l++)
                for (unsigned i = 0; i < 1u << b; i++) {
                    float t = (float)(2 * i + 1) / (float)(1u << b) - 1;
                    kvg_nuq_levels(q, (enum kvg_nuq_side)s, b, l)[i] = 0.8f * t + 0.2f * t * t * t;
                }
}

void gen_nuq_file(const char *path, const struct kvg_model *m)
{
    struct kvg_nuq q;
    struct kvg_arena a;
    struct kvg_str text = {0};
    kvg_arena_init(&a);
    gen_nuq(&q, m, 0.01, &a);
    kvg_nuq_print(&q, &text);
    if (text.failed || kvg_fs_write_atomic(path, text.s, text.len, NULL))
        abort();
    kvg_str_release(&text);
    kvg_arena_release(&a);
}
