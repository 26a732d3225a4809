/* Owns opening GGUF files and finding their tensors; must not know any architecture. */
#include "model/gguf.h"

#include "base/hash.h"
#include "model/gguf_impl.h"

#include <stdlib.h>
#include <string.h>

enum { EMPTY = 0xffffffffu >> 1, MAX_NAME = 255, DEFAULT_ALIGNMENT = 32 };

/* ---- name index ---- */

static struct kvg_gguf_str name_at(const struct kvg_gguf *g, const struct kvg_gguf_index *ix,
                                   uint32_t i)
{
    return ix == &g->kv_index ? g->kv[i].key : g->tensors[i].name;
}

/* The slot of `name`: taken by it, or free. */
static uint32_t *slot_of(const struct kvg_gguf *g, const struct kvg_gguf_index *ix,
                         struct kvg_gguf_str name)
{
    size_t mask = ix->n_slots - 1, h = (size_t)kvg_hash_fnv(KVG_FNV_INIT, name.s, name.n) & mask;
    for (;; h = (h + 1) & mask) {
        if (ix->slots[h] == EMPTY)
            return &ix->slots[h];
        struct kvg_gguf_str other = name_at(g, ix, ix->slots[h]);
        if (other.n == name.n && !memcmp(other.s, name.s, name.n))
            return &ix->slots[h];
    }
}

static int index_grow(const struct kvg_gguf *g, struct kvg_gguf_index *ix)
{
    struct kvg_gguf_index bigger = {NULL, ix->n_slots ? 2 * ix->n_slots : 64, ix->n};
    bigger.slots = malloc(bigger.n_slots * sizeof *bigger.slots);
    if (!bigger.slots)
        return KVG_ENOMEM;
    for (size_t i = 0; i < bigger.n_slots; i++)
        bigger.slots[i] = EMPTY;
    struct kvg_gguf_index old = *ix;
    *ix = bigger; /* in place: name_at tells the two indexes apart by address */
    for (uint32_t i = 0; i < old.n; i++)
        *slot_of(g, ix, name_at(g, ix, i)) = i;
    free(old.slots);
    return 0;
}

/* Adds entry number ix->n, whose name is already in its array. */
static int index_add(struct kvg_gguf_reader *r, struct kvg_gguf *g, struct kvg_gguf_index *ix)
{
    if (2 * ix->n >= ix->n_slots && index_grow(g, ix))
        return KVG_FAIL(r->err, KVG_ENOMEM, "out of memory opening '%s'", g->path);
    uint32_t *slot = slot_of(g, ix, name_at(g, ix, (uint32_t)ix->n));
    if (*slot != EMPTY)
        return kvg_gguf_broken(r, "the name appears twice");
    *slot = (uint32_t)ix->n++;
    return 0;
}

/* Grows by what was really read, so that a count in the file never sizes an allocation. */
static void *room_for(struct kvg_gguf_reader *r, void *v, size_t n, size_t elem_bytes)
{
    if (n & (n - 1))
        return v;
    void *p = realloc(v, (n ? 2 * n : 1) * elem_bytes);
    if (!p)
        KVG_FAIL(r->err, KVG_ENOMEM, "out of memory opening '%s'", r->g->path);
    return p;
}

/* ---- reading ---- */

static int read_metadata(struct kvg_gguf_reader *r, struct kvg_gguf *g, uint64_t n)
{
    int rc = 0;
    for (uint64_t i = 0; i < n && !rc; i++) {
        r->kind = "metadata";
        r->name.s = NULL;
        void *p = room_for(r, g->kv, g->n_kv, sizeof *g->kv);
        if (!p)
            return KVG_ENOMEM;
        g->kv = p;
        rc = kvg_gguf_read_kv(r, &g->kv[g->n_kv]);
        if (!rc)
            rc = index_add(r, g, &g->kv_index);
        g->n_kv += !rc;
    }
    return rc;
}

