/* view.h -- all jobs as the feed tells them, and how many of each tenant are in each state. */
#ifndef QD_JOBS_VIEW_H
#define QD_JOBS_VIEW_H

#include "bus/bus.h"
#include "jobs/sweep.h"

enum {
    QD_JOB_STATES = 8, /* NONE .. CANCELED */
    QD_VIEW_LANES_MAX = 64
};

typedef struct qd_tenant {
    char id[QD_ID_BYTES];
    size_t in[QD_JOB_STATES];
    uint32_t running_max, queued_max, recorded_max; /* 0: none */
    uint64_t limits_until_ms;                       /* own clock; read again then */
} qd_tenant;

/* How many jobs of a lane have not ended: without one no message of it is of use. */
typedef struct qd_view_lane {
    qd_lane lane;
    size_t live;
} qd_view_lane;

typedef struct qd_view_job {
    qd_jobs_seen seen;
    uint64_t generation;
    uint64_t lease_rev, lease_since_ms; /* what the sweep saw of a CANCELING job's lease, and since when */
    uint64_t checked_ms;                /* when its message was last published again */
    size_t tenant, lane;                /* in tenants; in lanes, or QD_VIEW_LANES_MAX */
    bool calls;                         /* its leader waits for others: it is in view.calls */
    uint64_t unfit_rev;                 /* this revision's call is not for this worker */
} qd_view_job;

typedef struct qd_view_call {
    char id[QD_ID_BYTES];
} qd_view_call;

typedef struct qd_view {
    qd_bus_feed *feed;
    bool synced;
    uint64_t generation, newest_ms; /* newest_ms: of the bucket's clock */
    qd_view_job *jobs;
    size_t n_jobs, cap_jobs;
    uint32_t *index; /* job + 1 by hash of id; cap_index a power of two, 0 = free */
    size_t cap_index;
    qd_tenant *tenants;
    size_t n_tenants;
    qd_view_lane lanes[QD_VIEW_LANES_MAX]; /* records say what they like: those above the limit are not told apart */
    size_t n_lanes;
    bool more_lanes;
    qd_view_call *calls; /* jobs that call for a gang, in no order */
    size_t n_calls;
} qd_view;

qd_view_job *qd_view_find(const qd_view *v, const char *id); /* NULL: none */
/* Takes in what is known of a job by rev and newer; since_ms: now, by the own clock. */
QD_MUST_CHECK qd_code qd_view_put(qd_view *v, const qd_job_record *rec, uint64_t rev, uint64_t now_ms, qd_err *err);
void qd_view_remove(qd_view *v, const char *id);
/* A tenant's place, made when it is not there; NULL: out of memory. */
qd_tenant *qd_view_tenant(qd_view *v, const char *id);
/* Whether a lane may hold a message that is of use, as far as the view knows. */
bool qd_view_may_hold(const qd_view *v, const qd_lane *lane);
void qd_view_done(qd_view *v, qd_bus *bus);

/* tenant.c: the limits of a tenant are read again when they are old; defaults stay where the bus is away. */
void qd_tenant_refresh(qd_jobs *j, qd_tenant *t);

#endif
