/* Owns the verb `inspect`: reading its files, opening the model, writing the results. */
#include "base/fs.h"
#include "base/hash.h"
#include "run/cli.h"
#include "run/fingerprint.h"
#include "run/inspect.h"
#include "run/stop.h"

#include <stddef.h>

struct opts {
    const char *model, *strategy, *tokens, *force, *spans, *kept, *logits, *drift;
    struct kvg_strlist kept_at;
    int64_t threads, seed, question;
    int cpu_level;
};

#define AT(f) offsetof(struct opts, f)

static const struct kvg_opt table[] = {
    {.name = "model",
     .short_name = 'm',
     .type = KVG_OPT_STRING,
     .offset = AT(model),
     .metavar = "FILE",
     .help = "GGUF model (else KVGAUGE_MODEL, else the one in the cache folder)"},
    {.name = "strategy",
     .type = KVG_OPT_STRING,
     .offset = AT(strategy),
     .metavar = "SPEC",
     .help = "the strategy",
     .def = "full"},
    {.name = "tokens",
     .type = KVG_OPT_STRING,
     .offset = AT(tokens),
     .metavar = "FILE",
     .help = "the prompt: token ids, one a line"},
    {.name = "force",
     .type = KVG_OPT_STRING,
     .offset = AT(force),
     .metavar = "FILE",
     .help = "tokens fed one by one after it; the last is only a target"},
    {.name = "spans",
     .type = KVG_OPT_STRING,
     .offset = AT(spans),
     .metavar = "FILE",
     .help = "marks of the prompt: 'begin end system|tool|glossary|user', one a line"},
    {.name = "question",
     .type = KVG_OPT_INT,
     .offset = AT(question),
     .def = "-1",
     .min = -1,
     .max = 1e9,
     .metavar = "POS",
     .help = "position where the prompt's question begins; -1 = none is marked"},
    {.name = "kept",
     .type = KVG_OPT_STRING,
     .offset = AT(kept),
     .metavar = "OUT",
     .help = "write the kept positions of every (layer, KV head)"},
    {.name = "kept-at",
     .type = KVG_OPT_LIST,
     .offset = AT(kept_at),
     .choices = ",",
     .metavar = "1,64,...",
     .help = "after these steps instead of after the prompt"},
    {.name = "logits",
     .type = KVG_OPT_STRING,
     .offset = AT(logits),
     .metavar = "OUT",
     .help = "write the logits of the forced steps"},
    {.name = "drift",
     .type = KVG_OPT_STRING,
     .offset = AT(drift),
     .metavar = "OUT",
     .help = "write the drift of the forced steps from an exact cache that runs beside"},
    {.name = "seed",
     .type = KVG_OPT_INT,
     .offset = AT(seed),
     .def = "1",
     .min = 0,
     .max = 1e15,
     .metavar = "N",
     .help = "seed of a control strategy"},
    {.name = "threads",
     .short_name = 't',
     .type = KVG_OPT_INT,
     .offset = AT(threads),
     .min = 1,
     .max = 256,
     .metavar = "N",
     .help = "threads; else all usable CPUs"},
    {.name = "cpu-level",
     .type = KVG_OPT_CHOICE,
     .offset = AT(cpu_level),
     .choices = KVG_CPU_LEVELS,
     .def = "auto",
     .help = "kernels to use"},
    {.name = NULL},
};

static int read_steps(const struct kvg_strlist *l, size_t n_steps, size_t **out,
                      struct kvg_arena *a, struct kvg_err *err)
{
    *out = kvg_arena_array(a, l->n + 1, sizeof **out);
    if (!*out)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    for (size_t i = 0; i < l->n; i++) {
        int64_t v;
        if (kvg_text_i64(l->v[i], &v) || v < 0 || (size_t)v > n_steps ||
            (i && (size_t)v <= (*out)[i - 1]))
            return KVG_FAIL(err, KVG_EUSAGE,
                            "'--kept-at' wants ascending steps from 0 to %zu (forced tokens minus "
                            "one), not '%s'",
                            n_steps, l->v[i]);
        (*out)[i] = (size_t)v;
    }
    return 0;
}

static int write_text(const char *path, const struct kvg_str *s, struct kvg_err *err)
{
    return path ? kvg_fs_write_atomic(path, s->s ? s->s : "", s->len, err) : 0;
}

