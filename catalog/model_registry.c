#include "catalog/model_registry.h"

#include "base/clock.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    AGE_MS = 1000,
    PATH_BYTES = 4096,
    DEPTH = 1 /* entries of the root, and their entries */
};

/* One quantd.json as it was read; shared by the snapshots that have it. */
typedef struct known {
    qd_arena arena;
    qd_model model;
    bool good;
    qd_err why;
    struct timespec mtime;
    off_t size;
    ino_t inode;
    unsigned refs;
} known;

typedef struct snapshot {
    qd_registry_view view; /* first */
    qd_model *items;
    known **all; /* [n_all], of which view has the good ones */
    size_t n_all;
    unsigned refs;
} snapshot;

struct qd_registry {
    pthread_mutex_t lock;
    char *roots;
    snapshot *last;
    uint64_t scanned_ms;
    size_t n_problems;
    qd_err problem;
};

static void drop_known(known *k)
{
    if (k == NULL || --k->refs != 0) return;
    qd_arena_done(&k->arena);
    qd_free(k);
}

static void drop(snapshot *s)
{
    if (s == NULL || --s->refs != 0) return;
    for (size_t i = 0; i < s->n_all; i++) drop_known(s->all[i]);
    qd_free(s->all);
    qd_free(s->items);
    qd_free(s);
}

qd_registry *qd_registry_new(const char *roots)
{
    qd_registry *r = qd_calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->roots = qd_strdup(roots);
    if (r->roots == NULL) {
        qd_free(r);
        return NULL;
    }
    (void)pthread_mutex_init(&r->lock, NULL);
    return r;
}

void qd_registry_free(qd_registry *r)
{
    if (r == NULL) return;
    drop(r->last);
    (void)pthread_mutex_destroy(&r->lock);
    qd_free(r->roots);
    qd_free(r);
}

static bool reserve(snapshot *s)
{
    if ((s->n_all & (s->n_all - 1)) != 0 && s->n_all != 0) return true;
    known **all = qd_realloc(s->all, (s->n_all == 0 ? 1 : 2 * s->n_all) * sizeof(*all));
    if (all != NULL) s->all = all;
    return all != NULL;
}

/* What the last scan knows of this directory, if quantd.json is still the same. Both scans go in the same order, so it
 * is looked for from where the last one was found on. */
static known *same_as_before(const snapshot *last, const char *dir, const struct stat *st, size_t *from)
{
    for (size_t i = 0; last != NULL && i < last->n_all; i++) {
        known *k = last->all[(*from + i) % last->n_all];
        if (strcmp(k->model.path, dir) != 0) continue;
        *from = (*from + i + 1) % last->n_all;
        bool same = k->size == st->st_size && k->inode == st->st_ino && k->mtime.tv_sec == st->st_mtim.tv_sec &&
                    k->mtime.tv_nsec == st->st_mtim.tv_nsec;
        return same ? k : NULL;
    }
    return NULL;
}

typedef struct scan {
    const snapshot *last;
    snapshot *s;
    size_t from;
} scan;

