/* Owns the table of verbs, their help and exit codes. Must not know what a verb does. */
#include "run/cli.h"

#include "kernel/blas.h"

#include <string.h>

static const struct kvg_verb *const verbs[] = {
    &kvg_verb_run,       &kvg_verb_ls,      &kvg_verb_explain,    &kvg_verb_summary,
    &kvg_verb_plot,      &kvg_verb_inspect, &kvg_verb_bench,      &kvg_verb_recall,
    &kvg_verb_calibrate, &kvg_verb_doctor,  &kvg_verb_blas_probe,
};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

const struct kvg_verb *kvg_cli_find(const char *name)
{
    for (size_t i = 0; i < N_VERBS; i++)
        if (!strcmp(verbs[i]->name, name))
            return verbs[i];
    return NULL;
}

void kvg_cli_help(const struct kvg_verb *verb, struct kvg_str *out)
{
    if (verb) {
        kvg_str_addf(out, "usage: kvgauge %s %s\n\n%s\n\noptions:\n", verb->name, verb->usage,
                     verb->summary);
        kvg_opt_help(verb->opts, "--", out);
        kvg_str_addf(out, "  %-28s %s\n\nexample:\n  %s\n", "-h, --help", "this text",
                     verb->example);
        return;
    }
    kvg_str_add(out, "kvgauge measures what a KV-cache strategy of a language model costs and what "
                     "it breaks.\n\nusage: kvgauge VERB [arguments] [--help]\n\nverbs:\n");
    for (size_t i = 0; i < N_VERBS; i++)
        if (!verbs[i]->hidden)
            kvg_str_addf(out, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    kvg_str_addf(out, "  %-10s %s\n  %-10s %s\n", "version", "the version of this program", "help",
                 "this text; `kvgauge help VERB` explains a verb");
    kvg_str_add(out, "\nexample:\n  kvgauge run suites/quick.yaml\n\nexit codes: 0 done, 1 run "
                     "failed, 2 usage or configuration (nothing was run), 7 nothing measured, 130 "
                     "interrupted\n");
}

int kvg_cli_exit_code(const struct kvg_cli *cli, int rc)
{
    if (rc == 0)
        return KVG_EXIT_DONE;
    if (rc == KVG_EINTR)
        return KVG_EXIT_INTERRUPTED;
    if (rc == KVG_ENONE)
        return KVG_EXIT_NOTHING;
    return cli->started && rc != KVG_EUSAGE ? KVG_EXIT_FAILED : KVG_EXIT_USAGE;
}

int kvg_cli_want(const struct kvg_strlist *rest, size_t min, size_t max, const char *what,
                 struct kvg_err *err)
{
    if (rest->n < min)
        return KVG_FAIL(err, KVG_EUSAGE, "%s is missing; see --help", what);
    if (rest->n > max)
        return KVG_FAIL(err, KVG_EUSAGE, "unexpected argument '%s'; see --help", rest->v[max]);
    return 0;
}

static int fail_verb(const char *name, struct kvg_err *err)
{
    const char *names[N_VERBS + 2];
    size_t n = 0;
    for (size_t i = 0; i < N_VERBS; i++)
        if (!verbs[i]->hidden)
            names[n++] = verbs[i]->name;
    names[n++] = "version";
    names[n++] = "help";
    const char *near = kvg_text_nearest(name, names, n);
    if (near)
        return KVG_FAIL(err, KVG_EUSAGE, "unknown verb '%s'; did you mean '%s'?", name, near);
    return KVG_FAIL(err, KVG_EUSAGE, "unknown verb '%s'; `kvgauge help` lists them", name);
}

static int print_help(struct kvg_cli *cli, const struct kvg_verb *verb)
{
    struct kvg_str s = {0};
    kvg_cli_help(verb, &s);
    fputs(s.s ? s.s : "", cli->out);
    kvg_str_release(&s);
    return 0;
}

static int wants_help(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return 1;
    return 0;
}

static int run_verb(struct kvg_cli *cli, const struct kvg_verb *verb, int argc, char **argv,
                    struct kvg_err *err)
{
    char owner[64];
    struct kvg_strlist rest = {0};
    void *opts = kvg_arena_alloc(&cli->arena, verb->opts_bytes + 1);
    snprintf(owner, sizeof owner, "verb '%s'", verb->name);
    if (!opts)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    int rc = kvg_opt_defaults(verb->opts, opts, &cli->arena, err);
    if (!rc)
        rc = kvg_opt_parse_argv(verb->opts, opts, owner, argc - 1, argv + 1, &rest, &cli->arena,
                                err);
    if (rc)
        return rc;
    if (verb->needs_blas)
        kvg_blas_choose(argc, argv);
    return verb->run(cli, opts, &rest, err);
}

static int dispatch(struct kvg_cli *cli, int argc, char **argv, struct kvg_err *err)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "version") || !strcmp(name, "--version")) {
        fprintf(cli->out, "kvgauge %s\n", KVG_VERSION);
        return 0;
    }
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) {
        const struct kvg_verb *verb = argc > 2 ? kvg_cli_find(argv[2]) : NULL;
        return argc > 2 && !verb ? fail_verb(argv[2], err) : print_help(cli, verb);
    }
    if (argc < 2)
        return KVG_FAIL(err, KVG_EUSAGE, "no verb given; `kvgauge help` lists them");
    const struct kvg_verb *verb = kvg_cli_find(name);
    if (!verb)
        return fail_verb(name, err);
    return wants_help(argc, argv) ? print_help(cli, verb) : run_verb(cli, verb, argc, argv, err);
}

static const char *command_line(struct kvg_arena *a, int argc, char **argv)
{
    struct kvg_str s = {0};
    for (int i = 0; i < argc; i++)
        kvg_str_addf(&s, strpbrk(argv[i], " '\"$&;|<>*?()") ? "%s'%s'" : "%s%s", i ? " " : "",
                     i ? argv[i] : "kvgauge");
    const char *out = kvg_arena_strdup(a, s.s ? s.s : "");
    kvg_str_release(&s);
    return out ? out : "";
}

int kvg_cli_main(struct kvg_cli *cli, int argc, char **argv)
{
    struct kvg_err err = {0};
    kvg_arena_init(&cli->arena);
    cli->command = command_line(&cli->arena, argc, argv);
    int rc = dispatch(cli, argc, argv, &err);
    if (!rc && fflush(cli->out) != 0) {
        cli->started = 1;
        rc = KVG_FAIL(&err, KVG_EIO, "cannot write to standard output");
    }
    if (rc)
        fprintf(cli->err, "kvgauge: %s\n", err.msg);
    kvg_arena_release(&cli->arena);
    return kvg_cli_exit_code(cli, rc);
}
