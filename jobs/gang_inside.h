/* gang_inside.h -- what leader and member share: the line of calls, and the keys gang.<job> and member.<worker>. */
#ifndef QD_JOBS_GANG_INSIDE_H
#define QD_JOBS_GANG_INSIDE_H

#include "jobs/gang.h"
#include "jobs/task_inside.h"

enum {
    QD_GANG_BREAKS_MAX = 5 /* of an epoch; then somebody else may lead */
};

/* gang_line.c */
/* Whether a's call is served before b's. */
bool qd_line_before(const qd_jobs_seen *a, const qd_jobs_seen *b);
/* Whether this worker is what a reservation asks for. */
bool qd_line_fits(const qd_jobs *j, const qd_reservation *r);
/* The next call behind `after` (NULL: the first) that this worker may serve, as far as the view knows. NULL: none. */
const qd_view_job *qd_line_next(const qd_jobs *j, const qd_jobs_seen *after);
/* The first call that this worker fits and does not shun, on a fresh read; before: only those ahead of that job (NULL:
 * any). *ret is owned by the caller, NULL: none. */
QD_MUST_CHECK qd_code qd_line_first(qd_jobs *j, const qd_jobs_seen *before, qd_job_record **ret, qd_err *err);
/* What a leader of j asks for. */
QD_MUST_CHECK qd_code qd_line_reservation(const qd_jobs *j, const qd_job_spec *spec, qd_reservation **ret, qd_err *err);
/* Whether as many workers as a spec needs at least, this one included, are alive and alike. */
QD_MUST_CHECK qd_code qd_line_enough(qd_jobs *j, const qd_job_spec *spec, bool *ret_enough, qd_err *err);
/* Keeps this worker from a job for a while, in its own memory. */
void qd_line_shun(qd_jobs *j, const char *job_id, uint64_t ms);
bool qd_line_shuns(const qd_jobs *j, const char *job_id);

/* gang_store.c */
/* NOT_FOUND: none. ret: qd_msg_free(). */
QD_MUST_CHECK qd_code qd_gang_get(qd_jobs *j, const char *job_id, qd_gang_record **ret, uint64_t *ret_rev, qd_err *err);
QD_MUST_CHECK qd_code qd_gang_put(qd_jobs *j, const qd_gang_record *g, uint64_t expect, uint64_t *ret_rev, qd_err *err);
QD_MUST_CHECK qd_code qd_member_get(qd_jobs *j, const char *worker, qd_gang_member **ret, uint64_t *ret_ms,
                                    qd_err *err);
/* Every member key, with its age by the server's clock. */
typedef qd_code (*qd_member_fn)(void *ctx, const qd_gang_member *m, uint64_t age_ms, qd_err *err);
QD_MUST_CHECK qd_code qd_member_each(qd_jobs *j, qd_member_fn fn, void *ctx, qd_err *err);
/* Writes member.<self>. */
QD_MUST_CHECK qd_code qd_member_put(qd_jobs *j, const qd_gang_member *m, qd_err *err);

#endif
