/* main.c -- quant-gateway: settings, backend, live events, HTTP, and the service manager. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/options.h"
#include "gateway/config.h"
#include "gateway/conns.h"
#include "gateway/metrics.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

enum {
    FDS_MAX = 16,
    TICK_MS = 500,
    STUCK_MS = 10000, /* a live thread that has not been seen for so long */
    STATUS_BYTES = 256,
    EXTEND_MORE_MS = 15000
};

static const char k_usage[] = "usage: quant-gateway [--config FILE] [--set KEY=VALUE]...\n"
                              "  --config FILE        settings; docs/gateway-config.md has them all\n"
                              "  --set KEY=VALUE      one setting, over the file's\n"
                              "  --check              check the settings and stop\n"
                              "  --config-reference   print docs/gateway-config.md\n"
                              "  --version\n";

typedef struct gateway {
    qd_options options;
    qd_gateway_settings settings;
    qd_arena arena;
    qd_glog log;
    char id[QD_ID_BYTES];
    int fds[FDS_MAX];
    bool fds_tls[FDS_MAX];
    size_t n_fds;
    const qd_api *apis[2];
    qd_backend *backend;
    qd_bus *live_bus;
    qd_live *live;
    qd_server *server;
    char status[STATUS_BYTES];
} gateway;

/* Sockets of systemd's: those named https are for TLS. */
static qd_code take_sockets(gateway *g, qd_err *err)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names);
    if (n < 0) return qd_fail_errno(err, QD_E_CONFIG, -n, "sockets of the service manager");
    for (int i = 0; i < n; i++) {
        if (g->n_fds < FDS_MAX) {
            g->fds[g->n_fds] = SD_LISTEN_FDS_START + i;
            g->fds_tls[g->n_fds++] = strcmp(names[i], "https") == 0;
        } else {
            (void)close(SD_LISTEN_FDS_START + i);
        }
        free(names[i]); /* libsystemd's */
    }
    free(names);
    return QD_OK;
}

static bool is_ready(void *ctx, char *ret_why, size_t room)
{
    gateway *g = ctx;
    qd_backend_state b = {0};
    qd_err err = {0};
    qd_backend_state_get(g->backend, &b);
    if (b.failed && qd_backend_health(g->backend, &err) != QD_OK)
        (void)snprintf(ret_why, room, "%s", err.msg);
    else if (!b.connected)
        (void)snprintf(ret_why, room, "the bus is away");
    else if (!b.synced)
        (void)snprintf(ret_why, room, "the index is being filled");
    else
        return true;
    return false;
}

static void show_metrics(void *ctx, qd_buf *ret)
{
    gateway *g = ctx;
    qd_backend_state b = {0};
    qd_backend_state_get(g->backend, &b);
    qd_buf_str(ret, "# HELP quant_gateway_jobs Jobs of all users by state, as the index has them.\n"
                    "# TYPE quant_gateway_jobs gauge\n");
    for (int i = QD_JOB_PENDING; i < QD_JOB_STATES; i++)
        qd_buf_printf(ret, "quant_gateway_jobs{state=\"%s\"} %" PRIu64 "\n", qd_job_state_name((qd_job_state)i),
                      b.jobs[i]);
    qd_metric(ret, "quant_gateway_bus_connected", "gauge", "1: jobs are followed.", b.connected);
    qd_metric(ret, "quant_gateway_index_synced", "gauge", "1: the index has all jobs.", b.synced);
    qd_metric(ret, "quant_gateway_calls_waiting", "gauge", "Writes that wait for a connection to the bus.",
              b.calls_waiting);
    qd_metric(ret, "quant_gateway_malformed_total", "counter", "Records that could not be read.", b.malformed);
    qd_metric(ret, "quant_gateway_models", "gauge", "Models known.", b.models);
    qd_metric(ret, "quant_gateway_files", "gauge", "Uploaded files known.", b.files);
    qd_metric(ret, "quant_gateway_keys", "gauge", "API keys known.", b.keys);
    qd_backend_metrics(g->backend, ret);
}

static qd_code open_parts(gateway *g, qd_err *err)
{
    const qd_gateway_settings *s = &g->settings;
    const qd_backend_config b = qd_gateway_backend(s, g->id, &g->log);
    const qd_bus_nats_config nats = qd_nats_settings_config(&s->nats, g->id);
    qd_server_config c = qd_gateway_server(s, &g->log);
    qd_code rc = QD_OK;
    g->apis[0] = qd_api_bailian();
    g->apis[1] = qd_api_qianfan();
    QD_TRY(take_sockets(g, err));
    QD_TRY(qd_backend_open(&b, &g->backend, err));
    QD_TRY(qd_bus_nats_open(&nats, &g->live_bus, err));
    const qd_live_config live = {.bus = g->live_bus,
                                 .own_thread = true,
                                 .watches_max = (uint32_t)s->live_clients_max,
                                 .jobs_max = (uint32_t)s->live_jobs_max,
                                 .job_bytes = s->live_bytes,
                                 .log = &g->log};
    QD_TRY(qd_live_open(&live, &g->live, err));
    c.apis = g->apis;
    c.n_apis = sizeof g->apis / sizeof g->apis[0];
    c.env.backend = g->backend;
    c.live = g->live;
    c.ops = (qd_server_ops){g, is_ready, show_metrics};
    c.fds = g->fds;
    c.fds_tls = g->fds_tls;
    c.n_fds = g->n_fds;
    QD_TRY(qd_server_open(&c, &g->server, err));
    qd_glog_say(&g->log, QD_LOG_INFO, "quant-gateway %s starts: id=%s port=%u sockets=%zu bus=%s", QD_VERSION, g->id,
                (unsigned)qd_server_port(g->server, g->n_fds), g->n_fds, s->nats.url);
out:
    return rc;
}

