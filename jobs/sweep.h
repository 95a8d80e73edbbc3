/* sweep.h -- what keeps jobs going when nobody asks: a view of all records, admission, repair, cleaning.
 *
 * Every gateway and quantd may run it, all at once: what it does is decided by a fresh read and a compare-and-set, or
 * is harmless when done twice. */
#ifndef QD_JOBS_SWEEP_H
#define QD_JOBS_SWEEP_H

#include "jobs/jobs.h"

/* What is known of each job without asking; of the feed of $KV.jobs.job.>, so as old as that is. */
typedef struct qd_jobs_seen {
    char id[QD_ID_BYTES], tenant[QD_ID_BYTES];
    qd_job_state state;
    uint64_t rev, epoch, created_ms, ended_ms;
    qd_lane lane;
    uint64_t since_ms; /* own clock: this revision has been the last since then */
} qd_jobs_seen;

/* Takes in up to n_max changes without waiting (0: all there are). *ret_synced (may be NULL): everything that was there
 * at the start is in. Opens the feed at the first call. fd: readable when there may be news (-1: none). */
QD_MUST_CHECK qd_code qd_jobs_view_pump(qd_jobs *j, size_t n_max, bool *ret_synced, qd_err *err);
int qd_jobs_view_fd(qd_jobs *j);
size_t qd_jobs_view_count(const qd_jobs *j);
const qd_jobs_seen *qd_jobs_view_at(const qd_jobs *j, size_t i); /* in no order; valid until the next pump */
const qd_jobs_seen *qd_jobs_view_find(const qd_jobs *j, const char *job_id); /* NULL: none */
/* How many of a tenant (NULL: of all) are in a state. */
size_t qd_jobs_view_in(const qd_jobs *j, const char *tenant, qd_job_state state);

typedef struct qd_jobs_swept {
    size_t admitted, republished, canceled, deleted, names, leases, paths;
    bool queue_full; /* the work queue refused more; jobs stay PENDING */
} qd_jobs_swept;

/* Pumps the view; admits what limits allow, round-robin over tenants; publishes again the messages of jobs that have
 * stood still for two leases; carries out the cancels of dead workers; deletes what is past retention. Call it about
 * once a second. *ret is added to. AWAY: what was done is done; call again. */
QD_MUST_CHECK qd_code qd_jobs_sweep(qd_jobs *j, qd_jobs_swept *ret, qd_err *err);
/* Cleans what crashes left: names without a record, leases of ended jobs, staging and outputs of ended jobs to trash,
 * trash itself, markers of deleted keys. Call it about once a minute. */
QD_MUST_CHECK qd_code qd_jobs_sweep_leaks(qd_jobs *j, qd_jobs_swept *ret, qd_err *err);

#endif
