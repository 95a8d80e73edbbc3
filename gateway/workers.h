/* workers.h -- threads that run what may wait for the bus, and the bounded queue before them. */
#ifndef QD_GATEWAY_WORKERS_H
#define QD_GATEWAY_WORKERS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qd_workers qd_workers;
typedef void (*qd_worker_fn)(void *item);

QD_MUST_CHECK qd_code qd_workers_open(unsigned threads, size_t waiting_max, qd_worker_fn fn, qd_workers **ret,
                                      qd_err *err);
/* False: the queue is full or being closed; the item stays the caller's. Any thread. */
bool qd_workers_put(qd_workers *w, void *item);
size_t qd_workers_waiting(qd_workers *w);
/* No more items; returns when those put have been run. */
void qd_workers_close(qd_workers *w);

#endif
