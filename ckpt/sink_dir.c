/* sink_dir.c -- a sink that is a local directory: aligned middles of writes go around the page cache; edges go through
 * it, or wait for their neighbours. */
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/edges.h"
#include "ckpt/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

typedef struct part {
    char *path; /* for errors */
    int fd, direct_fd;
    uint64_t size_bytes;
    atomic_bool no_direct; /* refused once */
    qd_edges edges;
} part;

typedef struct dir_sink {
    qd_sink base;
    char *dir;
    int dir_fd;
    part **parts;
    uint32_t n_parts;
} dir_sink;

static void part_free(part *p)
{
    if (p == NULL) return;
    if (p->fd >= 0) (void)close(p->fd);
    if (p->direct_fd >= 0) (void)close(p->direct_fd);
    qd_edges_done(&p->edges);
    qd_free(p->path);
    qd_free(p);
}

static qd_code no_room(const part *p, qd_err *err)
{
    struct statvfs v;
    uint64_t room = 0;
    if (fstatvfs(p->fd, &v) == 0) (void)qd_mul_u64(v.f_bavail, v.f_frsize, &room);
    return qd_fail(err, QD_E_ROOM, "%s: expected room for %" PRIu64 " bytes, found %" PRIu64 " bytes free", p->path,
                   p->size_bytes, room);
}

/* Gives the part its size with its blocks reserved, so that a full disk shows before any work is done. Direct writes
 * into reserved blocks and into a sparse file took the same time on ext4, the fsync included. */
static qd_code reserve(const part *p, qd_err *err)
{
    if (p->size_bytes > INT64_MAX) return no_room(p, err);
    int fault = qd_fault_here(QD_FAULT_WRITE);
    int e = fault;
    if (fault == 0 && p->size_bytes > 0) {
        do {
            e = fallocate(p->fd, 0, 0, (off_t)p->size_bytes) == 0 ? 0 : errno;
        } while (e == EINTR);
        if (e == EOPNOTSUPP || e == ENOSYS) e = ftruncate(p->fd, (off_t)p->size_bytes) == 0 ? 0 : errno;
    }
    if (e == ENOSPC || e == EDQUOT || e == EFBIG) return no_room(p, err);
    if (e != 0) return qd_fail_errno(err, QD_E_IO, e, "%s: reserving %" PRIu64 " bytes", p->path, p->size_bytes);
    return QD_OK;
}

