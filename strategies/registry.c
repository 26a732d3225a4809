/* Owns the list of strategies and the options that all of a kind share. */
#include "strategies/strategy.h"

#include <string.h>

#define X(name) extern const struct kvg_strategy name;
#include "strategies/list.h"
#undef X

static const struct kvg_strategy *const all[] = {
#define X(name) &name,
#include "strategies/list.h"
#undef X
};

const struct kvg_strategy *const *kvg_strategies(size_t *n)
{
    *n = sizeof all / sizeof all[0];
    return all;
}

const struct kvg_strategy *kvg_strategy_find(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!strcmp(all[i]->name, name))
            return all[i];
    return NULL;
}

const char *kvg_kind_name(enum kvg_kind kind)
{
    static const char *const names[] = {"keep", "wrap", "encode", "read", "share"};
    return names[kind];
}

const char *kvg_role_name(enum kvg_role role)
{
    static const char *const names[] = {"strategy", "baseline", "floor", "control", "oracle"};
    return names[role];
}

static const struct kvg_opt keep_opts[] = {
    {.name = "schedule",
     .type = KVG_OPT_STRING,
     .offset = offsetof(struct kvg_common, schedule),
     .metavar = "prompt|turn|every:k",
     .help = "when it compresses: after the first prompt, after each turn's prompt, or there and "
             "at every k-th decode step"},
    {.name = "prefill_chunk",
     .type = KVG_OPT_INT,
     .offset = offsetof(struct kvg_common, prefill_chunk),
     .def = "0",
     .min = 0,
     .max = 1 << 20,
     .metavar = "N",
     .help = "prompts are fed N tokens at a time and compressed after each; 0 = at once"},
    {0}};

static const struct kvg_opt encode_opts[] = {
    {.name = "prefill",
     .type = KVG_OPT_CHOICE,
     .offset = offsetof(struct kvg_common, prefill),
     .def = "exact",
     .choices = "exact|stored",
     .help = "prompt queries read exact rows, or what the store holds"},
    {0}};

static const struct kvg_opt no_opts[] = {{0}};

const struct kvg_opt *kvg_common_opts(enum kvg_kind kind)
{
    return kind == KVG_KIND_KEEP ? keep_opts : kind == KVG_KIND_ENCODE ? encode_opts : no_opts;
}
