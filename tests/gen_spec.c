/* Owns specs and texts for tests over the whole registry; must not know what they check. */
#include "gen_spec.h"

#include "gen_files.h"
#include "gen_nuq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char kept_file[GEN_PATH_MAX], tables_file[GEN_PATH_MAX];

/* Positions 0, 3, 6, ... below 48 of every head. */
static int write_kept(void)
{
    FILE *f = gen_temp_file(kept_file) ? NULL : fopen(kept_file, "w");
    for (int i = 0; f && i < 4; i++)
        fprintf(f, "%d\t%d\t16\t499224499224\n", i / 2, i % 2);
    return f ? fclose(f) : -1;
}

void gen_spec_open(const struct kvg_model *m)
{
    if (write_kept() || gen_temp_file(tables_file))
        abort();
    gen_nuq_file(tables_file, m);
}

void gen_spec_close(void)
{
    unlink(kept_file);
    unlink(tables_file);
}

int gen_spec_binds(const struct kvg_strategy *s)
{
    return kvg_opt_find(s->opts, "budget") != NULL;
}

static void add_option(char *out, size_t *n, const char *name, const char *value)
{
    size_t at = strlen(out);
    snprintf(out + at, GEN_SPEC_MAX - at, "%c%s=%s", (*n)++ ? ',' : ':', name, value);
}

void gen_spec_add(char *out, const struct kvg_strategy *s, const char *budget)
{
    static const char *const small[][2] = {
        {"group", "8"}, {"residual", "16"}, {"recent", "4"}, {"window", "8"}};
    size_t at = strlen(out), n = 0;
    int encodes = s->kind == KVG_KIND_ENCODE;
    snprintf(out + at, GEN_SPEC_MAX - at, "%s%s", at ? "+" : "", s->name);
    if (budget && gen_spec_binds(s))
        add_option(out, &n, "budget", budget);
    if (kvg_opt_find(s->opts, "file"))
        add_option(out, &n, "file", encodes ? tables_file : kept_file);
    for (size_t i = 0; encodes && i < sizeof small / sizeof *small; i++)
        if (kvg_opt_find(s->opts, small[i][0]))
            add_option(out, &n, small[i][0], small[i][1]);
}

void gen_spec_text(struct kvg_stream *s, size_t n_prompt, const int32_t *future, size_t n_future)
{
    static const struct kvg_span spans[] = {{0, 5, KVG_SPAN_SYSTEM},     {5, 10, KVG_SPAN_SYSTEM},
                                            {10, 14, KVG_SPAN_GLOSSARY}, {14, 20, KVG_SPAN_TOOL},
                                            {20, 50, KVG_SPAN_USER},     {60, 70, KVG_SPAN_USER}};
    s->text.spans = spans;
    s->text.n_spans = sizeof spans / sizeof *spans;
    s->text.question = s->n_tokens + n_prompt - n_prompt / 3;
    s->text.future = future;
    s->text.n_future = n_future;
}
