/* The wish to stop: a flag that Ctrl-C (SIGINT) and SIGTERM raise and that loops look at between
 * steps. The second signal ends the process at once. */
#ifndef KVG_RUN_STOP_H
#define KVG_RUN_STOP_H

#include "base/err.h"

/* Takes over both signals; kvg_stop_release gives them back. One user at a time. */
void kvg_stop_init(void);
void kvg_stop_release(void);
/* KVG_EINTR when the flag is up. */
int kvg_stop_check(struct kvg_err *err);

#endif
