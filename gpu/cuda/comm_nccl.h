/* comm_nccl.h -- gangs of CUDA devices: gpu/comm.h over NCCL. */
#ifndef QD_GPU_CUDA_COMM_NCCL_H
#define QD_GPU_CUDA_COMM_NCCL_H

#include "gpu/comm.h"

#include <stddef.h>

enum {
    QD_NCCL_LIBRARY_VERSION = 1 /* of the symbol below and of gpu/comm.h */
};

/* The one symbol that gpu/comm_of.c looks for in libqd_nccl.so. */
typedef struct qd_nccl_library {
    uint32_t version, comm_bytes; /* sizeof(qd_comm): a library of another build is refused */
    const qd_comm_kind *(*kind)(void);
    /* "nccl-2.27.3", of the NCCL that it found. Errors: QD_E_DEVICE. */
    qd_code (*name)(char *ret, size_t room, qd_err *err);
} qd_nccl_library;

__attribute__((visibility("default"))) const qd_nccl_library *qd_nccl_library_of(void);

const qd_comm_kind *qd_comm_nccl(void);

#endif
