/* take.c -- from a message to a task: the record decides. */
#include "base/mem.h"
#include "jobs/gang_inside.h"
#include "jobs/worker.h"

#include <inttypes.h>
#include <string.h>

/* Hands the message back for a while. */
static void later(qd_jobs *j, qd_bus_msg *m, uint64_t delay_ms, qd_take *ret)
{
    (void)!qd_bus_pull_nak(j->bus, m, delay_ms, NULL);
    *ret = QD_TAKE_LATER;
}

static void drop(qd_jobs *j, qd_bus_msg *m, qd_take *ret)
{
    (void)!qd_bus_pull_ack(j->bus, m, NULL); /* not arrived: it comes again and is dropped again */
    *ret = QD_TAKE_DROPPED;
}

/* Whether this worker failed the job: for good, or on its own account lately (its own clock on both sides). */
static bool excluded(const qd_jobs *j, const qd_job_record *rec, bool *ret_for_good)
{
    bool out = false;
    uint64_t now_ms = qd_jobs_unix_ms(j);
    *ret_for_good = false;
    for (size_t i = 0; i < rec->n_failures; i++) {
        const qd_job_error *f = rec->failures[i];
        if (strcmp(f->worker, j->self) != 0) continue;
        bool job = f->error_class == QUANTD__ERROR_CLASS__ERROR_JOB;
        *ret_for_good = *ret_for_good || job;
        out = out || job || now_ms < f->time_ms + j->opts.node_retry_ms;
    }
    return out;
}

/* What stands before a take. *ret is QD_TAKE_RUN when nothing does; *ret_give_up: it is taken to end it, as nobody is
 * left to try or too many attempts were lost. */
static qd_code may_take(qd_jobs *j, qd_bus_msg *m, qd_job_record *rec, uint64_t rev, qd_take *ret, bool *ret_give_up,
                        qd_err *err)
{
    uint64_t left_ms = 0;
    bool for_good = false, owned = rec->owner[0] != '\0' && !qd_job_state_terminal(rec->state);
    qd_code rc = QD_OK;
    *ret = QD_TAKE_RUN;
    *ret_give_up = false;
    if (qd_job_state_terminal(rec->state)) {
        drop(j, m, ret);
        return QD_OK;
    }
    if (owned) {
        QD_TRY(qd_lease_left(j, rec, &left_ms, err));
        if (left_ms != 0 || !qd_lease_settled(j, &left_ms)) {
            later(j, m, left_ms, ret);
            return QD_OK;
        }
    }
    if (rec->state == QD_JOB_CANCELING) {
        QD_TRY(qd_cancel_carry_out(j, rec, rev, err));
        drop(j, m, ret);
        *ret = QD_TAKE_ENDED;
        return QD_OK;
    }
    if (qd_jobs_must_drain(j)) {
        later(j, m, j->opts.lease_ms / 4, ret);
        return QD_OK;
    }
    if (excluded(j, rec, &for_good)) {
        if (for_good) QD_TRY(qd_failed_enough(j, rec, ret_give_up, err));
        if (!*ret_give_up) later(j, m, j->opts.lease_ms, ret);
        return QD_OK;
    }
    bool enough = false; /* a leader of too few would only stand in the way of others */
    QD_TRY(qd_line_enough(j, rec->spec, &enough, err));
    if (!enough) {
        later(j, m, j->opts.lease_ms / 4, ret);
        return QD_OK;
    }
    uint32_t most = rec->spec->attempts_max != 0 ? rec->spec->attempts_max : j->opts.attempts_max;
    *ret_give_up = j->opts.bugs.trust_deliveries ? m->delivered > most : rec->attempts >= most;
out:
    return rc;
}

/* Takes the record. *ret_rec is set with QD_TAKE_RUN only. */
static qd_code take_record(qd_jobs *j, qd_bus_msg *m, const char *id, qd_take *ret, qd_job_record **ret_rec,
                           uint64_t *ret_rev, bool *ret_give_up, qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0, tried = 0; /* the epoch that an earlier try may have got */
    qd_code rc = QD_OK;
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        qd_msg_free(rec);
        rec = NULL;
        rc = qd_jobs_get(j, id, &rec, &rev, err);
        if (rc == QD_E_NOT_FOUND) {
            drop(j, m, ret);
            rc = QD_OK;
            goto out;
        }
        if (rc == QD_E_AWAY) continue;
        if (rc != QD_OK) { /* a newer program's record is for newer workers */
            if (rc == QD_E_VERSION || rc == QD_E_INPUT) later(j, m, j->opts.lease_ms, ret);
            goto out;
        }
        bool landed =
            tried != 0 && rec->epoch == tried && rec->state == QD_JOB_RUNNING && strcmp(rec->owner, j->self) == 0;
        if (landed) goto won;
        rc = may_take(j, m, rec, rev, ret, ret_give_up, err);
        if (rc == QD_E_CONFLICT || rc == QD_E_AWAY) continue;
        if (rc != QD_OK || *ret != QD_TAKE_RUN) goto out;
        tried = rec->epoch = j->opts.bugs.keep_epoch && rec->epoch != 0 ? rec->epoch : rec->epoch + 1;
        QD_TRY(qd_text_set(&rec->owner, j->self, err));
        rec->attempts++;
        rec->state = QD_JOB_RUNNING;
        qd_record_call(rec, NULL); /* a former owner's */
        if (rec->started_ms == 0) rec->started_ms = qd_jobs_unix_ms(j);
        rc = qd_record_put(j, rec, rev, &rev, err);
        if (rc == QD_OK || (rc == QD_E_CONFLICT && j->opts.bugs.go_on_after_lost_take)) goto won;
        if (rc != QD_E_CONFLICT && rc != QD_E_AWAY) goto out;
    }
    goto out;
