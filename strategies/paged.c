/* paged: rows lie in blocks of few slots, as servers with many conversations allocate them. Nothing
 * else changes: the numbers are those of full, bit for bit. What it costs and saves shows in the
 * allocated bytes and in the rows of blocks that hold nothing. */
#include "strategies/strategy.h"

struct opt {
    int64_t block;
};

static int init(struct kvg_inst *in, struct kvg_err *err)
{
    const struct opt *o = in->opt;
    (void)err;
    in->needs.block_slots = (size_t)o->block;
    return 0;
}

static const struct kvg_opt opts[] = {{.name = "block",
                                       .type = KVG_OPT_INT,
                                       .offset = offsetof(struct opt, block),
                                       .def = "16",
                                       .min = 1,
                                       .max = 64,
                                       .metavar = "N",
                                       .help = "slots of a block"},
                                      {0}};

const struct kvg_strategy kvg_paged = {
    .name = "paged",
    .summary = "an exact cache in blocks of few slots; reports what of them is unused",
    .source = "Kwon et al. 2023, vLLM, arXiv 2309.06180, section 4",
    .observes = "nothing",
    .kind = KVG_KIND_SHARE,
    .opts = opts,
    .opts_bytes = sizeof(struct opt),
    .init = init,
};
