/* The metrics as a table. Owns their definitions; must not know how rows are pooled or printed. */
#include "result/metrics.h"

#include "base/text.h"

#include <math.h>
#include <string.h>

#define OF_STEP(fn, expr)                                                                          \
    static double fn(const struct kvg_run_step *s)                                                 \
    {                                                                                              \
        return expr;                                                                               \
    }
#define OF_TURN(fn, expr)                                                                          \
    static double fn(const struct kvg_run_turn *t)                                                 \
    {                                                                                              \
        return expr;                                                                               \
    }
#define OF_CELL(fn, expr)                                                                          \
    static double fn(const struct kvg_run *run, const struct kvg_row *c)                           \
    {                                                                                              \
        (void)run;                                                                                 \
        return expr;                                                                               \
    }
#define COL(name) kvg_row_f64(c, KVG_CELLS_##name)

OF_STEP(kl, s->kl)
OF_STEP(top1, s->top1)
OF_STEP(top10, s->top10)
OF_STEP(dprob, s->dprob)
OF_STEP(dnll, s->nll - s->nll_base)
OF_STEP(itl_ms, s->step_ns * 1e-6)
OF_TURN(ttft_ms, t->ttft_ns * 1e-6)
OF_CELL(logical_bytes, COL(logical_bytes))
OF_CELL(prompt_bytes, COL(prompt_bytes_per_token))
OF_CELL(target_bytes, COL(target_bytes))
OF_CELL(logical_tokens, COL(logical_tokens))
OF_CELL(f16_bytes, (double)run->manifest.identity.kv_f16_token_bytes *COL(logical_tokens))
OF_CELL(alloc_bytes, COL(alloc_bytes))
OF_CELL(step_peak, COL(step_peak_bytes))
OF_CELL(rss, COL(rss_bytes))
OF_CELL(kept, COL(kept_tokens_mean))
OF_CELL(prompt_tokens, COL(n_prompt_tokens))
OF_CELL(prefill_s, COL(prefill_ns) * 1e-9)
OF_CELL(manage_ms, COL(manage_ns) * 1e-6)
OF_CELL(observe_ms, COL(observe_ns) * 1e-6)
OF_CELL(overhead, COL(overhead_ns))
OF_CELL(chrf2_baseline, COL(chrf2_baseline))
OF_CELL(edit, COL(edit_distance))
OF_CELL(chrf2_reference, COL(chrf2_reference))
OF_CELL(bleu_reference, COL(bleu_reference))
OF_CELL(answers_total, COL(answers_total))

/* Nothing can be lost or gained where nothing was asked: no value, rather than 0. */
OF_CELL(answers_lost, COL(answers_total) > 0 ? COL(answers_lost) : (double)NAN)
OF_CELL(answers_gained, COL(answers_total) > 0 ? COL(answers_gained) : (double)NAN)

OF_CELL(read_bytes, COL(bytes_read))
OF_CELL(macs, COL(n_macs))

/* A censored reply has no first_divergence but was followed for n_free_steps. */
OF_CELL(undiverged, kvg_row_has(c, KVG_CELLS_n_free_steps)
                        ? (double)!kvg_row_has(c, KVG_CELLS_first_divergence)
                        : (double)NAN)

/* Time of the steps alone: the cell's phases include its prompts. */
static double gen_tokens(const struct kvg_run *run, const struct kvg_row *c)
{
    const struct kvg_run_range *r = &run->cell_steps[c - run->cells];
    return r->end > r->begin ? (double)(r->end - r->begin) : (double)NAN;
}

static double gen_s(const struct kvg_run *run, const struct kvg_row *c)
{
    const struct kvg_run_range *r = &run->cell_steps[c - run->cells];
    double ns = 0;
    for (size_t i = r->begin; i < r->end; i++)
        ns += run->steps[i].step_ns;
    return ns * 1e-9;
}

#define STEPS(fn) .of = KVG_METRIC_OF_STEPS, .of_step = fn
#define TURNS(fn) .of = KVG_METRIC_OF_TURNS, .of_turn = fn
#define CELLS(fn) .of = KVG_METRIC_OF_CELLS, .of_cell = fn
#define DRIFT .mode = "forced", .lane = "drift"
#define FREE .mode = "free", .lane = "drift"
#define TIME .lane = "time"

