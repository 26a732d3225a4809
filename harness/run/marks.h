/* Marks of a conversation: what its stretches are (instructions, glossary, pasted documents, user
 * messages) and where the question of a turn begins, as positions of tokens. Must not change a
 * token: marks are laid over ids that stand already. */
#ifndef KVG_RUN_MARKS_H
#define KVG_RUN_MARKS_H

#include "base/arena.h"
#include "base/err.h"
#include "model/template.h"
#include "run/tokens.h"
#include "strategies/strategy.h"
#include "workloads/workload.h"

#include <stddef.h>
#include <stdint.h>

/* Fills spans, question and has_context of a turn whose prompt ids stand. `pieces` are what the ids
 * were made of: they point into `system` (NULL = none in this prompt) and into turn->user.
 *
 * An instruction is a line of the system message, or a sentence of a line; a glossary entry "source
 * = target" in it is a span of its own. A token belongs to the stretch that its last byte is in.
 * Spans are relative to prompt[0]. Memory in `a`. */
int kvg_marks_make(struct kvg_turn_tokens *t, const struct kvg_template_pieces *pieces,
                   const char *system, const struct kvg_turn *turn, const struct kvg_item *item,
                   const struct kvg_tokenizer *tok, struct kvg_arena *a, struct kvg_err *err);

/* Most spans that kvg_marks_path may give for an item. */
size_t kvg_marks_room(const struct kvg_item_tokens *item);
/* The spans of the conversation that ends with turn `turn`, as positions, to out; returns how many.
 * begin(arg, t) is the position of turn t's prompt[0]. What a turn that cuts into the prompt of its
 * parent takes away is left out. */
size_t kvg_marks_path(const struct kvg_item_tokens *item, size_t turn,
                      size_t (*begin)(const void *arg, size_t turn), const void *arg,
                      struct kvg_span *out);

/* Where in a text of n bytes each of n_ids tokens ends, to ends [n_ids]. A space that a tokenizer
 * puts before a word and bytes it has no token for are passed over. */
void kvg_marks_align(const struct kvg_tokenizer *tok, const int32_t *ids, size_t n_ids,
                     const char *text, size_t n, size_t *ends);

#endif
