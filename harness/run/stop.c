/* Owns the stop flag and the two signal handlers. Must not know what is being stopped. */
#include "run/stop.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t requested;
static struct sigaction old_int, old_term;

static void on_signal(int sig)
{
    requested = 1;
    /* Whoever asks twice does not want to wait for the step to end. */
    signal(sig, SIG_DFL);
}

void kvg_stop_init(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    sigemptyset(&a.sa_mask);
    a.sa_flags = SA_RESTART; /* a half-written row would be worse than a late stop */
    requested = 0;
    sigaction(SIGINT, &a, &old_int);
    sigaction(SIGTERM, &a, &old_term);
}

void kvg_stop_release(void)
{
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGTERM, &old_term, NULL);
    requested = 0;
}

int kvg_stop_check(struct kvg_err *err)
{
    if (!requested)
        return KVG_OK;
    return KVG_FAIL(err, KVG_EINTR, "interrupted");
}
