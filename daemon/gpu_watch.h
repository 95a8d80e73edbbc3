/* gpu_watch.h -- a thread that asks a GPU how it fares, so that a driver that does not answer holds up nobody else. */
#ifndef QD_DAEMON_GPU_WATCH_H
#define QD_DAEMON_GPU_WATCH_H

#include "gpu/nvml.h"

typedef struct qd_gpu_watch qd_gpu_watch;

/* library and index as for qd_nvml_open(), whose errors it has; every_ms: between two readings, an event of the GPU
 * brings the next one at once. Starts a thread with all signals blocked. */
QD_MUST_CHECK qd_code qd_gpu_watch_open(const char *library, unsigned index, uint64_t every_ms, qd_gpu_watch **ret,
                                        qd_err *err);
/* The last reading (all zero before the first), and how long ago it or the opening was. */
void qd_gpu_watch_get(qd_gpu_watch *w, qd_gpu_health *ret, uint64_t *ret_age_ms);
/* True when the GPU is not to be used any more: faulty by qd_gpu_faulty(), or nothing heard for silent_ms. */
bool qd_gpu_watch_faulty(qd_gpu_watch *w, uint64_t silent_ms, char *why, size_t why_bytes);
/* Waits a second or two for the thread; one that is stuck in the driver is left behind with what it holds. */
void qd_gpu_watch_close(qd_gpu_watch *w);

#endif
