/* inside.h -- what the files of jobs/ share: the handle, records by compare-and-set, small writes. */
#ifndef QD_JOBS_INSIDE_H
#define QD_JOBS_INSIDE_H

#include "base/buf.h"
#include "bus/bus.h"
#include "jobs/jobs.h"
#include "jobs/view.h"

enum {
    QD_JOBS_TRIES = 4, /* of a write that was not answered or lost a race, within one call */
    QD_JOBS_LANES = 2 * (QD_PRIORITY_MAX + 1),
    QD_FAILURES_KEPT = 16,
    QD_SHUNS_MAX = 8
};

typedef struct qd_leak {
    uint64_t rev, since_ms; /* own clock: a name without a record since then */
} qd_leak;

typedef struct qd_shun {
    char job_id[QD_ID_BYTES];
    uint64_t until_ms; /* own clock */
} qd_shun;

struct qd_jobs {
    qd_bus *bus;
    qd_jobs_opts opts; /* defaults filled in */
    qd_jobs_clock clock;
    char self[QD_ID_BYTES];
    qd_jobs_stats stats;
    qd_buf buf; /* scratch for encoding */
    qd_view view;
    qd_bus_pull *lanes[QD_JOBS_LANES]; /* best first; owned */
    qd_lane lane_of[QD_JOBS_LANES];
    size_t n_lanes;
    uint64_t lanes_all_ms; /* own clock: until then only lanes with live jobs are asked */
    uint32_t node_failures;
    uint64_t order_rev;
    char last_tenant[QD_ID_BYTES]; /* served last by admission */
    uint64_t queue_full_until_ms;  /* own clock */
    uint64_t missing_since_ms;     /* own clock: fewer messages than jobs since then; 0: there are not */
    size_t repair_at;              /* where the next repair begins in the view */
    qd_bus_hint *seat_hint;        /* of the seat of the one who sweeps */
    uint64_t seat_rev, seat_ms; /* ours: its revision and when it was written; else 0 and when another was heard of */
    qd_leak *leaks;             /* owned */
    size_t n_leaks;
    qd_shun shuns[QD_SHUNS_MAX]; /* whose gangs this worker keeps away from */
};

static inline uint64_t qd_jobs_unix_ms(const qd_jobs *j)
{
    return j->clock.unix_ms(j->clock.ctx);
}
static inline uint64_t qd_jobs_mono_ms(const qd_jobs *j)
{
    return j->clock.mono_ms(j->clock.ctx);
}

/* record.c */
/* Decodes a record and checks that it is the job's; counts what cannot be read. */
QD_MUST_CHECK qd_code qd_record_decode(qd_jobs *j, const qd_bus_msg *m, const char *id, qd_job_record **ret,
                                       qd_err *err);
/* qd_jobs_get(), and the hash of what was read as qd_bus_news has it. */
QD_MUST_CHECK qd_code qd_record_get(qd_jobs *j, const char *id, qd_job_record **ret, uint64_t *ret_rev,
                                    uint64_t *ret_hash, qd_err *err);
/* Writes rec, with updated_ms set, if its revision is still expect. */
QD_MUST_CHECK qd_code qd_record_put(qd_jobs *j, qd_job_record *rec, uint64_t expect, uint64_t *ret_rev, qd_err *err);
/* Read, decide, compare-and-set, again when somebody was faster or no answer came: fn must therefore know its own work
 * when it sees it. *ret_write false: nothing to do. ret, ret_rev: as last read or written; ret may be NULL. */
typedef qd_code (*qd_record_fn)(void *ctx, qd_job_record *rec, bool *ret_write, qd_err *err);
QD_MUST_CHECK qd_code qd_record_change(qd_jobs *j, const char *id, qd_record_fn fn, void *ctx, qd_job_record **ret,
                                       uint64_t *ret_rev, qd_err *err);
