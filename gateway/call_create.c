/* call_create.c -- a job is made, once: key, id, name, record. */
#include "access/apikey.h"
#include "base/clock.h"
#include "base/hex.h"
#include "gateway/backend_inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    DRAWS_MAX = 256, /* of an id that this gateway does not know; Bailian's have 65,536 a minute */
    IDS_MAX = 16,    /* that turn out to be another gateway's */
    NONCE_BYTES = 33
};

static qd_code check_limits(const qd_backend_bus *b, const char *tenant, qd_err *err)
{
    uint64_t in[QD_JOB_STATES], all = 0;
    qd_limits l;
    qd_keys_limits(b->keys, tenant, &l);
    qd_index_counts(b->index, tenant, in);
    for (size_t i = 0; i < QD_JOB_STATES; i++) all += in[i];
    uint64_t waiting = in[QD_JOB_PENDING] + in[QD_JOB_QUEUING];
    if (l.queued_max != 0 && waiting >= l.queued_max)
        return qd_fail(err, QD_E_FULL, "tenant %s has %llu jobs waiting, at most %u", tenant,
                       (unsigned long long)waiting, l.queued_max);
    if (l.recorded_max != 0 && all >= l.recorded_max)
        return qd_fail(err, QD_E_FULL, "tenant %s has %llu jobs on record, at most %u", tenant, (unsigned long long)all,
                       l.recorded_max);
    return QD_OK;
}

/* The same for the same request under the same key, so that what it left half done is known as its own. */
static qd_code make_nonce(const qd_idem *idem, char ret[NONCE_BYTES], qd_err *err)
{
    uint8_t bytes[16];
    char hex[QD_SHA256_HEX_BYTES], text[QD_SUBJECT_BYTES + 40];
    if (idem->key[0] != '\0') {
        int n = snprintf(text, sizeof text, "%s %s", idem->key, idem->body);
        qd_code rc = qd_sha256_hex(text, (size_t)n, hex, err);
        if (rc == QD_OK) (void)snprintf(ret, NONCE_BYTES, "%.32s", hex);
        return rc;
    }
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return qd_fail_errno(err, QD_E_INTERNAL, errno, "no random bytes");
    qd_hex(bytes, sizeof bytes, ret);
    return QD_OK;
}

static qd_code draw_id(const qd_backend_bus *b, const qd_new_job *n, char ret[QD_ID_BYTES], qd_err *err)
{
    for (int i = 0; i < DRAWS_MAX; i++) {
        uint64_t random = 0;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
            return qd_fail_errno(err, QD_E_INTERNAL, errno, "no random bytes");
        n->make_id(qd_unix_ms(), random, ret);
        if (!qd_index_has(b->index, ret)) return qd_id_check(ret, "job id", err);
    }
    return qd_fail(err, QD_E_FULL, "no id for a job was free in %d draws", DRAWS_MAX);
}

/* The name that was claimed for an id which turned out to be another job's. */
static void drop_name(qd_desk *d, const qd_job_spec *mine, const qd_job_record *theirs, const char *id)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    bool its_own = strcmp(mine->tenant, theirs->spec->tenant) == 0 && strcmp(mine->name, theirs->spec->name) == 0;
    if (its_own || qd_key_name(mine->tenant, mine->name, key, NULL) != QD_OK) return;
    if (qd_bus_kv_get(d->bus, QD_BUCKET_JOBS, key, &m, NULL) == QD_OK && m.bytes == strlen(id) &&
        memcmp(m.data, id, m.bytes) == 0)
        (void)!qd_bus_kv_delete(d->bus, QD_BUCKET_JOBS, key, m.seq, NULL);
    qd_bus_msg_done(&m);
}

static qd_code read_back(qd_desk *d, const char *id, qd_job_record **ret, uint64_t *ret_rev, qd_err *err)
{
    qd_code rc = QD_E_AWAY;
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++) rc = qd_jobs_get(d->jobs, id, ret, ret_rev, err);
    return rc;
}