static int inspect(struct kvg_cli *cli, const struct opts *o, struct kvg_model *model,
                   struct kvg_err *err)
{
    struct kvg_str kept = {0}, logits = {0}, drift = {0};
    char sha[KVG_SHA256_HEX];
    int32_t *tokens = NULL, *force = NULL;
    struct kvg_span *spans = NULL;
    size_t *steps = NULL;
    int to_stdout = !o->kept && !o->logits && !o->drift;
    struct kvg_inspect in = {.model = model,
                             .model_sha256 = sha,
                             .spec = o->strategy,
                             .n_kept_at = o->kept_at.n,
                             .question = o->question < 0 ? SIZE_MAX : (size_t)o->question,
                             .seed = (uint64_t)o->seed,
                             .kept = o->kept || to_stdout ? &kept : NULL,
                             .logits = o->logits ? &logits : NULL,
                             .drift = o->drift ? &drift : NULL};
    int rc =
        kvg_inspect_read_ids(o->tokens, model->n_vocab, &tokens, &in.n_tokens, &cli->arena, err);
    if (!rc && in.question != SIZE_MAX && in.question >= in.n_tokens)
        rc = KVG_FAIL(err, KVG_EUSAGE, "'--question' is %zu, the prompt has %zu tokens",
                      in.question, in.n_tokens);
    if (!rc && o->spans)
        rc = kvg_inspect_read_spans(o->spans, in.n_tokens, &spans, &in.n_spans, &cli->arena, err);
    if (!rc && o->force)
        rc = kvg_inspect_read_ids(o->force, model->n_vocab, &force, &in.n_force, &cli->arena, err);
    if (!rc)
        rc = read_steps(&o->kept_at, in.n_force ? in.n_force - 1 : 0, &steps, &cli->arena, err);
    if (!rc)
        rc = kvg_fingerprint_file(model->path, sha, err);
    if (!rc)
        rc = kvg_machine_open(&in.pool, &in.kernels, o->threads, o->cpu_level, err);
    if (rc)
        return rc;
    in.tokens = tokens;
    in.force = force;
    in.spans = spans;
    in.kept_at = steps;
    kvg_stop_init();
    rc = kvg_inspect_run(&in, err);
    kvg_stop_release();
    cli->started = rc != KVG_EUSAGE && rc != KVG_ELIMIT && rc != KVG_EFORMAT;
    if (!rc)
        rc = write_text(o->kept, &kept, err);
    if (!rc)
        rc = write_text(o->logits, &logits, err);
    if (!rc)
        rc = write_text(o->drift, &drift, err);
    if (!rc && to_stdout)
        fputs(kept.s, cli->out);
    kvg_str_release(&kept);
    kvg_str_release(&logits);
    kvg_str_release(&drift);
    kvg_pool_close(in.pool);
    return rc;
}

static int run(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
               struct kvg_err *err)
{
    const struct opts *o = opts;
    struct kvg_model *model = NULL;
    const char *path;
    int rc = kvg_cli_want(rest, 0, 0, "", err);
    if (!rc && !o->tokens)
        rc = KVG_FAIL(err, KVG_EUSAGE, "no prompt: give --tokens FILE with token ids, one a line");
    if (!rc && (o->logits || o->drift) && !o->force)
        rc = KVG_FAIL(err, KVG_EUSAGE,
                      "--logits and --drift are those of forced steps: give --force FILE too");
    if (!rc)
        rc = kvg_model_find(&path, o->model, &cli->arena, err);
    if (!rc)
        rc = kvg_model_open(&model, path, KVG_MODEL_FULL, err);
    if (!rc)
        rc = inspect(cli, o, model, err);
    kvg_model_close(model);
    return rc;
}

const struct kvg_verb kvg_verb_inspect = {
    .name = "inspect",
    .summary = "run one prompt and forced tokens; write what was kept and the logits",
    .usage = "--tokens FILE [--strategy SPEC] [--force FILE] [--kept OUT] [--logits OUT]",
    .example = "kvgauge inspect --strategy snapkv:budget=25% --tokens ids.txt --kept kept.tsv",
    .opts = table,
    .opts_bytes = sizeof(struct opts),
    .needs_blas = 1,
    .run = run,
};
