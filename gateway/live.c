#include "gateway/live.h"

#include "base/mem.h"
#include "base/pool.h"
#include "gateway/conns.h"
#include "gateway/live_inside.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    WATCHES_MAX = 4096,
    JOBS_MAX = 256,
    JOB_BYTES = 4 << 20,
    KEEP_MS = 10000,
    PING_MS = 15000,
    SWEEP_MS = 1000,
    STEP_MS = 200,
    NO_FD_MS = 20 /* a bus without files to wait for */
};

static void ring(qd_live *l)
{
    ssize_t ignored = write(l->bell, &(uint64_t){1}, sizeof(uint64_t));
    (void)ignored;
}

static void run(void *arg, unsigned worker)
{
    qd_live *l = arg;
    (void)worker;
    for (bool closing = false; !closing;) {
        qd_live_step(l, STEP_MS);
        (void)pthread_mutex_lock(&l->lock);
        closing = l->closing;
        (void)pthread_mutex_unlock(&l->lock);
    }
}

qd_code qd_live_open(const qd_live_config *c, qd_live **ret, qd_err *err)
{
    qd_live *l = qd_calloc(1, sizeof *l);
    qd_code rc = QD_OK;
    if (l == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for live events");
    l->c = *c;
    if (l->c.watches_max == 0) l->c.watches_max = WATCHES_MAX;
    if (l->c.jobs_max == 0) l->c.jobs_max = JOBS_MAX;
    if (l->c.job_bytes == 0) l->c.job_bytes = JOB_BYTES;
    if (l->c.keep_ms == 0) l->c.keep_ms = KEEP_MS;
    if (l->c.ping_ms == 0) l->c.ping_ms = PING_MS;
    (void)pthread_mutex_init(&l->lock, NULL);
    l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->bell < 0) {
        rc = qd_fail_errno(err, QD_E_INTERNAL, errno, "eventfd");
        goto out;
    }
    if (c->own_thread) QD_TRY(qd_pool_start(1, "gw-live", run, l, &l->thread, err));
    *ret = l;
    l = NULL;
out:
    qd_live_close(l);
    return rc;
}

void qd_live_close(qd_live *l)
{
    if (l == NULL) return;
    if (l->thread != NULL) {
        (void)pthread_mutex_lock(&l->lock);
        l->closing = true;
        (void)pthread_mutex_unlock(&l->lock);
        ring(l);
        qd_pool_join(l->thread);
    }
    for (qd_live_job *j = l->jobs, *next = NULL; j != NULL; j = next) {
        next = j->next;
        qd_live_job_free(l, j);
    }
    if (l->bell >= 0) (void)close(l->bell);
    (void)pthread_mutex_destroy(&l->lock);
    qd_free(l);
}

static void wake(qd_live_watch *w)
{
    if (!w->parked) return;
    w->parked = false;
    w->hooks.wake(w->hooks.ctx);
}

void qd_live_wake_all(qd_live_job *j)
{
    for (qd_live_watch *w = j->watches; w != NULL; w = w->next) wake(w);
}

void qd_live_end(qd_live *l)
{
    (void)pthread_mutex_lock(&l->lock);
    l->ended = true;
    for (qd_live_job *j = l->jobs; j != NULL; j = j->next) qd_live_wake_all(j);
    (void)pthread_mutex_unlock(&l->lock);
}

static qd_live_job *find(qd_live *l, const char *id)
{
    qd_live_job *j = l->jobs;
    while (j != NULL && strcmp(j->id, id) != 0) j = j->next;
    return j;
}

