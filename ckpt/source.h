/* source.h -- SEAM: ranged reads of one immutable byte object (a local file now, object storage later).
 *
 * A source pins what it saw when it was opened (size, inode, times); qd_source_check() says whether that still holds.
 * Threads: any number may read one source at once. */
#ifndef QD_CKPT_SOURCE_H
#define QD_CKPT_SOURCE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    QD_IO_ALIGN = 4096
}; /* alignment that direct I/O needs of addresses, offsets and lengths */

typedef struct qd_source qd_source;
typedef struct qd_source_ops {
    qd_code (*read)(qd_source *s, uint64_t off, void *buf, size_t n, qd_err *err);
    qd_code (*read_area)(qd_source *s, uint64_t off, size_t n, void *area, size_t area_bytes, void **ret_data,
                         qd_err *err);
    qd_code (*check)(qd_source *s, qd_err *err);
    void (*free)(qd_source *s);
} qd_source_ops;

struct qd_source {
    const qd_source_ops *ops;
    const char *name; /* for errors: the path; owned */
    uint64_t size_bytes;
    uint64_t mtime_ns;
    void *ctx;
};

/* Opens a regular file (symbolic links are followed: Hugging Face caches are made of them).
 * Errors: QD_E_INPUT (missing, not a regular file), QD_E_IO, QD_E_NO_MEMORY. Free with qd_source_free(). */
QD_MUST_CHECK qd_code qd_source_open_file(const char *path, qd_source **ret, qd_err *err);

/* Exactly n bytes at off into buf, through the page cache: for headers and small tensors.
 * Errors: QD_E_INPUT (range beyond the end: names file, expected, found), QD_E_CHANGED (it shrank), QD_E_IO. */
static inline QD_MUST_CHECK qd_code qd_source_read(qd_source *s, uint64_t off, void *buf, size_t n, qd_err *err)
{
    return s->ops->read(s, off, buf, n, err);
}

/* Bytes that read_area needs of an area for n bytes of data. */
static inline size_t qd_source_area_bytes(size_t n)
{
    return (n + 2 * (size_t)QD_IO_ALIGN - 1) & ~((size_t)QD_IO_ALIGN - 1);
}
/* The same for bulk data: area is aligned to QD_IO_ALIGN and has at least qd_source_area_bytes(n) bytes; *ret_data
 * points into it, at the offset's own place modulo QD_IO_ALIGN. Comes from the page cache where that holds all of the
 * range, else the cache is left alone (O_DIRECT); where the file system refuses that, through the cache. */
static inline QD_MUST_CHECK qd_code qd_source_read_area(qd_source *s, uint64_t off, size_t n, void *area,
                                                        size_t area_bytes, void **ret_data, qd_err *err)
{
    return s->ops->read_area(s, off, n, area, area_bytes, ret_data, err);
}
/* QD_OK when size, inode and modification time are those of the opening; else QD_E_CHANGED, naming the file. */
static inline QD_MUST_CHECK qd_code qd_source_check(qd_source *s, qd_err *err)
{
    return s->ops->check(s, err);
}
static inline void qd_source_free(qd_source *s)
{
    if (s != NULL) s->ops->free(s);
}

#endif
