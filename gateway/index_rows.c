#include "gateway/index_rows.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INSERTS_MAX = 16, /* more new entries than that are sorted with the rest */
    ROWS_MIN = 256,
    PADDING = 8 /* the search reads on beyond the end */
};

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the index of jobs");
}

static void facet_done(qd_index_facet *f)
{
    qd_free(f->model);
    qd_free(f->tmpl);
    qd_free(f->spec);
    qd_free(f->method);
}

void qd_rows_done(qd_index_rows *r)
{
    for (size_t i = 0; i < r->n_rows; i++) qd_free(r->rows[i].text);
    for (size_t i = 0; i < r->n_tenants; i++) {
        for (size_t k = 0; k < r->tenants[i].n_facets; k++) facet_done(&r->tenants[i].facets[k]);
        qd_free(r->tenants[i].facets);
        qd_free(r->tenants[i].jobs);
    }
    qd_free(r->rows);
    qd_free(r->slots);
    qd_free(r->tenants);
    uint32_t generation = r->generation;
    memset(r, 0, sizeof *r);
    r->generation = generation;
}

/* The slot of id, or the free one where it would be. */
static size_t slot_of(const qd_index_rows *r, const char *id)
{
    size_t mask = r->cap_slots - 1, i = (size_t)qd_hash64(id, strlen(id), 0) & mask;
    while (r->slots[i] != 0 && strcmp(qd_row_id(&r->rows[r->slots[i] - 1]), id) != 0) i = (i + 1) & mask;
    return i;
}

qd_index_row *qd_rows_find(const qd_index_rows *r, const char *id)
{
    if (r->cap_slots == 0) return NULL;
    uint32_t at = r->slots[slot_of(r, id)];
    return at == 0 ? NULL : &r->rows[at - 1];
}

static bool reserve_row(qd_index_rows *r)
{
    if (r->first_free != 0 || r->n_rows < r->cap_rows) return true;
    size_t cap = r->cap_rows == 0 ? ROWS_MIN : 2 * r->cap_rows;
    if (cap > UINT32_MAX / 8) return false;
    qd_index_row *rows = qd_realloc(r->rows, cap * sizeof *rows);
    if (rows == NULL) return false;
    r->rows = rows;
    uint32_t *slots = qd_calloc(2 * cap, sizeof *slots);
    if (slots == NULL) return false;
    qd_free(r->slots);
    r->slots = slots;
    r->cap_slots = 2 * cap;
    r->cap_rows = cap;
    for (size_t i = 0; i < r->n_rows; i++)
        if (rows[i].text != NULL) slots[slot_of(r, qd_row_id(&rows[i]))] = (uint32_t)i + 1;
    return true;
}

static void lower(char *ret, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) ret[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];
    ret[n] = '\0';
}

static char *make_text(const char *id, const char *name)
{
    size_t n_id = strlen(id), n_name = strlen(name);
    if (n_id > QD_ID_MAX || n_name > QD_NAME_MAX) return NULL;
    char *t = qd_malloc(2 * n_id + n_name + 3 + PADDING);
    if (t == NULL) return NULL;
    lower(t, id, n_id);
    lower(t + n_id + 1, name, n_name);
    memcpy(t + n_id + n_name + 2, id, n_id + 1);
    memset(t + 2 * n_id + n_name + 3, 0, PADDING);
    return t;
}

/* A new row under a text, which is taken. There is room. */
static qd_index_row *add_row(qd_index_rows *r, const char *id, const char *name, char *text)
{
    size_t slot = slot_of(r, id);
    uint32_t at = r->first_free;
    if (at != 0) {
        r->first_free = r->rows[at - 1].tenant;
    } else {
        at = (uint32_t)++r->n_rows;
    }
    qd_index_row *row = &r->rows[at - 1];
    *row = (qd_index_row){.text = text, .id_bytes = (uint8_t)strlen(id), .name_bytes = (uint8_t)strlen(name)};
    r->slots[slot] = at;
    return row;
}

static void drop_row(qd_index_rows *r, qd_index_row *row)
{
    size_t hole = slot_of(r, qd_row_id(row)), mask = r->cap_slots - 1;
    r->slots[hole] = 0;
    for (size_t i = (hole + 1) & mask; r->slots[i] != 0; i = (i + 1) & mask) { /* close the gap */
        uint32_t moved = r->slots[i];
        r->slots[i] = 0;
        r->slots[slot_of(r, qd_row_id(&r->rows[moved - 1]))] = moved;
    }
    qd_free(row->text);
    *row = (qd_index_row){.tenant = r->first_free};
    r->first_free = (uint32_t)(row - r->rows) + 1;
}

