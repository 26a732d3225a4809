/* Owns what tests of codecs share. */
#include "gen_codec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

unsigned char *gen_encode(const struct kvg_codec *c, const float *rows, size_t n, size_t d,
                          size_t *bytes)
{
    *bytes = kvg_codec_total_bytes(c, n, d);
    unsigned char *b = malloc(*bytes + 2 * GEN_PAD);
    assert_non_null(b);
    memset(b, GEN_GUARD, *bytes + 2 * GEN_PAD);
    c->encode(c, kvg_kernels_get("ref"), &(struct kvg_place){0}, rows, n, d, b + GEN_PAD);
    for (size_t i = 0; i < GEN_PAD; i++) {
        assert_int_equal(b[i], GEN_GUARD);
        assert_int_equal(b[GEN_PAD + *bytes + i], GEN_GUARD);
    }
    return b;
}

float gen_normal(struct kvg_rng *r)
{
    return (float)(sqrt(-2 * log(1 - kvg_rng_unit(r))) * cos(6.283185307179586 * kvg_rng_unit(r)));
}
