/* device.c -- one CUDA device: opening, the memory of a pass, errors. */
#include "gpu/cuda/device.h"

#include "base/mem.h"
#include "gpu/cuda/ops_cuda.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Left to the driver, to cuBLAS and to the kernels' local memory. */
#define SPARE_BYTES (UINT64_C(256) << 20)

qd_code qd_cuda_check(const qd_cuda_device *d, cudaError_t e, const char *what, qd_err *err)
{
    if (e == cudaSuccess) return QD_OK;
    return qd_fail(err, e == cudaErrorMemoryAllocation ? QD_E_NO_MEMORY : QD_E_DEVICE, "%s: %s: %s", d->name, what,
                   cudaGetErrorString(e));
}

qd_code qd_cuda_blas_check(const qd_cuda_device *d, cublasStatus_t s, const char *what, qd_err *err)
{
    if (s == CUBLAS_STATUS_SUCCESS) return QD_OK;
    return qd_fail(err, s == CUBLAS_STATUS_ALLOC_FAILED ? QD_E_NO_MEMORY : QD_E_DEVICE, "%s: cuBLAS: %s: %s", d->name,
                   what, cublasGetStatusString(s));
}

qd_code qd_cuda_enter(const qd_cuda_device *d, qd_err *err)
{
    return qd_cuda_check(d, cudaSetDevice(d->index), "cudaSetDevice", err);
}

qd_code qd_cuda_take(qd_cuda_device *d, uint64_t bytes, void **ret, qd_err *err)
{
    (void)pthread_mutex_lock(&d->lock);
    *ret = qd_range_pool_take(&d->pool, bytes);
    const uint64_t held = d->pool.bytes, used = d->pool.used;
    (void)pthread_mutex_unlock(&d->lock);
    if (*ret != NULL) return QD_OK;
    return qd_fail(err, QD_E_NO_MEMORY,
                   "%s: %" PRIu64 " bytes of device memory wanted, %" PRIu64 " of %" PRIu64 " are in use", d->name,
                   bytes, used, held);
}

void qd_cuda_give(qd_cuda_device *d, void *p, uint64_t bytes)
{
    (void)pthread_mutex_lock(&d->lock);
    qd_range_pool_give(&d->pool, p, bytes);
    (void)pthread_mutex_unlock(&d->lock);
}

static void *scratch_take(void *ctx, uint64_t bytes)
{
    void *p = NULL;
    return qd_cuda_take(ctx, bytes, &p, NULL) == QD_OK ? p : NULL;
}

static void scratch_give(void *ctx, void *p, uint64_t bytes)
{
    qd_cuda_give(ctx, p, bytes);
}

static void drop_memory(qd_cuda_device *d)
{
    qd_range_pool_done(&d->pool);
    (void)cudaFree(d->base);
    d->base = NULL;
}

static qd_code reserve(const qd_ops *ops, uint64_t bytes, qd_err *err)
{
    qd_cuda_device *d = qd_cuda_device_of(ops);
    size_t available = 0, total = 0;
    qd_code rc = QD_OK;
    if (bytes <= d->pool.bytes) {
        d->pool.peak = d->pool.used;
        return QD_OK;
    }
    if (d->pool.used != 0)
        return qd_fail(err, QD_E_INTERNAL, "%s: more device memory wanted while some is in use", d->name);
    QD_TRY(qd_cuda_enter(d, err));
    drop_memory(d);
    QD_TRY(qd_cuda_check(d, cudaMemGetInfo(&available, &total), "cudaMemGetInfo", err));
    if (bytes > available || available - bytes < SPARE_BYTES) {
        rc = qd_fail(err, QD_E_NO_MEMORY,
                     "%s: expected %" PRIu64 " bytes of device memory and %" PRIu64 " to spare, found %zu of %zu free",
                     d->name, bytes, SPARE_BYTES, available, total);
        goto out;
    }
    QD_TRY(qd_cuda_check(d, cudaMalloc(&d->base, bytes), "cudaMalloc", err));
    rc = qd_range_pool_init(&d->pool, d->base, bytes, err);
out:
    if (rc != QD_OK) drop_memory(d);
    return rc;
}

