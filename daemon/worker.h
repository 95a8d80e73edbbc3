/* worker.h -- one worker: heartbeats, sweeps, and one job at a time from the queue to its end, in a child process.
 *
 * A state machine without threads and without waiting: qd_worker_step() does what is due and says when it is to be
 * called again; the caller waits for that time or for one of the worker's files. Calls of the bus are bounded by its
 * call timeout, and are left out while the bus is known to be away.
 *
 * A GPU that is not to be used any more makes it hand its job back and take nothing more; it stays, so that who lists
 * the workers reads why. */
#ifndef QD_DAEMON_WORKER_H
#define QD_DAEMON_WORKER_H

#include "base/log.h"
#include "bus/bus.h"
#include "daemon/config.h"
#include "daemon/gpu_watch.h"

typedef struct qd_worker qd_worker;

typedef struct qd_worker_opts {
    qd_bus *bus;
    const qd_settings *settings; /* may change between steps (reload) */
    qd_log *log;
    const char *id, *device, *device_class, *numerics_id, *templates; /* copied */
    const char *collective; /* qd_gang_self.collective, copied; empty: no part in gangs */
    bool one_host;          /* qd_gang_self.one_host */
    const char *program;    /* of the child; NULL: this one */
    const char *sys;        /* copied; NULL: "/sys" */
    qd_gpu_watch *gpu;      /* of the device; must outlive the worker. NULL: none to watch */
} qd_worker_opts;

/* bus, settings and log must outlive it. */
QD_MUST_CHECK qd_code qd_worker_open(const qd_worker_opts *opts, qd_worker **ret, qd_err *err);
/* Does what is due. *ret_next_ms: monotonic time at which it is to be called again at the latest. */
void qd_worker_step(qd_worker *w, uint64_t *ret_next_ms);

enum {
    QD_WORKER_FDS = 4
};
/* Files to wait for (readable); they change from step to step. Returns how many. */
size_t qd_worker_fds(qd_worker *w, int ret[QD_WORKER_FDS]);

/* Takes nothing more; the running job stops at a point from which another can go on, and is handed back. A second call
 * does not wait for that point. */
void qd_worker_drain(qd_worker *w, const char *why);
/* Drained by qd_worker_drain() or an order, and nothing is left to do. */
bool qd_worker_over(const qd_worker *w);
/* The running job is seen to advance (or there is none): what the watchdog asks. */
bool qd_worker_healthy(const qd_worker *w);
/* "job 01J layer 12/32 eta 4m", "idle", "draining: ...". */
void qd_worker_status(const qd_worker *w, char *ret, size_t room);
/* Says good-bye on the bus and frees; a job still in work is left as after a crash. */
void qd_worker_close(qd_worker *w);

#endif
