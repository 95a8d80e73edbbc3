/* seat.c -- order._sweep: one program sweeps for all, so that thousands do not all ask after each waiting job.
 *
 * Nothing rests on it: a sweep by two, or by everybody, does what one does. So there is no wait for certainty: who
 * holds the seat writes it every quarter of a lease, the others hear that (a hint asks nothing of the server), and who
 * hears nothing for a lease time sweeps and takes the seat. */
#include "base/mem.h"
#include "jobs/inside.h"

#include <stdio.h>

/* Writes the seat over what stands at revision expect. */
static qd_code put(qd_jobs *j, uint64_t expect)
{
    char key[QD_SUBJECT_BYTES];
    qd_worker_order *o = qd_worker_order_new();
    qd_code rc = o == NULL ? QD_E_NO_MEMORY : qd_text_set(&o->worker, QD_ID_SWEEP, NULL);
    if (rc == QD_OK) rc = qd_text_set(&o->by, j->self, NULL);
    qd_buf_reset(&j->buf);
    if (rc == QD_OK) rc = qd_worker_order_encode(o, &j->buf, NULL);
    if (rc == QD_OK) rc = qd_key(QD_KEY_ORDER, QD_ID_SWEEP, key, NULL);
    if (rc == QD_OK)
        rc = qd_bus_kv_put(j->bus, QD_BUCKET_LIVE, key, j->buf.data, j->buf.len, expect, &j->seat_rev, NULL);
    if (rc != QD_OK) j->seat_rev = 0;
    j->seat_ms = qd_jobs_mono_ms(j); /* whoever has it now */
    qd_msg_free(o);
    return rc;
}

/* What stands there now; *ret_known: the bus has said so. */
static uint64_t revision(qd_jobs *j, bool *ret_known)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_code rc = qd_key(QD_KEY_ORDER, QD_ID_SWEEP, key, NULL);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &m, NULL);
    uint64_t rev = rc == QD_OK ? m.seq : QD_REV_ABSENT;
    *ret_known = rc == QD_OK || rc == QD_E_NOT_FOUND;
    qd_bus_msg_done(&m);
    return rev;
}

/* True when another was heard of within a lease time. */
static bool hears_another(qd_jobs *j, uint64_t now_ms)
{
    char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES + 16];
    qd_bus_news news = {0};
    if (j->seat_hint == NULL) {
        if (qd_key(QD_KEY_ORDER, QD_ID_SWEEP, key, NULL) != QD_OK) return false;
        (void)snprintf(subject, sizeof subject, "$KV." QD_BUCKET_LIVE ".%s", key);
        if (qd_bus_hint_open(j->bus, subject, &j->seat_hint, NULL) != QD_OK) return false;
    }
    qd_bus_hint_take(j->bus, j->seat_hint, &news);
    if (news.n != 0) j->seat_ms = now_ms;
    return j->seat_ms != 0 && now_ms - j->seat_ms < j->opts.lease_ms;
}

bool qd_seat_sweeps(qd_jobs *j)
{
    bool known = false, first = j->seat_ms == 0;
    uint64_t now_ms = qd_jobs_mono_ms(j);
    if (j->seat_rev != 0) {
        if (now_ms - j->seat_ms < j->opts.lease_ms / 4) return true;
        return put(j, j->seat_rev) != QD_E_CONFLICT;
    }
    if (hears_another(j, now_ms)) return false;
    if (j->opts.disk == NULL) return true; /* what needs directories is left to those who have them */
    uint64_t rev = revision(j, &known);
    if (!known) return true;
    if (first && rev != QD_REV_ABSENT) { /* somebody sits there, or did: a lease time will tell */
        j->seat_ms = now_ms;
        return false;
    }
    return put(j, rev) != QD_E_CONFLICT;
}
