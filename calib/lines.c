#include "calib/lines.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHUNK_BYTES = 1 << 16
};

struct qd_lines {
    char *path; /* owned */
    int fd;
    uint64_t number, read_bytes;
    size_t at, n; /* of chunk */
    bool end;     /* of the file */
    qd_buf line;
    char chunk[CHUNK_BYTES];
};

qd_code qd_lines_open(const char *path, uint64_t bytes_max, qd_lines **ret, qd_err *err)
{
    struct stat st;
    qd_code rc = QD_OK;
    qd_lines *l = qd_calloc(1, sizeof *l);
    if (l == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", path);
    l->path = qd_strdup(path);
    l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (l->path == NULL)
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", path);
    else if (l->fd < 0)
        rc = qd_fail_errno(err, errno == ENOENT || errno == EACCES || errno == ENOTDIR ? QD_E_INPUT : QD_E_IO, errno,
                           "%s", path);
    else if (fstat(l->fd, &st) != 0)
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = qd_fail(err, QD_E_INPUT, "%s: expected a regular file", path);
    else if ((uint64_t)st.st_size > bytes_max)
        rc = qd_fail(err, QD_E_INPUT, "%s: expected at most %" PRIu64 " bytes, found %" PRIu64, path, bytes_max,
                     (uint64_t)st.st_size);
    if (rc != QD_OK)
        qd_lines_free(l);
    else
        *ret = l;
    return rc;
}

static qd_code refill(qd_lines *l, qd_err *err)
{
    ssize_t got;
    do {
        int fault = qd_fault_here(QD_FAULT_READ);
        got = fault ? -1 : read(l->fd, l->chunk, sizeof l->chunk);
        if (fault) errno = fault;
    } while (got < 0 && errno == EINTR);
    if (got < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", l->path);
    const char *zero = memchr(l->chunk, '\0', (size_t)got);
    if (zero != NULL)
        return qd_fail(err, QD_E_INPUT, "%s: this is no text: byte %" PRIu64 " is 0", l->path,
                       l->read_bytes + (uint64_t)(zero - l->chunk));
    l->read_bytes += (uint64_t)got;
    l->at = 0;
    l->n = (size_t)got;
    l->end = got == 0;
    return QD_OK;
}

qd_code qd_lines_next(qd_lines *l, qd_line *ret, bool *ret_end, qd_err *err)
{
    bool too_long = false, whole = false, any = false;
    qd_buf_reset(&l->line);
    qd_buf_str(&l->line, "");
    while (!whole) {
        if (l->at == l->n) {
            qd_code rc = l->end ? QD_OK : refill(l, err);
            if (rc != QD_OK) return rc;
            if (l->end) break;
        }
        const char *from = l->chunk + l->at, *lf = memchr(from, '\n', l->n - l->at);
        size_t n = lf != NULL ? (size_t)(lf - from) : l->n - l->at;
        whole = lf != NULL;
        any = true;
        too_long = too_long || l->line.len + n > QD_LINE_BYTES_MAX;
        if (!too_long) qd_buf_add(&l->line, from, n);
        l->at += n + (whole ? 1 : 0);
    }
    if (any) l->number++;
    *ret = (qd_line){l->line.data, l->line.len, l->number, !whole, too_long};
    *ret_end = !any;
    return qd_buf_check(&l->line, err);
}

void qd_lines_free(qd_lines *l)
{
    if (l == NULL) return;
    if (l->fd >= 0) (void)close(l->fd);
    qd_buf_done(&l->line);
    qd_free(l->path);
    qd_free(l);
}
