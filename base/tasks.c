#include "base/tasks.h"

#include "base/cond.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdbool.h>

#define WAIT_NS 20000000L

typedef struct running {
    qd_task_fn fn;
    void *arg;
    qd_cancel *cancel;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t next, n, n_done;
    unsigned n_running;
    qd_code rc;
    qd_err err;
} running;

static qd_code one(const running *r, unsigned worker, uint64_t task, qd_err *err)
{
    if (qd_cancel_asked(r->cancel)) return qd_fail(err, QD_E_CANCELED, "canceled");
    return r->fn(r->arg, worker, task, err);
}

static void work(void *arg, unsigned worker)
{
    running *r = arg;
    (void)pthread_mutex_lock(&r->lock);
    while (r->rc == QD_OK && r->next < r->n) {
        uint64_t task = r->next++;
        qd_err err = {0};
        (void)pthread_mutex_unlock(&r->lock);
        qd_code rc = one(r, worker, task, &err);
        (void)pthread_mutex_lock(&r->lock);
        r->n_done++;
        if (rc != QD_OK && r->rc == QD_OK) {
            r->rc = rc;
            r->err = err;
        }
    }
    r->n_running--;
    (void)pthread_cond_signal(&r->changed);
    (void)pthread_mutex_unlock(&r->lock);
}

/* With the lock held. */
static void wait_for_all(qd_tasks *t, running *r)
{
    while (r->n_running > 0) {
        (void)qd_cond_wait_for(&r->changed, &r->lock, WAIT_NS);
        if (t->tell == NULL) continue;
        uint64_t ticks = t->n_ticks + r->n_done;
        (void)pthread_mutex_unlock(&r->lock);
        t->tell(t->ctx, ticks);
        (void)pthread_mutex_lock(&r->lock);
    }
}

static qd_code run_many(qd_tasks *t, running *r, qd_err *err)
{
    qd_pool *pool = NULL;
    qd_cond_init(&r->changed);
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_mutex_lock(&r->lock); /* until the number of threads is known */
    unsigned n_threads = r->n < t->n_threads ? (unsigned)r->n : t->n_threads;
    qd_code rc = qd_pool_start(n_threads, "qd-task", work, r, &pool, err);
    if (rc == QD_OK) {
        r->n_running = qd_pool_size(pool);
        wait_for_all(t, r);
    }
    (void)pthread_mutex_unlock(&r->lock);
    qd_pool_join(pool);
    (void)pthread_cond_destroy(&r->changed);
    (void)pthread_mutex_destroy(&r->lock);
    if (rc == QD_OK && r->rc != QD_OK) {
        rc = r->rc;
        if (err != NULL) *err = r->err;
    }
    return rc;
}

qd_code qd_tasks_run(qd_tasks *t, uint64_t n, qd_task_fn fn, void *arg, qd_err *err)
{
    running r = {.fn = fn, .arg = arg, .cancel = t != NULL ? t->cancel : NULL, .n = n};
    qd_code rc = QD_OK;
    if (t == NULL || n == 1) {
        for (uint64_t i = 0; rc == QD_OK && i < n; i++) rc = one(&r, 0, i, err);
        if (rc == QD_OK && t != NULL && t->tell != NULL) t->tell(t->ctx, t->n_ticks + 1);
    } else if (n != 0) {
        rc = run_many(t, &r, err);
    }
    if (t != NULL) t->n_ticks += n;
    return rc;
}

qd_code qd_tasks_tick(qd_tasks *t, qd_err *err)
{
    if (t == NULL) return QD_OK;
    t->n_ticks++;
    if (t->tell != NULL) t->tell(t->ctx, t->n_ticks);
    return qd_cancel_asked(t->cancel) ? qd_fail(err, QD_E_CANCELED, "canceled") : QD_OK;
}
