/* nvfp4.cu -- NVFP4 encode: one thread a block of 16, one kernel for each weight dtype and scale rule. */
#include "gpu/cuda/args.h"
#include "gpu/cuda/load.h"
#include "gpu/kernels.h"

/* dtype, rule and ct are constants at every call, so that each kernel keeps only its own path and registers. Grid: at
 * least n_blocks threads, any block. */
QD_DEVICE void encode(const qd_cuda_encode_args *a, int dtype, qd_nvfp4_rule rule, int ct)
{
    const uint64_t b = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= a->n_blocks) return;
    float w[QD_NVFP4_BLOCK];
    uint8_t codes[QD_NVFP4_BLOCK / 2];
    qd_nvfp4_block_sums sums;
    load_block(a->w, dtype, b, w);
    if (ct) {
        sums = qd_nvfp4_block_ct(w, a->gs, (qd_nvfp4_arith)a->arith, codes, a->scales + b);
    } else {
        const float *weight = 0;
        if (rule == QD_RULE_MSE && a->col_weight != 0) weight = a->col_weight + b % a->blocks_per_row * QD_NVFP4_BLOCK;
        sums = qd_nvfp4_block_fp32(w, weight, a->gs, rule, codes, a->scales + b);
    }
    store_codes(a->codes, b, codes);
    a->err2[b] = sums.err2;
    a->w2[b] = sums.w2;
    a->flags[b] = (uint8_t)((sums.clipped != 0 ? QD_CUDA_CLIPPED : 0) | (sums.zero != 0 ? QD_CUDA_ZERO : 0));
}

#define X(dtype, suffix)                                        \
    QD_KERNEL(qd_k_minmax_##suffix, qd_cuda_encode_args)        \
    {                                                           \
        encode(&a, dtype, QD_RULE_MINMAX, 0);                   \
    }                                                           \
    QD_KERNEL(qd_k_four_over_six_##suffix, qd_cuda_encode_args) \
    {                                                           \
        encode(&a, dtype, QD_RULE_FOUR_OVER_SIX, 0);            \
    }                                                           \
    QD_KERNEL(qd_k_mse_##suffix, qd_cuda_encode_args)           \
    {                                                           \
        encode(&a, dtype, QD_RULE_MSE, 0);                      \
    }                                                           \
    QD_KERNEL(qd_k_ct_##suffix, qd_cuda_encode_args)            \
    {                                                           \
        encode(&a, dtype, QD_RULE_MINMAX, 1);                   \
    }
QD_CUDA_DTYPES(X)
#undef X
