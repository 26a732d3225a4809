/* The column table: the only place that knows which columns a result file has, their order, type,
 * unit and meaning. The writer, the reader, `explain` and the report all read it. An identifier is
 * KVG_<TABLE>_<column name as in the file>, e.g. KVG_STEPS_step_ns. It must not know how files are
 * written or what is computed from them. */
#ifndef KVG_RESULT_COLUMNS_H
#define KVG_RESULT_COLUMNS_H

#include <stddef.h>

/* Raised whenever a column is added, renamed or changes its meaning. */
#define KVG_SCHEMA 2

enum kvg_column_type { KVG_COL_U64, KVG_COL_I64, KVG_COL_F64, KVG_COL_STR };

struct kvg_column {
    const char *name; /* snake_case with a unit suffix; the CSV header */
    enum kvg_column_type type;
    int required;     /* 1: a file without this column is refused; 0: read as missing */
    const char *unit; /* "" = a name or a label */
    const char *help;
};

struct kvg_table {
    const char *name; /* the file is <name>.csv */
    const char *help;
    const struct kvg_column *columns;
    size_t n_columns;
};

/* X(TABLE, name, type, required, unit, help) */
#define KVG_CELLS_COLUMNS(X)                                                                       \
    X(CELLS, schema, U64, 1, "", "version of these columns")                                       \
    X(CELLS, run_id, STR, 1, "", "name of the run's folder")                                       \
    X(CELLS, cell_id, STR, 1, "", "key of the cell: the same settings give the same key")          \
    X(CELLS, model, STR, 1, "", "name of the model")                                               \
    X(CELLS, strategy, STR, 1, "", "label as the user wrote it")                                   \
    X(CELLS, spec, STR, 1, "", "the strategy with every option resolved")                          \
    X(CELLS, role, STR, 1, "", "baseline, control, floor, oracle or strategy")                     \
    X(CELLS, workload, STR, 1, "", "name of the workload")                                         \
    X(CELLS, item, STR, 1, "", "the conversation or document")                                     \
    X(CELLS, family, STR, 0, "", "kind of item within the workload")                               \
    X(CELLS, lang, STR, 0, "", "language, or source-target pair")                                  \
    X(CELLS, mode, STR, 1, "", "forced: replies are given; free: a strategy feeds on its output")  \
    X(CELLS, target, STR, 0, "", "forced replies: recorded or greedy; none in free mode")          \
    X(CELLS, lane, STR, 1, "", "drift or time: never both in one cell")                            \
    X(CELLS, arm, STR, 1, "",                                                                      \
      "main; floor: against its main cell, at another CPU level; bare: no calls")                  \
    X(CELLS, round, U64, 1, "", "repetition of a time cell, from 0; 0 in the drift lane")          \
    X(CELLS, order, U64, 0, "", "place in the order of execution, from 0")                         \
    X(CELLS, seed, U64, 0, "", "seed of the cell")                                                 \
    X(CELLS, query, STR, 0, "",                                                                    \
      "seen: compression was due at the prompt's end; unseen: before the question; mixed: seen "   \
      "in the first turn alone; empty: nothing chooses what stays")                                \
    X(CELLS, question_index, U64, 0, "",                                                           \
      "1, 2: which of two questions after one context is scored; empty: an ordinary replay")       \
    X(CELLS, status, STR, 1, "", "ok, skipped or error")                                           \
    X(CELLS, reason, STR, 0, "", "why it was skipped or failed")                                   \
    X(CELLS, finish, STR, 0, "", "how the replies ended: eos, limit, loop, given, mixed")          \
    X(CELLS, n_turns, U64, 0, "turns", "turns replayed")                                           \
    X(CELLS, n_prompt_tokens, U64, 0, "tokens", "prompt tokens over all turns")                    \
    X(CELLS, n_steps, U64, 0, "steps", "forward passes that gave logits of a reply")               \
    X(CELLS, n_scored, U64, 0, "steps", "steps compared with the baseline")                        \
    X(CELLS, logical_tokens, U64, 0, "tokens", "length of the text at the end")                    \
    X(CELLS, kept_tokens_mean, F64, 0, "tokens", "slots held at the end, mean of layers x heads")  \
    X(CELLS, kept_tokens_min, U64, 0, "tokens", "slots held at the end, fewest of any head")       \
    X(CELLS, kept_tokens_max, U64, 0, "tokens", "slots held at the end, most of any head")         \
    X(CELLS, budget, STR, 0, "", "the budget asked for: tokens, share or bytes per token")         \
    X(CELLS, target_bytes, U64, 0, "bytes/token", "equal bytes: what the budget was fitted to")    \
    X(CELLS, prompt_bytes_per_token, F64, 0, "bytes/token",                                        \
      "logical bytes / logical tokens at the end of the last prompt")                              \
    X(CELLS, logical_bytes, U64, 0, "bytes", "bytes of what is stored at the end, all classes")    \
    X(CELLS, alloc_bytes, U64, 0, "bytes", "bytes the store's allocator holds at the end")         \
    X(CELLS, payload_bytes, U64, 0, "bytes", "logical: keys and values themselves")                \
    X(CELLS, scale_bytes, U64, 0, "bytes", "logical: scales, zero points, codebooks")              \
    X(CELLS, index_bytes, U64, 0, "bytes", "logical: positions and tables")                        \
    X(CELLS, state_bytes, U64, 0, "bytes", "logical: per-slot state of the strategy")              \
    X(CELLS, step_peak_bytes, U64, 0, "bytes", "most held inside a step, scratch and copies too")  \
    X(CELLS, rss_bytes, U64, 0, "bytes", "resident set of the process at the end of the cell")     \
    X(CELLS, bytes_per_token, F64, 0, "bytes/token", "logical bytes at the end / logical tokens")  \
    X(CELLS, bytes_read, U64, 0, "bytes", "read from the store by attention")                      \
    X(CELLS, bytes_written, U64, 0, "bytes", "written to the store")                               \
    X(CELLS, n_macs, U64, 0, "", "multiply-adds of the forward pass, logits apart")                \
    X(CELLS, n_evicted, U64, 0, "slots", "slots dropped, summed over layers x heads")              \
    X(CELLS, n_recomputed, U64, 0, "rows", "rows computed again")                                  \
    X(CELLS, n_encoded, U64, 0, "rows", "rows encoded")                                            \
    X(CELLS, n_decoded, U64, 0, "rows", "rows decoded")                                            \
    X(CELLS, n_rotated, U64, 0, "rows", "keys rotated at read or moved to another position")       \
    X(CELLS, total_ns, U64, 0, "ns", "the whole cell")                                             \
    X(CELLS, prefill_ns, U64, 0, "ns", "prompts of all turns")                                     \
    X(CELLS, observe_ns, U64, 0, "ns", "attention statistics the strategy asked for")              \
    X(CELLS, manage_ns, U64, 0, "ns", "choosing, compacting, encoding")                            \
    X(CELLS, append_ns, U64, 0, "ns", "writing new rows")                                          \
    X(CELLS, attend_ns, U64, 0, "ns", "attention over the store")                                  \
    X(CELLS, rest_ns, U64, 0, "ns", "the rest of the forward pass")                                \
    X(CELLS, logits_ns, U64, 0, "ns", "the output layer")                                          \
    X(CELLS, first_divergence, U64, 0, "steps", "free: first differing step; empty = none seen")   \
    X(CELLS, n_free_steps, U64, 0, "steps", "free: steps compared before divergence or the end")   \
    X(CELLS, chrf2_baseline, F64, 0, "points", "free: chrF2 against the baseline's text, 0-100")   \
    X(CELLS, edit_distance, F64, 0, "share", "free: token edits / longer reply, baseline's text")  \
    X(CELLS, chrf2_reference, F64, 0, "points", "translation: chrF2 against the reference, 0-100") \
    X(CELLS, bleu_reference, F64, 0, "points", "translation: BLEU against the reference, 0-100")   \
    X(CELLS, answers_total, U64, 0, "answers", "questions with a checkable answer")                \
    X(CELLS, answers_right, U64, 0, "answers", "right under this strategy")                        \
    X(CELLS, answers_lost, U64, 0, "answers", "right under the baseline, wrong here")              \
    X(CELLS, answers_gained, U64, 0, "answers", "wrong under the baseline, right here")            \
    X(CELLS, overhead_ns, I64, 0, "ns/step", "median step by the contract minus the bare loop's")  \
    X(CELLS, digest, STR, 0, "", "hash of tokens and kept sets")

