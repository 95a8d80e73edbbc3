/* solver.c -- GPTQ's part of a device (gpu/solver.h): Cholesky factors by cuSOLVER, the rest by kernels.
 *
 * cuSOLVER is column-major, so that the lower triangle of a row-major matrix is an upper one to it: A = U^T U there is
 * A = L L^T here, in place. */
#include "gpu/solver.h"

#include "base/mem.h"
#include "gpu/cuda/device.h"
#include "gpu/cuda/forward.h"

#include <math.h>

#define STREAM(l) (qd_cuda_lane_of(l)->stage.stream)

enum {
    INFO_BYTES = QD_POOL_ALIGN /* behind the workspace */
};

static qd_code check(const qd_cuda_device *d, cusolverStatus_t s, const char *what, qd_err *err)
{
    if (s == CUSOLVER_STATUS_SUCCESS) return QD_OK;
    return qd_fail(err, s == CUSOLVER_STATUS_ALLOC_FAILED ? QD_E_NO_MEMORY : QD_E_DEVICE, "%s: cuSOLVER: %s: status %d",
                   d->name, what, (int)s);
}

static void close_handles(cusolverDnHandle_t handle, cusolverDnParams_t params)
{
    if (params != NULL) (void)cusolverDnDestroyParams(params);
    if (handle != NULL) (void)cusolverDnDestroy(handle);
}

void qd_cuda_solver_close(qd_cuda_lane *c)
{
    close_handles(c->solver, c->solver_params);
    c->solver = NULL;
    c->solver_params = NULL;
}

static qd_code workspace(const qd_cuda_device *d, cusolverDnHandle_t handle, cusolverDnParams_t params, uint64_t n,
                         const float *a, size_t *ret_device, size_t *ret_host, qd_err *err)
{
    if (n >> 31 != 0) return qd_fail(err, QD_E_INTERNAL, "%s: a factor of too many columns", d->name);
    return check(d,
                 cusolverDnXpotrf_bufferSize(handle, params, CUBLAS_FILL_MODE_UPPER, (int64_t)n, CUDA_R_32F, a,
                                             (int64_t)n, CUDA_R_32F, ret_device, ret_host),
                 "workspace of a factor", err);
}

static qd_code room(const qd_ops *ops, uint64_t n, uint64_t *ret_bytes, qd_err *err)
{
    const qd_cuda_device *d = qd_cuda_device_of(ops);
    cusolverDnHandle_t handle = NULL;
    cusolverDnParams_t params = NULL;
    size_t device = 0, host = 0;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_enter(d, err));
    QD_TRY(check(d, cusolverDnCreate(&handle), "cusolverDnCreate", err));
    QD_TRY(check(d, cusolverDnCreateParams(&params), "cusolverDnCreateParams", err));
    QD_TRY(workspace(d, handle, params, n, NULL, &device, &host, err));
    *ret_bytes = device + INFO_BYTES + QD_POOL_ALIGN;
out:
    close_handles(handle, params);
    return rc;
}

static qd_code open_solver(qd_cuda_lane *c, qd_err *err)
{
    const qd_cuda_device *d = c->device;
    qd_code rc = QD_OK;
    if (c->solver_params != NULL) return QD_OK;
    QD_TRY(check(d, cusolverDnCreate(&c->solver), "cusolverDnCreate", err));
    QD_TRY(check(d, cusolverDnSetStream(c->solver, c->stage.stream), "cusolverDnSetStream", err));
    QD_TRY(check(d, cusolverDnSetDeterministicMode(c->solver, CUSOLVER_DETERMINISTIC_RESULTS),
                 "cusolverDnSetDeterministicMode", err));
    QD_TRY(check(d, cusolverDnCreateParams(&c->solver_params), "cusolverDnCreateParams", err));
out:
    if (rc != QD_OK) qd_cuda_solver_close(c);
    return rc;
}

