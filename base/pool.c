#include "base/pool.h"

#include "base/file.h"
#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct start {
    qd_pool_fn fn;
    void *arg;
    unsigned worker;
    pthread_t thread;
} start;

static void *run(void *p)
{
    start *s = p;
    s->fn(s->arg, s->worker);
    return NULL;
}

qd_code qd_pool_run(unsigned n_threads, const char *name, qd_pool_fn fn, void *arg, _Atomic int *abort_flag, qd_err *err)
{
    qd_code rc = QD_OK;
    start *s = qd_calloc(n_threads, sizeof *s);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %u threads", n_threads);
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals stay with the main thread */
    unsigned started = 0;
    for (; started < n_threads; started++) {
        s[started] = (start){fn, arg, started, 0};
        int e = pthread_create(&s[started].thread, NULL, run, &s[started]);
        if (e != 0) {
            rc = qd_fail_errno(err, QD_E_NO_MEMORY, e, "cannot start thread %u of %u (%s)", started + 1, n_threads, name);
            if (abort_flag != NULL) atomic_store(abort_flag, 1);
            break;
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    for (unsigned i = 0; i < started; i++) (void)pthread_join(s[i].thread, NULL);
    qd_free(s);
    return rc;
}

/* A cgroup v2 quota ("max 100000" or "200000 100000"); 0 when there is none. */
static unsigned cgroup_cpus(void)
{
    char *text = NULL;
    size_t len = 0;
    unsigned cpus = 0;
    if (qd_file_read("/sys/fs/cgroup/cpu.max", 4096, &text, &len, NULL) != QD_OK) return 0;
    unsigned long long quota = 0, period = 0;
    if (sscanf(text, "%llu %llu", &quota, &period) == 2 && period != 0) cpus = (unsigned)((quota + period - 1) / period);
    qd_free(text);
    return cpus;
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
