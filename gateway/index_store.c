/* index_store.c -- the file and its one writer. */
#include "base/mem.h"
#include "gateway/index_store_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x71644958, /* "qdIX" */
    BUSY_MS = 5000
};

/* Records apart from columns: at the start only these are read. WAL without a sync at each commit: what is lost when
 * the machine stops is told again by the feed. */
static const char k_pragmas[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16384;"
                                "PRAGMA journal_size_limit=67108864; PRAGMA trusted_schema=OFF;";
static const char k_schema[] =
    "CREATE TABLE col(n INTEGER PRIMARY KEY, rev INTEGER NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL,"
    " name TEXT NOT NULL, model TEXT NOT NULL, tmpl TEXT NOT NULL, spec TEXT NOT NULL, method TEXT NOT NULL,"
    " origin INTEGER NOT NULL, state INTEGER NOT NULL, created_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL,"
    " ended_ms INTEGER NOT NULL) STRICT;"
    "CREATE TABLE rec(n INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;";

qd_code qd_sql_fail(qd_err *err, sqlite3 *db, const char *what)
{
    int rc = sqlite3_errcode(db);
    return qd_fail(err, rc == SQLITE_NOMEM ? QD_E_NO_MEMORY : QD_E_IO, "index: %s: %s", what,
                   db == NULL ? "out of memory" : sqlite3_errmsg(db));
}

qd_code qd_sql_run(sqlite3 *db, const char *sql, qd_err *err)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? QD_OK : qd_sql_fail(err, db, sql);
}

qd_code qd_sql_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret, qd_err *err)
{
    return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL) == SQLITE_OK
               ? QD_OK
               : qd_sql_fail(err, db, sql);
}

qd_code qd_sql_open(const char *path, int flags, sqlite3 **ret, qd_err *err)
{
    if (sqlite3_open_v2(path, ret, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) return qd_sql_fail(err, *ret, path);
    (void)sqlite3_busy_timeout(*ret, BUSY_MS);
    return QD_OK;
}

static qd_code number(sqlite3 *db, const char *sql, int64_t *ret, qd_err *err)
{
    sqlite3_stmt *s = NULL;
    qd_code rc = qd_sql_prepare(db, sql, &s, err);
    if (rc == QD_OK && sqlite3_step(s) != SQLITE_ROW) rc = qd_sql_fail(err, db, sql);
    if (rc == QD_OK) *ret = sqlite3_column_int64(s, 0);
    (void)sqlite3_finalize(s);
    return rc;
}

static void close_writer(qd_store *s)
{
    sqlite3_stmt **const all[] = {&s->put_col, &s->put_rec, &s->delete_col, &s->delete_rec};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        (void)sqlite3_finalize(*all[i]);
        *all[i] = NULL;
    }
    (void)sqlite3_close_v2(s->db);
    s->db = NULL;
    s->in_transaction = false;
}

/* The file as it should be; *ret_fit false: it is another one's, or of another schema. */
static qd_code open_writer(qd_store *s, bool *ret_fit, qd_err *err)
{
    char sql[128];
    int64_t app = 0, version = 0, tables = 0;
    qd_code rc = QD_OK;
    *ret_fit = false;
    QD_TRY(qd_sql_open(s->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &s->db, err));
    QD_TRY(qd_sql_run(s->db, k_pragmas, err));
    QD_TRY(number(s->db, "SELECT count(*) FROM sqlite_schema", &tables, err));
    if (tables == 0) {
        (void)snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%" PRIu32, APPLICATION_ID,
                       s->schema);
        QD_TRY(qd_sql_run(s->db, k_schema, err));
        QD_TRY(qd_sql_run(s->db, sql, err));
    }
    QD_TRY(number(s->db, "PRAGMA application_id", &app, err));
    QD_TRY(number(s->db, "PRAGMA user_version", &version, err));
    *ret_fit = app == APPLICATION_ID && version == (int64_t)s->schema;
    if (!*ret_fit) goto out;
    QD_TRY(qd_sql_prepare(s->db, "INSERT OR REPLACE INTO col VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)", &s->put_col, err));
    QD_TRY(qd_sql_prepare(s->db, "INSERT OR REPLACE INTO rec VALUES(?,?)", &s->put_rec, err));
    QD_TRY(qd_sql_prepare(s->db, "DELETE FROM col WHERE n=?", &s->delete_col, err));
    QD_TRY(qd_sql_prepare(s->db, "DELETE FROM rec WHERE n=?", &s->delete_rec, err));
