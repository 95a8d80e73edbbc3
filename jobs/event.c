/* event.c -- what goes into streams: queue messages, last events, dead letters. */
#include "base/mem.h"
#include "jobs/inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static qd_code lane_of(const qd_job_record *rec, qd_lane *ret, qd_err *err)
{
    const qd_job_lane *l = rec->spec->lane;
    qd_code rc = qd_id_check(l->device_class, "device class", err);
    if (rc == QD_OK) rc = qd_id_check(l->numerics_id, "numerics id", err);
    if (rc != QD_OK) return rc;
    ret->priority = l->priority;
    (void)snprintf(ret->device_class, sizeof ret->device_class, "%s", l->device_class);
    (void)snprintf(ret->numerics_id, sizeof ret->numerics_id, "%s", l->numerics_id);
    return QD_OK;
}

qd_code qd_queue_put(qd_jobs *j, const qd_job_record *rec, uint64_t *ret_seq, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_lane lane = {0};
    qd_bus_puback ack = {0};
    qd_code rc = lane_of(rec, &lane, err);
    if (rc == QD_OK) rc = qd_subject_job(&lane, rec->id, subject, err);
    if (rc != QD_OK) return rc;
    /* No message id: within the duplicate window a second message would be taken for the first, which may be gone. The
     * stream itself keeps one a subject. */
    qd_bus_pub p = {.subject = subject, .data = rec->id, .bytes = strlen(rec->id), .expect_subject_seq = QD_REV_ANY};
    if (j->opts.bugs.queue_by_id) p.msg_id = rec->id;
    rc = qd_bus_publish(j->bus, &p, &ack, err);
    if (rc == QD_E_AWAY) rc = qd_bus_publish(j->bus, &p, &ack, err);
    if (rc == QD_E_CONFLICT) rc = QD_OK;
    if (rc == QD_OK) *ret_seq = ack.seq;
    return rc;
}

qd_code qd_queue_purge(qd_jobs *j, const qd_job_record *rec, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_lane lane = {0};
    uint64_t n = 0;
    qd_code rc = lane_of(rec, &lane, err);
    if (rc == QD_OK) rc = qd_subject_job(&lane, rec->id, subject, err);
    if (rc == QD_OK) rc = qd_bus_purge(j->bus, QD_STREAM_JOBS, subject, QD_REV_ANY, &n, err);
    return rc;
}

void qd_event_ended(qd_jobs *j, const qd_job_record *rec)
{
    char subject[QD_SUBJECT_BYTES], id[QD_SUBJECT_BYTES], epoch[24];
    const char *worker = rec->owner[0] == '\0' ? j->self : rec->owner;
    qd_bus_header headers[] = {{QD_HEADER_EPOCH, epoch}, {QD_HEADER_LINE, "0"}, {QD_HEADER_LINES, "0"}};
    qd_bus_puback ack = {0};
    qd_event_batch *b = qd_event_batch_new();
    qd_code rc = b == NULL ? QD_E_NO_MEMORY : qd_text_set(&b->job_id, rec->id, NULL);
    if (rc == QD_OK) rc = qd_text_set(&b->worker, worker, NULL);
    if (rc == QD_OK) {
        b->epoch = rec->epoch;
        b->state = rec->state;
        b->last = true;
        qd_buf_reset(&j->buf);
        rc = qd_event_batch_encode(b, &j->buf, NULL);
    }
    if (rc == QD_OK) rc = qd_subject_event(rec->id, worker, subject, NULL);
    if (rc == QD_OK) {
        (void)snprintf(epoch, sizeof epoch, "%" PRIu64, rec->epoch);
        (void)snprintf(id, sizeof id, "%s.%" PRIu64 ".%s", rec->id, rec->epoch, qd_job_state_name(rec->state));
        qd_bus_pub p = {.subject = subject,
                        .data = j->buf.data,
                        .bytes = j->buf.len,
                        .msg_id = id,
                        .expect_subject_seq = QD_REV_ANY,
                        .headers = headers,
                        .n_headers = sizeof headers / sizeof headers[0]};
        rc = qd_bus_publish(j->bus, &p, &ack, NULL);
        if (rc == QD_E_AWAY) (void)!qd_bus_publish(j->bus, &p, &ack, NULL);
    }
    qd_msg_free(b); /* a lost one is no harm: the record's feed tells the end as well */
}

void qd_event_dead(qd_jobs *j, const qd_job_record *rec)
{
    char subject[QD_SUBJECT_BYTES], id[QD_SUBJECT_BYTES];
    qd_bus_puback ack = {0};
    qd_dead_job *d = qd_dead_job_new();
    qd_code rc = d == NULL ? QD_E_NO_MEMORY : qd_text_set(&d->job_id, rec->id, NULL);
    if (rc == QD_OK) rc = qd_text_set(&d->tenant, rec->spec->tenant, NULL);
    if (rc == QD_OK) {
        qd_buf_reset(&j->buf);
        d->attempts = rec->attempts;
        d->time_ms = qd_jobs_unix_ms(j);
        d->error = rec->error; /* lent for the encoding */
        d->failures = rec->failures;
        d->n_failures = rec->n_failures;
        rc = qd_dead_job_encode(d, &j->buf, NULL);
        d->error = NULL;
        d->failures = NULL;
        d->n_failures = 0;
    }
    if (rc == QD_OK) rc = qd_subject_dead(rec->id, subject, NULL);
    if (rc == QD_OK) {
        (void)snprintf(id, sizeof id, "%s.%" PRIu64 ".dead", rec->id, rec->epoch);
        qd_bus_pub p = {.subject = subject,
                        .data = j->buf.data,
                        .bytes = j->buf.len,
                        .msg_id = id,
                        .expect_subject_seq = QD_REV_ANY};
        rc = qd_bus_publish(j->bus, &p, &ack, NULL);
        if (rc == QD_E_AWAY) (void)!qd_bus_publish(j->bus, &p, &ack, NULL);
    }
    qd_msg_free(d); /* a lost one is no harm: dead jobs are the records that say FAILED */
}
