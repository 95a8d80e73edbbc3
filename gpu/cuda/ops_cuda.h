/* ops_cuda.h -- the CUDA devices: gpu/ops.h over the CUDA runtime and cuBLAS. */
#ifndef QD_GPU_CUDA_OPS_CUDA_H
#define QD_GPU_CUDA_OPS_CUDA_H

#include "gpu/ops.h"

enum {
    QD_CUDA_LIBRARY_VERSION = 1 /* of the symbol below and of gpu/ops.h */
};

/* The one symbol that the loader (gpu/device.c) looks for in libqd_cuda.so besides the launches of launch.h. */
typedef struct qd_cuda_library {
    uint32_t version, ops_bytes; /* sizeof(qd_ops): a library of another build is refused */
    /* Device `index` of CUDA; closed by its entry. Errors: QD_E_UNSUPPORTED (no such device), QD_E_DEVICE. */
    qd_code (*open)(int index, const qd_ops **ret, qd_err *err);
} qd_cuda_library;

#ifdef __cplusplus
extern "C" {
#endif
__attribute__((visibility("default"))) const qd_cuda_library *qd_cuda_library_of(void);
#ifdef __cplusplus
}
#endif

#endif
