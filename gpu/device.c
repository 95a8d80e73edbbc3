#include "gpu/device.h"

#include "gpu/cuda/ops_cuda.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char k_library[] = "libqd_cuda.so";

/* The library beside the program: bin/quantctl and lib/libqd_cuda.so. */
static void *load_beside(void)
{
    char path[PATH_MAX], *slash = NULL;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = '\0';
    for (int up = 0; up < 2; up++) {
        slash = strrchr(path, '/');
        if (slash == NULL) return NULL;
        *slash = '\0';
    }
    size_t used = (size_t)(slash - path);
    if (snprintf(slash, sizeof path - used, "/lib/%s", k_library) >= (int)(sizeof path - used)) return NULL;
    return access(path, R_OK) == 0 ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static qd_code load(const char *name, const qd_cuda_library **ret, qd_err *err)
{
    const qd_cuda_library *(*library_of)(void) = NULL;
    char why[256] = "";
    (void)setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0); /* gpuN is NVML's gpuN */
    void *library = dlopen(k_library, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) (void)snprintf(why, sizeof why, "%s", dlerror());
    if (library == NULL) library = load_beside();
    if (library == NULL) {
        const char *more = dlerror();
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: expected %s, which could not be loaded: %s", name, k_library,
                       more != NULL ? more : why);
    }
    void *symbol = dlsym(library, "qd_cuda_library_of");
    memcpy(&library_of, &symbol, sizeof symbol);
    const qd_cuda_library *l = symbol != NULL ? library_of() : NULL;
    if (l == NULL || l->version != QD_CUDA_LIBRARY_VERSION || l->ops_bytes != sizeof(qd_ops))
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: expected the %s of this build, found another one", name, k_library);
    *ret = l;
    return QD_OK;
}

/* The library for a name that is no host's, and the number in it. */
static qd_code find(const char *name, const qd_cuda_library **ret, int *ret_index, qd_err *err)
{
    int end = 0;
    if (sscanf(name, "gpu%3d%n", ret_index, &end) != 1 || name[end] != '\0' || name[3] < '0' || name[3] > '9')
        return qd_fail(err, QD_E_USAGE, "device %.40s: expected cpu, cpu-bf16 or gpu0, gpu1, ..", name);
    return load(name, ret, err);
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
