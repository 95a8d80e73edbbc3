#include "daemon/disk.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "daemon/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATH_BYTES = 4096,
    ROOT_DEPTH = 2,
    ID_CHARS_MIN = 8, /* a shorter last part of a name is no job's */
    REPORT_BYTES_MAX = 256 << 20
};

static const char k_staging[] = ".staging.", k_trash[] = ".quantd-trash.";

/* "<stem>.staging.<epoch>": bytes of the stem, or 0. */
static size_t staging_stem(const char *name, uint64_t *ret_epoch)
{
    const char *last = NULL;
    for (const char *p = name; (p = strstr(p, k_staging)) != NULL; p++) last = p;
    if (last == NULL || last == name) return 0;
    const char *digits = last + sizeof k_staging - 1;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 18 || digits[n] != '\0') return 0;
    *ret_epoch = strtoull(digits, NULL, 10);
    return (size_t)(last - name);
}

/* A record that names a place which is not the service's is refused before it runs; no path of it is touched. */
static bool is_ours(const void *ctx, const qd_job_record *rec)
{
    return qd_path_below(rec->spec->output_path, ((const qd_disk *)ctx)->roots);
}

static qd_code split(const char *path, char ret_parent[PATH_BYTES], const char **ret_name, qd_err *err)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path || slash[1] == '\0' || strlen(path) >= PATH_BYTES - 64)
        return qd_fail(err, QD_E_INPUT, "output \"%.200s\": expected the absolute path of a directory", path);
    (void)snprintf(ret_parent, PATH_BYTES, "%.*s", (int)(slash - path), path);
    *ret_name = slash + 1;
    return QD_OK;
}

/* One rename; who finds the source gone was late, which is no error. */
static qd_code move(const char *from, const char *to, bool *ret_moved, qd_err *err)
{
    int fault = qd_fault_here(QD_FAULT_RENAME);
    *ret_moved = !fault && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0;
    if (*ret_moved) return QD_OK;
    int e = fault ? fault : errno;
    if (e == EINVAL || e == ENOSYS) { /* a file system without the flag */
        if (!qd_path_exists(to)) *ret_moved = rename(from, to) == 0;
        if (*ret_moved) return QD_OK;
        e = errno;
    }
    if (e == ENOENT || e == EEXIST || e == ENOTEMPTY) return QD_OK;
    return qd_fail_errno(err, QD_E_IO, e, "%s: rename to %s", from, to);
}

static qd_code to_trash(const char *path, qd_err *err)
{
    char parent[PATH_BYTES], trash[PATH_BYTES + 512];
    const char *name = NULL;
    bool moved = false;
    qd_code rc = split(path, parent, &name, err);
    if (rc != QD_OK) return rc;
    for (unsigned i = 0; i < 4 && !moved && qd_path_exists(path); i++) {
        (void)snprintf(trash, sizeof trash, "%s/%s%.180s.%" PRIx64, parent, k_trash, name, qd_mono_ns() + i);
        rc = move(path, trash, &moved, err);
        if (rc != QD_OK) return rc;
    }
    /* No fsync, which would wait for all that the job has just written: what a power failure brings back belongs to a
     * job that has ended, and the sweep takes it. */
    return QD_OK;
}

typedef qd_code (*staging_fn)(void *ctx, const char *path, uint64_t epoch, qd_err *err);

/* Every staging directory of an OUT; a parent that is not there has none. */
static qd_code each_staging(const char *out, staging_fn fn, void *ctx, qd_err *err)
{
    char parent[PATH_BYTES], path[PATH_BYTES + 512];
    const char *name = NULL;
    qd_code rc = split(out, parent, &name, err);
    if (rc != QD_OK || name == NULL) return rc;
    DIR *d = opendir(parent);
    if (d == NULL && errno == ENOENT) return QD_OK;
    if (d == NULL) return qd_fail_errno(err, QD_E_IO, errno, "%s", parent);
    for (struct dirent *e; rc == QD_OK && (e = readdir(d)) != NULL;) {
        uint64_t epoch = 0;
        size_t stem = staging_stem(e->d_name, &epoch);
        if (stem == 0 || stem != strlen(name) || strncmp(e->d_name, name, stem) != 0) continue;
        (void)snprintf(path, sizeof path, "%s/%s", parent, e->d_name);
        rc = fn(ctx, path, epoch, err);
    }
    (void)closedir(d);
    return rc;
}

typedef struct newest {
    uint64_t below, epoch; /* epoch 0: none */
    bool own;              /* one of epoch `below` itself */
    char path[PATH_BYTES + 512];
} newest;

static qd_code find_newest(void *ctx, const char *path, uint64_t epoch, qd_err *err)
{
    newest *n = ctx;
    (void)err;
    if (epoch == n->below) n->own = true;
    if (epoch >= n->below || epoch < n->epoch) return QD_OK;
    n->epoch = epoch;
    (void)snprintf(n->path, sizeof n->path, "%s", path);
    return QD_OK;
}