won:
    *ret = QD_TAKE_RUN;
    *ret_rec = rec;
    *ret_rev = rev;
    rec = NULL;
    rc = QD_OK;
out:
    qd_msg_free(rec);
    return rc;
}

/* The directories come to this epoch. *ret_there: the output is in place already. Staging first: after that no other
 * holder can rename it to OUT, so what is not there then will not come. */
static qd_code take_disk(qd_task *t, bool *ret_there, qd_err *err)
{
    const qd_jobs_disk *d = t->j->opts.disk;
    qd_report_summary *r = qd_report_summary_new();
    bool first = t->j->opts.bugs.output_first;
    if (r == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a report");
    qd_code rc = first ? d->output(d->ctx, t->rec, ret_there, r, err) : QD_OK;
    if (rc == QD_OK) rc = d->adopt(d->ctx, t->rec, &t->resume, err);
    if (rc == QD_OK && !first) rc = d->output(d->ctx, t->rec, ret_there, r, err);
    qd_msg_free(r);
    return rc;
}

static qd_code disk_failure(qd_task *t, const qd_err *why, qd_err *err)
{
    qd_job_error *e = qd_job_error_new();
    if (e == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for an error");
    qd_code rc = qd_text_set(&e->code, qd_code_name(why->code), err);
    if (rc == QD_OK) rc = qd_text_set(&e->message, why->msg, err);
    if (rc == QD_OK) {
        e->error_class = qd_jobs_class_of(why->code);
        rc = qd_task_fail(t, e, 0, NULL, err);
    }
    qd_msg_free(e);
    return rc;
}

static qd_code begin(qd_task *t, bool give_up, qd_take *ret, bool *ret_over, qd_err *err)
{
    bool there = false;
    qd_err why = {0};
    if (qd_lease_write(t->j, t->rec->id, t->j->self, t->epoch, 0, QD_REV_ANY, &why) != QD_OK)
        memset(&why, 0, sizeof why); /* the next renewal writes it; meanwhile who misses it waits a lease time */
    qd_code rc = take_disk(t, &there, &why);
    *ret_over = true;
    *ret = QD_TAKE_LATER;
    if (rc != QD_OK) {
        rc = disk_failure(t, &why, err);
        return rc == QD_E_CANCELED || rc == QD_E_CONFLICT ? QD_OK : rc; /* a cancel is the sweep's, after the lease */
    }
    if (there)
        rc = qd_task_finish(t, NULL, 0, err);
    else if (give_up)
        rc = qd_task_give_up(t, err);
    *ret_over = there || give_up;
    *ret = *ret_over ? QD_TAKE_ENDED : QD_TAKE_RUN;
    if (rc == QD_E_CANCELED && !there) rc = qd_task_canceled(t, 0, err);
    return rc == QD_E_CANCELED || rc == QD_E_CONFLICT ? QD_OK : rc; /* ended all the same, or another's already */
}

qd_code qd_jobs_take(qd_jobs *j, qd_bus_msg *m, qd_take *ret, qd_task **ret_task, qd_err *err)
{
    char id[QD_ID_BYTES];
    qd_lane lane = {0};
    qd_job_record *rec = NULL;
    qd_task *t = NULL;
    uint64_t rev = 0;
    bool over = false, give_up = false;
    qd_code rc = QD_OK;
    *ret = QD_TAKE_LATER;
    if (j->opts.disk == NULL) {
        rc = qd_fail(err, QD_E_USAGE, "a worker needs a disk");
        goto out;
    }
    if (qd_subject_job_parse(m->subject, &lane, id, err) != QD_OK) {
        j->stats.malformed++;
        (void)!qd_bus_pull_term(j->bus, m, NULL);
        *ret = QD_TAKE_DROPPED;
        goto out;
    }
    QD_TRY(take_record(j, m, id, ret, &rec, &rev, &give_up, err));
    if (rec == NULL) goto out;
    QD_TRY(qd_task_new(j, m, rec, rev, &t, err));
    rec = NULL;
    QD_TRY(begin(t, give_up, ret, &over, err));
    if (!over) {
        *ret_task = t;
        t = NULL;
    }
out:
    qd_task_free(t);
    qd_msg_free(rec);
    qd_bus_msg_done(m);
    memset(m, 0, sizeof *m);
    return rc;
}