#define KVG_TURNS_COLUMNS(X)                                                                       \
    X(TURNS, schema, U64, 1, "", "version of these columns")                                       \
    X(TURNS, cell_id, STR, 1, "", "key of the cell")                                               \
    X(TURNS, round, U64, 1, "", "repetition, from 0")                                              \
    X(TURNS, turn, U64, 1, "", "turn of the item, from 0")                                         \
    X(TURNS, n_prompt_tokens, U64, 0, "tokens", "tokens of this turn's prompt")                    \
    X(TURNS, n_reply_tokens, U64, 0, "tokens", "tokens of the reply")                              \
    X(TURNS, ttft_ns, U64, 0, "ns", "turn's start to its first token")                             \
    X(TURNS, prefill_ns, U64, 0, "ns", "the prompt's forward passes")                              \
    X(TURNS, itl_ns, F64, 0, "ns", "time between tokens, mean of the turn's steps")                \
    X(TURNS, logical_tokens, U64, 0, "tokens", "length of the text after the turn")                \
    X(TURNS, kept_tokens_mean, F64, 0, "tokens", "slots held after the turn, mean of the heads")   \
    X(TURNS, logical_bytes, U64, 0, "bytes", "bytes stored after the turn")                        \
    X(TURNS, alloc_bytes, U64, 0, "bytes", "bytes the store's allocator holds after the turn")     \
    X(TURNS, frag_bytes, U64, 0, "bytes", "of these, rows of K and V blocks that hold nothing")    \
    X(TURNS, step_peak_bytes, U64, 0, "bytes", "most held inside a step of the turn")              \
    X(TURNS, n_evicted, U64, 0, "slots", "slots dropped in the turn")                              \
    X(TURNS, finish, STR, 0, "", "eos, limit, loop or given")                                      \
    X(TURNS, answer_expected, U64, 0, "0/1", "the turn has a checkable answer")                    \
    X(TURNS, answer_right, U64, 0, "0/1", "the answer is right")                                   \
    X(TURNS, baseline_right, U64, 0, "0/1", "the baseline's answer is right")

