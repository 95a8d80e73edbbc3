/* shapes.h -- a model directory that holds no weights: a checkpoint whose headers are made from config.json.
 *
 * It can be planned over like any other; its sources refuse to read weights. */
#ifndef QD_CKPT_SHAPES_H
#define QD_CKPT_SHAPES_H

#include "ckpt/checkpoint.h"

typedef struct qd_shapes {
    qd_tensor *tensors; /* name, dtype, rank, shape; the rest is filled in by who takes them. In the arena */
    uint32_t n_tensors;
    const char *left_out; /* what the model has besides, in words; NULL for nothing */
} qd_shapes;

/* The tensors that a config.json (named what in errors) asks for. */
typedef qd_code (*qd_shapes_fn)(void *ctx, const qd_config *c, const char *what, qd_arena *arena, qd_shapes *ret,
                                qd_err *err);

/* True when dir has a config.json and no safetensors files; there may be an index of them. */
bool qd_ckpt_lacks_weights(const char *dir);
/* Opens dir with the tensors that make() gives, in one file of that size that is not there. *ret_left_out as in
 * qd_shapes, in the checkpoint's arena; where dir has an index, also in how many names it differs. *ret zeroed before,
 * qd_ckpt_done() after success. Errors: those of make() and of qd_ckpt_open(); QD_E_INPUT for shapes that overflow or
 * more than a header holds. */
QD_MUST_CHECK qd_code qd_ckpt_open_shapes(const char *dir, qd_shapes_fn make, void *ctx, qd_ckpt *ret,
                                          const char **ret_left_out, qd_err *err);

/* A source that has its first n bytes (copied) and says that it has size_bytes. Reads beyond n: QD_E_INPUT. */
QD_MUST_CHECK qd_code qd_source_open_header(const char *name, const void *data, size_t n, uint64_t size_bytes,
                                            qd_source **ret, qd_err *err);

#endif