/* Owner and ended_ms as the new state wants them. */
QD_MUST_CHECK qd_code qd_record_unown(qd_job_record *rec, qd_job_state state, qd_err *err);
/* What its owner waits for; NULL: nothing any more. Takes r. */
void qd_record_call(qd_job_record *rec, qd_reservation *r);
void qd_record_end(const qd_jobs *j, qd_job_record *rec, qd_job_state state);

/* name.c */
QD_MUST_CHECK qd_code qd_name_claim(qd_jobs *j, const char *tenant, const char *name, const char *id, uint64_t *ret_rev,
                                    qd_err *err);
/* Deletes the name if this job holds it. */
QD_MUST_CHECK qd_code qd_name_drop(qd_jobs *j, const char *tenant, const char *name, const char *id, qd_err *err);

/* lease.c */
/* How long the owner of a RUNNING or CANCELING job still counts as alive; 0: it does not. A job without a lease of its
 * epoch is given one, in its owner's name. */
QD_MUST_CHECK qd_code qd_lease_left(qd_jobs *j, const qd_job_record *rec, uint64_t *ret_left_ms, qd_err *err);
QD_MUST_CHECK qd_code qd_lease_write(qd_jobs *j, const char *job_id, const char *worker, uint64_t epoch,
                                     uint64_t renewals, uint64_t expect, qd_err *err);
QD_MUST_CHECK qd_code qd_lease_drop(qd_jobs *j, const char *job_id, qd_err *err);
/* The server's clock in bucket "live", by a write of one's own. */
QD_MUST_CHECK qd_code qd_live_now(qd_jobs *j, uint64_t *ret_ms, qd_err *err);
/* Whether the bus has been back for a lease time. *ret_left_ms: of that. */
bool qd_lease_settled(const qd_jobs *j, uint64_t *ret_left_ms);

/* seat.c */
/* Whether this program is to sweep: it has the seat, or nobody is heard who has. */
bool qd_seat_sweeps(qd_jobs *j);

/* event.c: these try a little and count nothing but success. */
void qd_event_ended(qd_jobs *j, const qd_job_record *rec);
void qd_event_dead(qd_jobs *j, const qd_job_record *rec);
/* The job's message in the work queue: stored, or there already (then *ret_seq is 0). Errors: QD_E_FULL, QD_E_AWAY. */
QD_MUST_CHECK qd_code qd_queue_put(qd_jobs *j, const qd_job_record *rec, uint64_t *ret_seq, qd_err *err);
QD_MUST_CHECK qd_code qd_queue_purge(qd_jobs *j, const qd_job_record *rec, qd_err *err);

/* end.c */
/* Carries out the cancel of a job whose owner is gone: disk, then CANCELED. CONFLICT: somebody else did. */
QD_MUST_CHECK qd_code qd_cancel_carry_out(qd_jobs *j, qd_job_record *rec, uint64_t rev, qd_err *err);
/* Staging first: after that no OUT can appear. */
QD_MUST_CHECK qd_code qd_cancel_disk(qd_jobs *j, const qd_job_record *rec, qd_err *err);
/* Adds a copy of e to the failures; the oldest is dropped when there are many. */
QD_MUST_CHECK qd_code qd_failure_add(qd_job_record *rec, const qd_job_error *e, qd_err *err);
/* Whether two workers failed it, or one did and no other is there that could try. */
QD_MUST_CHECK qd_code qd_failed_enough(qd_jobs *j, const qd_job_record *rec, bool *ret_enough, qd_err *err);
/* create.c */
/* The record of an ended job and all that hangs on it. */
QD_MUST_CHECK qd_code qd_job_forget(qd_jobs *j, const qd_job_record *rec, uint64_t rev, qd_err *err);

/* Our copy of a message; out of memory is the only error. */
QD_MUST_CHECK qd_code qd_msg_copy(const ProtobufCMessage *m, ProtobufCMessage **ret, qd_err *err);

#endif