#define KVG_STEPS_COLUMNS(X)                                                                       \
    X(STEPS, schema, U64, 1, "", "version of these columns")                                       \
    X(STEPS, cell_id, STR, 1, "", "key of the cell")                                               \
    X(STEPS, round, U64, 1, "", "repetition, from 0")                                              \
    X(STEPS, turn, U64, 1, "", "turn of the item, from 0")                                         \
    X(STEPS, step, U64, 1, "", "step within the turn, from 0")                                     \
    X(STEPS, pos, U64, 0, "tokens", "logical position of the target in the text")                  \
    X(STEPS, token, U64, 0, "", "the strategy's own choice")                                       \
    X(STEPS, target, U64, 0, "", "the token that is scored")                                       \
    X(STEPS, uncompressed, U64, 0, "0/1", "logits come from a pass that compression came after")   \
    X(STEPS, kl, F64, 0, "nats", "KL(baseline||strategy) over the whole vocabulary")               \
    X(STEPS, top1, U64, 0, "0/1", "both put the same token first")                                 \
    X(STEPS, top10, F64, 0, "share", "overlap of the ten likeliest tokens")                        \
    X(STEPS, nll_base, F64, 0, "nats", "-log probability of the target, baseline")                 \
    X(STEPS, nll, F64, 0, "nats", "-log probability of the target, strategy")                      \
    X(STEPS, dprob, F64, 0, "", "probability of the target, strategy minus baseline")              \
    X(STEPS, gap, F64, 0, "logits", "baseline's best minus second best logit")                     \
    X(STEPS, max_dlogit, F64, 0, "logits", "largest absolute difference of any logit")             \
    X(STEPS, step_ns, U64, 0, "ns", "the whole step")                                              \
    X(STEPS, observe_ns, U64, 0, "ns", "attention statistics the strategy asked for")              \
    X(STEPS, manage_ns, U64, 0, "ns", "choosing, compacting, encoding")                            \
    X(STEPS, append_ns, U64, 0, "ns", "writing new rows")                                          \
    X(STEPS, attend_ns, U64, 0, "ns", "attention over the store")                                  \
    X(STEPS, rest_ns, U64, 0, "ns", "the rest of the forward pass")                                \
    X(STEPS, logits_ns, U64, 0, "ns", "the output layer")

