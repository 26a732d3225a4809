/* Chat templates: what to put around messages so that a model sees the text it was trained on. A
 * GGUF file carries its template as a Jinja program; kvgauge runs no Jinja but recognises four
 * families by their marker strings (ChatML, Llama-2, Llama-3, Zephyr) and takes the details that
 * differ inside a family from the program's text: a default system message, whether messages are
 * trimmed, whether BOS is written. Programs with known features beyond that are refused.
 *
 * Made for replay turn by turn through one store: prompt(0) reply(0) prompt(1) reply(1) ...
 * reply_end, concatenated, equal what the Jinja program renders for the whole conversation. */
#ifndef KVG_MODEL_TEMPLATE_H
#define KVG_MODEL_TEMPLATE_H

#include "base/text.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

enum kvg_template_kind {
    KVG_TEMPLATE_CHATML,
    KVG_TEMPLATE_LLAMA2,
    KVG_TEMPLATE_LLAMA3,
    KVG_TEMPLATE_ZEPHYR,
    KVG_TEMPLATE_N
};

struct kvg_template {
    enum kvg_template_kind kind;
    int trim;                      /* messages lose the white space around them */
    struct kvg_gguf_str bos;       /* n = 0: the template writes none */
    struct kvg_gguf_str eos;       /* n = 0: not known, and the kind does not need it */
    struct kvg_str default_system; /* used when a conversation has none; len 0 = none */
};

/* Reads tokenizer.chat_template of `g`; bos and eos point into `tok`, which must outlive the
 * template. KVG_ENONE when the file has no template, KVG_EUNSUP when it is none of the four. */
int kvg_template_open(struct kvg_template *t, const struct kvg_gguf *g,
                      const struct kvg_tokenizer *tok, struct kvg_err *err);
/* The same from the parts; bos and eos (n may be 0) must outlive the template. */
int kvg_template_init(struct kvg_template *t, struct kvg_gguf_str jinja, struct kvg_gguf_str bos,
                      struct kvg_gguf_str eos, struct kvg_err *err);
void kvg_template_release(struct kvg_template *t);
const char *kvg_template_name(enum kvg_template_kind kind);

/* Template text (special: control tokens in it are parsed) and message text (not special: a user
 * who types a control token's name gets its letters) in order. Pieces point into the template, the
 * vocabulary and the messages given, and live as long as those. */
enum { KVG_TEMPLATE_MAX_PIECES = 16 };
struct kvg_template_pieces {
    struct kvg_text_piece v[KVG_TEMPLATE_MAX_PIECES];
    size_t n;
};

/* What to append before reply number `turn` (from 0). Turn 0: the beginning of the conversation
 * with the system message (NULL = the template's default, if it has one), the user message, the
 * assistant's header. Later turns: the closing of the previous reply, user message, header;
 * `system` is not used. The reply before must be in the context without its end-of-turn token. */
void kvg_template_prompt(const struct kvg_template *t, size_t turn, const char *system,
                         const char *user, struct kvg_template_pieces *out);
/* A given reply as the template writes it: trimmed, and with a leading space in Llama-2. */
void kvg_template_reply(const struct kvg_template *t, const char *reply,
                        struct kvg_template_pieces *out);
/* What closes the last reply. */
void kvg_template_reply_end(const struct kvg_template *t, struct kvg_template_pieces *out);

/* Appends the pieces as plain text. KVG_ENOMEM. */
int kvg_template_text(const struct kvg_template_pieces *p, struct kvg_str *out);
/* Ids of the pieces; `begin` says that nothing stands before them. Limits as
 * kvg_tokenizer_encode. BOS comes from the template alone. */
int kvg_template_encode(const struct kvg_tokenizer *tok, const struct kvg_template_pieces *p,
                        int begin, int32_t *ids, size_t cap, size_t *n, struct kvg_err *err);

#endif
