/* Owns reading and looking up GGUF metadata; must not know which keys mean what, except that the
 * values of a key are typed. */
#include "model/gguf_impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes; /* 0 = of no fixed size */
} types[KVG_GGUF_TYPE_N] = {
    [KVG_GGUF_U8] = {"u8", 1},   [KVG_GGUF_I8] = {"i8", 1},       [KVG_GGUF_U16] = {"u16", 2},
    [KVG_GGUF_I16] = {"i16", 2}, [KVG_GGUF_U32] = {"u32", 4},     [KVG_GGUF_I32] = {"i32", 4},
    [KVG_GGUF_F32] = {"f32", 4}, [KVG_GGUF_BOOL] = {"bool", 1},   [KVG_GGUF_STR] = {"string", 0},
    [KVG_GGUF_U64] = {"u64", 8}, [KVG_GGUF_ARRAY] = {"array", 0}, [KVG_GGUF_I64] = {"i64", 8},
    [KVG_GGUF_F64] = {"f64", 8},
};

uint64_t kvg_gguf_le(const unsigned char *p, size_t n_bytes)
{
    uint64_t v = 0;
    for (size_t i = n_bytes; i > 0; i--)
        v = v << 8 | p[i - 1];
    return v;
}

const char *kvg_gguf_show(struct kvg_gguf_str s, char *buf)
{
    size_t n = s.n < KVG_GGUF_SHOWN ? s.n : KVG_GGUF_SHOWN;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.s[i];
        buf[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    memcpy(buf + n, n < s.n ? "..." : "", n < s.n ? 4 : 1);
    return buf;
}

/* "metadata key 'x'", or the bare kind while the name is not known. */
static void field(const struct kvg_gguf_reader *r, char *out, size_t cap)
{
    char name[KVG_GGUF_SHOWN + 4];
    if (r->name.s)
        snprintf(out, cap, "%s '%s'", r->kind, kvg_gguf_show(r->name, name));
    else
        snprintf(out, cap, "%s", r->kind);
}

int kvg_gguf_broken(const struct kvg_gguf_reader *r, const char *fmt, ...)
{
    char what[256], name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    field(r, name, sizeof name);
    return KVG_FAIL(r->err, KVG_EFORMAT, "broken model '%s': %s: %s", r->g->path, name, what);
}

int kvg_gguf_take(struct kvg_gguf_reader *r, uint64_t n, const unsigned char **p)
{
    if (n > r->g->map.size - r->at) {
        char name[128];
        field(r, name, sizeof name);
        return KVG_FAIL(r->err, KVG_EFORMAT,
                        "truncated model '%s': %s needs %llu bytes at offset %zu, the file ends at "
                        "%zu; download it again",
                        r->g->path, name, (unsigned long long)n, r->at, r->g->map.size);
    }
    if (p)
        *p = r->g->map.data + r->at;
    r->at += (size_t)n;
    return 0;
}

int kvg_gguf_take_u32(struct kvg_gguf_reader *r, uint32_t *out)
{
    const unsigned char *p;
    int rc = kvg_gguf_take(r, 4, &p);
    if (!rc)
        *out = (uint32_t)kvg_gguf_le(p, 4);
    return rc;
}

int kvg_gguf_take_u64(struct kvg_gguf_reader *r, uint64_t *out)
{
    const unsigned char *p;
    int rc = kvg_gguf_take(r, 8, &p);
    if (!rc)
        *out = kvg_gguf_le(p, 8);
    return rc;
}

int kvg_gguf_take_str(struct kvg_gguf_reader *r, struct kvg_gguf_str *out)
{
    uint64_t n;
    const unsigned char *p;
    int rc = kvg_gguf_take_u64(r, &n);
    if (!rc)
        rc = kvg_gguf_take(r, n, &p);
    if (rc)
        return rc;
    out->s = (const char *)p;
    out->n = (size_t)n;
    return 0;
}

static int take_strings(struct kvg_gguf_reader *r, uint64_t n)
{
    struct kvg_gguf_str s;
    int rc = 0;
    for (uint64_t i = 0; i < n && !rc; i++)
        rc = kvg_gguf_take_str(r, &s);
    return rc;
}

static int take_bools(struct kvg_gguf_reader *r, uint64_t n)
{
    const unsigned char *p;
    int rc = kvg_gguf_take(r, n, &p);
    for (uint64_t i = 0; i < n && !rc; i++)
        if (p[i] > 1)
            rc = kvg_gguf_broken(r, "a bool is %u, neither 0 nor 1", p[i]);
    return rc;
}

static int take_type(struct kvg_gguf_reader *r, enum kvg_gguf_type *out)
{
    uint32_t type;
    int rc = kvg_gguf_take_u32(r, &type);
    if (rc)
        return rc;
    if (type >= KVG_GGUF_TYPE_N)
        return kvg_gguf_broken(r, "unknown value type %u", type);
    *out = (enum kvg_gguf_type)type;
    return 0;
}

int kvg_gguf_read_kv(struct kvg_gguf_reader *r, struct kvg_gguf_kv *kv)
{
    memset(kv, 0, sizeof *kv);
    kv->n = 1;
    int rc = kvg_gguf_take_str(r, &kv->key);
    if (rc)
        return rc;
    if (kv->key.n == 0 || kv->key.n > 65535)
        return kvg_gguf_broken(r, "a key of %zu bytes (1 to 65535 are allowed)", kv->key.n);
    r->kind = "metadata key";
    r->name = kv->key;
    rc = take_type(r, &kv->type);
    if (!rc && kv->type == KVG_GGUF_ARRAY) {
        kv->is_array = 1;
        rc = take_type(r, &kv->type);
        if (!rc && kv->type == KVG_GGUF_ARRAY)
            rc = kvg_gguf_broken(r, "arrays of arrays are not supported");
        if (!rc)
            rc = kvg_gguf_take_u64(r, &kv->n);
    }
    if (rc)
        return rc;
    size_t at = r->at, elem = types[kv->type].bytes;
    kv->data = r->g->map.data + at;
    if (kv->type == KVG_GGUF_STR)
        rc = take_strings(r, kv->n);
    else if (kv->n > UINT64_MAX / elem)
        rc = kvg_gguf_broken(r, "an array of %llu elements", (unsigned long long)kv->n);
    else if (kv->type == KVG_GGUF_BOOL)
        rc = take_bools(r, kv->n);
    else
        rc = kvg_gguf_take(r, kv->n * elem, NULL);
    kv->bytes = r->at - at;
    return rc;
}

static int wrong_type(const struct kvg_gguf *g, const struct kvg_gguf_kv *kv, const char *key,
                      const char *want, struct kvg_err *err)
{
    return KVG_FAIL(err, KVG_EFORMAT, "metadata key '%s' of '%s' is %s%s, expected %s", key,
                    g->path, kv->is_array ? "an array of " : "", types[kv->type].name, want);
}

static int find(const struct kvg_gguf *g, const char *key, const struct kvg_gguf_kv **out,
                struct kvg_err *err)
{
    *out = kvg_gguf_find(g, key);
    if (*out)
        return 0;
    return KVG_FAIL(err, KVG_ENONE, "metadata key '%s' is missing in '%s'", key, g->path);
}

int kvg_gguf_u32(const struct kvg_gguf *g, const char *key, uint32_t *out, struct kvg_err *err)
{
    const struct kvg_gguf_kv *kv;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    size_t n = types[kv->type].bytes;
    if (kv->is_array || n == 0 || kv->type == KVG_GGUF_F32 || kv->type == KVG_GGUF_F64 ||
        kv->type == KVG_GGUF_BOOL)
        return wrong_type(g, kv, key, "an integer", err);
    uint64_t v = kvg_gguf_le(kv->data, n);
    int is_signed = kv->type == KVG_GGUF_I8 || kv->type == KVG_GGUF_I16 ||
                    kv->type == KVG_GGUF_I32 || kv->type == KVG_GGUF_I64;
    if (v > UINT32_MAX || (is_signed && v >> (8 * n - 1)))
        return KVG_FAIL(err, KVG_EFORMAT,
                        "metadata key '%s' of '%s' is negative or above 4294967295", key, g->path);
    *out = (uint32_t)v;
    return 0;
}

int kvg_gguf_f32(const struct kvg_gguf *g, const char *key, float *out, struct kvg_err *err)
{
    const struct kvg_gguf_kv *kv;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    double v;
    if (!kv->is_array && kv->type == KVG_GGUF_F32)
        v = (double)kvg_gguf_array_f32(kv, 0);
    else if (!kv->is_array && kv->type == KVG_GGUF_F64) {
        uint64_t bits = kvg_gguf_le(kv->data, 8);
        memcpy(&v, &bits, sizeof v);
    } else
        return wrong_type(g, kv, key, "a float", err);
    if (!isfinite((float)v))
        return KVG_FAIL(err, KVG_EFORMAT, "metadata key '%s' of '%s' is not a finite number", key,
                        g->path);
    *out = (float)v;
    return 0;
}

int kvg_gguf_bool(const struct kvg_gguf *g, const char *key, int *out, struct kvg_err *err)
{
    const struct kvg_gguf_kv *kv;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    if (kv->is_array || kv->type != KVG_GGUF_BOOL)
        return wrong_type(g, kv, key, "a bool", err);
    *out = kv->data[0];
    return 0;
}

int kvg_gguf_str(const struct kvg_gguf *g, const char *key, struct kvg_gguf_str *out,
                 struct kvg_err *err)
{
    const struct kvg_gguf_kv *kv;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    if (kv->is_array || kv->type != KVG_GGUF_STR)
        return wrong_type(g, kv, key, "a string", err);
    size_t at = 0;
    *out = kvg_gguf_array_next_str(kv, &at);
    return 0;
}

int kvg_gguf_array(const struct kvg_gguf *g, const char *key, enum kvg_gguf_type type,
                   const struct kvg_gguf_kv **out, struct kvg_err *err)
{
    const struct kvg_gguf_kv *kv;
    int rc = find(g, key, &kv, err);
    if (rc)
        return rc;
    if (!kv->is_array || kv->type != type) {
        char want[32];
        snprintf(want, sizeof want, "an array of %s", types[type].name);
        return wrong_type(g, kv, key, want, err);
    }
    *out = kv;
    return 0;
}

float kvg_gguf_array_f32(const struct kvg_gguf_kv *a, size_t i)
{
    uint32_t bits = (uint32_t)kvg_gguf_le(a->data + 4 * i, 4);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

int32_t kvg_gguf_array_i32(const struct kvg_gguf_kv *a, size_t i)
{
    uint32_t bits = (uint32_t)kvg_gguf_le(a->data + 4 * i, 4);
    int32_t v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

struct kvg_gguf_str kvg_gguf_array_next_str(const struct kvg_gguf_kv *a, size_t *at)
{
    struct kvg_gguf_str s;
    s.n = (size_t)kvg_gguf_le(a->data + *at, 8);
    s.s = (const char *)a->data + *at + 8;
    *at += 8 + s.n;
    return s;
}
