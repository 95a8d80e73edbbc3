/* log.h -- one line an event to stderr, for journald or for people: a sentence and fields in logfmt.
 *
 * For journald (prefix true): <6>job taken worker=node1-gpu0 job=01J.
 * Else: 2026-04-11T04:02:35.120Z info job taken worker=... A line is written whole by one write(); it never blocks for
 * long and never fails the caller: lines above the rate are counted and the count is told with the next line. */
#ifndef QD_BASE_LOG_H
#define QD_BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum qd_log_level {
    QD_LOG_ERROR, /* somebody has to act */
    QD_LOG_WARN,
    QD_LOG_INFO,
    QD_LOG_DEBUG
} qd_log_level;

enum {
    QD_LOG_FIELDS_MAX = 8,
    QD_LOG_KEY_BYTES = 16,
    QD_LOG_VALUE_BYTES = 72
};

typedef struct qd_log {
    int fd;
    qd_log_level level; /* lines above it are not written */
    bool prefix;
    uint32_t lines_per_s; /* 0 = no bound; a burst of twice as many is let through */
    uint64_t tokens_milli, refilled_ms, suppressed;
    uint32_t n_fields;
    struct {
        char key[QD_LOG_KEY_BYTES], value[QD_LOG_VALUE_BYTES];
    } fields[QD_LOG_FIELDS_MAX];
} qd_log; /* one thread at a time */

/* prefix: taken from $JOURNAL_STREAM, which systemd sets when stderr is journald's. */
void qd_log_begin(qd_log *l, int fd, qd_log_level level, uint32_t lines_per_s);
void qd_log_set(qd_log *l, qd_log_level level, uint32_t lines_per_s);
/* A field of every line from now on; value NULL takes it away. More than QD_LOG_FIELDS_MAX are dropped, long ones cut.
 */
void qd_log_field(qd_log *l, const char *key, const char *value);
void qd_log_say(qd_log *l, qd_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* err->msg with its code; at QD_LOG_DEBUG also where it was raised. */
void qd_log_err(qd_log *l, qd_log_level level, const char *what, const qd_err *err);

const char *qd_log_level_name(qd_log_level level);

#endif
