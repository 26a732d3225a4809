/* The mteval 13a tokeniser, as sacreBLEU 2.x has it: private to the text metrics. */
#ifndef KVG_RESULT_TOK13A_H
#define KVG_RESULT_TOK13A_H

#include "result/ngram.h"

/* The text with spaces between its tokens, as code points; -1 when out of memory. */
int kvg_tok13a(struct kvg_symbols *out, const char *text);

#endif
