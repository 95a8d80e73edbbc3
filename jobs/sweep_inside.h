/* sweep_inside.h -- the parts of a sweep. */
#ifndef QD_JOBS_SWEEP_INSIDE_H
#define QD_JOBS_SWEEP_INSIDE_H

#include "jobs/sweep.h"

/* admit.c: jobs whose record this program has seen unchanged for still_ms, own clock */
QD_MUST_CHECK qd_code qd_sweep_admit(qd_jobs *j, uint64_t still_ms, qd_jobs_swept *ret, qd_err *err);

#endif