static qd_code adopt(void *ctx, const qd_job_record *rec, bool *ret_found, qd_err *err)
{
    char mine[PATH_BYTES + 64], parent[PATH_BYTES];
    const char *name = NULL;
    bool moved = false;
    newest n = {.below = rec->epoch};
    qd_code rc = QD_OK;
    *ret_found = false;
    if (!is_ours(ctx, rec)) return QD_OK;
    QD_TRY(split(rec->spec->output_path, parent, &name, err));
    QD_TRY(each_staging(rec->spec->output_path, find_newest, &n, err));
    if (n.epoch != 0 && !n.own) {
        (void)snprintf(mine, sizeof mine, "%s%s%" PRIu64, rec->spec->output_path, k_staging, (uint64_t)rec->epoch);
        QD_TRY(move(n.path, mine, &moved, err));
        if (moved) QD_TRY(qd_dir_sync(parent, err));
    }
    *ret_found = n.own || moved;
out:
    return rc;
}

/* As the child would have told it, had it lived to. */
static qd_code read_quality(json_t *o, const char *path, qd_quality **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    if (o == NULL) return QD_OK;
    qd_quality *q = *ret = qd_quality_new();
    if (q == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a report");
    QD_TRY(qd_json_u64(o, "tokens", path, INT64_MAX, &q->tokens, err));
    QD_TRY(qd_json_num_or(o, "kl", path, 0, &q->kl, err));
    QD_TRY(qd_json_num_or(o, "top1", path, 0, &q->top1, err));
    QD_TRY(qd_json_num_or(o, "perplexity", path, 0, &q->perplexity, err));
    QD_TRY(qd_json_num_or(o, "source_perplexity", path, 0, &q->source_perplexity, err));
    rc = qd_json_num_or(o, "max_kl", path, 0, &q->max_kl, err);
out:
    return rc;
}

static qd_code read_report(const char *path, qd_report_summary *ret, qd_err *err)
{
    json_t *report = NULL, *quality = NULL;
    uint64_t quantized = 0, copied = 0;
    const char *digest = "", *numerics = "";
    qd_hash128 hash;
    qd_code rc = QD_OK;
    QD_TRY(qd_json_load(path, REPORT_BYTES_MAX, &report, err));
    QD_TRY(qd_json_u64(report, "quantized_linears", path, UINT32_MAX, &quantized, err));
    QD_TRY(qd_json_u64(report, "copied_tensors", path, UINT32_MAX, &copied, err));
    QD_TRY(qd_json_u64(report, "source_bytes", path, INT64_MAX, &ret->source_bytes, err));
    QD_TRY(qd_json_u64(report, "output_bytes", path, INT64_MAX, &ret->output_bytes, err));
    QD_TRY(qd_json_num_or(report, "relative_error", path, 0, &ret->rel_error, err));
    QD_TRY(qd_json_obj_or(report, "quality", path, &quality, err));
    QD_TRY(read_quality(quality, path, &ret->quality, err));
    QD_TRY(qd_json_str_or(report, "output_digest", path, "", &digest, err));
    QD_TRY(qd_json_str_or(report, "numerics_id", path, "", &numerics, err));
    if ((digest[0] != '\0' && !qd_hash_from_hex(digest, &hash)) || (numerics[0] != '\0' && !qd_id_ok(numerics))) {
        rc = qd_fail(err, QD_E_INPUT, "%s: \"output_digest\" or \"numerics_id\" is none", path);
        goto out;
    }
    QD_TRY(qd_text_set(&ret->output_digest, digest, err));
    QD_TRY(qd_text_set(&ret->numerics_id, numerics, err));
    ret->tensors_quantized = (uint32_t)quantized;
    ret->tensors_copied = (uint32_t)copied;
    ret->ranks = 1;
    QD_TRY(qd_text_set(&ret->path, path, err));
out:
    json_decref(report);
    return rc;
}

/* A run renames to OUT what it has verified, its report included. A directory that is there and cannot be told from its
 * report is none of a run, or was changed since: that is so for every worker, and people have to look at it. What
 * cannot be read is this node's trouble. */
static qd_code output(void *ctx, const qd_job_record *rec, bool *ret_there, qd_report_summary *ret, qd_err *err)
{
    char path[PATH_BYTES + 64];
    qd_err why = {0};
    const char *out = rec->spec->output_path;
    *ret_there = is_ours(ctx, rec) && qd_path_is_dir(out);
    if (!*ret_there) return QD_OK;
    (void)snprintf(path, sizeof path, "%.4000s/report.json", out);
    qd_code rc = read_report(path, ret, &why);
    if (rc == QD_OK) return QD_OK;
    *ret_there = false;
    if (!qd_path_is_dir(out)) return QD_OK; /* a cancel has just taken it away */
    if (rc == QD_E_INPUT && why.sys_errno != EACCES)
        return qd_fail(err, QD_E_INPUT,
                       "%.300s is in the output's place and no finished run left it so (%.300s): look at it, remove "
                       "it, submit the job again",
                       out, why.msg);
    return qd_fail_at(err, rc == QD_E_INPUT ? QD_E_IO : rc, 0, why.file, why.line, "%s", why.msg);
}

typedef struct up_to {
    uint64_t epoch;
} up_to;

static qd_code discard_old(void *ctx, const char *path, uint64_t epoch, qd_err *err)
{
    const up_to *limit = ctx;
    return epoch <= limit->epoch ? to_trash(path, err) : QD_OK;
}

static qd_code discard_staging(void *ctx, const qd_job_record *rec, qd_err *err)
{
    up_to limit = {.epoch = rec->epoch};
    if (!is_ours(ctx, rec)) return QD_OK;
    return each_staging(rec->spec->output_path, discard_old, &limit, err);
}

static qd_code discard_output(void *ctx, const qd_job_record *rec, qd_err *err)
{
    return is_ours(ctx, rec) ? to_trash(rec->spec->output_path, err) : QD_OK;
}

static bool is_job_name(const char *name, size_t n, char ret_id[QD_ID_BYTES])
{
    size_t dot = n;
    while (dot > 0 && name[dot - 1] != '.') dot--;
    if (dot == 0 || n - dot < ID_CHARS_MIN || n - dot > QD_ID_MAX) return false;
    (void)snprintf(ret_id, QD_ID_BYTES, "%.*s", (int)(n - dot), name + dot);
    return qd_id_ok(ret_id);
}

static qd_code walk(const char *dir, unsigned depth, qd_disk_each fn, void *fn_ctx, qd_err *err)
{
    qd_code rc = QD_OK;
    DIR *d = opendir(dir);
    if (d == NULL) return QD_OK; /* not there, or not ours to read: nothing of ours is in it */
    for (struct dirent *e; rc == QD_OK && (e = readdir(d)) != NULL;) {
        char path[PATH_BYTES + 512], id[QD_ID_BYTES] = "";
        struct stat st;
        qd_disk_item item = {.path = path, .job_id = id};
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (strlen(dir) + strlen(e->d_name) + 2 > PATH_BYTES) continue;
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)) continue;
        size_t stem = staging_stem(e->d_name, &item.epoch);
        if (strncmp(e->d_name, k_trash, sizeof k_trash - 1) == 0)
            item.kind = QD_DISK_TRASH;
        else if (stem != 0 && is_job_name(e->d_name, stem, id))
            item.kind = QD_DISK_STAGING;
        else if (is_job_name(e->d_name, strlen(e->d_name), id))
            item.kind = QD_DISK_OUTPUT;
        else {
            if (depth > 0 && e->d_name[0] != '.') rc = walk(path, depth - 1, fn, fn_ctx, err);
            continue;
        }
        rc = fn(fn_ctx, &item, err);
    }
    (void)closedir(d);
    return rc;
}

