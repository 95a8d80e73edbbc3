/* import.h -- a GGUF file to a BF16 model directory: safetensors, config.json, tokenizer. */
#ifndef QD_ENGINE_IMPORT_H
#define QD_ENGINE_IMPORT_H

#include "engine/job.h"

typedef struct qd_import_opts {
    const char *gguf_path, *out_dir;
    uint64_t shard_bytes; /* largest output file; 0: 5 GB */
    bool force;
} qd_import_opts;

typedef struct qd_import_result {
    uint64_t n_tensors, in_bytes, out_bytes;
    uint32_t n_files;
    double total_s;
    bool tokenizer; /* written; else a warning said why not */
    char model_type[32];
} qd_import_result;

/* OUT_DIR appears whole or not at all. Memory: the metadata, the vocabulary's JSON and a few MB, whatever the size of
 * the file. Deterministic. Errors: QD_E_INPUT and QD_E_UNSUPPORTED as in ckpt/gguf.h and ckpt/gguf_model.h, QD_E_BUSY
 * (OUT_DIR exists without force), QD_E_CHANGED, QD_E_CANCELED, QD_E_ROOM, QD_E_IO. events may be NULL. */
QD_MUST_CHECK qd_code qd_import_gguf(const qd_import_opts *opts, const qd_job_events *events, qd_cancel *cancel,
                                     qd_import_result *ret, qd_err *err);

#endif
