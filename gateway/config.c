#include "gateway/config.h"

#include "base/file.h"
#include "proto/subject.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(qd_gateway_settings, field)
#define MIN_MS    UINT64_C(60000)
#define MIB       (UINT64_C(1) << 20)

static const char *const k_devices[] = {"cpu", "cuda"};

static const qd_conf_key k_keys[] = {
    {"listen", QD_CONF_TEXT, AT(listen), "127.0.0.1:8080", 0, 0, NULL, false,
     "Addresses for HTTP, separated by spaces: 127.0.0.1:8080, [::1]:8080, *:8080 or the path of a socket. Sockets "
     "that "
     "systemd hands over are served besides; empty: these only. Without TLS in front keys travel in the clear."},
    {"listen_tls", QD_CONF_TEXT, AT(listen_tls), "", 0, 0, NULL, false,
     "The same for HTTPS, with tls_cert and tls_key."},
    {"tls_cert", QD_CONF_PATH, AT(tls_cert), "", 0, 0, NULL, false, "Certificate and those that sign it, PEM."},
    {"tls_key", QD_CONF_SECRET, AT(tls_key), "", 0, 0, NULL, false, "The certificate's private key, PEM."},
    {"gateway", QD_CONF_TEXT, AT(gateway), "", 0, 0, NULL, false,
     "This gateway's id: letters, digits, - and _. Empty: <host name>-gateway."},
    QD_NATS_SETTINGS(qd_gateway_settings, nats, "this gateway"),
    {"models_root", QD_CONF_PATH, AT(models_root), "/var/lib/quantd/models", 0, 0, NULL, false,
     "Directory with the models users may choose; the workers read it under the same path."},
    {"files_root", QD_CONF_PATH, AT(files_root), "/var/lib/quantd/files", 0, 0, NULL, false,
     "Directory for uploaded calibration data; the workers read it under the same path."},
    {"output_root", QD_CONF_PATH, AT(output_root), "/var/lib/quantd/output", 0, 0, NULL, false,
     "Directory below which jobs put their output: one of the workers' output_roots."},
    {"index", QD_CONF_PATH, AT(index), "/var/lib/quantd/gateway/index.sqlite", 0, 0, NULL, false,
     "File of this gateway's index of jobs; made from the bus whenever it is missing."},
    {"templates", QD_CONF_TEXT, AT(templates), "", 0, 0, NULL, false,
     "Directories with templates, separated by colons. Empty: those installed with this program. Read again at a "
     "reload."},
    {"seal_key", QD_CONF_SECRET, AT(seal_key), "", 0, 0, NULL, false,
     "File with the key that opens the secrets of signing keys, the same for every gateway: quantctl keys makes it. "
     "Empty: no request is taken by signature."},
    {"api_time_zone", QD_CONF_TEXT, AT(api_time_zone), "Asia/Shanghai", 0, 0, NULL, false,
     "Time zone of the times in requests and replies; the same on every gateway and worker."},
    {"device_class", QD_CONF_CHOICE, AT(device_class), "cpu", 0, 0, "cpu|cuda", false, "What jobs are to run on."},
    {"threads", QD_CONF_COUNT, AT(threads), "0", 0, 64, NULL, false,
     "Threads that answer what only reads. 0: one a processor, at most 8."},
    {"write_threads", QD_CONF_COUNT, AT(write_threads), "8", 1, 64, NULL, false,
     "Requests that may wait for the bus at a time."},
    {"writes_waiting_max", QD_CONF_COUNT, AT(writes_waiting_max), "256", 1, 100000, NULL, false,
     "Further ones that wait for a thread; more are refused."},
    {"callers", QD_CONF_COUNT, AT(callers), "4", 1, 64, NULL, false, "Connections to the bus for writes."},
    {"calls_waiting_max", QD_CONF_COUNT, AT(calls_waiting_max), "256", 1, 100000, NULL, false,
     "Writes that wait for one of them; more are refused."},
    {"connections_max", QD_CONF_COUNT, AT(connections_max), "4096", 16, 1000000, NULL, false,
     "Connections at a time, live events apart; more are closed."},
    {"connections_per_address", QD_CONF_COUNT, AT(connections_per_address), "512", 1, 1000000, NULL, false,
     "Connections of one address at a time, live events counted apart. Behind a proxy all have its address."},
    {"live_clients_max", QD_CONF_COUNT, AT(live_clients_max), "2048", 1, 100000, NULL, false,
     "Clients that follow jobs at a time."},
    {"live_jobs_max", QD_CONF_COUNT, AT(live_jobs_max), "256", 1, 10000, NULL, false,
     "Jobs that are followed at a time."},
    {"live_bytes", QD_CONF_BYTES, AT(live_bytes), "4MiB", 1 << 16, 1 << 30, NULL, false,
     "Most bytes of events kept of each of them, for clients that come late."},
    {"header_bytes", QD_CONF_BYTES, AT(header_bytes), "16KiB", 1024, 24 << 10, NULL, false, "Most bytes of headers."},
    {"body_bytes", QD_CONF_BYTES, AT(body_bytes), "1MiB", 1024, 64 * MIB, NULL, false,
     "Most bytes of a body, uploads apart."},
    {"file_bytes", QD_CONF_BYTES, AT(file_bytes), "300MiB", 1, 0, NULL, false, "Most bytes of an uploaded file."},
    {"upload_files_max", QD_CONF_COUNT, AT(upload_files_max), "100", 1, 1000, NULL, false, "Most files of one upload."},
    {"calibration_files_max", QD_CONF_COUNT, AT(calibration_files_max), "5", 1, 1000, NULL, false,
     "Most uploaded files that a job may name."},
    {"disk_free", QD_CONF_BYTES, AT(disk_free_bytes), "1GiB", 0, 0, NULL, false,
     "Uploads leave at least so much of the file system free."},
    {"header_timeout", QD_CONF_MS, AT(header_ms), "30s", 100, 60 * MIN_MS, NULL, false,
     "From the end of one request of a connection to the whole headers of the next."},
    {"body_timeout", QD_CONF_MS, AT(body_ms), "30s", 100, 60 * MIN_MS, NULL, false,
     "For a request's body; an upload gets a second more for each 16 KiB."},
    {"reply_timeout", QD_CONF_MS, AT(reply_ms), "60s", 100, 60 * MIN_MS, NULL, false,
     "For the client to take an answer."},
    {"stop", QD_CONF_MS, AT(stop_ms), "10s", 0, 10 * MIN_MS, NULL, false,
     "How long a stop waits for requests under way."},
    {"running_max", QD_CONF_COUNT, AT(running_max), "0", 0, 1000000, NULL, false,
     "Jobs of one user that may be queued or running at a time, where its own limits say nothing; 0: no limit."},
    {"queued_max", QD_CONF_COUNT, AT(queued_max), "0", 0, 10000000, NULL, false,
     "Jobs of one user that may wait; 0: no limit."},
    {"recorded_max", QD_CONF_COUNT, AT(recorded_max), "0", 0, 10000000, NULL, false,
     "Records of one user, ended jobs included; 0: no limit."},
    {"requests_per_minute", QD_CONF_COUNT, AT(requests_per_minute), "0", 0, 10000000, NULL, false,
     "Requests of one user a minute at this gateway; 0: no limit."},
    {"storage", QD_CONF_BYTES, AT(storage_bytes), "100GiB", 0, 0, NULL, false,
     "Most bytes of one user's uploaded files; 0: no limit."},
    {"files_max", QD_CONF_COUNT, AT(files_max), "10000", 0, 10000000, NULL, false,
     "Most uploaded files of one user; 0: no limit."},
    {"access_log", QD_CONF_BOOL, AT(access_log), "true", 0, 0, NULL, false,
     "A line a request: method, path without query, status, time, address, user and id of the key."},
    {"log_level", QD_CONF_CHOICE, AT(log_level), "info", 0, 0, "error|warn|info|debug", true,
     "What this program logs about itself."},
    {"log_lines_per_s", QD_CONF_COUNT, AT(log_lines_per_s), "200", 0, 100000, NULL, true,
     "Most lines a second of that; more are counted. 0: no limit."},
};

