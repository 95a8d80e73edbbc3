#include "base/file.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    COPY_BYTES = 1 << 18,
    TREE_DEPTH_MAX = 32
};

static qd_code fail_open(const char *path, int sys_errno, qd_err *err)
{
    qd_code code =
        sys_errno == ENOENT || sys_errno == EACCES || sys_errno == ENOTDIR || sys_errno == ELOOP ? QD_E_INPUT : QD_E_IO;
    return qd_fail_errno(err, code, sys_errno, "%s", path);
}

static qd_code read_all(int fd, const char *path, char *data, size_t n, qd_err *err)
{
    for (size_t at = 0; at < n;) {
        int fault = qd_fault_here(QD_FAULT_READ);
        ssize_t got = fault ? -1 : read(fd, data + at, n - at);
        if (fault) errno = fault;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", path);
        if (got == 0)
            return qd_fail(err, QD_E_CHANGED, "%s: shrank from %zu to %zu bytes while it was read", path, n, at);
        at += (size_t)got;
    }
    return QD_OK;
}

static qd_code write_all(int fd, const char *path, const char *data, size_t n, qd_err *err)
{
    for (size_t at = 0; at < n;) {
        int fault = qd_fault_here(QD_FAULT_WRITE);
        ssize_t put = fault ? -1 : write(fd, data + at, n - at);
        if (fault) errno = fault;
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", path);
        at += (size_t)put;
    }
    return QD_OK;
}

static qd_code sync_fd(int fd, const char *path, qd_err *err)
{
    int fault = qd_fault_here(QD_FAULT_SYNC);
    if (fault || fsync(fd) != 0) return qd_fail_errno(err, QD_E_IO, fault ? fault : errno, "%s: fsync", path);
    return QD_OK;
}

qd_code qd_file_read(const char *path, uint64_t max_bytes, char **ret_text, size_t *ret_len, qd_err *err)
{
    char *text = NULL;
    qd_code rc = QD_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_open(path, errno, err);
    if (fstat(fd, &st) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected a regular file", path);
        goto out;
    }
    if ((uint64_t)st.st_size > max_bytes) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected at most %" PRIu64 " bytes, found %" PRIu64, path, max_bytes,
                     (uint64_t)st.st_size);
        goto out;
    }
    text = qd_malloc((size_t)st.st_size + 1);
    if (text == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for %" PRIu64 " bytes", path, (uint64_t)st.st_size);
        goto out;
    }
    QD_TRY(read_all(fd, path, text, (size_t)st.st_size, err));
    text[st.st_size] = '\0';
    *ret_text = text;
    *ret_len = (size_t)st.st_size;
    text = NULL;
out:
    qd_free(text);
    (void)close(fd);
    return rc;
}

bool qd_kernel_line(const char *path, char *ret, size_t bytes)
{
    FILE *f = fopen(path, "re");
    ret[0] = '\0';
    if (f == NULL) return false;
    bool ok = fgets(ret, (int)bytes, f) != NULL;
    (void)fclose(f);
    const size_t n = strcspn(ret, "\n");
    ok = ok && (ret[n] == '\n' || n < bytes - 1);
    ret[ok ? n : 0] = '\0';
    return ok;
}

qd_code qd_file_replace(const char *path, const void *data, size_t n, qd_err *err)
{
    qd_buf tmp = {0};
    qd_code rc = QD_OK;
    int fd = -1;
    bool made = false;
    qd_buf_printf(&tmp, "%s.new", path);
    QD_TRY(qd_buf_check(&tmp, err));
    fd = open(tmp.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", tmp.data);
        goto out;
    }
    made = true;
    QD_TRY(write_all(fd, tmp.data, data, n, err));
    QD_TRY(sync_fd(fd, tmp.data, err));
    int fault = qd_fault_here(QD_FAULT_RENAME);
    if (fault || rename(tmp.data, path) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, fault ? fault : errno, "%s: rename", path);
        goto out;
    }
    made = false;
out:
    if (fd >= 0) (void)close(fd);
    if (made) (void)unlink(tmp.data);
    qd_buf_done(&tmp);
    return rc;
}

qd_code qd_file_copy(const char *from, const char *to, qd_err *err)
{
    qd_code rc = QD_OK;
    int in = -1, out = -1;
    struct stat st;
    char *chunk = qd_malloc(COPY_BYTES);
    if (chunk == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", from);
    in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (in < 0) {
        rc = fail_open(from, errno, err);
        goto out;
    }
    if (fstat(in, &st) != 0 || !S_ISREG(st.st_mode)) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected a regular file", from);
        goto out;
    }
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (out < 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", to);
        goto out;
    }
    for (uint64_t left = (uint64_t)st.st_size; left > 0;) {
        size_t n = (size_t)qd_min_u64(left, COPY_BYTES);
        QD_TRY(read_all(in, from, chunk, n, err));
        QD_TRY(write_all(out, to, chunk, n, err));
        left -= n;
    }
    QD_TRY(sync_fd(out, to, err));
out:
    qd_free(chunk);
    if (in >= 0) (void)close(in);
    if (out >= 0) (void)close(out);
    return rc;
}

qd_code qd_dir_sync(const char *path, qd_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", path);
    qd_code rc = sync_fd(fd, path, err);
    (void)close(fd);
    return rc;
}

static qd_code remove_at(int dir_fd, const char *name, int depth, qd_err *err)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) return QD_OK;
    if (errno != EISDIR && errno != EPERM) return qd_fail_errno(err, QD_E_IO, errno, "%s: unlink", name);
    if (depth >= TREE_DEPTH_MAX)
        return qd_fail(err, QD_E_IO, "%s: nested deeper than %d directories", name, TREE_DEPTH_MAX);
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", name);
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        int e = errno;
        (void)close(fd);
        return qd_fail_errno(err, QD_E_IO, e, "%s", name);
    }
    qd_code rc = QD_OK;
    for (struct dirent *e; rc == QD_OK && (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) rc = remove_at(fd, e->d_name, depth + 1, err);
    (void)closedir(d);
    if (rc == QD_OK && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s: rmdir", name);
    return rc;
}

qd_code qd_tree_remove(const char *path, qd_err *err)
{
    return remove_at(AT_FDCWD, path, 0, err);
}

bool qd_path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool qd_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
