#include "gpu/device.h"

#include "gpu/cuda/ops_cuda.h"
#include "gpu/library.h"

#include <stdio.h>
#include <string.h>

static const char k_library[] = "libqd_cuda.so";

qd_code qd_device_index(const char *name, int *ret, qd_err *err)
{
    int end = 0;
    if (sscanf(name, "gpu%3d%n", ret, &end) != 1 || name[end] != '\0' || name[3] < '0' || name[3] > '9')
        return qd_fail(err, QD_E_USAGE, "device %.40s: expected cpu, cpu-bf16 or gpu0, gpu1, ..", name);
    return QD_OK;
}

/* The library for a name that is no host's, and the number in it. */
static qd_code find(const char *name, const qd_cuda_library **ret, int *ret_index, qd_err *err)
{
    const qd_cuda_library *(*library_of)(void) = NULL;
    void *symbol = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_device_index(name, ret_index, err));
    QD_TRY(qd_library_find(name, k_library, "qd_cuda_library_of", &symbol, err));
    memcpy(&library_of, &symbol, sizeof symbol);
    *ret = library_of();
    if ((*ret)->version != QD_CUDA_LIBRARY_VERSION || (*ret)->ops_bytes != sizeof(qd_ops))
        rc = qd_library_other(name, k_library, err);
out:
    return rc;
}

qd_code qd_ops_open(const char *name, const qd_ops **ret, qd_err *err)
{
    const qd_cuda_library *library = NULL;
    const qd_ops *host = qd_ops_host(name);
    int index = 0;
    if (host != NULL) {
        *ret = host;
        return QD_OK;
    }
    qd_code rc = find(name, &library, &index, err);
    return rc == QD_OK ? library->open(index, ret, err) : rc;
}

qd_code qd_dev_open(const char *name, qd_dev **ret, qd_err *err)
{
    const qd_cuda_library *library = NULL;
    int index = 0;
    if (qd_ops_host(name) != NULL) return qd_dev_open_host(NULL, ret, err);
    qd_code rc = find(name, &library, &index, err);
    return rc == QD_OK ? library->open_dev(index, ret, err) : rc;
}

void qd_ops_close(const qd_ops *ops)
{
    if (ops != NULL) ops->close(ops);
}
