/* sink.h -- SEAM: a set of part files of known sizes, written at planned offsets in any order, then made durable.
 *
 * Threads: parts are added by one thread before any write; after that any number of threads may write disjoint ranges.
 */
#ifndef QD_CKPT_SINK_H
#define QD_CKPT_SINK_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qd_sink qd_sink;
typedef struct qd_sink_ops {
    qd_code (*add_part)(qd_sink *k, const char *name, uint64_t size_bytes, bool keep, uint32_t *ret_part, qd_err *err);
    qd_code (*write)(qd_sink *k, uint32_t part, uint64_t off, const void *data, size_t n, qd_err *err);
    qd_code (*put)(qd_sink *k, uint32_t part, uint64_t off, const void *data, size_t n, qd_err *err);
    qd_code (*flush)(qd_sink *k, uint32_t part, uint64_t off, uint64_t n, qd_err *err);
    qd_code (*sync)(qd_sink *k, qd_err *err);
    void (*free)(qd_sink *k);
} qd_sink_ops;

struct qd_sink {
    const qd_sink_ops *ops;
    void *ctx;
};

/* A sink that writes into an existing directory. Errors: QD_E_NO_MEMORY, QD_E_IO. Free with qd_sink_free(). */
QD_MUST_CHECK qd_code qd_sink_open_dir(const char *dir, qd_sink **ret, qd_err *err);

/* Creates name (a plain file name) with exactly size_bytes, space reserved where the file system can. keep: an existing
 * file of that size is opened with its content (resume), otherwise it starts empty. Errors: QD_E_ROOM, QD_E_IO. */
static inline QD_MUST_CHECK qd_code qd_sink_add_part(qd_sink *k, const char *name, uint64_t size_bytes, bool keep,
                                                     uint32_t *ret_part, qd_err *err)
{
    return k->ops->add_part(k, name, size_bytes, keep, ret_part, err);
}
/* n bytes at off, all inside the part. Where data and off are equal modulo QD_IO_ALIGN, the aligned middle bypasses the
 * page cache. Errors: QD_E_ROOM, QD_E_IO; QD_E_INTERNAL for a range outside the part. */
static inline QD_MUST_CHECK qd_code qd_sink_write(qd_sink *k, uint32_t part, uint64_t off, const void *data, size_t n,
                                                  qd_err *err)
{
    return k->ops->write(k, part, off, data, n, err);
}
/* The same, but pages that the range covers only in part may wait in memory until later puts complete them (up to 8 KiB
 * each), or for qd_sink_flush(). Ranges that are put must not overlap anything else that is written. Errors: also
 * QD_E_NO_MEMORY. */
static inline QD_MUST_CHECK qd_code qd_sink_put(qd_sink *k, uint32_t part, uint64_t off, const void *data, size_t n,
                                                qd_err *err)
{
    return k->ops->put(k, part, off, data, n, err);
}
/* What was put into [off, off + n) no longer waits when this returns QD_OK. Errors: QD_E_ROOM, QD_E_IO. */
static inline QD_MUST_CHECK qd_code qd_sink_flush(qd_sink *k, uint32_t part, uint64_t off, uint64_t n, qd_err *err)
{
    return k->ops->flush(k, part, off, n, err);
}
/* All parts and the directory are on stable storage when this returns QD_OK. A failed fsync is final: the data must be
 * written anew. */
static inline QD_MUST_CHECK qd_code qd_sink_sync(qd_sink *k, qd_err *err)
{
    return k->ops->sync(k, err);
}
static inline void qd_sink_free(qd_sink *k)
{
    if (k != NULL) k->ops->free(k);
}

#endif
