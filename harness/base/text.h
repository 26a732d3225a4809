/* Text helpers: nearest names, strict number parsing, a growing string. */
#ifndef KVG_BASE_TEXT_H
#define KVG_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Growing string; `s` is always NUL-terminated once something was added. Out of memory sets
 * `failed` and further additions do nothing. */
struct kvg_str {
    char *s;
    size_t len, cap;
    int failed;
};
void kvg_str_release(struct kvg_str *b);
void kvg_str_clear(struct kvg_str *b);
void kvg_str_addn(struct kvg_str *b, const char *s, size_t n);
void kvg_str_add(struct kvg_str *b, const char *s);
void kvg_str_addc(struct kvg_str *b, char c);
void kvg_str_addf(struct kvg_str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The entry of names[n] nearest to `name` by edit distance, or NULL when none is near enough to be
 * a likely slip (distance > 1 + strlen/3). */
const char *kvg_text_nearest(const char *name, const char *const *names, size_t n);
size_t kvg_text_edit_distance(const char *a, size_t na, const char *b, size_t nb);

/* Whole-string parses; return 0, or -1 when `s` is empty, has trailing text or is out of range. */
int kvg_text_i64(const char *s, int64_t *out);
int kvg_text_double(const char *s, double *out);

/* Prints a double so that it reads back exactly, shortest of %.15g %.16g %.17g; buf >= 32. */
void kvg_text_put_double(char *buf, size_t cap, double v);

int kvg_text_utf8_valid(const char *s, size_t n);
/* Decodes one code point at s[0..n); returns its length in bytes (1..4); an invalid byte decodes
 * as U+FFFD of length 1. */
size_t kvg_text_utf8_decode(const char *s, size_t n, uint32_t *cp);
size_t kvg_text_utf8_encode(uint32_t cp, char out[4]);

#endif
