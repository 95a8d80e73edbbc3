/* leaks.c -- what crashes leave behind: names, leases, directories, markers. */
#include "base/hash.h"
#include "base/mem.h"
#include "jobs/inside.h"
#include "jobs/sweep.h"

#include <string.h>

enum {
    LEAKS_MAX = 4096,
    MARKER_AGE_MS = 600000
};

typedef struct cleaning {
    qd_jobs *j;
    qd_jobs_swept *ret;
    qd_leak *found; /* names without a record, now */
    size_t n_found;
    qd_code first; /* of the directories: one that fails does not stand before the others */
} cleaning;

/* What became of a job. *ret_state is QD_JOB_... of 0 when it is gone for sure. */
static qd_code state_of(qd_jobs *j, const char *id, qd_job_record **ret, qd_err *err)
{
    qd_code rc = qd_jobs_get(j, id, ret, NULL, err);
    return rc == QD_E_NOT_FOUND ? QD_OK : rc;
}

/* What the view knows of a job, NULL: nothing. It may be old, so it is good for leaving things alone only; it saves the
 * question about each of a hundred thousand names. */
static const qd_jobs_seen *seen(const qd_jobs *j, const char *id)
{
    const qd_view_job *job = qd_view_find(&j->view, id);
    return job == NULL ? NULL : &job->seen;
}

static bool seen_alive(const qd_jobs *j, const char *id)
{
    const qd_jobs_seen *s = seen(j, id);
    return s != NULL && !qd_job_state_terminal(s->state);
}

/* Unreadable records (of newer programs) are records. */
static bool skip(qd_code rc)
{
    return rc == QD_E_INPUT || rc == QD_E_VERSION || rc == QD_E_CONFLICT;
}

static uint64_t since(const qd_jobs *j, uint64_t rev, uint64_t now_ms)
{
    for (size_t i = 0; i < j->n_leaks; i++)
        if (j->leaks[i].rev == rev) return j->leaks[i].since_ms;
    return now_ms;
}