out:
    return rc;
}

static qd_code drop_file(qd_store *s, qd_err *err)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char path[QD_STORE_PATH_BYTES + 16];
    close_writer(s);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", s->path, ends[i]);
        if (unlink(path) != 0 && errno != ENOENT) return qd_fail_errno(err, QD_E_IO, errno, "index %s", path);
    }
    return QD_OK;
}

qd_code qd_store_reset(qd_store *s, qd_err *err)
{
    bool fit = false;
    (void)pthread_mutex_lock(&s->mutex);
    s->file++;
    (void)pthread_mutex_unlock(&s->mutex);
    qd_code rc = drop_file(s, err);
    if (rc == QD_OK) rc = open_writer(s, &fit, err);
    if (rc == QD_OK && !fit) rc = qd_fail(err, QD_E_IO, "index %s: cannot be made", s->path);
    return rc;
}

static qd_code take_lock(qd_store *s, qd_err *err)
{
    char path[QD_STORE_PATH_BYTES + 16];
    (void)snprintf(path, sizeof path, "%s.lock", s->path);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock < 0) return qd_fail_errno(err, QD_E_IO, errno, "index %s", path);
    if (flock(s->lock, LOCK_EX | LOCK_NB) == 0) return QD_OK;
    if (errno == EWOULDBLOCK) return qd_fail(err, QD_E_BUSY, "index %s: another gateway uses it", s->path);
    return qd_fail_errno(err, QD_E_IO, errno, "index %s", path);
}

qd_code qd_store_open(const char *path, uint32_t schema, qd_store **ret, bool *ret_anew, qd_err *err)
{
    bool fit = false;
    qd_code rc = QD_OK;
    qd_store *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the index");
    s->schema = schema;
    s->lock = -1;
    (void)pthread_mutex_init(&s->mutex, NULL);
    if (strlen(path) >= sizeof s->path) {
        rc = qd_fail(err, QD_E_CONFIG, "index: a path longer than %zu bytes", sizeof s->path);
        goto out;
    }
    (void)snprintf(s->path, sizeof s->path, "%s", path);
    QD_TRY(take_lock(s, err));
    *ret_anew = access(path, F_OK) != 0;
    rc = open_writer(s, &fit, err);
    if (rc == QD_E_NO_MEMORY) goto out;
    if (rc != QD_OK || !fit) { /* broken, or not ours: nothing in it that is not on the bus */
        *ret_anew = true;
        rc = qd_store_reset(s, err);
    }
    if (rc != QD_OK) goto out;
    *ret = s;
    s = NULL;
out:
    qd_store_close(s);
    return rc;
}

void qd_store_close(qd_store *s)
{
    if (s == NULL) return;
    qd_readers_close(s);
    if (s->db != NULL) (void)!qd_store_commit(s, NULL);
    close_writer(s);
    if (s->lock >= 0) (void)close(s->lock);
    (void)pthread_mutex_destroy(&s->mutex);
    qd_free(s);
}

static qd_code begin(qd_store *s, qd_err *err)
{
    if (s->in_transaction) return QD_OK;
    qd_code rc = qd_sql_run(s->db, "BEGIN IMMEDIATE", err);
    s->in_transaction = rc == QD_OK;
    return rc;
}

static qd_code step(qd_store *s, sqlite3_stmt *stmt, qd_err *err)
{
    int rc = sqlite3_step(stmt);
    qd_code code = rc == SQLITE_DONE ? QD_OK : qd_sql_fail(err, s->db, "write");
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
    return code;
}

