/* cuda.h -- the one place that decides what CUDA is: nvcc, or the tests' launch shim under a C compiler.
 *
 * A .cu of this folder is C as well as CUDA. A kernel takes one structure by value, so that the bytes of a launch are
 * the same for nvcc, for the shim and for translated PTX. */
#ifndef QD_GPU_CUDA_CUDA_H
#define QD_GPU_CUDA_CUDA_H

/* QD_KERNEL(name, type): head of a kernel's definition, its parameter is `const type a`; QD_KERNEL_DECLARE: its
 * declaration. QD_LAUNCH: 0, or CUDA's code; grid and block are one-dimensional, args points to the structure. */
#ifdef __CUDACC__
#include <cuda_runtime.h>
#define QD_DEVICE                     __device__ static inline
#define QD_UNROLL                     _Pragma("unroll")
#define QD_KERNEL(name, type)         extern "C" __global__ void name(const type a)
#define QD_KERNEL_DECLARE(name, type) extern "C" __global__ void name(const type a)
#define QD_LAUNCH(name, grid, block, stream, args) \
    (name<<<(unsigned)(grid), (unsigned)(block), 0, (cudaStream_t)(stream)>>>(*(args)), (int)cudaGetLastError())
#else
#include "tests/shim/cuda_shim.h"
#define QD_DEVICE static inline
#define QD_UNROLL
/* Here the symbol takes the address of the structure. */
#define QD_KERNEL(name, type)                 \
    static void name##_thread(const type a);  \
    void name(const void *params)             \
    {                                         \
        name##_thread(*(const type *)params); \
    }                                         \
    static void name##_thread(const type a)
#define QD_KERNEL_DECLARE(name, type) void name(const void *params)
#define QD_LAUNCH(name, grid, block, stream, args) \
    shim_launch_on((stream), (name), (args), sizeof *(args), shim_dim(grid), shim_dim(block))
#endif

#endif
