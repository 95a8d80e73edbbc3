/* config.h -- quantd's settings: the table behind quantd.conf, --set and docs/config.md. */
#ifndef QD_DAEMON_CONFIG_H
#define QD_DAEMON_CONFIG_H

#include "base/conf.h"
#include "base/log.h"
#include "bus/nats_settings.h"

typedef struct qd_settings {
    qd_nats_settings nats;
    const char *worker, *device, *topology, *pin, *gpu_health, *nvml_library, *output_roots, *source_roots, *templates,
        *api_time_zone;
    uint64_t threads, memory_bytes;
    uint64_t lease_ms, heartbeat_ms, sweep_ms, drain_ms, cancel_ms, silent_ms, stall_ms, node_retry_ms, attempts_max,
        running_max, queued_max, recorded_max, retention_ms, log_bytes_max;
    uint64_t log_level, log_lines_per_s;
} qd_settings;

extern const qd_conf_def qd_settings_def;

#endif
