/* The workload formats, one line each: WORKLOAD(name of the descriptor kvg_workload_<name>). The
 * first that accepts a file's first record reads it. */
WORKLOAD(openai)
WORKLOAD(sharegpt)
WORKLOAD(mtbench)
WORKLOAD(pairs)
WORKLOAD(tsv)
