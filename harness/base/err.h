/* Errors: every fallible call returns 0 or a negative KVG_E... and describes the cause in a
 * struct kvg_err. Nothing below main.c prints or exits. */
#ifndef KVG_BASE_ERR_H
#define KVG_BASE_ERR_H

enum {
    KVG_OK = 0,
    KVG_EUSAGE = -1,  /* wrong option, name or combination; nothing was run */
    KVG_EIO = -2,     /* the operating system refused: open, read, write, disk full */
    KVG_EFORMAT = -3, /* a file is not what it should be */
    KVG_ENOMEM = -4,
    KVG_EUNSUP = -5, /* understood, but not supported by this build */
    KVG_ELIMIT = -6, /* the model's context or a reserved capacity is exhausted */
    KVG_EINTR = -7,  /* the user asked to stop */
    KVG_ECHECK = -8, /* an internal invariant or self check failed */
    KVG_ENONE = -9   /* nothing was measured */
};

struct kvg_err {
    int code;
    const char *file; /* source file and line that raised it */
    int line;
    char msg[640];
};

/* Sets *err (which may be NULL) and returns code. Messages: lower case, cause first, the subject
 * in single quotes, what to do. */
int kvg_err_set(struct kvg_err *err, const char *file, int line, int code, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Puts "prefix: " before the message already there; returns err->code. */
int kvg_err_prefix(struct kvg_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define KVG_FAIL(err, code, ...) kvg_err_set((err), __FILE__, __LINE__, (code), __VA_ARGS__)

#endif