#define KVG_KEPT_COLUMNS(X)                                                                        \
    X(KEPT, schema, U64, 1, "", "version of these columns")                                        \
    X(KEPT, cell_id, STR, 1, "", "key of the cell")                                                \
    X(KEPT, strategy, STR, 1, "", "label as the user wrote it")                                    \
    X(KEPT, query, STR, 0, "", "as in cells.csv")                                                  \
    X(KEPT, turn, U64, 1, "", "turn after which this was looked at, from 0")                       \
    X(KEPT, layer, U64, 1, "", "layer, from 0")                                                    \
    X(KEPT, pos, U64, 1, "tokens", "logical position")                                             \
    X(KEPT, heads, U64, 1, "heads", "number of KV heads that keep it")

#define KVG_BENCH_COLUMNS(X)                                                                       \
    X(BENCH, build_commit, STR, 0, "", "commit of the program")                                    \
    X(BENCH, cpu_info, STR, 0, "", "processor")                                                    \
    X(BENCH, model_filename, STR, 0, "", "model file")                                             \
    X(BENCH, model_type, STR, 0, "", "model and weight format")                                    \
    X(BENCH, model_size, U64, 0, "bytes", "bytes of the weights")                                  \
    X(BENCH, model_n_params, U64, 0, "", "number of parameters")                                   \
    X(BENCH, n_threads, U64, 0, "", "threads")                                                     \
    X(BENCH, type_k, STR, 0, "", "form of the keys in the store")                                  \
    X(BENCH, type_v, STR, 0, "", "form of the values in the store")                                \
    X(BENCH, strategy, STR, 1, "", "label as the user wrote it")                                   \
    X(BENCH, n_prompt, U64, 1, "tokens", "prompt tokens of the test; 0 = none")                    \
    X(BENCH, n_gen, U64, 1, "tokens", "generated tokens of the test; 0 = none")                    \
    X(BENCH, n_depth, U64, 1, "tokens", "length of the text before the test")                      \
    X(BENCH, test_time, STR, 0, "", "UTC time of the test")                                        \
    X(BENCH, avg_ns, F64, 1, "ns", "mean time of one test")                                        \
    X(BENCH, stddev_ns, F64, 0, "ns", "standard deviation of that time")                           \
    X(BENCH, avg_ts, F64, 1, "tokens/s", "mean speed")                                             \
    X(BENCH, stddev_ts, F64, 0, "tokens/s", "standard deviation of the speed")                     \
    X(BENCH, limit_ts, F64, 0, "tokens/s", "speed at the machine's limit")                         \
    X(BENCH, limit_fraction, F64, 0, "share", "avg_ts / limit_ts")                                 \
    X(BENCH, kv_bytes, U64, 0, "bytes", "logical bytes of the store at that depth")                \
    X(BENCH, read_bandwidth, F64, 0, "bytes/s", "measured on a buffer of the step's size")

