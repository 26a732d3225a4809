/* Specs: what is refused and how, and resolved texts that say the same again. */
#include "gen_engine.h"
#include "gen_spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct kvg_model *model;
static struct kvg_dims dims;

static int open_all(void **state)
{
    (void)state;
    struct gen_llama c = gen_llama_default();
    model = gen_model(&c);
    dims = kvg_model_dims(model);
    gen_spec_open(model);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    gen_spec_close();
    kvg_model_close(model);
    return 0;
}

static void check_resolved(const char *spec, const char *name)
{
    struct kvg_arena a;
    struct kvg_pipeline p, q;
    struct kvg_err err;
    kvg_arena_init(&a);
    if (kvg_pipeline_open(&p, spec, &dims, &a, &err))
        fail_msg("%s", err.msg);
    if (kvg_pipeline_open(&q, p.resolved, &dims, &a, &err))
        fail_msg("%s: %s", p.resolved, err.msg);
    assert_string_equal(p.resolved, q.resolved);
    assert_non_null(strstr(p.resolved, name));
    kvg_arena_release(&a);
}

/* Every strategy, alone or around a scorer, with and without an encoding. */
static void test_resolved(void **state)
{
    (void)state;
    static const char *const with[] = {"", "+q8_0", "+kivi:bits=2,group=8,residual=16"};
    static const char *const budgets[] = {"40", "40%", "4096B"};
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++) {
            char spec[GEN_SPEC_MAX] = "";
            if (all[i]->kind == KVG_KIND_WRAP)
                strcpy(spec, "snapkv:budget=30%");
            gen_spec_add(spec, all[i], budgets[k]);
            if (all[i]->kind != KVG_KIND_ENCODE && !all[i]->recompute)
                strcat(spec, with[k]);
            check_resolved(spec, all[i]->name);
        }
}

static void test_bad_specs(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *says;
    } bad[] = {{"snapvk", "snapkv"},
               {"", "unknown strategy"},
               {"windw:budget=3", "window"},
               {"window:budgt=3", "budget"},
               {"window:budget=0", "budget"},
               {"window:budget=-4", "budget"},
               {"window:budget=150%", "budget"},
               {"window:budget", "option=value"},
               {"window:budget=12x", "budget"},
               {"sink:budget=4,sinks=4", "sinks"},
               {"sink:budget=64,sinks=-1", "sinks"},
               {"sink:budget=64,position=sideways", "position"},
               {"h2o:recent=1.5", "recent"},
               {"h2o:schedule=every:0", "schedule"},
               {"h2o:schedule=often", "schedule"},
               {"snapkv:kernel=4", "odd"},
               {"pyramidkv:kernel=4", "odd"},
               {"pyramidkv:budget=4,window=8", "window"},
               {"lagkv:lag=1", "lag"},
               {"cur:of=norms", "of"},
               {"simlayerkv+adakv", "scores"},
               {"simlayerkv:budget=10", "budget"},
               {"kivi:bits=3", "bits"},
               {"kivi:group=32,residual=40", "residual"},
               {"kv:k=q9_9", "k"},
               {"fixed", "file"},
               {"scissorhands:window=7", "even"},
               {"r-kv:kernel=4", "odd"},
               {"r-kv:budget=8", "window"},
               {"kvquant", "kvgauge calibrate"},
               {"kvquant:file=/nowhere/x.nuq", "kvgauge calibrate"},
               {"kvquant:bits=5", "bits"},
               {"ctx-shift:budget=4", "keep"},
               {"interval", "wraps"},
               {"h2o+protect:spans=system/glosary", "glosary"},
               {"h2o+fair:spans=", "span"},
               {"full+fair", "wraps"},
               {"h2o+fair+fair", "twice"},
               {"window+h2o", "combined"},
               {"f16+q8_0", "combined"},
               {"uncached+f16", "combined"},
               {"full+", "unknown strategy"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kvg_arena a;
        struct kvg_pipeline p;
        struct kvg_err err = {0};
        kvg_arena_init(&a);
        int rc = kvg_pipeline_open(&p, bad[i].spec, &dims, &a, &err);
        if (rc != KVG_EUSAGE || !strstr(err.msg, bad[i].says))
            fail_msg("'%s': %d, %s", bad[i].spec, rc, rc ? err.msg : "accepted");
        kvg_arena_release(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_resolved),
                                       cmocka_unit_test(test_bad_specs)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
