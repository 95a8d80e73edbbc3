/* index_rows.c -- the table of all jobs by id. */
#include "base/hash.h"
#include "base/mem.h"
#include "gateway/index_tenant.h"

#include <string.h>

enum {
    ROWS_MIN = 256,
    PADDING = 8 /* the search reads on beyond the end */
};

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the index of jobs");
}

void qd_rows_done(qd_index_rows *r)
{
    for (size_t i = 0; i < r->n_rows; i++) qd_free(r->rows[i].text);
    for (size_t i = 0; i < r->n_tenants; i++) qd_tenant_done(&r->tenants[i]);
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

qd_code qd_rows_put(qd_index_rows *r, const qd_index_cols *c, uint64_t rev, uint64_t n, qd_err *err)
{
    qd_index_tenant *t = qd_tenant_make(r, c->tenant);
    if (t == NULL || !reserve_row(r) || !qd_tenant_reserve(t)) return no_memory(err);
    uint32_t tenant = (uint32_t)(t - r->tenants), facet = qd_tenant_facet(t, c);
    char *text = facet == UINT32_MAX ? NULL : make_text(c->id, c->name);
    if (text == NULL) return no_memory(err);
    qd_index_row *row = qd_rows_find(r, c->id);
    bool same = row != NULL && row->gone_ms == 0 && row->tenant == tenant && row->created_ms == c->created_ms &&
                row->name_bytes == strlen(c->name) &&
                memcmp(row->text, text, (size_t)row->id_bytes + row->name_bytes + 2) == 0;
    if (same && qd_tenant_change(r, row, c, facet)) {
        qd_free(text);
    } else {
        if (row != NULL) { /* rare: a job's id that came back, or another name: all anew */
            if (row->gone_ms == 0) qd_tenant_leave(r, row);
            r->n_gone -= row->gone_ms != 0;
            for (size_t i = 0; i < r->n_tenants; i++) qd_tenant_drop_dead(&r->tenants[i]);
            drop_row(r, row);
        }
        row = add_row(r, c->id, c->name, text);
        qd_tenant_enter(r, row, c, tenant, facet);
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
        qd_tenant_leave(r, row);
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
    for (size_t i = 0; i < r->n_tenants; i++) qd_tenant_drop_dead(&r->tenants[i]); /* they hold texts of rows */
    for (size_t i = 0; i < r->n_rows; i++) {
        if (r->rows[i].gone_ms == 0 || r->rows[i].gone_ms >= before_ms) continue;
        drop_row(r, &r->rows[i]);
        r->n_gone--;
    }
}
