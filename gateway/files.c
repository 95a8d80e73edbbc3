/* files.c -- uploads: streamed to a name that nobody looks for, made durable, renamed, and only then recorded. */
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/mem.h"
#include "base/path.h"
#include "gateway/backend_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    PATH_BYTES = 4096,
    RESERVE_BYTES = 1 << 20, /* room is asked for in steps of that */
    ORPHAN_S = 3600,         /* a whole file without a record for that long was never recorded */
    PART_S = 24 * 3600,      /* an upload that has not grown for that long is given up */
    END_CHARS_MAX = 12
};

static const char k_part[] = ".part";

struct qd_upload {
    qd_backend_bus *b;
    char tenant[QD_ID_BYTES], user[QD_NAME_MAX + 1], name[257], id[QD_ID_BYTES];
    char part[PATH_BYTES], path[PATH_BYTES], dir[PATH_BYTES];
    int fd; /* -1: closed */
    bool renamed;
    uint64_t bytes, reserved;
    EVP_MD_CTX *md5;
};

/* ".jsonl": what tells a reader of calibration data the format; "" where it is none. */
static void end_of(const char *name, char ret[END_CHARS_MAX + 2])
{
    const char *dot = strrchr(name, '.');
    size_t n = dot == NULL ? 0 : strlen(dot + 1);
    ret[0] = '\0';
    if (n == 0 || n > END_CHARS_MAX || strspn(dot + 1, "abcdefghijklmnopqrstuvwxyz0123456789") != n) return;
    (void)snprintf(ret, END_CHARS_MAX + 2, "%s", dot);
}

static qd_code check_disk(const qd_backend_bus *b, uint64_t more, qd_err *err)
{
    struct statvfs v;
    if (b->cfg.disk_free_bytes == 0 || statvfs(b->cfg.files_root, &v) != 0) return QD_OK;
    uint64_t left = (uint64_t)v.f_bavail * v.f_frsize;
    if (left < b->cfg.disk_free_bytes || left - b->cfg.disk_free_bytes < more)
        return qd_fail(err, QD_E_ROOM, "the file system of uploads has %llu bytes left, %llu are kept free",
                       (unsigned long long)left, (unsigned long long)b->cfg.disk_free_bytes);
    return QD_OK;
}

static qd_code make_id(char ret[QD_ID_BYTES], qd_err *err)
{
    uint8_t bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return qd_fail_errno(err, QD_E_INTERNAL, errno, "no random bytes");
    int at = snprintf(ret, QD_ID_BYTES, "file-");
    qd_hex(bytes, sizeof bytes, ret + at);
    return QD_OK;
}

void qd_upload_drop(qd_upload *u)
{
    if (u == NULL) return;
    if (u->fd >= 0) (void)close(u->fd);
    if (!u->renamed && u->part[0] != '\0') (void)unlink(u->part);
    EVP_MD_CTX_free(u->md5);
    if (u->reserved != 0) qd_keys_release(u->b->keys, u->tenant, 1, u->reserved);
    qd_free(u);
}

