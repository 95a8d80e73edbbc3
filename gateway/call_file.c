/* call_file.c -- records of uploaded files, and the end of a file. */
#include "base/buf.h"
#include "gateway/backend_inside.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void audit(qd_desk *d, const qd_ask *a, const char *action, const char *id, qd_code rc)
{
    char from[256];
    const qd_jobs_caller by = qd_call_by(a, from);
    qd_jobs_audit(d->jobs, a->caller->tenant, &by, action, id, rc);
}

qd_code qd_call_file_put(qd_desk *d, void *arg, qd_err *err)
{
    const qd_call_file *c = arg;
    char key[QD_SUBJECT_BYTES];
    qd_buf buf = {0};
    qd_file_meta *copy = NULL;
    uint64_t rev = 0;
    qd_code rc = QD_OK;
    QD_TRY(qd_key(QD_KEY_FILE, c->meta->id, key, err));
    QD_TRY(qd_file_meta_encode(c->meta, &buf, err));
    rc = QD_E_AWAY;
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++) {
        rc = qd_bus_kv_put(d->bus, QD_BUCKET_ACCESS, key, buf.data, buf.len, QD_REV_ABSENT, &rev, err);
        qd_bus_msg m = {0};
        if (rc == QD_E_CONFLICT && i > 0) { /* an unanswered try of ours: the id is 128 random bits */
            rc = qd_bus_kv_get(d->bus, QD_BUCKET_ACCESS, key, &m, err);
            rev = m.seq;
            qd_bus_msg_done(&m);
        }
    }
    audit(d, c->ask, "file.upload", c->meta->id, rc);
    /* It is recorded. What goes wrong from here on is no reason to say that it is not: the feed tells of it in a
     * moment. */
    if (rc == QD_OK && qd_file_meta_decode(buf.data, buf.len, &copy, NULL) == QD_OK)
        (void)!qd_keys_put(d->b->keys, key, copy, rev, NULL);
out:
    qd_buf_done(&buf);
    return rc;
}

/* Record first: a file without one is swept, a record without a file would be a lie. */
qd_code qd_call_file_delete(qd_desk *d, void *arg, qd_err *err)
{
    const qd_call_file *c = arg;
    char key[QD_SUBJECT_BYTES];
    bool open = false;
    qd_file_meta *meta = NULL;
    qd_code rc = qd_keys_file(d->b->keys, c->ask->caller->tenant, c->id, &meta, err);
    if (rc == QD_OK) rc = qd_key(QD_KEY_FILE, c->id, key, err);
    if (rc != QD_OK) goto out;
    rc = QD_E_AWAY;
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++) {
        qd_bus_msg m = {0};
        rc = qd_bus_kv_get(d->bus, QD_BUCKET_ACCESS, key, &m, err);
        if (rc == QD_OK) rc = qd_bus_kv_delete(d->bus, QD_BUCKET_ACCESS, key, m.seq, err);
        if (rc == QD_E_CONFLICT) rc = QD_E_AWAY; /* somebody deletes it too: look again */
        if (rc == QD_E_NOT_FOUND && open) rc = QD_OK;
        open = open || rc == QD_E_AWAY;
        qd_bus_msg_done(&m);
    }
    if (rc == QD_OK || rc == QD_E_NOT_FOUND) qd_keys_delete_own(d->b->keys, key);
    if (rc == QD_OK) {
        (void)unlink(meta->path);
        audit(d, c->ask, "file.delete", c->id, rc);
    }
out:
    qd_msg_free(meta);
    return rc;
}
