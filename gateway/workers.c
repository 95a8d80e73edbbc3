#include "gateway/workers.h"

#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>

struct qd_workers {
    pthread_mutex_t lock;
    pthread_cond_t some;
    qd_pool *pool;
    qd_worker_fn fn;
    void **ring;
    size_t first, n, max;
    bool closing;
};

static void *take(qd_workers *w)
{
    void *item = NULL;
    (void)pthread_mutex_lock(&w->lock);
    while (w->n == 0 && !w->closing) (void)pthread_cond_wait(&w->some, &w->lock);
    if (w->n > 0) {
        item = w->ring[w->first];
        w->first = (w->first + 1) % w->max;
        w->n--;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return item;
}

static void run(void *arg, unsigned worker)
{
    qd_workers *w = arg;
    (void)worker;
    for (void *item = NULL; (item = take(w)) != NULL;) w->fn(item);
}

qd_code qd_workers_open(unsigned threads, size_t waiting_max, qd_worker_fn fn, qd_workers **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_workers *w = qd_calloc(1, sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for worker threads");
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->some, NULL);
    w->fn = fn;
    w->max = waiting_max;
    w->ring = qd_calloc(waiting_max, sizeof *w->ring);
    if (w->ring == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu waiting requests", waiting_max);
        goto out;
    }
    QD_TRY(qd_pool_start(threads, "gw-write", run, w, &w->pool, err));
    *ret = w;
    w = NULL;
out:
    qd_workers_close(w);
    return rc;
}

bool qd_workers_put(qd_workers *w, void *item)
{
    (void)pthread_mutex_lock(&w->lock);
    bool ok = !w->closing && w->n < w->max;
    if (ok) {
        w->ring[(w->first + w->n) % w->max] = item;
        w->n++;
        (void)pthread_cond_signal(&w->some);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return ok;
}

size_t qd_workers_waiting(qd_workers *w)
{
    (void)pthread_mutex_lock(&w->lock);
    size_t n = w->n;
    (void)pthread_mutex_unlock(&w->lock);
    return n;
}

void qd_workers_close(qd_workers *w)
{
    if (w == NULL) return;
    (void)pthread_mutex_lock(&w->lock);
    w->closing = true;
    (void)pthread_cond_broadcast(&w->some);
    (void)pthread_mutex_unlock(&w->lock);
    qd_pool_join(w->pool);
    (void)pthread_cond_destroy(&w->some);
    (void)pthread_mutex_destroy(&w->lock);
    qd_free(w->ring);
    qd_free(w);
}
