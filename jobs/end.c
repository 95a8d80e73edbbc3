/* end.c -- how a task ends: finished, canceled, handed back, failed. */
#include "base/mem.h"
#include "jobs/task_inside.h"
#include "jobs/worker.h"

#include <string.h>

enum {
    NODE_FAILURES_MAX = 3,
    GONE_LEASES = 40 /* a worker that was silent for so many leases will not come back */
};

uint32_t qd_jobs_node_failures(const qd_jobs *j)
{
    return j->node_failures;
}

bool qd_jobs_must_drain(const qd_jobs *j)
{
    return j->node_failures >= NODE_FAILURES_MAX;
}

void qd_task_over(qd_task *t)
{
    qd_event_ended(t->j, t->rec);
    if (qd_bus_pull_ack(t->j->bus, &t->msg, NULL) == QD_E_AWAY) (void)!qd_bus_pull_ack(t->j->bus, &t->msg, NULL);
    (void)!qd_lease_drop(t->j, t->rec->id, NULL);
}

qd_code qd_cancel_disk(qd_jobs *j, const qd_job_record *rec, qd_err *err)
{
    const qd_jobs_disk *d = j->opts.disk;
    if (rec->epoch == 0) return QD_OK; /* never taken: there is nothing */
    if (d == NULL) return qd_fail(err, QD_E_UNSUPPORTED, "job %s: this program does not reach the outputs", rec->id);
    const qd_jobs_bugs *bugs = &j->opts.bugs;
    qd_code rc = bugs->out_before_staging ? d->discard_output(d->ctx, rec, err) : QD_OK;
    if (rc == QD_OK && !bugs->keep_staging) rc = d->discard_staging(d->ctx, rec, err);
    if (rc == QD_OK && !bugs->keep_output && !bugs->out_before_staging) rc = d->discard_output(d->ctx, rec, err);
    return rc;
}

qd_code qd_cancel_carry_out(qd_jobs *j, qd_job_record *rec, uint64_t rev, qd_err *err)
{
    qd_code rc = qd_cancel_disk(j, rec, err);
    if (rc != QD_OK) return rc;
    qd_record_end(j, rec, QD_JOB_CANCELED);
    rc = qd_record_put(j, rec, rev, NULL, err);
    if (rc != QD_OK) return rc;
    qd_event_ended(j, rec);
    (void)!qd_queue_purge(j, rec, NULL);
    (void)!qd_lease_drop(j, rec->id, NULL);
    return QD_OK;
}

