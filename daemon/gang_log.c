/* gang_log.c -- lines of a gang's members on their way into the job's log, which their leader writes. A member
 * publishes them among the job's events, for epoch 0, so that whoever reads the job's log passes them by. */
#include "base/mem.h"
#include "daemon/worker_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    BATCHES_A_STEP = 64,
    LINE_BYTES_MAX = 8000 /* with its rank; proto/rules.c has 8192 */
};

void qd_member_note(qd_worker *w, uint64_t time_ms, Quantd__LogLevel level, const char *text)
{
    char line[LINE_BYTES_MAX];
    size_t end = sizeof line - 1;
    int n = snprintf(line, sizeof line, "rank %u: %s", (unsigned)qd_follow_rank(w->member.follow), text);
    if (n >= (int)sizeof line) /* not in the middle of a character */
        while (end > 0 && ((unsigned char)line[end - 1] & 0x80) != 0) line[--end] = '\0';
    qd_joblog_add(&w->member.log, time_ms, level, line);
}

/* One batch; a second time with the same lines it has the same id. */
static qd_code publish(void *ctx, Quantd__LogLine **lines, size_t n, qd_err *err)
{
    qd_worker *w = ctx;
    qd_member_run *m = &w->member;
    const char *job = qd_follow_record(m->follow)->id;
    char subject[QD_SUBJECT_BYTES], id[QD_SUBJECT_BYTES];
    const qd_bus_header headers[] = {{QD_HEADER_EPOCH, "0"}, {QD_HEADER_LINE, "0"}, {QD_HEADER_LINES, "0"}};
    qd_bus_puback ack = {0};
    qd_buf data = {0};
    qd_code rc = QD_OK;
    qd_event_batch *b = qd_event_batch_new();
    if (b == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for log lines");
    QD_TRY(qd_text_set(&b->job_id, job, err));
    QD_TRY(qd_text_set(&b->worker, w->id, err));
    b->member_epoch = qd_follow_epoch(m->follow);
    b->lines = lines; /* lent for the encoding */
    b->n_lines = n;
    rc = qd_event_batch_encode(b, &data, err);
    b->lines = NULL;
    b->n_lines = 0;
    if (rc != QD_OK) goto out;
    QD_TRY(qd_subject_event(job, w->id, subject, err));
    (void)snprintf(id, sizeof id, "%s.%" PRIu64 ".%u.%s.%" PRIu64, job, qd_follow_epoch(m->follow),
                   (unsigned)qd_follow_number(m->follow), w->id, m->n_batches);
    const qd_bus_pub p = {.subject = subject,
                          .data = data.data,
                          .bytes = data.len,
                          .msg_id = id,
                          .expect_subject_seq = QD_REV_ANY,
                          .headers = headers,
                          .n_headers = sizeof headers / sizeof headers[0],
                          .bulk = true};
    QD_TRY(qd_bus_publish(w->bus, &p, &ack, err));
    m->n_batches++;
out:
    qd_buf_done(&data);
    qd_msg_free(b);
    return rc;
}

void qd_member_send_log(qd_worker *w, bool all)
{
    qd_err err = {0};
    if (w->member.follow == NULL || !qd_worker_up(w)) return;
    qd_code rc = qd_worker_asked(w, qd_joblog_send(&w->member.log, publish, w, all, &err));
    if (rc != QD_OK && rc != QD_E_AWAY) qd_log_err(w->log, QD_LOG_WARN, "log lines could not be sent", &err);
}

/* From now on: members of the gang that begins have said nothing yet. */
static qd_code listen(qd_worker *w, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_bus_stream_state events = {0};
    qd_code rc = qd_subject_event(qd_task_record(w->run.task)->id, NULL, subject, err);
    if (rc == QD_OK) rc = qd_bus_stream(w->bus, QD_STREAM_EVENTS, &events, err);
    const qd_bus_feed_spec spec = {.stream = QD_STREAM_EVENTS,
                                   .filter = subject,
                                   .start = QD_FEED_FROM_SEQ,
                                   .from_seq = events.last_seq + 1,
                                   .bulk = true};
    return rc == QD_OK ? qd_bus_feed_open(w->bus, &spec, &w->run.members, err) : rc;
}

static void take_batch(qd_worker *w, const qd_bus_msg *m)
{
    qd_job_run *r = &w->run;
    char job[QD_ID_BYTES], worker[QD_ID_BYTES];
    qd_event_batch *b = NULL;
    if (qd_subject_event_parse(m->subject, job, worker, NULL) != QD_OK || strcmp(worker, w->id) == 0) return;
    if (qd_event_batch_decode(m->data, m->bytes, &b, NULL) != QD_OK) return; /* malformed: somebody else's */
    if (b->epoch == 0 && b->member_epoch == qd_task_record(r->task)->epoch) {
        for (size_t i = 0; i < b->n_lines; i++) qd_joblog_take(&r->log, b->lines[i]);
        b->n_lines = 0; /* they are the log's now */
    }
    qd_msg_free(b);
}

void qd_run_hear_members(qd_worker *w)
{
    qd_job_run *r = &w->run;
    qd_err err = {0};
    qd_bus_feed_event event = QD_FEED_MSG;
    qd_code rc = QD_OK;
    if (r->allowed || r->lead == NULL || (r->members == NULL && qd_lead_size(r->lead) < 2) || !qd_worker_up(w)) return;
    if (r->members == NULL) rc = listen(w, &err);
    for (int i = 0; i < BATCHES_A_STEP && rc == QD_OK && event != QD_FEED_NONE; i++) {
        qd_bus_msg m = {0};
        rc = qd_bus_feed_next(w->bus, r->members, 0, &event, &m, &err);
        if (rc == QD_OK && event == QD_FEED_MSG) take_batch(w, &m);
        qd_bus_msg_done(&m);
    }
    if (qd_worker_asked(w, rc) != QD_OK && rc != QD_E_AWAY)
        qd_log_err(w->log, QD_LOG_WARN, "members' log lines cannot be heard", &err);
}
