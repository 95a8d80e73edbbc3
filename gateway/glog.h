/* glog.h -- base/log.h's log for the gateway's many threads: one line at a time. */
#ifndef QD_GATEWAY_GLOG_H
#define QD_GATEWAY_GLOG_H

#include "base/log.h"

#include <pthread.h>

typedef struct qd_glog {
    pthread_mutex_t lock;
    qd_log log;
} qd_glog;

void qd_glog_begin(qd_glog *g, int fd, qd_log_level level, uint32_t lines_per_s);
void qd_glog_set(qd_glog *g, qd_log_level level, uint32_t lines_per_s);
void qd_glog_say(qd_glog *g, qd_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void qd_glog_err(qd_glog *g, qd_log_level level, const char *what, const qd_err *err);
void qd_glog_done(qd_glog *g);

#endif
