/* topology.h -- where a worker is: what its heartbeats say of it, and the processors near its device.
 *
 * A worker's topology is a list of places, each written as a path from the most general one down: "rack3",
 * "rack3/sw1", "rack3/sw1/node7", "rack3/sw1/node7/numa0", "rack3/sw1/node7/numa0/pci0000:16". So two workers have as
 * many places in common as their paths begin alike, which is how near they are (jobs/gang_pick.h).
 *
 * sys: where the kernel's /sys is. pci: bus id of a GPU as NVML writes it, "" where it is not known; NULL: the worker
 * is one of processors. Threads: no shared state. */
#ifndef QD_DAEMON_TOPOLOGY_H
#define QD_DAEMON_TOPOLOGY_H

#include "base/err.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    QD_PLACES_MAX = 16,   /* as proto/rules.c has them.. */
    QD_PLACE_BYTES = 129, /* ..with the NUL */
    QD_PREFIX_MAX = 63    /* of the setting: a host's name fits behind it */
};

typedef struct qd_topology {
    char place[QD_PLACES_MAX][QD_PLACE_BYTES];
    uint32_t n;
} qd_topology;

/* Places of the setting `topology`, the host, the NUMA node (of a GPU; those of the processors `allowed`), the PCI
 * bridges above a GPU. What the machine does not tell is left out, and so is what is too deep for a place's length. */
void qd_topology_make(const char *sys, const char *prefix, const char *host, const char *pci, const cpu_set_t *allowed,
                      qd_topology *ret);
/* The setting `topology`: names separated by '/', the most general one first. Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_topology_check(const char *prefix, qd_err *err);

/* The setting `pin`: "none", "numa" (the GPU's node; a GPU's worker only), "numa0" and so on. Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_pin_check(const char *pin, bool gpu, qd_err *err);
/* Those of `allowed` that a job may use. QD_E_UNSUPPORTED, and all of them, where the node is not known or none of its
 * processors is among them. */
QD_MUST_CHECK qd_code qd_pin_cpus(const char *sys, const char *pin, const char *pci, const cpu_set_t *allowed,
                                  cpu_set_t *ret, qd_err *err);

#endif
