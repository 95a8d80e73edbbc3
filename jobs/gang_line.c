/* gang_line.c -- the line of calls: which job is served first, by whom, and whether it can be served at all. */
#include "base/mem.h"
#include "jobs/gang_inside.h"
#include "jobs/worker.h"

#include <stdio.h>
#include <string.h>

enum {
    ALIVE_LEASES = 4 /* a heartbeat of that age still counts */
};

void qd_gang_ranks(const qd_job_spec *spec, uint32_t *ret_min, uint32_t *ret_max)
{
    *ret_min = spec->ranks_min == 0 ? 1 : spec->ranks_min;
    *ret_max = spec->ranks_max < *ret_min ? *ret_min : spec->ranks_max;
}

bool qd_line_before(const qd_jobs_seen *a, const qd_jobs_seen *b)
{
    if (a->lane.priority != b->lane.priority) return a->lane.priority < b->lane.priority;
    if (a->created_ms != b->created_ms) return a->created_ms < b->created_ms;
    return strcmp(a->id, b->id) < 0;
}

bool qd_line_fits(const qd_jobs *j, const qd_reservation *r)
{
    const qd_gang_self *s = j->opts.gang;
    return s != NULL && strcmp(r->build, s->build) == 0 && strcmp(r->numerics_id, s->numerics_id) == 0 &&
           strcmp(r->device_class, s->device_class) == 0 && strcmp(r->collective_version, s->collective) == 0 &&
           (r->host[0] == '\0' || strcmp(r->host, s->host) == 0);
}

const qd_view_job *qd_line_next(const qd_jobs *j, const qd_jobs_seen *after)
{
    const qd_view *v = &j->view;
    const qd_view_job *best = NULL;
    for (size_t i = 0; i < v->n_calls; i++) {
        const qd_view_job *job = qd_view_find(v, v->calls[i].id);
        if (job == NULL || job->unfit_rev == job->seen.rev || qd_line_shuns(j, job->seen.id)) continue;
        if (after != NULL && !qd_line_before(after, &job->seen)) continue;
        if (best == NULL || qd_line_before(&job->seen, &best->seen)) best = job;
    }
    return best;
}

qd_code qd_line_first(qd_jobs *j, const qd_jobs_seen *before, qd_job_record **ret, qd_err *err)
{
    qd_jobs_seen at = {0};
    const qd_view_job *job = qd_line_next(j, NULL);
    *ret = NULL;
    for (; job != NULL && (before == NULL || qd_line_before(&job->seen, before)); job = qd_line_next(j, &at)) {
        qd_job_record *rec = NULL;
        uint64_t rev = 0;
        at = job->seen;
        qd_code rc = qd_jobs_get(j, at.id, &rec, &rev, err);
        if (rc == QD_E_AWAY || rc == QD_E_NO_MEMORY) return rc;
        bool calls =
            rc == QD_OK && rec->state == QD_JOB_RUNNING && rec->reservation != NULL && strcmp(rec->owner, j->self) != 0;
        if (calls && qd_line_fits(j, rec->reservation)) {
            *ret = rec;
            return QD_OK;
        }
        qd_view_job *mine = qd_view_find(&j->view, at.id);
        if (calls && mine != NULL && rev == at.rev) mine->unfit_rev = rev; /* it will not fit us later either */
        qd_msg_free(rec);
    }
    return QD_OK;
}

qd_code qd_line_reservation(const qd_jobs *j, const qd_job_spec *spec, qd_reservation **ret, qd_err *err)
{
    const qd_gang_self *s = j->opts.gang;
    qd_reservation *r = qd_reservation_new();
    if (r == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a reservation");
    qd_code rc = QD_OK;
    qd_gang_ranks(spec, &r->ranks_min, &r->ranks_max);
    r->since_ms = qd_jobs_unix_ms(j);
    QD_TRY(qd_text_set(&r->build, s->build, err));
    QD_TRY(qd_text_set(&r->numerics_id, s->numerics_id, err));
    QD_TRY(qd_text_set(&r->device_class, s->device_class, err));
    QD_TRY(qd_text_set(&r->collective_version, s->collective, err));
    QD_TRY(qd_text_set(&r->host, s->one_host ? s->host : NULL, err));
    *ret = r;
    r = NULL;
out:
    qd_msg_free(r);
    return rc;
}

typedef struct alike {
    const qd_jobs *j;
    uint32_t n;
} alike;

static qd_code count_alike(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    alike *a = ctx;
    const qd_gang_self *s = a->j->opts.gang;
    (void)err;
    bool stays = hb->state == QUANTD__WORKER_STATE__WORKER_IDLE || hb->state == QUANTD__WORKER_STATE__WORKER_BUSY;
    bool same = strcmp(hb->build, s->build) == 0 && strcmp(hb->numerics_id, s->numerics_id) == 0 &&
                strcmp(hb->device_class, s->device_class) == 0 && strcmp(hb->collective_version, s->collective) == 0 &&
                (!s->one_host || strcmp(hb->host, s->host) == 0);
    a->n += stays && same && age_ms < ALIVE_LEASES * a->j->opts.lease_ms && strcmp(hb->id, a->j->self) != 0;
    return QD_OK;
}

qd_code qd_line_enough(qd_jobs *j, const qd_job_spec *spec, bool *ret_enough, qd_err *err)
{
    uint32_t min = 0, max = 0;
    alike a = {.j = j, .n = 1};
    qd_gang_ranks(spec, &min, &max);
    *ret_enough = min == 1;
    if (min == 1 || j->opts.gang == NULL) return QD_OK;
    qd_code rc = qd_jobs_workers(j, count_alike, &a, err);
    *ret_enough = a.n >= min;
    return rc;
}

void qd_line_shun(qd_jobs *j, const char *job_id, uint64_t ms)
{
    size_t at = 0; /* the one that is over first gives way */
    for (size_t i = 0; i < QD_SHUNS_MAX; i++) {
        if (strcmp(j->shuns[i].job_id, job_id) == 0) {
            at = i;
            break;
        }
        if (j->shuns[i].until_ms < j->shuns[at].until_ms) at = i;
    }
    (void)snprintf(j->shuns[at].job_id, sizeof j->shuns[at].job_id, "%s", job_id);
    j->shuns[at].until_ms = qd_jobs_mono_ms(j) + ms;
}

bool qd_line_shuns(const qd_jobs *j, const char *job_id)
{
    for (size_t i = 0; i < QD_SHUNS_MAX; i++)
        if (j->shuns[i].until_ms > qd_jobs_mono_ms(j) && strcmp(j->shuns[i].job_id, job_id) == 0) return true;
    return false;
}
