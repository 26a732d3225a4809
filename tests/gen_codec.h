/* What tests of codecs share. */
#ifndef KVG_TESTS_GEN_CODEC_H
#define KVG_TESTS_GEN_CODEC_H

#include "base/rng.h"
#include "cache/codec.h"

/* Bytes in front of and behind what gen_encode gives, and what they hold. */
enum { GEN_PAD = 96, GEN_GUARD = 0xa5 };
/* Encodes into a buffer of exactly the bytes reported, checks that no byte around it was touched.
 * Codes begin GEN_PAD bytes behind the result, which the caller frees. */
unsigned char *gen_encode(const struct kvg_codec *c, const float *rows, size_t n, size_t d,
                          size_t *bytes);
/* A standard normal number (Box and Muller). */
float gen_normal(struct kvg_rng *r);

#endif
