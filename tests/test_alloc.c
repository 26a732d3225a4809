/* No step of any strategy allocates: while one runs, the allocator of this program is a trap. The
 * sanitizers bring their own allocator; with them only the counting of the trap is skipped, and
 * most of what would be counted. */
#include "gen_engine.h"
#include "gen_spec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static atomic_int armed, n_calls;

#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define TRAPPED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRAPPED 0
#endif
#endif
#ifndef TRAPPED
#define TRAPPED 1
#endif

#if TRAPPED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static void call(void)
{
    if (atomic_load(&armed))
        atomic_fetch_add(&n_calls, 1);
}

void *malloc(size_t n)
{
    call();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    call();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    call();
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    call();
    return __libc_memalign(align, n);
}

int posix_memalign(void **p, size_t align, size_t n)
{
    call();
    *p = __libc_memalign(align, n);
    return *p ? 0 : ENOMEM;
}

void free(void *p)
{
    if (p)
        call();
    __libc_free(p);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    call();
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}
#endif

static int trapped(void)
{
    return TRAPPED;
}

static void test_trap_works(void **state)
{
    (void)state;
    atomic_store(&n_calls, 0);
    atomic_store(&armed, 1);
    void *volatile p = malloc(10);
    free(p);
    atomic_store(&armed, 0);
    assert_int_equal(atomic_load(&n_calls), trapped() ? 2 : 0);
}

static void run(struct gen_engine *g, const char *spec)
{
    static float hidden[128];
    static int32_t t[140];
    struct gen_stream st;
    gen_tokens(t, 140, g->m->n_vocab, 31);
    gen_stream_open(&st, g, spec, 1);
    gen_spec_text(&st.s, 60, t + 60, 20);
    gen_prompt(g, &st, t, 60, hidden);
    atomic_store(&n_calls, 0);
    for (size_t i = 60; i < 140; i++) {
        atomic_store(&armed, 1);
        gen_steps(g, &st, t + i, 1, hidden);
        atomic_store(&armed, 0);
        if (atomic_load(&n_calls))
            fail_msg("%s: %d calls of the allocator in step %zu", spec, atomic_load(&n_calls),
                     i - 60);
    }
    gen_stream_close(&st);
}

/* The whole registry: keepers with encodings, wrappers around scorers, encodings behind a keeper.
 */
static void test_no_allocation_in_a_step(void **state)
{
    (void)state;
    static const char *const with[] = {"", "+f16", "+kivi:bits=2,group=8,residual=16",
                                       "+kivi:bits=2,group=8,residual=8,groups=whole"};
    static const char *const around[] = {"snapkv:budget=50", "h2o:budget=50",
                                         "knorm:budget=50,schedule=every:3"};
    struct gen_llama c = gen_llama_default();
    struct gen_engine g;
    struct kvg_model *m = gen_model(&c);
    size_t n;
    const struct kvg_strategy *const *all = kvg_strategies(&n);
    gen_spec_open(m);
    /* in the order of rows: steps that recompute would else use the BLAS, which takes a buffer of
     * its own the first time a thread needs one */
    gen_engine_open(&g, m, "auto", 2, 1);
    for (size_t i = 0; i < n; i++) {
        int inner = all[i]->kind == KVG_KIND_WRAP || all[i]->kind == KVG_KIND_ENCODE;
        int plain = all[i]->kind == KVG_KIND_ENCODE || all[i]->recompute;
        size_t most = !trapped() || (plain && !inner) ? 1 : inner ? 3 : 4;
        for (size_t e = 0; e < most; e++) {
            char spec[GEN_SPEC_MAX] = "";
            if (inner)
                strcpy(spec, around[e]);
            gen_spec_add(spec, all[i], "50");
            if (!plain)
                strcat(spec, with[e]);
            run(&g, spec);
        }
    }
    gen_spec_close();
    gen_engine_close(&g);
    kvg_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trap_works),
        cmocka_unit_test(test_no_allocation_in_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
