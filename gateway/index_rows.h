/* index_rows.h -- the inside of index.h that lies in memory: a table of all jobs by id (index_rows.c), and of each
 * tenant the array of its jobs in their order of creation (index_tenant.c).
 *
 * What jobs have in common (API, state, model, template, scheme, method) is a facet of their tenant: a number in the
 * array, and a count beside it. A list decides for each facet once whether it fits, so that the pass over the array
 * compares numbers, and a total without restrictions in time or names is a sum over facets.
 * Not synchronized: index.c holds the lock. */
#ifndef QD_GATEWAY_INDEX_ROWS_H
#define QD_GATEWAY_INDEX_ROWS_H

#include "gateway/backend.h"

/* What the rows know of a job; texts are lent. */
typedef struct qd_index_cols {
    const char *id, *tenant, *name, *model, *tmpl, *spec, *method;
    Quantd__ApiOrigin origin;
    qd_job_state state;
    uint64_t created_ms, started_ms, ended_ms;
} qd_index_cols;

typedef struct qd_index_row {
    uint64_t rev;
    uint64_t n; /* in the file; never used twice */
    uint64_t created_ms;
    uint64_t gone_ms; /* monotonic, not 0: deleted then; kept for a while so that an older revision stays out */
    char *text;       /* owned: "<id, lower case>\0<name, lower case>\0<id>\0" and 8 bytes more */
    uint32_t generation, tenant, facet;
    uint8_t id_bytes, name_bytes;
    bool own; /* deleted by this gateway: nothing but the feed's marker brings it back */
} qd_index_row;

typedef struct qd_index_facet {
    uint64_t hash, n; /* n: jobs */
    char *model, *tmpl, *spec, *method;
    Quantd__ApiOrigin origin;
    qd_job_state state;
} qd_index_facet;

typedef struct qd_index_entry {
    uint64_t created_ms, started_ms, ended_ms;
    const char *text; /* the row's */
    uint32_t row, facet;
    uint8_t id_bytes, name_bytes;
    bool dead;
} qd_index_entry;

typedef struct qd_index_tenant {
    char id[QD_ID_BYTES];
    qd_index_entry *jobs; /* [0, n_sorted) by created_ms, id; what follows has just come */
    size_t n_jobs, n_sorted, cap_jobs, n_dead;
    qd_index_facet *facets;
    size_t n_facets;
    uint64_t in[8]; /* by state */
} qd_index_tenant;

typedef struct qd_index_rows {
    qd_index_row *rows;
    size_t n_rows, cap_rows, n_free, n_live, n_gone;
    uint32_t first_free; /* row + 1; of the free ones tenant is the next */
    uint32_t *slots;     /* row + 1 by hash of id; a power of two */
    size_t cap_slots;
    qd_index_tenant *tenants;
    size_t n_tenants;
    uint32_t generation;
} qd_index_rows;

void qd_rows_done(qd_index_rows *r);
qd_index_row *qd_rows_find(const qd_index_rows *r, const char *id); /* also one that is gone; NULL: none */
static inline const char *qd_row_id(const qd_index_row *row)
{
    return row->text + row->id_bytes + row->name_bytes + 2;
}
/* Adds a job or changes it; the caller has compared revisions. Nothing is changed when memory is out. */
QD_MUST_CHECK qd_code qd_rows_put(qd_index_rows *r, const qd_index_cols *c, uint64_t rev, uint64_t n, qd_err *err);
/* Takes it out of its tenant's jobs; the row stays, gone. Of a job that is not known a row is made. */
QD_MUST_CHECK qd_code qd_rows_remove(qd_index_rows *r, const char *id, uint64_t rev, bool own, uint64_t now_ms,
                                     qd_err *err);
/* Forgets rows that were gone before that time. */
void qd_rows_purge(qd_index_rows *r, uint64_t before_ms);
qd_index_tenant *qd_rows_tenant(qd_index_rows *r, const char *id); /* NULL: none */
/* Sorts what has come; a list needs that before. */
void qd_rows_settle(qd_index_rows *r, qd_index_tenant *t);

/* index_query.c: rows of one page, of a settled tenant; the rest of *ret. Rows: [QD_PAGE_MAX]. Errors: QD_E_NOT_FOUND
 * (from_id), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_rows_list(const qd_index_rows *r, const qd_index_tenant *t, const qd_job_query *q,
                                   uint32_t *ret_rows, size_t *ret_n, qd_job_page *ret, qd_err *err);
/* Place of a job among a settled tenant's; n_jobs: not there. */
size_t qd_rows_place(const qd_index_rows *r, const qd_index_tenant *t, const qd_index_row *row);

#endif
