/* gptq_device.c -- gptq.h in the memory of a device (gpu/solver.h): the same steps as gptq_factor.c and gptq.c,
 * products and factor by the device's libraries. */
#include "base/mem.h"
#include "gpu/gptq.h"
#include "gpu/solver.h"
#include "quant/gptq.h"
#include "quant/gptq_parts.h"

#include <math.h>
#include <string.h>

enum {
    PANEL = QD_GPTQ_PANEL
};

static qd_code take(const qd_ops *ops, uint64_t bytes, void **ret, qd_err *err)
{
    *ret = ops->memory->take(ops->memory->ctx, bytes);
    if (*ret != NULL) return QD_OK;
    return qd_fail(err, QD_E_NO_MEMORY, "%s: %llu bytes of device memory for a factor are not there", ops->name,
                   (unsigned long long)bytes);
}

static qd_code diagonal_of(qd_lane *lane, const float *hessian, uint64_t n, float *ret, qd_err *err)
{
    const qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    float *there = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&lane->scratch, 1, n, &there, err));
    lane->ops->copy(lane, hessian, n + 1, 0, n, 1, 1, there, 1, 0);
    rc = lane->ops->download(lane, QD_F32, there, n, ret, err);
out:
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

qd_code qd_gptq_factor_there(qd_lane *lane, const float *hessian, uint64_t n, float damp, qd_gptq_factor *ret,
                             bool *ret_ok, qd_err *err)
{
    const qd_ops *ops = lane->ops;
    qd_gptq_factor f = {.n = n, .ops = ops};
    float *diagonal = qd_malloc(n * sizeof *diagonal);
    double sum = 0;
    void *p = NULL;
    qd_code rc = QD_OK;
    *ret_ok = false;
    f.order = qd_malloc(n * sizeof *f.order);
    if (diagonal == NULL || f.order == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a Hessian of %llu columns", (unsigned long long)n);
        goto out;
    }
    QD_TRY(diagonal_of(lane, hessian, n, diagonal, err));
    for (uint64_t i = 0; i < n; i++) sum += (double)diagonal[i];
    if (!(sum > 0) || !isfinite(sum)) goto out;
    QD_TRY(qd_gptq_order(diagonal, n, f.order, err));
    QD_TRY(take(ops, n * n * sizeof *f.l, &p, err));
    f.l = p;
    QD_TRY(take(ops, n * sizeof *f.order_there, &p, err));
    f.order_there = p;
    QD_TRY(ops->upload(lane, QD_F32, f.order, n, p, err));
    for (int i = 0; i < QD_GPTQ_DAMP_TRIES && !*ret_ok; i++, damp *= QD_GPTQ_DAMP_STEP) {
        f.damp = (float)((double)damp * sum / (double)n);
        ops->solver->permute(lane, hessian, n, f.order_there, f.damp, f.l);
        QD_TRY(ops->solver->cholesky(lane, f.l, n, ret_ok, err));
    }
    if (!*ret_ok) goto out;
    *ret = f;
    memset(&f, 0, sizeof f); /* ownership moved */
out:
    if (f.l != NULL && ops->finish(lane, NULL) != QD_OK && rc == QD_OK) /* work in it ends before it is given back */
        rc = qd_fail(err, QD_E_DEVICE, "%s: work on a factor failed", ops->name);
    qd_free(diagonal);
    qd_gptq_factor_done(&f);
    return rc;
}

/* What comes back of some rows, one after the other: sums, codes, scales. */
typedef struct results {
    double *loss, *damped, *rtn, *rtn_damped; /* [n_rows] loss, and the sum of squares that damping made of it */
    uint8_t *codes, *scales;
} results;

static uint64_t result_floats(uint64_t n_rows, uint64_t n)
{
    return 8 * n_rows + n_rows * (n / 8) + qd_div_up(n_rows * (n / QD_NVFP4_BLOCK), sizeof(float));
}

static results results_in(float *at, uint64_t n_rows, uint64_t n)
{
    double *sums = (double *)(void *)at;
    uint8_t *codes = (uint8_t *)(sums + 4 * n_rows);
    return (results){.loss = sums,
                     .damped = sums + n_rows,
                     .rtn = sums + 2 * n_rows,
                     .rtn_damped = sums + 3 * n_rows,
                     .codes = codes,
                     .scales = codes + n_rows * (n / 2)};
}

