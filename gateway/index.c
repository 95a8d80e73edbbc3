/* index.c -- the rows in memory and the records in the file, under one lock. */
#include "gateway/index.h"

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/backend_inside.h"
#include "gateway/index_store.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    GONE_KEPT_MS = 600000, /* longer than any write that is under way; as long as the bus keeps markers */
    PURGE_MS = 60000
};

struct qd_index {
    pthread_rwlock_t lock; /* of rows */
    qd_index_rows rows;
    pthread_mutex_t writing; /* of the store's writer and what follows; taken before lock */
    qd_store *store;
    uint64_t next_n, purged_ms;
    qd_buf buf;
};

static const char *field(const qd_job_spec *s, const char *name)
{
    const char *v = qd_name_value_find(s->api_fields, s->n_api_fields, name);
    return v == NULL ? "" : v;
}

static qd_index_cols cols_of(const qd_job_record *rec)
{
    const qd_job_spec *s = rec->spec;
    return (qd_index_cols){.id = rec->id,
                           .tenant = s->tenant,
                           .name = s->name,
                           .model = s->model_id,
                           .tmpl = s->template_id,
                           .spec = field(s, QD_FIELD_QUANT_SPEC),
                           .method = field(s, QD_FIELD_QUANT_METHOD),
                           .origin = s->origin,
                           .state = rec->state,
                           .created_ms = rec->created_ms,
                           .started_ms = rec->started_ms,
                           .ended_ms = rec->ended_ms};
}

static qd_code load_one(void *ctx, uint64_t n, uint64_t rev, const qd_index_cols *c, qd_err *err)
{
    qd_index *x = ctx;
    if (n >= x->next_n) x->next_n = n + 1;
    return qd_rows_put(&x->rows, c, rev, n, err);
}

static qd_code load(qd_index *x, qd_err *err)
{
    qd_code rc = qd_store_load(x->store, load_one, x, err);
    for (size_t i = 0; i < x->rows.n_tenants; i++) qd_rows_settle(&x->rows, &x->rows.tenants[i]);
    return rc;
}

qd_code qd_index_open(const char *path, qd_index **ret, bool *ret_anew, qd_err *err)
{
    pthread_rwlockattr_t attr;
    qd_code rc = QD_OK;
    qd_index *x = qd_calloc(1, sizeof *x);
    if (x == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the index");
    (void)pthread_rwlockattr_init(&attr);
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&x->lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    (void)pthread_mutex_init(&x->writing, NULL);
    x->next_n = 1;
    QD_TRY(qd_store_open(path, QD_INDEX_SCHEMA, &x->store, ret_anew, err));
    rc = load(x, err);
    if (rc != QD_OK && rc != QD_E_NO_MEMORY) { /* broken further in */
        *ret_anew = true;
        rc = qd_index_reset(x, err);
    }
    if (rc != QD_OK) goto out;
    *ret = x;
    x = NULL;
out:
    qd_index_close(x);
    return rc;
}

void qd_index_close(qd_index *x)
{
    if (x == NULL) return;
    qd_store_close(x->store);
    qd_rows_done(&x->rows);
    qd_buf_done(&x->buf);
    (void)pthread_rwlock_destroy(&x->lock);
    (void)pthread_mutex_destroy(&x->writing);
    qd_free(x);
}

qd_code qd_index_reset(qd_index *x, qd_err *err)
{
    (void)pthread_mutex_lock(&x->writing);
    (void)pthread_rwlock_wrlock(&x->lock);
    qd_rows_done(&x->rows);
    qd_code rc = qd_store_reset(x->store, err);
    (void)pthread_rwlock_unlock(&x->lock);
    (void)pthread_mutex_unlock(&x->writing);
    return rc;
}

/* What is known of a job is at least as new; told. */
static bool known(qd_index_row *row, uint64_t rev, uint32_t generation)
{
    if (row == NULL || (rev > row->rev && !row->own)) return false;
    row->generation = generation;
    return true;
}

bool qd_index_knows(qd_index *x, const char *id, uint64_t rev)
{
    (void)pthread_rwlock_wrlock(&x->lock);
    bool yes = known(qd_rows_find(&x->rows, id), rev, x->rows.generation);
    (void)pthread_rwlock_unlock(&x->lock);
    return yes;
}

qd_code qd_index_put(qd_index *x, const qd_job_record *rec, uint64_t rev, qd_err *err)
{
    const qd_index_cols c = cols_of(rec);
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&x->writing);
    (void)pthread_rwlock_wrlock(&x->lock);
    qd_index_row *row = qd_rows_find(&x->rows, c.id);
    bool old = known(row, rev, x->rows.generation);
    uint64_t n = row != NULL && row->gone_ms == 0 ? row->n : x->next_n;
    if (!old) rc = qd_rows_put(&x->rows, &c, rev, n, err);
    (void)pthread_rwlock_unlock(&x->lock);
    if (!old && rc == QD_OK) {
        if (n == x->next_n) x->next_n++;
        qd_buf_reset(&x->buf);
        rc = qd_job_record_encode(rec, &x->buf, err);
        if (rc == QD_OK) rc = qd_store_put(x->store, n, rev, &c, &x->buf, err);
    }
    (void)pthread_mutex_unlock(&x->writing);
    return rc;
}

