/* gptq.h -- rows of a weight to NVFP4 so that the error of the *output* is small: each column is rounded with the
 * errors of those before it made up for, and a block's E4M3 scale is chosen by its exact share of the final loss.
 *
 * Sources: GPTQ (Frantar et al., 2210.17323), in the form of LDLQ (QuIP, 2307.13304), which needs one Cholesky factor
 * and no inverse; the scale's choice inside the loop after "Replay the Curvature" (2609.36654). With the columns in
 * reverse order of quantization, H + damp = L L^T; column i is quantized after all j > i, at
 *     t_i = w_i + sum_{j > i} (w_j - q_j) L_ji / L_ii,   and the loss is  sum_i L_ii^2 (t_i - q_i)^2. */
#ifndef QD_QUANT_GPTQ_H
#define QD_QUANT_GPTQ_H

#include "base/tasks.h"
#include "gpu/nvfp4.h"
#include "gpu/ops.h"

typedef struct qd_gptq_factor {
    uint64_t n;            /* columns, a multiple of 16 */
    float *l;              /* [n][n] L; owned */
    uint32_t *order;       /* [n] the weight's column at each place: the last place is quantized first; owned */
    float damp;            /* what was added to H's diagonal */
    const qd_ops *ops;     /* of the device whose memory l is in; NULL: the program's */
    uint32_t *order_there; /* order in that memory; owned */
} qd_gptq_factor;

/* Where H comes from: element (i, j), j <= i. */
typedef float (*qd_hessian_at)(const void *hessian, uint64_t i, uint64_t j);

/* Orders blocks of 16 by their traces and columns in a block by their own diagonal elements, both descending, damps H
 * by `damp` of its mean diagonal element, and factors it; where that fails with ten and a hundred times as much.
 * *ret_ok false: it cannot be factored, or H is zero or not finite; *ret is empty then. Lanes as in qd_cholesky().
 * Errors: QD_E_NO_MEMORY, QD_E_CANCELED, QD_E_DEVICE. Release with qd_gptq_factor_done(). */
QD_MUST_CHECK qd_code qd_gptq_factor_make(qd_tasks *tasks, qd_lane *lanes, const void *hessian, qd_hessian_at at,
                                          uint64_t n, float damp, qd_gptq_factor *ret, bool *ret_ok, qd_err *err);
void qd_gptq_factor_done(qd_gptq_factor *f);

/* Rows of m [n][n], in the order of the weight's columns, times (H + damp)^-1, in place. Lanes as in qd_cholesky().
 * Errors: QD_E_NO_MEMORY, QD_E_CANCELED, QD_E_DEVICE. */
QD_MUST_CHECK qd_code qd_gptq_solve(qd_tasks *tasks, qd_lane *lanes, const qd_gptq_factor *f, float *m, qd_err *err);

/* Floats of scratch that qd_gptq_rows() and qd_gptq_loss() take for n_rows. */
uint64_t qd_gptq_scratch(const qd_gptq_factor *f, uint64_t n_rows);
/* w [n_rows][n] finite, at most 128 rows; gs their global scale; codes [n_rows][n / 2], scales [n_rows][n / 16];
 * ret_loss [n_rows]: (w - q) H (w - q)^T without the damping, in units of gs^2.
 * Errors: QD_E_CANCELED, QD_E_NO_MEMORY, QD_E_DEVICE. Threads: scratch and lane are the caller's own. */
QD_MUST_CHECK qd_code qd_gptq_rows(qd_lane *lane, const qd_gptq_factor *f, const float *w, uint64_t n_rows, float gs,
                                   float *scratch, uint8_t *codes, uint8_t *scales, double *ret_loss, qd_err *err);
/* One sweep of refinement of what qd_gptq_rows() just left in scratch, codes, scales and loss [n_rows]; the damped loss
 * of a row never rises. The same errors. Source: coordinate descent on the loss, as in QuantEase (Behdin et al.,
 * 2309.01885), by blocks with their scale. */
QD_MUST_CHECK qd_code qd_gptq_refine(qd_lane *lane, const qd_gptq_factor *f, uint64_t n_rows, float *scratch,
                                     uint8_t *codes, uint8_t *scales, double *loss, qd_err *err);
/* The same loss of other codes: q [n_rows][n] decoded. */
QD_MUST_CHECK qd_code qd_gptq_loss(qd_lane *lane, const qd_gptq_factor *f, const float *w, const float *q,
                                   uint64_t n_rows, float gs, float *scratch, double *ret_loss, qd_err *err);

/* The same in the memory of a device that has a solver (gpu/solver.h). hessian [n][n] there: its lower triangle is
 * read. A pivot that is not positive, or not finite, is told by the device's library and takes the next damping. */
QD_MUST_CHECK qd_code qd_gptq_factor_there(qd_lane *lane, const float *hessian, uint64_t n, float damp,
                                           qd_gptq_factor *ret, bool *ret_ok, qd_err *err);
/* qd_gptq_rows() of w, any number of rows, and qd_gptq_loss() of q, both in the program's memory; for the same factor
 * the host's codes as far as sums of products are in the same order. */
QD_MUST_CHECK qd_code qd_gptq_rows_there(qd_lane *lane, const qd_gptq_factor *f, const float *w, const float *q,
                                         uint64_t n_rows, float gs, uint8_t *codes, uint8_t *scales, double *ret_loss,
                                         double *ret_rtn, qd_err *err);
uint64_t qd_gptq_bytes_there(uint64_t n, uint64_t n_rows); /* at most, of the lane's scratch for both */

#endif
