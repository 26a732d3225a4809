/* Owns packs: where they are and what their cards say. Must not know the format of their data. */
#include "workloads/build.h"

#include "base/fs.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_ROOTS = 4, CARD_BYTES_MAX = 1 << 20, N_NAMES_MAX = 32 };

/* The folders that may hold workloads/<pack>/, best first; n = how many there are. */
static size_t find_roots(char roots[N_ROOTS][PATH_MAX])
{
    size_t n = 0;
    const char *data = getenv("KVGAUGE_DATA");
    if (data && *data)
        snprintf(roots[n++], PATH_MAX, "%s", data);
    snprintf(roots[n++], PATH_MAX, "%s", KVG_SOURCE_DIR);
    char exe[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    for (int up = 0; len > 0 && up < 3 && n < N_ROOTS; up++) {
        exe[len] = 0;
        char *slash = strrchr(exe, '/');
        len = slash ? slash - exe : 0;
        if (up > 0 && len > 0) /* the folder itself is a build folder */
            snprintf(roots[n++], PATH_MAX, "%.*s", (int)len, exe);
    }
    return n;
}

static char *folder_with_card(struct kvg_arena *arena, const char *root, const char *name)
{
    char *folder = root ? kvg_arena_printf(arena, "%s/workloads/%s", root, name)
                        : kvg_arena_strdup(arena, name);
    char *card = folder ? kvg_arena_printf(arena, "%s/card.json", folder) : NULL;
    return card && kvg_fs_exists(card) ? folder : NULL;
}

const char *kvg_pack_folder(const char *name_or_folder, struct kvg_arena *arena)
{
    char roots[N_ROOTS][PATH_MAX];
    char *folder = NULL;
    if (!*name_or_folder || strchr(name_or_folder, '/') || name_or_folder[0] == '.')
        return folder_with_card(arena, NULL, name_or_folder);
    size_t n = find_roots(roots);
    for (size_t i = 0; i < n && !folder; i++)
        folder = folder_with_card(arena, roots[i], name_or_folder);
    return folder;
}

/* Collects the names of the packs there are; returns how many, names live in `arena`. */
static size_t list_packs(struct kvg_arena *arena, const char *names[N_NAMES_MAX])
{
    char roots[N_ROOTS][PATH_MAX];
    size_t n = 0, n_roots = find_roots(roots);
    for (size_t i = 0; i < n_roots; i++) {
        char *path = kvg_arena_printf(arena, "%s/workloads", roots[i]);
        DIR *dir = path ? opendir(path) : NULL;
        for (struct dirent *d; dir && n < N_NAMES_MAX && (d = readdir(dir));) {
            size_t seen = 0;
            while (seen < n && strcmp(names[seen], d->d_name) != 0)
                seen++;
            if (d->d_name[0] == '.' || seen < n || !folder_with_card(arena, roots[i], d->d_name))
                continue;
            if ((names[n] = kvg_arena_strdup(arena, d->d_name)))
                n++;
        }
        if (dir)
            closedir(dir);
    }
    return n;
}

int kvg_pack_unknown(const char *name, struct kvg_err *err)
{
    const char *names[N_NAMES_MAX];
    struct kvg_arena arena;
    struct kvg_str list = {0};
    kvg_arena_init(&arena);
    size_t n = list_packs(&arena, names);
    const char *near = kvg_text_nearest(name, names, n);
    for (size_t i = 0; i < n; i++)
        kvg_str_addf(&list, "%s%s", i ? ", " : "", names[i]);
    int rc = KVG_FAIL(err, KVG_EUSAGE,
                      "no workload '%s': neither a pack (there are: %s) nor a file%s%s%s", name,
                      list.len ? list.s : "none", near ? "; did you mean '" : "", near ? near : "",
                      near ? "'?" : "");
    kvg_str_release(&list);
    kvg_arena_release(&arena);
    return rc;
}

/* What the readers of the card's fields share. */
struct card_reader {
    struct kvg_arena *arena;
    const json_t *root;
    const char *path;
    struct kvg_err *err;
    int rc;
};

static void card_fail(struct card_reader *r, const char *key, const char *what)
{
    if (!r->rc)
        r->rc = KVG_FAIL(r->err, KVG_EFORMAT, "the card '%s' needs '%s': %s", r->path, key, what);
}

static const char *card_string(struct card_reader *r, const char *key)
{
    const char *s = json_string_value(json_object_get(r->root, key));
    const char *copy = s && *s ? kvg_arena_strdup(r->arena, s) : NULL;
    if (!copy)
        card_fail(r, key, "a string that is not empty");
    return copy;
}

static const char *const *card_list(struct card_reader *r, const char *key, size_t *n)
{
    const json_t *list = json_object_get(r->root, key);
    *n = json_array_size(list);
    const char **out = *n ? kvg_arena_array(r->arena, *n, sizeof *out) : NULL;
    for (size_t i = 0; out && i < *n; i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (!s || !(out[i] = kvg_arena_strdup(r->arena, s)))
            card_fail(r, key, "a list of strings");
    }
    if (!out)
        card_fail(r, key, "a list that is not empty");
    return out;
}

static size_t card_count(struct card_reader *r, const char *key)
{
    const json_t *v = json_object_get(json_object_get(r->root, "counts"), key);
    if (!json_is_integer(v) || json_integer_value(v) <= 0) {
        card_fail(r, key, "a whole number above 0 in 'counts'");
        return 0;
    }
    return (size_t)json_integer_value(v);
}

static void read_fields(struct card_reader *r, struct kvg_workload_card *card, const char *folder)
{
    card->name = card_string(r, "name");
    card->description = card_string(r, "description");
    card->licence = card_string(r, "licence");
    card->creator = card_string(r, "creator");
    card->file = card_string(r, "file");
    card->provenance = card_string(r, "provenance");
    card->personal_data = card_string(r, "personal_data");
    card->languages = card_list(r, "languages", &card->n_languages);
    card->families = card_list(r, "families", &card->n_families);
    card->n_items = card_count(r, "items");
    card->n_turns = card_count(r, "turns");
    card->tokens_median = card_count(r, "tokens_median");
    const char *hash = card_string(r, "sha256");
    if (!r->rc && (strlen(hash) != KVG_SHA256_HEX - 1 ||
                   strspn(hash, "0123456789abcdef") != KVG_SHA256_HEX - 1))
        card_fail(r, "sha256", "64 lower-case hexadecimal digits");
    if (!r->rc && strchr(card->file, '/'))
        card_fail(r, "file", "a name in the card's own folder");
    if (r->rc)
        return;
    memcpy(card->sha256, hash, KVG_SHA256_HEX);
    if (!(card->data_path = kvg_arena_printf(r->arena, "%s/%s", folder, card->file)))
        r->rc = KVG_FAIL(r->err, KVG_ENOMEM, "out of memory");
}

int kvg_workload_card(struct kvg_workload_card *card, const char *name_or_folder,
                      struct kvg_arena *arena, struct kvg_err *err)
{
    memset(card, 0, sizeof *card);
    const char *folder = kvg_pack_folder(name_or_folder, arena);
    if (!folder)
        return kvg_pack_unknown(name_or_folder, err);
    struct card_reader r = {.arena = arena, .err = err};
    char *text = NULL, quoted[128];
    size_t n;
    json_t *root = NULL;
    if (!(r.path = kvg_arena_printf(arena, "%s/card.json", folder)))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if ((r.rc = kvg_fs_read(r.path, CARD_BYTES_MAX, &text, &n, err)))
        return r.rc;
    json_error_t e;
    if (!(root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e))) {
        r.rc = KVG_FAIL(err, KVG_EFORMAT, "malformed card '%s', line %d: %s", r.path, e.line,
                        kvg_build_quote(e.text, quoted));
        goto out;
    }
    r.root = root;
    read_fields(&r, card, folder);
out:
    json_decref(root);
    free(text);
    return r.rc;
}
