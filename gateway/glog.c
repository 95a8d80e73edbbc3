#include "gateway/glog.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    TEXT_BYTES = 1536
};

void qd_glog_begin(qd_glog *g, int fd, qd_log_level level, uint32_t lines_per_s)
{
    (void)pthread_mutex_init(&g->lock, NULL);
    qd_log_begin(&g->log, fd, level, lines_per_s);
}

void qd_glog_set(qd_glog *g, qd_log_level level, uint32_t lines_per_s)
{
    (void)pthread_mutex_lock(&g->lock);
    qd_log_set(&g->log, level, lines_per_s);
    (void)pthread_mutex_unlock(&g->lock);
}

void qd_glog_say(qd_glog *g, qd_log_level level, const char *fmt, ...)
{
    char text[TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)pthread_mutex_lock(&g->lock);
    qd_log_say(&g->log, level, "%s", text);
    (void)pthread_mutex_unlock(&g->lock);
}

void qd_glog_err(qd_glog *g, qd_log_level level, const char *what, const qd_err *err)
{
    (void)pthread_mutex_lock(&g->lock);
    qd_log_err(&g->log, level, what, err);
    (void)pthread_mutex_unlock(&g->lock);
}

void qd_glog_done(qd_glog *g)
{
    (void)pthread_mutex_destroy(&g->lock);
}
