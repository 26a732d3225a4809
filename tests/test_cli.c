/* The program from outside: exit codes, what goes to stdout and what to stderr, and the words of
 * usage errors. Runs the binary that lies beside this test's folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include "base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char binary[512], scratch[64];

static int find_binary(void **state)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    (void)state;
    if (n < 0)
        return -1;
    self[n] = 0;
    *strrchr(self, '/') = 0;
    snprintf(binary, sizeof binary, "%s/../kvgauge", self);
    snprintf(scratch, sizeof scratch, "/tmp/kvgauge-cli-%ld", (long)getpid());
    return kvg_fs_mkdirs(scratch, NULL) || access(binary, X_OK);
}

static int remove_scratch(void **state)
{
    char command[96];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

static void slurp(const char *name, char *out, size_t cap)
{
    char path[96], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    assert_int_equal(kvg_fs_read(path, 1 << 20, &text, &n, NULL), 0);
    snprintf(out, cap, "%s", text);
    free(text);
}

/* Runs the program; `env` are assignments before it. Returns the exit code. */
static int run(const char *env, const char *args, char *out, char *err, size_t cap)
{
    char command[1200];
    snprintf(command, sizeof command, "%s '%s' %s >'%s/out' 2>'%s/err' </dev/null", env, binary,
             args, scratch, scratch);
    int status = system(command);
    slurp("out", out, cap);
    slurp("err", err, cap);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct test_case {
    const char *args;
    int code;
    const char *out, *err; /* a part of it; NULL = must be empty */
};

static void check(const char *env, const struct test_case *c)
{
    static char out[1 << 16], err[1 << 16];
    int code = run(env, c->args, out, err, sizeof out);
    if (code != c->code)
        fail_msg("'%s': exit %d, wanted %d; stderr: %s", c->args, code, c->code, err);
    if (c->out ? !strstr(out, c->out) : out[0] != 0)
        fail_msg("'%s': stdout is '%s', wanted '%s'", c->args, out, c->out ? c->out : "");
    if (c->err ? !strstr(err, c->err) : err[0] != 0)
        fail_msg("'%s': stderr is '%s', wanted '%s'", c->args, err, c->err ? c->err : "");
}

/* An empty home: no model is found, and what the program caches stays in the scratch folder. */
static const char *no_model(void)
{
    static char env[160];
    snprintf(env, sizeof env, "HOME='%s' XDG_CACHE_HOME= KVGAUGE_MODEL=", scratch);
    return env;
}

static void test_words(void **state)
{
    static const struct test_case cases[] = {
        {"", 2, NULL, "no verb given"},
        {"help", 0, "exit codes: 0 done", NULL},
        {"version", 0, "kvgauge ", NULL},
        {"rnu", 2, NULL, "unknown verb 'rnu'; did you mean 'run'?"},
        {"help sumary", 2, NULL, "did you mean 'summary'?"},
        {"run --help", 0, "usage: kvgauge run SUITE.yaml", NULL},
        {"run --help", 0, "--max-items N", NULL},
        {"bench --help", 0, "example:", NULL},
        {"inspect --help", 0, "--kept-at", NULL},
        {"run --stratgy full", 2, NULL, "did you mean 'strategy'?"},
        {"run --rounds 0 --strategy full", 2, NULL, "'rounds=0' is not a whole number from 1"},
        {"run --progress loud", 2, NULL, "'progress=loud' is not one of auto|tty|plain|none"},
        {"run", 2, NULL, "no strategy given"},
        {"run --strategy full", 2, NULL, "no workload given"},
        {"run --strategy full --workload chat --mode frced", 2, NULL, "did you mean 'forced'?"},
        {"run --strategy full --workload chat --lane tme", 2, NULL, "did you mean 'time'?"},
        {"run a.yaml b.yaml", 2, NULL, "unexpected argument 'b.yaml'"},
        {"run /nonexistent.yaml", 2, NULL, "/nonexistent.yaml"},
        {"run --strategy full --workload chat", 2, NULL, "no model: give -m FILE.gguf"},
        {"run --strategy full --workload chat -m /nonexistent.gguf", 2, NULL,
         "no model file '/nonexistent.gguf'"},
        {"run --strategy full --workload chat -m CMakeLists.txt", 2, NULL, "CMakeLists.txt"},
        {"ls strategies", 0, "snapkv", NULL},
        {"ls metrics", 0, "kl", NULL},
        {"ls modls", 2, NULL, "did you mean 'models'?"},
        {"ls", 2, NULL, "what to list"},
        {"explain snapkv", 0, "budget", NULL},
        {"explain snapkw", 2, NULL, "did you mean 'snapkv'?"},
        {"summary", 2, NULL, "the run's folder is missing"},
        {"summary /nonexistent", 2, NULL, "no folder '/nonexistent'"},
        {"plot tests", 2, NULL, "it has no cells.csv"},
        {"inspect", 2, NULL, "give --tokens FILE"},
        {"bench -p x", 2, NULL, "-p: 'x' is not a number"},
        {"bench --cpu-level avx9", 2, NULL, "is not one of auto|ref|avx2|avx512"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(no_model(), &cases[i]);
}

/* The model of the tests, or NULL. */
static const char *model(void)
{
    static char path[512];
    const char *env = getenv("KVGAUGE_MODEL"), *home = getenv("HOME");
    if (env && *env)
        snprintf(path, sizeof path, "%s", env);
    else
        snprintf(path, sizeof path, "%s/.cache/kvgauge/SmolLM2-135M-Instruct.Q4_1.gguf",
                 home ? home : "");
    return kvg_fs_exists(path) ? path : NULL;
}

static void test_with_model(void **state)
{
    static const struct test_case cases[] = {
        {"run --strategy snapkw:budget=25% --workload chat", 2, NULL, "did you mean 'snapkv'?"},
        {"run --strategy window:budgt=25% --workload chat", 2, NULL, "did you mean 'budget'?"},
        {"run --strategy window:budget=25 --workload caht", 2, NULL, "caht"},
        {"run --strategy sink:budget=2 --workload chat", 2, NULL, "sink"},
        {"inspect --tokens CMakeLists.txt", 2, NULL, "not a token id"},
    };
    char env[600];
    (void)state;
    if (!model())
        skip();
    snprintf(env, sizeof env, "KVGAUGE_MODEL='%s'", model());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(env, &cases[i]);
}

static void test_truncated_model(void **state)
{
    char path[96], args[160];
    (void)state;
    snprintf(path, sizeof path, "%s/cut.gguf", scratch);
    assert_int_equal(kvg_fs_write_atomic(path, "GGUF\3\0\0\0", 8, NULL), 0);
    snprintf(args, sizeof args, "run --strategy full --workload chat -m '%s'", path);
    const struct test_case c = {args, 2, NULL, "cut.gguf"};
    check(no_model(), &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_with_model),
        cmocka_unit_test(test_truncated_model),
    };
    return cmocka_run_group_tests(tests, find_binary, remove_scratch);
}
