#include "engine/device_memory.h"

#include "base/mem.h"

#include <inttypes.h>

/* What a CUDA context, the kernels' code, cuBLAS, cuSOLVER and NCCL take by themselves on a device of today, rounded
 * up, and a share for what grows with the device. */
#define RESERVE_BYTES    ((uint64_t)1 << 30)
#define RESERVE_SHARE    64
#define TRANSFER_BYTES   ((uint64_t)64 << 20)
#define TRANSFER_BUFFERS 2

const char *qd_residence_name(qd_residence r)
{
    static const char *const names[] = {"device", "host", "disk"};
    return (unsigned)r < QD_RESIDENCE_COUNT ? names[r] : "?";
}

const char *qd_stream_kind_name(qd_stream_kind k)
{
    static const char *const names[] = {"quantized", "source", "held_quantized", "held_source"};
    return (unsigned)k < QD_STREAM_COUNT ? names[k] : "?";
}

/* Weights and Hessians are there while tokens run or while columns are solved, never scratch of both. */
static uint64_t work_bytes(const qd_device_plan *d)
{
    return d->hessian_bytes + d->moment_bytes + d->angle_bytes + d->transfer_bytes +
           qd_max_u64(d->lane_bytes, d->factor_bytes + d->solve_bytes + d->code_bytes);
}

qd_code qd_device_place(const qd_device_need *n, qd_device_plan *ret, qd_err *err)
{
    qd_device_plan d = {.memory_bytes = ret->memory_bytes, .host_memory_bytes = ret->host_memory_bytes};
    d.reserve_bytes = RESERVE_BYTES + d.memory_bytes / RESERVE_SHARE;
    d.n_layers = n->layer != 0;
    d.weight_bytes = qd_max_u64(n->layer, n->head);
    d.lane_bytes = n->lane;
    d.angle_bytes = n->angles;
    d.moment_bytes = n->moments;
    d.hessian_bytes = n->hessians;
    d.factor_bytes = n->factor;
    d.solve_bytes = n->solve;
    d.code_bytes = n->codes;
    d.transfer_bytes = TRANSFER_BUFFERS * TRANSFER_BYTES;
    uint64_t must = d.reserve_bytes + d.weight_bytes + work_bytes(&d);
    if (must > d.memory_bytes)
        return qd_fail(err, QD_E_ROOM,
                       "not enough device memory: %" PRIu64 " bytes are there, at least %" PRIu64
                       " are needed: %" PRIu64 " for a layer's weights, %" PRIu64 " for its work, %" PRIu64
                       " for context and libraries",
                       d.memory_bytes, must, d.weight_bytes, work_bytes(&d), d.reserve_bytes);
    uint64_t left = d.memory_bytes - must;
    if (n->expert_hessians != 0 && n->expert_hessians <= left) {
        d.expert_hessians = true;
        d.hessian_bytes += n->expert_hessians;
        left -= n->expert_hessians;
    }
    d.host_pinned_bytes = d.transfer_bytes;
    uint64_t host = n->host + d.host_pinned_bytes;
    if (host > d.host_memory_bytes)
        return qd_fail(err, QD_E_ROOM,
                       "not enough memory: the job needs %" PRIu64 " bytes of the host beside the device, %" PRIu64
                       " are available",
                       host, d.host_memory_bytes);
    /* A layer waited for costs less than hidden vectors that come over the bus with each pass: they go first. */
    for (int s = 0; s < QD_STREAM_COUNT; s++) {
        d.residence[s] = n->stream[s] <= left ? QD_ON_DEVICE : QD_ON_DISK;
        if (d.residence[s] == QD_ON_DEVICE) left -= n->stream[s];
    }
    uint64_t both = qd_max_u64(2 * n->layer, n->head);
    if (n->layer != 0 && both - d.weight_bytes <= left) {
        d.weight_bytes = both;
        d.n_layers = 2;
        d.prefetches = true;
    } else if (n->layer != 0 && n->layer <= d.host_memory_bytes - host) {
        d.prefetches = true;
        d.host_pinned_bytes += n->layer;
        host += n->layer;
    }
    for (int s = 0; s < QD_STREAM_COUNT; s++) {
        if (d.residence[s] == QD_ON_DISK && n->stream[s] <= d.host_memory_bytes - host) {
            d.residence[s] = QD_ON_HOST;
            host += n->stream[s];
        }
        d.activation_bytes[d.residence[s]] += n->stream[s];
    }
    d.pool_bytes = d.weight_bytes + work_bytes(&d) + d.activation_bytes[QD_ON_DEVICE];
    d.host_peak_bytes = host;
    *ret = d;
    return QD_OK;
}
