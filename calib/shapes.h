/* shapes.h -- the tensors of a model from its config.json alone, for plans without weights. */
#ifndef QD_CALIB_SHAPES_H
#define QD_CALIB_SHAPES_H

#include "ckpt/shapes.h"

/* A qd_shapes_fn over qd_model_config_read(): the embedding, every layer's tensors, norm and head, under the names and
 * in the dtype ("dtype", "torch_dtype"; BF16 without) that checkpoints of the architecture have, one after the other.
 * Experts are one tensor each; of Qwen3.5-MoE with a text_config, two 3-D tensors a layer. What config.json does not
 * size is left out and told by *ret_left_out: the vision tower, MTP layers.
 * Errors: those of qd_model_config_read(); QD_E_UNSUPPORTED for a quantized source or another dtype, QD_E_INPUT for
 * more tensors or bytes than a file has. */
QD_MUST_CHECK qd_code qd_model_shapes(void *ctx, const qd_config *c, const char *what, qd_arena *arena, qd_shapes *ret,
                                      qd_err *err);

#endif
