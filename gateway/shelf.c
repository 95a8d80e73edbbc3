/* shelf.c -- the templates, read whole; a reader keeps those of its moment. */
#include "base/mem.h"
#include "gateway/backend_inside.h"

typedef struct lot {
    qd_templates view; /* first */
    qd_template *items;
    size_t n;
    unsigned refs;
} lot;

struct qd_shelf {
    pthread_mutex_t lock;
    char *dirs;
    lot *last;
};

static void drop(lot *l)
{
    if (l == NULL || --l->refs != 0) return;
    for (size_t i = 0; i < l->n; i++) qd_template_done(&l->items[i]);
    qd_free(l->items);
    qd_free(l);
}

qd_shelf *qd_shelf_new(const char *dirs)
{
    qd_shelf *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->dirs = qd_template_dirs(dirs[0] == '\0' ? NULL : dirs);
    if (s->dirs == NULL) {
        qd_free(s);
        return NULL;
    }
    (void)pthread_mutex_init(&s->lock, NULL);
    return s;
}

void qd_shelf_free(qd_shelf *s)
{
    if (s == NULL) return;
    drop(s->last);
    qd_free(s->dirs);
    (void)pthread_mutex_destroy(&s->lock);
    qd_free(s);
}

qd_code qd_shelf_read(qd_shelf *s, qd_err *err)
{
    qd_arena arena = {0};
    const char **ids = NULL;
    uint32_t n = 0;
    qd_code rc = QD_OK;
    lot *l = qd_calloc(1, sizeof *l);
    if (l == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for templates");
    l->refs = 1;
    QD_TRY(qd_template_list(s->dirs, &arena, &ids, &n, err));
    l->items = qd_calloc((size_t)n + 1, sizeof *l->items);
    if (l->items == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for templates");
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) {
        QD_TRY(qd_template_load(s->dirs, ids[i], &l->items[l->n], err));
        l->n++;
    }
    l->view = (qd_templates){.items = l->items, .n = l->n};
    (void)pthread_mutex_lock(&s->lock);
    lot *old = s->last;
    s->last = l;
    drop(old);
    (void)pthread_mutex_unlock(&s->lock);
    l = NULL;
out:
    drop(l);
    qd_arena_done(&arena);
    return rc;
}

qd_code qd_shelf_take(qd_shelf *s, qd_templates **ret, qd_err *err)
{
    (void)pthread_mutex_lock(&s->lock);
    lot *l = s->last;
    if (l != NULL) l->refs++;
    (void)pthread_mutex_unlock(&s->lock);
    if (l == NULL) return qd_fail(err, QD_E_INTERNAL, "the templates were never read");
    *ret = &l->view;
    return QD_OK;
}

void qd_shelf_give(qd_shelf *s, qd_templates *t)
{
    if (t == NULL) return;
    (void)pthread_mutex_lock(&s->lock);
    drop((lot *)(void *)t);
    (void)pthread_mutex_unlock(&s->lock);
}

size_t qd_shelf_count(qd_shelf *s)
{
    (void)pthread_mutex_lock(&s->lock);
    size_t n = s->last == NULL ? 0 : s->last->n;
    (void)pthread_mutex_unlock(&s->lock);
    return n;
}
