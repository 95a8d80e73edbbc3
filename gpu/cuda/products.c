/* products.c -- matrix products by cuBLAS, and attention between two of them. cuBLAS is column-major: what it sees of a
 * row-major matrix is its transpose, so that y = x w^T is asked for as y^T = w x^T. */
#include "base/mem.h"
#include "gpu/cuda/device.h"
#include "gpu/cuda/forward.h"

#include <inttypes.h>
#include <string.h>

typedef struct matrix {
    const void *data;
    cublasOperation_t op;
    uint64_t ld, stride; /* stride: to the next of a batch */
} matrix;

/* c [m][n] (row-major) = (or +=) a b, batches of them; a and b as cuBLAS sees them. */
typedef struct product {
    cudaDataType type; /* of a and b */
    uint64_t m, n, k;
    matrix a, b;
    float *c;
    uint64_t ldc, stride_c, batch;
    bool add;
} product;

static qd_code multiply(qd_lane *l, const product *p, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const float one = 1.0f, beta = p->add ? 1.0f : 0.0f;
    if (p->m == 0 || p->n == 0 || p->k == 0 || p->batch == 0) return QD_OK;
    if ((p->m | p->n | p->k | p->a.ld | p->b.ld | p->ldc) >> 40 != 0)
        return qd_fail(err, QD_E_INTERNAL, "%s: matrix product of %" PRIu64 " x %" PRIu64 " x %" PRIu64, l->ops->name,
                       p->m, p->n, p->k);
    qd_code rc =
        qd_cuda_blas_check(c->device,
                           cublasGemmStridedBatchedEx_64(
                               c->blas, p->b.op, p->a.op, (int64_t)p->n, (int64_t)p->m, (int64_t)p->k, &one, p->b.data,
                               p->type, (int64_t)p->b.ld, (long long)p->b.stride, p->a.data, p->type, (int64_t)p->a.ld,
                               (long long)p->a.stride, &beta, p->c, CUDA_R_32F, (int64_t)p->ldc, (long long)p->stride_c,
                               (int64_t)p->batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                           "product", err);
    if (rc == QD_OK) l->flops += 2 * p->m * p->n * p->k * p->batch;
    return rc;
}

qd_code qd_cuda_gemm(qd_lane *l, bool b_rows, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                     const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc, qd_err *err)
{
    const product p = {
        CUDA_R_32F, m, n, k,  {a, CUBLAS_OP_N, lda, 0}, {b, b_rows ? CUBLAS_OP_T : CUBLAS_OP_N, ldb, 0}, c,
        ldc,        0, 1, add};
    qd_code rc = qd_cuda_lane_check(l, "launch", err);
    return rc == QD_OK ? multiply(l, &p, err) : rc;
}

qd_code qd_cuda_gram_begin(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                           qd_err *err)
{
    (void)n;
    *ret = (qd_gram){.x = x, .ld = ld, .rows = rows};
    return qd_cuda_lane_check(l, "launch", err);
}

qd_code qd_cuda_gram(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                     uint64_t ldc, qd_err *err)
{
    const matrix a = {g->x + i, CUBLAS_OP_T, g->ld, 0}, b = {g->x + j, CUBLAS_OP_N, g->ld, 0};
    const product p = {CUDA_R_32F, m, n, g->rows, a, b, c, ldc, 0, 1, true};
    return multiply(l, &p, err);
}

/* A BF16 matrix and F32 values: rows of it are widened a few at a time. */
static qd_code linear_wide(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                           uint64_t ldy, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    const uint64_t step = qd_min_u64(qd_max_u64(1, QD_CUDA_WIDE_BYTES / (w->k * sizeof(float))), w->n);
    const uint16_t *data = w->device_data;
    float *wide = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, step, w->k, &wide, err));
    for (uint64_t at = 0; at < w->n; at += step) {
        const uint64_t n = qd_min_u64(step, w->n - at);
        qd_cuda_note(l, qd_cuda_widen(c->stage.stream, QD_BF16, data + at * w->k, n * w->k, wide));
        QD_TRY(qd_cuda_gemm(l, true, m, n, w->k, x, ldx, wide, w->k, false, y + at, ldy, err));
    }
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