static qd_code dir_add_part(qd_sink *k, const char *name, uint64_t size_bytes, bool keep, uint32_t *ret_part,
                            qd_err *err)
{
    dir_sink *d = k->ctx;
    qd_code rc = QD_OK;
    struct stat st;
    part *p = NULL;
    if (!qd_name_is_plain(name))
        return qd_fail(err, QD_E_INTERNAL, "%s: part name \"%s\" is not a plain file name", d->dir, name);
    part **parts = qd_realloc(d->parts, ((size_t)d->n_parts + 1) * sizeof *parts);
    if (parts != NULL) d->parts = parts;
    p = qd_calloc(1, sizeof *p);
    if (p != NULL) {
        p->fd = p->direct_fd = -1;
        qd_edges_init(&p->edges, size_bytes);
        p->size_bytes = size_bytes;
        p->path = qd_path_join(d->dir, name);
    }
    if (parts == NULL || p == NULL || p->path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s/%s: out of memory", d->dir, name);
        goto out;
    }
    p->fd = openat(d->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (p->fd < 0 || fstat(p->fd, &st) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", p->path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = qd_fail(err, QD_E_IO, "%s: expected a regular file or none, found something else", p->path);
        goto out;
    }
    if ((!keep || (uint64_t)st.st_size != size_bytes) && st.st_size != 0 && ftruncate(p->fd, 0) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s: emptying it", p->path);
        goto out;
    }
    QD_TRY(reserve(p, err));
    p->direct_fd = openat(d->dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_DIRECT);
    *ret_part = d->n_parts;
    d->parts[d->n_parts++] = p;
    p = NULL; /* ownership moved */
out:
    part_free(p);
    return rc;
}

/* pwrite with the fault point; returns what pwrite returns. */
static ssize_t pwrite_once(int fd, const void *data, size_t n, uint64_t off)
{
    int fault = qd_fault_here(QD_FAULT_WRITE);
    if (fault != 0) {
        errno = fault;
        return -1;
    }
    ssize_t put;
    do {
        put = pwrite(fd, data, n, (off_t)off);
    } while (put < 0 && errno == EINTR);
    return put;
}

static qd_code fail_write(const part *p, uint64_t off, size_t n, int sys_errno, qd_err *err)
{
    return qd_fail_errno(err, QD_E_IO, sys_errno, "%s: writing %zu bytes at offset %" PRIu64, p->path, n, off);
}

static qd_code write_buffered(const part *p, uint64_t off, const char *data, size_t n, qd_err *err)
{
    for (size_t at = 0; at < n;) {
        ssize_t put = pwrite_once(p->fd, data + at, n - at, off + at);
        if (put <= 0) return fail_write(p, off, n, put < 0 ? errno : EIO, err);
        at += (size_t)put;
    }
    return QD_OK;
}

/* n, off and data are multiples of QD_IO_ALIGN. *ret_put < n: the rest has to go through the page cache. */
static qd_code write_direct(part *p, uint64_t off, const char *data, size_t n, size_t *ret_put, qd_err *err)
{
    size_t at = 0;
    while (at < n && !atomic_load_explicit(&p->no_direct, memory_order_relaxed)) {
        ssize_t put = pwrite_once(p->direct_fd, data + at, n - at, off + at);
        if (put < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
            atomic_store_explicit(&p->no_direct, true, memory_order_relaxed);
            break;
        }
        if (put < 0) return fail_write(p, off, n, errno, err);
        size_t whole = (size_t)put & ~((size_t)QD_IO_ALIGN - 1);
        at += whole;
        if (whole == 0) break;
    }
    *ret_put = at;
    return QD_OK;
}

/* A page that waited: as one direct write when it is whole, else its pieces through the page cache. */
static qd_code write_page(part *p, const qd_edge_page *page, qd_err *err)
{
    size_t put = 0, n;
    qd_code rc = QD_OK;
    if (page->n_have == QD_IO_ALIGN) rc = write_direct(p, page->off, (const char *)page->data, QD_IO_ALIGN, &put, err);
    for (size_t at = put; rc == QD_OK && (n = qd_edge_piece(page, &at)) > 0; at += n)
        rc = write_buffered(p, page->off + at, (const char *)page->data + at, n, err);
    return rc;
}

/* n bytes of one page, which others share. */
static qd_code write_edge(part *p, bool may_wait, uint64_t off, const char *data, size_t n, qd_err *err)
{
    qd_edge_page *whole = NULL;
    if (n == 0) return QD_OK;
    if (!may_wait) return write_buffered(p, off, data, n, err);
    qd_code rc = qd_edges_add(&p->edges, off, data, n, &whole, err);
    if (whole != NULL) rc = write_page(p, whole, err);
    qd_free(whole);
    return rc;
}

static qd_code find_range(const dir_sink *d, uint32_t index, uint64_t off, uint64_t n, part **ret, qd_err *err)
{
    uint64_t end;
    if (index >= d->n_parts) return qd_fail(err, QD_E_INTERNAL, "%s: there is no part %" PRIu32, d->dir, index);
    *ret = d->parts[index];
    if (qd_add_u64(off, n, &end) && end <= (*ret)->size_bytes) return QD_OK;
    return qd_fail(err, QD_E_INTERNAL,
                   "%s: range of %" PRIu64 " bytes at offset %" PRIu64 " of a part of %" PRIu64 " bytes", (*ret)->path,
                   n, off, (*ret)->size_bytes);
}

static qd_code write_range(part *p, bool may_wait, uint64_t off, const char *from, size_t n, qd_err *err)
{
    const size_t mask = (size_t)QD_IO_ALIGN - 1;
    const size_t head = (size_t)qd_min_u64((0 - off) & mask, n), middle = (n - head) & ~mask;
    size_t put = 0;
    qd_code rc = QD_OK;
    if (p->direct_fd < 0 || (middle > 0 && (((uintptr_t)from ^ off) & mask) != 0))
        return write_buffered(p, off, from, n, err);
    /* Pages that this range covers only in part may be shared with a neighbour's range. */
    QD_TRY(write_edge(p, may_wait, off, from, head, err));
    if (middle > 0) {
        QD_TRY(write_direct(p, off + head, from + head, middle, &put, err));
        QD_TRY(write_buffered(p, off + head + put, from + head + put, middle - put, err));
    }
    QD_TRY(write_edge(p, may_wait, off + head + middle, from + head + middle, n - head - middle, err));
out:
    return rc;
}

static qd_code dir_write(qd_sink *k, uint32_t index, uint64_t off, const void *data, size_t n, qd_err *err)
{
    part *p = NULL;
    qd_code rc = find_range(k->ctx, index, off, n, &p, err);
    return rc == QD_OK ? write_range(p, false, off, data, n, err) : rc;
}

static qd_code dir_put(qd_sink *k, uint32_t index, uint64_t off, const void *data, size_t n, qd_err *err)
{
    part *p = NULL;
    qd_code rc = find_range(k->ctx, index, off, n, &p, err);
    return rc == QD_OK ? write_range(p, true, off, data, n, err) : rc;
}

static qd_code flush_part(part *p, uint64_t off, uint64_t n, qd_err *err)
{
    qd_code rc = QD_OK;
    for (qd_edge_page *page; rc == QD_OK && (page = qd_edges_take(&p->edges, off, n)) != NULL; qd_free(page))
        rc = write_page(p, page, err);
    return rc;
}

static qd_code dir_flush(qd_sink *k, uint32_t index, uint64_t off, uint64_t n, qd_err *err)
{
    part *p = NULL;
    qd_code rc = find_range(k->ctx, index, off, n, &p, err);
    return rc == QD_OK ? flush_part(p, off, n, err) : rc;
}

static qd_code dir_sync(qd_sink *k, qd_err *err)
{
    dir_sink *d = k->ctx;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        qd_code rc = flush_part(d->parts[i], 0, d->parts[i]->size_bytes, err);
        if (rc != QD_OK) return rc;
        int fault = qd_fault_here(QD_FAULT_SYNC);
        if (fault != 0 || fsync(d->parts[i]->fd) != 0)
            return qd_fail_errno(err, QD_E_IO, fault != 0 ? fault : errno, "%s: fsync", d->parts[i]->path);
    }
    int fault = qd_fault_here(QD_FAULT_SYNC);
    if (fault != 0 || fsync(d->dir_fd) != 0)
        return qd_fail_errno(err, QD_E_IO, fault != 0 ? fault : errno, "%s: fsync", d->dir);
    return QD_OK;
}

static void dir_free(qd_sink *k)
{
    dir_sink *d = k->ctx;
    for (uint32_t i = 0; i < d->n_parts; i++) part_free(d->parts[i]);
    if (d->dir_fd >= 0) (void)close(d->dir_fd);
    qd_free(d->parts);
    qd_free(d->dir);
    qd_free(d);
}

static const qd_sink_ops k_dir_ops = {dir_add_part, dir_write, dir_put, dir_flush, dir_sync, dir_free};

qd_code qd_sink_open_dir(const char *dir, qd_sink **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    dir_sink *d = qd_calloc(1, sizeof *d);
    if (d == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", dir);
    d->dir_fd = -1;
    d->base = (qd_sink){.ops = &k_dir_ops, .ctx = d};
    d->dir = qd_strdup(dir);
    if (d->dir == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", dir);
        goto out;
    }
    d->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir_fd < 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", dir);
        goto out;
    }
    *ret = &d->base;
    d = NULL; /* ownership moved */
out:
    if (d != NULL) dir_free(&d->base);
    return rc;
}
