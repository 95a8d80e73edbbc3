/* blocks.cu -- blocks of 16 activations: largest magnitudes, FP4 and back; second moments of channels. */
#include "gpu/cuda/forward_args.h"
#include "gpu/elements.h"
#include "gpu/nvfp4.h"

/* A thread a block of 16. */
QD_KERNEL(qd_k_block_amax, qd_cuda_blocks_args)
{
    const uint64_t b = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= a.n_blocks) return;
    uint32_t most = 0;
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) {
        const uint32_t m = qd_f32_bits(a.x[b * QD_NVFP4_BLOCK + (uint64_t)i]) & 0x7fffffffu;
        most = m > most ? m : most;
    }
    a.bits[b] = most;
}

/* A thread an element: the scale is cheap beside memory. */
QD_KERNEL(qd_k_fake_quant, qd_cuda_blocks_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i / QD_NVFP4_BLOCK >= a.n_blocks) return;
    const float s = qd_fake_scale(a.gs, a.bits[i / QD_NVFP4_BLOCK]);
    a.y[i] = qd_fake_element(a.x[i], a.gs, s, 1.0f / s);
}

/* A thread a channel. */
QD_KERNEL(qd_k_moments, qd_cuda_moments_args)
{
    const uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= a.n) return;
    double sum = a.sum2[c];
    for (uint64_t t = 0; t < a.rows; t++) sum += (double)a.x[t * a.ldx + c] * (double)a.x[t * a.ldx + c];
    a.sum2[c] = sum;
}
