/* What the tests of workloads share: a folder for files of their own, and text of small items. */
#ifndef KVG_TESTS_WORKLOAD_FILES_H
#define KVG_TESTS_WORKLOAD_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/fs.h"
#include "workloads/workload.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char tmp_dir[] = "/tmp/kvg-workload-XXXXXX";

static inline int setup(void **state)
{
    (void)state;
    return mkdtemp(tmp_dir) ? 0 : -1;
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static inline int teardown(void **state)
{
    (void)state;
    return nftw(tmp_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static inline const char *write_bytes(const char *name, const void *data, size_t n)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", tmp_dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *write_text(const char *name, const char *text)
{
    return write_bytes(name, text, strlen(text));
}

static inline void open_text(struct kvg_workload *w, const char *name, const char *text)
{
    struct kvg_err err = {0};
    if (kvg_workload_open(w, write_text(name, text), &err))
        fail_msg("%s", err.msg);
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define S(text) "{\"role\":\"system\",\"content\":\"" text "\"}"
#define ITEM(id, messages, meta) "{\"id\":\"" id "\",\"messages\":[" messages "]" meta "}\n"
#define OK_ITEM(id) ITEM(id, U("q") "," A("r"), "")

#define Q(text, question)                                                                          \
    "{\"role\":\"user\",\"content\":\"" text "\",\"question\":\"" question "\"}"
#define R(text, at) "{\"role\":\"user\",\"content\":\"" text "\",\"replaces\":" at "}"

#endif
