#include "gateway/index_tenant.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INSERTS_MAX = 16 /* more new entries than that are sorted with the rest */
};

static void facet_done(qd_index_facet *f)
{
    qd_free(f->model);
    qd_free(f->tmpl);
    qd_free(f->spec);
    qd_free(f->method);
}

void qd_tenant_done(qd_index_tenant *t)
{
    for (size_t i = 0; i < t->n_facets; i++) facet_done(&t->facets[i]);
    qd_free(t->facets);
    qd_free(t->jobs);
}

qd_index_tenant *qd_rows_tenant(qd_index_rows *r, const char *id)
{
    for (size_t i = 0; i < r->n_tenants; i++)
        if (strcmp(r->tenants[i].id, id) == 0) return &r->tenants[i];
    return NULL;
}

qd_index_tenant *qd_tenant_make(qd_index_rows *r, const char *id)
{
    qd_index_tenant *t = qd_rows_tenant(r, id);
    if (t != NULL) return t;
    qd_index_tenant *list = qd_realloc(r->tenants, (r->n_tenants + 1) * sizeof *list);
    if (list == NULL) return NULL;
    r->tenants = list;
    t = &list[r->n_tenants++];
    *t = (qd_index_tenant){0};
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    return t;
}

static uint64_t hash_facet(const qd_index_cols *c)
{
    uint64_t h = (uint64_t)c->origin << 8 | (uint64_t)c->state;
    h = qd_hash64(c->model, strlen(c->model), h);
    h = qd_hash64(c->tmpl, strlen(c->tmpl), h);
    h = qd_hash64(c->spec, strlen(c->spec), h);
    return qd_hash64(c->method, strlen(c->method), h);
}

uint32_t qd_tenant_facet(qd_index_tenant *t, const qd_index_cols *c)
{
    uint64_t h = hash_facet(c);
    for (size_t i = 0; i < t->n_facets; i++) {
        const qd_index_facet *f = &t->facets[i];
        if (f->hash == h && f->origin == c->origin && f->state == c->state && strcmp(f->model, c->model) == 0 &&
            strcmp(f->tmpl, c->tmpl) == 0 && strcmp(f->spec, c->spec) == 0 && strcmp(f->method, c->method) == 0)
            return (uint32_t)i;
    }
    if (t->n_facets % 16 == 0) {
        qd_index_facet *list = qd_realloc(t->facets, (t->n_facets + 16) * sizeof *list);
        if (list == NULL) return UINT32_MAX;
        t->facets = list;
    }
    qd_index_facet f = {.hash = h,
                        .model = qd_strdup(c->model),
                        .tmpl = qd_strdup(c->tmpl),
                        .spec = qd_strdup(c->spec),
                        .method = qd_strdup(c->method),
                        .origin = c->origin,
                        .state = c->state};
    if (f.model == NULL || f.tmpl == NULL || f.spec == NULL || f.method == NULL) {
        facet_done(&f);
        return UINT32_MAX;
    }
    t->facets[t->n_facets] = f;
    return (uint32_t)t->n_facets++;
}

bool qd_tenant_reserve(qd_index_tenant *t)
{
    if (t->n_jobs < t->cap_jobs) return true;
    size_t cap = t->cap_jobs == 0 ? 16 : t->cap_jobs + t->cap_jobs / 2;
    qd_index_entry *jobs = qd_realloc(t->jobs, cap * sizeof *jobs);
    if (jobs == NULL) return false;
    t->jobs = jobs;
    t->cap_jobs = cap;
    return true;
}

static const char *entry_id(const qd_index_entry *e)
{
    return e->text + e->id_bytes + e->name_bytes + 2;
}

static int compare(const void *a, const void *b)
{
    const qd_index_entry *x = a, *y = b;
    if (x->created_ms != y->created_ms) return x->created_ms < y->created_ms ? -1 : 1;
    return strcmp(entry_id(x), entry_id(y));
}

