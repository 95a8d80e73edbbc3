#include "daemon/gpu_watch.h"

#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

enum {
    SLICE_MS = 200, /* of a wait: how soon a close is seen */
    CLOSE_S = 2
};

/* Left to a thread that does not come back. */
struct qd_gpu_watch {
    pthread_mutex_t lock;
    pthread_t thread;
    qd_nvml *nvml; /* the thread's */
    uint64_t every_ms;
    qd_gpu_health health;
    uint64_t read_ms;
    bool closing;
};

static bool closing(qd_gpu_watch *w)
{
    (void)pthread_mutex_lock(&w->lock);
    bool c = w->closing;
    (void)pthread_mutex_unlock(&w->lock);
    return c;
}

static void *watch(void *arg)
{
    qd_gpu_watch *w = arg;
    while (!closing(w)) {
        qd_gpu_health h = {0};
        qd_nvml_read(w->nvml, &h);
        uint64_t now = qd_mono_ms(), next = now + w->every_ms;
        (void)pthread_mutex_lock(&w->lock);
        w->health = h;
        w->read_ms = now;
        (void)pthread_mutex_unlock(&w->lock);
        for (bool event = false; !event && now < next && !closing(w); now = qd_mono_ms())
            event = qd_nvml_wait(w->nvml, (unsigned)qd_min_u64(SLICE_MS, next - now));
    }
    return NULL;
}

static qd_code start(qd_gpu_watch *w, qd_err *err)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&w->thread, NULL, watch, w);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r == 0 ? QD_OK : qd_fail_errno(err, QD_E_NO_MEMORY, r, "a thread to watch the GPU");
}

static void release(qd_gpu_watch *w)
{
    qd_nvml_close(w->nvml);
    (void)pthread_mutex_destroy(&w->lock);
    qd_free(w);
}

qd_code qd_gpu_watch_open(const char *library, unsigned index, uint64_t every_ms, qd_gpu_watch **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_gpu_watch *w = qd_calloc(1, sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory to watch the GPU");
    (void)pthread_mutex_init(&w->lock, NULL);
    w->every_ms = every_ms;
    w->read_ms = qd_mono_ms();
    QD_TRY(qd_nvml_open(library, index, &w->nvml, err));
    QD_TRY(start(w, err));
    *ret = w;
    w = NULL; /* ownership moved */
out:
    if (w != NULL) release(w);
    return rc;
}

void qd_gpu_watch_get(qd_gpu_watch *w, qd_gpu_health *ret, uint64_t *ret_age_ms)
{
    (void)pthread_mutex_lock(&w->lock);
    *ret = w->health;
    uint64_t at = w->read_ms, now = qd_mono_ms();
    (void)pthread_mutex_unlock(&w->lock);
    *ret_age_ms = now > at ? now - at : 0;
}

bool qd_gpu_watch_faulty(qd_gpu_watch *w, uint64_t silent_ms, char *why, size_t why_bytes)
{
    qd_gpu_health h;
    uint64_t age_ms = 0;
    qd_gpu_watch_get(w, &h, &age_ms);
    if (qd_gpu_faulty(&h, why, why_bytes)) return true;
    if (age_ms < silent_ms) return false;
    (void)snprintf(why, why_bytes, "the GPU's driver has not answered for %" PRIu64 " s", age_ms / 1000);
    return true;
}

void qd_gpu_watch_close(qd_gpu_watch *w)
{
    struct timespec until;
    if (w == NULL) return;
    (void)pthread_mutex_lock(&w->lock);
    w->closing = true;
    (void)pthread_mutex_unlock(&w->lock);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_S;
    if (pthread_timedjoin_np(w->thread, NULL, &until) == 0)
        release(w);
    else
        (void)pthread_detach(w->thread);
}
