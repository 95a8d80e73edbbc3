/* task.c -- a job in work: its fence, lease, progress and log. */
#include "base/hash.h"
#include "base/mem.h"
#include "jobs/task_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    LOOKS_MAX = 5, /* for something that was heard of and is not there */
    LOOK_AGAIN_MS = 50
};

qd_code qd_task_new(qd_jobs *j, qd_bus_msg *m, qd_job_record *rec, uint64_t rev, qd_task **ret, qd_err *err)
{
    qd_task *t = qd_calloc(1, sizeof *t);
    if (t == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for job %s", rec->id);
    t->j = j;
    t->msg = *m;
    memset(m, 0, sizeof *m);
    t->rec = rec;
    t->rev = rev;
    t->epoch = rec->epoch;
    *ret = t;
    return QD_OK;
}

void qd_task_free(qd_task *t)
{
    if (t == NULL) return;
    qd_bus_hint_close(t->j->bus, t->hint);
    qd_bus_msg_done(&t->msg);
    qd_msg_free(t->rec);
    qd_free(t);
}

const qd_job_record *qd_task_record(const qd_task *t)
{
    return t->rec;
}

bool qd_task_resume(const qd_task *t)
{
    return t->resume;
}

void qd_task_staging(const qd_task *t, char *ret, size_t room)
{
    (void)snprintf(ret, room, "%s.staging.%" PRIu64, t->rec->spec->output_path, t->epoch);
}

/* What a record says about this task. */
static qd_code verdict(const qd_task *t, qd_err *err)
{
    const qd_job_record *r = t->rec;
    bool ours = r->epoch == t->epoch && strcmp(r->owner, t->j->self) == 0;
    if (ours && r->state == QD_JOB_RUNNING) return QD_OK;
    if (ours && r->state == QD_JOB_CANCELING) return qd_fail(err, QD_E_CANCELED, "job %s is to be canceled", r->id);
    return qd_fail(err, QD_E_CONFLICT,
                   "job %s is no longer ours: %s, epoch %" PRIu64 ", owner %s; expected epoch %" PRIu64, r->id,
                   qd_job_state_name(r->state), r->epoch, r->owner[0] == '\0' ? "(none)" : r->owner, t->epoch);
}

qd_code qd_task_look(qd_task *t, qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = qd_record_get(t->j, t->rec->id, &rec, &rev, &t->known_hash, err);
    if (rc == QD_E_NOT_FOUND) rc = qd_fail(err, QD_E_CONFLICT, "job %s is deleted", t->rec->id);
    if (rc != QD_OK) {
        t->stale = true;
        return rc;
    }
    qd_msg_free(t->rec);
    t->rec = rec;
    t->rev = rev;
    t->stale = false;
    rc = verdict(t, err);
    if (rc == QD_E_CONFLICT) {
        t->stale = true;
        t->j->stats.fenced++;
    }
    return rc;
}

qd_code qd_task_write(qd_task *t, qd_job_state from, qd_job_state to, qd_task_fn fn, void *arg, qd_err *err)
{
    qd_code rc = QD_OK;
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        if (t->stale) {
            rc = qd_task_look(t, err);
            bool done = rc == QD_E_CONFLICT && t->asked == to && t->rec->epoch == t->epoch && t->rec->state == to;
            if (done) return QD_OK;
            if (rc != QD_OK && rc != QD_E_CANCELED) return rc;
        }
        if (t->rec->state != from) {
            if (t->rec->state == QD_JOB_CANCELING)
                return qd_fail(err, QD_E_CANCELED, "job %s is to be canceled", t->rec->id);
            return qd_fail(err, QD_E_USAGE, "job %s is %s, expected %s", t->rec->id, qd_job_state_name(t->rec->state),
                           qd_job_state_name(from));
        }
        rc = fn(t, arg, err);
        if (rc != QD_OK) return rc;
        t->asked = to;
        t->stale = true;
        uint64_t expect = t->j->opts.bugs.blind_finish && to == QD_JOB_SUCCEEDED ? QD_REV_ANY : t->rev;
        rc = qd_record_put(t->j, t->rec, expect, &t->rev, err);
        if (rc == QD_OK) {
            t->stale = false;
            t->known_hash = qd_hash64(t->j->buf.data, t->j->buf.len, 0); /* our own write is no news */
            return QD_OK;
        }
        if (rc != QD_E_CONFLICT && rc != QD_E_AWAY) return rc;
    }
    return rc == QD_E_AWAY ? rc : qd_fail(err, QD_E_AWAY, "job %s: its record could not be written", t->rec->id);
}

qd_code qd_task_check(qd_task *t, qd_err *err)
{
    return qd_task_look(t, err);
}

qd_code qd_task_renew(qd_task *t, qd_err *err)
{
    qd_code rc = qd_task_look(t, err);
    if (rc != QD_OK && rc != QD_E_CANCELED) return rc;
    qd_err ignored = {0};
    qd_code lease =
        qd_lease_write(t->j, t->rec->id, t->j->self, t->epoch, ++t->renewals, QD_REV_ANY, rc == QD_OK ? err : &ignored);
    (void)!qd_bus_pull_progress(t->j->bus, &t->msg, NULL);
    return rc != QD_OK ? rc : lease; /* until it has stopped, one that is to be canceled keeps its lease */
}