qd_index_tenant *qd_rows_tenant(qd_index_rows *r, const char *id)
{
    for (size_t i = 0; i < r->n_tenants; i++)
        if (strcmp(r->tenants[i].id, id) == 0) return &r->tenants[i];
    return NULL;
}

static qd_index_tenant *make_tenant(qd_index_rows *r, const char *id)
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

/* Its number; UINT32_MAX: out of memory. */
static uint32_t facet_of(qd_index_tenant *t, const qd_index_cols *c)
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

static bool reserve_entry(qd_index_tenant *t)
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

static void drop_dead(qd_index_tenant *t)
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

/* Takes a living row out of its tenant's array; its place there stays, dead, until so many are. */
static void leave(qd_index_rows *r, qd_index_row *row)
{
    qd_index_tenant *t = &r->tenants[row->tenant];
    qd_rows_settle(r, t);
    size_t at = qd_rows_place(r, t, row);
    if (at == t->n_jobs) return;
    t->facets[row->facet].n--;
    t->in[state_of(t->facets[row->facet].state)]--;
    t->jobs[at].dead = true;
    r->n_live--;
    if (++t->n_dead > t->n_jobs / 4) drop_dead(t);
}

static void enter(qd_index_rows *r, qd_index_row *row, const qd_index_cols *c, uint32_t tenant, uint32_t facet)
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

/* The same job at the same place with another state. */
static bool change(qd_index_rows *r, qd_index_row *row, const qd_index_cols *c, uint32_t facet)
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

qd_code qd_rows_put(qd_index_rows *r, const qd_index_cols *c, uint64_t rev, uint64_t n, qd_err *err)
{
    qd_index_tenant *t = make_tenant(r, c->tenant);
    if (t == NULL || !reserve_row(r) || !reserve_entry(t)) return no_memory(err);
    uint32_t tenant = (uint32_t)(t - r->tenants), facet = facet_of(t, c);
    char *text = facet == UINT32_MAX ? NULL : make_text(c->id, c->name);
    if (text == NULL) return no_memory(err);
    qd_index_row *row = qd_rows_find(r, c->id);
    bool same = row != NULL && row->gone_ms == 0 && row->tenant == tenant && row->created_ms == c->created_ms &&
                row->name_bytes == strlen(c->name) &&
                memcmp(row->text, text, (size_t)row->id_bytes + row->name_bytes + 2) == 0;
    if (same && change(r, row, c, facet)) {
        qd_free(text);
    } else {
        if (row != NULL) { /* rare: a job's id that came back, or another name: all anew */
            if (row->gone_ms == 0) leave(r, row);
            r->n_gone -= row->gone_ms != 0;
            for (size_t i = 0; i < r->n_tenants; i++) drop_dead(&r->tenants[i]);
            drop_row(r, row);
        }
        row = add_row(r, c->id, c->name, text);
        enter(r, row, c, tenant, facet);
    }
    row->rev = rev;
    row->n = n;
    row->generation = r->generation;
    return QD_OK;
}

qd_code qd_rows_remove(qd_index_rows *r, const char *id, uint64_t rev, bool own, uint64_t now_ms, qd_err *err)
{
    qd_index_row *row = qd_rows_find(r, id);
    if (row == NULL) {
        char *text = reserve_row(r) ? make_text(id, "") : NULL;
        if (text == NULL) return no_memory(err);
        row = add_row(r, id, "", text);
        r->n_gone++;
    } else if (row->gone_ms == 0) {
        leave(r, row);
        r->n_gone++;
    }
    row->gone_ms = now_ms == 0 ? 1 : now_ms;
    row->rev = rev;
    row->own = own;
    row->generation = r->generation;
    return QD_OK;
}

void qd_rows_purge(qd_index_rows *r, uint64_t before_ms)
{
    bool any = false;
    for (size_t i = 0; i < r->n_rows && !any && r->n_gone != 0; i++)
        any = r->rows[i].gone_ms != 0 && r->rows[i].gone_ms < before_ms;
    if (!any) return;
    for (size_t i = 0; i < r->n_tenants; i++) drop_dead(&r->tenants[i]); /* they hold texts of rows */
    for (size_t i = 0; i < r->n_rows; i++) {
        if (r->rows[i].gone_ms == 0 || r->rows[i].gone_ms >= before_ms) continue;
        drop_row(r, &r->rows[i]);
        r->n_gone--;
    }
}
