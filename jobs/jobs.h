/* jobs.h -- the job state machine, seen by who asks for jobs (gateway, quantctl): create, get, list, cancel, requeue,
 * delete. task.h is for who runs them, sweep.h for who keeps them going, worker.h for heartbeats and orders.
 *
 * The record job.<id> is the one truth; it changes by compare-and-set only. docs/jobs.md has every transition with its
 * writes in order. Nothing here sleeps, starts threads or touches files; a call takes as long as its calls of the bus.
 *
 * Codes    QD_E_AWAY: the bus did not answer, the outcome is open; call again with the same arguments, every call here
 *          is idempotent. QD_E_NOT_FOUND: no such job. QD_E_CONFLICT, QD_E_BUSY, QD_E_FULL: see each call.
 * Threads  one at a time a qd_jobs and all that was made from it; bus.h's rule. */
#ifndef QD_JOBS_JOBS_H
#define QD_JOBS_JOBS_H

#include "bus/bus.h"
#include "jobs/disk.h"

typedef struct qd_jobs_clock {
    void *ctx;
    uint64_t (*unix_ms)(void *ctx); /* for people: what is written into records */
    uint64_t (*mono_ms)(void *ctx); /* for spans within this process; never goes back */
} qd_jobs_clock;

/* Mistakes that tests/sim must find, all off. */
typedef struct qd_jobs_bugs {
    bool skip_fence; /* may_commit() says yes unread */
    bool go_on_after_lost_take;
    bool keep_epoch; /* a taker does not raise the epoch */
    bool count_hand_backs;
    bool trust_deliveries;     /* attempts are what the queue says */
    bool take_after_reconnect; /* without waiting a lease time */
    bool leave_names;          /* of creations that never came to a record */
    bool cancel_unwritten;     /* a cancel is answered before it is written */
    bool output_first;         /* a taker looks for OUT before it takes staging away */
    bool keep_output;          /* a cancel leaves OUT */
    bool keep_staging;         /* a cancel leaves staging */
    bool no_republish;         /* a job whose message is lost stays so */
    bool node_is_job;          /* node-class failures count against the job */
    bool blind_finish;         /* SUCCEEDED whatever the record says now */
    bool ignore_lease;         /* a live owner is no reason to wait */
    bool away_is_no;           /* a cancel that was not answered is told as refused */
    bool clock_after_lease;    /* a lease's age is taken with a time read later */
    bool create_over_marker;   /* a deleted job's id may be created again */
    bool queue_by_id;          /* queue messages are published once within the duplicate window */
    bool out_before_staging;   /* a cancel looks for OUT while staging can still become it */
    bool wait_for_no_lease;    /* no lease is made for an owner that died before its first */
    bool keep_name_revision;   /* a name found to be the job's own is not written again */
    bool member_ignores_lease; /* a member goes on while it can write its own key */
    bool member_clock_late;    /* its time runs from the answer, not from the question */
    bool member_any_epoch;     /* it takes any gang that names it for its own */
    bool gang_not_cleared;     /* a leader does not wait until its members are off */
    bool no_yield;             /* a leader keeps its job whatever others wait for */
    bool queue_first;          /* calls are served when the queue is empty */
    bool keep_call;            /* a dead leader's call holds who has offered itself */
} qd_jobs_bugs;

struct qd_gang_self;

typedef struct qd_jobs_opts {
    const char *self;           /* id of this worker or gateway */
    const qd_jobs_clock *clock; /* NULL: base/clock.h */
    const qd_jobs_disk *disk;   /* NULL: this one cannot reach the outputs; it leaves to others what needs them */
    uint64_t lease_ms;          /* 0: 15000 */
    uint32_t attempts_max;      /* 0: 10; where the job says nothing */
    uint32_t running_max;   /* 0: no limit; a tenant's jobs QUEUING, RUNNING and CANCELING, where its limits say 0 */
    uint32_t queued_max;    /* 0: no limit; a tenant's jobs PENDING and QUEUING */
    uint32_t recorded_max;  /* 0: no limit; a tenant's records, ended ones included */
    uint64_t retention_ms;  /* 0: for ever; records of ended jobs */
    uint64_t node_retry_ms; /* 0: 600000; how long a node-class failure keeps this worker from a job */
    uint64_t leak_ms;       /* 0: 10 leases; a name without a record is a leak after that */
    uint64_t step_ms;       /* 0: 0; wait of a fetch on each lane */
    const struct qd_gang_self *gang; /* gang.h; NULL: no rank of a gang: jobs for several workers are left to others */
    qd_jobs_bugs bugs;
} qd_jobs_opts;

