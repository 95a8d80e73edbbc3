/* gang_store.c -- the keys gang.<job> and member.<worker>. */
#include "base/mem.h"
#include "jobs/gang_inside.h"

qd_code qd_gang_get(qd_jobs *j, const char *job_id, qd_gang_record **ret, uint64_t *ret_rev, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_code rc = qd_key(QD_KEY_GANG, job_id, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK) {
        *ret_rev = m.seq;
        rc = qd_gang_record_decode(m.data, m.bytes, ret, err);
        if (rc != QD_OK && rc != QD_E_NO_MEMORY) j->stats.malformed++;
    }
    qd_bus_msg_done(&m);
    return rc;
}

qd_code qd_gang_put(qd_jobs *j, const qd_gang_record *g, uint64_t expect, uint64_t *ret_rev, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_buf_reset(&j->buf);
    qd_code rc = qd_gang_record_encode(g, &j->buf, err);
    if (rc == QD_OK) rc = qd_key(QD_KEY_GANG, g->job_id, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, expect, ret_rev, err);
    return rc;
}

qd_code qd_member_get(qd_jobs *j, const char *worker, qd_gang_member **ret, uint64_t *ret_ms, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_code rc = qd_key(QD_KEY_MEMBER, worker, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK) {
        *ret_ms = m.time_ms;
        rc = qd_gang_member_decode(m.data, m.bytes, ret, err);
        if (rc != QD_OK && rc != QD_E_NO_MEMORY) j->stats.malformed++;
    }
    qd_bus_msg_done(&m);
    return rc;
}

typedef struct each_member {
    qd_jobs *j;
    qd_member_fn fn;
    void *ctx;
    uint64_t now_ms;
} each_member;

static qd_code tell_member(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    each_member *e = ctx;
    qd_gang_member *member = NULL;
    qd_code rc = qd_gang_member_decode(m->data, m->bytes, &member, err);
    if (rc != QD_OK && rc != QD_E_NO_MEMORY) {
        e->j->stats.malformed++;
        return QD_OK;
    }
    if (rc == QD_OK) rc = e->fn(e->ctx, member, e->now_ms > m->time_ms ? e->now_ms - m->time_ms : 0, err);
    qd_msg_free(member);
    return rc;
}

qd_code qd_member_each(qd_jobs *j, qd_member_fn fn, void *ctx, qd_err *err)
{
    each_member e = {.j = j, .fn = fn, .ctx = ctx};
    qd_code rc = qd_live_now(j, &e.now_ms, err);
    if (rc == QD_OK) rc = qd_bus_kv_list(j->bus, QD_BUCKET_LIVE, QD_KEYS_MEMBERS, tell_member, &e, err);
    return rc;
}

qd_code qd_member_put(qd_jobs *j, const qd_gang_member *m, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_buf_reset(&j->buf);
    qd_code rc = qd_gang_member_encode(m, &j->buf, err);
    if (rc == QD_OK) rc = qd_key(QD_KEY_MEMBER, j->self, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, QD_REV_ANY, NULL, err);
    return rc;
}
