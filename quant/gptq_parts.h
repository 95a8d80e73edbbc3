/* gptq_parts.h -- private to quant/: what gptq.c and gptq_refine.c share. */
#ifndef QD_QUANT_GPTQ_PARTS_H
#define QD_QUANT_GPTQ_PARTS_H

#include "quant/gptq.h"

/* Codes and scale of the block at place b of a row, in the factor's order, to where they are in the weight. */
void qd_gptq_store(const qd_gptq_factor *f, uint64_t b, uint64_t row, const uint8_t *code, uint8_t scale,
                   uint8_t *codes, uint8_t *scales);
/* y [n_rows][n] = d L, in pieces of some milliseconds with a tick for each; errors of qd_gptq_rows(). */
QD_MUST_CHECK qd_code qd_gptq_product(qd_lane *lane, const qd_gptq_factor *f, const float *d, uint64_t n_rows, float *y,
                                      qd_err *err);
/* The loss that was damped less the damping's part; d [n_rows][n] is w - q. */
void qd_gptq_undamp(const qd_gptq_factor *f, const float *d, uint64_t n_rows, double *loss);
/* The weight's column at each place, from H's diagonal: see qd_gptq_factor_make(). */
QD_MUST_CHECK qd_code qd_gptq_order(const float *diagonal, uint64_t n, uint32_t *ret, qd_err *err);
/* Damping: how often ten times more is tried. */
#define QD_GPTQ_DAMP_TRIES 3
#define QD_GPTQ_DAMP_STEP  10.0f

#endif
