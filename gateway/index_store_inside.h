/* index_store_inside.h -- what index_store.c (the file and its writer) and index_reader.c (its readers) share. */
#ifndef QD_GATEWAY_INDEX_STORE_INSIDE_H
#define QD_GATEWAY_INDEX_STORE_INSIDE_H

#include "gateway/index_store.h"

#include <pthread.h>
#include <sqlite3.h>

enum {
    QD_STORE_PATH_BYTES = 4096
};

struct qd_store {
    char path[QD_STORE_PATH_BYTES];
    uint32_t schema;
    int lock;
    sqlite3 *db;
    sqlite3_stmt *put_col, *put_rec, *delete_col, *delete_rec;
    bool in_transaction;
    pthread_mutex_t mutex; /* of what follows */
    qd_reader *idle;
    uint64_t file;
};

/* What SQLite says of a failure; db NULL: out of memory. */
qd_code qd_sql_fail(qd_err *err, sqlite3 *db, const char *what);
QD_MUST_CHECK qd_code qd_sql_open(const char *path, int flags, sqlite3 **ret,
                                  qd_err *err); /* *ret is set in any case */
QD_MUST_CHECK qd_code qd_sql_run(sqlite3 *db, const char *sql, qd_err *err);
QD_MUST_CHECK qd_code qd_sql_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret, qd_err *err);

/* Those that nobody has taken. */
void qd_readers_close(qd_store *s);

#endif
