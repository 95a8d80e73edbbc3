/* sweep.c -- jobs that stand still: lost messages, cancels of dead workers, and what is past retention. */
#include "jobs/sweep.h"

#include "base/mem.h"
#include "jobs/inside.h"
#include "jobs/sweep_inside.h"

#include <stdio.h>
#include <string.h>

enum {
    REPAIR_MAX = 1000, /* messages a call, when some are missing */
    SLOW_MAX = 2,      /* when none are */
    PATIENCE_MS = 3000 /* a job waits so long for the program that sweeps before any other admits it */
};

/* A queued or running job whose record has not changed for two leases: its message may be gone (an acknowledgement of a
 * holder that had lost the job). The stream keeps one a subject, so where it is not gone this changes nothing. */
static qd_code republish(qd_jobs *j, const qd_jobs_seen *seen, qd_jobs_swept *ret, qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0, seq = 0;
    if (j->opts.bugs.no_republish) return QD_OK;
    qd_code rc = qd_jobs_get(j, seen->id, &rec, &rev, err);
    if (rc == QD_OK && rev == seen->rev) rc = qd_queue_put(j, rec, &seq, err);
    if (rc == QD_OK && rev == seen->rev && seq != 0) ret->republished++;
    qd_msg_free(rec);
    return rc == QD_E_NOT_FOUND || rc == QD_E_FULL || rc == QD_E_INPUT || rc == QD_E_VERSION ? QD_OK : rc;
}

/* Whether nobody holds a CANCELING job any more: its lease has stood still for a lease time of this program's own
 * clock. Were that wrong and the owner alive, both would do the same. */
static qd_code is_abandoned(qd_jobs *j, const qd_job_record *rec, bool *ret, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    uint64_t now_ms = qd_jobs_mono_ms(j), lease_rev = UINT64_MAX; /* UINT64_MAX: there is none */
    *ret = rec->owner[0] == '\0';
    if (*ret) return QD_OK;
    qd_code rc = qd_key(QD_KEY_LEASE, rec->id, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK) lease_rev = m.seq;
    qd_bus_msg_done(&m);
    if (rc != QD_OK && rc != QD_E_NOT_FOUND) return rc;
    qd_view_job *job = qd_view_find(&j->view, rec->id);
    if (job == NULL) return QD_OK;
    if (job->lease_rev != lease_rev) {
        job->lease_rev = lease_rev;
        job->lease_since_ms = now_ms;
    }
    *ret = now_ms - job->lease_since_ms >= j->opts.lease_ms;
    return QD_OK;
}

static qd_code repair_cancel(qd_jobs *j, const char *id, qd_jobs_swept *ret, qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    bool abandoned = false;
    qd_code rc = qd_jobs_get(j, id, &rec, &rev, err);
    if (rc == QD_OK && rec->state == QD_JOB_CANCELING) rc = is_abandoned(j, rec, &abandoned, err);
    if (rc == QD_OK && abandoned && (j->opts.disk != NULL || rec->epoch == 0)) {
        rc = qd_cancel_carry_out(j, rec, rev, err);
        if (rc == QD_OK) ret->canceled++;
    }
    qd_msg_free(rec);
    return rc == QD_E_CONFLICT || rc == QD_E_NOT_FOUND || rc == QD_E_INPUT || rc == QD_E_VERSION ? QD_OK : rc;
}

static qd_code retire(qd_jobs *j, const qd_jobs_seen *seen, qd_jobs_swept *ret, qd_err *err)
{
    qd_code rc = qd_jobs_delete(j, seen->id, NULL, err);
    if (rc == QD_OK) ret->deleted++;
    return rc == QD_E_NOT_FOUND || rc == QD_E_BUSY || rc == QD_E_CONFLICT ? QD_OK : rc;
}

/* How many messages to look after now. While the queue holds as many as there are jobs waiting or running, none can
 * have been lost, but for those that messages of ended jobs make up for: a few are looked after all the same, so that a
 * thousand programs ask a few thousand times a second and not a thousand times all jobs. */
static size_t messages_budget(qd_jobs *j)
{
    qd_bus_stream_state queue = {0};
    uint64_t now_ms = qd_jobs_mono_ms(j);
    size_t want = qd_jobs_view_in(j, NULL, QD_JOB_QUEUING) + qd_jobs_view_in(j, NULL, QD_JOB_RUNNING);
    if (want == 0 || qd_bus_stream(j->bus, QD_STREAM_JOBS, &queue, NULL) != QD_OK || queue.msgs >= want) {
        j->missing_since_ms = 0;
        return SLOW_MAX;
    }
    if (j->missing_since_ms == 0) j->missing_since_ms = now_ms;
    return now_ms - j->missing_since_ms >= j->opts.lease_ms ? REPAIR_MAX : SLOW_MAX;
}

/* What one job needs, if anything. *budget: messages that may still be looked after. */
static qd_code repair_job(qd_jobs *j, qd_view_job *job, size_t *budget, qd_jobs_swept *ret, qd_err *err)
{
    qd_jobs_seen seen = job->seen; /* a deleted job's place is taken by another's */
    uint64_t now_ms = qd_jobs_mono_ms(j), still_ms = now_ms - qd_max_u64(seen.since_ms, job->checked_ms);
    bool waits = seen.state == QD_JOB_QUEUING || seen.state == QD_JOB_RUNNING;
    if (waits && *budget > 0 && still_ms >= 2 * j->opts.lease_ms) {
        job->checked_ms = now_ms;
        --*budget;
        return republish(j, &seen, ret, err);
    }
    if (seen.state == QD_JOB_CANCELING && still_ms >= j->opts.lease_ms / 4) return repair_cancel(j, seen.id, ret, err);
    if (qd_job_state_terminal(seen.state) && j->opts.retention_ms != 0 &&
        qd_jobs_unix_ms(j) > seen.ended_ms + j->opts.retention_ms)
        return retire(j, &seen, ret, err);
    return QD_OK;
}

/* One job that cannot be mended (its disk fails) does not stand before the others: the first error is told at the end.
 */
static qd_code repair(qd_jobs *j, qd_jobs_swept *ret, qd_err *err)
{
    size_t budget = messages_budget(j), n = j->view.n_jobs;
    qd_code first = QD_OK;
    for (size_t i = 0; i < n && j->view.n_jobs != 0; i++) {
        size_t at = j->repair_at++ % j->view.n_jobs; /* goes on where the last sweep stopped */
        qd_code rc = repair_job(j, &j->view.jobs[at], &budget, ret, first == QD_OK ? err : NULL);
        if (first == QD_OK) first = rc;
        if (rc == QD_E_AWAY || rc == QD_E_NO_MEMORY) break;
    }
    return first;
}

qd_code qd_jobs_sweep(qd_jobs *j, qd_jobs_swept *ret, qd_err *err)
{
    bool synced = false;
    qd_code rc = qd_jobs_view_pump(j, 0, &synced, err);
    if (rc != QD_OK || !synced) return rc;
    bool sweeps = qd_seat_sweeps(j);
    rc = qd_sweep_admit(j, sweeps ? 0 : PATIENCE_MS, ret, err);
    if (!sweeps) return rc;
    qd_code more = repair(j, ret, rc == QD_OK ? err : NULL);
    return rc != QD_OK ? rc : more;
}
