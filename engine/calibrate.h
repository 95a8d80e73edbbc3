/* calibrate.h -- input scales of W4A4: a forward pass over calibration tokens, before anything is quantized.
 *
 * fp32 arithmetic: the pass runs on what the quantized model computes. A layer's linears are rounded to the plan's
 * NVFP4 before its tiles run, and what linears read is rounded as W4A4 kernels do, so that each layer sees what it will
 * see. The rounding of activations uses a global scale of the tile's own largest value (a power of two): the true one
 * is not known yet, and it makes no difference, since block scales are floats with 17 binades. ct-exact: weights and
 * activations as they are, every expert sees every token: what llm-compressor observes. */
#ifndef QD_ENGINE_CALIBRATE_H
#define QD_ENGINE_CALIBRATE_H

#include "base/cancel.h"
#include "engine/journal.h"
#include "engine/tokens.h"

#include "calib/forward.h"
#include "quant/stats.h"

/* How the pass runs, but for cancel and spill_dir. */
qd_forward_opts qd_calibrate_options(const qd_plan *p);
/* Fills p->pass and raises p->peak_bytes to what the pass takes. Errors: those of qd_model_index_open(). */
QD_MUST_CHECK qd_code qd_calibrate_measure(qd_plan *p, const qd_job_tokens *tokens, qd_err *err);
/* In a gang each rank takes its part of the tokens, and every layer ends with what all have seen: the same bytes for
 * every size. Fills input_amax and input_gs of every quantized linear in run->result. Layers with run->layer_inputs are
 * taken as they are (a resume); each other layer is journaled when it is done. Errors: those of qd_forward_run();
 * QD_E_INPUT for a value that is not finite (linear, token, channel). spill_dir: for activations beyond the plan's
 * memory. */
QD_MUST_CHECK qd_code qd_calibrate(qd_run *run, const qd_tokens *tokens, const char *spill_dir, qd_journal *journal,
                                   const qd_job_events *events, qd_cancel *cancel, qd_forward_stats *ret_stats,
                                   qd_err *err);

#endif
