/* child_job.h -- the child's two halves: the link to the supervisor (child.c), and the job itself (child_job.c). */
#ifndef QD_DAEMON_CHILD_JOB_H
#define QD_DAEMON_CHILD_JOB_H

#include "base/cancel.h"
#include "base/err.h"
#include "base/hash.h"
#include "engine/numerics.h"
#include "proto/child.pb-c.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct qd_child_link qd_child_link;

/* From the job's thread. progress: what it points to is copied; steps that differ from the last ones show that the job
 * advances. */
void qd_child_link_progress(qd_child_link *l, const char *phase, const Quantd__Progress *p, uint64_t steps);
/* A line for the job's log; waits while too many are on their way. */
void qd_child_link_log(qd_child_link *l, Quantd__LogLevel level, const char *text);
/* What counts while the job waits for other ranks: it is alive then. */
atomic_ulong *qd_child_link_ticks(qd_child_link *l);
/* Rank 0's invite, for the supervisor to hand on. */
void qd_child_link_invite(qd_child_link *l, const uint8_t *bytes, size_t n);
/* Asks the supervisor and waits for its word. Errors: QD_E_CANCELED. */
QD_MUST_CHECK qd_code qd_child_link_ask(qd_child_link *l, qd_err *err);

typedef struct qd_child_report {
    Quantd__ReportSummary summary; /* its texts and its quality are the members below */
    Quantd__Quality quality;
    uint64_t others_ms; /* device time of the gang's other ranks */
    char path[4096], digest[QD_HASH_HEX_BYTES], numerics_id[QD_NUMERICS_ID_BYTES];
} qd_child_report;

/* Runs the job of a start frame; on a member of a gang, its part: the report's path is empty then. */
QD_MUST_CHECK qd_code qd_child_job(const Quantd__ChildStart *start, qd_child_link *link, qd_cancel *cancel,
                                   qd_child_report *ret, qd_err *err);

#endif
