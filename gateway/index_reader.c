/* index_reader.c -- reading from the file of the index: connections of their own, kept for the next one who reads. */
#include "base/mem.h"
#include "gateway/index_store_inside.h"

struct qd_reader {
    sqlite3 *db;
    sqlite3_stmt *get;
    uint64_t file; /* which of the files it has open */
    qd_reader *next;
};

static void close_one(qd_reader *r)
{
    (void)sqlite3_finalize(r->get);
    (void)sqlite3_close_v2(r->db);
    qd_free(r);
}

void qd_readers_close(qd_store *s)
{
    while (s->idle != NULL) {
        qd_reader *r = s->idle;
        s->idle = r->next;
        close_one(r);
    }
}

qd_code qd_reader_take(qd_store *s, qd_reader **ret, qd_err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    qd_reader *r = s->idle;
    uint64_t file = s->file;
    if (r != NULL) s->idle = r->next;
    (void)pthread_mutex_unlock(&s->mutex);
    if (r != NULL && r->file != file) {
        close_one(r);
        r = NULL;
    }
    if (r == NULL) {
        r = qd_calloc(1, sizeof *r);
        if (r == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a reader of the index");
        r->file = file;
        qd_code rc = qd_sql_open(s->path, SQLITE_OPEN_READONLY, &r->db, err);
        if (rc == QD_OK) rc = qd_sql_run(r->db, "PRAGMA cache_size=-4096", err);
        if (rc == QD_OK) rc = qd_sql_prepare(r->db, "SELECT data FROM rec WHERE n=?", &r->get, err);
        if (rc != QD_OK) {
            close_one(r);
            return rc;
        }
    }
    *ret = r;
    return QD_OK;
}

void qd_reader_give(qd_store *s, qd_reader *r)
{
    if (r == NULL) return;
    (void)pthread_mutex_lock(&s->mutex);
    bool old = r->file != s->file;
    if (!old) {
        r->next = s->idle;
        s->idle = r;
    }
    (void)pthread_mutex_unlock(&s->mutex);
    if (old) close_one(r);
}

qd_code qd_reader_get(qd_reader *r, uint64_t n, qd_job_record **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    if (sqlite3_bind_int64(r->get, 1, (sqlite3_int64)n) != SQLITE_OK) return qd_sql_fail(err, r->db, "read");
    int got = sqlite3_step(r->get);
    if (got == SQLITE_ROW)
        rc = qd_job_record_decode(sqlite3_column_blob(r->get, 0), (size_t)sqlite3_column_bytes(r->get, 0), ret, err);
    else
        rc = got == SQLITE_DONE ? qd_fail(err, QD_E_NOT_FOUND, "no such job") : qd_sql_fail(err, r->db, "read");
    (void)sqlite3_reset(r->get);
    return rc;
}

qd_code qd_reader_begin(qd_reader *r, qd_err *err)
{
    return qd_sql_run(r->db, "BEGIN", err);
}

void qd_reader_end(qd_reader *r)
{
    (void)sqlite3_exec(r->db, "END", NULL, NULL, NULL);
}
