/* rows.h -- reductions over a vector by the QD_SUM_LANES threads of half a warp, in the host's order: thread i adds
 * elements i, i + 16, .., then a tree. Every thread of the warp must call them. */
#ifndef QD_GPU_CUDA_ROWS_H
#define QD_GPU_CUDA_ROWS_H

#include "gpu/cuda/cuda.h"
#include "gpu/elements.h"

#define QD_FULL_WARP 0xffffffffu

/* Addition commutes, so that both threads of a pair hold the bits of the host's t[i] + t[i + step]. */
QD_DEVICE float lanes_sum(float x)
{
    for (int step = QD_SUM_LANES / 2; step > 0; step /= 2)
        x += qd_bits_f32(__shfl_xor_sync(QD_FULL_WARP, qd_f32_bits(x), step));
    return x;
}

QD_DEVICE float lanes_max(float x)
{
    for (int step = QD_SUM_LANES / 2; step > 0; step /= 2) {
        const float y = qd_bits_f32(__shfl_xor_sync(QD_FULL_WARP, qd_f32_bits(x), step));
        x = y > x ? y : x;
    }
    return x;
}

/* Sum of squares of x [n], n = 0 for a thread without a vector. */
QD_DEVICE float lanes_squares(const float *x, uint64_t n, uint32_t lane)
{
    float s = 0;
    for (uint64_t i = lane; i < n; i += QD_SUM_LANES) s += x[i] * x[i];
    return lanes_sum(s);
}

#endif
