/* config.h -- quant-gateway's settings: the table behind quant-gateway.conf, --set and docs/gateway-config.md. */
#ifndef QD_GATEWAY_CONFIG_H
#define QD_GATEWAY_CONFIG_H

#include "base/conf.h"
#include "bus/nats_settings.h"
#include "gateway/backend_bus.h"
#include "gateway/server.h"

typedef struct qd_gateway_settings {
    const char *gateway, *listen, *listen_tls, *tls_cert, *tls_key;
    qd_nats_settings nats;
    const char *api_time_zone, *templates, *models_root, *files_root, *output_root, *index, *seal_key;
    uint64_t device_class;
    uint64_t threads, write_threads, writes_waiting_max, callers, calls_waiting_max;
    uint64_t connections_max, connections_per_address, live_clients_max, live_jobs_max, live_bytes;
    uint64_t header_bytes, body_bytes, file_bytes, upload_files_max, calibration_files_max, disk_free_bytes;
    uint64_t header_ms, body_ms, reply_ms, stop_ms;
    uint64_t running_max, queued_max, recorded_max, requests_per_minute, storage_bytes, files_max;
    bool access_log;
    uint64_t log_level, log_lines_per_s;
} qd_gateway_settings;

extern const qd_conf_def qd_gateway_settings_def;

/* What the table cannot say. Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_gateway_settings_check(const qd_gateway_settings *s, qd_err *err);
/* The settings as the modules want them; texts are lent. self: this gateway's id. */
qd_backend_config qd_gateway_backend(const qd_gateway_settings *s, const char *self, qd_glog *log);
/* Without apis, backend, live and sockets. */
qd_server_config qd_gateway_server(const qd_gateway_settings *s, qd_glog *log);
/* The setting `gateway`, or <host>-gateway. */
void qd_gateway_id(const qd_gateway_settings *s, char ret[QD_ID_BYTES]);

#endif
