/* Owns the formatting of error messages; knows nothing else. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int kvg_err_set(struct kvg_err *err, const char *file, int line, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    err->code = code;
    err->file = file;
    err->line = line;
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return code;
}

int kvg_err_prefix(struct kvg_err *err, const char *fmt, ...)
{
    if (!err)
        return KVG_ECHECK;
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof err->msg)
        return err->code;
    size_t at = (size_t)n, left = sizeof err->msg - at, len = strlen(old);
    if (left < 4)
        return err->code;
    memcpy(err->msg + at, ": ", 3);
    if (len > left - 3)
        len = left - 3;
    memcpy(err->msg + at + 2, old, len);
    err->msg[at + 2 + len] = 0;
    return err->code;
}