static qd_code delete_row(qd_index *x, const char *id, uint64_t rev, bool own, qd_err *err)
{
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&x->writing);
    (void)pthread_rwlock_wrlock(&x->lock);
    qd_index_row *row = qd_rows_find(&x->rows, id);
    if (own && row != NULL) rev = row->rev;
    /* The marker of a deletion that came before what is known is of an earlier job of that id. */
    bool go = row == NULL || own || rev > row->rev || row->own;
    uint64_t n = row != NULL && row->gone_ms == 0 ? row->n : 0;
    if (go) rc = qd_rows_remove(&x->rows, id, rev, own, qd_mono_ms(), err);
    (void)pthread_rwlock_unlock(&x->lock);
    if (go && rc == QD_OK && n != 0) rc = qd_store_delete(x->store, n, err);
    (void)pthread_mutex_unlock(&x->writing);
    return rc;
}

qd_code qd_index_deleted(qd_index *x, const char *id, uint64_t rev, qd_err *err)
{
    return delete_row(x, id, rev, false, err);
}

qd_code qd_index_delete_own(qd_index *x, const char *id, qd_err *err)
{
    return delete_row(x, id, 0, true, err);
}

qd_code qd_index_commit(qd_index *x, qd_err *err)
{
    (void)pthread_mutex_lock(&x->writing);
    qd_code rc = qd_store_commit(x->store, err);
    uint64_t now = qd_mono_ms();
    if (now - x->purged_ms > PURGE_MS && now > GONE_KEPT_MS) {
        x->purged_ms = now;
        (void)pthread_rwlock_wrlock(&x->lock);
        qd_rows_purge(&x->rows, now - GONE_KEPT_MS);
        (void)pthread_rwlock_unlock(&x->lock);
    }
    (void)pthread_mutex_unlock(&x->writing);
    return rc;
}

void qd_index_begin(qd_index *x)
{
    (void)pthread_rwlock_wrlock(&x->lock);
    x->rows.generation++;
    (void)pthread_rwlock_unlock(&x->lock);
}

qd_code qd_index_synced(qd_index *x, qd_err *err)
{
    qd_code rc = QD_OK;
    uint64_t now = qd_mono_ms();
    (void)pthread_mutex_lock(&x->writing);
    (void)pthread_rwlock_wrlock(&x->lock);
    for (size_t i = 0; i < x->rows.n_rows && rc == QD_OK; i++) {
        qd_index_row *row = &x->rows.rows[i];
        if (row->text == NULL || row->gone_ms != 0 || row->generation == x->rows.generation) continue;
        rc = qd_store_delete(x->store, row->n, err);
        if (rc == QD_OK) rc = qd_rows_remove(&x->rows, qd_row_id(row), row->rev, false, now, err);
    }
    if (now > GONE_KEPT_MS) qd_rows_purge(&x->rows, now - GONE_KEPT_MS);
    (void)pthread_rwlock_unlock(&x->lock);
    if (rc == QD_OK) rc = qd_store_commit(x->store, err);
    (void)pthread_mutex_unlock(&x->writing);
    return rc;
}

bool qd_index_has(qd_index *x, const char *id)
{
    (void)pthread_rwlock_rdlock(&x->lock);
    bool yes = qd_rows_find(&x->rows, id) != NULL;
    (void)pthread_rwlock_unlock(&x->lock);
    return yes;
}

static bool is_of(const qd_job_record *rec, const char *tenant, Quantd__ApiOrigin origin, const char *id)
{
    return strcmp(rec->id, id) == 0 && (tenant == NULL || strcmp(rec->spec->tenant, tenant) == 0) &&
           (origin == QUANTD__API_ORIGIN__API_NONE || rec->spec->origin == origin);
}

