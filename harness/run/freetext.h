/* Numbers of a free run that come from its texts: likeness to the baseline's text, likeness to the
 * reference of a translation, right answers. */
#ifndef KVG_RUN_FREETEXT_H
#define KVG_RUN_FREETEXT_H

#include "model/tokenizer.h"
#include "run/record.h"
#include "run/writer.h"

/* Fills the text part of rec->free_mode and the answers of its turns (rec->turns in file order). */
int kvg_freetext_measure(const struct kvg_tokenizer *tok, const struct kvg_item *item,
                         const struct kvg_written *own, const struct kvg_written *text,
                         struct kvg_record *rec, struct kvg_err *err);

#endif