const qd_conf_def qd_gateway_settings_def = {"quant-gateway", k_keys, sizeof k_keys / sizeof k_keys[0],
                                             sizeof(qd_gateway_settings)};

qd_code qd_gateway_settings_check(const qd_gateway_settings *s, qd_err *err)
{
    const struct {
        const char *name, *path;
    } paths[] = {{"models_root", s->models_root},
                 {"files_root", s->files_root},
                 {"output_root", s->output_root},
                 {"index", s->index}};
    qd_code rc = qd_nats_settings_check(&s->nats, err);
    if (rc != QD_OK) return rc;
    rc = qd_conf_check_zone("api_time_zone", s->api_time_zone, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (paths[i].path[0] != '/') return qd_fail(err, QD_E_CONFIG, "%s: expected a path", paths[i].name);
    if ((s->tls_cert[0] == '\0') != (s->tls_key[0] == '\0'))
        return qd_fail(err, QD_E_CONFIG, "tls_cert and tls_key: both or none");
    if (s->gateway[0] != '\0' && !qd_id_ok(s->gateway))
        return qd_fail(err, QD_E_CONFIG, "gateway: expected letters, digits, - and _, found \"%.100s\"", s->gateway);
    return QD_OK;
}

qd_backend_config qd_gateway_backend(const qd_gateway_settings *s, const char *self, qd_glog *log)
{
    return (qd_backend_config){.nats = qd_nats_settings_config(&s->nats, self),
                               .streams = {.replicas = (uint32_t)s->nats.replicas},
                               .self = self,
                               .index_path = s->index,
                               .models_root = s->models_root,
                               .files_root = s->files_root,
                               .output_root = s->output_root,
                               .templates = s->templates,
                               .seal_key_file = s->seal_key,
                               .device_class = k_devices[s->device_class],
                               .callers = (uint32_t)s->callers,
                               .calls_waiting_max = (uint32_t)s->calls_waiting_max,
                               .file_bytes_max = s->file_bytes,
                               .disk_free_bytes = s->disk_free_bytes,
                               .running_max = (uint32_t)s->running_max,
                               .queued_max = (uint32_t)s->queued_max,
                               .recorded_max = (uint32_t)s->recorded_max,
                               .requests_per_minute = (uint32_t)s->requests_per_minute,
                               .storage_bytes_max = s->storage_bytes,
                               .files_max = (uint32_t)s->files_max,
                               .log = log};
}

qd_server_config qd_gateway_server(const qd_gateway_settings *s, qd_glog *log)
{
    uint64_t upload = 0;
    if (__builtin_mul_overflow(s->file_bytes + MIB, s->upload_files_max, &upload)) upload = UINT64_MAX / 2;
    return (qd_server_config){
        .env = {.body_bytes_max = s->body_bytes, .calibration_files_max = (uint32_t)s->calibration_files_max},
        .log = log,
        .access_log = s->access_log,
        .listen = s->listen,
        .listen_tls = s->listen_tls,
        .tls_cert = s->tls_cert,
        .tls_key = s->tls_key,
        .threads = (unsigned)s->threads,
        .write_threads = (unsigned)s->write_threads,
        .writes_waiting_max = (uint32_t)s->writes_waiting_max,
        .connections_max = (uint32_t)s->connections_max,
        .connections_per_address_max = (uint32_t)s->connections_per_address,
        .live_max = (uint32_t)s->live_clients_max,
        .header_bytes_max = (uint32_t)s->header_bytes,
        .upload_files_max = (uint32_t)s->upload_files_max,
        .upload_body_max = upload,
        .header_ms = s->header_ms,
        .body_ms = s->body_ms,
        .reply_ms = s->reply_ms};
}

void qd_gateway_id(const qd_gateway_settings *s, char ret[QD_ID_BYTES])
{
    qd_id_of_host("gateway", ret);
    if (s->gateway[0] != '\0') (void)snprintf(ret, QD_ID_BYTES, "%s", s->gateway);
}
