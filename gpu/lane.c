/* lane.c -- lanes of any device. */
#include "base/mem.h"
#include "gpu/ops.h"

#include <inttypes.h>

qd_code qd_lane_open(qd_lane *l, qd_err *err)
{
    l->scratch = (qd_scratch){.memory = l->ops->memory};
    return l->ops->lane_open(l, err);
}

void qd_lane_close(qd_lane *l)
{
    qd_scratch_done(&l->scratch);
    l->ops->lane_close(l);
}

qd_code qd_lane_see(qd_lane *l, const float *x, uint64_t n, const float **ret, float **ret_copy, qd_err *err)
{
    *ret = x;
    *ret_copy = NULL;
    if (l->ops->on_host) return QD_OK;
    float *copy = qd_malloc(n * sizeof *copy);
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu64 " values", n);
    qd_code rc = l->ops->download(l, QD_F32, x, n, copy, err);
    if (rc != QD_OK) {
        qd_free(copy);
        return rc;
    }
    *ret = *ret_copy = copy;
    return QD_OK;
}
