/* child_gang.h -- a job's process as one rank of a gang: how it meets the others. */
#ifndef QD_DAEMON_CHILD_GANG_H
#define QD_DAEMON_CHILD_GANG_H

#include "daemon/child_job.h"
#include "engine/gang.h"

/* Rank 0 makes the invite and sends it to its supervisor; returns when all ranks have met. start NULL: one rank,
 * ret->comm stays NULL. cancel and link outlive *ret (zeroed before; qd_child_gang_close() after, also on failure).
 * gpu/comm_of.h says how ranks of the device meet. Errors: those of gpu/comm.h; QD_E_DEVICE also for a library that is
 * not there. */
QD_MUST_CHECK qd_code qd_child_gang_open(const Quantd__ChildGang *start, const char *device, qd_child_link *link,
                                         qd_cancel *cancel, qd_gang *ret, qd_err *err);
void qd_child_gang_close(qd_gang *g);

#endif
