/* lane.c -- a lane of a CUDA device: a stream with a cuBLAS handle and pinned buffers. */
#include "base/mem.h"
#include "gpu/cuda/device.h"
#include "gpu/cuda/forward.h"

#include <string.h>

qd_code qd_cuda_lane_open(qd_lane *l, qd_err *err)
{
    qd_cuda_device *d = qd_cuda_device_of(l->ops);
    qd_code rc = QD_OK;
    qd_cuda_lane *c = qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for a lane", d->name);
    c->device = d;
    l->device = c;
    QD_TRY(qd_cuda_enter(d, err));
    QD_TRY(qd_cuda_stage_open(d, &c->stage, err));
    QD_TRY(qd_cuda_blas_check(d, cublasCreate(&c->blas), "cublasCreate", err));
    QD_TRY(qd_cuda_blas_check(d, cublasSetStream(c->blas, c->stage.stream), "cublasSetStream", err));
    QD_TRY(qd_cuda_take(d, QD_CUDA_WORKSPACE_BYTES, &c->workspace, err));
    QD_TRY(qd_cuda_blas_check(d, cublasSetWorkspace(c->blas, c->workspace, QD_CUDA_WORKSPACE_BYTES),
                              "cublasSetWorkspace", err));
out:
    if (rc != QD_OK) qd_cuda_lane_close(l);
    return rc;
}

void qd_cuda_lane_close(qd_lane *l)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    if (c == NULL) return;
    if (c->blas != NULL) (void)cublasDestroy(c->blas);
    qd_cuda_solver_close(c);
    qd_cuda_stage_close(&c->stage);
    if (c->workspace != NULL) qd_cuda_give(c->device, c->workspace, QD_CUDA_WORKSPACE_BYTES);
    qd_free(c);
    l->device = NULL;
}

void qd_cuda_note(const qd_lane *l, int code)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    if (c->failed == 0) c->failed = code;
}

qd_code qd_cuda_lane_check(qd_lane *l, const char *what, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const int failed = c->failed;
    c->failed = 0;
    return qd_cuda_check(c->device, (cudaError_t)failed, what, err);
}

qd_code qd_cuda_upload(qd_lane *l, qd_dtype dtype, const void *from, uint64_t n, float *to, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    float *narrow = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_enter(c->device, err));
    if (dtype == QD_F32) {
        QD_TRY(qd_cuda_stage_up(c->device, &c->stage, from, n * sizeof(float), to, err));
    } else {
        QD_TRY(qd_scratch_take(&l->scratch, 1, n / 2 + 1, &narrow, err));
        QD_TRY(qd_cuda_stage_up(c->device, &c->stage, from, n * 2, narrow, err));
        qd_cuda_note(l, qd_cuda_widen(c->stage.stream, (int)dtype, narrow, n, to));
    }
    rc = qd_cuda_lane_check(l, "launch", err);
out:
    qd_scratch_back(&l->scratch, mark); /* what takes it next comes later on the stream */
    return rc;
}

qd_code qd_cuda_download(qd_lane *l, qd_dtype dtype, const float *from, uint64_t n, void *to, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    float *narrow = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_enter(c->device, err));
    if (dtype == QD_BF16) {
        QD_TRY(qd_scratch_take(&l->scratch, 1, n / 2 + 1, &narrow, err));
        qd_cuda_note(l, qd_cuda_narrow(c->stage.stream, from, n, 1, n, narrow));
    }
    QD_TRY(qd_cuda_lane_check(l, "launch", err));
    QD_TRY(
        qd_cuda_stage_down(c->device, &c->stage, narrow != NULL ? narrow : from, n * qd_dtype_bytes(dtype), to, err));
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
