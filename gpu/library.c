#include "gpu/library.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The library beside the program: bin/quantctl and lib/libqd_cuda.so. */
static void *load_beside(const char *file)
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
    if (snprintf(slash, sizeof path - used, "/lib/%s", file) >= (int)(sizeof path - used)) return NULL;
    return access(path, R_OK) == 0 ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

qd_code qd_library_find(const char *who, const char *file, const char *symbol, void **ret, qd_err *err)
{
    char why[256] = "";
    (void)setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0); /* gpuN is NVML's gpuN */
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) (void)snprintf(why, sizeof why, "%s", dlerror());
    if (library == NULL) library = load_beside(file);
    if (library == NULL) {
        const char *more = dlerror();
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: expected %s, which could not be loaded: %s", who, file,
                       more != NULL ? more : why);
    }
    *ret = dlsym(library, symbol);
    return *ret != NULL ? QD_OK : qd_library_other(who, file, err);
}

qd_code qd_library_other(const char *who, const char *file, qd_err *err)
{
    return qd_fail(err, QD_E_UNSUPPORTED, "%s: expected the %s of this build, found another one", who, file);
}
