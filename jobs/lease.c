/* lease.c -- lease.<job>: who lives. It decides nothing but how long others wait; the record is the fence. */
#include "base/mem.h"
#include "jobs/inside.h"

qd_code qd_live_now(qd_jobs *j, uint64_t *ret_ms, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_worker_order *o = qd_worker_order_new();
    qd_code rc = o == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for the clock") : QD_OK;
    if (rc == QD_OK) rc = qd_text_set(&o->worker, QD_ID_CLOCK, err);
    if (rc == QD_OK) rc = qd_text_set(&o->by, j->self, err);
    qd_buf_reset(&j->buf);
    if (rc == QD_OK) rc = qd_worker_order_encode(o, &j->buf, err);
    if (rc == QD_OK) rc = qd_key(QD_KEY_ORDER, QD_ID_CLOCK, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, QD_REV_ANY, NULL, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK) *ret_ms = m.time_ms;
    qd_bus_msg_done(&m);
    qd_msg_free(o);
    return rc;
}

bool qd_lease_settled(const qd_jobs *j, uint64_t *ret_left_ms)
{
    qd_bus_state s = {0};
    qd_bus_state_get(j->bus, &s);
    bool settled = s.connected && s.connected_ms >= j->opts.lease_ms;
    *ret_left_ms = settled ? 0 : s.connected ? j->opts.lease_ms - s.connected_ms : j->opts.lease_ms;
    return settled || j->opts.bugs.take_after_reconnect;
}

qd_code qd_lease_write(qd_jobs *j, const char *job_id, const char *worker, uint64_t epoch, uint64_t renewals,
                       uint64_t expect, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_lease *l = qd_lease_new();
    if (l == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a lease");
    qd_code rc = qd_text_set(&l->job_id, job_id, err);
    if (rc == QD_OK) rc = qd_text_set(&l->worker, worker, err);
    if (rc == QD_OK) {
        l->epoch = epoch;
        l->lease_ms = (uint32_t)j->opts.lease_ms;
        l->renewals = renewals;
        qd_buf_reset(&j->buf);
        rc = qd_lease_encode(l, &j->buf, err);
    }
    if (rc == QD_OK) rc = qd_key(QD_KEY_LEASE, job_id, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, expect, NULL, err);
    qd_msg_free(l);
    return rc;
}

qd_code qd_lease_drop(qd_jobs *j, const char *job_id, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_code rc = qd_key(QD_KEY_LEASE, job_id, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK) rc = qd_bus_kv_delete(j->bus, QD_BUCKET_LIVE, key, m.seq, err);
    qd_bus_msg_done(&m);
    return rc == QD_E_NOT_FOUND || rc == QD_E_CONFLICT ? QD_OK : rc;
}

qd_code qd_lease_left(qd_jobs *j, const qd_job_record *rec, uint64_t *ret_left_ms, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_lease *l = NULL;
    uint64_t now_ms = 0, span_ms = j->opts.lease_ms;
    qd_code rc = qd_key(QD_KEY_LEASE, rec->id, key, err);
    if (rc != QD_OK) return rc;
    rc = qd_live_now(j, &now_ms, err); /* before the lease: a slow reader must not make it older than it is */
    if (rc != QD_OK) return rc;
    rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK && j->opts.bugs.clock_after_lease) rc = qd_live_now(j, &now_ms, err);
    if (rc == QD_OK && qd_lease_decode(m.data, m.bytes, &l, err) != QD_OK) j->stats.malformed++;
    if (rc == QD_E_NOT_FOUND || (rc == QD_OK && (l == NULL || l->epoch < rec->epoch))) {
        /* Its owner died, or is slow, between record and lease. From now on it has a lease's time. */
        if (j->opts.bugs.wait_for_no_lease)
            rc = QD_OK;
        else
            rc = qd_lease_write(j, rec->id, rec->owner, rec->epoch, 0, rc == QD_OK ? m.seq : QD_REV_ABSENT, err);
        if (rc == QD_E_CONFLICT) rc = QD_OK;
        *ret_left_ms = span_ms;
        goto out;
    }
    if (rc != QD_OK) goto out;
    span_ms = qd_max_u64(span_ms, l->lease_ms);
    uint64_t age_ms = now_ms > m.time_ms ? now_ms - m.time_ms : 0;
    *ret_left_ms = age_ms >= span_ms || j->opts.bugs.ignore_lease ? 0 : span_ms - age_ms;
out:
    qd_msg_free(l);
    qd_bus_msg_done(&m);
    return rc;
}
