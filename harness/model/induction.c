/* Owns the weights of the constructed recall model. Must not know who measures with it. */
#include "model/induction.h"

#include "base/rng.h"
#include "model/gguf_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The residual stream has five parts of CODE channels: the token's own code, the code it asks for,
 * the previous token's code, the answer, and one constant. */
enum {
    CODE = 32, /* channels of a token's code, each 1 or -1 */
    OWN = 0,
    WANT = CODE,
    BEFORE = 2 * CODE,
    ANSWER = 3 * CODE,
    ONE = 4 * CODE,
    EMBD = 5 * CODE,
    D = 64, /* head: 16 fast pairs for positions, 16 slow ones for a code */
    HALF = D / 2,
    FAST = CODE / 2,
    HEADS = 2,
    LAYERS = 2,
    FF = 8,
    N_CODES = KVG_INDUCTION_ASKS + 1, /* all asks share the last code as their own */
    OVERLAP_MOST = 12                 /* of two codes, out of CODE */
};

_Static_assert(LAYERS *HEADS *D == KVG_INDUCTION_ATTENTION, "what the header says");

/* Pair i turns by BASE^(-i / 32) a position: the fast ones tell neighbours apart, the first slow
 * one turns by 1e-6 and so moves by less than 0.01 in 8192 positions. */
static const float base = 1e12f;
static const float constant = 8;       /* x[ONE]: a token's row then has the squared norm 128 */
static const float sharp_offset = 24;  /* offset 1 wins by more than 40 nats over 0 and 2 */
static const float sharp_match = 4.5f; /* a match wins by 50 nats over any other code */
static const float sharp_output = 4;

struct weights {
    int8_t codes[N_CODES][CODE];
    float *buf; /* the largest matrix */
    struct kvg_gguf_writer g;
};

/* Random signs, taken when no earlier code is too near. */
static void make_codes(struct weights *w)
{
    struct kvg_rng r = {1};
    for (size_t n = 0; n < N_CODES;) {
        uint64_t bits = kvg_rng_next(&r);
        int near = 0;
        for (size_t i = 0; i < CODE; i++)
            w->codes[n][i] = bits >> i & 1 ? 1 : -1;
        for (size_t k = 0; k < n && !near; k++) {
            int dot = 0;
            for (size_t i = 0; i < CODE; i++)
                dot += w->codes[n][i] * w->codes[k][i];
            near = dot > OVERLAP_MOST;
        }
        n += !near;
    }
}

/* Factor that RMS normalisation puts before a row whose squared norm is `square`. */
static float normed(float square)
{
    return 1 / sqrtf(square / EMBD + 1e-5f);
}

static float *clear(struct weights *w, size_t rows, size_t cols)
{
    memset(w->buf, 0, rows * cols * sizeof *w->buf);
    return w->buf;
}

static void put_matrix(struct weights *w, const char *name, size_t rows, size_t cols)
{
    const uint64_t dims[2] = {cols, rows};
    kvg_gguf_put_tensor(&w->g, name, KVG_F32, 2, dims, w->buf, rows * cols * sizeof *w->buf);
}

static void put_norm(struct weights *w, const char *name)
{
    const uint64_t dims[1] = {EMBD};
    for (size_t i = 0; i < EMBD; i++)
        w->buf[i] = 1;
    kvg_gguf_put_tensor(&w->g, name, KVG_F32, 1, dims, w->buf, EMBD * sizeof *w->buf);
}

/* Where channel c of a head stands in the file: pairs (i, i + D/2) lie side by side there. */
static size_t file_row(size_t head, size_t c)
{
    return head * D + (c < HALF ? 2 * c : 2 * (c - HALF) + 1);
}

/* Channel of a head that carries code channel i: both halves of the slow pairs. */
static size_t slow(size_t i)
{
    return i < FAST ? FAST + i : HALF + i;
}

/* Rows of one head that turn the constant into a vector at phase `phase` (in positions) on every
 * fast pair. x1 is what the constant is after normalisation. */
static void fill_offset(float *m, size_t head, float phase, float x1)
{
    for (size_t i = 0; i < FAST; i++) {
        float angle = phase / powf(base, (float)(2 * i) / (float)D);
        m[file_row(head, i) * EMBD + ONE] = sharp_offset * cosf(angle) / x1;
        m[file_row(head, i + HALF) * EMBD + ONE] = sharp_offset * sinf(angle) / x1;
    }
}

static void fill_code(float *m, size_t head, size_t part, float norm)
{
    for (size_t i = 0; i < CODE; i++)
        m[file_row(head, slow(i)) * EMBD + part + i] = sharp_match / norm;
}

