#include "calib/activations.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A file that nobody else sees and that is gone with the process. */
static int open_nameless(const char *dir)
{
    char path[4096];
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
    if (snprintf(path, sizeof path, "%s/.activations-XXXXXX", dir) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) (void)unlink(path);
    return fd;
}

static qd_code map_file(qd_activations *a, const char *dir, qd_err *err)
{
    qd_code rc = QD_OK;
    if (dir == NULL) dir = getenv("TMPDIR");
    if (dir == NULL || dir[0] == '\0') dir = "/tmp";
    int fd = open_nameless(dir);
    if (fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s: cannot make a file for activations", dir);
    int e = posix_fallocate(fd, 0, (off_t)a->bytes); /* a page without room would end the process */
    if (e != 0) {
        rc = qd_fail_errno(err, QD_E_IO, e, "%s: %" PRIu64 " bytes for activations", dir, a->bytes);
        goto out;
    }
    void *p = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s: cannot map %" PRIu64 " bytes of activations", dir, a->bytes);
        goto out;
    }
    a->data = p;
    a->spilled = true;
out:
    (void)close(fd);
    return rc;
}

qd_code qd_activations_open(qd_dtype dtype, uint64_t rows, uint64_t cols, uint64_t memory_bytes, const char *dir,
                            qd_activations *ret, qd_err *err)
{
    qd_activations a = {.dtype = dtype, .rows = rows, .cols = cols};
    qd_code rc = QD_OK;
    if (!qd_mul_u64(rows, cols, &a.bytes) || !qd_mul_u64(a.bytes, qd_dtype_bytes(dtype), &a.bytes) ||
        a.bytes > INT64_MAX)
        return qd_fail(err, QD_E_ROOM, "%" PRIu64 " x %" PRIu64 " activations are too many", rows, cols);
    if (a.bytes > memory_bytes) {
        rc = map_file(&a, dir, err);
    } else {
        a.data = qd_map(a.bytes == 0 ? 1 : a.bytes);
        if (a.data == NULL) rc = qd_fail(err, QD_E_NO_MEMORY, "%" PRIu64 " bytes for activations", a.bytes);
    }
    if (rc == QD_OK) *ret = a;
    return rc;
}

void qd_activations_done(qd_activations *a)
{
    if (a == NULL) return;
    qd_unmap(a->data, a->bytes == 0 ? 1 : a->bytes);
    memset(a, 0, sizeof *a);
}
