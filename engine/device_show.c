/* device_show.c -- what a plan keeps on a GPU and beside it, for people and for programs. */
#include "engine/plan.h"

#include <inttypes.h>

static double gb(uint64_t bytes)
{
    return (double)bytes * 1e-9;
}

void qd_device_plan_text(const qd_plan *p, qd_buf *out)
{
    const qd_device_plan *d = &p->device;
    if (d->memory_bytes == 0) return;
    qd_buf_printf(out, "  device    %.2f GB: pool %.2f GB, %.2f GB left to context and libraries, %.2f GB free\n",
                  gb(d->memory_bytes), gb(d->pool_bytes), gb(d->reserve_bytes),
                  gb(d->memory_bytes - d->reserve_bytes - d->pool_bytes));
    if (d->n_layers != 0)
        qd_buf_printf(out,
                      "            weights %.2f GB (%s), Hessians %.2f GB, factor %.2f GB, rows being solved %.2f GB,\n"
                      "            codes %.2f GB, forward pass %.2f GB, hidden vectors %.2f GB\n",
                      gb(d->weight_bytes),
                      d->n_layers == 2 ? "a layer and the next"
                      : d->prefetches  ? "a layer; the next in pinned host memory"
                                       : "a layer; the next is read when it is done",
                      gb(d->hessian_bytes), gb(d->factor_bytes), gb(d->solve_bytes), gb(d->code_bytes),
                      gb(d->lane_bytes + d->angle_bytes + d->moment_bytes), gb(d->activation_bytes[QD_ON_DEVICE]));
    qd_buf_printf(out, "  host      %.2f GB: %.2f GB pinned, %.2f GB of hidden vectors; %.2f GB of those on disk\n",
                  gb(d->host_peak_bytes), gb(d->host_pinned_bytes), gb(d->activation_bytes[QD_ON_HOST]),
                  gb(d->activation_bytes[QD_ON_DISK]));
}

void qd_device_plan_json(const qd_plan *p, qd_buf *out)
{
    const qd_device_plan *d = &p->device;
    if (d->memory_bytes == 0) return;
    qd_buf_printf(out,
                  "\"device\":{\"memory_bytes\":%" PRIu64 ",\"reserve_bytes\":%" PRIu64 ",\"pool_bytes\":%" PRIu64
                  ",\"layers\":%u,\"prefetch\":%s,\"expert_hessians\":%s,\"weight_bytes\":%" PRIu64
                  ",\"hessian_bytes\":%" PRIu64 ",\"factor_bytes\":%" PRIu64 ",\"solve_bytes\":%" PRIu64
                  ",\"code_bytes\":%" PRIu64 ",\"lane_bytes\":%" PRIu64 ",\"angle_bytes\":%" PRIu64
                  ",\"moment_bytes\":%" PRIu64 ",\"transfer_bytes\":%" PRIu64 ",\"host_memory_bytes\":%" PRIu64
                  ",\"host_pinned_bytes\":%" PRIu64 ",\"host_peak_bytes\":%" PRIu64 ",\"activation_bytes\":{",
                  d->memory_bytes, d->reserve_bytes, d->pool_bytes, d->n_layers, d->prefetches ? "true" : "false",
                  d->expert_hessians ? "true" : "false", d->weight_bytes, d->hessian_bytes, d->factor_bytes,
                  d->solve_bytes, d->code_bytes, d->lane_bytes, d->angle_bytes, d->moment_bytes, d->transfer_bytes,
                  d->host_memory_bytes, d->host_pinned_bytes, d->host_peak_bytes);
    for (int r = 0; r < QD_RESIDENCE_COUNT; r++)
        qd_buf_printf(out, "%s\"%s\":%" PRIu64, r == 0 ? "" : ",", qd_residence_name((qd_residence)r),
                      d->activation_bytes[r]);
    qd_buf_str(out, "},\"streams\":{");
    for (int s = 0; s < QD_STREAM_COUNT; s++)
        qd_buf_printf(out, "%s\"%s\":\"%s\"", s == 0 ? "" : ",", qd_stream_kind_name((qd_stream_kind)s),
                      qd_residence_name(d->residence[s]));
    qd_buf_str(out, "}},");
}
