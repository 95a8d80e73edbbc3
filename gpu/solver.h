/* solver.h -- SEAM: what GPTQ (quant/gptq.h) asks of a device with memory of its own, besides products. The host does
 * it in quant/. Matrices are row-major and dense, in the device's memory; operations are queued on the lane, and what
 * fails is told by the next one that can. */
#ifndef QD_GPU_SOLVER_H
#define QD_GPU_SOLVER_H

#include "gpu/ops.h"

/* Rows on their way through the panels of a factor, in units of 1 / gs, columns in the factor's order. */
typedef struct qd_gptq_sweep {
    const float *l;        /* [n][n], zeros above the diagonal */
    const uint32_t *order; /* [n] */
    uint64_t n, n_rows;
    const float *x;          /* [n_rows][n] weights */
    float *d;                /* [n_rows][n] weight less what it became, of the columns that are done */
    const float *sum;        /* [n_rows][QD_GPTQ_PANEL] what those ask of a panel: d L */
    double *loss;            /* [n_rows] is added to */
    uint8_t *codes, *scales; /* [n_rows][n / 2], aligned to 8 bytes, and [n_rows][n / 16], in the weight's order */
} qd_gptq_sweep;

struct qd_solver {
    /* Device memory that cholesky() takes for itself and gives back. Errors: QD_E_DEVICE, QD_E_NO_MEMORY. */
    qd_code (*room)(const qd_ops *ops, uint64_t n, uint64_t *ret_bytes, qd_err *err);
    /* a [n][n] = h[order][order] with `damp` on the diagonal, zeros above it. h [n][n]: its lower triangle is read. */
    void (*permute)(const qd_lane *l, const float *h, uint64_t n, const uint32_t *order, float damp, float *a);
    /* a's lower triangle becomes L with a = L L^T, zeros above. *ret_ok false: not positive definite to this precision,
     * a is spoiled. Returns when that is known. Errors: QD_E_DEVICE, QD_E_NO_MEMORY, QD_E_CANCELED. */
    qd_code (*cholesky)(qd_lane *l, float *a, uint64_t n, bool *ret_ok, qd_err *err);
    /* x [n_rows][n] = (w - q) * gs, columns in `order`; q NULL: 0. */
    void (*gather)(const qd_lane *l, const float *w, const float *q, uint64_t n_rows, uint64_t n, const uint32_t *order,
                   float gs, float *x);
    /* Quantizes columns [first, end), block by block from the last: at most QD_GPTQ_PANEL of them, both multiples of
     * 16. The bits of the host's (quant/gptq.c) for the same l, x and sum. */
    void (*panel)(const qd_lane *l, const qd_gptq_sweep *s, uint64_t first, uint64_t end);
    /* ret[r] = sum of x[r][i]^2 in F64, in the order of i. */
    void (*squares)(const qd_lane *l, const float *x, uint64_t n_rows, uint64_t n, double *ret);
};

#endif
