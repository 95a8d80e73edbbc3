/* ops_host.c -- the tables of the host's operations: they differ in how matrices are multiplied. */
#include "gpu/host_ops.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define TABLE(name_, packs_, pack, unpack, linear_, gram_begin_, gram_, attention_)                                 \
    {                                                                                                               \
        .name = name_, .packs = packs_, .on_host = true, .close = qd_host_close, .reserve = qd_host_reserve,        \
        .memory_peak = qd_host_memory_peak, .lane_open = qd_host_lane_open, .lane_close = qd_host_lane_close,       \
        .upload = qd_host_upload, .download = qd_host_download, .zero = qd_host_zero, .numerics = qd_host_numerics, \
        .weight_pack = pack, .weight_unpack = unpack, .linear = linear_, .gemm = qd_host_gemm,                      \
        .gram_begin = gram_begin_, .gram = gram_, .attention = attention_, .delta_rule = qd_host_delta_rule,        \
        .rms_norm = qd_host_rms_norm, .gated_norm = qd_host_gated_norm, .rope = qd_host_rope,                       \
        .conv_silu = qd_host_conv_silu, .silu_mul = qd_host_silu_mul, .gate = qd_host_gate,                         \
        .gate_rows = qd_host_gate_rows, .decay = qd_host_decay, .add = qd_host_add, .copy = qd_host_copy,           \
        .gather = qd_host_gather, .scatter_add = qd_host_scatter_add, .route = qd_host_route,                       \
        .finish = qd_host_finish, .block_amax = qd_host_op_block_amax, .fake_quant = qd_host_op_fake_quant,         \
        .load = qd_host_load, .store = qd_host_store,                                                               \
    }

static const qd_ops k_f32 = TABLE("cpu", false, qd_host_weight_pack, qd_host_weight_unpack, qd_host_linear,
                                  qd_host_gram_begin_f32, qd_host_gram_f32, qd_host_attention);
static const qd_ops k_bf16 = TABLE("cpu-bf16", true, qd_host_bf16_pack, qd_host_bf16_unpack, qd_host_bf16_linear,
                                   qd_host_gram_begin_f32, qd_host_gram_f32, qd_host_attention);
#if defined(__x86_64__)
static const qd_ops k_int8 = TABLE("cpu-int8", true, qd_host_int8_pack, qd_host_int8_unpack, qd_host_int8_linear,
                                   qd_host_gram_begin, qd_host_gram, qd_host_int8_attention);
static const qd_ops k_coarse = TABLE("cpu-int8-coarse", true, qd_host_int8_pack_coarse, qd_host_int8_unpack,
                                     qd_host_int8_linear, qd_host_gram_begin, qd_host_gram, qd_host_int8_attention);
#endif

/* BF16 products are twice as fast as F32 ones on AMD's processors that have them, and faster still with AMX; Intel's
 * without AMX do them at half the rate of F32 (measured: 86 against 157 GFLOP/s on one thread). */
static bool bf16_is_faster(void)
{
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0, max = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    bool amx = (d >> 22 & 1) != 0 && (d >> 24 & 1) != 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return amx;
    bool bf16 = (a >> 5 & 1) != 0;
    if (!__get_cpuid(0, &max, &b, &c, &d)) return amx;
    return amx || (bf16 && b == signature_AMD_ebx);
#else
    return false;
#endif
}

static const qd_ops *int8_table(bool coarse)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
        return coarse ? &k_coarse : &k_int8;
#endif
    (void)coarse;
    return NULL;
}

const qd_ops *qd_ops_host(const char *name)
{
    const qd_ops *all[] = {&k_f32, &k_bf16};
    if (name == NULL) return bf16_is_faster() ? &k_bf16 : &k_f32;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    if (strcmp("cpu-int8", name) == 0) return int8_table(false);
    return strcmp("cpu-int8-coarse", name) == 0 ? int8_table(true) : NULL;
}

const qd_ops *qd_ops_calibration(bool coarse)
{
    const qd_ops *best = qd_ops_host(NULL), *int8 = int8_table(coarse);
    return best == &k_bf16 || int8 == NULL ? best : int8;
}