/* With the lock held. */
static qd_code enter(qd_live *l, const char *id, qd_live_watch *w, qd_err *err)
{
    qd_live_job *j = find(l, id);
    if (l->n_watches >= l->c.watches_max || (j == NULL && l->n_jobs >= l->c.jobs_max))
        return qd_fail(err, QD_E_FULL, "too many clients follow jobs: at most %u of %u jobs", l->c.watches_max,
                       l->c.jobs_max);
    if (j == NULL) {
        j = qd_calloc(1, sizeof *j);
        if (j == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job's events");
        (void)snprintf(j->id, sizeof j->id, "%s", id);
        j->events.bytes_max = l->c.job_bytes;
        j->next = l->jobs;
        l->jobs = j;
        l->n_jobs++;
    }
    w->job = j;
    w->next = j->watches;
    if (w->next != NULL) w->next->prev = w;
    j->watches = w;
    l->n_watches++;
    return QD_OK;
}

qd_code qd_live_watch_open(qd_live *l, const char *job_id, const char *last_event_id, const qd_live_hooks *hooks,
                           qd_live_watch **ret, qd_err *err)
{
    qd_live_watch *w = NULL;
    qd_code rc = qd_id_check(job_id, "job id", err);
    if (rc != QD_OK) return rc;
    w = qd_calloc(1, sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a watch");
    w->live = l;
    w->hooks = *hooks;
    w->told_ms = qd_gateway_ms();
    if (last_event_id != NULL) (void)qd_place_parse(last_event_id, &w->reader.known);
    (void)pthread_mutex_lock(&l->lock);
    rc = enter(l, job_id, w, err);
    (void)pthread_mutex_unlock(&l->lock);
    if (rc != QD_OK) {
        qd_free(w);
        return rc;
    }
    ring(l);
    *ret = w;
    return QD_OK;
}

ssize_t qd_live_read(qd_live_watch *w, char *buf, size_t max)
{
    static const char ping[] = ": ping\n\n";
    qd_live *l = w->live;
    (void)pthread_mutex_lock(&l->lock);
    long n = l->ended && w->reader.offset == 0 ? -1 : qd_events_read(&w->job->events, &w->reader, buf, max);
    if (n == 0 && w->ping && max >= sizeof ping - 1) {
        n = (long)sizeof ping - 1;
        memcpy(buf, ping, (size_t)n);
    }
    if (n == 0 && w->job->over) n = -1;
    if (n > 0) {
        w->told_ms = qd_gateway_ms();
        w->ping = false;
    }
    if (n == 0) {
        w->parked = true;
        w->hooks.park(w->hooks.ctx);
    }
    (void)pthread_mutex_unlock(&l->lock);
    return n;
}

void qd_live_watch_close(qd_live_watch *w)
{
    if (w == NULL) return;
    qd_live *l = w->live;
    (void)pthread_mutex_lock(&l->lock);
    if (w->next != NULL) w->next->prev = w->prev;
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        w->job->watches = w->next;
    if (w->job->watches == NULL) w->job->unwatched_ms = qd_gateway_ms();
    l->n_watches--;
    (void)pthread_mutex_unlock(&l->lock);
    qd_free(w);
}

/* Pings, and jobs that nobody watches any more. Wakes everybody: a wake that HTTP has missed costs a second, no more.
 */
static void sweep(qd_live *l, uint64_t now)
{
    qd_live_job *gone = NULL;
    l->swept_ms = now;
    (void)pthread_mutex_lock(&l->lock);
    for (qd_live_job **at = &l->jobs, *j = NULL; (j = *at) != NULL;) {
        for (qd_live_watch *w = j->watches; w != NULL; w = w->next) {
            w->ping = now >= w->told_ms + l->c.ping_ms;
            wake(w);
        }
        if (j->watches == NULL && now >= j->unwatched_ms + l->c.keep_ms) {
            *at = j->next;
            j->next = gone;
            gone = j;
            l->n_jobs--;
        } else {
            at = &j->next;
        }
    }
    (void)pthread_mutex_unlock(&l->lock);
    for (qd_live_job *j = gone, *next = NULL; j != NULL; j = next) {
        next = j->next;
        qd_live_job_free(l, j);
    }
}

static void await(qd_live *l, qd_live_job *jobs, uint64_t wait_ms)
{
    struct pollfd fds[1 + 2 * JOBS_MAX];
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = l->bell, .events = POLLIN};
    for (qd_live_job *j = jobs; j != NULL; j = j->next) {
        qd_bus_feed *feeds[] = {j->records, j->batches};
        for (int i = 0; i < 2; i++) {
            if (feeds[i] == NULL || j->over) continue;
            int fd = qd_bus_feed_fd(l->c.bus, feeds[i]);
            if (fd < 0) wait_ms = wait_ms < NO_FD_MS ? wait_ms : NO_FD_MS;
            if (fd >= 0 && n < sizeof fds / sizeof fds[0]) fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
    }
    uint64_t bells = 0;
    (void)poll(fds, n, (int)wait_ms);
    ssize_t ignored = read(l->bell, &bells, sizeof bells);
    (void)ignored;
}

void qd_live_step(qd_live *l, uint64_t wait_ms)
{
    qd_bus_state bus = {0};
    (void)pthread_mutex_lock(&l->lock);
    qd_live_job *jobs = l->jobs; /* others only put new ones before it */
    (void)pthread_mutex_unlock(&l->lock);
    await(l, jobs, wait_ms);
    (void)pthread_mutex_lock(&l->lock);
    jobs = l->jobs;
    (void)pthread_mutex_unlock(&l->lock);
    for (qd_live_job *j = jobs; j != NULL; j = j->next) qd_live_job_pump(l, j);
    uint64_t now = qd_gateway_ms();
    if (now >= l->swept_ms + SWEEP_MS) sweep(l, now);
    qd_bus_state_get(l->c.bus, &bus);
    atomic_store(&l->connected, bus.connected);
    atomic_store(&l->stepped_ms, now);
}

void qd_live_state_get(qd_live *l, qd_live_state *ret)
{
    (void)pthread_mutex_lock(&l->lock);
    *ret = (qd_live_state){.watches = l->n_watches, .jobs = l->n_jobs, .events = l->n_events};
    (void)pthread_mutex_unlock(&l->lock);
    ret->connected = atomic_load(&l->connected);
    ret->stepped_ms = atomic_load(&l->stepped_ms);
}
