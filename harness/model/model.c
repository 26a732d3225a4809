/* Owns a model's dimensions and weights as views of the mapped file. Must not know how a forward
 * pass uses them. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- header ---- */

static int read_count(const struct kvg_model *m, const char *key, size_t least, size_t most,
                      size_t *out, struct kvg_err *err)
{
    char name[96];
    uint32_t v = 0;
    snprintf(name, sizeof name, "llama.%s", key);
    int rc = kvg_gguf_u32(&m->gguf, name, &v, err);
    if (rc)
        return rc;
    if (v < least || v > most)
        return KVG_FAIL(err, KVG_EUNSUP, "model '%s': '%s' is %u, supported are %zu to %zu",
                        m->path, name, v, least, most);
    *out = v;
    return 0;
}

static int check_architecture(const struct kvg_model *m, struct kvg_err *err)
{
    struct kvg_gguf_str arch, scaling;
    int rc = kvg_gguf_str(&m->gguf, "general.architecture", &arch, err);
    if (rc)
        return rc;
    if (arch.n != 5 || memcmp(arch.s, "llama", 5))
        return KVG_FAIL(err, KVG_EUNSUP,
                        "model '%s' has the architecture '%.*s'; only 'llama' is supported",
                        m->path, arch.n < 40 ? (int)arch.n : 40, arch.s);
    if (!kvg_gguf_str(&m->gguf, "llama.rope.scaling.type", &scaling, NULL) &&
        !(scaling.n == 4 && !memcmp(scaling.s, "none", 4)))
        return KVG_FAIL(err, KVG_EUNSUP, "model '%s' scales rotary positions ('%.*s'): not supported",
                        m->path, scaling.n < 40 ? (int)scaling.n : 40, scaling.s);
    if (kvg_gguf_find_tensor(&m->gguf, "rope_freqs.weight"))
        return KVG_FAIL(err, KVG_EUNSUP,
                        "model '%s' has its own rotary factors (rope_freqs): not supported", m->path);
    if (kvg_gguf_find_tensor(&m->gguf, "blk.0.ffn_gate_exps.weight"))
        return KVG_FAIL(err, KVG_EUNSUP, "model '%s' is a mixture of experts: not supported",
                        m->path);
    if (kvg_gguf_find_tensor(&m->gguf, "blk.0.attn_q.bias"))
        return KVG_FAIL(err, KVG_EUNSUP, "model '%s' has biases: not supported", m->path);
    return 0;
}

static void read_name(struct kvg_model *m)
{
    struct kvg_gguf_str s;
    const char *slash = strrchr(m->path, '/');
    const char *stem = slash ? slash + 1 : m->path;
    snprintf(m->name, sizeof m->name, "%s", stem);
    char *dot = strstr(m->name, ".gguf");
    if (dot)
        *dot = 0;
    if (!m->name[0] && !kvg_gguf_str(&m->gguf, "general.name", &s, NULL))
        snprintf(m->name, sizeof m->name, "%.*s", s.n < 90 ? (int)s.n : 90, s.s);
}

static int read_header(struct kvg_model *m, struct kvg_err *err)
{
    int rc = check_architecture(m, err);
    if (!rc)
        rc = read_count(m, "block_count", 1, 1024, &m->n_layers, err);
    if (!rc)
        rc = read_count(m, "embedding_length", 8, 65536, &m->n_embd, err);
    if (!rc)
        rc = read_count(m, "feed_forward_length", 8, 1 << 20, &m->n_ff, err);
    if (!rc)
        rc = read_count(m, "attention.head_count", 1, 1024, &m->n_heads, err);
    if (!rc)
        rc = read_count(m, "context_length", 8, 1 << 20, &m->n_ctx, err);
    if (rc)
        return rc;
    m->n_kv_heads = m->n_heads;
    if (kvg_gguf_find(&m->gguf, "llama.attention.head_count_kv"))
        rc = read_count(m, "attention.head_count_kv", 1, m->n_heads, &m->n_kv_heads, err);
    m->d_head = m->n_embd / m->n_heads;
    if (!rc && kvg_gguf_find(&m->gguf, "llama.attention.key_length"))
        rc = read_count(m, "attention.key_length", 2, 512, &m->d_head, err);
    size_t n_rot = m->d_head;
    if (!rc && kvg_gguf_find(&m->gguf, "llama.rope.dimension_count"))
        rc = read_count(m, "rope.dimension_count", 2, 512, &n_rot, err);
    if (rc)
        return rc;
    if (m->n_heads % m->n_kv_heads || m->d_head % 2 || m->d_head > 512 || n_rot != m->d_head)
        return KVG_FAIL(err, KVG_EUNSUP,
                        "model '%s': %zu heads, %zu KV heads, head size %zu with %zu rotated: this "
                        "combination is not supported",
                        m->path, m->n_heads, m->n_kv_heads, m->d_head, n_rot);
    m->rms_eps = 1e-5f;
    m->rope_base = 10000.0f;
    rc = kvg_gguf_f32(&m->gguf, "llama.attention.layer_norm_rms_epsilon", &m->rms_eps, err);
    if (!rc && kvg_gguf_find(&m->gguf, "llama.rope.freq_base"))
        rc = kvg_gguf_f32(&m->gguf, "llama.rope.freq_base", &m->rope_base, err);
    if (!rc && !(m->rope_base > 1 && m->rms_eps >= 0))
        rc = KVG_FAIL(err, KVG_EFORMAT, "model '%s': rope.freq_base or rms epsilon is out of range",
                      m->path);
    return rc;
}

