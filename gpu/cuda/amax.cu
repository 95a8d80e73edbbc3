/* amax.cu -- the largest |w|, as an integer maximum of bit patterns: the order of the threads does not matter, and an
 * infinity or a NaN shows by being the largest. */
#include "gpu/cuda/args.h"
#include "gpu/cuda/load.h"

enum {
    WARP = 32
};

QD_DEVICE uint32_t max_u32(uint32_t x, uint32_t y)
{
    return x > y ? x : y;
}

/* The magnitude in a word: one of 32 bits, or the larger of two of 16 bits. */
QD_DEVICE uint32_t magnitude(uint32_t word, int dtype)
{
    if (dtype == QD_F32) return word & 0x7fffffffu;
    return max_u32(word & 0x7fffu, (word >> 16) & 0x7fffu);
}

/* Any grid; blockDim.x is a multiple of 32, at most 1024. Several launches may raise the same maximum. */
QD_DEVICE void amax(const qd_cuda_amax_args *a, int dtype)
{
    __shared__ uint32_t warp_max[WARP];
    const uint64_t per_load = dtype == QD_F32 ? 4 : 8, n_loads = a->n / per_load;
    const uint64_t first = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, step = (uint64_t)gridDim.x * blockDim.x;
    uint32_t m = 0;
    for (uint64_t i = first; i < n_loads; i += step) {
        const qd_u32x4 v = ((const qd_u32x4 *)a->w)[i];
        m = max_u32(m, max_u32(max_u32(magnitude(v.x, dtype), magnitude(v.y, dtype)),
                               max_u32(magnitude(v.z, dtype), magnitude(v.w, dtype))));
    }
    for (uint64_t i = n_loads * per_load + first; i < a->n; i += step) {
        const uint32_t word = dtype == QD_F32 ? ((const qd_u32_any *)a->w)[i] : ((const qd_u16_any *)a->w)[i];
        m = max_u32(m, magnitude(word, dtype));
    }
    for (int o = WARP / 2; o > 0; o /= 2) m = max_u32(m, __shfl_xor_sync(0xffffffffu, m, o));
    if (threadIdx.x % WARP == 0) warp_max[threadIdx.x / WARP] = m;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (uint32_t i = 1; i < blockDim.x / WARP; i++) m = max_u32(m, warp_max[i]);
    /* Widening keeps the order, infinities and NaN on top, so only the maximum is widened. */
    if (dtype == QD_BF16) m <<= 16;
    if (dtype == QD_F16) m = qd_f32_bits(qd_f16_to_f32((uint16_t)m));
    atomicMax(a->amax_bits, m);
}

#define X(dtype, suffix)                             \
    QD_KERNEL(qd_k_amax_##suffix, qd_cuda_amax_args) \
    {                                                \
        amax(&a, dtype);                             \
    }
QD_CUDA_DTYPES(X)
#undef X
