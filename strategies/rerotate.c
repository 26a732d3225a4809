/* rerotate: the keys that stay get contiguous positions 0, 1, 2, ... in every head, and what comes
 * next goes on behind them, as if what went had never been written. Keys are stored before rotation
 * and rotated by slot whenever they are read, so nothing accumulates over turns; where heads keep
 * different numbers of tokens each counts its own slots. A wrapper: any strategy that evicts. */
#include "strategies/strategy.h"

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    (void)err;
    in->position = KVG_POSITION_SLOT;
    in->needs.raw_keys = 1;
    return 0;
}

static const struct kvg_opt opts[] = {{0}};

const struct kvg_strategy kvg_rerotate = {
    .name = "rerotate",
    .summary = "wrapper: the keys that stay get contiguous rotary positions",
    .source = "Corallo and Papotti 2024, arXiv 2408.00167; KeyRerotationPress of kvpress",
    .observes = "nothing; every key is rotated at every read",
    .kind = KVG_KIND_WRAP,
    .opts = opts,
    .init = init,
};
