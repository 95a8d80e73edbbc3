/* task.h -- a job in this worker's hands, from the message to the acknowledgement.
 *
 *   fetch -> take -> [renew, progress, poll ...] -> may_commit -> (the engine renames staging to OUT) -> finish
 *                                               \-> fail | hand_back | canceled | (fenced: free)
 *
 * Every write of the record expects the revision of this task's own last one. Refused, the record is read:
 *   QD_E_CANCELED  ours and CANCELING: stop the child at the next tile, then qd_task_canceled()
 *   QD_E_CONFLICT  fenced: the job is another's, or ended: stop the child, touch no path, qd_task_free()
 *   QD_E_AWAY      the bus is away: work on, call the same again later; what was asked may have happened, which the
 * next call finds out. Only commit needs an answer. After finish, fail, hand_back or canceled returned QD_OK the task
 * is over: qd_task_free(). */
#ifndef QD_JOBS_TASK_H
#define QD_JOBS_TASK_H

#include "jobs/jobs.h"

typedef struct qd_task qd_task;

typedef enum qd_take {
    QD_TAKE_RUN,     /* *ret_task is set */
    QD_TAKE_DROPPED, /* the job is gone or had ended: the message is acknowledged */
    QD_TAKE_LATER, /* a live owner, a worker that failed it, first lease time after a reconnect ...: handed back to the
                      queue with a delay */
    QD_TAKE_ENDED  /* ended here: a verified output was found, a dead worker's cancel carried out, or given up */
} qd_take;

/* Whether the job of a message may be ours, and makes it so: record {epoch + 1, owner, attempts + 1, RUNNING}, lease,
 * old staging taken over, then: is there an output already. *m is consumed ({0} afterwards), whatever comes back.
 * ret_task is set with QD_TAKE_RUN only. On errors the message is left to the queue's ack wait. */
QD_MUST_CHECK qd_code qd_jobs_take(qd_jobs *j, qd_bus_msg *m, qd_take *ret, qd_task **ret_task, qd_err *err);

const qd_job_record *qd_task_record(const qd_task *t);          /* as last written or read; valid until the next call */
bool qd_task_resume(const qd_task *t);                          /* staging of an earlier epoch is there */
void qd_task_staging(const qd_task *t, char *ret, size_t room); /* OUT.staging.<epoch> */
void qd_task_free(qd_task *t);                                  /* lets go without a word; NULL is a no-op */

/* Call every lease_ms / 3: reads the record (fence), writes the lease, tells the queue that the message is in work. */
QD_MUST_CHECK qd_code qd_task_renew(qd_task *t, qd_err *err);
/* Reads the record and nothing else. Also the answer to a poll that saw a change. */
QD_MUST_CHECK qd_code qd_task_check(qd_task *t, qd_err *err);
/* Follows the record: QD_OK, QD_E_CANCELED, QD_E_CONFLICT as above. It hears of writes and reads then; call it when fd
 * is readable (-1: none) and a few times a second, as a write may be heard of before it can be read. What it does not
 * hear of shows at the next renew. */
QD_MUST_CHECK qd_code qd_task_poll(qd_task *t, qd_err *err);
int qd_task_fd(qd_task *t);
/* Into the record, by compare-and-set; every few seconds at most. Texts are copied. */
QD_MUST_CHECK qd_code qd_task_progress(qd_task *t, const qd_progress *p, qd_err *err);

/* The last question before the rename: QD_OK only on a fresh word that the job is ours and RUNNING. AWAY: ask again. */
QD_MUST_CHECK qd_code qd_task_may_commit(qd_task *t, qd_err *err);
/* OUT is in place: SUCCEEDED, last event, acknowledgement. report may be NULL (then disk's); device_ms is added.
 * QD_E_CANCELED: a cancel came before: OUT is in trash and the job CANCELED; over. */
QD_MUST_CHECK qd_code qd_task_finish(qd_task *t, const qd_report_summary *report, uint64_t device_ms, qd_err *err);

/* After QD_E_CANCELED, when the child has stopped: staging and OUT to trash, CANCELED, last event, acknowledgement. */
QD_MUST_CHECK qd_code qd_task_canceled(qd_task *t, uint64_t device_ms, qd_err *err);
/* Orderly (drain): QUEUING again, the attempt is not counted, staging stays for the next one. */
QD_MUST_CHECK qd_code qd_task_hand_back(qd_task *t, const qd_progress *p, uint64_t device_ms, qd_err *err);
/* It went wrong. ERROR_JOB: another worker may try; FAILED and dead-lettered when two have failed it or no other one
 * lives that could. ERROR_NODE: not counted, this worker keeps away for node_retry_ms. ERROR_BUS: counts against
 * nobody. A verified output found in place is a success. *ret_failed (may be NULL): the job has ended FAILED. */
QD_MUST_CHECK qd_code qd_task_fail(qd_task *t, const qd_job_error *e, uint64_t device_ms, bool *ret_failed,
                                   qd_err *err);

/* A batch of log lines, with epoch and line numbers in headers; lines are numbered over the epoch from 1 by the task.
 * AWAY: send the same batch again (it is stored once). p may be NULL. The texts are lent. */
QD_MUST_CHECK qd_code qd_task_log(qd_task *t, Quantd__LogLine **lines, size_t n, const qd_progress *p, qd_err *err);
/* The same for the last one, given with the number of lines that are stored beside the report. */
void qd_task_set_log_lines(qd_task *t, uint64_t n);

#endif
