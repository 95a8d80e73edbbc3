/* rounded.h -- a layer as the quantized model has it: weights to NVFP4 and back, activations to FP4 and back. */
#ifndef QD_ENGINE_ROUNDED_H
#define QD_ENGINE_ROUNDED_H

#include "calib/layer_weights.h"
#include "engine/run.h"

/* Upper bound of what a thread of qd_round_weights() takes. */
#define QD_ROUND_BYTES ((uint64_t)4 << 20)
/* Replaces the weights of the layer's quantized linears by what their codes will decode to, in the dtype they have.
 * In pieces of some milliseconds, by tasks.
 * Errors: QD_E_NO_MEMORY, QD_E_CANCELED, QD_E_INPUT (a weight that is not finite), those of the device. */
QD_MUST_CHECK qd_code qd_round_weights(const qd_run *run, qd_layer *layer, qd_tasks *tasks, qd_err *err);
/* The global scale that activations of these block amaxes (see qd_host_block_amax()) are rounded under: a power of two
 * that holds the largest; 0 where there is nothing to round: all are zero, or one is not finite. */
float qd_round_scale(const uint32_t *bits, uint64_t n_blocks);

#endif