/* L's diagonal: a pivot that is not a positive number may have come through as NaN. */
static qd_code check_pivots(qd_lane *l, const float *a, uint64_t n, bool *ret_ok, qd_err *err)
{
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    float *there = NULL, *pivots = qd_malloc(n * sizeof *pivots);
    qd_code rc = QD_OK;
    if (pivots == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for a factor's diagonal", l->ops->name);
    QD_TRY(qd_scratch_take(&l->scratch, 1, n, &there, err));
    qd_cuda_note(l, qd_cuda_copy(STREAM(l), a, n + 1, 0, n, 1, 1, there, 1, 0));
    QD_TRY(qd_cuda_download(l, QD_F32, there, n, pivots, err));
    *ret_ok = true;
    for (uint64_t i = 0; i < n; i++) *ret_ok = *ret_ok && pivots[i] > 0.0f && isfinite(pivots[i]);
out:
    qd_scratch_back(&l->scratch, mark);
    qd_free(pivots);
    return rc;
}

static qd_code cholesky(qd_lane *l, float *a, uint64_t n, bool *ret_ok, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    size_t device = 0, host = 0;
    void *there = NULL, *here = NULL;
    int info = 0;
    bool queued = false;
    qd_code rc = QD_OK;
    *ret_ok = false;
    QD_TRY(qd_cuda_enter(c->device, err));
    QD_TRY(qd_cuda_lane_check(l, "launch", err));
    QD_TRY(open_solver(c, err));
    QD_TRY(workspace(c->device, c->solver, c->solver_params, n, a, &device, &host, err));
    device = (device + QD_POOL_ALIGN - 1) / QD_POOL_ALIGN * QD_POOL_ALIGN;
    QD_TRY(qd_cuda_take(c->device, device + INFO_BYTES, &there, err));
    here = qd_malloc(host + 1);
    if (here == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for a factor", c->device->name);
        goto out;
    }
    int *info_there = (int *)(void *)((unsigned char *)there + device);
    queued = true;
    QD_TRY(check(c->device,
                 cusolverDnXpotrf(c->solver, c->solver_params, CUBLAS_FILL_MODE_UPPER, (int64_t)n, CUDA_R_32F, a,
                                  (int64_t)n, CUDA_R_32F, there, device, here, host, info_there),
                 "factor", err));
    QD_TRY(qd_cuda_stage_down(c->device, &c->stage, info_there, sizeof info, &info, err)); /* waits for it */
    l->flops += n * n * n / 3;
    if (info < 0) {
        rc = qd_fail(err, QD_E_DEVICE, "%s: cuSOLVER: factor: argument %d", c->device->name, -info);
        goto out;
    }
    if (info == 0) {
        qd_cuda_note(l, qd_cuda_lower(STREAM(l), a, n)); /* what a library leaves there is not documented */
        QD_TRY(check_pivots(l, a, n, ret_ok, err));
    }
    QD_TRY(qd_lane_tick(l, err));
out:
    if (rc != QD_OK && queued) (void)cudaStreamSynchronize(STREAM(l)); /* it may still work in both */
    if (there != NULL) qd_cuda_give(c->device, there, device + INFO_BYTES);
    qd_free(here);
    return rc;
}

static void permute(const qd_lane *l, const float *h, uint64_t n, const uint32_t *order, float damp, float *a)
{
    qd_cuda_note(l, qd_cuda_permute(STREAM(l), h, n, order, damp, a));
}

static void gather(const qd_lane *l, const float *w, const float *q, uint64_t n_rows, uint64_t n, const uint32_t *order,
                   float gs, float *x)
{
    qd_cuda_note(l, qd_cuda_gptq_gather(STREAM(l), w, q, n_rows, n, order, gs, x));
}

static void panel(const qd_lane *l, const qd_gptq_sweep *s, uint64_t first, uint64_t end)
{
    qd_cuda_note(l, qd_cuda_gptq_panel(STREAM(l), s->l, s->order, s->n, s->n_rows, first, end, s->x, s->d, s->sum,
                                       s->loss, s->codes, s->scales));
}

static void squares(const qd_lane *l, const float *x, uint64_t n_rows, uint64_t n, double *ret)
{
    qd_cuda_note(l, qd_cuda_squares(STREAM(l), x, n_rows, n, ret));
}

const qd_solver qd_cuda_solver = {
    .room = room, .permute = permute, .cholesky = cholesky, .gather = gather, .panel = panel, .squares = squares};
