/* sweep_inside.h -- the parts of a sweep. */
#ifndef QD_JOBS_SWEEP_INSIDE_H
#define QD_JOBS_SWEEP_INSIDE_H

#include "jobs/sweep.h"

/* admit.c */
QD_MUST_CHECK qd_code qd_sweep_admit(qd_jobs *j, qd_jobs_swept *ret, qd_err *err);

#endif
