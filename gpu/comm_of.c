#include "gpu/comm_of.h"

#include "gpu/cuda/comm_nccl.h"
#include "gpu/device.h"
#include "gpu/library.h"

#include <stdio.h>
#include <string.h>

static const char k_library[] = "libqd_nccl.so";

static qd_code find_nccl(const char *device, qd_comm_of *ret, qd_err *err)
{
    const qd_nccl_library *(*library_of)(void) = NULL;
    void *symbol = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_device_index(device, &ret->device, err));
    QD_TRY(qd_library_find(device, k_library, "qd_nccl_library_of", &symbol, err));
    memcpy(&library_of, &symbol, sizeof symbol);
    const qd_nccl_library *library = library_of();
    if (library->version != QD_NCCL_LIBRARY_VERSION || library->comm_bytes != sizeof(qd_comm)) {
        rc = qd_library_other(device, k_library, err);
        goto out;
    }
    ret->kind = library->kind();
    rc = library->name(ret->version, sizeof ret->version, err);
out:
    return rc;
}

qd_code qd_comm_find(const char *device, qd_comm_of *ret, qd_err *err)
{
    *ret = (qd_comm_of){.kind = qd_comm_shm(), .version = "shm", .one_host = true};
    if (qd_ops_host(device) != NULL) return QD_OK;
    *ret = (qd_comm_of){.kind = NULL};
    return find_nccl(device, ret, err);
}
