/* call_logs.c -- a job's log: from its events, and after a good end from the file beside its report. */
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/path.h"
#include "gateway/backend_inside.h"
#include "proto/logline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    STEP_MS = 2000,
    LINE_BYTES_MAX = 16 << 10, /* longer ones are cut; proto/rules.c allows 8 KiB and the time comes before it */
    CHUNK_BYTES = 64 << 10,
    PATH_BYTES = 4096
};

/* One line more of the log (a NUL follows); kept when the page has it. Lines for programs do not count. */
static qd_code take_line(qd_call_job *c, const char *text, size_t n, qd_err *err)
{
    qd_log_page *p = &c->page;
    if (qd_log_is_marker(text)) return QD_OK;
    uint64_t at = p->total++;
    if (at < c->offset || p->n == c->n) return QD_OK;
    char *line = qd_arena_printf(&p->arena, "%.*s", (int)(n < LINE_BYTES_MAX ? n : LINE_BYTES_MAX), text);
    if (line == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a log");
    if (!qd_str_is_utf8(line))
        for (char *s = line; *s != '\0'; s++)
            if ((unsigned char)*s >= 0x80) *s = '?';
    p->lines[p->n++] = line;
    return QD_OK;
}

typedef struct reading {
    qd_call_job *call;
    uint64_t epoch;
    qd_log_place place;
    qd_log_second second;
    qd_buf line;
} reading;

static qd_code take_batch(reading *r, const qd_bus_msg *m, qd_err *err)
{
    qd_event_batch *b = NULL;
    qd_code rc = qd_event_batch_decode(m->data, m->bytes, &b, err);
    if (rc != QD_OK) return rc == QD_E_NO_MEMORY ? rc : QD_OK;
    size_t i = b->epoch == r->epoch ? qd_log_place_take(&r->place, b) : b->n_lines;
    for (; rc == QD_OK && i < b->n_lines; i++) {
        const qd_log_line *l = b->lines[i];
        qd_buf_reset(&r->line);
        qd_log_line_show(&r->second, l->time_ms, l->level, l->text, &r->line);
        rc = qd_buf_check(&r->line, err);
        if (rc == QD_OK) rc = take_line(r->call, r->line.data, r->line.len, err);
    }
    qd_msg_free(b);
    return rc;
}

/* Batches of other epochs are a fenced worker's, or history. */
static qd_code from_events(qd_desk *d, qd_call_job *c, uint64_t epoch, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_bus_feed *feed = NULL;
    reading r = {.call = c, .epoch = epoch};
    qd_code rc = QD_OK;
    if (epoch == 0) return QD_OK; /* nobody has begun */
    QD_TRY(qd_subject_event(c->id, NULL, subject, err));
    const qd_bus_feed_spec spec = {
        .stream = QD_STREAM_EVENTS, .filter = subject, .start = QD_FEED_FROM_SEQ, .from_seq = 1, .bulk = true};
    QD_TRY(qd_bus_feed_open(d->bus, &spec, &feed, err));
    for (bool over = false; !over;) {
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_bus_msg m = {0};
        QD_TRY(qd_bus_feed_next(d->bus, feed, STEP_MS, &event, &m, err));
        if (event == QD_FEED_MSG) rc = take_batch(&r, &m, err);
        qd_bus_msg_done(&m);
        if (event == QD_FEED_NONE) rc = qd_fail(err, QD_E_AWAY, "job %s: its log broke off", c->id);
        over = rc != QD_OK || event == QD_FEED_SYNCED;
    }
out:
    qd_bus_feed_close(d->bus, feed);
    qd_buf_done(&r.line);
    return rc;
}

/* *ret_there false: there is no such file (any more, or on this machine). */
static qd_code from_file(const qd_backend_bus *b, const qd_job_record *rec, qd_call_job *c, bool *ret_there,
                         qd_err *err)
{
    char path[PATH_BYTES], *chunk = NULL;
    qd_buf line = {0};
    ssize_t n = 0;
    qd_code rc = QD_OK;
    *ret_there = false;
    if (!qd_path_below(rec->spec->output_path, b->cfg.output_root))
        return QD_OK; /* a record that names another place is not ours to follow */
    (void)snprintf(path, sizeof path, "%.4000s/" QD_LOG_FILE, rec->spec->output_path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return QD_OK;
    *ret_there = true;
    chunk = qd_malloc(CHUNK_BYTES);
    if (chunk == NULL) rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a log");
    while (rc == QD_OK) {
        int fault = qd_fault_here(QD_FAULT_READ);
        n = fault != 0 ? -1 : read(fd, chunk, CHUNK_BYTES);
        if (n < 0) rc = qd_fail_errno(err, QD_E_IO, fault != 0 ? fault : errno, "%s", path);
        if (n <= 0) break;
        for (const char *at = chunk, *end = chunk + n; rc == QD_OK && at < end;) {
            const char *stop = memchr(at, '\n', (size_t)(end - at));
            size_t part = (size_t)((stop == NULL ? end : stop) - at);
            if (line.len < LINE_BYTES_MAX) qd_buf_add(&line, at, part);
            at += part + 1;
            if (stop == NULL) break;
            rc = qd_buf_check(&line, err);
            if (rc == QD_OK) rc = take_line(c, line.len == 0 ? "" : line.data, line.len, err);
            qd_buf_reset(&line);
        }
    }
    if (rc == QD_OK && line.len != 0) rc = take_line(c, line.data, line.len, err);
    (void)close(fd);
    qd_free(chunk);
    qd_buf_done(&line);
    return rc;
}

qd_code qd_call_job_logs(qd_desk *d, void *arg, qd_err *err)
{
    qd_call_job *c = arg;
    qd_job_record *rec = NULL;
    bool there = false;
    qd_code rc = QD_OK;
    if (c->n > QD_LOG_LINES_MAX) c->n = QD_LOG_LINES_MAX;
    c->page = (qd_log_page){0};
    QD_TRY(qd_call_read(d, c->caller->tenant, c->origin, c->id, &rec, err));
    c->page.lines = qd_arena_alloc(&c->page.arena, c->n + 1, sizeof(const char *));
    if (c->page.lines == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a log");
        goto out;
    }
    if (rec->log_lines != 0) QD_TRY(from_file(d->b, rec, c, &there, err));
    if (!there) QD_TRY(from_events(d, c, rec->epoch, err));
out:
    qd_msg_free(rec);
    if (rc != QD_OK) qd_log_page_done(&c->page);
    return rc;
}
