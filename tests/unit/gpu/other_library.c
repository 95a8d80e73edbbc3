/* other_library.c -- libqd_cuda.so and libqd_nccl.so of a build with another version. */
#include "gpu/cuda/comm_nccl.h"
#include "gpu/cuda/ops_cuda.h"

const qd_cuda_library *qd_cuda_library_of(void)
{
    static const qd_cuda_library library = {.version = QD_CUDA_LIBRARY_VERSION + 1, .ops_bytes = sizeof(qd_ops)};
    return &library;
}

const qd_nccl_library *qd_nccl_library_of(void)
{
    static const qd_nccl_library library = {.version = QD_NCCL_LIBRARY_VERSION, .comm_bytes = sizeof(qd_comm) + 8};
    return &library;
}
