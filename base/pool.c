#include "base/pool.h"

#include "base/file.h"
#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct worker {
    qd_pool_fn fn;
    void *arg;
    unsigned index;
    pthread_t thread;
} worker;

struct qd_pool {
    unsigned n;
    worker workers[];
};

static void *run(void *p)
{
    worker *w = p;
    w->fn(w->arg, w->index);
    return NULL;
}

qd_code qd_pool_start(unsigned n_threads, const char *name, qd_pool_fn fn, void *arg, qd_pool **ret, qd_err *err)
{
    qd_pool *pool = qd_calloc(1, sizeof *pool + n_threads * sizeof pool->workers[0]);
    if (pool == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %u threads", n_threads);
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals stay with the main thread */
    int e = 0;
    while (pool->n < n_threads) {
        worker *w = &pool->workers[pool->n];
        *w = (worker){fn, arg, pool->n, 0};
        e = pthread_create(&w->thread, NULL, run, w);
        if (e != 0) break;
        (void)pthread_setname_np(w->thread, name);
        pool->n++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pool->n == 0) {
        qd_free(pool);
        return qd_fail_errno(err, QD_E_NO_MEMORY, e, "cannot start a thread (%s)", name);
    }
    *ret = pool;
    return QD_OK;
}

unsigned qd_pool_size(const qd_pool *pool)
{
    return pool->n;
}

void qd_pool_join(qd_pool *pool)
{
    if (pool == NULL) return;
    for (unsigned i = 0; i < pool->n; i++) (void)pthread_join(pool->workers[i].thread, NULL);
    qd_free(pool);
}

/* A cgroup v2 quota ("max 100000" or "200000 100000"); 0 when there is none. */
static unsigned cgroup_cpus(void)
{
    char line[64], *end = line;
    (void)qd_kernel_line("/sys/fs/cgroup/cpu.max", line, sizeof line);
    unsigned long long quota = strtoull(line, &end, 10), period = strtoull(end, NULL, 10);
    return quota != 0 && period != 0 ? (unsigned)((quota - 1) / period + 1) : 0;
}

unsigned qd_cpu_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    unsigned n = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
    unsigned quota = cgroup_cpus();
    if (quota != 0 && quota < n) n = quota;
    return n == 0 ? 1 : n;
}