const struct kvg_metric kvg_metrics[] = {
    {"kl_mean", "KL mean", "mean over steps of sum_v p_v (ln p_v - ln q_v)", "nats", -1, "steps.kl",
     "How far the strategy's next-token distribution is from the baseline's. 0 = the same; below "
     "the noise floor it means nothing. Interval: bootstrap over items.",
     DRIFT, STEPS(kl), .stats = KVG_STAT_MEAN},
    {"kl_p99", "KL p99", "99th percentile of the steps' KL", "nats", -1, "steps.kl",
     "The bad steps: one wrong choice can spoil a reply. Marked under 1000 steps.", DRIFT,
     STEPS(kl), .stats = KVG_STAT_P99},
    {"kl_max", "KL max", "largest KL of any step", "nats", -1, "steps.kl", "", DRIFT, STEPS(kl),
     .stats = KVG_STAT_MAX},
    {"kl_uncompressed", "KL of first steps", "mean KL of steps whose logits come from the prefill",
     "nats", -1, "steps.kl steps.uncompressed",
     "These steps saw the uncompressed prompt; they are left out of every other drift number.",
     DRIFT, STEPS(kl), .stats = KVG_STAT_MEAN, .which = KVG_STEPS_UNCOMPRESSED},
    {"top1_agreement", "top-1", "share of steps where both put the same token first", "share", 1,
     "steps.top1", "What a greedy decoder would notice.", DRIFT, STEPS(top1),
     .stats = KVG_STAT_MEAN},
    {"top10_overlap", "top-10", "mean of |A and B| / 10 of the ten likeliest tokens", "share", 1,
     "steps.top10", "", DRIFT, STEPS(top10), .stats = KVG_STAT_MEAN},
    {"dprob_mean", "dprob", "mean of q(target) - p(target)", "", 0, "steps.dprob",
     "Near 0 with symmetric tails is noise; a negative mean is damage.", DRIFT, STEPS(dprob),
     .stats = KVG_STAT_MEAN},
    {"dnll_mean", "dNLL", "mean of nll - nll_base of the target", "nats", -1,
     "steps.nll steps.nll_base", "Greedy targets bias it upwards: they are the baseline's choice.",
     DRIFT, STEPS(dnll), .stats = KVG_STAT_MEAN},
    {"ppl_ratio", "PPL ratio", "exp(mean of nll - nll_base)", "x", -1, "steps.nll steps.nll_base",
     "Perplexity against the baseline's; recorded targets only.", DRIFT, .target = "recorded",
     STEPS(dnll), .stats = KVG_STAT_EXP_MEAN},
    {"noise_floor", "noise floor", "larger of mean and p99 of the floor's KL", "nats", 0,
     "steps.kl cells.arm cells.role",
     "The same computation in another order, against the baseline. A smaller drift is not "
     "distinguishable from none.",
     DRIFT, .of = KVG_METRIC_FLOOR},
    {"bytes_per_token", "bytes/token", "logical bytes at the end / logical tokens", "bytes/token",
     -1, "cells.logical_bytes cells.logical_tokens",
     "Everything stored, scales, positions and scores included, over the whole text's length.",
     CELLS(logical_bytes), .weight = logical_tokens, .stats = KVG_STAT_MEAN},
    {"prompt_bytes_per_token", "prompt bytes/token", "logical bytes / tokens at the last prompt's end",
     "bytes/token", -1, "cells.prompt_bytes_per_token", "", CELLS(prompt_bytes),
     .stats = KVG_STAT_MEAN},
    {"target_bytes", "target", "bytes per token that the budget was fitted to", "bytes/token", 0,
     "cells.target_bytes",
     "Strategies are compared at a target when prompt_bytes_per_token is within 2 % of it.",
     CELLS(target_bytes), .stats = KVG_STAT_MEAN},
    {"compression", "x smaller", "bytes of a full f16 cache / logical bytes", "x", 1,
     "cells.logical_bytes cells.logical_tokens manifest.kv_f16_token_bytes", "", CELLS(f16_bytes),
     .weight = logical_bytes, .stats = KVG_STAT_MEAN},
    {"alloc_bytes", "allocated", "mean of bytes held by the store at the end", "bytes", -1,
     "cells.alloc_bytes", "", CELLS(alloc_bytes), .stats = KVG_STAT_MEAN},
    {"step_peak_bytes", "step peak", "most bytes held inside any step", "bytes", -1,
     "cells.step_peak_bytes", "Scratch and transient copies included: what must fit.",
     CELLS(step_peak), .stats = KVG_STAT_MAX},
    {"rss_peak", "resident", "largest resident set at the end of a cell", "bytes", -1,
     "cells.rss_bytes",
     "The whole process, weights included; in the drift lane the other strategies that run beside "
     "too.",
     CELLS(rss), .stats = KVG_STAT_MAX},
    {"kept_tokens", "kept tokens", "mean slots per layer and head at the end", "tokens", 0,
     "cells.kept_tokens_mean", "", CELLS(kept), .stats = KVG_STAT_MEAN},
    {"bytes_read", "bytes read", "mean bytes attention read per cell", "bytes", -1,
     "cells.bytes_read", "An exact counter: no noise.", CELLS(read_bytes), .stats = KVG_STAT_MEAN},
    {"n_macs", "multiply-adds", "mean multiply-adds of the forward passes per cell, logits apart",
     "", -1, "cells.n_macs", "An exact counter: no noise.", CELLS(macs), .stats = KVG_STAT_MEAN},
    {"ttft_ms", "TTFT", "turn's start to its first token", "ms", -1, "turns.ttft_ns",
     "Pooled over turns and rounds.", TIME, TURNS(ttft_ms),
     .stats = KVG_STAT_MEAN | KVG_STAT_P50 | KVG_STAT_P90 | KVG_STAT_P99},
    {"itl_ms", "ITL", "time of one step", "ms", -1, "steps.step_ns",
     "Pooled over steps and rounds. Interval: order statistics, within this run only.", TIME,
     STEPS(itl_ms), .which = KVG_STEPS_ALL,
     .stats = KVG_STAT_MEAN | KVG_STAT_P50 | KVG_STAT_P90 | KVG_STAT_P99},
    {"prompt_tps", "prompt speed", "prompt tokens / prefill time", "tokens/s", 1,
     "cells.n_prompt_tokens cells.prefill_ns", "", TIME, CELLS(prompt_tokens), .weight = prefill_s,
     .stats = KVG_STAT_MEAN},
    {"gen_tps", "reply speed", "steps / time of the steps", "tokens/s", 1, "steps.step_ns", "",
     TIME, CELLS(gen_tokens), .weight = gen_s, .stats = KVG_STAT_MEAN},
    {"manage_ms", "manage", "choosing, compacting and encoding, per cell", "ms", -1,
     "cells.manage_ns", "", TIME, CELLS(manage_ms), .stats = KVG_STAT_MEAN},
    {"observe_ms", "observe", "attention statistics the strategy asked for, per cell", "ms", -1,
     "cells.observe_ns", "", TIME, CELLS(observe_ms), .stats = KVG_STAT_MEAN},
    {"overhead_ns", "overhead",
     "median step through the contract minus median step of the same loop bare", "ns/step", -1,
     "cells.overhead_ns", "The harness's own cost.", TIME, CELLS(overhead), .stats = KVG_STAT_MEAN},
    {"first_divergence", "first divergence", "median survival (Kaplan-Meier) of equal steps",
     "steps", 1, "cells.first_divergence cells.n_free_steps",
     "Empty when more than half of the replies never diverged.", FREE, .of = KVG_METRIC_SURVIVAL,
     .stats = KVG_STAT_MEDIAN},
    {"undiverged_share", "undiverged", "share of items whose replies never diverged", "share", 1,
     "cells.first_divergence cells.n_free_steps", "Depends on the reply limit.", FREE,
     CELLS(undiverged), .stats = KVG_STAT_MEAN},
    {"chrf2_baseline", "chrF2", "chrF2 against the baseline's text", "points", 1,
     "cells.chrf2_baseline", "100 = the same text. Not a quality score.", FREE,
     CELLS(chrf2_baseline), .stats = KVG_STAT_MEAN},
    {"edit_distance", "edits", "token edits / longer reply, against the baseline's text", "share",
     -1, "cells.edit_distance", "", FREE, CELLS(edit), .stats = KVG_STAT_MEAN},
    {"chrf2_reference", "chrF2 ref", "chrF2 against the reference, mean over items", "points", 1,
     "cells.chrf2_reference", "", FREE, CELLS(chrf2_reference), .stats = KVG_STAT_MEAN},
    {"bleu_reference", "BLEU ref", "BLEU against the reference, mean over items", "points", 1,
     "cells.bleu_reference", "Under 5 for the baseline: the model is too weak to tell.", FREE,
     CELLS(bleu_reference), .stats = KVG_STAT_MEAN},
    {"answers_total", "answers", "questions with a checkable answer", "answers", 0,
     "cells.answers_total", "", .lane = "drift", CELLS(answers_total), .stats = KVG_STAT_SUM},
    {"answers_lost", "lost", "answers right under the baseline, wrong here", "answers", -1,
     "cells.answers_lost", "", .lane = "drift", CELLS(answers_lost), .stats = KVG_STAT_SUM},
    {"answers_gained", "gained", "answers wrong under the baseline, right here", "answers", 1,
     "cells.answers_gained", "Mostly luck: read it beside the answers lost.", .lane = "drift",
     CELLS(answers_gained), .stats = KVG_STAT_SUM},
    {.name = NULL},
};

