/* service.h -- quantd as a service: one thread around sd-event. Signals (SIGTERM drains, SIGHUP reloads), the service
 * manager's notifications and watchdog, and the worker's rounds. Works without systemd as well. */
#ifndef QD_DAEMON_SERVICE_H
#define QD_DAEMON_SERVICE_H

#include "base/log.h"
#include "base/options.h"
#include "daemon/config.h"
#include "daemon/worker.h"

typedef struct qd_service {
    qd_bus *bus;
    qd_worker *worker;
    qd_settings *settings;
    qd_log *log;
    qd_arena *arena;
    const qd_options *options; /* where the settings come from: a reload reads them again */
} qd_service;

/* SIGTERM, SIGINT and SIGHUP must be blocked in every thread. Returns when the worker is drained. Errors: QD_E_CONFIG
 * (the streams on the bus are not what they should be), QD_E_INTERNAL. */
QD_MUST_CHECK qd_code qd_service_run(qd_service *s, qd_err *err);

#endif