/* Opens the hints of the record; whatever came before them has to be looked at. */
static qd_code listen(qd_task *t, qd_err *err)
{
    char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES + 16];
    qd_code rc = qd_key(QD_KEY_JOB, t->rec->id, key, err);
    if (rc != QD_OK) return rc;
    (void)snprintf(subject, sizeof subject, "$KV." QD_BUCKET_JOBS ".%s", key);
    rc = qd_bus_hint_open(t->j->bus, subject, &t->hint, err);
    if (rc == QD_OK) t->looks_left = 1;
    return rc;
}

qd_code qd_task_poll(qd_task *t, qd_err *err)
{
    qd_bus_news news = {0};
    qd_code rc = t->hint == NULL ? listen(t, err) : QD_OK;
    if (rc != QD_OK) return rc;
    qd_bus_hint_take(t->j->bus, t->hint, &news);
    if (news.n > 1 || (news.n == 1 && news.hash != t->known_hash)) {
        t->looks_left = LOOKS_MAX;
        t->look_ms = 0;
        t->told_hash = news.hash;
    }
    if (t->looks_left == 0 || qd_jobs_mono_ms(t->j) < t->look_ms) return QD_OK;
    rc = qd_task_look(t, err);
    if (rc != QD_E_AWAY) t->looks_left = t->known_hash == t->told_hash ? 0 : t->looks_left - 1;
    t->look_ms = qd_jobs_mono_ms(t->j) + LOOK_AGAIN_MS;
    return rc;
}

int qd_task_fd(qd_task *t)
{
    return t->hint == NULL ? -1 : qd_bus_hint_fd(t->j->bus, t->hint);
}

qd_code qd_task_set_progress(qd_task *t, const qd_progress *p, qd_err *err)
{
    ProtobufCMessage *copy = NULL;
    if (p == NULL) return QD_OK;
    qd_code rc = qd_msg_copy(&p->base, &copy, err);
    if (rc != QD_OK) return rc;
    qd_msg_free(t->rec->progress);
    t->rec->progress = (qd_progress *)(void *)copy;
    return QD_OK;
}

static qd_code progress_fn(qd_task *t, void *arg, qd_err *err)
{
    return qd_task_set_progress(t, *(const qd_progress *const *)arg, err);
}

qd_code qd_task_progress(qd_task *t, const qd_progress *p, qd_err *err)
{
    return qd_task_write(t, QD_JOB_RUNNING, QD_JOB_RUNNING, progress_fn, &p, err);
}

qd_code qd_task_may_commit(qd_task *t, qd_err *err)
{
    return t->j->opts.bugs.skip_fence ? QD_OK : qd_task_look(t, err);
}

void qd_task_set_log_lines(qd_task *t, uint64_t n)
{
    t->stored_lines = n;
}

qd_code qd_task_log(qd_task *t, Quantd__LogLine **lines, size_t n, const qd_progress *p, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES], id[QD_SUBJECT_BYTES], epoch[24], first[24], count[24];
    qd_bus_header headers[] = {{QD_HEADER_EPOCH, epoch}, {QD_HEADER_LINE, first}, {QD_HEADER_LINES, count}};
    qd_bus_puback ack = {0};
    qd_event_batch *b = qd_event_batch_new();
    if (b == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for log lines");
    qd_code rc = QD_OK;
    QD_TRY(qd_text_set(&b->job_id, t->rec->id, err));
    QD_TRY(qd_text_set(&b->worker, t->j->self, err));
    b->epoch = t->epoch;
    b->first_line = t->lines + 1;
    b->lines = lines; /* lent for the encoding */
    b->n_lines = n;
    memcpy(&b->progress, &p, sizeof p);
    qd_buf_reset(&t->j->buf);
    rc = qd_event_batch_encode(b, &t->j->buf, err);
    b->lines = NULL;
    b->n_lines = 0;
    b->progress = NULL;
    QD_TRY(rc);
    QD_TRY(qd_subject_event(t->rec->id, t->j->self, subject, err));
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, t->epoch);
    (void)snprintf(first, sizeof first, "%" PRIu64, t->lines + 1);
    (void)snprintf(count, sizeof count, "%zu", n);
    (void)snprintf(id, sizeof id, "%s.%" PRIu64 ".%" PRIu64, t->rec->id, t->epoch, t->lines + 1);
    qd_bus_pub pub = {.subject = subject,
                      .data = t->j->buf.data,
                      .bytes = t->j->buf.len,
                      .msg_id = n == 0 ? NULL : id, /* progress alone has no number of its own */
                      .expect_subject_seq = QD_REV_ANY,
                      .headers = headers,
                      .n_headers = sizeof headers / sizeof headers[0],
                      .bulk = true};
    QD_TRY(qd_bus_publish(t->j->bus, &pub, &ack, err));
    t->lines += n;
out:
    qd_msg_free(b);
    return rc;
}
