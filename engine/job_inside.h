/* job_inside.h -- private to job*.c: one run of a job on one rank. */
#ifndef QD_ENGINE_JOB_INSIDE_H
#define QD_ENGINE_JOB_INSIDE_H

#include "base/clock.h"
#include "engine/delivery.h"
#include "engine/job.h"
#include "engine/staging.h"
#include "engine/tokens.h"

typedef struct qd_job {
    const qd_job_opts *opts;
    const qd_job_events *opts_events; /* as given */
    const qd_job_events *events;
    qd_job_events watched; /* in a gang: what events are, and a look at the gang */
    qd_job_events silent;  /* that look alone */
    bool broke;            /* the token is set because the gang broke */
    qd_cancel *cancel;
    qd_gang *gang;
    qd_delivery *delivery;
    uint64_t start_ns;
    qd_ckpt ckpt;
    qd_job_tokens tokens; /* of a calibrated job */
    qd_plan plan;
    qd_run run;
    qd_staging staging;
    qd_journal *journal;
    bool *seen;
    qd_hash128 *seen_hash;
    qd_job_result res;
} qd_job;

/* job_gang.c; nothing to do for one rank. Before anything: progress looks at the gang, notes are rank 0's alone. */
void qd_job_watch_gang(qd_job *j);
/* The same plan on every rank, and what takes finished units to rank 0. */
QD_MUST_CHECK qd_code qd_job_join(qd_job *j, qd_err *err);
/* What rank 0 found done already. */
QD_MUST_CHECK qd_code qd_job_share_state(qd_job *j, qd_err *err);
/* The last that ranks do together, with what each has used: members are done then. */
QD_MUST_CHECK qd_code qd_job_release(qd_job *j, qd_err *err);
/* The code that the job ends with: who stopped because the gang broke says that. Tells the others. */
qd_code qd_job_end_gang(qd_job *j, qd_code rc, qd_err *err);

#endif
