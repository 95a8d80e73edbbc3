/* idem.c -- Idempotency-Key: a key in the bucket, created before the job, that holds the job's id. A crash between the
 * two leaves an id without a job, under which the same request makes it; "made" tells that from a job that was there
 * and was deleted since. */
#include "access/apikey.h"
#include "gateway/backend_inside.h"

#include <stdio.h>
#include <string.h>

enum {
    KEPT_MS = 24 * 3600 * 1000,
    TRIES = 4
};

static qd_code key_of(const qd_call_create *call, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    char hex[QD_SHA256_HEX_BYTES];
    qd_buf b = {0};
    qd_buf_printf(&b, "%d %s", (int)call->job->origin, call->job->idempotency_key);
    qd_code rc = qd_buf_check(&b, err);
    if (rc == QD_OK) rc = qd_sha256_hex(b.data, b.len, hex, err);
    if (rc == QD_OK) rc = qd_key_idem(call->ask->caller->tenant, hex, ret, err);
    qd_buf_done(&b);
    return rc;
}

/* "<id> <digest> new|made" */
static bool parse(const char *text, size_t n, qd_idem *i, char ret_body[QD_NEW_JOB_DIGEST_BYTES])
{
    char copy[128], made[8];
    if (n >= sizeof copy) return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (sscanf(copy, "%64s %32s %7s", i->id, ret_body, made) != 3 || !qd_id_ok(i->id)) return false;
    i->made = strcmp(made, "made") == 0;
    return i->made || strcmp(made, "new") == 0;
}

static qd_code read_key(qd_desk *d, qd_idem *i, qd_err *err)
{
    qd_bus_msg m = {0};
    char body[QD_NEW_JOB_DIGEST_BYTES] = "";
    qd_code rc = QD_E_AWAY;
    for (int t = 0; t < TRIES && rc == QD_E_AWAY; t++) rc = qd_bus_kv_get(d->bus, QD_BUCKET_JOBS, i->key, &m, err);
    i->id[0] = '\0';
    i->made = false;
    i->rev = QD_REV_ABSENT;
    if (rc == QD_OK) {
        i->rev = m.seq;
        if (!parse((const char *)m.data, m.bytes, i, body))
            i->id[0] = '\0'; /* not ours to read: bound anew */
        else if (strcmp(body, i->body) != 0)
            rc = qd_fail(err, QD_E_REFUSED, "this Idempotency-Key was used for another request");
    }
    qd_bus_msg_done(&m);
    return rc == QD_E_NOT_FOUND ? QD_OK : rc;
}

qd_code qd_idem_open(qd_desk *d, const qd_call_create *call, qd_idem *ret, qd_err *err)
{
    qd_code rc = QD_OK;
    *ret = (qd_idem){0};
    if (call->job->idempotency_key == NULL) return QD_OK;
    QD_TRY(qd_new_job_digest(call->job, ret->body, err));
    QD_TRY(key_of(call, ret->key, err));
    rc = read_key(d, ret, err);
out:
    return rc;
}

static qd_code put(qd_desk *d, qd_idem *i, const char *id, const char *state, qd_err *err)
{
    char text[128];
    qd_code rc = QD_E_AWAY;
    int n = snprintf(text, sizeof text, "%s %s %s", id, i->body, state);
    for (int t = 0; t < TRIES && rc == QD_E_AWAY; t++)
        rc = qd_bus_kv_put(d->bus, QD_BUCKET_JOBS, i->key, text, (size_t)n, i->rev, &i->rev, err);
    return rc;
}

qd_code qd_idem_bind(qd_desk *d, qd_idem *i, const char *id, qd_err *err)
{
    if (i->key[0] == '\0') return QD_OK;
    qd_code rc = put(d, i, id, "new", err);
    if (rc == QD_E_CONFLICT) { /* an unanswered try of ours, or another request */
        rc = read_key(d, i, err);
        if (rc == QD_OK && strcmp(i->id, id) != 0) rc = qd_fail(err, QD_E_CONFLICT, "the key was bound meanwhile");
        return rc;
    }
    if (rc == QD_OK) (void)snprintf(i->id, sizeof i->id, "%s", id);
    return rc;
}

void qd_idem_made(qd_desk *d, qd_idem *i)
{
    if (i->key[0] == '\0' || i->made) return;
    (void)!put(d, i, i->id, "made", NULL);
    i->made = true;
}

typedef struct old_keys {
    qd_desk *d;
    uint64_t newest_ms; /* of the bucket's clock */
    bool drop;
} old_keys;

static qd_code look_at(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    old_keys *o = ctx;
    if (!o->drop && m->time_ms > o->newest_ms) o->newest_ms = m->time_ms;
    if (!o->drop || m->time_ms + KEPT_MS >= o->newest_ms) return QD_OK;
    qd_code rc = qd_bus_kv_delete(o->d->bus, QD_BUCKET_JOBS, m->key, m->seq, err);
    return rc == QD_E_CONFLICT ? QD_OK : rc;
}

/* Ages by the bucket's clock: behind the newest of the keys. */
qd_code qd_call_sweep(qd_desk *d, void *arg, qd_err *err)
{
    old_keys o = {.d = d};
    (void)arg;
    qd_code rc = qd_bus_kv_list(d->bus, QD_BUCKET_JOBS, QD_KEYS_IDEM, look_at, &o, err);
    o.drop = true;
    return rc == QD_OK ? qd_bus_kv_list(d->bus, QD_BUCKET_JOBS, QD_KEYS_IDEM, look_at, &o, err) : rc;
}
