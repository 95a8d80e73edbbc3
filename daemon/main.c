/* main.c -- quantd: settings, bus, worker, service. `quantd --child` is the process of one job (child.h). */
#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bus/bus_nats.h"
#include "catalog/template.h"
#include "daemon/child.h"
#include "daemon/service.h"
#include "engine/numerics.h"
#include "proto/subject.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SETTINGS_MAX = 64
};

static const char k_usage[] = "usage: quantd [--instance NAME] [--config FILE] [--set KEY=VALUE]...\n"
                              "  --instance NAME      which worker of this machine: cpu (default)\n"
                              "  --config FILE        settings; docs/config.md has them all\n"
                              "  --set KEY=VALUE      one setting, over the file's\n"
                              "  --check              check the settings and stop\n"
                              "  --config-reference   print docs/config.md\n"
                              "  --version\n";

typedef struct args {
    const char *instance, *config;
    const char *settings[SETTINGS_MAX];
    size_t n_settings;
    bool check;
} args;

static int usage_error(const char *what, const char *arg)
{
    (void)fprintf(stderr, "quantd: %s %s; quantd --help\n", what, arg);
    return 2;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, args *a)
{
    for (int i = 1; i < argc; i++) {
        const char **value = strcmp(argv[i], "--instance") == 0 ? &a->instance
                             : strcmp(argv[i], "--config") == 0 ? &a->config
                                                                : NULL;
        if (strcmp(argv[i], "--set") == 0) {
            if (a->n_settings == SETTINGS_MAX) return usage_error("too many", argv[i]);
            value = &a->settings[a->n_settings++];
        }
        if (value != NULL) {
            if (++i == argc) return usage_error("a value is missing after", argv[i - 1]);
            *value = argv[i];
        } else if (strcmp(argv[i], "--check") == 0) {
            a->check = true;
        } else if (strcmp(argv[i], "--version") == 0) {
            return printf("quantd %s\n", QD_VERSION) < 0;
        } else if (strcmp(argv[i], "--help") == 0) {
            return fputs(k_usage, stdout) < 0;
        } else if (strcmp(argv[i], "--config-reference") == 0) {
            qd_buf page = {0};
            qd_conf_page(&qd_settings_def, &page);
            int bad = page.failed || fputs(page.data, stdout) < 0;
            qd_buf_done(&page);
            return bad;
        } else {
            return usage_error("unknown option", argv[i]);
        }
    }
    return -1;
}

/* <host>-<instance>, with what an id cannot hold replaced. */
static void worker_id(const qd_settings *s, const char *instance, char ret[QD_ID_BYTES])
{
    char host[65] = "host";
    (void)gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = '\0';
    if (s->worker[0] != '\0')
        (void)snprintf(ret, QD_ID_BYTES, "%s", s->worker);
    else
        (void)snprintf(ret, QD_ID_BYTES, "%.40s-%.20s", host, instance);
    for (char *c = ret; *c != '\0' && s->worker[0] == '\0'; c++)
        if (!isalnum((unsigned char)*c) && *c != '-') *c = '_';
}

static qd_code check_settings(const qd_settings *s, const char *device, qd_err *err)
{
    qd_code rc = qd_nats_settings_check(&s->nats, err);
    if (rc != QD_OK) return rc;
    if (strcmp(device, "cpu") != 0)
        return qd_fail(err, QD_E_CONFIG, "device: this version computes on cpu only, found \"%s\"", device);
    rc = qd_conf_check_zone("api_time_zone", s->api_time_zone, err);
    if (rc != QD_OK) return rc;
    if (s->output_roots[0] != '/')
        return qd_fail(err, QD_E_CONFIG, "output_roots: expected absolute paths separated by colons, found \"%s\"",
                       s->output_roots);
    if (s->worker[0] != '\0') {
        rc = qd_id_check(s->worker, "worker", err);
        if (rc != QD_OK && err != NULL) err->code = QD_E_CONFIG;
        if (rc != QD_OK) return QD_E_CONFIG;
    }
    return QD_OK;
}

static const char *or_null(const char *s)
{
    return s[0] != '\0' ? s : NULL;
}

static qd_code serve(const args *a, qd_settings *s, qd_arena *arena, qd_log *log, qd_err *err)
{
    const char *instance = a->instance != NULL ? a->instance : "cpu";
    const char *device = s->device[0] != '\0' ? s->device : instance;
    char id[QD_ID_BYTES], numerics[QD_NUMERICS_ID_BYTES];
    qd_service service = {.settings = s,
                          .log = log,
                          .arena = arena,
                          .config_path = a->config,
                          .overrides = a->settings,
                          .n_overrides = a->n_settings};
    qd_bus_nats_config bus;
    char *templates = NULL;
    qd_code rc = QD_OK;
    QD_TRY(check_settings(s, device, err));
    if (a->check) return QD_OK;
    worker_id(s, instance, id);
    qd_log_field(log, "worker", id);
    qd_numerics_id(numerics);
    (void)setenv("TZ", s->api_time_zone, 1);
    tzset();
    templates = qd_template_dirs(or_null(s->templates));
    if (templates == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for template directories");
        goto out;
    }
    bus = qd_nats_settings_config(&s->nats, id);
    QD_TRY(qd_bus_nats_open(&bus, &service.bus, err));
    const qd_worker_opts wo = {.bus = service.bus,
                               .settings = s,
                               .log = log,
                               .id = id,
                               .device = device,
                               .device_class = "cpu",
                               .numerics_id = numerics,
                               .templates = templates};
    QD_TRY(qd_worker_open(&wo, &service.worker, err));
    qd_log_say(log, QD_LOG_INFO, "quantd %s starts: device=%s bus=%s", QD_VERSION, device, s->nats.url);
    QD_TRY(qd_service_run(&service, err));
    qd_log_say(log, QD_LOG_INFO, "stopped");
out:
    qd_worker_close(service.worker);
    qd_bus_free(service.bus);
    qd_free(templates);
    return rc;
}

int main(int argc, char **argv)
{
    args a = {0};
    qd_settings settings;
    qd_arena arena = {0};
    qd_log log;
    qd_err err = {0};
    sigset_t signals;
    qd_json_use_qd_memory();
    qd_fault_arm_from_env();
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return qd_child_main((int)strtol(argv[2], NULL, 10), strtol(argv[3], NULL, 10));
    int code = parse(argc, argv, &a);
    if (code >= 0) return code;
    /* Before the bus's library starts threads: signals are for the event loop alone. */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)sigaddset(&signals, SIGPIPE);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    qd_log_begin(&log, STDERR_FILENO, QD_LOG_INFO, 0);
    qd_code rc = qd_conf_load(&qd_settings_def, a.config, a.settings, a.n_settings, &arena, &settings, &err);
    if (rc == QD_OK) {
        qd_log_set(&log, (qd_log_level)settings.log_level, (uint32_t)settings.log_lines_per_s);
        rc = serve(&a, &settings, &arena, &log, &err);
    }
    if (rc != QD_OK) qd_log_err(&log, QD_LOG_ERROR, "quantd cannot go on", &err);
    qd_arena_done(&arena);
    return qd_code_exit(rc);
}
