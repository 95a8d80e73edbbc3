/* worker.h -- lanes, heartbeats, and orders to workers. */
#ifndef QD_JOBS_WORKER_H
#define QD_JOBS_WORKER_H

#include "jobs/jobs.h"

/* Opens this worker's lanes: its device class, numerics ids "any" and its own (NULL: none), every priority. Once. */
QD_MUST_CHECK qd_code qd_jobs_lanes_open(qd_jobs *j, const char *device_class, const char *numerics_id, qd_err *err);
/* At most one message, the best lane first, for qd_jobs_take(). Does not wait (but opts.step_ms a lane): call it when
 * the view tells of a job in a lane, when a task has ended, and every second. */
QD_MUST_CHECK qd_code qd_jobs_fetch(qd_jobs *j, qd_bus_msg *ret, bool *ret_got, qd_err *err);

/* Writes worker.<self>; id, version, node_failures, job_id and the like are the caller's to fill. */
QD_MUST_CHECK qd_code qd_jobs_heartbeat(qd_jobs *j, const qd_worker_heartbeat *hb, qd_err *err);
/* An orderly good-bye: the key goes. */
QD_MUST_CHECK qd_code qd_jobs_heartbeat_end(qd_jobs *j, qd_err *err);
/* Every worker that ever wrote and did not leave, with the age of its word by the server's clock. */
typedef qd_code (*qd_jobs_worker_fn)(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err);
QD_MUST_CHECK qd_code qd_jobs_workers(qd_jobs *j, qd_jobs_worker_fn fn, void *ctx, qd_err *err);

/* Node-class failures in a row (a success ends the row); at three qd_jobs_take() takes nothing more. */
uint32_t qd_jobs_node_failures(const qd_jobs *j);
bool qd_jobs_must_drain(const qd_jobs *j);

/* Asks a worker to drain; it sees it at its next look. */
QD_MUST_CHECK qd_code qd_jobs_drain(qd_jobs *j, const char *worker, const char *reason, const qd_jobs_caller *by,
                                    qd_err *err);
/* Whether somebody asked this worker to; and that it has obeyed. */
QD_MUST_CHECK qd_code qd_jobs_order(qd_jobs *j, bool *ret_drain, qd_err *err);
QD_MUST_CHECK qd_code qd_jobs_order_done(qd_jobs *j, qd_err *err);

#endif
