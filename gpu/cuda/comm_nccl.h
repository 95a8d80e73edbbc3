/* comm_nccl.h -- gangs of CUDA devices: gpu/comm.h over NCCL. */
#ifndef QD_GPU_CUDA_COMM_NCCL_H
#define QD_GPU_CUDA_COMM_NCCL_H

#include "gpu/comm.h"

/* The one symbol that a program looks for in libqd_nccl.so, which is never unloaded: NCCL has threads of its own. */
__attribute__((visibility("default"))) const qd_comm_kind *qd_comm_nccl(void);

#endif
