/* name.c -- name.<tenant>.<name>: which job holds a name. Its value is the job's id, as it is. */
#include "jobs/inside.h"

#include <string.h>

/* Reads a name key. *ret_id is "" when there is none, or when what is there is no id. */
static qd_code name_get(qd_jobs *j, const char *key, char ret_id[QD_ID_BYTES], uint64_t *ret_rev, qd_err *err)
{
    qd_bus_msg m = {0};
    qd_code rc = qd_bus_kv_get(j->bus, QD_BUCKET_JOBS, key, &m, err);
    ret_id[0] = '\0';
    if (rc == QD_OK) {
        *ret_rev = m.seq;
        if (m.bytes < QD_ID_BYTES) memcpy(ret_id, m.data, m.bytes + 1);
        if (!qd_id_ok(ret_id)) ret_id[0] = '\0';
    }
    qd_bus_msg_done(&m);
    return rc;
}

qd_code qd_jobs_by_name(qd_jobs *j, const char *tenant, const char *name, char ret_id[QD_ID_BYTES], qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    uint64_t rev = 0;
    qd_code rc = qd_key_name(tenant, name, key, err);
    if (rc == QD_OK) rc = name_get(j, key, ret_id, &rev, err);
    if (rc == QD_OK && ret_id[0] == '\0') rc = qd_fail(err, QD_E_INPUT, "name %.80s: it holds no job id", name);
    return rc;
}

qd_code qd_name_claim(qd_jobs *j, const char *tenant, const char *name, const char *id, uint64_t *ret_rev, qd_err *err)
{
    char key[QD_SUBJECT_BYTES], holder[QD_ID_BYTES];
    qd_code rc = qd_key_name(tenant, name, key, err);
    if (rc != QD_OK) return rc;
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        rc = qd_bus_kv_put(j->bus, QD_BUCKET_JOBS, key, id, strlen(id), QD_REV_ABSENT, ret_rev, err);
        if (rc != QD_E_CONFLICT && rc != QD_E_AWAY) return rc;
        rc = name_get(j, key, holder, ret_rev, err);
        if (rc == QD_OK && strcmp(holder, id) == 0) {
            /* The first try did it, or an earlier call: then a sweep may be about to take it for a leak. A new revision
             * is one that it does not know. */
            if (j->opts.bugs.keep_name_revision) return QD_OK;
            rc = qd_bus_kv_put(j->bus, QD_BUCKET_JOBS, key, id, strlen(id), *ret_rev, ret_rev, err);
            if (rc != QD_E_CONFLICT && rc != QD_E_AWAY) return rc;
            continue;
        }
        if (rc == QD_OK)
            return qd_fail(err, QD_E_CONFLICT, "the name %.80s is held by job %s", name,
                           holder[0] == '\0' ? "(unreadable)" : holder);
        if (rc != QD_E_NOT_FOUND && rc != QD_E_AWAY) return rc;
    }
    return qd_fail(err, QD_E_AWAY, "the name %.80s: no answer", name);
}

qd_code qd_name_drop(qd_jobs *j, const char *tenant, const char *name, const char *id, qd_err *err)
{
    char key[QD_SUBJECT_BYTES], holder[QD_ID_BYTES];
    uint64_t rev = 0;
    qd_code rc = qd_key_name(tenant, name, key, err);
    if (rc != QD_OK) return rc;
    for (int i = 0; i < QD_JOBS_TRIES; i++) {
        rc = name_get(j, key, holder, &rev, err);
        if (rc == QD_E_NOT_FOUND || (rc == QD_OK && strcmp(holder, id) != 0)) return QD_OK;
        if (rc == QD_OK) rc = qd_bus_kv_delete(j->bus, QD_BUCKET_JOBS, key, rev, err);
        if (rc != QD_E_CONFLICT && rc != QD_E_AWAY) return rc;
    }
    return rc;
}
