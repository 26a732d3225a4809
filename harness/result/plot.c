/* Makes the plots of a run: data file, script, gnuplot. Must not know what a plot shows. */
#include "plot_impl.h"

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

const struct kvg_plot_info kvg_plots[] = {
    {"drift_bytes", "Drift against bytes",
     "Each point is a strategy: to the left is smaller, down is nearer to the baseline. The line "
     "joins those that no other strategy beats at both; only they are named."},
    {"latency_context", "Time per token by context length",
     "Mean time of one step at a given length of the text. Lower is better."},
    {"bytes_turns", "Bytes held over a conversation",
     "What the store holds after each turn of the conversation with most turns."},
    {"drift_turn", "Drift by turn and by position",
     "Mean KL of the steps of a turn, and of the steps at a position in the text. A rising line is "
     "an error that grows."},
    {"survival", "Replies not yet diverged",
     "Share of replies that still equal the baseline's own after so many steps (Kaplan-Meier)."},
    {"kept_map", "What is kept",
     "One item: position along, layers up. Dark: all KV heads keep it; white: none does."},
    {NULL, NULL, NULL},
};

static const kvg_plot_fn makers[] = {kvg_plot_drift_bytes, kvg_plot_latency_context,
                                     kvg_plot_bytes_turns, kvg_plot_drift_turn,
                                     kvg_plot_survival,    kvg_plot_kept_map};

/* Folders that may hold the scripts, relative to the program. */
static const char *const script_places[] = {"../share/kvgauge/plots", "plots", "../plots",
                                            "../../plots"};

static int has_style(const char *folder)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/style.gp", folder);
    return kvg_fs_exists(path);
}

static int find_scripts(char out[4096], struct kvg_err *err)
{
    char exe[2048];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash)
            *slash = 0;
        for (size_t i = 0; i < sizeof script_places / sizeof script_places[0]; i++) {
            snprintf(out, 4096, "%s/%s", exe, script_places[i]);
            if (has_style(out))
                return KVG_OK;
        }
    }
    snprintf(out, 4096, "%s/plots", KVG_SOURCE_DIR);
    if (has_style(out))
        return KVG_OK;
    snprintf(out, 4096, "plots");
    if (has_style(out))
        return KVG_OK;
    return KVG_FAIL(err, KVG_EIO,
                    "the plot scripts are missing: 'plots/style.gp'; install kvgauge or run it "
                    "from its source folder");
}

static int write_file(const char *dir, const char *name, const char *ext, const struct kvg_str *s,
                      struct kvg_err *err)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s.%s", dir, name, ext);
    if (s->failed)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory while plotting '%s'", name);
    return kvg_fs_write_atomic(path, s->s ? s->s : "", s->len, err);
}

static int add_script(struct kvg_str *out, const char *scripts, const char *name,
                      struct kvg_err *err)
{
    char path[4200], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s.gp", scripts, name);
    int rc = kvg_fs_read(path, (size_t)1 << 20, &text, &n, err);
    if (!rc)
        kvg_str_addn(out, text, n);
    free(text);
    return rc;
}

static int gnuplot_failed(const char *dir, const char *name, struct kvg_err *err)
{
    char path[4200], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s.log", dir, name);
    if (kvg_fs_read(path, 1 << 16, &text, &n, NULL))
        n = 0;
    int rc = KVG_FAIL(err, KVG_EIO, "gnuplot failed on '%s/%s.gp': %.300s", dir, name,
                      n ? text : "no message");
    free(text);
    return rc;
}