static qd_code each(void *ctx, qd_disk_each fn, void *fn_ctx, qd_err *err)
{
    const qd_disk *disk = ctx;
    qd_code rc = QD_OK;
    for (const char *r = disk->roots; rc == QD_OK && *r != '\0';) {
        char root[PATH_BYTES];
        size_t n = strcspn(r, ":");
        if (n > 0 && n < sizeof root) {
            (void)snprintf(root, sizeof root, "%.*s", (int)n, r);
            rc = walk(root, ROOT_DEPTH, fn, fn_ctx, err);
        }
        r += n + (r[n] == ':');
    }
    return rc;
}

/* All trash beside the one that was met. What cannot be removed is met again by the next sweep. */
static void remove_trash(void *arg, unsigned worker)
{
    qd_disk *d = arg;
    char parent[PATH_BYTES], path[PATH_BYTES + 512];
    const char *name = NULL;
    (void)worker;
    DIR *dir = split(d->trash, parent, &name, NULL) == QD_OK ? opendir(parent) : NULL;
    for (const struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL && !atomic_load(&d->stop);
         e = readdir(dir)) {
        if (strncmp(e->d_name, k_trash, sizeof k_trash - 1) != 0) continue;
        (void)snprintf(path, sizeof path, "%s/%s", parent, e->d_name);
        (void)!qd_tree_remove(path, NULL);
    }
    if (dir != NULL) (void)closedir(dir);
    atomic_store(&d->removing, false);
}

static qd_code discard(void *ctx, const qd_disk_item *item, qd_err *err)
{
    qd_disk *d = ctx;
    if (item->kind != QD_DISK_TRASH) return to_trash(item->path, err);
    if (atomic_load(&d->removing)) return QD_OK; /* met again by the next sweep */
    qd_disk_done(d);
    (void)snprintf(d->trash, sizeof d->trash, "%s", item->path);
    atomic_store(&d->removing, true);
    qd_code rc = qd_pool_start(1, "trash", remove_trash, d, &d->remover, err);
    if (rc != QD_OK) atomic_store(&d->removing, false);
    return rc;
}

void qd_disk_done(qd_disk *d)
{
    atomic_store(&d->stop, true);
    qd_pool_join(d->remover);
    d->remover = NULL;
    atomic_store(&d->stop, false);
}

qd_jobs_disk qd_disk_ops(qd_disk *d)
{
    return (qd_jobs_disk){.ctx = d,
                          .adopt = adopt,
                          .output = output,
                          .discard_staging = discard_staging,
                          .discard_output = discard_output,
                          .each = each,
                          .discard = discard};
}
