/* load.h -- a thread's wide loads and stores; the device is little endian. */
#ifndef QD_GPU_CUDA_LOAD_H
#define QD_GPU_CUDA_LOAD_H

#include "base/dtype.h"
#include "gpu/cuda/cuda.h"
#include "gpu/num.h"
#include "gpu/nvfp4.h"

typedef struct __attribute__((aligned(16), may_alias)) qd_u32x4 {
    uint32_t x, y, z, w;
} qd_u32x4;

typedef struct __attribute__((aligned(8), may_alias)) qd_u32x2 {
    uint32_t x, y;
} qd_u32x2;

typedef uint16_t __attribute__((may_alias)) qd_u16_any;
typedef uint32_t __attribute__((may_alias)) qd_u32_any;

QD_DEVICE float load_half(uint32_t h, int dtype)
{
    return dtype == QD_BF16 ? qd_bf16_to_f32((uint16_t)h) : qd_f16_to_f32((uint16_t)h);
}

/* out [16] = block b of w; dtype BF16, F16 or F32. */
QD_DEVICE void load_block(const void *w, int dtype, uint64_t b, float *out)
{
    const int n_loads = dtype == QD_F32 ? 4 : 2;
    const qd_u32x4 *p = (const qd_u32x4 *)w + b * (uint64_t)n_loads;
    for (int i = 0; i < n_loads; i++) {
        const qd_u32x4 v = p[i];
        const uint32_t part[4] = {v.x, v.y, v.z, v.w};
        for (int j = 0; j < 4; j++) {
            if (dtype == QD_F32) {
                out[4 * i + j] = qd_bits_f32(part[j]);
            } else {
                out[8 * i + 2 * j] = load_half(part[j] & 0xffffu, dtype);
                out[8 * i + 2 * j + 1] = load_half(part[j] >> 16, dtype);
            }
        }
    }
}

QD_DEVICE void store_codes(uint8_t *codes, uint64_t b, const uint8_t *c)
{
    const qd_u32x2 v = {
        c[0] | (uint32_t)c[1] << 8 | (uint32_t)c[2] << 16 | (uint32_t)c[3] << 24,
        c[4] | (uint32_t)c[5] << 8 | (uint32_t)c[6] << 16 | (uint32_t)c[7] << 24,
    };
    ((qd_u32x2 *)codes)[b] = v;
}

#endif