/* bytes of the tensor's data; 0 bytes and no error when the type is not supported. */
static int tensor_bytes(struct kvg_gguf_reader *r, struct kvg_gguf_tensor *t)
{
    uint64_t n_elems = 1;
    for (uint32_t i = 0; i < KVG_GGUF_MAX_DIMS; i++) {
        if (t->dims[i] == 0 || t->dims[i] > (uint64_t)INT64_MAX / n_elems)
            return kvg_gguf_broken(r, "dimension %u is 0 or too large", i);
        n_elems *= t->dims[i];
    }
    const struct kvg_type_info *info = kvg_type_info(t->type);
    if (!info)
        return 0;
    if (t->dims[0] % info->block_elems)
        return kvg_gguf_broken(r, "rows of %llu elements are not whole blocks of %s",
                               (unsigned long long)t->dims[0], info->name);
    /* Divided first: blocks can be larger than their elements (f32: 4 bytes for 1). */
    uint64_t n_blocks = n_elems / info->block_elems;
    if (n_blocks > SIZE_MAX / info->block_bytes)
        return kvg_gguf_broken(r, "too large for this machine");
    t->bytes = (size_t)n_blocks * info->block_bytes;
    return 0;
}

static int read_tensor(struct kvg_gguf_reader *r, struct kvg_gguf_tensor *t)
{
    memset(t, 0, sizeof *t);
    r->kind = "tensor";
    r->name.s = NULL;
    int rc = kvg_gguf_take_str(r, &t->name);
    if (rc)
        return rc;
    if (t->name.n == 0 || t->name.n > MAX_NAME)
        return kvg_gguf_broken(r, "a name of %zu bytes (1 to %d are allowed)", t->name.n, MAX_NAME);
    r->name = t->name;
    rc = kvg_gguf_take_u32(r, &t->n_dims);
    if (!rc && (t->n_dims < 1 || t->n_dims > KVG_GGUF_MAX_DIMS))
        rc =
            kvg_gguf_broken(r, "%u dimensions (1 to %d are allowed)", t->n_dims, KVG_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < KVG_GGUF_MAX_DIMS && !rc; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims)
            rc = kvg_gguf_take_u64(r, &t->dims[i]);
    }
    if (!rc)
        rc = kvg_gguf_take_u32(r, &t->type);
    if (!rc)
        rc = kvg_gguf_take_u64(r, &t->offset);
    if (!rc && t->offset % r->g->alignment)
        rc = kvg_gguf_broken(r, "offset %llu is not a multiple of the alignment %u",
                             (unsigned long long)t->offset, r->g->alignment);
    return rc ? rc : tensor_bytes(r, t);
}

static int read_tensors(struct kvg_gguf_reader *r, struct kvg_gguf *g, uint64_t n)
{
    int rc = 0;
    for (uint64_t i = 0; i < n && !rc; i++) {
        void *p = room_for(r, g->tensors, g->n_tensors, sizeof *g->tensors);
        if (!p)
            return KVG_ENOMEM;
        g->tensors = p;
        rc = read_tensor(r, &g->tensors[g->n_tensors]);
        if (!rc)
            rc = index_add(r, g, &g->tensor_index);
        g->n_tensors += !rc;
    }
    return rc;
}

/* Points every tensor at its data, which must lie inside the file. */
static int place_tensors(struct kvg_gguf_reader *r, struct kvg_gguf *g)
{
    size_t pad = (g->alignment - r->at % g->alignment) % g->alignment;
    g->data_at = r->at + pad;
    int rc = 0;
    for (size_t i = 0; i < g->n_tensors && !rc; i++) {
        struct kvg_gguf_tensor *t = &g->tensors[i];
        r->kind = "tensor";
        r->name = t->name;
        r->at = g->data_at < g->map.size ? g->data_at : g->map.size;
        rc = kvg_gguf_take(r, t->offset, NULL);
        if (!rc)
            rc = kvg_gguf_take(r, t->bytes, t->bytes ? &t->data : NULL);
    }
    return rc;
}

static int read_alignment(struct kvg_gguf *g, struct kvg_err *err)
{
    g->alignment = DEFAULT_ALIGNMENT;
    int rc = kvg_gguf_u32(g, "general.alignment", &g->alignment, err);
    if (rc && rc != KVG_ENONE)
        return rc;
    if (g->alignment == 0 || (g->alignment & (g->alignment - 1)) || g->alignment > 1u << 20)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "broken model '%s': metadata key 'general.alignment': %u is not a power of "
                        "two up to 1048576",
                        g->path, g->alignment);
    return 0;
}

