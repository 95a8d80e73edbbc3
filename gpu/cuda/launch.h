/* launch.h -- C entry points to the kernels of gpu/cuda: choose kernel, grid and block, queue the launch on a stream.
 *
 * Every pointer but the structures themselves is device memory; nothing waits. Returns 0 or a cudaError_t;
 * QD_CUDA_INVALID (cudaErrorInvalidValue) for a dtype, rule, arithmetic, size or alignment without a kernel, before
 * anything is queued. Threads: no state of its own. */
#ifndef QD_GPU_CUDA_LAUNCH_H
#define QD_GPU_CUDA_LAUNCH_H

#include "gpu/nvfp4.h"

#include <stdint.h>

enum {
    QD_CUDA_INVALID = 1
};

enum { /* bits of qd_cuda_block_sums.flags */
    QD_CUDA_CLIPPED = 1,
    QD_CUDA_ZERO = 2
};

/* What an encode leaves beside codes and scales, [n_blocks] each. Added up in block order in float64 by the host, err2
 * and w2 give the bits of qd_nvfp4_sums. */
typedef struct qd_cuda_block_sums {
    float *err2, *w2;
    uint8_t *flags;
} qd_cuda_block_sums;

/* What the shared library shows; all else in it is hidden. */
#define QD_CUDA_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* Raises *amax_bits (zeroed before the first call) to the float32 pattern of the largest |w| of n elements; >=
 * 0x7f800000 when a NaN or an infinity is among them. w: 16-byte aligned. dtype: qd_dtype. stream: cudaStream_t. */
QD_CUDA_API int qd_cuda_amax(int dtype, const void *w, uint64_t n, uint32_t *amax_bits, void *stream);

/* gpu/nvfp4.h says what a tile is; here w is 16-byte and codes 8-byte aligned. */
QD_CUDA_API int qd_cuda_nvfp4_encode(const qd_nvfp4_tile *t, const qd_cuda_block_sums *sums, void *stream);

#ifdef __cplusplus
}
#endif

#endif
