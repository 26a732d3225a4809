/* Owns opening a workload: which file, which format, its hash, its card. Must not know what any
 * format looks like inside; the formats are in list.h. */
#include "workloads/build.h"

#include "base/fs.h"

#include <string.h>

static const struct kvg_workload_format *const formats[] = {
#define WORKLOAD(name) &kvg_workload_##name,
#include "workloads/list.h"
#undef WORKLOAD
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

void kvg_workload_formats_help(struct kvg_str *out)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        kvg_str_addf(out, "  %-10s %s\n", formats[i]->name, formats[i]->help);
}

const char *kvg_workload_kind_name(enum kvg_workload_kind kind)
{
    return kind == KVG_WORKLOAD_TRANSLATION ? "translation" : "chat";
}

static const struct kvg_workload_format *choose_json(const json_t *record)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (formats[i]->accepts && formats[i]->accepts(record))
            return formats[i];
    return NULL;
}

static const struct kvg_workload_format *text_format(void)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (formats[i]->text)
            return formats[i];
    return NULL;
}

static int has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcasecmp(s + n - m, suffix);
}

static int fail_unknown(const char *path, struct kvg_err *err)
{
    struct kvg_str help = {0};
    kvg_workload_formats_help(&help);
    int rc = KVG_FAIL(err, KVG_EFORMAT, "unknown workload format in '%s'; supported are:\n%s", path,
                      help.s ? help.s : "");
    kvg_str_release(&help);
    return rc;
}

/* The first character tells JSON from text, unless the file's name says it is TSV. */
static int read_any(struct kvg_build *b, const char *data, size_t n, struct kvg_err *err)
{
    if (n >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) {
        data += 3;
        n -= 3;
    }
    if (n >= 2 && (!memcmp(data, "\xff\xfe", 2) || !memcmp(data, "\xfe\xff", 2)))
        return KVG_FAIL(err, KVG_EFORMAT, "the workload '%s' is UTF-16; convert it to UTF-8",
                        b->path);
    size_t lead = 0;
    while (lead < n && (data[lead] == ' ' || (data[lead] >= '\t' && data[lead] <= '\r')))
        lead++;
    if (lead == n)
        return KVG_FAIL(err, KVG_EFORMAT, "nothing in the workload '%s': it is empty", b->path);

    int is_tsv = has_suffix(b->path, ".tsv");
    int is_json = has_suffix(b->path, ".jsonl") || has_suffix(b->path, ".json");
    if (!is_tsv && (is_json || data[lead] == '{' || data[lead] == '['))
        return kvg_json_read(b, data, n, choose_json, err);
    const char *nl = memchr(data + lead, '\n', n - lead);
    size_t line = nl ? (size_t)(nl - data) - lead : n - lead;
    if (!is_tsv && !memchr(data + lead, '\t', line))
        return fail_unknown(b->path, err);
    b->w->format = text_format()->name;
    return text_format()->text(b, data, n, err);
}

static const char *base_name(struct kvg_arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    return kvg_arena_strndup(a, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

/* Reads the data file w->path into *w. */
static int read_file(struct kvg_workload *w, const struct kvg_workload_card *card,
                     struct kvg_err *err)
{
    struct kvg_fs_map map;
    struct kvg_build b;
    kvg_build_init(&b, w, w->path);
    if (kvg_fs_exists(w->path) && kvg_fs_is_dir(w->path))
        return KVG_FAIL(err, KVG_EUSAGE, "'%s' is a folder without a card.json", w->path);
    int rc = kvg_fs_map(&map, w->path, err);
    if (rc == KVG_EFORMAT)
        return KVG_FAIL(err, rc, "nothing in the workload '%s': it is empty", w->path);
    if (rc)
        return rc;
    if (map.size > KVG_WORKLOAD_FILE_MAX) {
        rc = KVG_FAIL(err, KVG_ELIMIT, "the workload '%s' is larger than %zu bytes", w->path,
                      KVG_WORKLOAD_FILE_MAX);
        goto out;
    }
    kvg_hash_sha256_hex(map.data, map.size, w->sha256);
    if (card && strcmp(card->sha256, w->sha256) != 0) {
        rc = KVG_FAIL(err, KVG_EFORMAT,
                      "the data of the pack '%s' is not what its card describes: '%s' hashes to "
                      "%.12s..., the card says %.12s...; restore the file, or open it by its path",
                      card->name, w->path, w->sha256, card->sha256);
        goto out;
    }
    rc = read_any(&b, (const char *)map.data, map.size, err);
    if (!rc)
        rc = kvg_build_finish(&b, err);
out:
    kvg_build_release(&b);
    kvg_fs_unmap(&map);
    return rc;
}

static int check_counts(const struct kvg_workload *w, const struct kvg_workload_card *card,
                        struct kvg_err *err)
{
    size_t n_turns = 0;
    for (size_t i = 0; i < w->n_items; i++)
        n_turns += w->items[i].n_turns;
    if (w->n_items != card->n_items || n_turns != card->n_turns)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "the card of the pack '%s' counts %zu items and %zu turns, its data has "
                        "%zu and %zu; write the card anew with cards.py",
                        card->name, card->n_items, card->n_turns, w->n_items, n_turns);
    return 0;
}

static int open_pack(struct kvg_workload *w, const char *folder, struct kvg_err *err)
{
    struct kvg_workload_card card;
    int rc = kvg_workload_card(&card, folder, &w->arena, err);
    if (rc)
        return rc;
    w->name = card.name;
    w->path = card.data_path;
    w->licence = card.licence;
    w->is_pack = 1;
    if ((rc = read_file(w, &card, err)))
        return rc;
    return check_counts(w, &card, err);
}

int kvg_workload_open(struct kvg_workload *w, const char *name_or_path, struct kvg_err *err)
{
    memset(w, 0, sizeof *w);
    kvg_arena_init(&w->arena);
    int rc;
    const char *folder = kvg_pack_folder(name_or_path, &w->arena);
    if (folder) {
        rc = open_pack(w, folder, err);
    } else if (!kvg_fs_exists(name_or_path)) {
        rc = kvg_pack_unknown(name_or_path, err);
    } else {
        w->path = kvg_arena_strdup(&w->arena, name_or_path);
        w->name = base_name(&w->arena, name_or_path);
        w->licence = "NOASSERTION";
        rc = w->path && w->name ? read_file(w, NULL, err)
                                : KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    }
    if (rc)
        kvg_workload_close(w);
    return rc;
}

void kvg_workload_close(struct kvg_workload *w)
{
    kvg_arena_release(&w->arena);
    memset(w, 0, sizeof *w);
}