/* Whether OUT is there; *ret (owned by the caller) then says what is in it. */
static qd_code find_output(qd_task *t, qd_report_summary **ret, bool *ret_there, qd_err *err)
{
    const qd_jobs_disk *d = t->j->opts.disk;
    qd_report_summary *r = qd_report_summary_new();
    *ret_there = false;
    if (r == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a report");
    qd_code rc = d == NULL ? QD_OK : d->output(d->ctx, t->rec, ret_there, r, err);
    if (rc == QD_OK && *ret_there && ret != NULL)
        *ret = r;
    else
        qd_msg_free(r);
    return rc;
}

typedef struct finish_args {
    const qd_report_summary *report;
    uint64_t device_ms;
} finish_args;

static qd_code finish_fn(qd_task *t, void *arg, qd_err *err)
{
    const finish_args *a = arg;
    ProtobufCMessage *copy = NULL;
    qd_code rc = qd_msg_copy(&a->report->base, &copy, err);
    if (rc != QD_OK) return rc;
    qd_msg_free(t->rec->report);
    t->rec->report = (qd_report_summary *)(void *)copy;
    t->rec->device_ms += a->device_ms;
    t->rec->log_lines = t->stored_lines;
    qd_record_end(t->j, t->rec, QD_JOB_SUCCEEDED);
    return QD_OK;
}

qd_code qd_task_finish(qd_task *t, const qd_report_summary *report, uint64_t device_ms, qd_err *err)
{
    qd_report_summary *found = NULL;
    bool there = false;
    qd_code rc = QD_OK;
    QD_TRY(find_output(t, &found, &there, err));
    if (there || t->j->opts.bugs.blind_finish) {
        finish_args a = {.report = report != NULL || found == NULL ? report : found, .device_ms = device_ms};
        rc = qd_task_write(t, QD_JOB_RUNNING, QD_JOB_SUCCEEDED, finish_fn, &a, err);
    } else {
        rc = qd_task_look(t, err); /* whoever took it away has written so first */
        if (rc == QD_OK)
            rc = qd_fail(err, QD_E_VERIFY, "job %s: no output at %s", t->rec->id, t->rec->spec->output_path);
    }
    if (rc == QD_OK) {
        t->j->node_failures = 0;
        qd_task_over(t);
    }
    if (rc == QD_E_CANCELED) {
        qd_code canceled = qd_task_canceled(t, device_ms, err);
        if (canceled != QD_OK) rc = canceled;
    }
out:
    qd_msg_free(found);
    return rc;
}

static qd_code canceled_fn(qd_task *t, void *arg, qd_err *err)
{
    (void)err;
    t->rec->device_ms += *(const uint64_t *)arg;
    qd_record_end(t->j, t->rec, QD_JOB_CANCELED);
    return QD_OK;
}

qd_code qd_task_canceled(qd_task *t, uint64_t device_ms, qd_err *err)
{
    qd_code rc = t->stale ? qd_task_look(t, err) : QD_OK;
    if (rc == QD_OK && t->rec->state == QD_JOB_RUNNING) rc = qd_task_look(t, err);
    bool done = rc == QD_E_CONFLICT && t->rec->epoch == t->epoch && t->rec->state == QD_JOB_CANCELED;
    if (done) return QD_OK; /* an earlier try, or the sweep, did it */
    if (rc != QD_OK && rc != QD_E_CANCELED) return rc;
    if (t->rec->state != QD_JOB_CANCELING)
        return qd_fail(err, QD_E_USAGE, "job %s is %s: nobody canceled it", t->rec->id,
                       qd_job_state_name(t->rec->state));
    rc = qd_cancel_disk(t->j, t->rec, err);
    if (rc == QD_OK) rc = qd_task_write(t, QD_JOB_CANCELING, QD_JOB_CANCELED, canceled_fn, &device_ms, err);
    if (rc == QD_OK) qd_task_over(t);
    return rc;
}

/* Before a job goes back: an output that is in place ends it. *ret_over: it did. */
static qd_code finish_instead(qd_task *t, uint64_t device_ms, bool *ret_over, qd_err *err)
{
    qd_code rc = find_output(t, NULL, ret_over, err);
    if (rc != QD_OK || !*ret_over) { /* unreadable: the next one will look again */
        *ret_over = false;
        return QD_OK;
    }
    return qd_task_finish(t, NULL, device_ms, err);
}

typedef struct back_args {
    const qd_progress *progress;
    const qd_job_error *error; /* NULL: a hand-back */
    uint64_t device_ms;
    bool dead;
} back_args;

static qd_code hand_back_fn(qd_task *t, void *arg, qd_err *err)
{
    const back_args *a = arg;
    qd_code rc = qd_task_set_progress(t, a->progress, err);
    if (rc == QD_OK) rc = qd_record_unown(t->rec, QD_JOB_QUEUING, err);
    if (rc != QD_OK) return rc;
    if (t->rec->attempts > 0 && !t->j->opts.bugs.count_hand_backs) t->rec->attempts--;
    t->rec->handed_back_ms = qd_jobs_unix_ms(t->j);
    t->rec->device_ms += a->device_ms;
    return QD_OK;
}

qd_code qd_task_back_after(qd_task *t, const qd_progress *p, uint64_t device_ms, uint64_t delay_ms, qd_err *err)
{
    back_args a = {.progress = p, .device_ms = device_ms};
    bool over = false;
    qd_code rc = finish_instead(t, device_ms, &over, err);
    if (over || rc != QD_OK) return rc;
    rc = qd_task_write(t, QD_JOB_RUNNING, QD_JOB_QUEUING, hand_back_fn, &a, err);
    if (rc == QD_OK) (void)!qd_bus_pull_nak(t->j->bus, &t->msg, delay_ms, NULL);
    return rc;
}

qd_code qd_task_hand_back(qd_task *t, const qd_progress *p, uint64_t device_ms, qd_err *err)
{
    return qd_task_back_after(t, p, device_ms, 0, err);
}

qd_code qd_failure_add(qd_job_record *rec, const qd_job_error *e, qd_err *err)
{
    ProtobufCMessage *copy = NULL;
    if (rec->n_failures >= QD_FAILURES_KEPT) {
        qd_msg_free(rec->failures[0]);
        memmove(&rec->failures[0], &rec->failures[1], (rec->n_failures - 1) * sizeof rec->failures[0]);
        rec->n_failures--;
    }
    qd_code rc = qd_msg_copy(&e->base, &copy, err);
    if (rc == QD_OK) rc = qd_list_add(&rec->failures, &rec->n_failures, copy, err);
    if (rc != QD_OK) qd_msg_free(copy);
    return rc;
}

static bool failed_by(const qd_job_record *rec, size_t before, const char *worker)
{
    for (size_t i = 0; i < before; i++)
        if (rec->failures[i]->error_class == QUANTD__ERROR_CLASS__ERROR_JOB &&
            strcmp(rec->failures[i]->worker, worker) == 0)
            return true;
    return false;
}

typedef struct others {
    const qd_jobs *j;
    const qd_job_record *rec;
    size_t n;
} others;

static qd_code count_other(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    others *o = ctx;
    (void)err;
    const qd_job_lane *lane = o->rec->spec->lane;
    bool fits = strcmp(hb->device_class, lane->device_class) == 0 &&
                (strcmp(lane->numerics_id, "any") == 0 || strcmp(lane->numerics_id, hb->numerics_id) == 0);
    bool leaving =
        hb->state == QUANTD__WORKER_STATE__WORKER_DRAINING || hb->state == QUANTD__WORKER_STATE__WORKER_DRAINED;
    bool could = fits && !leaving && strcmp(hb->id, o->j->self) != 0 && age_ms < GONE_LEASES * o->j->opts.lease_ms;
    if (could && !failed_by(o->rec, o->rec->n_failures, hb->id)) o->n++;
    return QD_OK;
}

qd_code qd_failed_enough(qd_jobs *j, const qd_job_record *rec, bool *ret_enough, qd_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < rec->n_failures; i++)
        n += rec->failures[i]->error_class == QUANTD__ERROR_CLASS__ERROR_JOB &&
             !failed_by(rec, i, rec->failures[i]->worker);
    *ret_enough = n >= 2 || (j->opts.bugs.node_is_job && rec->n_failures >= 2);
    if (n != 1) return QD_OK;
    others o = {.j = j, .rec = rec};
    qd_code rc = qd_jobs_workers(j, count_other, &o, err);
    if (rc == QD_OK) *ret_enough = o.n == 0;
    return rc;
}

