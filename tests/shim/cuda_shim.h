/* cuda_shim.h -- runs CUDA kernels on the processor: one fibre a CUDA thread, one block at a time.
 *
 * What it holds kernels to is stricter than a GPU: a barrier or a warp operation that not all threads reach, a wrong
 * mask, too many threads end the program with a sentence. Shared memory, and what a lane reads from one that takes no
 * part, is poison. Blocks never overlap in time; atomics are plain. One launch at a time in a process. */
#ifndef QD_TESTS_SHIM_CUDA_SHIM_H
#define QD_TESTS_SHIM_CUDA_SHIM_H

#include <stddef.h>
#include <stdint.h>

typedef struct dim3 {
    unsigned x, y, z;
} dim3;

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __host__
#define __device__
/* One section for all shared arrays, so that the shim can poison them before each block. */
#define __shared__ static __attribute__((section("qd_shared")))

enum {
    SHIM_POISON_BYTE = 0xa5,
    SHIM_WARP = 32
};
#define SHIM_POISON 0xa5a5a5a5u

/* The orders in which blocks, warps and lanes get their turn. In the first three a warp runs as far as it can alone:
 * what is most likely to show a missing barrier. */
typedef enum shim_order {
    SHIM_FORWARD,
    SHIM_REVERSE,
    SHIM_SHUFFLED, /* drawn anew at every turn from the seed */
    SHIM_LOCKSTEP, /* each warp in turn goes up to its next warp operation */
    SHIM_ORDER_COUNT
} shim_order;

void shim_set_order(shim_order order, uint32_t seed);

static inline dim3 shim_dim(uint64_t x)
{
    return (dim3){x > 0xffffffffu ? 0 : (unsigned)x, 1, 1};
}

/* cudaLaunchKernel: runs kernel(copy of params) once a thread. Returns 0, or 9 (cudaErrorInvalidConfiguration) for a
 * grid or block that no GPU takes. */
int shim_launch(void (*kernel)(const void *params), const void *params, size_t bytes, dim3 grid, dim3 block);

/* The same on a stream. A double of the CUDA runtime takes it over by setting shim_stream_launch; without one the
 * kernel runs at once. */
extern int (*shim_stream_launch)(void *stream, void (*kernel)(const void *params), const void *params, size_t bytes,
                                 dim3 grid, dim3 block);
int shim_launch_on(void *stream, void (*kernel)(const void *params), const void *params, size_t bytes, dim3 grid,
                   dim3 block);

/* The operations below are for kernels. */
void shim_block_barrier(void);

typedef enum shim_shfl_mode {
    SHIM_UP,
    SHIM_DOWN,
    SHIM_BFLY,
    SHIM_IDX
} shim_shfl_mode;

/* shfl.sync of the PTX ISA: b the lane or distance, c clamp and segment mask; *ret_valid (or NULL) its predicate. */
uint32_t shim_shfl(shim_shfl_mode mode, uint32_t mask, uint32_t value, uint32_t b, uint32_t c, uint32_t *ret_valid);

typedef enum shim_vote_mode {
    SHIM_BALLOT,
    SHIM_ANY,
    SHIM_ALL
} shim_vote_mode;

uint32_t shim_vote(shim_vote_mode mode, uint32_t mask, int predicate);
void shim_warp_barrier(uint32_t mask);
uint32_t shim_atomic_max(uint32_t *p, uint32_t v);
uint32_t shim_atomic_add(uint32_t *p, uint32_t v);

/* CUDA's spellings, for 32-bit unsigned values and whole warps. */
#define __syncthreads()                     shim_block_barrier()
#define __syncwarp(mask)                    shim_warp_barrier(mask)
#define __shfl_xor_sync(mask, v, lane_mask) shim_shfl(SHIM_BFLY, (mask), (v), (uint32_t)(lane_mask), 0x1f, NULL)
#define __shfl_down_sync(mask, v, delta)    shim_shfl(SHIM_DOWN, (mask), (v), (uint32_t)(delta), 0x1f, NULL)
#define __shfl_up_sync(mask, v, delta)      shim_shfl(SHIM_UP, (mask), (v), (uint32_t)(delta), 0, NULL)
#define __shfl_sync(mask, v, lane)          shim_shfl(SHIM_IDX, (mask), (v), (uint32_t)(lane), 0x1f, NULL)
#define __ballot_sync(mask, predicate)      shim_vote(SHIM_BALLOT, (mask), (predicate))
#define __any_sync(mask, predicate)         ((int)shim_vote(SHIM_ANY, (mask), (predicate)))
#define __all_sync(mask, predicate)         ((int)shim_vote(SHIM_ALL, (mask), (predicate)))
#define atomicMax(p, v)                     shim_atomic_max((p), (v))
#define atomicAdd(p, v)                     shim_atomic_add((p), (v))

#endif
