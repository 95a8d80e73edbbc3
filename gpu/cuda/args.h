/* args.h -- the kernels of gpu/cuda and their parameters; every pointer is device memory. */
#ifndef QD_GPU_CUDA_ARGS_H
#define QD_GPU_CUDA_ARGS_H

#include "base/dtype.h"
#include "gpu/cuda/cuda.h"
#include "gpu/cuda/launch.h"

#include <stdint.h>

typedef struct qd_cuda_amax_args {
    const void *w; /* [n], 16-byte aligned */
    uint64_t n;
    uint32_t *amax_bits; /* raised to the float32 pattern of max |w|; >= 0x7f800000 when w has an infinity or a NaN */
} qd_cuda_amax_args;

typedef struct qd_cuda_encode_args {
    const void *w;           /* [n_blocks][16], 16-byte aligned */
    const float *col_weight; /* mse kernels only: NULL, or [blocks_per_row][16] */
    uint64_t blocks_per_row;
    uint64_t n_blocks;
    uint8_t *codes;   /* [n_blocks][8], 8-byte aligned */
    uint8_t *scales;  /* [n_blocks] */
    float *err2, *w2; /* [n_blocks] each: the block's sums of gpu/kernels.h */
    uint8_t *flags;   /* [n_blocks]: QD_CUDA_CLIPPED, QD_CUDA_ZERO */
    float gs;
    int32_t arith; /* ct kernels only: qd_nvfp4_arith, not QD_ARITH_FP32 */
} qd_cuda_encode_args;

/* X(dtype, suffix): the dtypes that every kernel is there for. */
#define QD_CUDA_DTYPES(X) X(QD_BF16, bf16) X(QD_F16, f16) X(QD_F32, f32)

#define X(dtype, suffix)                                                 \
    QD_KERNEL_DECLARE(qd_k_amax_##suffix, qd_cuda_amax_args);            \
    QD_KERNEL_DECLARE(qd_k_minmax_##suffix, qd_cuda_encode_args);        \
    QD_KERNEL_DECLARE(qd_k_four_over_six_##suffix, qd_cuda_encode_args); \
    QD_KERNEL_DECLARE(qd_k_mse_##suffix, qd_cuda_encode_args);           \
    QD_KERNEL_DECLARE(qd_k_ct_##suffix, qd_cuda_encode_args);
QD_CUDA_DTYPES(X)
#undef X

#endif