qd_code qd_store_put(qd_store *s, uint64_t n, uint64_t rev, const qd_index_cols *c, const qd_buf *rec, qd_err *err)
{
    const char *const texts[] = {c->id, c->tenant, c->name, c->model, c->tmpl, c->spec, c->method};
    const uint64_t numbers[] = {(uint64_t)c->origin, (uint64_t)c->state, c->created_ms, c->started_ms, c->ended_ms};
    qd_code rc = begin(s, err);
    if (rc != QD_OK) return rc;
    int ok =
        sqlite3_bind_int64(s->put_col, 1, (sqlite3_int64)n) | sqlite3_bind_int64(s->put_col, 2, (sqlite3_int64)rev);
    for (int i = 0; i < 7; i++) ok |= sqlite3_bind_text(s->put_col, 3 + i, texts[i], -1, SQLITE_STATIC);
    for (int i = 0; i < 5; i++) ok |= sqlite3_bind_int64(s->put_col, 10 + i, (sqlite3_int64)numbers[i]);
    ok |= sqlite3_bind_int64(s->put_rec, 1, (sqlite3_int64)n);
    ok |= sqlite3_bind_blob(s->put_rec, 2, rec->data, (int)rec->len, SQLITE_STATIC);
    if (ok != SQLITE_OK) return qd_sql_fail(err, s->db, "write");
    rc = step(s, s->put_col, err);
    return rc == QD_OK ? step(s, s->put_rec, err) : rc;
}

qd_code qd_store_delete(qd_store *s, uint64_t n, qd_err *err)
{
    qd_code rc = begin(s, err);
    if (rc != QD_OK) return rc;
    if ((sqlite3_bind_int64(s->delete_col, 1, (sqlite3_int64)n) |
         sqlite3_bind_int64(s->delete_rec, 1, (sqlite3_int64)n)) != SQLITE_OK)
        return qd_sql_fail(err, s->db, "delete");
    rc = step(s, s->delete_col, err);
    return rc == QD_OK ? step(s, s->delete_rec, err) : rc;
}

qd_code qd_store_commit(qd_store *s, qd_err *err)
{
    if (!s->in_transaction) return QD_OK;
    s->in_transaction = false;
    return qd_sql_run(s->db, "COMMIT", err);
}

static const char *text(sqlite3_stmt *s, int i)
{
    const unsigned char *t = sqlite3_column_text(s, i);
    return t == NULL ? "" : (const char *)t;
}

qd_code qd_store_load(qd_store *s, qd_store_each fn, void *ctx, qd_err *err)
{
    sqlite3_stmt *q = NULL;
    int rc = SQLITE_DONE;
    qd_code code =
        qd_sql_prepare(s->db,
                       "SELECT n,rev,id,tenant,name,model,tmpl,spec,method,origin,state,created_ms,started_ms,"
                       "ended_ms FROM col ORDER BY n",
                       &q, err);
    while (code == QD_OK && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const qd_index_cols c = {.id = text(q, 2),
                                 .tenant = text(q, 3),
                                 .name = text(q, 4),
                                 .model = text(q, 5),
                                 .tmpl = text(q, 6),
                                 .spec = text(q, 7),
                                 .method = text(q, 8),
                                 .origin = (Quantd__ApiOrigin)sqlite3_column_int(q, 9),
                                 .state = (qd_job_state)sqlite3_column_int(q, 10),
                                 .created_ms = (uint64_t)sqlite3_column_int64(q, 11),
                                 .started_ms = (uint64_t)sqlite3_column_int64(q, 12),
                                 .ended_ms = (uint64_t)sqlite3_column_int64(q, 13)};
        code = fn(ctx, (uint64_t)sqlite3_column_int64(q, 0), (uint64_t)sqlite3_column_int64(q, 1), &c, err);
    }
    if (code == QD_OK && rc != SQLITE_DONE) code = qd_sql_fail(err, s->db, "read");
    (void)sqlite3_finalize(q);
    return code;
}
