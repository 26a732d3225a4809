/* Owns the shapes of the four chat template families and recognising them; must not know how text
 * becomes ids. */
#include "model/template.h"

#include <string.h>

/* \1 stands for the EOS token's text. */
struct shape {
    const char *name;
    const char *sys_open, *sys_close;
    const char *user_open, *user_close; /* user_close ends with the assistant's header */
    const char *reply_open, *reply_close;
    int sys_in_user;   /* the system message stands inside the first user message */
    int bos_each_turn; /* else only at the beginning */
};

static const struct shape shapes[KVG_TEMPLATE_N] = {
    [KVG_TEMPLATE_CHATML] = {"chatml", "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n",
                             "<|im_end|>\n<|im_start|>assistant\n", "", "<|im_end|>\n", 0, 0},
    [KVG_TEMPLATE_LLAMA2] = {"llama-2", "<<SYS>>\n", "\n<</SYS>>\n\n", "[INST] ", " [/INST]", " ",
                             " \1", 1, 1},
    [KVG_TEMPLATE_LLAMA3] = {"llama-3", "<|start_header_id|>system<|end_header_id|>\n\n",
                             "<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\n",
                             "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "",
                             "<|eot_id|>", 0, 0},
    [KVG_TEMPLATE_ZEPHYR] = {"zephyr", "<|system|>\n", "\1\n", "<|user|>\n", "\1\n<|assistant|>\n",
                             "", "\1\n", 0, 0},
};

const char *kvg_template_name(enum kvg_template_kind kind)
{
    return shapes[kind].name;
}

/* ---- recognising ---- */

static int has(struct kvg_gguf_str s, const char *marker)
{
    return memmem(s.s, s.n, marker, strlen(marker)) != NULL;
}

static int find_kind(struct kvg_gguf_str j, enum kvg_template_kind *out)
{
    if (has(j, "<|im_start|>") && has(j, "<|im_end|>"))
        *out = KVG_TEMPLATE_CHATML;
    else if (has(j, "<|start_header_id|>") && has(j, "<|eot_id|>"))
        *out = KVG_TEMPLATE_LLAMA3;
    else if (has(j, "[INST]") && has(j, "<<SYS>>"))
        *out = KVG_TEMPLATE_LLAMA2;
    else if (has(j, "<|user|>") && has(j, "<|system|>") && has(j, "<|assistant|>") &&
             has(j, "eos_token"))
        *out = KVG_TEMPLATE_ZEPHYR;
    else
        return -1;
    return 0;
}

/* Features of known programs that would make the fixed shapes render something else. */
static const char *find_unsupported(struct kvg_gguf_str j)
{
    static const char *const marks[] = {"<think>", "strftime_now", "Cutting Knowledge",
                                        "set system_message = '", "set system_message = \""};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (has(j, marks[i]))
            return marks[i];
    return NULL;
}

/* Appends one character of a Jinja string literal; returns how much of s[n] it took. */
static size_t add_unescaped(struct kvg_str *out, const char *s, size_t n, int in_literal)
{
    static const char from[] = "ntr", to[] = "\n\t\r";
    if (!in_literal || *s != '\\' || n < 2) {
        kvg_str_addc(out, *s);
        return 1;
    }
    const char *p = strchr(from, s[1]);
    kvg_str_addc(out, s[1] && p ? to[p - from] : s[1]);
    return 2;
}

/* The text between `open` and `close` at s[n], when the program writes it as a constant: no end of
 * the literal, no expression inside. */
static int read_constant(struct kvg_str *out, const char *s, size_t n, char quote,
                         const char *close)
{
    size_t n_close = strlen(close);
    int in_literal = quote == '\'' || quote == '"';
    kvg_str_clear(out);
    for (size_t i = 0; i + n_close <= n;) {
        if (!memcmp(s + i, close, n_close))
            return 1;
        if (in_literal ? s[i] == quote : s[i] == '{')
            return 0;
        i += add_unescaped(out, s + i, n - i, in_literal);
    }
    return 0;
}

/* A system message the program itself puts in: "<|im_start|>system\n" constant "<|im_end|>". The
 * line break is spelled \n or as itself. */
static void find_default_system(struct kvg_template *t, struct kvg_gguf_str j)
{
    static const char open[] = "<|im_start|>system";
    const char *s = j.s, *end = j.s + j.n;
    while ((s = memmem(s, (size_t)(end - s), open, sizeof open - 1))) {
        char quote = s > j.s ? s[-1] : 0;
        s += sizeof open - 1;
        const char *p = s;
        if (end - p >= 2 && p[0] == '\\' && p[1] == 'n')
            p += 2;
        else if (p < end && *p == '\n')
            p++;
        else
            continue;
        if (read_constant(&t->default_system, p, (size_t)(end - p), quote, "<|im_end|>"))
            return;
    }
    kvg_str_clear(&t->default_system);
}

int kvg_template_init(struct kvg_template *t, struct kvg_gguf_str jinja, struct kvg_gguf_str bos,
                      struct kvg_gguf_str eos, struct kvg_err *err)
{
    memset(t, 0, sizeof *t);
    if (find_kind(jinja, &t->kind))
        return KVG_FAIL(err, KVG_EUNSUP,
                        "the chat template of the model is not supported; ChatML, Llama-2, Llama-3 "
                        "and Zephyr are");
    const char *mark = find_unsupported(jinja);
    if (mark)
        return KVG_FAIL(err, KVG_EUNSUP,
                        "the chat template of the model looks like '%s', but uses '%s', which is "
                        "not supported",
                        kvg_template_name(t->kind), mark);
    t->trim = has(jinja, "| trim") || has(jinja, "|trim") || has(jinja, ".strip()");
    if (has(jinja, "bos_token") || has(jinja, "<|begin_of_text|>"))
        t->bos = bos;
    t->eos = eos;
    if (strchr(shapes[t->kind].reply_close, '\1') && eos.n == 0)
        return KVG_FAIL(err, KVG_EFORMAT,
                        "the chat template '%s' needs an end-of-sequence token and the model names "
                        "none",
                        kvg_template_name(t->kind));
    if (t->kind == KVG_TEMPLATE_CHATML)
        find_default_system(t, jinja);
    if (t->default_system.failed) {
        kvg_template_release(t);
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading the chat template");
    }
    return 0;
}

