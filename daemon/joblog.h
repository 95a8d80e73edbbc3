/* joblog.h -- the log lines of one job, or of a part in one: gathered into batches for the event stream, kept as text
 * for the file beside the report. Bounded: while the bus is away batches wait up to a limit; above it new lines are
 * left out of the stream, which then has one line that says how many. The file has them. */
#ifndef QD_DAEMON_JOBLOG_H
#define QD_DAEMON_JOBLOG_H

#include "base/buf.h"
#include "proto/logline.h"

enum {
    QD_JOBLOG_BATCH_BYTES = 60 << 10, /* of texts; with the rest of the message below 64 KiB */
    QD_JOBLOG_BATCH_LINES = 512,
    QD_JOBLOG_BATCH_MS = 50,
    QD_JOBLOG_WAITING_MAX = 65536, /* lines */
    QD_JOBLOG_WAITING_BYTES_MAX = 16 << 20
};

typedef struct qd_joblog {
    Quantd__LogLine **lines;   /* a ring of QD_JOBLOG_WAITING_MAX, made when it is first needed */
    size_t first, n, in_batch; /* in_batch: lines of a batch whose fate is open; it is sent again as it was */
    size_t bytes;              /* of the texts in it */
    uint64_t dropped, n_text;  /* dropped: left out of the stream and not yet told there */
    uint64_t oldest_ms;
    size_t text_max;
    bool text_full;
    qd_buf text; /* "2026-04-11 12:02:35 - INFO - ...": in the zone of $TZ */
    int last_percent;
    qd_log_second second;
} qd_joblog;

void qd_joblog_begin(qd_joblog *l, size_t text_max);
void qd_joblog_done(qd_joblog *l);
/* Memory that is out costs the line, never the job. */
void qd_joblog_add(qd_joblog *l, uint64_t time_ms, Quantd__LogLevel level, const char *text);
/* The same with a line of a decoded message, which it takes. */
void qd_joblog_take(qd_joblog *l, Quantd__LogLine *line);
/* "Quantization progress: 37%", when the percentage is another one. */
void qd_joblog_progress(qd_joblog *l, uint32_t permille);
/* When the next batch is due, by the monotonic clock; UINT64_MAX: nothing waits. */
uint64_t qd_joblog_due_ms(const qd_joblog *l);
/* Sends one batch. AWAY: it may have been sent, and comes again as it was. */
typedef qd_code (*qd_joblog_sender)(void *ctx, Quantd__LogLine **lines, size_t n, qd_err *err);
/* Sends batches: one that is due or full, all of them when `all`. AWAY: call again. */
QD_MUST_CHECK qd_code qd_joblog_send(qd_joblog *l, qd_joblog_sender send, void *ctx, bool all, qd_err *err);
/* Writes the text to dir/QD_LOG_FILE with one more line, so that the log is whole when the directory appears. */
QD_MUST_CHECK qd_code qd_joblog_store(qd_joblog *l, const char *dir, uint64_t time_ms, const char *last_line,
                                      qd_err *err);

#endif
