/* index.h -- the jobs as the gateway answers from: which there are, by what the APIs filter and page, and their
 * records. Fed by the feed of bucket "jobs" and by this gateway's own writes; it can be thrown away at any time.
 *
 * Records and the columns that lists need are in SQLite (WAL), so that a gateway that starts again answers at once.
 * Lists are answered from memory: the jobs of a tenant and API in their order of creation, 56 bytes each and their
 * names. FTS5 and SQLite's indexes do not give totals for parts of names and for pairs of restrictions in time at
 * a million jobs; a pass over such an array does (docs/index.md has the figures).
 *
 * Revisions  an older one never replaces a newer one. A job that this gateway deleted stays deleted until the feed says
 *            so itself, whatever the feed tells of the time before.
 * Threads    any number; writes wait for lists that are under way. */
#ifndef QD_GATEWAY_INDEX_H
#define QD_GATEWAY_INDEX_H

#include "gateway/backend.h"
#include "gateway/backend_bus.h"

enum {
    QD_INDEX_SCHEMA = 1 /* of the file; another one's is thrown away */
};

typedef struct qd_index qd_index;

/* Opens the file, or makes it anew where it is absent, broken or of another schema (*ret_anew). Errors: QD_E_IO,
 * QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_index_open(const char *path, qd_index **ret, bool *ret_anew, qd_err *err);
void qd_index_close(qd_index *x);
/* Forgets everything, the file's content included: after QD_E_IO from a write. */
QD_MUST_CHECK qd_code qd_index_reset(qd_index *x, qd_err *err);

/* Feeding. What is put is seen by lists at once, its record after qd_index_commit(). */
/* Marks it as told; false: rev is newer than what is known, the record is wanted. */
bool qd_index_knows(qd_index *x, const char *id, uint64_t rev);
QD_MUST_CHECK qd_code qd_index_put(qd_index *x, const qd_job_record *rec, uint64_t rev, qd_err *err);
/* By the feed: rev is the marker's. */
QD_MUST_CHECK qd_code qd_index_deleted(qd_index *x, const char *id, uint64_t rev, qd_err *err);
/* By this gateway, which knows no revision. */
QD_MUST_CHECK qd_code qd_index_delete_own(qd_index *x, const char *id, qd_err *err);
QD_MUST_CHECK qd_code qd_index_commit(qd_index *x, qd_err *err);
/* Everything is told anew from now on (feed opened, RESET) ... */
void qd_index_begin(qd_index *x);
/* ... and has been: what was not told is gone. */
QD_MUST_CHECK qd_code qd_index_synced(qd_index *x, qd_err *err);

/* Asking. */
/* origin API_NONE: any; tenant NULL: any. QD_E_NOT_FOUND. */
QD_MUST_CHECK qd_code qd_index_get(qd_index *x, const char *tenant, Quantd__ApiOrigin origin, const char *id,
                                   qd_job_record **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_index_list(qd_index *x, const char *tenant, const qd_job_query *q, qd_job_page *ret,
                                    qd_err *err);
bool qd_index_has(qd_index *x, const char *id); /* of any tenant */
/* Jobs by state; tenant NULL: of all. */
void qd_index_counts(qd_index *x, const char *tenant, uint64_t ret[QD_JOB_STATES]);

#endif
