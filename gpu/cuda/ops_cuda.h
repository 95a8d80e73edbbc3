/* ops_cuda.h -- the CUDA devices: gpu/ops.h and gpu/dev.h over the CUDA runtime and cuBLAS. */
#ifndef QD_GPU_CUDA_OPS_CUDA_H
#define QD_GPU_CUDA_OPS_CUDA_H

#include "gpu/dev.h"
#include "gpu/ops.h"

enum {
    QD_CUDA_LIBRARY_VERSION = 4 /* of the symbol below, of gpu/ops.h, gpu/solver.h and gpu/dev.h */
};

/* The one symbol that the loader (gpu/device.c) looks for in libqd_cuda.so besides the launches of launch.h. */
typedef struct qd_cuda_library {
    uint32_t version, ops_bytes; /* sizeof(qd_ops): a library of another build is refused */
    /* Device `index` of CUDA; closed by its entry. Errors: QD_E_UNSUPPORTED (no such device), QD_E_DEVICE. */
    qd_code (*open)(int index, const qd_ops **ret, qd_err *err);
    /* The same device as an encoder of weights. The same errors. */
    qd_code (*open_dev)(int index, qd_dev **ret, qd_err *err);
} qd_cuda_library;

#ifdef __cplusplus
extern "C" {
#endif
__attribute__((visibility("default"))) const qd_cuda_library *qd_cuda_library_of(void);
#ifdef __cplusplus
}
#endif

qd_code qd_cuda_dev_open(int index, qd_dev **ret, qd_err *err); /* dev_cuda.c */

#endif
