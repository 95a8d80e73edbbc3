/* fake_cublas.c -- a double of cuBLAS: column-major products with leading dimensions, F32 sums of BF16 or F32 products
 * in an order of its own (from the last k down, in four parts). */
#include "gpu/num.h"
#include "tests/shim/cuda/fake_cuda.h"

#include <cublas_v2.h>
#include <stdlib.h>
#include <string.h>

struct cublasContext {
    cudaStream_t stream;
    void *workspace;
};

typedef struct product {
    bool ta, tb, bf16;
    int64_t m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c, count;
    float alpha, beta;
    const void *a, *b;
    float *c;
} product;

cublasStatus_t cublasCreate_v2(cublasHandle_t *ret)
{
    if (fake_fails()) return CUBLAS_STATUS_ALLOC_FAILED;
    *ret = calloc(1, sizeof **ret);
    if (*ret == NULL) abort();
    fake_live_add(1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t h)
{
    free(h);
    fake_live_add(-1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s)
{
    if (fake_fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
    h->stream = s;
    h->workspace = NULL; /* as documented: the default one again */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *p, size_t bytes)
{
    if (fake_fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
    if ((uintptr_t)p % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
    h->workspace = fake_on_device(p, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t h, int *ret)
{
    (void)h;
    if (fake_fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
    *ret = 130000;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS ? "no error" : "an error of cuBLAS";
}

static float element(const product *p, const void *x, int64_t i)
{
    return p->bf16 ? qd_bf16_to_f32(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

static void run(void *arg)
{
    product *p = arg;
    for (int64_t at = 0; at < p->count * p->m * p->n; at++) {
        const int64_t z = at / (p->m * p->n), j = at / p->m % p->n, i = at % p->m;
        const int64_t a = z * p->stride_a, b = z * p->stride_b;
        float part[4] = {0}, *c = p->c + z * p->stride_c + i + j * p->ldc;
        for (int64_t l = p->k - 1; l >= 0; l--)
            part[l % 4] += element(p, p->a, a + (p->ta ? l + i * p->lda : i + l * p->lda)) *
                           element(p, p->b, b + (p->tb ? j + l * p->ldb : l + j * p->ldb));
        const float sum = p->alpha * ((part[3] + part[2]) + (part[1] + part[0]));
        *c = p->beta == 0.0f ? sum : sum + p->beta * *c;
    }
    free(p);
}

/* Bytes that a matrix of cols columns and the following ones of the batch take. */
static size_t extent(int64_t rows, int64_t cols, int64_t ld, int64_t stride, int64_t count, size_t item)
{
    return (size_t)((count - 1) * stride + (cols - 1) * ld + rows) * item;
}

cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int64_t m,
                                             int64_t n, int64_t k, const void *alpha, const void *a, cudaDataType at,
                                             int64_t lda, long long stride_a, const void *b, cudaDataType bt,
                                             int64_t ldb, long long stride_b, const void *beta, void *c,
                                             cudaDataType ct, int64_t ldc, long long stride_c, int64_t count,
                                             cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    product p = {.ta = ta == CUBLAS_OP_T, .tb = tb == CUBLAS_OP_T, .bf16 = at == CUDA_R_16BF};
    const size_t item = p.bf16 ? 2 : 4;
    (void)algo;
    if (h->workspace == NULL) fake_misuse("a product without a workspace of its own allocates");
    if (m <= 0 || n <= 0 || k <= 0 || count <= 0 || lda < (p.ta ? k : m) || ldb < (p.tb ? n : k) || ldc < m)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (at != bt || (at != CUDA_R_16BF && at != CUDA_R_32F) || ct != CUDA_R_32F || compute != CUBLAS_COMPUTE_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (fake_fails()) return CUBLAS_STATUS_EXECUTION_FAILED;
    p = (product){p.ta,     p.tb,     p.bf16,   m,     n, k, lda,  ldb,  ldc,
                  stride_a, stride_b, stride_c, count, 0, 0, NULL, NULL, NULL};
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    p.a = fake_on_device(a, extent(p.ta ? k : m, p.ta ? m : k, lda, stride_a, count, item));
    p.b = fake_on_device(b, extent(p.tb ? n : k, p.tb ? k : n, ldb, stride_b, count, item));
    p.c = fake_on_device(c, extent(m, n, ldc, stride_c, count, sizeof(float)));
    product *queued = malloc(sizeof *queued);
    if (queued == NULL) abort();
    *queued = p;
    fake_push(h->stream, run, queued);
    return CUBLAS_STATUS_SUCCESS;
}
