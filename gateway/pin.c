/* pin.c -- the source pin of a job. To open a checkpoint is to read all its headers, so that a pin is kept for as long
 * as names, sizes and times of the directory's files are the same. */
#include "base/hash.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "gateway/backend_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    KEPT = 64,
    PATH_BYTES = 1025
};

typedef struct pin {
    char path[PATH_BYTES];
    uint64_t look; /* of the directory, when it was opened */
    uint64_t digest, size_bytes;
    uint32_t files;
} pin;

struct qd_pins {
    pthread_mutex_t lock;
    pin pins[KEPT];
    size_t next;
};

qd_pins *qd_pins_new(void)
{
    qd_pins *p = qd_calloc(1, sizeof *p);
    if (p != NULL) (void)pthread_mutex_init(&p->lock, NULL);
    return p;
}

void qd_pins_free(qd_pins *p)
{
    if (p == NULL) return;
    (void)pthread_mutex_destroy(&p->lock);
    qd_free(p);
}

/* A number of the directory's files, whatever their order. */
static qd_code look_at(const char *path, uint64_t *ret, qd_err *err)
{
    DIR *d = opendir(path);
    if (d == NULL) return qd_fail_errno(err, QD_E_INPUT, errno, "%s", path);
    *ret = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) != 0) continue;
        const int64_t facts[] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (int64_t)st.st_ino};
        *ret += qd_hash64(facts, sizeof facts, qd_hash64(e->d_name, strlen(e->d_name), 1));
    }
    (void)closedir(d);
    return QD_OK;
}

static qd_code open_it(const char *model, pin *ret, qd_err *err)
{
    qd_ckpt ckpt = {0};
    qd_code rc = qd_ckpt_open(model, &ckpt, err);
    if (rc != QD_OK) return rc;
    ret->digest = ckpt.digest;
    ret->files = ckpt.n_files;
    ret->size_bytes = ckpt.tensor_bytes;
    qd_ckpt_done(&ckpt);
    return QD_OK;
}

static bool kept(qd_pins *p, const char *model, uint64_t look, pin *ret)
{
    bool found = false;
    (void)pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < KEPT && !found; i++) {
        found = p->pins[i].look == look && strcmp(p->pins[i].path, model) == 0;
        if (found) *ret = p->pins[i];
    }
    (void)pthread_mutex_unlock(&p->lock);
    return found;
}

qd_code qd_pins_take(qd_pins *p, const char *model, qd_source_pin **ret, qd_err *err)
{
    pin found = {0};
    char digest[24];
    qd_code rc = QD_OK;
    if (strlen(model) >= PATH_BYTES) return qd_fail(err, QD_E_INPUT, "%.80s...: a path that is too long", model);
    QD_TRY(look_at(model, &found.look, err));
    if (!kept(p, model, found.look, &found)) {
        QD_TRY(open_it(model, &found, err));
        (void)snprintf(found.path, sizeof found.path, "%s", model);
        (void)pthread_mutex_lock(&p->lock);
        p->pins[p->next++ % KEPT] = found;
        (void)pthread_mutex_unlock(&p->lock);
    }
    (void)snprintf(digest, sizeof digest, "%016" PRIx64, found.digest);
    qd_source_pin *pinned = qd_source_pin_new();
    if (pinned == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
    pinned->files = found.files;
    pinned->size_bytes = found.size_bytes;
    rc = qd_text_set(&pinned->digest, digest, err);
    if (rc == QD_OK)
        *ret = pinned;
    else
        qd_msg_free(pinned);
out:
    return rc;
}
