/* child_flood.h -- for measurements: a job that logs as many lines a second as QD_FAULT=flood:N says, from a thread of
 * its own beside the work. The lines are numbered from 1; a last one, said as soon as the job is told to stop or has
 * ended, says how many there were. */
#ifndef QD_DAEMON_CHILD_FLOOD_H
#define QD_DAEMON_CHILD_FLOOD_H

#include "daemon/child_job.h"

typedef struct qd_child_flood qd_child_flood;

/* cancel: the job's token. *ret stays NULL where nothing is armed. */
QD_MUST_CHECK qd_code qd_child_flood_start(qd_child_link *l, qd_cancel *cancel, qd_child_flood **ret, qd_err *err);
void qd_child_flood_stop(qd_child_flood *f); /* NULL is a no-op */

#endif
