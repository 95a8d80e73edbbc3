#include "daemon/service.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bus/bus_nats.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

enum {
    STATUS_MS = 250,
    PROVISION_RETRY_MS = 500,
    EXTEND_MORE_MS = 10000,
    STATUS_BYTES = 512
};

typedef struct loop {
    qd_service *s;
    sd_event *event;
    bool provisioned, told_away, reload, term;
    unsigned terms; /* how often we were asked to stop */
    uint64_t provision_ms, status_ms, watchdog_ms, watchdog_every_ms;
    char status[STATUS_BYTES];
} loop;

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *arg)
{
    loop *l = arg;
    (void)source;
    if (si->ssi_signo == SIGHUP)
        l->reload = true;
    else
        l->term = true;
    return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    (void)source;
    (void)fd;
    (void)revents;
    (void)arg;
    return 0; /* the next step finds out */
}

static void reload(loop *l)
{
    qd_service *s = l->s;
    qd_settings fresh;
    qd_buf stale = {0};
    qd_err err = {0};
    l->reload = false;
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, qd_mono_ns() / 1000);
    if (qd_options_load(s->options, s->arena, &fresh, &err) != QD_OK) {
        qd_log_err(s->log, QD_LOG_ERROR, "reload refused, the settings stay as they were", &err);
    } else {
        qd_conf_take(&qd_settings_def, s->settings, &fresh, &stale);
        qd_log_set(s->log, (qd_log_level)s->settings->log_level, (uint32_t)s->settings->log_lines_per_s);
        qd_log_say(s->log, QD_LOG_INFO, "settings reloaded%s%s", stale.len != 0 ? "; these need a restart: " : "",
                   stale.len != 0 && !stale.failed ? stale.data : "");
    }
    qd_buf_done(&stale);
    (void)sd_notify(0, "READY=1");
}

static void drain(loop *l)
{
    l->term = false;
    l->terms++;
    (void)sd_notify(0, "STOPPING=1");
    qd_worker_drain(l->s->worker, l->terms == 1 ? "the service is stopped" : "the service is stopped at once");
}

/* The streams are made by whoever comes first; until they are there the worker has nothing to do. */
static qd_code provision(loop *l, qd_err *err)
{
    char warning[512] = "";
    qd_bus_state bus = {0};
    qd_bus_state_get(l->s->bus, &bus);
    if (bus.closed) /* an end that is seen, and a start with the credentials of then, instead of silence */
        return qd_fail(err, QD_E_REFUSED, "%.200s refuses our credentials, or has ended the connection for good",
                       l->s->settings->nats.url);
    if (l->provisioned || !bus.connected || qd_mono_ms() < l->provision_ms) return QD_OK;
    l->provision_ms = qd_mono_ms() + PROVISION_RETRY_MS;
    const qd_bus_nats_limits limits = {.replicas = (uint32_t)l->s->settings->nats.replicas};
    qd_code rc = qd_bus_nats_provision(l->s->bus, &limits, warning, sizeof warning, err);
    if (rc == QD_E_AWAY) {
        qd_log_err(l->s->log, l->told_away ? QD_LOG_DEBUG : QD_LOG_WARN, "the streams are not there yet", err);
        l->told_away = true;
        return QD_OK;
    }
    if (rc == QD_OK && warning[0] != '\0') qd_log_say(l->s->log, QD_LOG_WARN, "%s", warning);
    l->provisioned = rc == QD_OK;
    return rc;
}

static void tell_manager(loop *l, uint64_t now)
{
    char status[STATUS_BYTES];
    if (l->watchdog_every_ms != 0 && now >= l->watchdog_ms && qd_worker_healthy(l->s->worker)) {
        l->watchdog_ms = now + l->watchdog_every_ms;
        (void)sd_notify(0, "WATCHDOG=1");
    }
    if (now < l->status_ms) return;
    l->status_ms = now + STATUS_MS;
    qd_worker_status(l->s->worker, status, sizeof status);
    if (strcmp(status, l->status) != 0) (void)sd_notifyf(0, "STATUS=%s", status);
    (void)snprintf(l->status, sizeof l->status, "%s", status);
    if (l->terms > 0)
        (void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%" PRIu64, (l->s->settings->drain_ms + EXTEND_MORE_MS) * 1000);
}

/* Waits for the worker's files, a signal, or its time. */
static int wait_once(loop *l, uint64_t until_ms)
{
    int fds[QD_WORKER_FDS], r = 0;
    sd_event_source *sources[QD_WORKER_FDS] = {0};
    size_t n = qd_worker_fds(l->s->worker, fds);
    uint64_t now = qd_mono_ms();
    /* New ones each time: a file that was closed meanwhile may have left its number to another. */
    for (size_t i = 0; i < n && r >= 0; i++) r = sd_event_add_io(l->event, &sources[i], fds[i], EPOLLIN, on_io, l);
    if (r >= 0) r = sd_event_run(l->event, until_ms > now ? (until_ms - now) * 1000 : 0);
    for (size_t i = 0; i < n; i++) (void)sd_event_source_disable_unref(sources[i]);
    return r;
}

static qd_code run(loop *l, qd_err *err)
{
    qd_service *s = l->s;
    while (!qd_worker_over(s->worker)) {
        uint64_t now = qd_mono_ms(), next = now + PROVISION_RETRY_MS;
        if (l->reload) reload(l);
        if (l->term) drain(l);
        qd_code rc = provision(l, err);
        if (rc != QD_OK) return rc;
        if (l->provisioned || l->terms > 0) qd_worker_step(s->worker, &next);
        now = qd_mono_ms();
        tell_manager(l, now);
        next = qd_min_u64(next, l->status_ms);
        if (l->watchdog_every_ms != 0) next = qd_min_u64(next, qd_max_u64(l->watchdog_ms, now + 50));
        int r = wait_once(l, next);
        if (r < 0) return qd_fail_errno(err, QD_E_INTERNAL, -r, "event loop");
    }
    return QD_OK;
}

qd_code qd_service_run(qd_service *s, qd_err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    loop l = {.s = s};
    uint64_t watchdog_us = 0;
    qd_code rc = QD_OK;
    int r = sd_event_new(&l.event);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0] && r >= 0; i++)
        r = sd_event_add_signal(l.event, NULL, signals[i], on_signal, &l);
    if (r < 0) {
        rc = qd_fail_errno(err, QD_E_INTERNAL, -r, "event loop");
        goto out;
    }
    if (sd_watchdog_enabled(0, &watchdog_us) > 0) l.watchdog_every_ms = qd_max_u64(watchdog_us / 3000, 1);
    (void)sd_notify(0, "READY=1\nSTATUS=starting");
    rc = run(&l, err);
    (void)sd_notify(0, "STOPPING=1\nSTATUS=stopped");
out:
    (void)sd_event_unref(l.event);
    return rc;
}
