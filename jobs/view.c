#include "jobs/view.h"

#include "base/hash.h"
#include "base/mem.h"
#include "jobs/inside.h"

#include <stdio.h>
#include <string.h>

/* The place of id in the index, or the free one where it belongs. */
static size_t place_of(const qd_view *v, const char *id)
{
    size_t i = (size_t)qd_hash64(id, strlen(id), 0) & (v->cap_index - 1);
    while (v->index[i] != 0 && strcmp(v->jobs[v->index[i] - 1].seen.id, id) != 0) i = (i + 1) & (v->cap_index - 1);
    return i;
}

qd_view_job *qd_view_find(const qd_view *v, const char *id)
{
    if (v->cap_index == 0) return NULL;
    uint32_t at = v->index[place_of(v, id)];
    return at == 0 ? NULL : &v->jobs[at - 1];
}

static bool reserve(qd_view *v)
{
    if (v->n_jobs < v->cap_jobs) return true;
    size_t cap = v->cap_jobs == 0 ? 64 : 2 * v->cap_jobs;
    if (cap > UINT32_MAX / 4) return false;
    qd_view_job *jobs = qd_realloc(v->jobs, cap * sizeof *jobs);
    if (jobs == NULL) return false;
    v->jobs = jobs;
    uint32_t *index = qd_calloc(4 * cap, sizeof *index);
    if (index == NULL) return false;
    qd_free(v->index);
    v->index = index;
    v->cap_index = 4 * cap;
    v->cap_jobs = cap;
    for (size_t i = 0; i < v->n_jobs; i++) v->index[place_of(v, v->jobs[i].seen.id)] = (uint32_t)i + 1;
    return true;
}

qd_tenant *qd_view_tenant(qd_view *v, const char *id)
{
    for (size_t i = 0; i < v->n_tenants; i++)
        if (strcmp(v->tenants[i].id, id) == 0) return &v->tenants[i];
    qd_tenant *list = qd_realloc(v->tenants, (v->n_tenants + 1) * sizeof *list);
    if (list == NULL) return NULL;
    v->tenants = list;
    qd_tenant *t = &list[v->n_tenants++];
    memset(t, 0, sizeof *t);
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    return t;
}

static bool same_lane(const qd_lane *a, const qd_lane *b)
{
    return a->priority == b->priority && strcmp(a->device_class, b->device_class) == 0 &&
           strcmp(a->numerics_id, b->numerics_id) == 0;
}

static size_t lane_at(const qd_view *v, const qd_lane *lane)
{
    size_t i = 0;
    while (i < v->n_lanes && !same_lane(&v->lanes[i].lane, lane)) i++;
    return i;
}

/* A lane's place; QD_VIEW_LANES_MAX: there are too many. */
static size_t lane_for(qd_view *v, const qd_lane *lane)
{
    size_t i = lane_at(v, lane);
    if (i < v->n_lanes || i == QD_VIEW_LANES_MAX) {
        v->more_lanes = v->more_lanes || i == QD_VIEW_LANES_MAX;
        return i;
    }
    v->lanes[v->n_lanes++] = (qd_view_lane){.lane = *lane};
    return i;
}

/* Counts a job among the live ones of its lane, or no more. */
static void count_live(qd_view *v, const qd_view_job *job, bool in)
{
    if (job->lane == QD_VIEW_LANES_MAX || qd_job_state_terminal(job->seen.state)) return;
    v->lanes[job->lane].live += in ? 1 : (size_t)-1;
}

bool qd_view_may_hold(const qd_view *v, const qd_lane *lane)
{
    size_t i = lane_at(v, lane);
    return !v->synced || (i < v->n_lanes ? v->lanes[i].live != 0 : v->more_lanes);
}

