/* The page of strategies: what is committed is what the tables and the measured rows make. */
#include "base/fs.h"
#include "run/catalogue.h"
#include "strategies/strategy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_page(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_str page = {0};
    char *text;
    size_t n, n_strategies;
    kvg_arena_init(&a);
    const struct kvg_strategy *const *all = kvg_strategies(&n_strategies);
    assert_int_equal(kvg_catalogue_print("docs/measured.csv", &a, &page, NULL), 0);
    assert_int_equal(kvg_fs_read("docs/strategies.md", 1 << 20, &text, &n, NULL), 0);
    if (strcmp(page.s, text))
        fail_msg("docs/strategies.md is not what the tables make: run `kvgauge ls strategies "
                 "--markdown --measured docs/measured.csv > docs/strategies.md`");
    for (size_t i = 0; i < n_strategies; i++) {
        char head[64];
        snprintf(head, sizeof head, "\n## %s\n", all[i]->name);
        assert_non_null(strstr(text, head));
    }
    free(text);
    kvg_str_release(&page);
    kvg_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_page)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