typedef struct qd_jobs qd_jobs;

/* bus, clock and disk must outlive it; self is copied. Errors: QD_E_INPUT, QD_E_NO_MEMORY. Sends nothing. */
QD_MUST_CHECK qd_code qd_jobs_open(qd_bus *bus, const qd_jobs_opts *opts, qd_jobs **ret, qd_err *err);
void qd_jobs_close(qd_jobs *j); /* after its tasks; NULL is a no-op */

/* Who asks, for the audit trail; texts may be NULL. */
typedef struct qd_jobs_caller {
    const char *user, *request_id, *from;
} qd_jobs_caller;

/* Records a job: its name key (unique), then the record, PENDING. id: of the caller's making; the same id again is the
 * same job (the answer got lost) and QD_OK, whatever has become of it. unique: the name is held for this job within the
 * tenant until it is deleted.
 * Errors   QD_E_CONFLICT  the name belongs to another job, which the sentence names
 *          QD_E_FULL      the tenant's or the service's queue is full
 *          QD_E_INPUT     the spec breaks a rule */
QD_MUST_CHECK qd_code qd_jobs_create(qd_jobs *j, const char *id, const qd_job_spec *spec, bool unique,
                                     const qd_jobs_caller *by, qd_err *err);

/* *ret: qd_msg_free(). ret_rev may be NULL. */
QD_MUST_CHECK qd_code qd_jobs_get(qd_jobs *j, const char *id, qd_job_record **ret, uint64_t *ret_rev, qd_err *err);
/* The job that holds a name. */
QD_MUST_CHECK qd_code qd_jobs_by_name(qd_jobs *j, const char *tenant, const char *name, char ret_id[QD_ID_BYTES],
                                      qd_err *err);
/* Every record, in the order of last writes; those that cannot be read (a newer version) are counted and left out.
 * rec is lent for the call. ret_unread may be NULL. The dead letters are the records that say FAILED. */
typedef qd_code (*qd_jobs_each_fn)(void *ctx, const qd_job_record *rec, uint64_t rev, qd_err *err);
QD_MUST_CHECK qd_code qd_jobs_each(qd_jobs *j, qd_jobs_each_fn fn, void *ctx, size_t *ret_unread, qd_err *err);

/* Decides that the job ends CANCELED. One that was never taken is so at once; others are CANCELING until their
 * directories are gone, which their owner sees to or, where there is none or it is dead, this program (with a disk) or
 * a sweep. The message is purged. QD_OK: it will never be SUCCEEDED; *ret_state is what it is now. Already CANCELING or
 * CANCELED is QD_OK. QD_E_BUSY: it had ended otherwise. */
QD_MUST_CHECK qd_code qd_jobs_cancel(qd_jobs *j, const char *id, const char *reason, const qd_jobs_caller *by,
                                     qd_job_state *ret_state, qd_err *err);
/* FAILED -> PENDING, attempts and failures forgotten. QD_E_BUSY: the job is in another state. */
QD_MUST_CHECK qd_code qd_jobs_requeue(qd_jobs *j, const char *id, const qd_jobs_caller *by, qd_err *err);
/* Forgets an ended job: name, lease, what a job that did not succeed left on disk, record. The output of one that
 * succeeded stays. QD_E_BUSY: it has not ended. */
QD_MUST_CHECK qd_code qd_jobs_delete(qd_jobs *j, const char *id, const qd_jobs_caller *by, qd_err *err);

/* One entry of the audit trail; the calls above write theirs themselves, when something was changed,
 * create also when it was refused.
 * An entry that cannot be written is counted (qd_jobs_stats), it does not undo what was done. */
void qd_jobs_audit(qd_jobs *j, const char *tenant, const qd_jobs_caller *by, const char *action, const char *subject,
                   qd_code outcome);

/* Whose fault a code is where nobody knows better: the job's (bad input, unsupported, quality ...), the node's (room,
 * memory, I/O, device) or the bus's, which counts against nobody. QD_OK: ERROR_CLASS_NONE. */
Quantd__ErrorClass qd_jobs_class_of(qd_code code);

typedef struct qd_jobs_stats {
    uint64_t malformed;  /* records, messages and leases that could not be read */
    uint64_t audit_lost; /* entries that could not be written */
    uint64_t fenced;     /* tasks of this process that somebody else took */
    uint64_t conflicts;  /* writes refused because somebody was faster */
} qd_jobs_stats;

void qd_jobs_stats_get(const qd_jobs *j, qd_jobs_stats *ret);

#endif
