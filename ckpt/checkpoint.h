/* checkpoint.h -- a Hugging Face model directory: config.json, safetensors (one file or shards with an index), side
 * files. */
#ifndef QD_CKPT_CHECKPOINT_H
#define QD_CKPT_CHECKPOINT_H

#include "ckpt/config.h"
#include "ckpt/safetensors.h"

typedef struct qd_ckpt_file {
    const char *name; /* plain file name */
    qd_source *src;   /* owned by the checkpoint */
    uint64_t digest;  /* of its header bytes */
    qd_st_meta *meta;
    uint32_t n_meta;
} qd_ckpt_file;

typedef struct qd_ckpt {
    qd_arena arena;
    const char *dir;
    qd_config config;
    qd_ckpt_file *files;
    uint32_t n_files;
    qd_tensor *tensors; /* all files: by file, then by offset */
    uint32_t n_tensors;
    uint32_t *by_name; /* indices into tensors, sorted by strcmp of names */
    const char **side; /* names of regular files to take along: everything in dir but weights, index, config.json,
                          report.json, quantd.json, quantization configs, dot files, other frameworks' weights (*.bin
                          *.pt *.pth *.h5
                          *.msgpack *.onnx *.gguf) */
    uint32_t n_side;
    const char *
        *skipped; /* names of files that are left behind although they might matter: safetensors files that are not part
                     of the checkpoint, and names that cannot be a side file's (control bytes); sorted */
    uint32_t n_skipped;
    uint64_t tensor_bytes; /* sum over tensors */
    uint64_t digest;       /* over config.json bytes, file names, sizes, times, header digests: pins the source */
} qd_ckpt;

/* Opens and checks dir; *ret must be zeroed before and released with qd_ckpt_done() after success.
 * Takes model.safetensors.index.json if there is one (weight_map: every file a plain name in dir, every tensor present
 * in the file it names; tensors not in the index are refused), else model.safetensors, else the only *.safetensors
 * file. Errors: QD_E_INPUT with file, tensor, expected, found; QD_E_IO; QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_ckpt_open(const char *dir, qd_ckpt *ret, qd_err *err);
/* NULL when there is no tensor of that name. */
const qd_tensor *qd_ckpt_find(const qd_ckpt *c, const char *name);
/* Every source is still what it was: QD_E_CHANGED otherwise. */
QD_MUST_CHECK qd_code qd_ckpt_check(const qd_ckpt *c, qd_err *err);
void qd_ckpt_done(qd_ckpt *c);

#endif
