/* host_linear.c -- y = x w^T + b. A BF16 matrix stays BF16 in memory and is widened a few rows at a time, into the
 * cache: the products of BF16 values are exact in F32, and F32 products are what most processors do fastest. */
#include "base/mem.h"
#include "gpu/host_ops.h"

#define WIDE_BYTES (UINT64_C(512) << 10) /* of widened rows: half of a second-level cache */
enum {
    ROWS_ALIGN = 64 /* oneDNN's kernels like whole tiles */
};

qd_code qd_host_weight_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err)
{
    (void)ops;
    (void)bf16;
    (void)tasks;
    (void)err;
    w->packed = NULL;
    return QD_OK;
}

void qd_host_weight_unpack(qd_weight *w)
{
    w->packed = NULL;
}

qd_code qd_host_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y, uint64_t ldy,
                       qd_err *err)
{
    qd_code rc = QD_OK;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    float *wide = NULL;
    uint64_t step = WIDE_BYTES / (w->k * sizeof(float)) / ROWS_ALIGN * ROWS_ALIGN;
    step = qd_min_u64(qd_max_u64(step, ROWS_ALIGN), w->n);
    if (w->dtype != QD_F32) QD_TRY(qd_scratch_take(&l->scratch, step, w->k, &wide, err));
    for (uint64_t n0 = 0; n0 < w->n; n0 += step) {
        uint64_t n = qd_min_u64(step, w->n - n0);
        const float *b = wide;
        if (wide != NULL)
            qd_host_load(w->dtype, (const uint16_t *)w->data + n0 * w->k, n * w->k, wide);
        else
            b = (const float *)w->data + n0 * w->k;
        QD_TRY(qd_host_gemm(l, true, m, n, w->k, x, ldx, b, w->k, false, y + n0, ldy, err));
        qd_host_round(y + n0, ldy, m, n, w->bias != NULL ? w->bias + n0 : NULL, l->bf16);
        QD_TRY(qd_lane_tick(l, err));
    }
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