static void put_attention(struct weights *w, size_t layer)
{
    char name[64];
    float norm = normed(layer ? 160 : 128);
    const struct {
        const char *part;
        float phase;
        size_t code;
    } sides[] = {{"attn_q", -1, WANT}, {"attn_k", 0, BEFORE}};
    for (size_t s = 0; s < 2; s++) {
        float *m = clear(w, HEADS * D, EMBD);
        if (layer)
            fill_code(m, 0, sides[s].code, norm);
        else
            fill_offset(m, 0, sides[s].phase, constant * norm);
        fill_offset(m, 1, sides[s].phase, constant * norm);
        snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, sides[s].part);
        put_matrix(w, name, HEADS * D, EMBD);
    }
    float *v = clear(w, HEADS * D, EMBD);
    for (size_t h = 0; h < HEADS; h++)
        for (size_t i = 0; i < CODE; i++)
            v[(h * D + i) * EMBD + OWN + i] = 1 / norm;
    snprintf(name, sizeof name, "blk.%zu.attn_v.weight", layer);
    put_matrix(w, name, HEADS * D, EMBD);
    float *o = clear(w, EMBD, HEADS * D);
    for (size_t i = 0; i < CODE; i++)
        o[((layer ? ANSWER : BEFORE) + i) * HEADS * D + i] = 1;
    snprintf(name, sizeof name, "blk.%zu.attn_output.weight", layer);
    put_matrix(w, name, EMBD, HEADS * D);
}

static void put_layer(struct weights *w, size_t layer)
{
    static const struct {
        const char *part;
        size_t rows, cols; /* rows 0: a norm */
    } parts[] = {{"attn_norm", 0, 0},
                 {"ffn_norm", 0, 0},
                 {"ffn_gate", FF, EMBD},
                 {"ffn_up", FF, EMBD},
                 {"ffn_down", EMBD, FF}};
    put_attention(w, layer);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, parts[i].part);
        clear(w, EMBD, FF);
        if (parts[i].rows)
            put_matrix(w, name, parts[i].rows, parts[i].cols);
        else
            put_norm(w, name);
    }
}

static void put_tokens(struct weights *w)
{
    float *m = clear(w, KVG_INDUCTION_VOCAB, EMBD);
    for (size_t t = 0; t < KVG_INDUCTION_VOCAB; t++) {
        int asks = t >= KVG_INDUCTION_ASKS;
        const int8_t *own = w->codes[asks ? N_CODES - 1 : t];
        const int8_t *want = w->codes[asks ? t - KVG_INDUCTION_ASKS : t];
        for (size_t i = 0; i < CODE; i++) {
            m[t * EMBD + OWN + i] = own[i];
            m[t * EMBD + WANT + i] = want[i];
        }
        m[t * EMBD + ONE] = constant;
    }
    put_matrix(w, "token_embd.weight", KVG_INDUCTION_VOCAB, EMBD);
    m = clear(w, KVG_INDUCTION_VOCAB, EMBD);
    for (size_t t = 0; t < KVG_INDUCTION_ASKS; t++)
        for (size_t i = 0; i < CODE; i++)
            m[t * EMBD + ANSWER + i] = sharp_output * (float)w->codes[t][i];
    put_matrix(w, "output.weight", KVG_INDUCTION_VOCAB, EMBD);
}

static void put_header(struct kvg_gguf_writer *g, size_t n_ctx)
{
    const struct {
        const char *key;
        size_t v;
    } counts[] = {{"block_count", LAYERS},         {"context_length", n_ctx},
                  {"embedding_length", EMBD},      {"feed_forward_length", FF},
                  {"attention.head_count", HEADS}, {"attention.head_count_kv", HEADS},
                  {"attention.key_length", D},     {"attention.value_length", D},
                  {"rope.dimension_count", D},     {"vocab_size", KVG_INDUCTION_VOCAB}};
    kvg_gguf_put_str(g, "general.architecture", "llama");
    kvg_gguf_put_str(g, "general.name", "induction");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char key[64];
        snprintf(key, sizeof key, "llama.%s", counts[i].key);
        kvg_gguf_put_u32(g, key, (uint32_t)counts[i].v);
    }
    kvg_gguf_put_f32(g, "llama.rope.freq_base", base);
    kvg_gguf_put_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    kvg_gguf_put_byte_vocab(g, KVG_INDUCTION_VOCAB);
}

int kvg_induction_save(const char *path, size_t n_ctx, struct kvg_err *err)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w || !(w->buf = calloc(KVG_INDUCTION_VOCAB * EMBD, sizeof *w->buf))) {
        free(w);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the constructed model");
    }
    kvg_gguf_writer_init(&w->g);
    make_codes(w);
    put_header(&w->g, n_ctx);
    put_tokens(w);
    for (size_t l = 0; l < LAYERS; l++)
        put_layer(w, l);
    put_norm(w, "output_norm.weight");
    int rc = kvg_gguf_writer_save(&w->g, path, err);
    kvg_gguf_writer_release(&w->g);
    free(w->buf);
    free(w);
    return rc;
}

int kvg_induction_open(struct kvg_model **m, size_t n_ctx, struct kvg_err *err)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    *m = NULL;
    int n = snprintf(path, sizeof path, "%s/kvgauge-XXXXXX", dir && *dir ? dir : "/tmp");
    int fd = n < (int)sizeof path ? mkstemp(path) : -1;
    if (fd < 0)
        return KVG_FAIL(err, KVG_EIO, "cannot make a temporary file in '%s': set TMPDIR",
                        dir && *dir ? dir : "/tmp");
    close(fd);
    int rc = kvg_induction_save(path, n_ctx, err);
    if (!rc)
        rc = kvg_model_open(m, path, KVG_MODEL_FULL, err);
    unlink(path);
    if (!rc)
        snprintf((*m)->name, sizeof(*m)->name, "induction");
    return rc;
}
