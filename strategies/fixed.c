/* fixed: keeps a given set of positions, read from a file of the form `kvgauge inspect --kept`
 * writes: layer, head, count, mask in hex (bit i%8 of byte i/8, least significant first). With it
 * the sets of other implementations can be forced and their logits compared. */
#include "strategies/strategy.h"

#include "base/fs.h"

#include <stdlib.h>
#include <string.h>

struct opt {
    const char *file;
};

struct masks {
    unsigned char *bits; /* [n_layers * n_kv_heads, n_ctx / 8 + 1] */
    size_t row_bytes, n_positions;
};

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int parse_mask(struct masks *m, unsigned char *row, const char *s, size_t *n_set)
{
    size_t n = 0;
    for (; hex(s[0]) >= 0 && hex(s[1]) >= 0; s += 2, n++) {
        if (n >= m->row_bytes)
            return -1;
        row[n] = (unsigned char)(hex(s[0]) << 4 | hex(s[1]));
        for (int b = 0; b < 8; b++)
            *n_set += (size_t)(row[n] >> b & 1);
    }
    if (n * 8 > m->n_positions)
        m->n_positions = n * 8;
    return n && (*s == 0 || *s == '\r') ? 0 : -1;
}

static int parse_line(const struct kvg_inst *in, struct masks *m, char *line, size_t number,
                      unsigned char *seen, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    char *end;
    unsigned long layer = strtoul(line, &end, 10), head = strtoul(end, &end, 10);
    unsigned long count = strtoul(end, &end, 10);
    while (*end == '\t' || *end == ' ')
        end++;
    size_t n_set = 0, at = layer * in->dims.n_kv_heads + head;
    if (layer >= in->dims.n_layers || head >= in->dims.n_kv_heads || seen[at] ||
        parse_mask(m, m->bits + at * m->row_bytes, end, &n_set) || n_set != count)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "malformed set of kept positions '%s', line %zu: want layer, head, count, "
                        "hex mask, each (layer, head) once",
                        o->file, number);
    seen[at] = 1;
    return 0;
}

static int parse(struct kvg_inst *in, struct masks *m, char *text, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    size_t want = in->dims.n_layers * in->dims.n_kv_heads, got = 0, number = 0;
    unsigned char *seen = kvg_arena_alloc(in->arena, want);
    if (!seen)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (char *line = text; line;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        number++;
        if (*line && *line != '#' && *line != '\r') {
            int rc = parse_line(in, m, line, number, seen, err);
            if (rc)
                return rc;
            got++;
        }
        line = next;
    }
    if (got != want)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "'%s' names %zu of the %zu (layer, KV head) pairs of this model", o->file,
                        got, want);
    return 0;
}

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    char *text;
    size_t size;
    if (!o->file)
        return KVG_FAIL(err, KVG_EUSAGE, "strategy 'fixed' needs 'file=KEPT.tsv'");
    int rc = kvg_fs_read(o->file, (size_t)64 << 20, &text, &size, err);
    if (rc)
        return rc;
    size_t n_heads = in->dims.n_layers * in->dims.n_kv_heads;
    struct masks *m = kvg_arena_alloc(in->arena, sizeof *m);
    if (m) {
        m->row_bytes = in->dims.n_ctx / 8 + 1;
        m->bits = kvg_arena_array(in->arena, n_heads, m->row_bytes);
    }
    rc = m && m->bits ? parse(in, m, text, err) : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    free(text);
    in->user = m;
    return rc;
}

static void compress(struct kvg_inst *in, const struct kvg_view *v, struct kvg_plan *plan)
{
    const struct masks *m = in->user;
    int32_t *pos = (int32_t *)(void *)v->scratch;
    for (size_t h = 0; h < in->dims.n_kv_heads; h++) {
        size_t n = kvg_view_slots(v, h), n_keep = 0;
        const unsigned char *row =
            m->bits + (v->layer * in->dims.n_kv_heads + h) * m->row_bytes;
        uint32_t *slots = kvg_plan_slots(plan, n);
        if (!slots)
            return;
        kvg_store_positions(v->store, v->layer, h, pos);
        for (size_t j = 0; j < n; j++) {
            size_t p = (size_t)pos[j];
            if (p >= m->n_positions || row[p / 8] >> (p % 8) & 1)
                slots[n_keep++] = (uint32_t)j;
        }
        kvg_plan_list(plan, KVG_PLAN_KEEP, v->layer, h, slots, n_keep);
    }
}

static const struct kvg_opt opts[] = {
    {.name = "file",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct opt, file),
     .metavar = "KEPT.tsv",
     .help = "positions to keep; those behind the file's last one stay"},
    {0}};

const struct kvg_strategy kvg_fixed = {
    .name = "fixed",
    .summary = "keeps a given set of positions, to compare with other implementations",
    .source = "the format that `kvgauge inspect --kept` writes",
    .observes = "nothing",
    .kind = KVG_KIND_KEEP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .schedule = {KVG_SCHED_PROMPT, 0},
    .truncation = KVG_TRUNCATE_RECOMPUTE,
    .init = init,
    .compress = compress,
};