/* The first place among the sorted ones that is not before e. */
static size_t place_of(const qd_index_tenant *t, const qd_index_entry *e)
{
    size_t lo = 0, hi = t->n_sorted;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare(&t->jobs[mid], e) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void qd_rows_settle(qd_index_rows *r, qd_index_tenant *t)
{
    (void)r;
    if (t->n_jobs - t->n_sorted > INSERTS_MAX) {
        qsort(t->jobs, t->n_jobs, sizeof *t->jobs, compare);
        t->n_sorted = t->n_jobs;
    }
    while (t->n_sorted < t->n_jobs) {
        qd_index_entry e = t->jobs[t->n_sorted];
        size_t at = place_of(t, &e);
        memmove(&t->jobs[at + 1], &t->jobs[at], (t->n_sorted - at) * sizeof *t->jobs);
        t->jobs[at] = e;
        t->n_sorted++;
    }
}

size_t qd_rows_place(const qd_index_rows *r, const qd_index_tenant *t, const qd_index_row *row)
{
    const qd_index_entry e = {
        .created_ms = row->created_ms, .text = row->text, .id_bytes = row->id_bytes, .name_bytes = row->name_bytes};
    uint32_t number = (uint32_t)(row - r->rows);
    for (size_t i = place_of(t, &e); i < t->n_sorted && compare(&t->jobs[i], &e) == 0; i++)
        if (t->jobs[i].row == number && !t->jobs[i].dead) return i;
    return t->n_jobs;
}

void qd_tenant_drop_dead(qd_index_tenant *t)
{
    size_t kept = 0, sorted = 0;
    for (size_t i = 0; i < t->n_jobs; i++) {
        if (t->jobs[i].dead) continue;
        sorted += i < t->n_sorted;
        t->jobs[kept++] = t->jobs[i];
    }
    t->n_jobs = kept;
    t->n_sorted = sorted;
    t->n_dead = 0;
}

static size_t state_of(qd_job_state s)
{
    return (unsigned)s < 8 ? (size_t)s : 0;
}

void qd_tenant_leave(qd_index_rows *r, qd_index_row *row)
{
    qd_index_tenant *t = &r->tenants[row->tenant];
    qd_rows_settle(r, t);
    size_t at = qd_rows_place(r, t, row);
    if (at == t->n_jobs) return;
    t->facets[row->facet].n--;
    t->in[state_of(t->facets[row->facet].state)]--;
    t->jobs[at].dead = true;
    r->n_live--;
    if (++t->n_dead > t->n_jobs / 4) qd_tenant_drop_dead(t);
}

void qd_tenant_enter(qd_index_rows *r, qd_index_row *row, const qd_index_cols *c, uint32_t tenant, uint32_t facet)
{
    qd_index_tenant *t = &r->tenants[tenant];
    qd_index_entry *e = &t->jobs[t->n_jobs++];
    *e = (qd_index_entry){.created_ms = c->created_ms,
                          .started_ms = c->started_ms,
                          .ended_ms = c->ended_ms,
                          .text = row->text,
                          .row = (uint32_t)(row - r->rows),
                          .facet = facet,
                          .id_bytes = row->id_bytes,
                          .name_bytes = row->name_bytes};
    if (t->n_sorted == t->n_jobs - 1 && (t->n_jobs == 1 || compare(e - 1, e) <= 0)) t->n_sorted++;
    t->facets[facet].n++;
    t->in[state_of(c->state)]++;
    row->tenant = tenant;
    row->facet = facet;
    row->created_ms = c->created_ms;
    r->n_live++;
}

bool qd_tenant_change(qd_index_rows *r, qd_index_row *row, const qd_index_cols *c, uint32_t facet)
{
    qd_index_tenant *t = &r->tenants[row->tenant];
    qd_rows_settle(r, t);
    size_t at = qd_rows_place(r, t, row);
    if (at == t->n_jobs) return false;
    t->facets[row->facet].n--;
    t->in[state_of(t->facets[row->facet].state)]--;
    t->facets[facet].n++;
    t->in[state_of(c->state)]++;
    t->jobs[at].facet = row->facet = facet;
    t->jobs[at].started_ms = c->started_ms;
    t->jobs[at].ended_ms = c->ended_ms;
    return true;
}