static int read_header(struct kvg_gguf_reader *r, struct kvg_gguf *g, uint64_t *n_tensors,
                       uint64_t *n_kv)
{
    const unsigned char *p;
    r->kind = "header";
    if (g->map.size < 4 || memcmp(g->map.data, "GGUF", 4))
        return KVG_FAIL(r->err, KVG_EFORMAT,
                        "not a GGUF model: '%s' (the first bytes are not 'GGUF')", g->path);
    int rc = kvg_gguf_take(r, 4, &p);
    if (!rc)
        rc = kvg_gguf_take_u32(r, &g->version);
    if (rc)
        return rc;
    if (g->version >= 1u << 24)
        return KVG_FAIL(r->err, KVG_EUNSUP, "big-endian model '%s' is not supported", g->path);
    if (g->version != 2 && g->version != 3)
        return KVG_FAIL(r->err, KVG_EUNSUP,
                        "GGUF version %u of '%s' is not supported (2 and 3 are)", g->version,
                        g->path);
    rc = kvg_gguf_take_u64(r, n_tensors);
    return rc ? rc : kvg_gguf_take_u64(r, n_kv);
}

int kvg_gguf_open(struct kvg_gguf *g, const char *path, struct kvg_err *err)
{
    memset(g, 0, sizeof *g);
    uint64_t n_tensors = 0, n_kv = 0;
    struct kvg_gguf_reader r = {.g = g, .err = err};
    int rc = kvg_fs_map(&g->map, path, err);
    if (rc)
        goto out;
    g->path = strdup(path);
    if (!g->path) {
        rc = KVG_FAIL(err, KVG_ENOMEM, "out of memory opening '%s'", path);
        goto out;
    }
    rc = read_header(&r, g, &n_tensors, &n_kv);
    if (!rc)
        rc = read_metadata(&r, g, n_kv);
    if (!rc)
        rc = read_alignment(g, err);
    if (!rc)
        rc = read_tensors(&r, g, n_tensors);
    if (!rc)
        rc = place_tensors(&r, g);
out:
    if (rc)
        kvg_gguf_close(g);
    return rc;
}

void kvg_gguf_close(struct kvg_gguf *g)
{
    free(g->kv);
    free(g->tensors);
    free(g->kv_index.slots);
    free(g->tensor_index.slots);
    free(g->path);
    kvg_fs_unmap(&g->map);
    memset(g, 0, sizeof *g);
}

/* ---- lookups ---- */

const struct kvg_gguf_kv *kvg_gguf_find(const struct kvg_gguf *g, const char *key)
{
    struct kvg_gguf_str name = {key, strlen(key)};
    if (!g->kv_index.n_slots)
        return NULL;
    uint32_t i = *slot_of(g, &g->kv_index, name);
    return i == EMPTY ? NULL : &g->kv[i];
}

const struct kvg_gguf_tensor *kvg_gguf_find_tensor(const struct kvg_gguf *g, const char *name)
{
    struct kvg_gguf_str key = {name, strlen(name)};
    if (!g->tensor_index.n_slots)
        return NULL;
    uint32_t i = *slot_of(g, &g->tensor_index, key);
    return i == EMPTY ? NULL : &g->tensors[i];
}

int kvg_gguf_tensor(const struct kvg_gguf *g, const char *name, const struct kvg_gguf_tensor **out,
                    struct kvg_err *err)
{
    const struct kvg_gguf_tensor *t = kvg_gguf_find_tensor(g, name);
    if (!t)
        return KVG_FAIL(err, KVG_EFORMAT, "tensor '%s' is missing in '%s'", name, g->path);
    if (!t->data)
        return KVG_FAIL(err, KVG_EUNSUP,
                        "tensor '%s' of '%s' has type number %u, which is not supported; use a "
                        "model in f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k or q6_k",
                        name, g->path, t->type);
    *out = t;
    return 0;
}
