/* call_job.c -- reading, canceling and deleting one job through the bus. */
#include "gateway/backend_inside.h"

#include <stdio.h>
#include <string.h>

qd_jobs_caller qd_call_by(const qd_ask *a, char from[256])
{
    (void)snprintf(from, 256, "%.120s %.120s", a->program == NULL ? "" : a->program, a->from == NULL ? "" : a->from);
    return (qd_jobs_caller){.user = a->caller->user, .request_id = a->request_id, .from = from};
}

static void broken(qd_backend_bus *b, qd_code rc, const qd_err *why)
{
    if (rc == QD_OK || rc == QD_E_NO_MEMORY) return; /* without memory: what the feed tells is put in then */
    qd_glog_err(b->cfg.log, QD_LOG_WARN, "the index cannot be written; it is made anew", why);
    atomic_store(&b->index_broken, true);
}

void qd_call_note(qd_backend_bus *b, const qd_job_record *rec, uint64_t rev)
{
    qd_err why = {0};
    qd_code rc = qd_index_put(b->index, rec, rev, &why);
    if (rc == QD_OK) rc = qd_index_commit(b->index, &why);
    broken(b, rc, &why);
}

qd_code qd_call_read(qd_desk *d, const char *tenant, Quantd__ApiOrigin origin, const char *id, qd_job_record **ret,
                     qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = qd_id_ok(id) ? QD_E_AWAY : qd_fail(err, QD_E_NOT_FOUND, "no job %.64s", id);
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++) rc = qd_jobs_get(d->jobs, id, &rec, &rev, err);
    if (rc != QD_OK) return rc;
    qd_call_note(d->b, rec, rev);
    if (strcmp(rec->spec->tenant, tenant) != 0 ||
        (origin != QUANTD__API_ORIGIN__API_NONE && rec->spec->origin != origin)) {
        qd_msg_free(rec);
        return qd_fail(err, QD_E_NOT_FOUND, "no job %.64s", id);
    }
    *ret = rec;
    return QD_OK;
}

qd_code qd_call_job_get(qd_desk *d, void *arg, qd_err *err)
{
    qd_call_job *c = arg;
    return qd_call_read(d, c->caller->tenant, c->origin, c->id, &c->ret, err);
}

qd_code qd_call_job_cancel(qd_desk *d, void *arg, qd_err *err)
{
    const qd_call_job *c = arg;
    char from[256];
    const qd_jobs_caller by = qd_call_by(c->ask, from);
    qd_job_record *rec = NULL;
    qd_job_state state = QD_JOB_CANCELING;
    qd_code rc = qd_call_read(d, c->caller->tenant, c->origin, c->id, &rec, err);
    if (rc != QD_OK) return rc;
    qd_msg_free(rec);
    rec = NULL;
    rc = QD_E_AWAY;
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++)
        rc = qd_jobs_cancel(d->jobs, c->id, "asked for by its user", &by, &state, err);
    /* What the caller reads next is what it did; unread, the feed tells it in a moment. */
    if (rc == QD_OK) (void)!qd_call_read(d, c->caller->tenant, c->origin, c->id, &rec, NULL);
    qd_msg_free(rec);
    return rc;
}

qd_code qd_call_job_delete(qd_desk *d, void *arg, qd_err *err)
{
    const qd_call_job *c = arg;
    char from[256];
    const qd_jobs_caller by = qd_call_by(c->ask, from);
    qd_job_record *rec = NULL;
    qd_err why = {0};
    qd_code rc = qd_call_read(d, c->caller->tenant, c->origin, c->id, &rec, err);
    if (rc != QD_OK) return rc;
    qd_msg_free(rec);
    bool open = false;
    rc = QD_E_AWAY;
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++) {
        rc = qd_jobs_delete(d->jobs, c->id, &by, err);
        if (rc == QD_E_NOT_FOUND && open) rc = QD_OK; /* an unanswered try did it */
        open = rc == QD_E_AWAY;
    }
    if (rc != QD_OK) return rc;
    qd_code noted = qd_index_delete_own(d->b->index, c->id, &why);
    if (noted == QD_OK) noted = qd_index_commit(d->b->index, &why);
    broken(d->b, noted, &why);
    return QD_OK;
}
