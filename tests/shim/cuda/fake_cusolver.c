/* fake_cusolver.c -- a double of cuSOLVER's Cholesky factorization, by its documentation: column-major, one triangle
 * read and written, workspaces of the sizes asked for, in stream order, *info on the device: 0, or the order of the
 * first leading minor that is not positive definite. What it may leave anywhere, it does: the other triangle, what was
 * not reached and the workspaces are NaN behind it. Sums are F32 in an order of its own, from the last k down. */
#include "tests/shim/cuda/fake_cuda.h"

#include <cusolverDn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cusolverDnContext {
    cudaStream_t stream;
};

struct cusolverDnParams {
    int unused;
};

typedef struct factor {
    bool upper;
    int64_t n, lda;
    float *a;
    unsigned char *device, *host;
    size_t device_bytes, host_bytes;
    int *info;
} factor;

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *ret)
{
    if (fake_fails()) return CUSOLVER_STATUS_ALLOC_FAILED;
    *ret = calloc(1, sizeof **ret);
    if (*ret == NULL) abort();
    fake_live_add(1);
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t h)
{
    free(h);
    fake_live_add(-1);
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverGetVersion(int *ret)
{
    if (fake_fails()) return CUSOLVER_STATUS_INTERNAL_ERROR;
    *ret = 120000;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t h, cudaStream_t s)
{
    if (fake_fails()) return CUSOLVER_STATUS_INTERNAL_ERROR;
    h->stream = s;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSetDeterministicMode(cusolverDnHandle_t h, cusolverDeterministicMode_t mode)
{
    (void)h;
    if (fake_fails()) return CUSOLVER_STATUS_INTERNAL_ERROR;
    return mode == CUSOLVER_DETERMINISTIC_RESULTS ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_NOT_SUPPORTED;
}

cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t *ret)
{
    if (fake_fails()) return CUSOLVER_STATUS_ALLOC_FAILED;
    *ret = calloc(1, sizeof **ret);
    if (*ret == NULL) abort();
    fake_live_add(1);
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t p)
{
    free(p);
    fake_live_add(-1);
    return CUSOLVER_STATUS_SUCCESS;
}

static bool supported(cublasFillMode_t uplo, int64_t n, cudaDataType type, int64_t lda, cudaDataType compute)
{
    return (uplo == CUBLAS_FILL_MODE_UPPER || uplo == CUBLAS_FILL_MODE_LOWER) && n > 0 && lda >= n &&
           type == CUDA_R_32F && compute == CUDA_R_32F;
}

static void sizes(int64_t n, size_t *ret_device, size_t *ret_host)
{
    *ret_device = (size_t)n * 64 * sizeof(float) + 1000;
    *ret_host = 40;
}

cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t h, cusolverDnParams_t params, cublasFillMode_t uplo,
                                             int64_t n, cudaDataType type, const void *a, int64_t lda,
                                             cudaDataType compute, size_t *ret_device, size_t *ret_host)
{
    (void)a;
    if (h == NULL || params == NULL || !supported(uplo, n, type, lda, compute)) return CUSOLVER_STATUS_INVALID_VALUE;
    if (fake_fails()) return CUSOLVER_STATUS_INTERNAL_ERROR;
    sizes(n, ret_device, ret_host);
    return CUSOLVER_STATUS_SUCCESS;
}

/* Element (i, j) of the triangle, i >= j. */
static float *at(const factor *f, int64_t i, int64_t j)
{
    return f->upper ? &f->a[j + i * f->lda] : &f->a[i + j * f->lda];
}

static void run(void *arg)
{
    factor *f = arg;
    *f->info = 0;
    for (int64_t i = 0; i < f->n && *f->info == 0; i++)
        for (int64_t j = 0; j <= i && *f->info == 0; j++) {
            float sum = 0;
            for (int64_t k = j - 1; k >= 0; k--) sum += *at(f, i, k) * *at(f, j, k);
            const float left = *at(f, i, j) - sum;
            if (i == j && !(left > 0)) *f->info = (int)i + 1;
            *at(f, i, j) = i == j ? sqrtf(left) : left / *at(f, j, j);
        }
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t j = 0; j < f->n; j++) {
            if (j <= i && (*f->info == 0 || i + 1 < *f->info)) continue;
            f->a[f->upper ? j + i * f->lda : i + j * f->lda] = NAN;
        }
    memset(f->device, 0xff, f->device_bytes);
    memset(f->host, 0xff, f->host_bytes);
    free(f);
}

cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t h, cusolverDnParams_t params, cublasFillMode_t uplo, int64_t n,
                                  cudaDataType type, void *a, int64_t lda, cudaDataType compute, void *device,
                                  size_t device_bytes, void *host, size_t host_bytes, int *info)
{
    size_t device_least = 0, host_least = 0;
    if (h == NULL || params == NULL || !supported(uplo, n, type, lda, compute)) return CUSOLVER_STATUS_INVALID_VALUE;
    if (h->stream == NULL) fake_misuse("a factorization on the default stream");
    sizes(n, &device_least, &host_least);
    if (device_bytes < device_least || host_bytes < host_least) return CUSOLVER_STATUS_INVALID_VALUE;
    if (fake_fails()) return CUSOLVER_STATUS_EXECUTION_FAILED;
    factor *f = malloc(sizeof *f);
    if (f == NULL) abort();
    *f = (factor){.upper = uplo == CUBLAS_FILL_MODE_UPPER,
                  .n = n,
                  .lda = lda,
                  .a = fake_on_device(a, (size_t)((n - 1) * lda + n) * sizeof(float)),
                  .device = fake_on_device(device, device_bytes),
                  .host = host,
                  .device_bytes = device_bytes,
                  .host_bytes = host_bytes,
                  .info = fake_on_device(info, sizeof *info)};
    fake_push(h->stream, run, f);
    return CUSOLVER_STATUS_SUCCESS;
}
