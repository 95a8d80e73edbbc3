/* comm_of.h -- which communicator the ranks of a device have. */
#ifndef QD_GPU_COMM_OF_H
#define QD_GPU_COMM_OF_H

#include "gpu/comm.h"

#include <stdbool.h>

typedef struct qd_comm_of {
    const qd_comm_kind *kind;
    int device;       /* for qd_comm_options */
    char version[32]; /* "shm", "nccl-2.27.3": ranks of one gang have the same */
    bool one_host;    /* it joins processes of one host only */
} qd_comm_of;

/* device: a name of gpu/device.h. The processor's ranks meet in shared memory, those of GPUs by NCCL: libqd_nccl.so,
 * which is loaded here and stays. No GPU is asked for. Errors: QD_E_USAGE (no such name), QD_E_UNSUPPORTED (no library,
 * one of another build), QD_E_DEVICE (NCCL does not say its version). */
QD_MUST_CHECK qd_code qd_comm_find(const char *device, qd_comm_of *ret, qd_err *err);

#endif