/* Both in BF16, on tensor cores: exact where x holds BF16 values, and else as a BF16 model has it. */
static qd_code linear_narrow(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                             uint64_t ldy, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    float *half = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, m, w->k / 2 + 1, &half, err));
    qd_cuda_note(l, qd_cuda_narrow(c->stage.stream, x, ldx, m, w->k, half));
    QD_TRY(qd_cuda_lane_check(l, "launch", err));
    const product p = {
        CUDA_R_16BF, m, w->n, w->k, {half, CUBLAS_OP_N, w->k, 0}, {w->device_data, CUBLAS_OP_T, w->k, 0}, y,
        ldy,         0, 1,    false};
    rc = multiply(l, &p, err);
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

qd_code qd_cuda_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y, uint64_t ldy,
                       qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const uint64_t bias_at =
        (w->n * w->k * qd_dtype_bytes(w->dtype) + QD_POOL_ALIGN - 1) / QD_POOL_ALIGN * QD_POOL_ALIGN;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_enter(c->device, err));
    if (w->dtype == QD_F32)
        QD_TRY(qd_cuda_gemm(l, true, m, w->n, w->k, x, ldx, w->device_data, w->k, false, y, ldy, err));
    else if (l->bf16)
        QD_TRY(linear_narrow(l, x, m, ldx, w, y, ldy, err));
    else
        QD_TRY(linear_wide(l, x, m, ldx, w, y, ldy, err));
    const float *bias =
        w->bias != NULL ? (const float *)(const void *)((const unsigned char *)w->device_data + bias_at) : NULL;
    qd_cuda_note(l, qd_cuda_bias(c->stage.stream, l->bf16, y, ldy, m, w->n, bias));
    QD_TRY(qd_lane_tick(l, err));
out:
    return rc;
}

/* The query heads of key-value head kv, queries [q0, q0 + n). s: room for heads x n x keys. */
static qd_code attend(qd_lane *l, const qd_attention *a, uint64_t kv, uint64_t q0, uint64_t n, float *s, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const uint64_t heads = a->n_heads / a->n_kv_heads,
                   first = a->window != 0 && q0 + 1 > a->window ? q0 + 1 - a->window : 0;
    const uint64_t keys = q0 + n - first, at = first * a->kv_token + kv * a->head_dim, head = kv * heads;
    const product scores = {CUDA_R_32F,
                            n,
                            keys,
                            a->head_dim,
                            {a->q + q0 * a->q_token + head * a->q_head, CUBLAS_OP_N, a->q_token, a->q_head},
                            {a->k + at, CUBLAS_OP_T, a->kv_token, 0},
                            s,
                            keys,
                            n * keys,
                            heads,
                            false};
    const product values = {CUDA_R_32F,
                            n,
                            a->head_dim,
                            keys,
                            {s, CUBLAS_OP_N, keys, n * keys},
                            {a->v + at, CUBLAS_OP_N, a->kv_token, 0},
                            a->out + q0 * a->out_token + head * a->head_dim,
                            a->out_token,
                            a->head_dim,
                            heads,
                            false};
    qd_code rc = QD_OK;
    QD_TRY(multiply(l, &scores, err));
    qd_cuda_note(l, qd_cuda_softmax(c->stage.stream, l->bf16, s, heads, n, keys, q0, first, a->window, a->scale));
    QD_TRY(qd_cuda_lane_check(l, "softmax", err));
    QD_TRY(multiply(l, &values, err));
    QD_TRY(qd_lane_tick(l, err));
out:
    return rc;
}

qd_code qd_cuda_attention(qd_lane *l, const qd_attention *a, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    const uint64_t heads = a->n_heads / a->n_kv_heads, row = heads * a->n_tokens * sizeof(float);
    const uint64_t queries = qd_min_u64(a->n_tokens, qd_max_u64(1, QD_CUDA_SCORES_BYTES / row));
    float *s = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_lane_check(l, "launch", err));
    QD_TRY(qd_scratch_take(&l->scratch, heads * queries, a->n_tokens, &s, err));
    for (uint64_t kv = 0; kv < a->n_kv_heads; kv++)
        for (uint64_t q0 = 0; q0 < a->n_tokens; q0 += queries)
            QD_TRY(attend(l, a, kv, q0, qd_min_u64(queries, a->n_tokens - q0), s, err));
    qd_cuda_note(
        l, qd_cuda_bias(c->stage.stream, l->bf16, a->out, a->out_token, a->n_tokens, a->n_heads * a->head_dim, NULL));
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
