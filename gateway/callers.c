#include "base/mem.h"
#include "gateway/backend_inside.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    THREADS = 4,
    THREADS_MAX = 64,
    WAITING_MAX = 256,
    UP_STEPS = 200,
    UP_STEP_US = 5000
};

typedef struct call {
    qd_call_fn fn;
    void *arg;
    qd_code rc;
    qd_err err;
    bool done;
    pthread_cond_t ready;
    struct call *next;
} call;

typedef struct thread {
    qd_callers *c;
    pthread_t id;
    char self[QD_ID_BYTES];
    qd_desk desk;
} thread;

struct qd_callers {
    qd_backend_bus *b;
    pthread_mutex_t lock;
    pthread_cond_t work;
    call *first, **last;
    uint64_t n_waiting, waiting_max;
    bool stop;
    thread threads[THREADS_MAX];
    uint32_t n_threads;
};

static void close_desk(qd_desk *d)
{
    qd_jobs_close(d->jobs);
    qd_bus_free(d->bus);
    d->jobs = NULL;
    d->bus = NULL;
}

/* A connection, opened anew when the server has refused it for good; it is given a moment to come up. */
static qd_code sit_down(thread *t, qd_err *err)
{
    const qd_backend_bus_door *door = &t->desk.b->door;
    qd_bus_state state = {0};
    if (t->desk.bus != NULL) return QD_OK;
    qd_code rc = door->open(door->ctx, t->self, false, &t->desk.bus, err);
    const qd_jobs_opts opts = {.self = t->self};
    if (rc == QD_OK) rc = qd_jobs_open(t->desk.bus, &opts, &t->desk.jobs, err);
    if (rc != QD_OK) close_desk(&t->desk);
    for (int i = 0; rc == QD_OK && i < UP_STEPS && !state.connected; i++) {
        qd_bus_state_get(t->desk.bus, &state);
        if (!state.connected) (void)usleep(UP_STEP_US);
    }
    return rc;
}

static void *work(void *arg)
{
    thread *t = arg;
    qd_callers *c = t->c;
    (void)!sit_down(t, NULL); /* the first call does not have to wait for it */
    (void)pthread_mutex_lock(&c->lock);
    while (!c->stop || c->first != NULL) {
        call *k = c->first;
        if (k == NULL) {
            (void)pthread_cond_wait(&c->work, &c->lock);
            continue;
        }
        c->first = k->next;
        if (c->first == NULL) c->last = &c->first;
        (void)pthread_mutex_unlock(&c->lock);
        k->rc = sit_down(t, &k->err);
        if (k->rc == QD_OK) k->rc = k->fn(&t->desk, k->arg, &k->err);
        qd_bus_state state = {.connected = true};
        if (k->rc == QD_E_REFUSED && t->desk.bus != NULL) qd_bus_state_get(t->desk.bus, &state);
        if (!state.connected) close_desk(&t->desk);
        (void)pthread_mutex_lock(&c->lock);
        c->n_waiting--;
        k->done = true;
        (void)pthread_cond_signal(&k->ready);
    }
    (void)pthread_mutex_unlock(&c->lock);
    close_desk(&t->desk);
    return NULL;
}

qd_code qd_callers_start(qd_backend_bus *b, qd_callers **ret, qd_err *err)
{
    uint32_t n = b->cfg.callers == 0 ? THREADS : b->cfg.callers < THREADS_MAX ? b->cfg.callers : THREADS_MAX;
    qd_callers *c = qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for callers");
    c->b = b;
    c->last = &c->first;
    c->waiting_max = b->cfg.calls_waiting_max == 0 ? WAITING_MAX : b->cfg.calls_waiting_max;
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->work, NULL);
    for (uint32_t i = 0; i < n; i++) {
        thread *t = &c->threads[i];
        t->c = c;
        t->desk.b = b;
        (void)snprintf(t->self, sizeof t->self, "%.56s-c%u", b->cfg.self, i);
        if (pthread_create(&t->id, NULL, work, t) != 0) {
            qd_callers_stop(c);
            return qd_fail(err, QD_E_NO_MEMORY, "a thread for calls could not be started");
        }
        c->n_threads++;
    }
    *ret = c;
    return QD_OK;
}

void qd_callers_stop(qd_callers *c)
{
    if (c == NULL) return;
    (void)pthread_mutex_lock(&c->lock);
    c->stop = true;
    (void)pthread_cond_broadcast(&c->work);
    (void)pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < c->n_threads; i++) (void)pthread_join(c->threads[i].id, NULL);
    (void)pthread_cond_destroy(&c->work);
    (void)pthread_mutex_destroy(&c->lock);
    qd_free(c);
}

qd_code qd_callers_do(qd_callers *c, qd_call_fn fn, void *arg, qd_err *err)
{
    call k = {.fn = fn, .arg = arg};
    (void)pthread_cond_init(&k.ready, NULL);
    (void)pthread_mutex_lock(&c->lock);
    if (c->stop || c->n_waiting >= c->waiting_max) {
        bool stop = c->stop;
        (void)pthread_mutex_unlock(&c->lock);
        return stop
                   ? qd_fail(err, QD_E_AWAY, "the gateway stops")
                   : qd_fail(err, QD_E_BUSY, "%llu calls wait for the bus already", (unsigned long long)c->waiting_max);
    }
    c->n_waiting++;
    *c->last = &k;
    c->last = &k.next;
    (void)pthread_cond_signal(&c->work);
    while (!k.done) (void)pthread_cond_wait(&k.ready, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);
    (void)pthread_cond_destroy(&k.ready);
    if (k.rc != QD_OK && err != NULL) *err = k.err;
    return k.rc;
}

uint64_t qd_callers_waiting(qd_callers *c)
{
    (void)pthread_mutex_lock(&c->lock);
    uint64_t n = c->n_waiting;
    (void)pthread_mutex_unlock(&c->lock);
    return n;
}
