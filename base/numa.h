/* numa.h -- which processors belong to which NUMA node, as the kernel tells it below /sys.
 *
 * sys: where that is mounted, "/sys" (a test: a directory of its own). A machine that tells nothing has no nodes.
 * Threads: no shared state. */
#ifndef QD_BASE_NUMA_H
#define QD_BASE_NUMA_H

#include <sched.h>
#include <stdbool.h>

enum {
    QD_NUMA_NODES_MAX = 64
};

/* Processors of a node; false, and none, where there is no such node. Source: the kernel's
 * Documentation/ABI/stable/sysfs-devices-node, "cpulist". */
bool qd_numa_cpus(const char *sys, unsigned node, cpu_set_t *ret);
/* The kernel's list of processors: "0-3,8". false, and none, for any other text; those from CPU_SETSIZE on are left
 * out. */
bool qd_cpu_list(const char *text, cpu_set_t *ret);

#endif
