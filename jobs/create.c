/* create.c -- a job comes to be: limits, name, record. */
#include "jobs/inside.h"

#include <stdio.h>
#include <string.h>

static qd_code check_limits(qd_jobs *j, const char *tenant, qd_err *err)
{
    qd_bus_stream_state q = {0};
    const qd_stream_def *def = qd_stream_def_find(QD_STREAM_JOBS);
    if (!j->view.synced) { /* a one-shot program knows no counts, but it can ask whether the queue is full */
        qd_code rc = qd_bus_stream(j->bus, QD_STREAM_JOBS, &q, err);
        if (rc == QD_OK && def->msgs_max != 0 && q.msgs >= def->msgs_max)
            rc = qd_fail(err, QD_E_FULL, "the work queue is full: %llu jobs", (unsigned long long)q.msgs);
        return rc;
    }
    if (j->queue_full_until_ms > qd_jobs_mono_ms(j)) return qd_fail(err, QD_E_FULL, "the work queue is full");
    qd_tenant *t = qd_view_tenant(&j->view, tenant);
    if (t == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for tenant %s", tenant);
    qd_tenant_refresh(j, t);
    size_t waiting = t->in[QD_JOB_PENDING] + t->in[QD_JOB_QUEUING], all = 0;
    for (size_t i = 0; i < QD_JOB_STATES; i++) all += t->in[i];
    if (t->queued_max != 0 && waiting >= t->queued_max)
        return qd_fail(err, QD_E_FULL, "tenant %s has %zu jobs waiting, at most %u", tenant, waiting, t->queued_max);
    if (t->recorded_max != 0 && all >= t->recorded_max)
        return qd_fail(err, QD_E_FULL, "tenant %s has %zu jobs on record, at most %u", tenant, all, t->recorded_max);
    return QD_OK;
}

/* Writes the first record. As a message that must be the first of its subject, not as a key that must be absent: the
 * marker of a deleted job then refuses a creation that was long under way. *ret_gone: it was written before, and is
 * deleted by now. */
static qd_code put_first(qd_jobs *j, qd_job_record *rec, bool *ret_gone, qd_err *err)
{
    char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES + 16];
    qd_bus_puback ack = {0};
    qd_code rc = qd_key(QD_KEY_JOB, rec->id, key, err);
    if (rc != QD_OK) return rc;
    (void)snprintf(subject, sizeof subject, "$KV." QD_BUCKET_JOBS ".%s", key);
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        qd_job_record *found = NULL;
        qd_buf_reset(&j->buf);
        rc = qd_job_record_encode(rec, &j->buf, err);
        if (rc != QD_OK) return rc;
        qd_bus_pub p = {
            .subject = subject, .data = j->buf.data, .bytes = j->buf.len, .expect_subject_seq = QD_REV_ABSENT};
        rc = j->opts.bugs.create_over_marker ? qd_record_put(j, rec, QD_REV_ABSENT, NULL, err)
                                             : qd_bus_publish(j->bus, &p, &ack, err);
        if (rc == QD_E_AWAY) continue; /* the same again settles it */
        if (rc != QD_E_CONFLICT) return rc;
        rc = qd_jobs_get(j, rec->id, &found, NULL, err);
        if (rc == QD_OK && strcmp(found->spec->tenant, rec->spec->tenant) != 0)
            rc = qd_fail(err, QD_E_CONFLICT, "job %s is another tenant's", rec->id);
        *ret_gone = rc == QD_E_NOT_FOUND;
        qd_msg_free(found);
        return rc == QD_E_NOT_FOUND ? QD_OK : rc;
    }
    return rc;
}

static qd_code create(qd_jobs *j, qd_job_record *rec, bool unique, qd_err *err)
{
    const qd_job_spec *spec = rec->spec;
    bool gone = false;
    uint64_t name_rev = 0, begun_ms = qd_jobs_mono_ms(j);
    qd_code rc = qd_msg_check(&rec->base, err);
    if (rc == QD_OK) rc = check_limits(j, spec->tenant, err);
    if (rc == QD_E_FULL) { /* but not for a job that is in already */
        qd_job_record *found = NULL;
        qd_code seen = qd_jobs_get(j, rec->id, &found, NULL, NULL);
        bool ours = seen == QD_OK && strcmp(found->spec->tenant, spec->tenant) == 0;
        qd_msg_free(found);
        return ours ? QD_OK : seen == QD_E_AWAY ? qd_fail(err, QD_E_AWAY, "job %s: no answer", rec->id) : rc;
    }
    if (rc == QD_OK && unique) rc = qd_name_claim(j, spec->tenant, spec->name, rec->id, &name_rev, err);
    if (rc != QD_OK) return rc;
    rc = put_first(j, rec, &gone, err);
    bool open = rc == QD_E_AWAY || rc == QD_E_NO_MEMORY; /* the record may be there, only its answer was not read */
    if (rc != QD_OK && !open && unique && !j->opts.bugs.leave_names)
        (void)!qd_name_drop(j, spec->tenant, spec->name, rec->id, NULL); /* the sweep would, later */
    if (rc != QD_OK || !unique || gone) return rc;
    /* Stalled for long between name and record, the name may have been taken for a leak, or be about to; also when the
     * record, found to be there, is that of a try before which was not answered. */
    if (qd_jobs_mono_ms(j) - begun_ms < j->opts.leak_ms / 2) return QD_OK;
    rc = qd_name_claim(j, spec->tenant, spec->name, rec->id, &name_rev, err);
    if (rc == QD_E_CONFLICT) {
        (void)!qd_jobs_cancel(j, rec->id, "its name was given to another job", NULL, &(qd_job_state){0}, NULL);
        return qd_fail(err, QD_E_CONFLICT, "the name %.80s was given to another job meanwhile", spec->name);
    }
    return rc;
}

qd_code qd_jobs_create(qd_jobs *j, const char *id, const qd_job_spec *spec, bool unique, const qd_jobs_caller *by,
                       qd_err *err)
{
    qd_job_record *rec = qd_job_record_new();
    ProtobufCMessage *copy = NULL;
    if (rec == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for job %.64s", id);
    qd_code rc = QD_OK;
    QD_TRY(qd_text_set(&rec->id, id, err));
    QD_TRY(qd_msg_copy(&spec->base, &copy, err));
    rec->spec = (qd_job_spec *)(void *)copy;
    if (spec->ranks_max != 0 && spec->ranks_min > spec->ranks_max) {
        rc = qd_fail(err, QD_E_INPUT, "ranks %u..%u: expected MIN <= MAX", spec->ranks_min, spec->ranks_max);
        goto out;
    }
    rec->state = QD_JOB_PENDING;
    rec->created_ms = rec->updated_ms = qd_jobs_unix_ms(j);
    rc = create(j, rec, unique, err);
    qd_jobs_audit(j, spec->tenant, by, "job.create", id, rc);
out:
    qd_msg_free(rec);
    return rc;
}
