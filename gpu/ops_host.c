/* ops_host.c -- the table of the host's operations. */
#include "gpu/host_ops.h"

static const qd_ops k_host = {
    .name = "cpu",
    .weight_pack = qd_host_weight_pack,
    .weight_unpack = qd_host_weight_unpack,
    .linear = qd_host_linear,
    .attention = qd_host_attention,
    .delta_rule = qd_host_delta_rule,
    .rms_norm = qd_host_rms_norm,
    .gated_norm = qd_host_gated_norm,
    .rope = qd_host_rope,
    .conv_silu = qd_host_conv_silu,
    .silu_mul = qd_host_silu_mul,
    .gate = qd_host_gate,
    .gate_rows = qd_host_gate_rows,
    .decay = qd_host_decay,
    .add = qd_host_add,
    .copy = qd_host_copy,
    .gather = qd_host_gather,
    .scatter_add = qd_host_scatter_add,
    .route = qd_host_route,
    .load = qd_host_load,
    .store = qd_host_store,
};

const qd_ops *qd_ops_host(void)
{
    return &k_host;
}