static qd_code add(scan *c, const char *dir, const struct stat *st, qd_err *err)
{
    if (c->s->n_all == QD_MODELS_MAX) return QD_OK;
    if (!reserve(c->s)) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
    known *k = same_as_before(c->last, dir, st, &c->from);
    if (k == NULL) {
        k = qd_calloc(1, sizeof *k);
        if (k == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
        qd_code rc = qd_model_read(dir, &k->arena, &k->model, &k->why);
        k->good = rc == QD_OK;
        k->mtime = st->st_mtim;
        k->size = st->st_size;
        k->inode = st->st_ino;
        if (!k->good) k->model.path = qd_arena_strdup(&k->arena, dir);
        if (rc == QD_E_NO_MEMORY || k->model.path == NULL) {
            qd_arena_done(&k->arena);
            qd_free(k);
            return qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
        }
    }
    k->refs++;
    c->s->all[c->s->n_all++] = k;
    return QD_OK;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.' && strstr(e->d_name, ".staging.") == NULL;
}

static qd_code look(scan *c, const char *dir, unsigned depth, qd_err *err)
{
    struct dirent **names = NULL;
    qd_code rc = QD_OK;
    int n = scandir(dir, &names, not_hidden, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES], file[PATH_BYTES + 16];
        struct stat st;
        int len = snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        bool fits = len > 0 && (size_t)len < sizeof path;
        if (rc == QD_OK && fits && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            (void)snprintf(file, sizeof file, "%s/" QD_MODEL_FILE, path);
            if (stat(file, &st) == 0 && S_ISREG(st.st_mode))
                rc = add(c, path, &st, err);
            else if (depth > 0)
                rc = look(c, path, depth - 1, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

static int by_id(const void *a, const void *b)
{
    const qd_model *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order != 0 ? order : strcmp(x->path, y->path);
}

static void problem(qd_registry *r, const qd_err *why)
{
    if (r->n_problems++ == 0) r->problem = *why;
}

/* The good ones, by id. */
static qd_code fill(qd_registry *r, snapshot *s, qd_err *err)
{
    size_t n = 0, kept = 0;
    s->items = qd_calloc(s->n_all + 1, sizeof *s->items);
    if (s->items == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
    for (size_t i = 0; i < s->n_all; i++) {
        if (s->all[i]->good)
            s->items[n++] = s->all[i]->model;
        else
            problem(r, &s->all[i]->why);
    }
    qsort(s->items, n, sizeof *s->items, by_id);
    for (size_t i = 0; i < n; i++) {
        if (kept != 0 && strcmp(s->items[kept - 1].id, s->items[i].id) == 0) {
            qd_err why = {0};
            if (strcmp(s->items[kept - 1].path, s->items[i].path) == 0) continue; /* a root within another one */
            (void)qd_fail(&why, QD_E_INPUT, "%s: its id \"%s\" is that of %s", s->items[i].path, s->items[i].id,
                          s->items[kept - 1].path);
            problem(r, &why);
            continue;
        }
        s->items[kept++] = s->items[i];
    }
    s->view = (qd_registry_view){.items = s->items, .n = kept};
    return QD_OK;
}

static qd_code rescan(qd_registry *r, qd_err *err)
{
    qd_code rc = QD_OK;
    scan c = {.last = r->last, .s = qd_calloc(1, sizeof *c.s)};
    if (c.s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
    c.s->refs = 1;
    for (const char *p = r->roots; rc == QD_OK && *p != '\0';) {
        char root[PATH_BYTES];
        size_t n = strcspn(p, ":");
        if (n > 0 && n < sizeof root) {
            (void)snprintf(root, sizeof root, "%.*s", (int)n, p);
            rc = look(&c, root, DEPTH, err);
        }
        p += n + (p[n] == ':');
    }
    r->n_problems = 0;
    if (rc == QD_OK) rc = fill(r, c.s, err);
    if (rc != QD_OK) {
        drop(c.s);
        return rc;
    }
    drop(r->last);
    r->last = c.s;
    r->scanned_ms = qd_mono_ns() / 1000000;
    return QD_OK;
}

qd_code qd_registry_take(qd_registry *r, bool now, const qd_registry_view **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&r->lock);
    if (now || r->last == NULL || qd_mono_ns() / 1000000 - r->scanned_ms >= AGE_MS) rc = rescan(r, err);
    if (rc == QD_OK) {
        r->last->refs++;
        *ret = &r->last->view;
    }
    (void)pthread_mutex_unlock(&r->lock);
    return rc;
}

void qd_registry_give(qd_registry *r, const qd_registry_view *v)
{
    if (v == NULL) return;
    union {
        const qd_registry_view *view;
        snapshot *s;
    } whole = {.view = v}; /* the view is its first member */
    (void)pthread_mutex_lock(&r->lock);
    drop(whole.s);
    (void)pthread_mutex_unlock(&r->lock);
}

const qd_model *qd_registry_find(const qd_registry_view *v, const char *id)
{
    size_t lo = 0, hi = v->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(v->items[mid].id, id);
        if (order == 0) return &v->items[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

size_t qd_registry_problem(qd_registry *r, qd_err *ret)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t n = r->n_problems;
    if (n != 0) *ret = r->problem;
    (void)pthread_mutex_unlock(&r->lock);
    return n;
}
