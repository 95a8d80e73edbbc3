/* main.c -- quantd: settings, bus, worker, service. `quantd --child` is the process of one job (child.h). */
#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/options.h"
#include "bus/bus_nats.h"
#include "catalog/template.h"
#include "daemon/child.h"
#include "daemon/probe.h"
#include "daemon/service.h"
#include "daemon/topology.h"
#include "proto/subject.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char k_usage[] = "usage: quantd [--instance NAME] [--config FILE] [--set KEY=VALUE]...\n"
                              "  --instance NAME      which worker of this machine: cpu (default), gpu0, gpu1, ..\n"
                              "  --config FILE        settings; docs/config.md has them all\n"
                              "  --set KEY=VALUE      one setting, over the file's\n"
                              "  --check              check the settings and stop\n"
                              "  --config-reference   print docs/config.md\n"
                              "  --version\n";

static qd_code check_settings(const qd_settings *s, const char *device, qd_err *err)
{
    qd_code rc = qd_nats_settings_check(&s->nats, err);
    if (rc != QD_OK) return rc;
    if (!qd_probe_is_device(device))
        return qd_fail(err, QD_E_CONFIG, "device: expected cpu, or gpu0, gpu1 and so on, found \"%s\"", device);
    rc = qd_topology_check(s->topology, err);
    if (rc == QD_OK) rc = qd_pin_check(s->pin, qd_probe_is_gpu(device), err);
    if (rc == QD_OK) rc = qd_conf_check_zone("api_time_zone", s->api_time_zone, err);
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

/* -1: none to watch; QD_E_CONFIG for a text that is no GPU. */
static qd_code watched_gpu(const qd_settings *s, const char *device, long *ret, qd_err *err)
{
    const char *gpu = s->gpu_health[0] != '\0' ? s->gpu_health : device;
    char *end = NULL;
    *ret = -1;
    if (strcmp(gpu, "cpu") == 0) return QD_OK;
    long n = strncmp(gpu, "gpu", 3) == 0 && isdigit((unsigned char)gpu[3]) ? strtol(gpu + 3, &end, 10) : -1;
    if (n < 0 || n > 1023 || *end != '\0')
        return qd_fail(err, QD_E_CONFIG, "gpu_health: expected gpu0, gpu1 and so on, found \"%s\"", gpu);
    *ret = n;
    return QD_OK;
}

static const char *or_null(const char *s)
{
    return s[0] != '\0' ? s : NULL;
}

static qd_code serve(const qd_options *o, qd_settings *s, qd_arena *arena, qd_log *log, qd_err *err)
{
    const char *instance = o->own_value != NULL ? o->own_value : "cpu";
    const char *device = s->device[0] != '\0' ? s->device : instance;
    char id[QD_ID_BYTES];
    qd_probe probe;
    qd_service service = {.settings = s, .log = log, .arena = arena, .options = o};
    qd_bus_nats_config bus;
    char *templates = NULL;
    qd_gpu_watch *gpu = NULL;
    long gpu_index = -1;
    qd_code rc = QD_OK;
    QD_TRY(check_settings(s, device, err));
    QD_TRY(watched_gpu(s, device, &gpu_index, err));
    if (o->check) return QD_OK;
    qd_id_of_host(instance, id);
    if (s->worker[0] != '\0') (void)snprintf(id, sizeof id, "%s", s->worker);
    qd_log_field(log, "worker", id);
    QD_TRY(qd_probe_device(NULL, device, &probe, err));
    if (probe.collective[0] == '\0') qd_log_say(log, QD_LOG_WARN, "takes no part in gangs: %s", probe.alone);
    (void)setenv("TZ", s->api_time_zone, 1);
    tzset();
    templates = qd_template_dirs(or_null(s->templates));
    if (templates == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for template directories");
        goto out;
    }
    if (gpu_index >= 0 && qd_gpu_watch_open(s->nvml_library, (unsigned)gpu_index, s->heartbeat_ms, &gpu, err) != QD_OK)
        qd_log_err(log, QD_LOG_WARN, "the GPU's health is not watched", err);
    bus = qd_nats_settings_config(&s->nats, id);
    QD_TRY(qd_bus_nats_open(&bus, &service.bus, err));
    const qd_worker_opts wo = {.bus = service.bus,
                               .settings = s,
                               .log = log,
                               .id = id,
                               .device = device,
                               .device_class = qd_probe_is_gpu(device) ? "cuda" : "cpu",
                               .numerics_id = probe.numerics_id,
                               .collective = probe.collective,
                               .one_host = probe.one_host,
                               .templates = templates,
                               .gpu = gpu};
    QD_TRY(qd_worker_open(&wo, &service.worker, err));
    qd_log_say(log, QD_LOG_INFO, "quantd %s starts: device=%s bus=%s", QD_VERSION, device, s->nats.url);
    QD_TRY(qd_service_run(&service, err));
    qd_log_say(log, QD_LOG_INFO, "stopped");
out:
    qd_worker_close(service.worker);
    qd_gpu_watch_close(gpu);
    qd_bus_free(service.bus);
    qd_free(templates);
    return rc;
}

int main(int argc, char **argv)
{
    qd_options options = {.def = &qd_settings_def, .version = QD_VERSION, .usage = k_usage, .own = "--instance"};
    qd_settings settings;
    qd_arena arena = {0};
    qd_log log;
    qd_err err = {0};
    sigset_t signals;
    qd_json_use_qd_memory();
    qd_fault_arm_from_env();
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return qd_child_main((int)strtol(argv[2], NULL, 10), strtol(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], QD_PROBE_ARG) == 0) return qd_probe_main(argv[2]);
    int code = qd_options_parse(&options, argc, argv);
    if (code >= 0) return code;
    /* Before the bus's library starts threads: signals are for the event loop alone. */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)sigaddset(&signals, SIGPIPE);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    qd_log_begin(&log, STDERR_FILENO, QD_LOG_INFO, 0);
    qd_code rc = qd_options_load(&options, &arena, &settings, &err);
    if (rc == QD_OK) {
        qd_log_set(&log, (qd_log_level)settings.log_level, (uint32_t)settings.log_lines_per_s);
        rc = serve(&options, &settings, &arena, &log, &err);
    }
    if (rc != QD_OK) qd_log_err(&log, QD_LOG_ERROR, "quantd cannot go on", &err);
    qd_arena_done(&arena);
    return qd_code_exit(rc);
}