const struct kvg_metric *kvg_metric_find(const char *name)
{
    for (const struct kvg_metric *m = kvg_metrics; m->name; m++)
        if (!strcmp(m->name, name))
            return m;
    return NULL;
}

const char *kvg_stat_name(int stat)
{
    switch (stat) {
    case KVG_STAT_MEAN:
        return "mean";
    case KVG_STAT_P50:
        return "p50";
    case KVG_STAT_P90:
        return "p90";
    case KVG_STAT_P99:
        return "p99";
    case KVG_STAT_MAX:
        return "max";
    case KVG_STAT_SUM:
        return "sum";
    case KVG_STAT_EXP_MEAN:
        return "ratio";
    case KVG_STAT_MEDIAN:
        return "median";
    default:
        return "";
    }
}

int kvg_metric_explain(const char *name, struct kvg_str *out, struct kvg_err *err)
{
    static const char *const better[] = {"lower", "neither", "higher"};
    const struct kvg_metric *m = kvg_metric_find(name);
    if (!m) {
        const char *names[sizeof kvg_metrics / sizeof kvg_metrics[0]];
        size_t n = 0;
        for (m = kvg_metrics; m->name; m++)
            names[n++] = m->name;
        const char *near = kvg_text_nearest(name, names, n);
        return near ? KVG_FAIL(err, KVG_EUSAGE, "unknown metric: '%s'; did you mean '%s'?", name,
                               near)
                    : KVG_FAIL(err, KVG_EUSAGE, "unknown metric: '%s'; see 'ls metrics'", name);
    }
    kvg_str_addf(out, "%s: %s\n", m->name, m->title);
    kvg_str_addf(out, "  formula  %s\n", m->formula);
    kvg_str_addf(out, "  unit     %s\n", m->unit[0] ? m->unit : "none");
    kvg_str_addf(out, "  better   %s\n", better[m->direction + 1]);
    kvg_str_addf(out, "  from     %s\n", m->sources);
    kvg_str_addf(out, "  cells    mode %s, lane %s, target %s\n", m->mode ? m->mode : "any",
                 m->lane ? m->lane : "any", m->target ? m->target : "any");
    if (m->note[0])
        kvg_str_addf(out, "  note     %s\n", m->note);
    return KVG_OK;
}

void kvg_metric_list(struct kvg_str *out)
{
    for (const struct kvg_metric *m = kvg_metrics; m->name; m++)
        kvg_str_addf(out, "%-18s %-12s %s\n", m->name, m->unit, m->formula);
}
