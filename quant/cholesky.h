/* cholesky.h -- Cholesky factors of large matrices, in tiles over some threads. */
#ifndef QD_QUANT_CHOLESKY_H
#define QD_QUANT_CHOLESKY_H

#include "base/tasks.h"
#include "gpu/ops.h"

#include <stdbool.h>

/* a [n][n], the lower triangle of a symmetric matrix: becomes L with a = L L^T, and zeros above the diagonal. Diagonal
 * tiles are factored in float64, all else are products of float32 tiles in a fixed order: the same bytes whatever the
 * threads. *ret_ok false: not positive definite to this precision, a is spoiled.
 * lanes: one for each of tasks->n_threads workers. Errors: QD_E_NO_MEMORY, QD_E_CANCELED, QD_E_DEVICE. */
QD_MUST_CHECK qd_code qd_cholesky(qd_tasks *tasks, qd_lane *lanes, float *a, uint64_t n, bool *ret_ok, qd_err *err);

#endif
