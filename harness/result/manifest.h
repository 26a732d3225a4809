/* The manifest of a run: `identity` must match for two runs to be compared, `context` explains
 * their times. Plain text fields: the run layer fills them in, this file only writes and reads
 * manifest.json, names the run folder and keeps its STATUS. */
#ifndef KVG_RESULT_MANIFEST_H
#define KVG_RESULT_MANIFEST_H

#include "base/arena.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Raised when the definition of any metric changes. */
#define KVG_METRICS_VERSION 1

struct kvg_manifest_workload {
    const char *name, *path, *sha256, *licence, *source;
};

struct kvg_manifest_spec {
    const char *label; /* as the user wrote it */
    const char *spec;  /* resolved */
    const char *role;
};

struct kvg_manifest_pair {
    const char *key, *value;
};

/* Texts are borrowed; NULL reads and writes as "". */
struct kvg_manifest_identity {
    const char *suite;
    const char *model_name, *model_sha256;
    uint64_t
        kv_f16_token_bytes; /* 2 x layers x KV heads x head size x 2: the unit of compression */
    const char *tokenizer_sha256, *template_sha256;
    struct kvg_manifest_workload *workloads;
    size_t n_workloads;
    struct kvg_manifest_spec *specs;
    size_t n_specs;
    struct kvg_manifest_pair *settings; /* of the suite, in a fixed order */
    size_t n_settings;
    uint64_t seed;
    uint64_t metrics_version, schema; /* filled by kvg_manifest_init */
};

struct kvg_manifest_context {
    const char *version, *commit, *compiler, *flags;
    const char *cpu, *kernels; /* kernels: the level in use: ref, avx2, avx512 */
    const char *blas_core, *blas_version;
    uint64_t n_threads;
    uint64_t memory_bytes;   /* of the host */
    double load;             /* one-minute load average at the start */
    double clock_cost_ns;    /* of one reading */
    double read_bandwidth;   /* bytes/s */
    const char *start, *end; /* UTC, yyyy-mm-ddThh:mm:ssZ; end is "" while running */
    const char *command;     /* what the user typed */
    struct kvg_manifest_pair *notes;
    size_t n_notes;
};

struct kvg_manifest {
    struct kvg_manifest_identity identity;
    struct kvg_manifest_context context;
};

enum { KVG_RUN_ID_CAP = 32 };

void kvg_manifest_init(struct kvg_manifest *m);
/* SHA-256 of the identity in canonical JSON (sorted keys, no spaces). KVG_ENOMEM. */
int kvg_manifest_identity_hash(const struct kvg_manifest *m, char hex[65], struct kvg_err *err);
/* "<yyyymmddThhmmssZ>-<8 hex of the identity hash>"; unix_time in seconds. */
int kvg_manifest_run_id(const struct kvg_manifest *m, int64_t unix_time, char id[KVG_RUN_ID_CAP],
                        struct kvg_err *err);
/* <root>/<suite>/<run id> in the arena; creates nothing. */
const char *kvg_manifest_run_dir(const char *root, const struct kvg_manifest *m, const char *id,
                                 struct kvg_arena *a);

/* <run_dir>/manifest.json, atomically. */
int kvg_manifest_write(const char *run_dir, const struct kvg_manifest *m, struct kvg_err *err);
int kvg_manifest_read(const char *run_dir, struct kvg_manifest *m, struct kvg_arena *a,
                      struct kvg_err *err);

enum kvg_status { KVG_STATUS_RUNNING, KVG_STATUS_COMPLETE, KVG_STATUS_INTERRUPTED };
const char *kvg_status_name(enum kvg_status s);
/* <run_dir>/STATUS: one word and a line end. */
int kvg_status_write(const char *run_dir, enum kvg_status s, struct kvg_err *err);
int kvg_status_read(const char *run_dir, enum kvg_status *s, struct kvg_err *err);

#endif