/* ---- weights ---- */

static int open_mat(struct kvg_model *m, const char *name, size_t rows, size_t cols,
                    struct kvg_mat *out, struct kvg_err *err)
{
    const struct kvg_gguf_tensor *t;
    int rc = kvg_gguf_tensor(&m->gguf, name, &t, err);
    if (rc)
        return rc;
    if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "model '%s': tensor '%s' is [%llu, %llu], the header asks for [%zu, %zu]",
                        m->path, name, (unsigned long long)t->dims[1],
                        (unsigned long long)t->dims[0], rows, cols);
    *out = (struct kvg_mat){.type = (enum kvg_type)t->type,
                            .rows = rows,
                            .cols = cols,
                            .row_bytes = kvg_type_row_bytes((enum kvg_type)t->type, cols),
                            .data = t->data};
    m->n_params += rows * cols;
    return 0;
}

static int open_layer_mat(struct kvg_model *m, size_t layer, const char *part, size_t rows,
                          size_t cols, struct kvg_mat *out, struct kvg_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, part);
    int rc = open_mat(m, name, rows, cols, out, err);
    if (!rc)
        m->weight_bytes += out->row_bytes * out->rows;
    return rc;
}

/* Norm weights are a few KB: decoded once to f32. */
static int open_norm(struct kvg_model *m, const char *name, float *to, struct kvg_err *err)
{
    struct kvg_mat t;
    int rc = open_mat(m, name, 1, m->n_embd, &t, err);
    if (!rc)
        kvg_kernels_ref()->decode[t.type](t.data, to, m->n_embd);
    return rc;
}

static int open_layer_norms(struct kvg_model *m, size_t i, struct kvg_err *err)
{
    char name[64];
    float *to = m->owned + 2 * i * m->n_embd;
    m->layers[i].attn_norm = to;
    m->layers[i].ffn_norm = to + m->n_embd;
    snprintf(name, sizeof name, "blk.%zu.attn_norm.weight", i);
    int rc = open_norm(m, name, to, err);
    snprintf(name, sizeof name, "blk.%zu.ffn_norm.weight", i);
    return rc ? rc : open_norm(m, name, to + m->n_embd, err);
}

static int open_layer(struct kvg_model *m, size_t i, struct kvg_err *err)
{
    struct kvg_layer *l = &m->layers[i];
    size_t q = m->n_heads * m->d_head, kv = m->n_kv_heads * m->d_head, e = m->n_embd;
    struct {
        const char *part;
        size_t rows, cols;
        struct kvg_mat *out;
    } mats[] = {{"attn_q", q, e, &l->q},          {"attn_k", kv, e, &l->k},
                {"attn_v", kv, e, &l->v},         {"attn_output", e, q, &l->o},
                {"ffn_gate", m->n_ff, e, &l->gate}, {"ffn_up", m->n_ff, e, &l->up},
                {"ffn_down", e, m->n_ff, &l->down}};
    for (size_t k = 0; k < sizeof mats / sizeof mats[0]; k++) {
        int rc = open_layer_mat(m, i, mats[k].part, mats[k].rows, mats[k].cols, mats[k].out, err);
        if (rc)
            return rc;
    }
    return open_layer_norms(m, i, err);
}

/* Row 2i of a head in the file is channel i, row 2i+1 is channel i + d/2. The rows are copied in
 * half-split order and the pages of the original are given back. */
