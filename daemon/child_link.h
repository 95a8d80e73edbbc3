/* child_link.h -- the child's end of the socket to its supervisor: a thread that alone reads and writes it, says that
 * the job lives, and ends the process when nobody is there any more. What the job says goes through child_job.h. */
#ifndef QD_DAEMON_CHILD_LINK_H
#define QD_DAEMON_CHILD_LINK_H

#include "daemon/child_job.h"
#include "daemon/frame.h"

/* frames: from which the start was read; moved into the link. cancel outlives it: a stop is put into it. */
QD_MUST_CHECK qd_code qd_child_link_open(qd_frames *frames, qd_cancel *cancel, qd_child_link **ret, qd_err *err);
/* The last word: how the job ended. */
void qd_child_link_end(qd_child_link *l, qd_code code, const qd_err *err, Quantd__ReportSummary *report,
                       uint64_t device_ms);
/* Waits until all is written, after the last word; frees. NULL is a no-op. */
void qd_child_link_close(qd_child_link *l);

#endif