qd_code qd_upload_begin(qd_backend_bus *b, const qd_caller *c, const char *name, qd_upload **ret, qd_err *err)
{
    char end[END_CHARS_MAX + 2];
    qd_code rc = QD_OK;
    if (!qd_name_is_plain(name) || !qd_str_is_utf8(name))
        return qd_fail(err, QD_E_INPUT, "a file's name has to be a plain one, in UTF-8, of at most 255 bytes");
    qd_upload *u = qd_calloc(1, sizeof *u);
    if (u == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for an upload");
    u->b = b;
    u->fd = -1;
    end_of(name, end);
    (void)snprintf(u->tenant, sizeof u->tenant, "%s", c->tenant);
    (void)snprintf(u->user, sizeof u->user, "%s", c->user);
    (void)snprintf(u->name, sizeof u->name, "%s", name);
    QD_TRY(make_id(u->id, err));
    (void)snprintf(u->dir, sizeof u->dir, "%.3800s/%s", b->cfg.files_root, u->tenant);
    (void)snprintf(u->path, sizeof u->path, "%.3900s/%s%s", u->dir, u->id, end);
    QD_TRY(check_disk(b, 0, err));
    QD_TRY(qd_keys_reserve(b->keys, u->tenant, 1, 1, err)); /* nothing left: say so before the data comes */
    u->reserved = 1;
    if (mkdir(u->dir, 0750) != 0 && errno != EEXIST) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", u->dir);
        goto out;
    }
    u->md5 = EVP_MD_CTX_new();
    if (u->md5 == NULL || EVP_DigestInit_ex(u->md5, EVP_md5(), NULL) != 1) {
        rc = qd_fail(err, QD_E_INTERNAL, "no MD5");
        goto out;
    }
    (void)snprintf(u->part, sizeof u->part, "%.3900s/.%s%s", u->dir, u->id, k_part);
    u->fd = open(u->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (u->fd < 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", u->part);
        goto out;
    }
    *ret = u;
    u = NULL;
out:
    qd_upload_drop(u);
    return rc;
}

qd_code qd_upload_write(qd_upload *u, const void *data, size_t n, qd_err *err)
{
    const qd_backend_config *cfg = &u->b->cfg;
    qd_code rc = QD_OK;
    if (cfg->file_bytes_max != 0 && (n > cfg->file_bytes_max || u->bytes > cfg->file_bytes_max - n))
        return qd_fail(err, QD_E_TOO_LARGE, "%.100s: larger than %llu bytes", u->name,
                       (unsigned long long)cfg->file_bytes_max);
    while (u->reserved < u->bytes + n) { /* in steps; what is left of a tenant's room may be less than one */
        uint64_t need = u->bytes + n - u->reserved, more = qd_max_u64(need, RESERVE_BYTES);
        rc = check_disk(u->b, need, err);
        if (rc == QD_OK && qd_keys_reserve(u->b->keys, u->tenant, 0, more, NULL) != QD_OK) {
            more = need;
            rc = qd_keys_reserve(u->b->keys, u->tenant, 0, need, err);
        }
        if (rc != QD_OK) return rc;
        u->reserved += more;
    }
    for (size_t at = 0; at < n;) {
        int fault = qd_fault_here(QD_FAULT_WRITE);
        ssize_t put = fault != 0 ? -1 : write(u->fd, (const char *)data + at, n - at);
        if (put < 0 && fault == 0 && errno == EINTR) continue;
        if (put < 0) return qd_fail_errno(err, QD_E_IO, fault != 0 ? fault : errno, "%s", u->part);
        at += (size_t)put;
    }
    if (EVP_DigestUpdate(u->md5, data, n) != 1) return qd_fail(err, QD_E_INTERNAL, "no MD5");
    u->bytes += n;
    return QD_OK;
}

/* The whole file under its own name, durable. */
static qd_code settle(qd_upload *u, qd_err *err)
{
    int fault = qd_fault_here(QD_FAULT_SYNC);
    if (fault != 0 || fsync(u->fd) != 0)
        return qd_fail_errno(err, QD_E_IO, fault != 0 ? fault : errno, "%s: fsync", u->part);
    if (close(u->fd) != 0) {
        u->fd = -1;
        return qd_fail_errno(err, QD_E_IO, errno, "%s", u->part);
    }
    u->fd = -1;
    fault = qd_fault_here(QD_FAULT_RENAME);
    if (fault != 0 || rename(u->part, u->path) != 0)
        return qd_fail_errno(err, QD_E_IO, fault != 0 ? fault : errno, "%s: rename", u->part);
    u->renamed = true;
    return qd_dir_sync(u->dir, err);
}

static qd_code describe(qd_upload *u, const char *purpose, const char *description, qd_file_meta **ret, qd_err *err)
{
    uint8_t digest[16];
    char md5[33];
    unsigned n = 0;
    qd_code rc = QD_OK;
    qd_file_meta *m = qd_file_meta_new();
    if (m == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a file");
    if (EVP_DigestFinal_ex(u->md5, digest, &n) != 1 || n != sizeof digest) {
        rc = qd_fail(err, QD_E_INTERNAL, "no MD5");
        goto out;
    }
    qd_hex(digest, sizeof digest, md5);
    const struct {
        char **field;
        const char *value;
    } texts[] = {{&m->id, u->id},        {&m->tenant, u->tenant},        {&m->user, u->user}, {&m->name, u->name},
                 {&m->purpose, purpose}, {&m->description, description}, {&m->path, u->path}, {&m->md5, md5}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        QD_TRY(qd_text_set(texts[i].field, texts[i].value, err));
    m->size_bytes = u->bytes;
    m->created_ms = qd_unix_ms();
    QD_TRY(qd_msg_check(&m->base, err)); /* before anything is to be seen */
    *ret = m;
    m = NULL;
out:
    qd_msg_free(m);
    return rc;
}

qd_code qd_upload_end(qd_upload *u, const qd_ask *a, const char *purpose, const char *description, qd_file_meta **ret,
                      qd_err *err)
{
    qd_file_meta *m = NULL;
    qd_code rc = QD_OK;
    QD_TRY(describe(u, purpose, description, &m, err));
    QD_TRY(settle(u, err));
    qd_call_file call = {.ask = a, .meta = m};
    rc = qd_callers_do(u->b->callers, qd_call_file_put, &call, err);
    /* AWAY: it may be recorded yet; if not, it is an orphan to be swept. */
    if (rc != QD_OK && rc != QD_E_AWAY) (void)unlink(u->path);
    if (rc != QD_OK) goto out;
    *ret = m;
    m = NULL;
out:
    qd_msg_free(m);
    qd_upload_drop(u);
    return rc;
}

static void sweep_dir(qd_backend_bus *b, const char *tenant)
{
    char dir[PATH_BYTES], path[PATH_BYTES + 512];
    time_t now = time(NULL);
    (void)snprintf(dir, sizeof dir, "%.3800s/%s", b->cfg.files_root, tenant);
    DIR *d = opendir(dir);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        char id[QD_ID_BYTES];
        bool part = strncmp(e->d_name, ".file-", 6) == 0 && qd_str_ends(e->d_name, k_part);
        if (!part && strncmp(e->d_name, "file-", 5) != 0) continue;
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) continue;
        (void)snprintf(id, sizeof id, "%.37s", e->d_name);
        bool old = now - st.st_mtime > (part ? PART_S : ORPHAN_S);
        if (old && (part || !qd_keys_has_file(b->keys, id)) && unlink(path) == 0)
            qd_glog_say(b->cfg.log, QD_LOG_INFO, "removed what an upload has left: %s", path);
    }
    (void)closedir(d);
}

void qd_files_sweep(qd_backend_bus *b)
{
    DIR *d = opendir(b->cfg.files_root);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (qd_id_ok(e->d_name)) sweep_dir(b, e->d_name);
    (void)closedir(d);
}