qd_code qd_index_get(qd_index *x, const char *tenant, Quantd__ApiOrigin origin, const char *id, qd_job_record **ret,
                     qd_err *err)
{
    qd_reader *r = NULL;
    qd_job_record *rec = NULL;
    (void)pthread_rwlock_rdlock(&x->lock);
    const qd_index_row *row = qd_rows_find(&x->rows, id);
    uint64_t n = row != NULL && row->gone_ms == 0 ? row->n : 0;
    (void)pthread_rwlock_unlock(&x->lock);
    if (n == 0) return qd_fail(err, QD_E_NOT_FOUND, "no job %.64s", id);
    qd_code rc = qd_reader_take(x->store, &r, err);
    if (rc == QD_OK) rc = qd_reader_get(r, n, &rec, err);
    if (rc == QD_OK && !is_of(rec, tenant, origin, id)) rc = qd_fail(err, QD_E_NOT_FOUND, "no job %.64s", id);
    qd_reader_give(x->store, r);
    if (rc == QD_OK)
        *ret = rec;
    else
        qd_msg_free(rec);
    return rc;
}

typedef struct wanted {
    uint64_t n;
    char id[QD_ID_BYTES];
} wanted;

/* Which jobs are on the page. */
static qd_code choose(qd_index *x, const char *tenant, const qd_job_query *q, wanted *w, size_t *ret_n,
                      qd_job_page *ret, qd_err *err)
{
    uint32_t *rows = qd_malloc(QD_PAGE_MAX * sizeof *rows);
    qd_code rc = QD_OK;
    if (rows == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a list of jobs");
    (void)pthread_rwlock_rdlock(&x->lock);
    qd_index_tenant *t = qd_rows_tenant(&x->rows, tenant);
    if (t != NULL && t->n_sorted != t->n_jobs) {
        (void)pthread_rwlock_unlock(&x->lock);
        (void)pthread_rwlock_wrlock(&x->lock);
        t = qd_rows_tenant(&x->rows, tenant);
        if (t != NULL) qd_rows_settle(&x->rows, t);
    }
    if (t != NULL)
        rc = qd_rows_list(&x->rows, t, q, rows, ret_n, ret, err);
    else if (q->from_id != NULL)
        rc = qd_fail(err, QD_E_NOT_FOUND, "no job %.64s", q->from_id);
    for (size_t i = 0; rc == QD_OK && i < *ret_n; i++) {
        w[i].n = x->rows.rows[rows[i]].n;
        (void)snprintf(w[i].id, sizeof w[i].id, "%s", qd_row_id(&x->rows.rows[rows[i]]));
    }
    (void)pthread_rwlock_unlock(&x->lock);
    qd_free(rows);
    return rc;
}

qd_code qd_index_list(qd_index *x, const char *tenant, const qd_job_query *q, qd_job_page *ret, qd_err *err)
{
    qd_job_page page = {0};
    qd_reader *r = NULL;
    size_t n = 0;
    bool reading = false;
    qd_code rc = QD_OK;
    wanted *w = qd_malloc(QD_PAGE_MAX * sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a list of jobs");
    QD_TRY(choose(x, tenant, q, w, &n, &page, err));
    page.jobs = qd_calloc(n + 1, sizeof(qd_job_record *));
    if (page.jobs == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a list of jobs");
        goto out;
    }
    QD_TRY(qd_reader_take(x->store, &r, err));
    QD_TRY(qd_reader_begin(r, err));
    reading = true;
    for (size_t i = 0; i < n; i++) {
        qd_job_record *rec = NULL;
        rc = qd_reader_get(r, w[i].n, &rec, err);
        if (rc == QD_OK && is_of(rec, tenant, q->origin, w[i].id))
            page.jobs[page.n++] = rec;
        else
            qd_msg_free(rec);
        if (rc != QD_OK && rc != QD_E_NOT_FOUND) goto out; /* deleted a moment ago, or written a moment later */
        rc = QD_OK;
    }
    *ret = page;
    memset(&page, 0, sizeof page);
out:
    if (reading) qd_reader_end(r);
    qd_reader_give(x->store, r);
    qd_job_page_done(&page);
    qd_free(w);
    return rc;
}

void qd_index_counts(qd_index *x, const char *tenant, uint64_t ret[QD_JOB_STATES])
{
    memset(ret, 0, QD_JOB_STATES * sizeof *ret);
    (void)pthread_rwlock_rdlock(&x->lock);
    for (size_t i = 0; i < x->rows.n_tenants; i++) {
        const qd_index_tenant *t = &x->rows.tenants[i];
        if (tenant != NULL && strcmp(t->id, tenant) != 0) continue;
        for (size_t s = 0; s < QD_JOB_STATES; s++) ret[s] += t->in[s];
    }
    (void)pthread_rwlock_unlock(&x->lock);
}
