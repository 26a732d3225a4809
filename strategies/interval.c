/* interval: any keeper, compressing every `every` decode steps and after each turn's prompt, down
 * to the keeper's own budget; in between the cache grows. Scorers that are made for the prompt's
 * end work on replies this way: when a compression is due, the last queries fed attend again (the
 * engine keeps as many as the scorer's window asks for), as the hidden states in the buffer of
 * kvpress's DecodingPress do. What is chosen, the keeper decides. */
#include "strategies/strategy.h"

struct opt {
    int64_t every;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    (void)err;
    in->schedule = (struct kvg_schedule){KVG_SCHED_EVERY, o->every};
    return 0;
}

static const struct kvg_opt opts[] = {{.name = "every",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, every),
                                       .def = "512",
                                       .min = 1,
                                       .max = 1 << 20,
                                       .metavar = "STEPS",
                                       .help = "decode steps between two compressions"},
                                      {0}};

const struct kvg_strategy kvg_interval = {
    .name = "interval",
    .summary = "lets any keeper compress every so many decode steps too",
    .source = "kvpress, DecodingPress",
    .observes = "what the keeper observes; windows wider than one query are attended again",
    .kind = KVG_KIND_WRAP,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
};
