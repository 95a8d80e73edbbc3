/* probe.h -- what a device gives, asked in a process of its own: a supervisor holds no CUDA context, and outlives a
 * driver that does not answer. */
#ifndef QD_DAEMON_PROBE_H
#define QD_DAEMON_PROBE_H

#include "base/err.h"
#include "engine/numerics.h"

#include <stdbool.h>

#define QD_PROBE_ARG "--probe"

/* "cpu", or a name of gpu/device.h's GPUs. */
bool qd_probe_is_device(const char *name);
bool qd_probe_is_gpu(const char *name);
/* Of a job on the device, and of its ranks. */
typedef struct qd_probe {
    char numerics_id[QD_NUMERICS_ID_BYTES];
    char collective[32]; /* qd_comm_of.version; empty: it takes no part in gangs */
    bool one_host;
    char alone[QD_ERR_MSG_BYTES]; /* why there is no collective */
} qd_probe;

/* The processor is asked at once; for a GPU `program` is run as `quantd --probe NAME` for at most 45 s. Errors: those
 * of qd_ops_open(); QD_E_DEVICE for a probe that crashes or does not end. */
QD_MUST_CHECK qd_code qd_probe_device(const char *program, const char *device, qd_probe *ret, qd_err *err);
/* main() of that process. */
int qd_probe_main(const char *device);

#endif