static struct kvg_gguf_str token_text(const struct kvg_tokenizer *tok, int32_t id)
{
    struct kvg_gguf_str s = {NULL, 0};
    s.s = kvg_tokenizer_piece(tok, id, &s.n);
    return s;
}

int kvg_template_open(struct kvg_template *t, const struct kvg_gguf *g,
                      const struct kvg_tokenizer *tok, struct kvg_err *err)
{
    struct kvg_gguf_str jinja;
    memset(t, 0, sizeof *t);
    int rc = kvg_gguf_str(g, "tokenizer.chat_template", &jinja, err);
    if (rc == KVG_ENONE)
        return KVG_FAIL(err, KVG_ENONE,
                        "the model '%s' has no chat template; take an instruct model for chat "
                        "workloads",
                        g->path);
    if (rc)
        return rc;
    rc = kvg_template_init(t, jinja, token_text(tok, kvg_tokenizer_bos(tok)),
                           token_text(tok, kvg_tokenizer_eos(tok)), err);
    if (rc)
        kvg_err_prefix(err, "%s", g->path);
    return rc;
}

void kvg_template_release(struct kvg_template *t)
{
    kvg_str_release(&t->default_system);
    memset(t, 0, sizeof *t);
}

/* ---- writing ---- */

static void add(struct kvg_template_pieces *out, const char *s, size_t n, int special)
{
    if (n > 0)
        out->v[out->n++] = (struct kvg_text_piece){s, n, special};
}

/* Template text, with EOS where it says so. */
static void add_shape(const struct kvg_template *t, struct kvg_template_pieces *out, const char *s)
{
    const char *eos = strchr(s, '\1');
    add(out, s, eos ? (size_t)(eos - s) : strlen(s), 1);
    if (eos) {
        add(out, t->eos.s, t->eos.n, 1);
        add(out, eos + 1, strlen(eos + 1), 1);
    }
}

/* What Python's str.strip removes. */
static int is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 || cp == 0xa0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

/* `left`: strip the beginning too. */
static void add_message(const struct kvg_template *t, struct kvg_template_pieces *out,
                        const char *s, int left)
{
    size_t n = strlen(s), begin = 0, end = 0;
    if (!t->trim) {
        add(out, s, n, 0);
        return;
    }
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        at += kvg_text_utf8_decode(s + at, n - at, &cp);
        if (!is_space(cp))
            end = at;
        else if (end == 0 && left)
            begin = at;
    }
    add(out, s + begin, end > begin ? end - begin : 0, 0);
}

static void add_system(const struct kvg_template *t, struct kvg_template_pieces *out,
                       const char *system)
{
    const struct shape *sh = &shapes[t->kind];
    if (!system && t->default_system.len > 0)
        system = t->default_system.s;
    if (!system)
        return;
    add_shape(t, out, sh->sys_open);
    /* Inside a user message only the whole is trimmed, by its outer ends. */
    if (sh->sys_in_user)
        add(out, system, strlen(system), 0);
    else
        add_message(t, out, system, 1);
    add_shape(t, out, sh->sys_close);
}

void kvg_template_prompt(const struct kvg_template *t, size_t turn, const char *system,
                         const char *user, struct kvg_template_pieces *out)
{
    const struct shape *sh = &shapes[t->kind];
    out->n = 0;
    if (turn > 0)
        add_shape(t, out, sh->reply_close);
    if (turn == 0 || sh->bos_each_turn)
        add(out, t->bos.s, t->bos.n, 1);
    if (turn == 0 && !sh->sys_in_user)
        add_system(t, out, system);
    add_shape(t, out, sh->user_open);
    if (turn == 0 && sh->sys_in_user)
        add_system(t, out, system);
    add_message(t, out, user, !(turn == 0 && sh->sys_in_user && system));
    add_shape(t, out, sh->user_close);
}

void kvg_template_reply(const struct kvg_template *t, const char *reply,
                        struct kvg_template_pieces *out)
{
    out->n = 0;
    add_shape(t, out, shapes[t->kind].reply_open);
    add_message(t, out, reply, 1);
}

void kvg_template_reply_end(const struct kvg_template *t, struct kvg_template_pieces *out)
{
    out->n = 0;
    add_shape(t, out, shapes[t->kind].reply_close);
}

int kvg_template_text(const struct kvg_template_pieces *p, struct kvg_str *out)
{
    for (size_t i = 0; i < p->n; i++)
        kvg_str_addn(out, p->v[i].s, p->v[i].n);
    return out->failed ? KVG_ENOMEM : 0;
}

int kvg_template_encode(const struct kvg_tokenizer *tok, const struct kvg_template_pieces *p,
                        int begin, int32_t *ids, size_t cap, size_t *n, struct kvg_err *err)
{
    return kvg_tokenizer_encode_pieces(tok, p->v, p->n, begin ? 0 : KVG_ENCODE_CONTINUE, ids, cap,
                                       n, err);
}