/* *ret_taken: the id is another job's. */
static qd_code create(qd_desk *d, const qd_call_create *call, const char *id, const char *nonce, qd_job_record **ret,
                      bool *ret_taken, qd_err *err)
{
    char from[256];
    const qd_jobs_caller by = qd_call_by(call->ask, from);
    qd_job_spec *spec = NULL;
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = QD_OK;
    *ret_taken = false;
    QD_TRY(qd_call_spec(d->b, call, id, nonce, &spec, err));
    rc = QD_E_AWAY;
    for (int i = 0; i < QD_CALL_TRIES && rc == QD_E_AWAY; i++)
        rc = qd_jobs_create(d->jobs, id, spec, call->job->unique_name, &by, err);
    if (rc != QD_OK && rc != QD_E_CONFLICT) goto out;
    qd_code seen = read_back(d, id, &rec, &rev, rc == QD_OK ? err : NULL);
    const char *theirs =
        seen != QD_OK ? "" : qd_name_value_find(rec->spec->api_fields, rec->spec->n_api_fields, QD_FIELD_NONCE);
    *ret_taken = seen == QD_OK && (theirs == NULL || strcmp(theirs, nonce) != 0);
    if (*ret_taken && rc == QD_OK && call->job->unique_name) drop_name(d, spec, rec, id);
    if (rc == QD_E_CONFLICT || *ret_taken) goto out; /* else the name is in use */
    rc = seen;
    if (rc == QD_E_NOT_FOUND) rc = qd_fail(err, QD_E_CONFLICT, "job %s was deleted as soon as it was made", id);
    if (rc != QD_OK) goto out;
    qd_call_note(d->b, rec, rev);
    *ret = rec;
    rec = NULL;
out:
    qd_msg_free(spec);
    qd_msg_free(rec);
    return rc;
}

qd_code qd_call_job_create(qd_desk *d, void *arg, qd_err *err)
{
    qd_call_create *call = arg;
    const char *tenant = call->ask->caller->tenant;
    char id[QD_ID_BYTES] = "", others[QD_ID_BYTES] = "", nonce[NONCE_BYTES] = "";
    bool taken = true, checked = false;
    qd_idem idem;
    qd_code rc = qd_idem_open(d, call, &idem, err);
    if (rc == QD_OK) rc = make_nonce(&idem, nonce, err);
    for (int draws = 0; rc == QD_OK && taken && draws < IDS_MAX; draws++) {
        if (idem.id[0] != '\0') { /* an earlier request of the same key */
            rc = qd_call_read(d, tenant, call->job->origin, idem.id, &call->ret, err);
            const char *theirs = rc != QD_OK ? NULL
                                             : qd_name_value_find(call->ret->spec->api_fields,
                                                                  call->ret->spec->n_api_fields, QD_FIELD_NONCE);
            if (theirs != NULL && strcmp(theirs, nonce) == 0) {
                qd_idem_made(d, &idem);
                return QD_OK;
            }
            qd_msg_free(call->ret);
            call->ret = NULL;
            if (rc != QD_OK && rc != QD_E_NOT_FOUND) return rc;
            if (rc == QD_E_NOT_FOUND && idem.made)
                return qd_fail(err, QD_E_REFUSED, "this Idempotency-Key made job %s, which was deleted", idem.id);
            (void)snprintf(id, sizeof id, "%s", rc == QD_OK || strcmp(idem.id, others) == 0 ? "" : idem.id);
            rc = QD_OK;
        }
        if (!checked) rc = check_limits(d->b, tenant, err);
        checked = true;
        if (rc == QD_OK && id[0] == '\0') {
            rc = draw_id(d->b, call->job, id, err);
            if (rc == QD_OK) rc = qd_idem_bind(d, &idem, id, err);
            if (rc == QD_E_CONFLICT && idem.key[0] != '\0') { /* the same request twice at once */
                rc = qd_idem_open(d, call, &idem, err);
                id[0] = '\0';
                continue;
            }
        }
        if (rc == QD_OK) rc = create(d, call, id, nonce, &call->ret, &taken, err);
        if (!taken || (rc != QD_OK && rc != QD_E_CONFLICT)) continue;
        rc = QD_OK;
        (void)snprintf(others, sizeof others, "%s", id);
        id[0] = '\0';
    }
    if (rc == QD_OK && taken) rc = qd_fail(err, QD_E_FULL, "no id for a job was free in %d draws", IDS_MAX);
    if (rc == QD_OK) qd_idem_made(d, &idem);
    return rc;
}