/* Runs gnuplot inside the folder; what it says goes to <name>.log, removed on success. */
static int run_gnuplot(const char *dir, const char *name, struct kvg_err *err)
{
    char script[128], log[4200];
    snprintf(script, sizeof script, "%s.gp", name);
    snprintf(log, sizeof log, "%s/%s.log", dir, name);
    char program[] = "gnuplot", *argv[] = {program, script, NULL};
    posix_spawn_file_actions_t fa;
    pid_t pid = 0;
    int state = 0;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 2, log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&fa, 2, 1);
    posix_spawn_file_actions_addchdir_np(&fa, dir);
    int e = posix_spawnp(&pid, program, &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    if (e == ENOENT)
        return KVG_FAIL(err, KVG_EUNSUP,
                        "gnuplot is not installed: '%s'; install the package "
                        "gnuplot-nox and run 'kvgauge plot' again",
                        program);
    if (e)
        return KVG_FAIL(err, KVG_EIO, "%s: cannot start '%s'", strerror(e), program);
    while (waitpid(pid, &state, 0) < 0)
        if (errno != EINTR)
            return KVG_FAIL(err, KVG_EIO, "%s: lost '%s'", strerror(errno), program);
    if (!WIFEXITED(state) || WEXITSTATUS(state))
        return gnuplot_failed(dir, name, err);
    unlink(log);
    return KVG_OK;
}

static int write_script(const struct kvg_plot *p, const char *dir, const char *scripts,
                        const struct kvg_plot_info *info, struct kvg_err *err)
{
    struct kvg_str gp = {0};
    kvg_str_addf(&gp, "# %s: run `gnuplot %s.gp` here to make the pictures again\n", info->title,
                 info->name);
    kvg_str_addf(&gp, "name = '%s'\n", info->name);
    kvg_str_add(&gp, "run = '");
    kvg_plot_quote(&gp, p->summary->run.id, 60);
    kvg_str_add(&gp, "'\n");
    kvg_str_addn(&gp, p->vars.s, p->vars.len);
    kvg_str_add(&gp, "\n");
    int rc = add_script(&gp, scripts, "style", err);
    if (!rc)
        rc = add_script(&gp, scripts, info->name, err);
    if (!rc)
        rc = write_file(dir, info->name, "gp", &gp, err);
    kvg_str_release(&gp);
    return rc;
}

/* What an earlier run of `plot` left must not be taken for this one's. */
static void remove_old(const char *dir, const char *name)
{
    static const char *const exts[] = {"dat", "gp", "svg", "png"};
    char path[4200];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s.%s", dir, name, exts[i]);
        unlink(path);
    }
}

static int make_one(struct kvg_summary *s, const struct kvg_section *sections, size_t n,
                    const char *dir, const char *scripts, size_t which, struct kvg_str *log,
                    struct kvg_err *err)
{
    const struct kvg_plot_info *info = &kvg_plots[which];
    struct kvg_plot p = {.summary = s, .sections = sections, .n_sections = n, .err = err};
    remove_old(dir, info->name);
    int rc = makers[which](&p);
    if (!rc && !p.why_not) {
        rc = write_file(dir, info->name, "dat", &p.dat, err);
        if (!rc)
            rc = write_script(&p, dir, scripts, info, err);
        if (!rc)
            rc = run_gnuplot(dir, info->name, err);
    }
    if (!rc && log)
        kvg_str_addf(log, "%s: %s\n", info->name, p.why_not ? p.why_not : "made");
    kvg_str_release(&p.dat);
    kvg_str_release(&p.vars);
    return rc;
}

int kvg_plot_make(const char *run_dir, const char *scripts, struct kvg_str *log,
                  struct kvg_err *err)
{
    struct kvg_summary s;
    struct kvg_section *sections = NULL;
    size_t n = 0;
    char dir[4096], found[4096];
    int rc = kvg_summary_open(&s, run_dir, err);
    if (!rc)
        rc = kvg_sections_make(&s, &sections, &n, err);
    if (!rc && !scripts) {
        rc = find_scripts(found, err);
        scripts = found;
    }
    snprintf(dir, sizeof dir, "%s/plots", run_dir);
    if (!rc)
        rc = kvg_fs_mkdirs(dir, err);
    for (size_t i = 0; kvg_plots[i].name && !rc; i++)
        rc = make_one(&s, sections, n, dir, scripts, i, log, err);
    kvg_summary_release(&s);
    return rc;
}
