/* job.h -- one quantization job from plan to finished directory, alike under `quantctl quantize` and quantd's child
 * process.
 *
 * The engine knows no bus, no terminal and no signals: it reports through qd_job_events and reads a cancel token. */
#ifndef QD_ENGINE_JOB_H
#define QD_ENGINE_JOB_H

#include "base/buf.h"
#include "base/cancel.h"
#include "base/err.h"
#include "base/hash.h"
#include "calib/forward.h"
#include "catalog/template.h"
#include "engine/gang.h"
#include "quant/format.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct qd_job_progress {
    const char *phase;                /* "quantize", "sync", "verify", "import" */
    int32_t layer, n_layers;          /* the layer last finished; -1 before the first */
    uint64_t done_bytes, total_bytes; /* of source tensors (quantize), of output (verify) */
    double elapsed_s, eta_s;          /* eta < 0 while unknown */
    double rate_bytes_s;
    uint64_t
        n_steps; /* tiles read, written or verified so far in this phase: who sees it stand still sees a job hang */
} qd_job_progress;

typedef enum qd_note_level {
    QD_NOTE_INFO,
    QD_NOTE_WARN
} qd_note_level;

typedef struct qd_job_events {
    void *ctx;
    void (*progress)(
        void *ctx,
        const qd_job_progress *p); /* at most every 100 ms and at the end of a phase; from the caller's thread */
    void (*note)(void *ctx, qd_note_level level,
                 const char *text); /* warnings and milestones; from the caller's thread */
    /* Asked when all is durable and verified, before the rename that makes it the model: who may have lost the job
     * refuses here. Staging stays for codes that a resume can mend (QD_E_CANCELED among them). */
    qd_code (*may_commit)(void *ctx, qd_err *err);
} qd_job_events; /* each may be NULL */

typedef struct qd_job_opts {
    const char *model_dir, *out_dir;
    const char *staging_dir; /* on the same file system as out_dir; NULL: OUT_DIR.staging */
    const qd_template *tmpl;
    const qd_values *values; /* of tmpl */
    const qd_format *format; /* NULL: compressed-tensors */
    const char *device;      /* its name; NULL: "cpu" */
    const qd_ops *ops;       /* the device of forward passes, the caller's; NULL: this processor */
    /* This rank's end of a gang whose ranks run the same job with the same options; NULL: one rank. Its communicator
     * was opened with the job's token, which is set when the gang breaks. Rank 0 alone has staging, journal and output;
     * a member returns when its part is done. */
    qd_gang *gang;
    uint32_t n_ranks; /* of a gang whose ranks are all on this host; 0: 1, or ranks of many hosts */
    /* Calibration, for templates that need input scales. Files: text, JSONL, or ids in safetensors (calib/dataset.h);
     * none: the built-in set. 0: the template's, or 128 samples of 512 tokens. */
    const char *const *calib_files;
    uint32_t n_calib_files;
    uint64_t calib_samples, calib_seq_len;
    double max_kl;         /* of the quality gate: more fails the job with QD_E_QUALITY; 0: the template's, or none */
    unsigned n_threads;    /* 0: one a processor */
    uint64_t memory_bytes; /* host memory the job may use for tiles; 0: 192 MiB */
    uint64_t shard_bytes;  /* largest output file; 0: 5 GB */
    /* Of a dry run: plans for a GPU with that memory (0: for the processor), on a host where the job may take so much
     * (0: what is available here). */
    uint64_t device_memory_bytes, host_memory_bytes;
    bool resume, force;
    bool no_verify; /* benchmarks only: skip fsync and the final re-read */
} qd_job_opts;

/* What the quality gate found on tokens that calibration did not see. */
typedef struct qd_job_quality {
    uint64_t n_tokens;                    /* 0: no gate */
    double kl, top1;                      /* mean KL(source || quantized) a token in nats; share of equal top tokens */
    double perplexity, source_perplexity; /* over all tokens but the first of each sample */
    double max_kl;                        /* what was asked for; 0: nothing */
} qd_job_quality;

typedef struct qd_job_result {
    uint64_t n_quantized, n_copied; /* tensors */
    uint64_t in_bytes, out_bytes;
    double calibrate_s, read_quantize_write_s, sync_s, verify_s, total_s; /* the second includes the first */
    qd_forward_stats forward; /* of the calibration pass; zero without one */
    double rel_error;         /* sqrt(sum err^2 / sum w^2) over all quantized weights */
    qd_job_quality quality;
    uint32_t n_ranks;
    double others_s, device_s;          /* time of the other ranks; of all together */
    uint64_t call_bytes, message_bytes; /* given to collectives, sent in messages; of all ranks */
    uint64_t peak_bytes;                /* anonymous + shared resident memory */
    char output_digest[QD_HASH_HEX_BYTES];
    char report_path[4096];
} qd_job_result;

/* Runs the job: OUT_DIR appears whole, or not at all (a resumable OUT_DIR.staging stays after a cancel or a crash).
 * On a member of a gang (rank above 0) neither; ret has its own figures.
 * Errors: every class of base/err.h; QD_E_GANG when the gang broke; QD_E_CANCELED when the token was set; QD_E_BUSY
 * when another run holds OUT_DIR or it exists without force. err says how to go on. */
QD_MUST_CHECK qd_code qd_job_run(const qd_job_opts *opts, const qd_job_events *events, qd_cancel *cancel,
                                 qd_job_result *ret, qd_err *err);

/* Plans the job and appends it to out as text or as one JSON object; writes nothing to disk. Also fails where the job
 * would be refused. A model directory without weights is planned from config.json (calib/shapes.h) with as many tokens
 * as the settings say; the disk is then not asked. */
QD_MUST_CHECK qd_code qd_job_dry_run(const qd_job_opts *opts, bool json, qd_buf *out, qd_err *err);

#endif
