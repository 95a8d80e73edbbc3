#include "base/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The one process-wide state of the library: it exists for tests and does nothing until armed. */
static struct {
    atomic_ulong count, at;
    atomic_int sys_errno;
} g_fault[QD_FAULT_KIND_COUNT];

void qd_fault_arm(qd_fault_kind kind, unsigned long n, int sys_errno)
{
    atomic_store(&g_fault[kind].count, 0);
    atomic_store(&g_fault[kind].sys_errno, sys_errno);
    atomic_store(&g_fault[kind].at, n);
}

void qd_fault_arm_from_env(void)
{
    static const char *const kinds[] = {"alloc", "read", "write", "sync", "rename", "flood"};
    static const int default_errno[] = {ENOMEM, EIO, ENOSPC, EIO, EIO, 0};
    const char *spec = getenv("QD_FAULT");
    if (spec == NULL) return;
    for (int k = 0; k < QD_FAULT_KIND_COUNT; k++) {
        size_t len = strlen(kinds[k]);
        if (strncmp(spec, kinds[k], len) != 0 || spec[len] != ':') continue;
        char *end = NULL;
        unsigned long n = strtoul(spec + len + 1, &end, 10);
        int sys_errno = end != NULL && *end == ':' ? (int)strtol(end + 1, NULL, 10) : default_errno[k];
        qd_fault_arm((qd_fault_kind)k, n, sys_errno);
    }
}

unsigned long qd_fault_armed(qd_fault_kind kind)
{
    return atomic_load(&g_fault[kind].at);
}

unsigned long qd_fault_count(qd_fault_kind kind)
{
    return atomic_load(&g_fault[kind].count);
}

int qd_fault_here(qd_fault_kind kind)
{
    unsigned long at = atomic_load_explicit(&g_fault[kind].at, memory_order_relaxed);
    if (at == 0) return 0;
    return atomic_fetch_add(&g_fault[kind].count, 1) + 1 == at ? atomic_load(&g_fault[kind].sys_errno) : 0;
}