/* The record ends FAILED with its last failure, or with e. */
static qd_code set_failed(qd_task *t, const qd_job_error *e, qd_err *err)
{
    ProtobufCMessage *copy = NULL;
    qd_job_record *rec = t->rec;
    if (e == NULL && rec->n_failures != 0) e = rec->failures[rec->n_failures - 1];
    if (e != NULL) {
        qd_code rc = qd_msg_copy(&e->base, &copy, err);
        if (rc != QD_OK) return rc;
        qd_msg_free(rec->error);
        rec->error = (qd_job_error *)(void *)copy;
    }
    qd_record_end(t->j, rec, QD_JOB_FAILED);
    return QD_OK;
}

/* Only now: a requeue raises the epoch before it makes staging, and ours is discarded up to ours only. */
static void over_failed(qd_task *t)
{
    const qd_jobs_disk *d = t->j->opts.disk;
    if (d != NULL) (void)!d->discard_staging(d->ctx, t->rec, NULL);
    qd_event_dead(t->j, t->rec);
    qd_task_over(t);
}

static qd_code give_up_fn(qd_task *t, void *arg, qd_err *err)
{
    bool job = t->rec->n_failures != 0; /* else it was lost too often */
    return set_failed(t, job ? NULL : arg, err);
}

qd_code qd_task_give_up(qd_task *t, qd_err *err)
{
    qd_job_error *e = qd_job_error_new();
    if (e == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for an error");
    qd_code rc = qd_text_set(&e->code, qd_code_name(QD_E_INTERNAL), err);
    if (rc == QD_OK) rc = qd_text_set(&e->message, "given up: too many workers were lost over it", err);
    if (rc == QD_OK) {
        e->error_class = QUANTD__ERROR_CLASS__ERROR_JOB;
        e->time_ms = qd_jobs_unix_ms(t->j);
        rc = qd_task_write(t, QD_JOB_RUNNING, QD_JOB_FAILED, give_up_fn, e, err);
    }
    if (rc == QD_OK) over_failed(t);
    qd_msg_free(e);
    return rc;
}

static qd_code fail_fn(qd_task *t, void *arg, qd_err *err)
{
    back_args *a = arg;
    const qd_job_error *e = a->error;
    bool uncounted = e->error_class != QUANTD__ERROR_CLASS__ERROR_JOB;
    qd_code rc = QD_OK;
    if (e->error_class != QUANTD__ERROR_CLASS__ERROR_BUS) QD_TRY(qd_failure_add(t->rec, e, err));
    t->rec->device_ms += a->device_ms;
    if (uncounted && t->rec->attempts > 0) t->rec->attempts--;
    if (a->dead)
        rc = set_failed(t, NULL, err);
    else
        rc = qd_record_unown(t->rec, QD_JOB_QUEUING, err);
out:
    return rc;
}

/* Whether this failure is the job's end. */
static qd_code is_dead(qd_task *t, const qd_job_error *e, bool *ret_dead, qd_err *err)
{
    if (e->error_class != QUANTD__ERROR_CLASS__ERROR_JOB && !t->j->opts.bugs.node_is_job) return QD_OK;
    ProtobufCMessage *copy = NULL;
    qd_code rc = qd_msg_copy(&t->rec->base, &copy, err);
    if (rc == QD_OK) rc = qd_failure_add((qd_job_record *)(void *)copy, e, err);
    if (rc == QD_OK) rc = qd_failed_enough(t->j, (qd_job_record *)(void *)copy, ret_dead, err);
    qd_msg_free(copy);
    return rc;
}

qd_code qd_task_fail(qd_task *t, const qd_job_error *e, uint64_t device_ms, bool *ret_failed, qd_err *err)
{
    qd_jobs *j = t->j;
    ProtobufCMessage *mine = NULL;
    back_args a = {.device_ms = device_ms};
    bool over = false;
    if (ret_failed != NULL) *ret_failed = false;
    qd_code rc = finish_instead(t, device_ms, &over, err);
    if (over || rc != QD_OK) return rc;
    QD_TRY(qd_msg_copy(&e->base, &mine, err));
    QD_TRY(qd_text_set(&((qd_job_error *)(void *)mine)->worker, j->self, err));
    ((qd_job_error *)(void *)mine)->time_ms = qd_jobs_unix_ms(j);
    a.error = (qd_job_error *)(void *)mine;
    if (!t->counted) {
        if (e->error_class == QUANTD__ERROR_CLASS__ERROR_NODE) j->node_failures++;
        if (e->error_class == QUANTD__ERROR_CLASS__ERROR_JOB) j->node_failures = 0;
        t->counted = true;
    }
    if (t->stale) {
        rc = qd_task_look(t, err);
        bool done = rc == QD_E_CONFLICT && t->rec->epoch == t->epoch &&
                    (t->asked == QD_JOB_FAILED || t->asked == QD_JOB_QUEUING) && t->rec->state == t->asked;
        if (done) a.dead = t->asked == QD_JOB_FAILED;
        if (done) rc = QD_OK;
        if (rc != QD_OK) goto out;
        if (done) goto told;
    }
    QD_TRY(is_dead(t, a.error, &a.dead, err));
    QD_TRY(qd_task_write(t, QD_JOB_RUNNING, a.dead ? QD_JOB_FAILED : QD_JOB_QUEUING, fail_fn, &a, err));
told:
    if (a.dead)
        over_failed(t);
    else
        (void)!qd_bus_pull_nak(j->bus, &t->msg, j->opts.lease_ms / 4, NULL);
    if (ret_failed != NULL) *ret_failed = a.dead;
out:
    qd_msg_free(mine);
    return rc;
}
