/* logline.h -- the lines of a job's log: as people read them, and how a reader of their batches tells each one once. */
#ifndef QD_PROTO_LOGLINE_H
#define QD_PROTO_LOGLINE_H

#include "base/buf.h"
#include "proto/msg.h"

#include <time.h>

enum {
    QD_LOG_WHEN_BYTES = 32
};

#define QD_LOG_FILE "quantd.log" /* in the output directory: all lines of a job that succeeded */

/* "2026-04-11 12:02:35" in the zone of $TZ. */
void qd_log_when(uint64_t time_ms, char ret[QD_LOG_WHEN_BYTES]);

/* The second that was shown last, as many lines have the same. Zeroed: none. */
typedef struct qd_log_second {
    time_t s;
    char when[QD_LOG_WHEN_BYTES];
} qd_log_second;

/* "2026-04-11 12:02:35 - INFO - text", appended without a newline. second: kept between calls. */
void qd_log_line_show(qd_log_second *second, uint64_t time_ms, Quantd__LogLevel level, const char *text, qd_buf *ret);

/* Where the reader of one job's batches stands. Zeroed: at the beginning. */
typedef struct qd_log_place {
    uint64_t epoch, next_line;
} qd_log_place;

/* Takes a batch in: a place of another epoch begins anew. Returns the first of its lines that were not told yet (they
 * are sent again when it is not known whether they came); b->n_lines: none. */
size_t qd_log_place_take(qd_log_place *place, const qd_event_batch *b);

const char *qd_log_line_level(Quantd__LogLevel l); /* "DEBUG", "INFO", "WARN", "ERROR"; "INFO" for others */
/* A line that is for programs, not for people: it has "##WORD##" in it (letters A-Z and '_'). The APIs leave it out. */
bool qd_log_is_marker(const char *text);

#endif