static void reload(gateway *g)
{
    qd_gateway_settings fresh;
    qd_buf stale = {0};
    qd_err err = {0};
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, qd_mono_ns() / 1000);
    if (qd_options_load(&g->options, &g->arena, &fresh, &err) != QD_OK) {
        qd_glog_err(&g->log, QD_LOG_ERROR, "reload refused, the settings stay as they were", &err);
    } else {
        qd_conf_take(&qd_gateway_settings_def, &g->settings, &fresh, &stale);
        qd_glog_set(&g->log, (qd_log_level)g->settings.log_level, (uint32_t)g->settings.log_lines_per_s);
        qd_backend_reload(g->backend);
        qd_glog_say(&g->log, QD_LOG_INFO, "settings, models and templates reloaded%s%s",
                    stale.len != 0 ? "; these need a restart: " : "",
                    stale.len != 0 && !stale.failed ? stale.data : "");
    }
    qd_buf_done(&stale);
    (void)sd_notify(0, "READY=1");
}

static void tell_status(gateway *g)
{
    char status[STATUS_BYTES], why[STATUS_BYTES - 64] = "";
    qd_live_state live = {0};
    qd_backend_state b = {0};
    qd_live_state_get(g->live, &live);
    qd_backend_state_get(g->backend, &b);
    bool ready = is_ready(g, why, sizeof why);
    (void)snprintf(status, sizeof status, "%s%s; %" PRIu64 " running, %" PRIu64 " waiting, %" PRIu64 " followed",
                   ready ? "serving" : "not ready: ", why, b.jobs[QD_JOB_RUNNING],
                   b.jobs[QD_JOB_PENDING] + b.jobs[QD_JOB_QUEUING], live.watches);
    if (strcmp(status, g->status) == 0) return;
    (void)sd_notifyf(0, "STATUS=%s", status);
    (void)snprintf(g->status, sizeof g->status, "%s", status);
}

/* Until SIGTERM or SIGINT, or the backend cannot go on. */
static qd_code run(gateway *g, const sigset_t *signals, qd_err *err)
{
    uint64_t watchdog_us = 0;
    qd_code rc = QD_OK;
    bool watched = sd_watchdog_enabled(0, &watchdog_us) > 0, stop = false;
    int fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) return qd_fail(err, QD_E_INTERNAL, "signalfd");
    (void)sd_notify(0, "READY=1");
    while (!stop) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct signalfd_siginfo si;
        qd_live_state live = {0};
        (void)poll(&p, 1, TICK_MS);
        while (read(fd, &si, sizeof si) == (ssize_t)sizeof si) {
            stop = stop || si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT;
            if (si.ssi_signo == SIGHUP) reload(g);
        }
        tell_status(g);
        qd_live_state_get(g->live, &live);
        if (watched && qd_gateway_ms() < live.stepped_ms + STUCK_MS) (void)sd_notify(0, "WATCHDOG=1");
        rc = qd_backend_health(g->backend, err);
        stop = stop || rc != QD_OK;
    }
    (void)sd_notifyf(0, "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=%" PRIu64,
                     (g->settings.stop_ms + EXTEND_MORE_MS) * 1000);
    (void)close(fd);
    return rc;
}

static void close_parts(gateway *g)
{
    qd_server_close(g->server, g->settings.stop_ms);
    qd_live_close(g->live);
    qd_bus_free(g->live_bus);
    qd_backend_close(g->backend);
}

static qd_code serve(gateway *g, const sigset_t *signals, qd_err *err)
{
    struct rlimit files;
    qd_code rc = QD_OK;
    QD_TRY(qd_gateway_settings_check(&g->settings, err));
    if (g->options.check) return QD_OK;
    qd_gateway_id(&g->settings, g->id);
    (void)setenv("TZ", g->settings.api_time_zone, 1);
    tzset();
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    QD_TRY(open_parts(g, err));
    QD_TRY(run(g, signals, err));
out:
    close_parts(g);
    return rc;
}

int main(int argc, char **argv)
{
    gateway g = {.options = {.def = &qd_gateway_settings_def, .version = QD_VERSION, .usage = k_usage}};
    qd_err err = {0};
    sigset_t signals;
    qd_json_use_qd_memory();
    int code = qd_options_parse(&g.options, argc, argv);
    if (code >= 0) return code;
    /* Before any thread: signals are for this one alone. */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    qd_glog_begin(&g.log, STDERR_FILENO, QD_LOG_INFO, 0);
    qd_code rc = qd_options_load(&g.options, &g.arena, &g.settings, &err);
    if (rc == QD_OK) {
        qd_glog_set(&g.log, (qd_log_level)g.settings.log_level, (uint32_t)g.settings.log_lines_per_s);
        rc = serve(&g, &signals, &err);
    }
    if (rc == QD_OK && !g.options.check) qd_glog_say(&g.log, QD_LOG_INFO, "stopped");
    if (rc != QD_OK) qd_glog_err(&g.log, QD_LOG_ERROR, "quant-gateway cannot go on", &err);
    qd_glog_done(&g.log);
    qd_arena_done(&g.arena);
    return qd_code_exit(rc);
}
