#include "gpu/host_blocks.h"

#include "gpu/host_ops.h"
#include "gpu/host_vec.h"
#include "gpu/nvfp4.h"

enum {
    BLOCK = QD_NVFP4_BLOCK
};

QD_VEC void qd_host_block_amax(const float *x, uint64_t n_blocks, uint32_t *ret_bits)
{
    for (uint64_t b = 0; b < n_blocks; b++) {
        uint32_t m = 0;
        for (int i = 0; i < BLOCK; i++) {
            uint32_t a = qd_f32_bits(x[b * BLOCK + (uint64_t)i]) & 0x7fffffffu;
            m = a > m ? a : m;
        }
        ret_bits[b] = m;
    }
}

/* One block v to NVFP4 and back; bits: its largest magnitude. */
QD_INLINE void fake_quant(float gs, uint32_t bits, const float *v, float *to)
{
    float s = qd_fake_scale(gs, bits), rcp = 1.0f / s;
    for (int i = 0; i < BLOCK; i++) to[i] = qd_fake_element(v[i], gs, s, rcp);
}

QD_VEC void qd_host_fake_quant(float gs, const uint32_t *bits, const float *x, uint64_t n_blocks, float *y)
{
    for (uint64_t b = 0; b < n_blocks; b++) fake_quant(gs, bits[b], x + b * BLOCK, y + b * BLOCK);
}

QD_VEC double qd_host_fake_quant_error(float gs, const uint32_t *bits, const float *x, uint64_t n_blocks)
{
    double sum = 0;
    _Static_assert((int)BLOCK == (int)QD_VEC_LANES, "a block is summed like a vector");
    for (uint64_t b = 0; b < n_blocks; b++) {
        float d[BLOCK];
        fake_quant(gs, bits[b], x + b * BLOCK, d);
        for (int i = 0; i < BLOCK; i++)
            d[i] = (x[b * BLOCK + (uint64_t)i] - d[i]) * (x[b * BLOCK + (uint64_t)i] - d[i]);
        sum += (double)qd_lanes_sum(d);
    }
    return sum;
}

void qd_host_op_block_amax(const qd_lane *l, const float *x, uint64_t n_blocks, uint32_t *bits)
{
    (void)l;
    qd_host_block_amax(x, n_blocks, bits);
}

void qd_host_op_fake_quant(const qd_lane *l, float gs, const uint32_t *bits, const float *x, uint64_t n_blocks,
                           float *y)
{
    (void)l;
    qd_host_fake_quant(gs, bits, x, n_blocks, y);
}
