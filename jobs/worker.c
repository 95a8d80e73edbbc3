/* worker.c -- heartbeats and orders. */
#include "jobs/worker.h"

#include "base/mem.h"
#include "jobs/inside.h"

#include <string.h>

qd_code qd_jobs_heartbeat(qd_jobs *j, const qd_worker_heartbeat *hb, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_buf_reset(&j->buf);
    qd_code rc = qd_worker_heartbeat_encode(hb, &j->buf, err);
    if (rc == QD_OK) rc = qd_key(QD_KEY_WORKER, j->self, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, QD_REV_ANY, NULL, err);
    return rc;
}

qd_code qd_jobs_heartbeat_end(qd_jobs *j, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_code rc = qd_key(QD_KEY_WORKER, j->self, key, err);
    return rc == QD_OK ? qd_bus_kv_delete(j->bus, QD_BUCKET_LIVE, key, QD_REV_ANY, err) : rc;
}

typedef struct each_worker {
    qd_jobs *j;
    qd_jobs_worker_fn fn;
    void *ctx;
    uint64_t now_ms;
} each_worker;

static qd_code tell_worker(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    each_worker *e = ctx;
    qd_worker_heartbeat *hb = NULL;
    qd_code rc = qd_worker_heartbeat_decode(m->data, m->bytes, &hb, err);
    if (rc != QD_OK && rc != QD_E_NO_MEMORY) {
        e->j->stats.malformed++;
        return QD_OK;
    }
    if (rc == QD_OK) rc = e->fn(e->ctx, hb, e->now_ms > m->time_ms ? e->now_ms - m->time_ms : 0, err);
    qd_msg_free(hb);
    return rc;
}

qd_code qd_jobs_workers(qd_jobs *j, qd_jobs_worker_fn fn, void *ctx, qd_err *err)
{
    each_worker e = {.j = j, .fn = fn, .ctx = ctx};
    qd_code rc = qd_live_now(j, &e.now_ms, err);
    if (rc == QD_OK) rc = qd_bus_kv_list(j->bus, QD_BUCKET_LIVE, QD_KEYS_WORKERS, tell_worker, &e, err);
    return rc;
}

/* What is in the scratch buffer; the same order twice is one order. */
static qd_code put_order(qd_jobs *j, const char *key, qd_err *err)
{
    qd_code rc = QD_E_AWAY;
    for (int i = 0; i < QD_JOBS_TRIES && rc == QD_E_AWAY; i++)
        rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, QD_REV_ANY, NULL, err);
    return rc;
}

qd_code qd_jobs_drain(qd_jobs *j, const char *worker, const char *reason, const qd_jobs_caller *by, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_worker_order *o = qd_worker_order_new();
    if (o == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for an order");
    qd_code rc = qd_key(QD_KEY_ORDER, worker, key, err);
    if (rc == QD_OK) rc = qd_text_set(&o->worker, worker, err);
    if (rc == QD_OK) rc = qd_text_set(&o->by, by == NULL || by->user == NULL ? j->self : by->user, err);
    if (rc == QD_OK) rc = qd_text_set(&o->reason, reason, err);
    if (rc == QD_OK) {
        o->drain = true;
        o->time_ms = qd_jobs_unix_ms(j);
        qd_buf_reset(&j->buf);
        rc = qd_worker_order_encode(o, &j->buf, err);
    }
    if (rc == QD_OK) rc = put_order(j, key, err);
    qd_jobs_audit(j, "operator", by, "worker.drain", worker, rc);
    qd_msg_free(o);
    return rc;
}

qd_code qd_jobs_order(qd_jobs *j, bool *ret_drain, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_worker_order *o = NULL;
    *ret_drain = false;
    qd_code rc = qd_key(QD_KEY_ORDER, j->self, key, err);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, err);
    if (rc == QD_OK) {
        rc = qd_worker_order_decode(m.data, m.bytes, &o, err);
        if (rc != QD_OK && rc != QD_E_NO_MEMORY) j->stats.malformed++;
    }
    if (rc == QD_OK) {
        *ret_drain = o->drain;
        j->order_rev = m.seq;
    }
    qd_msg_free(o);
    qd_bus_msg_done(&m);
    return rc == QD_E_NOT_FOUND ? QD_OK : rc;
}

qd_code qd_jobs_order_done(qd_jobs *j, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_code rc = qd_key(QD_KEY_ORDER, j->self, key, err);
    if (rc == QD_OK && j->order_rev != 0) rc = qd_bus_kv_delete(j->bus, QD_BUCKET_LIVE, key, j->order_rev, err);
    if (rc == QD_E_CONFLICT) rc = QD_OK; /* a newer order, or gone */
    if (rc == QD_OK) j->order_rev = 0;
    return rc;
}