static uint64_t memory_peak(const qd_ops *ops)
{
    qd_cuda_device *d = qd_cuda_device_of(ops);
    (void)pthread_mutex_lock(&d->lock);
    const uint64_t peak = d->pool.peak;
    (void)pthread_mutex_unlock(&d->lock);
    return peak;
}

static void numerics(const qd_ops *ops, char *ret)
{
    const qd_cuda_device *d = qd_cuda_device_of(ops);
    (void)snprintf(ret, QD_NUMERICS_BYTES, "cuda sm_%d cublas-%d cusolver-%d", d->sm, d->blas_version,
                   d->solver_version);
}

static void close_device(const qd_ops *ops)
{
    if (ops == NULL) return;
    qd_cuda_device *d = qd_cuda_device_of(ops);
    qd_cuda_stage_close(&d->stage);
    drop_memory(d);
    (void)pthread_mutex_destroy(&d->lock);
    qd_free(d);
}

/* Versions of what decides the bytes of products. */
static qd_code ask(qd_cuda_device *d, qd_err *err)
{
    cublasHandle_t blas = NULL;
    int major = 0, minor = 0;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_check(d, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, d->index),
                         "compute capability", err));
    QD_TRY(qd_cuda_check(d, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, d->index),
                         "compute capability", err));
    d->sm = major * 10 + minor;
    QD_TRY(qd_cuda_blas_check(d, cublasCreate(&blas), "cublasCreate", err));
    QD_TRY(qd_cuda_blas_check(d, cublasGetVersion(blas, &d->blas_version), "cublasGetVersion", err));
    if (cusolverGetVersion(&d->solver_version) != CUSOLVER_STATUS_SUCCESS)
        rc = qd_fail(err, QD_E_DEVICE, "%s: cusolverGetVersion failed", d->name);
out:
    if (blas != NULL) (void)cublasDestroy(blas);
    return rc;
}

static qd_code open_device(int index, const qd_ops **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    int n = 0;
    qd_cuda_device *d = qd_calloc(1, sizeof *d);
    if (d == NULL) return qd_fail(err, QD_E_NO_MEMORY, "gpu%d: out of memory", index);
    (void)pthread_mutex_init(&d->lock, NULL);
    d->index = index;
    (void)snprintf(d->name, sizeof d->name, "gpu%d", index);
    d->memory = (qd_memory){scratch_take, scratch_give, d};
    d->ops = (qd_ops){.name = d->name,
                      .packs = false, /* the device's copy, not the program's memory */
                      .n_lanes_max = 2,
                      .lane_bytes = QD_CUDA_WORKSPACE_BYTES,
                      .scores_bytes = QD_CUDA_SCORES_BYTES,
                      .wide_bytes = QD_CUDA_WIDE_BYTES,
                      .memory = &d->memory,
                      .solver = &qd_cuda_solver,
                      .close = close_device,
                      .reserve = reserve,
                      .memory_peak = memory_peak,
                      .numerics = numerics,
                      .lane_open = qd_cuda_lane_open,
                      .lane_close = qd_cuda_lane_close,
                      .upload = qd_cuda_upload,
                      .download = qd_cuda_download,
                      .weight_pack = qd_cuda_weight_pack,
                      .weight_unpack = qd_cuda_weight_unpack,
                      .linear = qd_cuda_linear,
                      .gemm = qd_cuda_gemm,
                      .gram_begin = qd_cuda_gram_begin,
                      .gram = qd_cuda_gram,
                      .attention = qd_cuda_attention};
    qd_cuda_ops_fill(&d->ops);
    const cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || index < 0 || index >= n) {
        rc = qd_fail(err, QD_E_UNSUPPORTED, "%s: found %d CUDA devices (%s)", d->name, e == cudaSuccess ? n : 0,
                     cudaGetErrorString(e));
        goto out;
    }
    QD_TRY(qd_cuda_enter(d, err));
    QD_TRY(ask(d, err));
    QD_TRY(qd_cuda_stage_open(d, &d->stage, err));
    *ret = &d->ops;
    d = NULL; /* ownership moved */
out:
    if (d != NULL) close_device(&d->ops);
    return rc;
}

const qd_cuda_library *qd_cuda_library_of(void)
{
    static const qd_cuda_library library = {QD_CUDA_LIBRARY_VERSION, sizeof(qd_ops), open_device, qd_cuda_dev_open};
    return &library;
}