/* Panel by panel from the last, as qd_gptq_rows(). */
static qd_code sweep(qd_lane *lane, qd_gptq_sweep *s, float *sum, qd_err *err)
{
    qd_code rc = QD_OK;
    s->sum = sum;
    for (uint64_t end = s->n; end > 0;) {
        const uint64_t p = (end - 1) / PANEL * PANEL, done = s->n - end;
        if (done != 0)
            QD_TRY(lane->ops->gemm(lane, false, s->n_rows, end - p, done, s->d + end, s->n, s->l + end * s->n + p, s->n,
                                   false, sum, PANEL, err));
        else
            lane->ops->zero(lane, sum, s->n_rows * PANEL);
        lane->ops->solver->panel(lane, s, p, end);
        end = p;
        QD_TRY(qd_lane_tick(lane, err));
    }
out:
    return rc;
}

qd_code qd_gptq_rows_there(qd_lane *lane, const qd_gptq_factor *f, const float *w, const float *q, uint64_t n_rows,
                           float gs, uint8_t *codes, uint8_t *scales, double *ret_loss, double *ret_rtn, qd_err *err)
{
    const qd_ops *ops = lane->ops;
    const qd_solver *s = ops->solver;
    const qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    const uint64_t n = f->n, n_results = result_floats(n_rows, n);
    float *x[4] = {NULL}, *sum = NULL, *there = NULL, *here = qd_malloc(n_results * sizeof *here);
    qd_code rc = QD_OK;
    if (here == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the codes of some rows");
    for (int i = 0; i < 4; i++) QD_TRY(qd_scratch_take(&lane->scratch, n_rows, n, &x[i], err));
    QD_TRY(qd_scratch_take(&lane->scratch, n_rows, PANEL, &sum, err));
    QD_TRY(qd_scratch_take(&lane->scratch, 1, n_results, &there, err));
    const results r = results_in(there, n_rows, n), got = results_in(here, n_rows, n);
    QD_TRY(ops->upload(lane, QD_F32, w, n_rows * n, x[0], err));
    QD_TRY(ops->upload(lane, QD_F32, q, n_rows * n, x[1], err));
    s->gather(lane, x[0], x[1], n_rows, n, f->order_there, gs, x[2]);
    QD_TRY(ops->gemm(lane, false, n_rows, n, n, x[2], n, f->l, n, false, x[1], n, err));
    s->squares(lane, x[1], n_rows, n, r.rtn);
    s->squares(lane, x[2], n_rows, n, r.rtn_damped);
    s->gather(lane, x[0], NULL, n_rows, n, f->order_there, gs, x[3]);
    ops->zero(lane, there, 2 * n_rows); /* r.loss */
    qd_gptq_sweep all = {.l = f->l,
                         .order = f->order_there,
                         .n = n,
                         .n_rows = n_rows,
                         .x = x[3],
                         .d = x[2],
                         .loss = r.loss,
                         .codes = r.codes,
                         .scales = r.scales};
    QD_TRY(sweep(lane, &all, sum, err));
    s->squares(lane, x[2], n_rows, n, r.damped);
    QD_TRY(ops->download(lane, QD_F32, there, n_results, here, err));
    for (uint64_t i = 0; i < n_rows; i++) {
        ret_loss[i] = got.loss[i] - (double)f->damp * got.damped[i];
        ret_rtn[i] = got.rtn[i] - (double)f->damp * got.rtn_damped[i];
    }
    memcpy(codes, got.codes, n_rows * (n / 2));
    memcpy(scales, got.scales, n_rows * (n / QD_NVFP4_BLOCK));
out:
    qd_scratch_back(&lane->scratch, mark);
    qd_free(here);
    return rc;
}

uint64_t qd_gptq_bytes_there(uint64_t n, uint64_t n_rows)
{
    return (n_rows * (4 * n + PANEL) + result_floats(n_rows, n)) * sizeof(float) * 3 / 2;
}