/* A job begins to call for others, or no longer does. */
static qd_code set_calls(qd_view *v, qd_view_job *job, bool calls, qd_err *err)
{
    if (job->calls == calls) return QD_OK;
    if (calls) {
        qd_view_call *list = qd_realloc(v->calls, (v->n_calls + 1) * sizeof *list);
        if (list == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu calls", v->n_calls + 1);
        v->calls = list;
        memcpy(list[v->n_calls++].id, job->seen.id, sizeof job->seen.id);
    } else {
        size_t i = 0;
        while (i < v->n_calls && strcmp(v->calls[i].id, job->seen.id) != 0) i++;
        if (i < v->n_calls) v->calls[i] = v->calls[--v->n_calls];
    }
    job->calls = calls;
    return QD_OK;
}

static size_t state_of(qd_job_state s)
{
    return (unsigned)s < QD_JOB_STATES ? (size_t)s : 0;
}

qd_code qd_view_put(qd_view *v, const qd_job_record *rec, uint64_t rev, uint64_t now_ms, qd_err *err)
{
    qd_view_job *old = qd_view_find(v, rec->id);
    if (old != NULL && rev <= old->seen.rev) {
        old->generation = v->generation;
        return QD_OK;
    }
    qd_tenant *t = qd_view_tenant(v, rec->spec->tenant);
    if (t == NULL || !reserve(v) || v->jobs == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu jobs", v->n_jobs + 1);
    qd_view_job *job = qd_view_find(v, rec->id);
    if (job != NULL) {
        v->tenants[job->tenant].in[state_of(job->seen.state)]--;
        count_live(v, job, false);
    } else {
        job = &v->jobs[v->n_jobs];
        memset(job, 0, sizeof *job);
        (void)snprintf(job->seen.id, sizeof job->seen.id, "%s", rec->id);
        v->n_jobs++;
        v->index[place_of(v, rec->id)] = (uint32_t)v->n_jobs;
    }
    qd_jobs_seen *s = &job->seen;
    (void)snprintf(s->tenant, sizeof s->tenant, "%s", rec->spec->tenant);
    s->state = rec->state;
    s->rev = rev;
    s->epoch = rec->epoch;
    s->created_ms = rec->created_ms;
    s->ended_ms = rec->ended_ms;
    s->since_ms = now_ms;
    s->lane.priority = rec->spec->lane->priority;
    (void)snprintf(s->lane.device_class, sizeof s->lane.device_class, "%s", rec->spec->lane->device_class);
    (void)snprintf(s->lane.numerics_id, sizeof s->lane.numerics_id, "%s", rec->spec->lane->numerics_id);
    job->generation = v->generation;
    job->lease_rev = 0;
    job->tenant = (size_t)(t - v->tenants);
    job->lane = lane_for(v, &s->lane);
    count_live(v, job, true);
    t->in[state_of(s->state)]++;
    return set_calls(v, job, rec->state == QD_JOB_RUNNING && rec->reservation != NULL, err);
}

void qd_view_remove(qd_view *v, const char *id)
{
    qd_view_job *job = qd_view_find(v, id);
    if (job == NULL) return;
    v->tenants[job->tenant].in[state_of(job->seen.state)]--;
    count_live(v, job, false);
    (void)!set_calls(v, job, false, NULL);
    size_t hole = place_of(v, id), mask = v->cap_index - 1;
    v->index[hole] = 0;
    for (size_t i = (hole + 1) & mask; v->index[i] != 0; i = (i + 1) & mask) { /* close the gap */
        uint32_t moved = v->index[i];
        v->index[i] = 0;
        v->index[place_of(v, v->jobs[moved - 1].seen.id)] = moved;
    }
    qd_view_job *last = &v->jobs[v->n_jobs - 1];
    if (last != job) {
        v->index[place_of(v, last->seen.id)] = (uint32_t)(job - v->jobs) + 1;
        *job = *last;
    }
    v->n_jobs--;
}

void qd_view_done(qd_view *v, qd_bus *bus)
{
    qd_bus_feed_close(bus, v->feed);
    qd_free(v->jobs);
    qd_free(v->index);
    qd_free(v->tenants);
    qd_free(v->calls);
    memset(v, 0, sizeof *v);
}

static void drop_untold(qd_view *v)
{
    for (size_t i = 0; i < v->n_jobs;)
        if (v->jobs[i].generation != v->generation)
            qd_view_remove(v, v->jobs[i].seen.id);
        else
            i++;
}

static qd_code take_in(qd_jobs *j, const qd_bus_msg *m, qd_err *err)
{
    qd_key_kind kind = QD_KEY_JOB;
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    if (m->time_ms > j->view.newest_ms) j->view.newest_ms = m->time_ms;
    if (qd_key_parse(m->key, &kind, id, err) != QD_OK) {
        j->stats.malformed++;
        return QD_OK;
    }
    if (m->deleted) {
        qd_view_remove(&j->view, id);
        return QD_OK;
    }
    qd_code rc = qd_record_decode(j, m, id, &rec, err);
    if (rc == QD_OK) rc = qd_view_put(&j->view, rec, m->seq, qd_jobs_mono_ms(j), err);
    if (rec == NULL && rc != QD_E_NO_MEMORY) { /* not for this program; what was known of it is old */
        qd_view_remove(&j->view, id);
        rc = QD_OK;
    }
    qd_msg_free(rec);
    return rc;
}

qd_code qd_jobs_view_pump(qd_jobs *j, size_t n_max, bool *ret_synced, qd_err *err)
{
    qd_view *v = &j->view;
    qd_code rc = QD_OK;
    if (v->feed == NULL) {
        QD_TRY(qd_bus_kv_watch(j->bus, QD_BUCKET_JOBS, QD_KEYS_JOBS, &v->feed, err));
        v->generation++;
    }
    for (size_t i = 0; n_max == 0 || i < n_max; i++) {
        qd_bus_msg m = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        QD_TRY(qd_bus_feed_next(j->bus, v->feed, 0, &event, &m, err));
        if (event == QD_FEED_NONE) break;
        if (event == QD_FEED_RESET) v->generation++;
        if (event == QD_FEED_SYNCED) {
            drop_untold(v);
            v->synced = true;
        }
        if (event == QD_FEED_MSG) rc = take_in(j, &m, err);
        qd_bus_msg_done(&m);
        if (rc != QD_OK) { /* what it told is lost: have it tell everything anew */
            qd_bus_feed_close(j->bus, v->feed);
            v->feed = NULL;
            goto out;
        }
    }
    if (ret_synced != NULL) *ret_synced = v->synced;
out:
    return rc;
}

int qd_jobs_view_fd(qd_jobs *j)
{
    return j->view.feed == NULL ? -1 : qd_bus_feed_fd(j->bus, j->view.feed);
}

size_t qd_jobs_view_count(const qd_jobs *j)
{
    return j->view.n_jobs;
}

const qd_jobs_seen *qd_jobs_view_at(const qd_jobs *j, size_t i)
{
    return i < j->view.n_jobs ? &j->view.jobs[i].seen : NULL;
}

const qd_jobs_seen *qd_jobs_view_find(const qd_jobs *j, const char *job_id)
{
    const qd_view_job *job = qd_view_find(&j->view, job_id);
    return job == NULL ? NULL : &job->seen;
}

size_t qd_jobs_view_in(const qd_jobs *j, const char *tenant, qd_job_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < j->view.n_tenants; i++)
        if (tenant == NULL || strcmp(j->view.tenants[i].id, tenant) == 0) n += j->view.tenants[i].in[state_of(state)];
    return n;
}
