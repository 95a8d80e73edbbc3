/* host_gemm.c -- matrix products by oneDNN, each on the calling thread alone.
 *
 * Debian's oneDNN runs on OpenMP. The number of OpenMP threads is a property of the calling thread, so setting it to
 * one in each of ours keeps oneDNN on it; the bytes then depend on the shapes and the instruction set only. */
#include "gpu/host_ops.h"

#include <inttypes.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

/* From libgomp. omp.h lies in the compiler's own folder, and clang has none without libomp. */
extern void omp_set_num_threads(int n);

static qd_code gemm(qd_lane *l, char ta, char tb, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                    const float *b, uint64_t ldb, float beta, float *c, uint64_t ldc, qd_err *err)
{
    if (m == 0 || n == 0 || k == 0) return QD_OK;
    if ((m | n | k | lda | ldb | ldc) >> 40 != 0)
        return qd_fail(err, QD_E_INTERNAL, "%s: matrix product of %" PRIu64 " x %" PRIu64 " x %" PRIu64, l->ops->name,
                       m, n, k);
    omp_set_num_threads(1);
    dnnl_status_t s = dnnl_sgemm(ta, tb, (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0f, a, (dnnl_dim_t)lda, b,
                                 (dnnl_dim_t)ldb, beta, c, (dnnl_dim_t)ldc);
    if (s == dnnl_out_of_memory) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory in oneDNN", l->ops->name);
    if (s != dnnl_success)
        return qd_fail(err, QD_E_DEVICE,
                       "%s: oneDNN failed with status %d on a product of %" PRIu64 " x %" PRIu64 " x %" PRIu64,
                       l->ops->name, (int)s, m, n, k);
    l->flops += 2 * m * n * k;
    return QD_OK;
}

qd_code qd_host_gemm(qd_lane *l, bool b_rows, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                     const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc, qd_err *err)
{
    return gemm(l, 'N', b_rows ? 'T' : 'N', m, n, k, a, lda, b, ldb, add ? 1.0f : 0.0f, c, ldc, err);
}

qd_code qd_host_gemm_at(qd_lane *l, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda, const float *b,
                        uint64_t ldb, float *c, uint64_t ldc, qd_err *err)
{
    return gemm(l, 'T', 'N', m, n, k, a, lda, b, ldb, 1.0f, c, ldc, err);
}

qd_code qd_host_gram_begin_f32(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                               qd_err *err)
{
    (void)l;
    (void)n;
    (void)err;
    *ret = (qd_gram){.x = x, .ld = ld, .rows = rows};
    return QD_OK;
}

qd_code qd_host_gram_f32(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                         uint64_t ldc, qd_err *err)
{
    return qd_host_gemm_at(l, m, n, g->rows, g->x + i, g->ld, g->x + j, g->ld, c, ldc, err);
}

void qd_host_numerics(const qd_ops *ops, char *ret)
{
    const dnnl_version_t *v = dnnl_version();
    (void)snprintf(ret, QD_NUMERICS_BYTES, "%s onednn-%d.%d.%d isa-%x", ops->name, v->major, v->minor, v->patch,
                   (unsigned)dnnl_get_effective_cpu_isa());
}
