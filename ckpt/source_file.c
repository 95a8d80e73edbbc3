/* source_file.c -- a source that is a local file: through the page cache for small reads, around it for bulk. */
#include "base/fault.h"
#include "base/mem.h"
#include "ckpt/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MINCORE_PAGES = 4096
};

typedef struct file_source {
    qd_source base;
    char *path;
    int fd, direct_fd; /* direct_fd is -1 where the file system has no O_DIRECT */
    dev_t dev;
    ino_t ino;
    atomic_bool no_direct; /* the file system refused it once */
    void *map;             /* never touched: only to ask what the page cache holds; NULL when it cannot be asked */
    uint64_t page_bytes;
} file_source;

static uint64_t mtime_ns(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

static qd_code shrank(const qd_source *s, uint64_t found, qd_err *err)
{
    return qd_fail(err, QD_E_CHANGED, "%s: shrank from %" PRIu64 " to %" PRIu64 " bytes or less while it was read",
                   s->name, s->size_bytes, found);
}

static qd_code check_range(const qd_source *s, uint64_t off, size_t n, qd_err *err)
{
    uint64_t end;
    if (qd_add_u64(off, n, &end) && end <= s->size_bytes && end <= INT64_MAX) return QD_OK;
    return qd_fail(err, QD_E_INPUT, "%s: expected %zu bytes at offset %" PRIu64 ", found a file of %" PRIu64 " bytes",
                   s->name, n, off, s->size_bytes);
}

/* pread with the fault point; returns what pread returns. */
static ssize_t pread_once(int fd, void *buf, size_t n, uint64_t off)
{
    int fault = qd_fault_here(QD_FAULT_READ);
    if (fault != 0) {
        errno = fault;
        return -1;
    }
    ssize_t got;
    do {
        got = pread(fd, buf, n, (off_t)off);
    } while (got < 0 && errno == EINTR);
    return got;
}

static qd_code read_buffered(qd_source *s, uint64_t off, void *buf, size_t n, qd_err *err)
{
    const file_source *f = s->ctx;
    for (size_t at = 0; at < n;) {
        ssize_t got = pread_once(f->fd, (char *)buf + at, n - at, off + at);
        if (got < 0)
            return qd_fail_errno(err, QD_E_IO, errno, "%s: reading %zu bytes at offset %" PRIu64, s->name, n, off);
        if (got == 0) return shrank(s, off + at, err);
        at += (size_t)got;
    }
    return QD_OK;
}

static qd_code file_read(qd_source *s, uint64_t off, void *buf, size_t n, qd_err *err)
{
    qd_code rc = check_range(s, off, n, err);
    return rc == QD_OK ? read_buffered(s, off, buf, n, err) : rc;
}

/* True when the page cache holds all of the range. Asked with mincore() on a mapping that is never touched, because
 * preadv2(RWF_NOWAIT) would start read-ahead into the cache where a page is missing, and the same bytes would be read
 * twice. */
static bool is_cached(const file_source *f, uint64_t off, size_t n)
{
    unsigned char page[MINCORE_PAGES];
    uint64_t at = off / f->page_bytes * f->page_bytes;
    if (f->map == NULL) return false;
    while (at < off + n) {
        size_t step = (size_t)qd_min_u64(MINCORE_PAGES * f->page_bytes, off + n - at);
        size_t n_pages = (size_t)qd_div_up(step, f->page_bytes);
        if (mincore((char *)f->map + at, step, page) != 0) return false;
        for (size_t i = 0; i < n_pages; i++)
            if ((page[i] & 1) == 0) return false;
        at += step;
    }
    return true;
}

/* The kernel answers mincore() truthfully only to those who own the file or may write to it; to others all seems
 * cached. */
static void map_for_questions(file_source *f, const struct stat *st)
{
    long page_bytes = sysconf(_SC_PAGESIZE);
    bool may_ask = st->st_uid == geteuid() || geteuid() == 0 || faccessat(AT_FDCWD, f->path, W_OK, AT_EACCESS) == 0;
    if (!may_ask || page_bytes <= 0 || st->st_size <= 0 || (uint64_t)st->st_size > SIZE_MAX) return;
    void *p = mmap(NULL, (size_t)st->st_size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, f->fd, 0);
    f->map = p == MAP_FAILED ? NULL : p; /* without it every bulk read goes around the cache */
    f->page_bytes = (uint64_t)page_bytes;
}

/* Reads [off, off + n) around the page cache into area, which begins with the byte at off rounded down. *ret_got < n:
 * the rest has to go through the page cache. */
static qd_code read_direct(qd_source *s, uint64_t off, size_t n, char *area, size_t *ret_got, qd_err *err)
{
    const size_t mask = (size_t)QD_IO_ALIGN - 1;
    file_source *f = s->ctx;
    const uint64_t start = off & ~(uint64_t)mask;
    const size_t lead = (size_t)(off - start);
    const size_t whole = (lead + n + mask) & ~mask;
    size_t at = 0; /* aligned */
    size_t have = 0;
    while (have < lead + n && f->direct_fd >= 0 && !atomic_load_explicit(&f->no_direct, memory_order_relaxed)) {
        ssize_t got = pread_once(f->direct_fd, area + at, whole - at, start + at);
        if (got < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
            atomic_store_explicit(&f->no_direct, true, memory_order_relaxed);
            break;
        }
        if (got < 0)
            return qd_fail_errno(err, QD_E_IO, errno, "%s: reading %zu bytes at offset %" PRIu64, s->name, n, off);
        if (got == 0) return shrank(s, start + at, err);
        have = at + (size_t)got;
        size_t next = have & ~mask;
        if (next == at) break; /* less than one unit: the end of the file, or no progress */
        at = next;
    }
    *ret_got = have <= lead ? 0 : (size_t)qd_min_u64(have - lead, n);
    return QD_OK;
}

/* The data lies in the area at the offset's own phase, so that cached, direct and buffered reads all fill the same
 * place. */
static qd_code file_read_area(qd_source *s, uint64_t off, size_t n, void *area, size_t area_bytes, void **ret_data,
                              qd_err *err)
{
    const size_t mask = (size_t)QD_IO_ALIGN - 1;
    qd_code rc = check_range(s, off, n, err);
    if (rc != QD_OK) return rc;
    if (((uintptr_t)area & mask) != 0 || n > SIZE_MAX - 2 * (size_t)QD_IO_ALIGN || area_bytes < qd_source_area_bytes(n))
        return qd_fail(err, QD_E_INTERNAL, "%s: area of %zu bytes for %zu bytes of data", s->name, area_bytes, n);
    char *data = (char *)area + ((size_t)off & mask);
    size_t at = 0;
    if (n > 0 && !is_cached(s->ctx, off, n)) QD_TRY(read_direct(s, off, n, area, &at, err));
    if (at < n) QD_TRY(read_buffered(s, off + at, data + at, n - at, err));
    *ret_data = data;
out:
    return rc;
}

static qd_code file_check(qd_source *s, qd_err *err)
{
    const file_source *f = s->ctx;
    struct stat st;
    if (fstat(f->fd, &st) != 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", s->name);
    if ((uint64_t)st.st_size != s->size_bytes)
        return qd_fail(err, QD_E_CHANGED, "%s: changed since it was opened: expected %" PRIu64 " bytes, found %" PRIu64,
                       s->name, s->size_bytes, (uint64_t)st.st_size);
    if (mtime_ns(&st) != s->mtime_ns)
        return qd_fail(err, QD_E_CHANGED, "%s: changed since it was opened: its modification time is another", s->name);
    if (stat(f->path, &st) != 0) {
        qd_code code = errno == ENOENT || errno == ENOTDIR ? QD_E_CHANGED : QD_E_IO;
        return qd_fail_errno(err, code, errno, "%s: no longer there", s->name);
    }
    if (st.st_dev != f->dev || st.st_ino != f->ino)
        return qd_fail(err, QD_E_CHANGED, "%s: replaced by another file since it was opened", s->name);
    return QD_OK;
}

static void file_free(qd_source *s)
{
    file_source *f = s->ctx;
    if (f->map != NULL) (void)munmap(f->map, (size_t)s->size_bytes);
    if (f->fd >= 0) (void)close(f->fd);
    if (f->direct_fd >= 0) (void)close(f->direct_fd);
    qd_free(f->path);
    qd_free(f);
}

static const qd_source_ops k_file_ops = {file_read, file_read_area, file_check, file_free};

qd_code qd_source_open_file(const char *path, qd_source **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    struct stat st, direct_st;
    file_source *f = qd_calloc(1, sizeof *f);
    if (f == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", path);
    f->fd = f->direct_fd = -1;
    f->base = (qd_source){.ops = &k_file_ops, .ctx = f};
    f->path = qd_strdup(path);
    f->base.name = f->path;
    if (f->path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", path);
        goto out;
    }
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not stop us before it is refused below */
    if (f->fd < 0 || fstat(f->fd, &st) != 0) {
        bool theirs = f->fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP);
        rc = qd_fail_errno(err, theirs ? QD_E_INPUT : QD_E_IO, errno, "%s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected a regular file, found %s", path,
                     S_ISDIR(st.st_mode) ? "a directory" : "something else");
        goto out;
    }
    f->base.size_bytes = (uint64_t)st.st_size;
    f->base.mtime_ns = mtime_ns(&st);
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->direct_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    if (f->direct_fd >= 0 &&
        (fstat(f->direct_fd, &direct_st) != 0 || direct_st.st_dev != st.st_dev || direct_st.st_ino != st.st_ino)) {
        rc = qd_fail(err, QD_E_CHANGED, "%s: replaced by another file while it was opened", path);
        goto out;
    }
    map_for_questions(f, &st);
    *ret = &f->base;
    f = NULL; /* ownership moved */
out:
    if (f != NULL) file_free(&f->base);
    return rc;
}
