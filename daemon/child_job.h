/* child_job.h -- the child's two halves: the link to the supervisor (child.c), and the job itself (child_job.c). */
#ifndef QD_DAEMON_CHILD_JOB_H
#define QD_DAEMON_CHILD_JOB_H

#include "base/cancel.h"
#include "base/err.h"
#include "proto/child.pb-c.h"

#include <stdint.h>

typedef struct qd_child_link qd_child_link;

/* From the job's thread. progress: what it points to is copied; steps that differ from the last ones show that the job
 * advances. */
void qd_child_link_progress(qd_child_link *l, const char *phase, const Quantd__Progress *p, uint64_t steps);
/* A line for the job's log; waits while too many are on their way. */
void qd_child_link_log(qd_child_link *l, Quantd__LogLevel level, const char *text);
/* Asks the supervisor and waits for its word. Errors: QD_E_CANCELED. */
QD_MUST_CHECK qd_code qd_child_link_ask(qd_child_link *l, qd_err *err);

enum {
    QD_CHILD_PATH_BYTES = 4096
};

/* Runs the job of a start frame. ret_report's path points to ret_path. */
QD_MUST_CHECK qd_code qd_child_job(const Quantd__ChildStart *start, qd_child_link *link, qd_cancel *cancel,
                                   Quantd__ReportSummary *ret_report, char ret_path[QD_CHILD_PATH_BYTES], qd_err *err);

#endif
