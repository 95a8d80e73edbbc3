#include "daemon/joblog.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static Quantd__LogLine **slot(const qd_joblog *l, size_t i)
{
    return &l->lines[(l->first + i) % QD_JOBLOG_WAITING_MAX];
}

void qd_joblog_begin(qd_joblog *l, size_t text_max)
{
    *l = (qd_joblog){.text_max = text_max, .last_percent = -1};
}

static void drop_first(qd_joblog *l, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        l->bytes -= strlen((*slot(l, i))->text);
        qd_msg_free(*slot(l, i));
    }
    l->first = (l->first + n) % QD_JOBLOG_WAITING_MAX;
    l->n -= n;
}

void qd_joblog_done(qd_joblog *l)
{
    if (l == NULL) return;
    if (l->lines != NULL) drop_first(l, l->n);
    qd_free(l->lines);
    qd_buf_done(&l->text);
    *l = (qd_joblog){0};
}

static void add_line(qd_log_second *second, uint64_t time_ms, Quantd__LogLevel level, const char *text, qd_buf *ret)
{
    qd_log_line_show(second, time_ms, level, text, ret);
    qd_buf_str(ret, "\n");
}

static void keep_text(qd_joblog *l, uint64_t time_ms, Quantd__LogLevel level, const char *text)
{
    if (l->text_full) return;
    if (l->text.len + strlen(text) + 64 > l->text_max) {
        l->text_full = true;
        text = "the log is longer than this file may be; the rest was told in the event stream only";
    }
    add_line(&l->second, time_ms, level, text, &l->text);
    l->n_text++;
}

static Quantd__LogLine *new_line(uint64_t time_ms, Quantd__LogLevel level, const char *text)
{
    Quantd__LogLine *line = qd_log_line_new();
    if (line == NULL || qd_text_set(&line->text, text, NULL) != QD_OK) {
        qd_msg_free(line);
        return NULL;
    }
    line->time_ms = time_ms;
    line->level = level;
    return line;
}

/* Takes line, which may be NULL. False: it does not go into the stream. */
static bool put_line(qd_joblog *l, Quantd__LogLine *line)
{
    if (l->lines == NULL) l->lines = qd_calloc(QD_JOBLOG_WAITING_MAX, sizeof(*l->lines));
    size_t bytes = line == NULL ? 0 : strlen(line->text);
    if (line == NULL || l->lines == NULL || l->n == QD_JOBLOG_WAITING_MAX ||
        l->bytes + bytes > QD_JOBLOG_WAITING_BYTES_MAX) {
        qd_msg_free(line);
        return false;
    }
    if (l->n == 0) l->oldest_ms = qd_mono_ms();
    l->bytes += bytes;
    *slot(l, l->n++) = line;
    return true;
}

/* After a gap the stream goes on, with one line that tells of it, when there is room for a while. */
static bool gap_is_told(qd_joblog *l, uint64_t time_ms)
{
    char text[160];
    if (l->dropped == 0) return true;
    if (l->n > QD_JOBLOG_WAITING_MAX / 2 || l->bytes > QD_JOBLOG_WAITING_BYTES_MAX / 2) return false;
    (void)snprintf(text, sizeof text,
                   "%" PRIu64 " log lines are missing here, the bus was away too long; " QD_LOG_FILE
                   " beside the report has them",
                   l->dropped);
    if (!put_line(l, new_line(time_ms, QUANTD__LOG_LEVEL__LOG_WARN, text))) return false;
    l->dropped = 0;
    return true;
}

/* Takes line; NULL: there was no memory for it. */
static void to_stream(qd_joblog *l, uint64_t time_ms, Quantd__LogLine *line)
{
    if (!gap_is_told(l, time_ms)) {
        qd_msg_free(line);
        l->dropped++;
    } else if (!put_line(l, line)) {
        l->dropped++;
    }
}

void qd_joblog_take(qd_joblog *l, Quantd__LogLine *line)
{
    keep_text(l, line->time_ms, line->level, line->text);
    to_stream(l, line->time_ms, line);
}

void qd_joblog_add(qd_joblog *l, uint64_t time_ms, Quantd__LogLevel level, const char *text)
{
    keep_text(l, time_ms, level, text);
    to_stream(l, time_ms, new_line(time_ms, level, text));
}

void qd_joblog_progress(qd_joblog *l, uint32_t permille)
{
    char text[64];
    int percent = (int)(permille / 10);
    if (percent == l->last_percent) return;
    l->last_percent = percent;
    (void)snprintf(text, sizeof text, "Quantization progress: %d%%", percent);
    qd_joblog_add(l, qd_unix_ms(), QUANTD__LOG_LEVEL__LOG_INFO, text);
}

uint64_t qd_joblog_due_ms(const qd_joblog *l)
{
    return l->n == 0 ? UINT64_MAX : l->oldest_ms + QD_JOBLOG_BATCH_MS;
}

qd_code qd_joblog_send(qd_joblog *l, qd_joblog_sender send, void *ctx, bool all, qd_err *err)
{
    while (l->n > 0) {
        Quantd__LogLine *batch[QD_JOBLOG_BATCH_LINES];
        size_t n = 0, bytes = 0, most = l->in_batch != 0 ? l->in_batch : QD_JOBLOG_BATCH_LINES;
        for (; n < l->n && n < most; n++) {
            batch[n] = *slot(l, n);
            bytes += strlen(batch[n]->text) + 24;
            if (n > 0 && bytes > QD_JOBLOG_BATCH_BYTES && l->in_batch == 0) break;
        }
        bool full = n < l->n || n == QD_JOBLOG_BATCH_LINES;
        if (!all && !full && qd_mono_ms() < qd_joblog_due_ms(l)) return QD_OK;
        l->in_batch = n;
        qd_code rc = send(ctx, batch, n, err);
        if (rc == QD_E_AWAY) return rc;
        drop_first(l, n); /* sent, or never to be taken */
        l->in_batch = 0;
        l->oldest_ms = qd_mono_ms();
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

qd_code qd_joblog_store(qd_joblog *l, const char *dir, uint64_t time_ms, const char *last_line, qd_err *err)
{
    qd_buf text = {0};
    qd_code rc = QD_OK;
    char *path = qd_path_join(dir, QD_LOG_FILE);
    if (path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the log");
        goto out;
    }
    if (l->text.len != 0) qd_buf_add(&text, l->text.data, l->text.len);
    if (last_line != NULL) add_line(&l->second, time_ms, QUANTD__LOG_LEVEL__LOG_INFO, last_line, &text);
    QD_TRY(qd_buf_check(&text, err));
    QD_TRY(qd_file_replace(path, text.data, text.len, err));
out:
    qd_buf_done(&text);
    qd_free(path);
    return rc;
}
