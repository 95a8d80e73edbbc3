/* admit.c -- PENDING -> message -> QUEUING, within limits, a job of each tenant in turn. */
#include "base/mem.h"
#include "jobs/inside.h"
#include "jobs/sweep_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_FULL_MS = 2000,
    ADMIT_MAX = 10000 /* a call */
};

typedef struct waiting {
    char id[QD_ID_BYTES], tenant[QD_ID_BYTES];
    uint64_t created_ms;
} waiting;

static int by_tenant_and_age(const void *a, const void *b)
{
    const waiting *x = a, *y = b;
    int c = strcmp(x->tenant, y->tenant);
    if (c == 0) c = x->created_ms < y->created_ms ? -1 : x->created_ms > y->created_ms;
    return c == 0 ? strcmp(x->id, y->id) : c;
}

typedef struct admit_args {
    qd_jobs *j;
    bool published, admitted;
    uint64_t seq;
} admit_args;

static qd_code admit_fn(void *ctx, qd_job_record *rec, bool *ret_write, qd_err *err)
{
    admit_args *a = ctx;
    a->admitted = rec->state == QD_JOB_QUEUING || rec->state == QD_JOB_RUNNING || rec->state == QD_JOB_CANCELING;
    if (rec->state != QD_JOB_PENDING) return QD_OK; /* somebody was faster */
    if (!a->published) {
        qd_code rc = qd_queue_put(a->j, rec, &a->seq, err);
        if (rc != QD_OK) return rc;
        a->published = true;
    }
    rec->state = QD_JOB_QUEUING;
    rec->queued_ms = qd_jobs_unix_ms(a->j);
    rec->queue_seq = a->seq;
    *ret_write = a->admitted = true;
    return QD_OK;
}

static qd_code admit_one(qd_jobs *j, const waiting *w, bool *ret_admitted, qd_err *err)
{
    admit_args a = {.j = j};
    qd_job_record *rec = NULL;
    uint64_t rev = 0;
    qd_code rc = qd_record_change(j, w->id, admit_fn, &a, &rec, &rev, err);
    if (rc == QD_OK) {
        *ret_admitted = a.admitted;
        rc = qd_view_put(&j->view, rec, rev, qd_jobs_mono_ms(j), err); /* or the next call would count it as waiting */
    }
    if (rc == QD_E_NOT_FOUND || rc == QD_E_CONFLICT || rc == QD_E_INPUT || rc == QD_E_VERSION) rc = QD_OK;
    qd_msg_free(rec);
    return rc;
}

/* First of list whose tenant comes after last, or the first of all. */
static size_t start_at(const waiting *list, size_t n, const char *last)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].tenant, last) > 0) return i;
    return 0;
}

static bool room_for_one(qd_jobs *j, qd_tenant *t)
{
    qd_tenant_refresh(j, t);
    size_t busy = t->in[QD_JOB_QUEUING] + t->in[QD_JOB_RUNNING] + t->in[QD_JOB_CANCELING];
    return t->running_max == 0 || busy < t->running_max;
}

/* Whether there is anything to admit at all: with many jobs that must wait, the usual answer is no. */
static bool any_room(qd_jobs *j)
{
    for (size_t i = 0; i < j->view.n_tenants; i++)
        if (j->view.tenants[i].in[QD_JOB_PENDING] != 0 && room_for_one(j, &j->view.tenants[i])) return true;
    return false;
}

static size_t collect(const qd_jobs *j, uint64_t still_ms, waiting *list)
{
    size_t n = 0;
    uint64_t now_ms = qd_jobs_mono_ms(j);
    for (size_t i = 0; i < j->view.n_jobs; i++) {
        const qd_jobs_seen *s = &j->view.jobs[i].seen;
        if (s->state != QD_JOB_PENDING || now_ms - s->since_ms < still_ms) continue;
        memcpy(list[n].id, s->id, sizeof s->id);
        memcpy(list[n].tenant, s->tenant, sizeof s->tenant);
        list[n++].created_ms = s->created_ms;
    }
    return n;
}

qd_code qd_sweep_admit(qd_jobs *j, uint64_t still_ms, qd_jobs_swept *ret, qd_err *err)
{
    size_t n = qd_jobs_view_in(j, NULL, QD_JOB_PENDING), budget = ADMIT_MAX;
    if (n == 0 || !any_room(j)) return QD_OK;
    waiting *list = qd_calloc(n, sizeof *list);
    bool *done = qd_calloc(n, sizeof *done);
    qd_code rc = QD_OK;
    if (list == NULL || done == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu jobs", n);
        goto out;
    }
    n = collect(j, still_ms, list);
    size_t left = n;
    qsort(list, n, sizeof *list, by_tenant_and_age);
    /* Rounds: of each tenant its oldest; a tenant without room is done. */
    for (size_t at = start_at(list, n, j->last_tenant); left > 0 && budget > 0; at = (at + 1) % n) {
        bool admitted = false;
        if (done[at] || (at > 0 && !done[at - 1] && strcmp(list[at - 1].tenant, list[at].tenant) == 0)) continue;
        qd_tenant *t = qd_view_tenant(&j->view, list[at].tenant);
        if (t == NULL || !room_for_one(j, t)) {
            for (size_t i = at; i < n && strcmp(list[i].tenant, list[at].tenant) == 0; i++, left--) done[i] = true;
            continue;
        }
        rc = admit_one(j, &list[at], &admitted, err);
        done[at] = true;
        left--;
        budget--;
        (void)snprintf(j->last_tenant, sizeof j->last_tenant, "%s", list[at].tenant);
        if (rc == QD_E_FULL) {
            ret->queue_full = true;
            j->queue_full_until_ms = qd_jobs_mono_ms(j) + QUEUE_FULL_MS;
            rc = QD_OK;
            break;
        }
        if (rc != QD_OK) break;
        ret->admitted += admitted;
        /* On to the next tenant: the rest of this one waits a round. */
        while (at + 1 < n && strcmp(list[at + 1].tenant, list[at].tenant) == 0) at++;
    }
out:
    qd_free(done);
    qd_free(list);
    return rc;
}
