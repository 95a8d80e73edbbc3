/* host_lane.c -- lanes of the host: nothing to hold, and its memory is the program's. */
#include "gpu/host_ops.h"

#include <string.h>

void qd_host_close(const qd_ops *ops)
{
    (void)ops;
}

qd_code qd_host_reserve(const qd_ops *ops, uint64_t bytes, qd_err *err)
{
    (void)ops;
    (void)bytes;
    (void)err;
    return QD_OK;
}

uint64_t qd_host_memory_peak(const qd_ops *ops)
{
    (void)ops;
    return 0;
}

qd_code qd_host_lane_open(qd_lane *l, qd_err *err)
{
    (void)l;
    (void)err;
    return QD_OK;
}

void qd_host_lane_close(qd_lane *l)
{
    (void)l;
}

qd_code qd_host_upload(qd_lane *l, qd_dtype dtype, const void *from, uint64_t n, float *to, qd_err *err)
{
    (void)l;
    (void)err;
    qd_host_load(dtype, from, n, to);
    return QD_OK;
}

qd_code qd_host_download(qd_lane *l, qd_dtype dtype, const float *from, uint64_t n, void *to, qd_err *err)
{
    (void)l;
    (void)err;
    qd_host_store(dtype, from, n, to);
    return QD_OK;
}

void qd_host_zero(const qd_lane *l, float *x, uint64_t n)
{
    (void)l;
    memset(x, 0, n * sizeof *x);
}

qd_code qd_host_finish(qd_lane *l, qd_err *err)
{
    (void)l;
    (void)err;
    return QD_OK;
}
