/* change.c -- what people do to jobs: cancel, requeue, delete. */
#include "base/mem.h"
#include "jobs/inside.h"

#include <string.h>

typedef struct cancel_args {
    qd_jobs *j;
    const char *by, *reason;
} cancel_args;

static qd_code cancel_fn(void *ctx, qd_job_record *rec, bool *ret_write, qd_err *err)
{
    const cancel_args *a = ctx;
    qd_code rc = QD_OK;
    if (rec->state == QD_JOB_CANCELING || rec->state == QD_JOB_CANCELED) return QD_OK;
    if (qd_job_state_terminal(rec->state))
        return qd_fail(err, QD_E_BUSY, "job %s has ended %s", rec->id, qd_job_state_name(rec->state));
    qd_job_cancel *c = qd_job_cancel_new();
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a cancel");
    qd_msg_free(rec->cancel);
    rec->cancel = c;
    QD_TRY(qd_text_set(&c->job_id, rec->id, err));
    QD_TRY(qd_text_set(&c->by, a->by, err));
    QD_TRY(qd_text_set(&c->reason, a->reason, err));
    c->time_ms = qd_jobs_unix_ms(a->j);
    c->epoch = rec->epoch;
    /* Once taken, a job may have directories, and a holder that was lost may still rename one of them. */
    if (rec->epoch == 0)
        qd_record_end(a->j, rec, QD_JOB_CANCELED);
    else
        rec->state = QD_JOB_CANCELING;
    *ret_write = !a->j->opts.bugs.cancel_unwritten;
out:
    return rc;
}

qd_code qd_jobs_cancel(qd_jobs *j, const char *id, const char *reason, const qd_jobs_caller *by,
                       qd_job_state *ret_state, qd_err *err)
{
    cancel_args a = {.j = j, .by = by == NULL || by->user == NULL ? j->self : by->user, .reason = reason};
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = qd_record_change(j, id, cancel_fn, &a, &rec, &rev, err);
    if (rc == QD_E_AWAY && j->opts.bugs.away_is_no) rc = qd_fail(err, QD_E_BUSY, "job %s: not canceled", id);
    if (rc != QD_OK) return rc;
    *ret_state = rec->state;
    if (rec->owner[0] == '\0') (void)!qd_queue_purge(j, rec, NULL); /* else a worker drops the message */
    if (rec->state == QD_JOB_CANCELED) qd_event_ended(j, rec);
    if (rec->state == QD_JOB_CANCELING && rec->owner[0] == '\0' &&
        qd_cancel_carry_out(j, rec, rev, NULL) == QD_OK) /* else the sweep does */
        *ret_state = QD_JOB_CANCELED;
    qd_jobs_audit(j, rec->spec->tenant, by, "job.cancel", id, rc);
    qd_msg_free(rec);
    return QD_OK;
}

static qd_code requeue_fn(void *ctx, qd_job_record *rec, bool *ret_write, qd_err *err)
{
    bool *tried = ctx;
    bool ours =
        *tried && (rec->state == QD_JOB_PENDING || rec->state == QD_JOB_QUEUING || rec->state == QD_JOB_RUNNING);
    if (ours) return QD_OK;
    if (rec->state != QD_JOB_FAILED)
        return qd_fail(err, QD_E_BUSY, "job %s is %s, expected FAILED", rec->id, qd_job_state_name(rec->state));
    for (size_t i = 0; i < rec->n_failures; i++) qd_msg_free(rec->failures[i]);
    rec->n_failures = 0;
    qd_msg_free(rec->error);
    rec->error = NULL;
    rec->attempts = 0;
    rec->ended_ms = rec->queued_ms = rec->queue_seq = rec->retry_not_before_ms = 0;
    *ret_write = *tried = true;
    return qd_record_unown(rec, QD_JOB_PENDING, err);
}

qd_code qd_jobs_requeue(qd_jobs *j, const char *id, const qd_jobs_caller *by, qd_err *err)
{
    bool tried = false;
    qd_job_record *rec = NULL;
    qd_code rc = qd_record_change(j, id, requeue_fn, &tried, &rec, NULL, err);
    if (rc == QD_OK) qd_jobs_audit(j, rec->spec->tenant, by, "job.requeue", id, rc);
    qd_msg_free(rec);
    return rc;
}

qd_code qd_job_forget(qd_jobs *j, const qd_job_record *rec, uint64_t rev, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_code rc = QD_OK;
    bool disk = j->opts.disk != NULL && rec->epoch != 0; /* else it was never taken */
    /* OUT only where nothing can bring the job back: a FAILED one may be requeued this very moment. */
    if (disk && rec->state != QD_JOB_SUCCEEDED) QD_TRY(j->opts.disk->discard_staging(j->opts.disk->ctx, rec, err));
    if (disk && rec->state == QD_JOB_CANCELED) QD_TRY(j->opts.disk->discard_output(j->opts.disk->ctx, rec, err));
    QD_TRY(qd_key(QD_KEY_JOB, rec->id, key, err));
    QD_TRY(qd_bus_kv_delete(j->bus, QD_BUCKET_JOBS, key, rev, err));
    QD_TRY(qd_name_drop(j, rec->spec->tenant, rec->spec->name, rec->id, err)); /* left over, it is a leak */
    QD_TRY(qd_lease_drop(j, rec->id, err));
out:
    return rc;
}

qd_code qd_jobs_delete(qd_jobs *j, const char *id, const qd_jobs_caller *by, qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = QD_OK;
    char tenant[QD_ID_BYTES] = "";
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        rc = qd_jobs_get(j, id, &rec, &rev, err);
        if (rc == QD_E_NOT_FOUND && tenant[0] != '\0') rc = QD_OK; /* our own first try, or another's */
        if (rec != NULL) memcpy(tenant, rec->spec->tenant, strlen(rec->spec->tenant) + 1);
        if (rec != NULL && !qd_job_state_terminal(rec->state))
            rc = qd_fail(err, QD_E_BUSY, "job %s is %s: cancel it first", id, qd_job_state_name(rec->state));
        else if (rec != NULL)
            rc = qd_job_forget(j, rec, rev, err);
        qd_msg_free(rec);
        rec = NULL;
        if (rc != QD_E_AWAY && rc != QD_E_CONFLICT) break;
    }
    if (rc == QD_OK) qd_jobs_audit(j, tenant, by, "job.delete", id, rc);
    return rc;
}
