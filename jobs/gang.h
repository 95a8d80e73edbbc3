/* gang.h -- one job on several workers: how a leader finds members, and how each of them knows when to stop.
 *
 * The protocol, message by message, is docs/gang.md. A leader is a task (task.h) whose job asks for more than one rank;
 * a member holds nothing of the job. Both are state machines over bus.h and a clock: step() does what is due and says
 * what the caller is to do with its child process.
 *
 * Codes    of step(): QD_E_AWAY: call again; what was known holds, a member's time runs. Of a leader also those of
 *          task.h: QD_E_CANCELED, QD_E_CONFLICT.
 * Threads  bus.h's rule. */
#ifndef QD_JOBS_GANG_H
#define QD_JOBS_GANG_H

#include "jobs/task.h"

/* What this worker is as a rank; texts outlive the qd_jobs. The same is in its heartbeats. */
typedef struct qd_gang_self {
    const char *build, *numerics_id, *device_class, *host;
    const char *collective; /* the communicator and its version: "shm", "nccl-2.18.3" */
    bool one_host;          /* it joins processes of one host only */
    uint64_t window_ms;     /* 0: lease / 10; how long a leader that has enough waits for more */
    uint64_t join_ms;       /* 0: lease / 2; how long for JOINED */
} qd_gang_self;

/* Ranks that a spec asks for: 1 <= min <= max. */
void qd_gang_ranks(const qd_job_spec *spec, uint32_t *ret_min, uint32_t *ret_max);

/* The leader. */
typedef struct qd_lead qd_lead;

typedef enum qd_lead_word {
    QD_LEAD_WAIT,   /* nothing to do, no child is to run */
    QD_LEAD_START,  /* start the child as rank 0 of qd_lead_size() ranks, then qd_lead_started(); size 1: no gang */
    QD_LEAD_RUN,    /* let it run; when it sends its invite: qd_lead_invite() */
    QD_LEAD_BROKEN, /* qd_lead_why(): stop the child; when it has ended, qd_lead_again() or qd_lead_dissolve() */
    QD_LEAD_YIELD,  /* qd_lead_why(): hand the job back with qd_lead_yield() */
    QD_LEAD_CLEAR   /* dissolved: no member writes any more; end the task */
} qd_lead_word;

/* t outlives it. A task whose qd_jobs has no qd_gang_self runs alone. */
QD_MUST_CHECK qd_code qd_lead_open(qd_task *t, qd_lead **ret, qd_err *err);
/* Call it at qd_lead_due_ms() and a few times a second; qd_task_renew() and the rest of the task go on beside it. */
QD_MUST_CHECK qd_code qd_lead_step(qd_lead *l, qd_lead_word *ret, qd_err *err);
uint64_t qd_lead_due_ms(const qd_lead *l); /* own monotonic clock */
uint32_t qd_lead_size(const qd_lead *l);
uint32_t qd_lead_number(const qd_lead *l); /* of the gang in this epoch; 0: none yet */
const char *qd_lead_why(const qd_lead *l);
/* Of the member whose process failed by the job's fault; NULL: none. Valid until the next step. */
const qd_job_error *qd_lead_error(const qd_lead *l);
uint64_t qd_lead_device_ms(const qd_lead *l); /* of members, so far */
void qd_lead_started(qd_lead *l);
/* The communicator's invite, for the members; copied. */
QD_MUST_CHECK qd_code qd_lead_invite(qd_lead *l, const void *bytes, size_t n_bytes, qd_err *err);
/* This leader's child has ended with gang_broken, or step() said BROKEN and it has ended: when the members are off,
 * a new gang is called. QD_E_GANG: it broke too often: dissolve and hand back. */
QD_MUST_CHECK qd_code qd_lead_again(qd_lead *l, const char *why, qd_err *err);
/* The job is about to end, or to go back: members are told to stop. Idempotent. step() says CLEAR when they have. */
void qd_lead_dissolve(qd_lead *l, const char *why);
/* Hands the job back, not at once if nobody else could take it now. As qd_task_hand_back(). */
QD_MUST_CHECK qd_code qd_lead_yield(qd_lead *l, qd_err *err);
/* After the task's end was written (not when fenced): the gang's key goes. */
void qd_lead_end(qd_lead *l);
void qd_lead_free(qd_lead *l); /* without a word; NULL is a no-op */

/* The member. */
typedef struct qd_follow qd_follow;

typedef enum qd_follow_word {
    QD_FOLLOW_WAIT,  /* offered or joined: take nothing else */
    QD_FOLLOW_START, /* start the child: rank, size, invite, record; then qd_follow_tell() RUNNING or LEFT */
    QD_FOLLOW_RUN,   /* let it run until qd_follow_until_ms(); when it ends: tell DONE or LEFT */
    QD_FOLLOW_STOP,  /* qd_follow_why(): kill it; when it has ended: tell LEFT */
    QD_FOLLOW_OVER   /* qd_follow_free() */
} qd_follow_word;

/* An idle worker offers itself to the first call in line that it fits. *ret is NULL when there is none. Asks the bus
 * nothing while nobody calls. */
QD_MUST_CHECK qd_code qd_follow_look(qd_jobs *j, qd_follow **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_follow_step(qd_follow *f, qd_follow_word *ret, qd_err *err);
uint64_t qd_follow_due_ms(const qd_follow *f);
/* Until then (own monotonic clock) its child may work; then it has ended. It moves on with each answer of the bus. */
uint64_t qd_follow_until_ms(const qd_follow *f);
const qd_job_record *qd_follow_record(const qd_follow *f);
uint64_t qd_follow_epoch(const qd_follow *f);
uint32_t qd_follow_number(const qd_follow *f);
uint32_t qd_follow_rank(const qd_follow *f);
uint32_t qd_follow_size(const qd_follow *f);
const uint8_t *qd_follow_invite(const qd_follow *f, size_t *ret_n);
const char *qd_follow_why(const qd_follow *f);
/* What became of the child: RUNNING, DONE, LEFT (error: why it failed; NULL: it was stopped). The next steps tell the
 * leader. An error keeps this worker from the job for a while, one of its node's counts as in qd_task_fail(). */
void qd_follow_tell(qd_follow *f, Quantd__MemberState state, const qd_job_error *error, uint64_t device_ms);
/* This worker drains: LEFT. With a child: after it has ended. */
void qd_follow_leave(qd_follow *f);
void qd_follow_free(qd_follow *f); /* NULL is a no-op */

#endif
