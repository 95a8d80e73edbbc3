/* record.c -- job.<id>: read, checked, and written by compare-and-set. */
#include "base/hash.h"
#include "base/mem.h"
#include "jobs/inside.h"

#include <string.h>

qd_code qd_record_decode(qd_jobs *j, const qd_bus_msg *m, const char *id, qd_job_record **ret, qd_err *err)
{
    qd_job_record *rec = NULL;
    qd_code rc = qd_job_record_decode(m->data, m->bytes, &rec, err);
    if (rc == QD_OK && strcmp(rec->id, id) != 0)
        rc = qd_fail(err, QD_E_INPUT, "job %s: its record is that of %s", id, rec->id);
    if (rc != QD_OK) {
        qd_msg_free(rec);
        if (rc != QD_E_NO_MEMORY) j->stats.malformed++;
        qd_err_context(err, "job %s", id);
        return rc;
    }
    *ret = rec;
    return QD_OK;
}

qd_code qd_jobs_get(qd_jobs *j, const char *id, qd_job_record **ret, uint64_t *ret_rev, qd_err *err)
{
    return qd_record_get(j, id, ret, ret_rev, NULL, err);
}

qd_code qd_record_get(qd_jobs *j, const char *id, qd_job_record **ret, uint64_t *ret_rev, uint64_t *ret_hash,
                      qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_code rc = qd_key(QD_KEY_JOB, id, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_JOBS, key, &m, err);
    if (rc == QD_OK) rc = qd_record_decode(j, &m, id, ret, err);
    if (rc == QD_OK && ret_rev != NULL) *ret_rev = m.seq;
    if (rc == QD_OK && ret_hash != NULL) *ret_hash = qd_hash64(m.data, m.bytes, 0);
    qd_bus_msg_done(&m);
    return rc;
}

qd_code qd_record_put(qd_jobs *j, qd_job_record *rec, uint64_t expect, uint64_t *ret_rev, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_code rc = qd_key(QD_KEY_JOB, rec->id, key, err);
    if (rc != QD_OK) return rc;
    rec->updated_ms = qd_jobs_unix_ms(j);
    qd_buf_reset(&j->buf);
    rc = qd_job_record_encode(rec, &j->buf, err);
    if (rc == QD_OK) rc = qd_bus_kv_put(j->bus, QD_BUCKET_JOBS, key, j->buf.data, j->buf.len, expect, ret_rev, err);
    if (rc == QD_E_CONFLICT) j->stats.conflicts++;
    return rc;
}

qd_code qd_record_change(qd_jobs *j, const char *id, qd_record_fn fn, void *ctx, qd_job_record **ret, uint64_t *ret_rev,
                         qd_err *err)
{
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = QD_OK;
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        bool write = false;
        qd_msg_free(rec);
        rec = NULL;
        rc = qd_jobs_get(j, id, &rec, &rev, err);
        if (rc == QD_E_AWAY) continue;
        if (rc == QD_OK) rc = fn(ctx, rec, &write, err);
        if (rc == QD_OK && write) rc = qd_record_put(j, rec, rev, &rev, err);
        if (rc != QD_E_AWAY && rc != QD_E_CONFLICT) break;
    }
    if (rc == QD_OK && ret_rev != NULL) *ret_rev = rev;
    if (rc == QD_OK && ret != NULL) {
        *ret = rec;
        rec = NULL;
    }
    qd_msg_free(rec);
    return rc;
}

void qd_record_call(qd_job_record *rec, qd_reservation *r)
{
    qd_msg_free(rec->reservation);
    rec->reservation = r;
}

qd_code qd_record_unown(qd_job_record *rec, qd_job_state state, qd_err *err)
{
    rec->state = state;
    qd_record_call(rec, NULL);
    return qd_text_set(&rec->owner, NULL, err);
}

void qd_record_end(const qd_jobs *j, qd_job_record *rec, qd_job_state state)
{
    rec->state = state;
    qd_record_call(rec, NULL);
    rec->ended_ms = qd_jobs_unix_ms(j);
}

typedef struct each_record {
    qd_jobs *j;
    qd_jobs_each_fn fn;
    void *ctx;
    size_t unread;
} each_record;

static qd_code tell_record(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    each_record *e = ctx;
    qd_key_kind kind = QD_KEY_JOB;
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    qd_code rc = qd_key_parse(m->key, &kind, id, err);
    if (rc == QD_OK) rc = qd_record_decode(e->j, m, id, &rec, err);
    if (rc == QD_OK) rc = e->fn(e->ctx, rec, m->seq, err);
    if (rec == NULL && rc != QD_E_NO_MEMORY) {
        e->unread++;
        rc = QD_OK;
    }
    qd_msg_free(rec);
    return rc;
}

qd_code qd_jobs_each(qd_jobs *j, qd_jobs_each_fn fn, void *ctx, size_t *ret_unread, qd_err *err)
{
    each_record e = {.j = j, .fn = fn, .ctx = ctx};
    qd_code rc = qd_bus_kv_list(j->bus, QD_BUCKET_JOBS, QD_KEYS_JOBS, tell_record, &e, err);
    if (rc == QD_OK && ret_unread != NULL) *ret_unread = e.unread;
    return rc;
}

qd_code qd_msg_copy(const ProtobufCMessage *m, ProtobufCMessage **ret, qd_err *err)
{
    qd_buf buf = {0};
    qd_code rc = qd_msg_encode(m, &buf, err);
    if (rc == QD_OK) rc = qd_msg_decode(m->descriptor, buf.data, buf.len, ret, err);
    qd_buf_done(&buf);
    return rc;
}
