/* wire_tool.c -- quantd's side of tests/e2e/test_wire.py: wire_tool COMMAND URL [ID].
 *   provision   the streams and buckets
 *   show        the record's key, name key, state, owner, epoch: a line each
 *   queue       PENDING -> QUEUING, its message into the work queue
 *   log         two lines into the events, as worker w-c, of the record's epoch
 * Exit 1 with the sentence where it is refused. */
#include "base/clock.h"
#include "bus/bus_nats.h"
#include "proto/msg.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct job {
    qd_job_record *record;
    uint64_t revision;
    char key[QD_SUBJECT_BYTES];
} job;

static qd_code job_read(qd_bus *b, const char *id, job *ret, qd_err *err)
{
    qd_bus_msg m = {0};
    qd_code rc = qd_key(QD_KEY_JOB, id, ret->key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(b, QD_BUCKET_JOBS, ret->key, &m, err);
    if (rc == QD_OK) rc = qd_job_record_decode(m.data, m.bytes, &ret->record, err);
    ret->revision = m.seq;
    qd_bus_msg_done(&m);
    return rc;
}

static qd_code show(const job *j, qd_err *err)
{
    char name_key[QD_SUBJECT_BYTES];
    const qd_job_record *r = j->record;
    qd_code rc = qd_key_name(r->spec->tenant, r->spec->name, name_key, err);
    if (rc == QD_OK)
        (void)printf("%s\n%s\n%s\n%s\n%" PRIu64 "\n", j->key, name_key, qd_job_state_name(r->state), r->owner,
                     r->epoch);
    return rc;
}

static qd_code queue(qd_bus *b, job *j, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_buf out = {0};
    qd_lane lane = {.priority = j->record->spec->lane->priority};
    qd_bus_puback ack = {0};
    qd_code rc = QD_OK;
    (void)snprintf(lane.device_class, sizeof lane.device_class, "%s", j->record->spec->lane->device_class);
    (void)snprintf(lane.numerics_id, sizeof lane.numerics_id, "%s", j->record->spec->lane->numerics_id);
    QD_TRY(qd_subject_job(&lane, j->record->id, subject, err));
    qd_bus_pub pub = {
        .subject = subject, .data = j->record->id, .bytes = strlen(j->record->id), .expect_subject_seq = QD_REV_ANY};
    QD_TRY(qd_bus_publish(b, &pub, &ack, err));
    j->record->state = QD_JOB_QUEUING;
    j->record->queue_seq = ack.seq;
    QD_TRY(qd_job_record_encode(j->record, &out, err));
    QD_TRY(qd_bus_kv_put(b, QD_BUCKET_JOBS, j->key, out.data, out.len, j->revision, NULL, err));
out:
    qd_buf_done(&out);
    return rc;
}

static qd_code log_lines(qd_bus *b, const job *j, qd_err *err)
{
    static const char *const texts[] = {"Starting quantization...", "Quantization progress: 37%"};
    char subject[QD_SUBJECT_BYTES], epoch[24];
    qd_buf out = {0};
    qd_bus_puback ack = {0};
    qd_code rc = QD_OK;
    qd_event_batch *e = qd_event_batch_new();
    if (e == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a batch");
    QD_TRY(qd_text_set(&e->job_id, j->record->id, err));
    QD_TRY(qd_text_set(&e->worker, "w-c", err));
    e->epoch = j->record->epoch;
    e->first_line = 1;
    for (size_t i = 0; i < 2; i++) {
        qd_log_line *l = qd_log_line_new();
        rc = l == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for a line")
                       : qd_list_add(&e->lines, &e->n_lines, l, err);
        if (rc != QD_OK) qd_msg_free(l);
        if (rc != QD_OK) goto out;
        l->time_ms = qd_unix_ms();
        l->level = QUANTD__LOG_LEVEL__LOG_INFO;
        QD_TRY(qd_text_set(&l->text, texts[i], err));
    }
    QD_TRY(qd_event_batch_encode(e, &out, err));
    QD_TRY(qd_subject_event(e->job_id, e->worker, subject, err));
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, e->epoch);
    const qd_bus_header headers[] = {{QD_HEADER_EPOCH, epoch}, {QD_HEADER_LINE, "1"}, {QD_HEADER_LINES, "2"}};
    qd_bus_pub pub = {.subject = subject,
                      .data = out.data,
                      .bytes = out.len,
                      .expect_subject_seq = QD_REV_ANY,
                      .headers = headers,
                      .n_headers = 3,
                      .bulk = true};
    QD_TRY(qd_bus_publish(b, &pub, &ack, err));
out:
    qd_msg_free(e);
    qd_buf_done(&out);
    return rc;
}

int main(int argc, char **argv)
{
    qd_err err = {0};
    qd_bus *b = NULL;
    job j = {0};
    char warning[256];
    qd_code rc = QD_OK;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: wire_tool provision|show|queue|log URL [ID]\n");
        return 2;
    }
    qd_bus_nats_config cfg = {.urls = argv[2], .name = "wire_tool"};
    QD_TRY(qd_bus_nats_open(&cfg, &b, &err));
    if (strcmp(argv[1], "provision") == 0) {
        qd_bus_nats_limits small = {.event_bytes_max = 64 << 20};
        QD_TRY(qd_bus_nats_provision(b, &small, warning, sizeof warning, &err));
        goto out;
    }
    QD_TRY(job_read(b, argc > 3 ? argv[3] : "", &j, &err));
    if (strcmp(argv[1], "queue") == 0) QD_TRY(queue(b, &j, &err));
    if (strcmp(argv[1], "log") == 0) QD_TRY(log_lines(b, &j, &err));
    QD_TRY(show(&j, &err));
out:
    if (rc != QD_OK) (void)fprintf(stderr, "%s: %s\n", qd_code_name(rc), err.msg);
    qd_msg_free(j.record);
    qd_bus_free(b);
    return rc == QD_OK ? 0 : 1;
}