static unsigned char *unpermute(struct kvg_mat *w, size_t d_head, unsigned char *to)
{
    for (size_t r = 0; r < w->rows; r++) {
        size_t head = r / d_head, i = r % d_head, half = d_head / 2;
        size_t from = head * d_head + (i < half ? 2 * i : 2 * (i - half) + 1);
        memcpy(to + r * w->row_bytes, w->data + from * w->row_bytes, w->row_bytes);
    }
    w->data = to;
    return to + w->rows * w->row_bytes;
}

static int unpermute_all(struct kvg_model *m, struct kvg_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < m->n_layers; i++)
        bytes += m->layers[i].q.rows * m->layers[i].q.row_bytes +
                 m->layers[i].k.rows * m->layers[i].k.row_bytes;
    m->qk = malloc(bytes + 64);
    if (!m->qk)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for %zu bytes of weights", bytes);
    unsigned char *at = m->qk;
    for (size_t i = 0; i < m->n_layers; i++) {
        at = unpermute(&m->layers[i].q, m->d_head, at);
        at = unpermute(&m->layers[i].k, m->d_head, at);
    }
    madvise((void *)(size_t)m->gguf.map.data, m->gguf.map.size, MADV_DONTNEED);
    return 0;
}

static int open_rope(struct kvg_model *m, struct kvg_err *err)
{
    size_t half = m->d_head / 2;
    m->rope_cos = malloc(m->n_ctx * half * sizeof(float));
    m->rope_sin = malloc(m->n_ctx * half * sizeof(float));
    if (!m->rope_cos || !m->rope_sin)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < half; i++) {
        float freq = 1.0f / powf(m->rope_base, (float)(2 * i) / (float)m->d_head);
        for (size_t pos = 0; pos < m->n_ctx; pos++) {
            float angle = (float)pos * freq;
            m->rope_cos[pos * half + i] = cosf(angle);
            m->rope_sin[pos * half + i] = sinf(angle);
        }
    }
    return 0;
}

static int open_weights(struct kvg_model *m, struct kvg_err *err)
{
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->owned = calloc((2 * m->n_layers + 1) * m->n_embd, sizeof *m->owned);
    if (!m->layers || !m->owned)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = open_mat(m, "token_embd.weight", m->n_vocab, m->n_embd, &m->embd, err);
    m->output = m->embd;
    if (!rc && kvg_gguf_find_tensor(&m->gguf, "output.weight"))
        rc = open_mat(m, "output.weight", m->n_vocab, m->n_embd, &m->output, err);
    for (size_t i = 0; i < m->n_layers && !rc; i++)
        rc = open_layer(m, i, err);
    float *norm = m->owned + 2 * m->n_layers * m->n_embd;
    m->output_norm = norm;
    if (!rc)
        rc = open_norm(m, "output_norm.weight", norm, err);
    if (rc)
        return rc;
    m->weight_bytes += m->output.rows * m->output.row_bytes;
    snprintf(m->type_name, sizeof m->type_name, "%s", kvg_type_info(m->layers[0].up.type)->name);
    return 0;
}

int kvg_model_open(struct kvg_model **out, const char *path, enum kvg_model_mode mode,
                   struct kvg_err *err)
{
    *out = NULL;
    struct kvg_model *m = calloc(1, sizeof *m);
    char *copy = m ? strdup(path) : NULL;
    if (!copy) {
        free(m);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    }
    m->path = copy;
    int rc = kvg_gguf_open(&m->gguf, path, err);
    if (!rc)
        rc = read_header(m, err);
    if (!rc)
        rc = kvg_tokenizer_open(&m->tok, &m->gguf, err);
    if (!rc) {
        read_name(m);
        m->n_vocab = kvg_tokenizer_n_vocab(m->tok);
        rc = open_weights(m, err);
    }
    if (!rc && mode == KVG_MODEL_FULL)
        rc = unpermute_all(m, err);
    if (!rc && mode == KVG_MODEL_FULL)
        rc = open_rope(m, err);
    if (rc) {
        kvg_model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void kvg_model_close(struct kvg_model *m)
{
    if (!m)
        return;
    kvg_tokenizer_close(m->tok);
    kvg_gguf_close(&m->gguf);
    free(m->layers);
    free(m->owned);
    free(m->qk);
    free(m->rope_cos);
    free(m->rope_sin);
    free(m->path);
    free(m);
}
