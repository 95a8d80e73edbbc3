/* task_inside.h -- a task between take.c, task.c and end.c. */
#ifndef QD_JOBS_TASK_INSIDE_H
#define QD_JOBS_TASK_INSIDE_H

#include "jobs/inside.h"
#include "jobs/task.h"

struct qd_task {
    qd_jobs *j;
    qd_bus_msg msg;     /* owned */
    qd_job_record *rec; /* as last known; owned */
    uint64_t rev, epoch, renewals;
    uint64_t lines; /* told so far */
    uint64_t stored_lines;
    bool stale; /* a write may or may not have happened: read before the next one */
    bool resume;
    bool counted;                   /* this failure is in j->node_failures */
    qd_job_state asked;             /* the state that was last asked for: found in the record, it was this task */
    qd_bus_hint *hint;              /* of the record; opened at the first poll */
    uint64_t known_hash, told_hash; /* of the record as last read or written, and as last heard of */
    unsigned looks_left; /* heard of, not yet seen: a hint can be faster than the store, or a write refused */
    uint64_t look_ms;
};

/* Makes a task of a record just written; takes *m and rec. */
QD_MUST_CHECK qd_code qd_task_new(qd_jobs *j, qd_bus_msg *m, qd_job_record *rec, uint64_t rev, qd_task **ret,
                                  qd_err *err);
/* The record as it is now: QD_OK, QD_E_CANCELED, QD_E_CONFLICT as task.h has them. */
QD_MUST_CHECK qd_code qd_task_look(qd_task *t, qd_err *err);
/* Writes what fn makes of the record. from: the state it must be in. QD_OK also when an earlier try turns out to have
 * done it (the record is in state to, in this epoch). */
typedef qd_code (*qd_task_fn)(qd_task *t, void *arg, qd_err *err);
QD_MUST_CHECK qd_code qd_task_write(qd_task *t, qd_job_state from, qd_job_state to, qd_task_fn fn, void *arg,
                                    qd_err *err);
/* qd_task_hand_back(); the message comes again after delay_ms. */
QD_MUST_CHECK qd_code qd_task_back_after(qd_task *t, const qd_progress *p, uint64_t device_ms, uint64_t delay_ms,
                                         qd_err *err);
/* FAILED: nobody is left to try (the last failure says why), or too many attempts were lost. */
QD_MUST_CHECK qd_code qd_task_give_up(qd_task *t, qd_err *err);
/* A copy of p into the record in hand; NULL: nothing. */
QD_MUST_CHECK qd_code qd_task_set_progress(qd_task *t, const qd_progress *p, qd_err *err);
/* After the end: last event, message, lease. Nothing of it is needed: what is lost, sweeps and takers mend. */
void qd_task_over(qd_task *t);

#endif
