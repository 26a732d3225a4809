/* Owns what goes into a manifest. */
#include "run/describe.h"

#include "base/hash.h"
#include "kernel/blas.h"
#include "kernel/probe.h"

#include <string.h>
#include <time.h>

#ifndef KVG_VERSION
#define KVG_VERSION ""
#endif

enum { SETTINGS = 16 };

const char *kvg_describe_now(struct kvg_arena *a)
{
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    return kvg_arena_printf(a, "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
                            tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static int describe_specs(struct kvg_manifest_identity *id, const struct kvg_runplan *plan,
                          struct kvg_arena *a)
{
    id->specs = kvg_arena_array(a, plan->n_strategies, sizeof *id->specs);
    id->workloads = kvg_arena_array(a, plan->n_workloads, sizeof *id->workloads);
    if (!id->specs || !id->workloads)
        return KVG_ENOMEM;
    id->n_specs = plan->n_strategies;
    for (size_t i = 0; i < plan->n_strategies; i++)
        id->specs[i] = (struct kvg_manifest_spec){
            .label = plan->strategies[i].label,
            .spec = plan->strategies[i].resolved,
            .role = kvg_role_name(plan->strategies[i].pipe.role),
        };
    id->n_workloads = plan->n_workloads;
    for (size_t i = 0; i < plan->n_workloads; i++) {
        const struct kvg_workload *w = &plan->workloads[i].w;
        id->workloads[i] = (struct kvg_manifest_workload){
            .name = w->name,
            .path = w->path,
            .sha256 = w->sha256,
            .licence = w->licence,
            .source = w->format,
        };
    }
    return KVG_OK;
}

static void set(struct kvg_manifest_identity *id, const char *key, const char *value)
{
    id->settings[id->n_settings++] = (struct kvg_manifest_pair){key, value ? value : ""};
}

/* Which items, in which use: runs of other items are other runs. */
static uint64_t hash_items(const struct kvg_runplan *plan)
{
    uint64_t h = KVG_FNV_INIT;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct kvg_plan_item *it = &plan->items[i];
        unsigned char use[] = {it->drift, it->free, it->timed, it->floor, it->kept};
        h = kvg_hash_fnv_str(h, it->tokens.item->id);
        h = kvg_hash_fnv(h, use, sizeof use);
    }
    return h;
}

static int describe_settings(struct kvg_manifest_identity *id, const struct kvg_runplan *plan,
                             struct kvg_arena *a)
{
    const struct kvg_suite *s = plan->suite;
    id->settings = kvg_arena_array(a, SETTINGS, sizeof *id->settings);
    if (!id->settings)
        return KVG_ENOMEM;
    set(id, "items",
        kvg_arena_printf(a, "%zu:%016llx", plan->n_items, (unsigned long long)hash_items(plan)));
    set(id, "lanes",
        kvg_arena_printf(a, "%s%s", s->lanes[KVG_LANE_DRIFT] ? "drift " : "",
                         s->lanes[KVG_LANE_TIME] ? "time" : ""));
    set(id, "modes",
        kvg_arena_printf(a, "%s%s", s->modes[KVG_MODE_FORCED] ? "forced " : "",
                         s->modes[KVG_MODE_FREE] ? "free" : ""));
    set(id, "query",
        kvg_arena_printf(a, "%s%s", s->queries[KVG_QUERY_SEEN] ? "seen " : "",
                         s->queries[KVG_QUERY_UNSEEN] ? "unseen" : ""));
    set(id, "second_question", s->second_question ? "yes" : "no");
    set(id, "target", kvg_target_name(s->target));
    set(id, "reply_tokens", kvg_arena_printf(a, "%zu", s->reply_tokens));
    set(id, "max_turns", kvg_arena_printf(a, "%zu", s->max_turns));
    set(id, "free_tokens", kvg_arena_printf(a, "%zu", s->free_tokens));
    set(id, "time_reply_tokens", kvg_arena_printf(a, "%zu", s->time_reply_tokens));
    set(id, "rounds", kvg_arena_printf(a, "%zu", s->rounds));
    set(id, "seeds",
        kvg_arena_printf(a, "%zu %s", s->n_seeds,
                         s->seeds_mode == KVG_SEEDS_ALL ? "all" : "rotate"));
    set(id, "uncached_depths", kvg_arena_printf(a, "%zu", s->uncached_depths));
    set(id, "cells", kvg_arena_printf(a, "%zu", plan->n_cells));
    return KVG_OK;
}

static const char *template_digest(const struct kvg_model *m, struct kvg_arena *a)
{
    struct kvg_gguf_str t;
    char *hex = kvg_arena_alloc(a, KVG_SHA256_HEX);
    if (!hex || kvg_gguf_str(&m->gguf, "tokenizer.chat_template", &t, NULL))
        return "";
    kvg_hash_sha256_hex(t.s, t.n, hex);
    return hex;
}

static int describe_context(struct kvg_manifest_context *c, const struct kvg_runplan *plan,
                            const struct kvg_run_options *opt, struct kvg_arena *a)
{
    struct kvg_host host;
    double step_ns;
    kvg_host_probe(&host);
    c->version = KVG_VERSION;
    c->commit = KVG_COMMIT;
    c->compiler = __VERSION__;
    c->flags = KVG_FLAGS;
    c->cpu = kvg_arena_printf(a, "%s (%s)", host.cpu_model, host.cpu_flags);
    c->kernels = opt->kernels->name;
    c->blas_core = kvg_blas_core();
    c->blas_version = kvg_blas_version();
    c->n_threads = (uint64_t)kvg_pool_threads(opt->pool);
    c->memory_bytes = host.mem_total_bytes;
    c->load = host.load1;
    kvg_probe_clock(&c->clock_cost_ns, &step_ns);
    c->read_bandwidth = kvg_probe_read_bandwidth(opt->pool, plan->model->weight_bytes, 3);
    c->start = kvg_describe_now(a);
    c->command = opt->command;
    return c->cpu && c->start ? KVG_OK : KVG_ENOMEM;
}

int kvg_describe(struct kvg_manifest *m, const struct kvg_runplan *plan,
                 const struct kvg_run_options *opt, struct kvg_arena *a, struct kvg_err *err)
{
    const struct kvg_model *model = plan->model;
    kvg_manifest_init(m);
    m->identity.suite = plan->suite->name;
    m->identity.model_name = model->name;
    m->identity.model_sha256 = plan->model_sha256;
    m->identity.kv_f16_token_bytes = 4 * model->n_layers * model->n_kv_heads * model->d_head;
    m->identity.tokenizer_sha256 = kvg_tokenizer_digest(model->tok);
    m->identity.template_sha256 = template_digest(model, a);
    m->identity.seed = plan->suite->seed;
    if (describe_specs(&m->identity, plan, a) || describe_settings(&m->identity, plan, a) ||
        describe_context(&m->context, plan, opt, a))
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory for the manifest");
    return KVG_OK;
}