/* A name whose job has no record. It may be on its way: it is a leak when it stays so for leak_ms of our own clock. */
static qd_code look_at_name(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    cleaning *c = ctx;
    qd_jobs *j = c->j;
    char id[QD_ID_BYTES] = "";
    qd_job_record *rec = NULL;
    uint64_t now_ms = qd_jobs_mono_ms(j), first_ms = since(j, m->seq, now_ms);
    if (m->bytes < QD_ID_BYTES) memcpy(id, m->data, m->bytes + 1);
    if (seen(j, id) != NULL) return QD_OK;
    qd_code rc = qd_id_ok(id) ? state_of(j, id, &rec, err) : QD_OK;
    bool leak = rc == QD_OK && rec == NULL && !j->opts.bugs.leave_names;
    qd_msg_free(rec);
    if (leak && now_ms - first_ms >= j->opts.leak_ms) {
        rc = qd_bus_kv_delete(j->bus, QD_BUCKET_JOBS, m->key, m->seq, err);
        if (rc == QD_OK) c->ret->names++;
    } else if (leak && c->n_found < LEAKS_MAX) {
        qd_leak *list = qd_realloc(c->found, (c->n_found + 1) * sizeof *list);
        if (list == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for names");
        c->found = list;
        list[c->n_found++] = (qd_leak){.rev = m->seq, .since_ms = first_ms};
    }
    return skip(rc) ? QD_OK : rc;
}

static qd_code look_at_lease(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    cleaning *c = ctx;
    qd_key_kind kind = QD_KEY_LEASE;
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    qd_code rc = qd_key_parse(m->key, &kind, id, err);
    if (rc == QD_OK && seen_alive(c->j, id)) return QD_OK;
    if (rc == QD_OK) rc = state_of(c->j, id, &rec, err);
    bool ended = rc == QD_OK && (rec == NULL || qd_job_state_terminal(rec->state));
    qd_msg_free(rec);
    if (ended) {
        rc = qd_bus_kv_delete(c->j->bus, QD_BUCKET_LIVE, m->key, m->seq, err);
        if (rc == QD_OK) c->ret->leases++;
    }
    return skip(rc) ? QD_OK : rc;
}

/* A gang of a job that has ended, or is nobody's. */
static qd_code look_at_gang(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    cleaning *c = ctx;
    qd_key_kind kind = QD_KEY_GANG;
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    qd_code rc = qd_key_parse(m->key, &kind, id, err);
    if (rc == QD_OK) rc = state_of(c->j, id, &rec, err);
    bool held = rec != NULL && rec->owner[0] != '\0' && !qd_job_state_terminal(rec->state);
    qd_msg_free(rec);
    if (rc == QD_OK && !held) {
        rc = qd_bus_kv_delete(c->j->bus, QD_BUCKET_LIVE, m->key, m->seq, err);
        if (rc == QD_OK) c->ret->leases++;
    }
    return skip(rc) ? QD_OK : rc;
}

static qd_code look_at_path(void *ctx, const qd_disk_item *item, qd_err *err)
{
    cleaning *c = ctx;
    const qd_jobs_disk *d = c->j->opts.disk;
    qd_job_record *rec = NULL;
    bool go = item->kind == QD_DISK_TRASH;
    const qd_jobs_seen *s = go ? NULL : seen(c->j, item->job_id);
    if (s != NULL && item->kind == QD_DISK_STAGING && !qd_job_state_terminal(s->state)) return QD_OK;
    if (s != NULL && item->kind == QD_DISK_OUTPUT && s->state == QD_JOB_SUCCEEDED) return QD_OK;
    qd_code rc = go ? QD_OK : state_of(c->j, item->job_id, &rec, err);
    if (rc == QD_OK && item->kind == QD_DISK_STAGING)
        go = rec == NULL || (qd_job_state_terminal(rec->state) && item->epoch <= rec->epoch);
    /* Of FAILED jobs there is none, and of one requeued this moment there may soon be one; of a job without a record it
     * is somebody's model. */
    if (rc == QD_OK && item->kind == QD_DISK_OUTPUT) go = rec != NULL && rec->state == QD_JOB_CANCELED;
    qd_msg_free(rec);
    if (rc != QD_OK || !go) return skip(rc) ? QD_OK : rc;
    rc = d->discard(d->ctx, item, c->first == QD_OK ? err : NULL);
    if (c->first == QD_OK) c->first = rc;
    c->ret->paths += rc == QD_OK;
    return QD_OK;
}

/* What is on the bus: for the one program that sweeps. */
static qd_code sweep_bus(cleaning *c, qd_err *err)
{
    qd_jobs *j = c->j;
    uint64_t n = 0, newest = j->view.newest_ms; /* of the bucket's clock, as far as we know it */
    qd_code rc = QD_OK;
    QD_TRY(qd_bus_kv_list(j->bus, QD_BUCKET_JOBS, QD_KEYS_NAMES, look_at_name, c, err));
    qd_free(j->leaks);
    j->leaks = c->found;
    j->n_leaks = c->n_found;
    c->found = NULL;
    QD_TRY(qd_bus_kv_list(j->bus, QD_BUCKET_LIVE, QD_KEYS_LEASES, look_at_lease, c, err));
    if (j->opts.gang != NULL) QD_TRY(qd_bus_kv_list(j->bus, QD_BUCKET_LIVE, QD_KEYS_GANGS, look_at_gang, c, err));
    if (newest > MARKER_AGE_MS) QD_TRY(qd_bus_kv_compact(j->bus, QD_BUCKET_JOBS, ">", newest - MARKER_AGE_MS, &n, err));
out:
    return rc;
}

qd_code qd_jobs_sweep_leaks(qd_jobs *j, qd_jobs_swept *ret, qd_err *err)
{
    cleaning c = {.j = j, .ret = ret};
    qd_code rc = QD_OK;
    if (j->view.feed != NULL) QD_TRY(qd_jobs_view_pump(j, 0, NULL, err));
    if (qd_seat_sweeps(j)) QD_TRY(sweep_bus(&c, err));
    if (j->opts.disk != NULL)
        QD_TRY(j->opts.disk->each(j->opts.disk->ctx, look_at_path, &c, err)); /* may be this node's */
    rc = c.first;
out:
    qd_free(c.found);
    return rc;
}
