/* fleet.h -- what workers last said, for metrics: how many there are, and how their GPUs fare.
 *
 * Threads: one refreshes, any may show. */
#ifndef QD_GATEWAY_FLEET_H
#define QD_GATEWAY_FLEET_H

#include "base/buf.h"
#include "bus/bus.h"

typedef struct qd_fleet qd_fleet;

qd_fleet *qd_fleet_new(void); /* NULL: out of memory */
void qd_fleet_free(qd_fleet *f);
/* Reads all heartbeats. now_ms: monotonic; a worker whose heartbeat stays the same for four of its own periods is
 * silent. On failure what was known stays. Errors: those of qd_bus_kv_list(). */
QD_MUST_CHECK qd_code qd_fleet_refresh(qd_fleet *f, qd_bus *bus, uint64_t now_ms, qd_err *err);
/* Appends quant_workers by state and quant_gpu_* of each GPU in Prometheus' text format. */
void qd_fleet_show(qd_fleet *f, qd_buf *ret);

#endif
