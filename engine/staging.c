#include "engine/staging.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
}

char *qd_staging_path(const qd_staging *s, const char *name)
{
    return qd_path_join(s->dir, name);
}

/* Locks the directory that the path names now: a rename between open and flock means another run finished; look again.
 */
static qd_code hold(qd_staging *s, qd_err *err)
{
    for (int tries = 0; tries < 16; tries++) {
        struct stat at_path, held;
        s->found = mkdir(s->dir, 0755) != 0;
        if (s->found && errno != EEXIST)
            return qd_fail_errno(err, errno == ENOENT ? QD_E_INPUT : QD_E_IO, errno, "%s", s->dir);
        int fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) continue;
        if (fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", s->dir);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int e = errno;
            (void)close(fd);
            if (e == EWOULDBLOCK)
                return qd_fail(err, QD_E_BUSY,
                               "%s: another run is writing it; wait for it to end or choose another output", s->out);
            return qd_fail_errno(err, QD_E_IO, e, "%s: lock", s->dir);
        }
        if (fstat(fd, &held) == 0 && stat(s->dir, &at_path) == 0 && held.st_ino == at_path.st_ino &&
            held.st_dev == at_path.st_dev) {
            s->lock_fd = fd;
            return QD_OK;
        }
        (void)close(fd);
    }
    return qd_fail(err, QD_E_BUSY, "%s: other runs keep replacing it", s->dir);
}

qd_code qd_staging_open(const char *out_dir, const char *staging_dir, bool resume, bool force, qd_staging *ret,
                        qd_err *err)
{
    qd_code rc = QD_OK;
    qd_buf dir = {0};
    qd_staging s = {.lock_fd = -1};
    size_t n = strlen(out_dir);
    while (n > 1 && out_dir[n - 1] == '/') n--;
    s.out = qd_strndup(out_dir, n);
    if (staging_dir != NULL)
        qd_buf_str(&dir, staging_dir);
    else
        qd_buf_printf(&dir, "%.*s.staging", (int)n, out_dir);
    if (s.out == NULL || dir.failed) {
        rc = no_memory(err);
        goto out;
    }
    s.dir = dir.data;
    memset(&dir, 0, sizeof dir);
    if (n == 0 || strcmp(qd_path_base(s.out), "..") == 0 || strcmp(qd_path_base(s.out), ".") == 0 ||
        strcmp(s.out, "/") == 0) {
        rc = qd_fail(err, QD_E_USAGE, "\"%s\": expected the name of a new directory", out_dir);
        goto out;
    }
    if (qd_path_exists(s.out) && !force) {
        rc = qd_fail(err, QD_E_BUSY, "%s exists: choose another output, or --force to replace it", s.out);
        goto out;
    }
    QD_TRY(hold(&s, err));
    if (s.found && !resume && !force) {
        rc = qd_fail(err, QD_E_BUSY, "%s is there from an earlier run: --resume goes on with it, --force starts anew",
                     s.dir);
        goto out;
    }
    *ret = s;
    memset(&s, 0, sizeof s);
    s.lock_fd = -1;
out:
    qd_buf_done(&dir);
    qd_staging_close(&s, false);
    return rc;
}

qd_code qd_staging_empty(const qd_staging *s, qd_err *err)
{
    qd_code rc = QD_OK;
    DIR *d = opendir(s->dir);
    if (d == NULL) return qd_fail_errno(err, QD_E_IO, errno, "%s", s->dir);
    for (struct dirent *e; rc == QD_OK && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = qd_staging_path(s, e->d_name);
        rc = path == NULL ? no_memory(err) : qd_tree_remove(path, err);
        qd_free(path);
    }
    (void)closedir(d);
    return rc;
}

static int rename_flags(const char *from, const char *to, unsigned flags)
{
    int fault = qd_fault_here(QD_FAULT_RENAME);
    if (fault) {
        errno = fault;
        return -1;
    }
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

qd_code qd_staging_commit(qd_staging *s, bool force, qd_err *err)
{
    qd_code rc = QD_OK;
    char parent[4096];
    (void)snprintf(parent, sizeof parent, "%s", s->out);
    if (rename_flags(s->dir, s->out, RENAME_NOREPLACE) == 0) goto sync;
    if (errno == EINVAL ||
        errno == ENOSYS) { /* a file system without the flag: the look and the rename are two steps */
        if (!qd_path_exists(s->out) && rename_flags(s->dir, s->out, 0) == 0) goto sync;
    }
    if (errno != EEXIST) return qd_fail_errno(err, QD_E_IO, errno, "%s: rename to %s", s->dir, s->out);
    if (!force) return qd_fail(err, QD_E_BUSY, "%s appeared while the job ran; the result is in %s", s->out, s->dir);
    /* The old directory leaves only in the step in which the new one is there. */
    if (rename_flags(s->dir, s->out, RENAME_EXCHANGE) != 0)
        return qd_fail_errno(err, QD_E_IO, errno, "%s: exchange with %s", s->dir, s->out);
    s->committed = true;
    rc = qd_tree_remove(s->dir, err);
    if (rc != QD_OK) {
        qd_err_context(err, "%s is in place, but what it replaces is not gone", s->out);
        return rc;
    }
sync:
    s->committed = true;
    rc = qd_dir_sync(dirname(parent), err);
    if (rc != QD_OK) qd_err_context(err, "%s is in place, but a power loss may undo that", s->out);
    return rc;
}

void qd_staging_close(qd_staging *s, bool remove)
{
    if (s == NULL) return;
    if (remove && s->lock_fd >= 0 && s->dir != NULL) {
        qd_code ignored = qd_tree_remove(s->dir, NULL); /* the error that led here is the one to tell */
        (void)ignored;
    }
    if (s->lock_fd >= 0) (void)close(s->lock_fd);
    qd_free(s->out);
    qd_free(s->dir);
    memset(s, 0, sizeof *s);
    s->lock_fd = -1;
}
