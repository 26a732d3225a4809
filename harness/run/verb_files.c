/* Owns the verbs `summary` and `plot` and the end of `run`: what is made of a run's files alone. */
#include "base/fs.h"
#include "result/plot.h"
#include "result/report.h"
#include "result/summary.h"
#include "run/cli.h"

#include <stddef.h>

struct opts {
    const char *scripts;
};

static const struct kvg_opt summary_table[] = {{.name = NULL}};
static const struct kvg_opt plot_table[] = {
    {.name = "scripts",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct opts, scripts),
     .metavar = "DIR",
     .help = "folder of the gnuplot scripts, if not beside the program"},
    {.name = NULL},
};

static int want_run(struct kvg_cli *cli, const struct kvg_strlist *rest, struct kvg_err *err)
{
    int rc = kvg_cli_want(rest, 1, 1, "the run's folder", err);
    if (rc)
        return rc;
    const char *cells = kvg_arena_printf(&cli->arena, "%s/cells.csv", rest->v[0]);
    if (!cells)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    if (!kvg_fs_is_dir(rest->v[0]))
        return KVG_FAIL(err, KVG_EUSAGE,
                        "no folder '%s': give the folder of a run, "
                        "results/<suite>/<time>-<key>",
                        rest->v[0]);
    if (!kvg_fs_exists(cells))
        return KVG_FAIL(err, KVG_EUSAGE, "'%s' is not the folder of a run: it has no cells.csv",
                        rest->v[0]);
    cli->started = 1;
    return 0;
}

static int run_summary(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
                       struct kvg_err *err)
{
    struct kvg_str text = {0};
    (void)opts;
    int rc = want_run(cli, rest, err);
    if (!rc)
        rc = kvg_summary_make(rest->v[0], err);
    if (!rc)
        rc = kvg_summary_print(rest->v[0], &text, err);
    if (!rc)
        fprintf(cli->out, "%s\n%s/summary.csv\n", text.s ? text.s : "", rest->v[0]);
    kvg_str_release(&text);
    return rc;
}

static int run_plot(struct kvg_cli *cli, const void *opts, const struct kvg_strlist *rest,
                    struct kvg_err *err)
{
    const struct opts *o = opts;
    struct kvg_str log = {0};
    int rc = want_run(cli, rest, err);
    if (!rc)
        rc = kvg_plot_make(rest->v[0], o->scripts, &log, err);
    if (log.s)
        fputs(log.s, cli->err);
    if (!rc)
        rc = kvg_report_make(rest->v[0], err);
    if (!rc)
        fprintf(cli->out, "%s/plots\n%s/report.html\n", rest->v[0], rest->v[0]);
    kvg_str_release(&log);
    return rc;
}

static void print_paths(struct kvg_cli *cli, const char *dir, int plots)
{
    fprintf(cli->out, "\n%s/cells.csv\n%s/turns.csv\n%s/steps.csv\n%s/summary.csv\n", dir, dir, dir,
            dir);
    if (plots)
        fprintf(cli->out, "%s/plots\n", dir);
    fprintf(cli->out, "%s/report.html\n", dir);
}

int kvg_cli_finish_run(struct kvg_cli *cli, const char *dir, struct kvg_err *err)
{
    struct kvg_str table_text = {0}, log = {0};
    int rc = kvg_summary_make(dir, err);
    int plots = rc ? rc : kvg_plot_make(dir, NULL, &log, err);
    if (plots && !rc)
        fprintf(cli->err, "no plots: %s\n", err->msg);
    if (!rc)
        rc = kvg_report_make(dir, err);
    if (!rc)
        rc = kvg_summary_print(dir, &table_text, err);
    if (!rc) {
        fputs(table_text.s ? table_text.s : "", cli->out);
        print_paths(cli, dir, plots == 0);
    }
    kvg_str_release(&table_text);
    kvg_str_release(&log);
    return rc;
}

const struct kvg_verb kvg_verb_summary = {
    .name = "summary",
    .summary = "the summary table of a run, from its files",
    .usage = "RUN",
    .example = "kvgauge summary results/quick/20250101T120000Z-0123abcd",
    .opts = summary_table,
    .run = run_summary,
};

const struct kvg_verb kvg_verb_plot = {
    .name = "plot",
    .summary = "the plots and the report of a run, from its files",
    .usage = "RUN [--scripts DIR]",
    .example = "kvgauge plot results/quick/20250101T120000Z-0123abcd",
    .opts = plot_table,
    .opts_bytes = sizeof(struct opts),
    .run = run_plot,
};
