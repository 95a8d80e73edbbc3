/* host_blocks.h -- blocks of 16 activations on the host: their largest magnitudes, and FP4 and back. */
#ifndef QD_GPU_HOST_BLOCKS_H
#define QD_GPU_HOST_BLOCKS_H

#include <stdint.h>

/* ret_bits[b]: largest |x| of block b as the bits of a float32 (they order as integers, NaN above all). x
 * [n_blocks][16]. */
void qd_host_block_amax(const float *x, uint64_t n_blocks, uint32_t *ret_bits);
/* y = x [n_blocks][16], finite, to NVFP4 (min-max, fp32 arithmetic of gpu/kernels.h) under the global scale gs and
 * back: the bits of qd_nvfp4_block_fp32() decoded. bits: the blocks' largest magnitudes. y may be x. */
void qd_host_fake_quant(float gs, const uint32_t *bits, const float *x, uint64_t n_blocks, float *y);
/* The squared error that this leaves. Sums: 16 elements of a block in float32, in a fixed tree; blocks in order. */
double qd_host_fake_quant_error(float gs, const uint32_t *bits, const float *x, uint64_t n_blocks);

#endif
