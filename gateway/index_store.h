/* index_store.h -- the inside of index.h that lies in a file: SQLite. One writer; readers have connections of their
 * own. What SQLite answers otherwise than expected is QD_E_IO. */
#ifndef QD_GATEWAY_INDEX_STORE_H
#define QD_GATEWAY_INDEX_STORE_H

#include "base/buf.h"
#include "gateway/index_rows.h"

typedef struct qd_store qd_store;

/* Opens path, or makes it where it is not there or of another schema. QD_E_BUSY: another process has it open. */
QD_MUST_CHECK qd_code qd_store_open(const char *path, uint32_t schema, qd_store **ret, bool *ret_anew, qd_err *err);
void qd_store_close(qd_store *s);
/* Throws the file away and makes it anew; readers that are at work end on the old one. */
QD_MUST_CHECK qd_code qd_store_reset(qd_store *s, qd_err *err);

/* Writing; one thread at a time. A transaction begins with the first and ends with commit. */
QD_MUST_CHECK qd_code qd_store_put(qd_store *s, uint64_t n, uint64_t rev, const qd_index_cols *c, const qd_buf *rec,
                                   qd_err *err);
QD_MUST_CHECK qd_code qd_store_delete(qd_store *s, uint64_t n, qd_err *err);
QD_MUST_CHECK qd_code qd_store_commit(qd_store *s, qd_err *err);
/* Every job, oldest first. */
typedef qd_code (*qd_store_each)(void *ctx, uint64_t n, uint64_t rev, const qd_index_cols *c, qd_err *err);
QD_MUST_CHECK qd_code qd_store_load(qd_store *s, qd_store_each fn, void *ctx, qd_err *err);

/* Reading; any thread. */
typedef struct qd_reader qd_reader;
QD_MUST_CHECK qd_code qd_reader_take(qd_store *s, qd_reader **ret, qd_err *err);
void qd_reader_give(qd_store *s, qd_reader *r); /* NULL is a no-op */
/* QD_E_NOT_FOUND: not (any more) there. */
QD_MUST_CHECK qd_code qd_reader_get(qd_reader *r, uint64_t n, qd_job_record **ret, qd_err *err);
/* A page is read as of one moment. */
QD_MUST_CHECK qd_code qd_reader_begin(qd_reader *r, qd_err *err);
void qd_reader_end(qd_reader *r);

#endif
