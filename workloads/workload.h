/* Workloads: chat and translation items read from files, in one in-memory form. Owns the text of
 * all items; knows the file formats through workloads/list.h. Must not know about models, tokens
 * or strategies. */
#ifndef KVG_WORKLOADS_WORKLOAD_H
#define KVG_WORKLOADS_WORKLOAD_H

#include "base/arena.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

enum kvg_workload_kind { KVG_WORKLOAD_CHAT, KVG_WORKLOAD_TRANSLATION };

/* A right reply contains at least one of these. */
struct kvg_check {
    const char *const *any; /* [n_any], n_any >= 1 */
    size_t n_any;
};

/* One user message and the reply to it; in a translation one segment and its reference. Turns are
 * in file order. Edits make a tree of them: `parent` is the turn that comes before this one in the
 * conversation. A turn that rewinds throws the conversation away from turn `rewind_to` on, which
 * leaves turn `parent` as the last one, and goes on from there. `parent` is then always on the
 * path that was being followed, so truncating is enough. */
struct kvg_turn {
    const char *user; /* never NULL, never empty, valid UTF-8 */
    /* The question in a message that also holds something pasted: a stretch of `user`
     * [n_question]; NULL = the whole message asks. */
    const char *question;
    size_t n_question;
    const char *reply; /* the recorded reply or reference; NULL = none is recorded */
    int32_t rewind_to; /* earlier turn whose prompt this one replaces; -1 = goes straight on */
    int32_t parent;    /* turn before this one in the conversation; -1 = it is the first */
    const struct kvg_check *checks; /* [n_checks] a right reply passes all; 0 = nothing to check */
    size_t n_checks;
};

/* A glossary entry of a document: `source` must be translated as `target`. */
struct kvg_term {
    const char *source, *target;
};

/* One conversation or one document. */
struct kvg_item {
    const char *id;               /* unique in its workload */
    const char *family;           /* "other" when the file has none */
    const char *lang;             /* language of the replies; "und" when unknown */
    const char *source_lang;      /* translation: language of the user texts; else NULL */
    const char *title;            /* "" when the file has none */
    const char *system;           /* system message; NULL = none */
    const struct kvg_turn *turns; /* [n_turns], n_turns >= 1 */
    size_t n_turns;
    const struct kvg_term *terms; /* [n_terms] */
    size_t n_terms;
    size_t line; /* where it starts in the file; in a JSON array its place, from 1 */
};

/* A whole file. Everything reachable from it lives in `arena` until kvg_workload_close. */
struct kvg_workload {
    const char *name;            /* pack name, or the file's name without folder and extension */
    const char *path;            /* data file as opened */
    const char *format;          /* name of the reader: "openai", "sharegpt", ... */
    char sha256[KVG_SHA256_HEX]; /* of the data file's bytes */
    enum kvg_workload_kind kind;
    int is_pack;                  /* has a card, and the card's hash matched */
    const char *licence;          /* SPDX id; "NOASSERTION" when there is no card */
    const char *const *languages; /* [n_languages] distinct `lang` in order of appearance */
    size_t n_languages;
    const struct kvg_item *items; /* [n_items], n_items >= 1 */
    size_t n_items;
    /* What the reader had to leave out, one sentence a kind of loss; to be shown to the user. */
    const char *const *warnings; /* [n_warnings] */
    size_t n_warnings;
    struct kvg_arena arena;
    uint32_t *index; /* private: hash table id -> item + 1, [n_index], a power of two */
    size_t n_index;
};

/* Opens a pack by its bare name ("chat", "translation"), a pack by its folder, or a file by its
 * path. A bare name is looked up as workloads/<name>/card.json under $KVGAUGE_DATA, the source
 * folder, and the folders above the executable; a file of that name in the current folder comes
 * last. The format is found from the content. A pack whose data does not match its card is
 * refused. Errors: KVG_EUSAGE (no such pack or file), KVG_EIO, KVG_EFORMAT (the message has file
 * and line), KVG_ELIMIT (line or file too long), KVG_ENOMEM; *w then needs no close. */
int kvg_workload_open(struct kvg_workload *w, const char *name_or_path, struct kvg_err *err);
void kvg_workload_close(struct kvg_workload *w);

/* The item with this id, or NULL. */
const struct kvg_item *kvg_workload_find(const struct kvg_workload *w, const char *id);

/* 1 when `text` passes all checks of the turn, 0 when it fails one, -1 when the turn has none.
 * A check is passed when one of its strings occurs. Letter case is ignored for ASCII, Latin-1 and
 * Latin Extended-A; runs of white space count as one space, a curly apostrophe as a straight one.
 */
int kvg_workload_check_answer(const struct kvg_turn *turn, const char *text);
/* How many of turn->n_checks the text passes. */
size_t kvg_workload_checks_passed(const struct kvg_turn *turn, const char *text);

/* Writes to out[] (room for item->n_turns) the turns of the conversation that ends with `turn`,
 * first to last, `turn` included; returns how many. */
size_t kvg_workload_history(const struct kvg_item *item, size_t turn, size_t *out);

const char *kvg_workload_kind_name(enum kvg_workload_kind kind); /* "chat", "translation" */
/* Appends one line per supported format: name and what it looks like. */
void kvg_workload_formats_help(struct kvg_str *out);

/* The card of a pack: workloads/<pack>/card.json. */
struct kvg_workload_card {
    const char *name, *description, *licence, *creator, *file, *provenance, *personal_data;
    char sha256[KVG_SHA256_HEX];  /* what the data file must hash to */
    const char *const *languages; /* [n_languages] */
    size_t n_languages;
    const char *const *families; /* [n_families] */
    size_t n_families;
    size_t n_items, n_turns, tokens_median; /* tokens by SmolLM2's tokenizer, one whole item */
    const char *data_path;                  /* folder + file */
};

/* Reads the card of a pack given by name or folder, without opening its data; strings live in
 * `arena`. KVG_EUSAGE when there is no such pack, KVG_EFORMAT when a field is missing or wrong. */
int kvg_workload_card(struct kvg_workload_card *card, const char *name_or_folder,
                      struct kvg_arena *arena, struct kvg_err *err);

#endif
