/* index_tenant.h -- the inside of index_rows.h: the array of a tenant's jobs, and its facets. */
#ifndef QD_GATEWAY_INDEX_TENANT_H
#define QD_GATEWAY_INDEX_TENANT_H

#include "gateway/index_rows.h"

/* Made when there is none; NULL: out of memory. */
qd_index_tenant *qd_tenant_make(qd_index_rows *r, const char *id);
void qd_tenant_done(qd_index_tenant *t);
/* The facet's number; UINT32_MAX: out of memory. */
uint32_t qd_tenant_facet(qd_index_tenant *t, const qd_index_cols *c);
bool qd_tenant_reserve(qd_index_tenant *t); /* room for one job more; false: out of memory */
/* Puts a row in; there is room. */
void qd_tenant_enter(qd_index_rows *r, qd_index_row *row, const qd_index_cols *c, uint32_t tenant, uint32_t facet);
/* Takes a living row out of its tenant's array; its place there stays, dead, until so many are. */
void qd_tenant_leave(qd_index_rows *r, qd_index_row *row);
/* The same job at the same place with another state; false: it has no place. */
bool qd_tenant_change(qd_index_rows *r, qd_index_row *row, const qd_index_cols *c, uint32_t facet);
void qd_tenant_drop_dead(qd_index_tenant *t); /* they hold texts of rows */

#endif