#define KVG_SUMMARY_COLUMNS(X)                                                                     \
    X(SUMMARY, strategy, STR, 1, "", "label as the user wrote it")                                 \
    X(SUMMARY, query, STR, 0, "", "as in cells.csv")                                               \
    X(SUMMARY, question_index, STR, 0, "", "as in cells.csv")                                      \
    X(SUMMARY, role, STR, 0, "", "baseline, control, floor, oracle or strategy")                   \
    X(SUMMARY, arm, STR, 0, "", "main, floor or bare")                                             \
    X(SUMMARY, workload, STR, 1, "", "name of the workload; 'all' = every workload together")      \
    X(SUMMARY, mode, STR, 0, "", "forced or free")                                                 \
    X(SUMMARY, target, STR, 0, "", "forced replies: recorded or greedy")                           \
    X(SUMMARY, lane, STR, 0, "", "drift or time")                                                  \
    X(SUMMARY, metric, STR, 1, "", "name of the metric")                                           \
    X(SUMMARY, unit, STR, 0, "", "unit of the value")                                              \
    X(SUMMARY, stat, STR, 1, "", "mean, p50, p90, p99, max, sum, ratio, share or median")          \
    X(SUMMARY, value, F64, 0, "", "the number")                                                    \
    X(SUMMARY, ci_lo, F64, 0, "", "lower end of the 95 % interval; empty = too few items")         \
    X(SUMMARY, ci_hi, F64, 0, "", "upper end of the 95 % interval")                                \
    X(SUMMARY, n, U64, 0, "", "values behind the number")                                          \
    X(SUMMARY, n_items, U64, 0, "items", "items behind the number")                                \
    X(SUMMARY, note, STR, 0, "", "few, not distinguishable, ...")

#define KVG_RECALL_COLUMNS(X)                                                                      \
    X(RECALL, schema, U64, 1, "", "version of these columns")                                      \
    X(RECALL, strategy, STR, 1, "", "label as the user wrote it")                                  \
    X(RECALL, spec, STR, 0, "", "the strategy with every option resolved")                         \
    X(RECALL, role, STR, 0, "", "baseline, control, floor or strategy")                            \
    X(RECALL, query, STR, 1, "", "seen: the questions end the prompt; unseen: they come later")    \
    X(RECALL, length, U64, 1, "tokens", "length of the text with the facts")                       \
    X(RECALL, status, STR, 1, "", "ok or skipped")                                                 \
    X(RECALL, reason, STR, 0, "", "why it was skipped")                                            \
    X(RECALL, fact, U64, 0, "", "fact, from 0, the earliest first")                                \
    X(RECALL, pos, U64, 0, "tokens", "logical position of the fact's key")                         \
    X(RECALL, key, U64, 0, "", "token that is asked for")                                          \
    X(RECALL, expected, U64, 0, "", "token that followed it")                                      \
    X(RECALL, got, U64, 0, "", "the likeliest token")                                              \
    X(RECALL, recalled, U64, 0, "0/1", "both are the same")                                        \
    X(RECALL, nll, F64, 0, "nats", "-log probability of the expected token")                       \
    X(RECALL, kept_tokens_mean, F64, 0, "tokens", "slots held after the prompt, mean of the heads") \
    X(RECALL, logical_bytes, U64, 0, "bytes", "bytes stored after the prompt")

#define KVG_COLUMN_ID(T, name, type, required, unit, help) KVG_##T##_##name,

enum kvg_cells_column { KVG_CELLS_COLUMNS(KVG_COLUMN_ID) KVG_CELLS_N };
enum kvg_turns_column { KVG_TURNS_COLUMNS(KVG_COLUMN_ID) KVG_TURNS_N };
enum kvg_steps_column { KVG_STEPS_COLUMNS(KVG_COLUMN_ID) KVG_STEPS_N };
enum kvg_kept_column { KVG_KEPT_COLUMNS(KVG_COLUMN_ID) KVG_KEPT_N };
enum kvg_bench_column { KVG_BENCH_COLUMNS(KVG_COLUMN_ID) KVG_BENCH_N };
enum kvg_recall_column { KVG_RECALL_COLUMNS(KVG_COLUMN_ID) KVG_RECALL_N };
enum kvg_summary_column { KVG_SUMMARY_COLUMNS(KVG_COLUMN_ID) KVG_SUMMARY_N };

/* At least the widest table's number of columns (asserted at compile time). */
enum { KVG_COLUMNS_MAX = 80 };

extern const struct kvg_table kvg_table_cells, kvg_table_turns, kvg_table_steps, kvg_table_kept,
    kvg_table_bench, kvg_table_recall, kvg_table_summary;
/* All tables, NULL-terminated. */
extern const struct kvg_table *const kvg_tables[];

const struct kvg_table *kvg_table_find(const char *name);
/* The column's index in its table, or -1. */
int kvg_table_column(const struct kvg_table *table, const char *name);

#endif
