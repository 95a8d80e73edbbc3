/* remote_watch.c -- `quantctl watch` and `quantctl logs [-f]`: a job's record and its events, followed. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "cli/cmd.h"
#include "cli/remote.h"
#include "cli/remote_bar.h"
#include "cli/signals.h"
#include "proto/logline.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    WAIT_MS = 50,
    EVENTS_A_ROUND = 512,
    STORED_BYTES_MAX = 1 << 30,
    LOOK_AGAIN_MS = 2000,     /* a feed that has gone quiet must not hide the end */
    LAST_WORDS_MS = 1500,     /* after the end, where the last event is missing */
    LAST_WORDS_MAX_MS = 10000 /* the same, where the feed of events does not even say that it is up to date */
};

static const char k_watch_usage[] = "usage: quantctl watch JOB_ID\n" QD_REMOTE_USAGE;
static const char k_logs_usage[] = "usage: quantctl logs JOB_ID [-f]\n"
                                   "  -f, --follow         go on until the job has ended\n"
                                   "Times are in the zone of $TZ, by default Asia/Shanghai.\n" QD_REMOTE_USAGE;

typedef struct follow {
    qd_remote *r;
    const char *id;
    qd_job_record *rec;
    qd_bus_feed *records, *events;
    qd_remote_bar *bar; /* watch; NULL: logs */
    bool json, deleted, last, synced, away;
    qd_log_place place; /* of the lines printed */
    qd_log_second second;
    uint64_t ended_ms, looked_ms;
    qd_buf out;
} follow;

static void done(follow *f)
{
    qd_bus_feed_close(f->r->bus, f->records);
    qd_bus_feed_close(f->r->bus, f->events);
    qd_msg_free(f->rec);
    qd_remote_bar_free(f->bar);
    qd_buf_done(&f->out);
}

static qd_code begin(follow *f, qd_err *err)
{
    char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES];
    qd_code rc = qd_jobs_get(f->r->jobs, f->id, &f->rec, NULL, err);
    if (rc == QD_OK) rc = qd_key(QD_KEY_JOB, f->id, key, err);
    if (rc == QD_OK) rc = qd_subject_event(f->id, NULL, subject, err);
    if (rc == QD_OK) rc = qd_bus_kv_watch(f->r->bus, QD_BUCKET_JOBS, key, &f->records, err);
    const qd_bus_feed_spec events = {
        .stream = QD_STREAM_EVENTS, .filter = subject, .start = QD_FEED_FROM_SEQ, .from_seq = 1, .bulk = true};
    if (rc == QD_OK) rc = qd_bus_feed_open(f->r->bus, &events, &f->events, err);
    return rc;
}

static void tell_state(follow *f, const qd_job_record *old)
{
    char text[256];
    bool taken = f->rec->state == QD_JOB_RUNNING && f->rec->epoch != old->epoch;
    if (f->bar == NULL || (f->rec->state == old->state && !taken)) return;
    if (f->json) {
        qd_remote_job_json(f->rec, &f->out);
        qd_buf_str(&f->out, "\n");
        (void)!qd_remote_print(&f->out, NULL);
        return;
    }
    if (taken)
        (void)snprintf(text, sizeof text, "RUNNING on %s%s", f->rec->owner,
                       f->rec->epoch > 1 ? ", which goes on with it" : "");
    else
        (void)snprintf(text, sizeof text, "%s", qd_job_state_name(f->rec->state));
    if (!qd_job_state_terminal(f->rec->state)) qd_remote_bar_note(f->bar, false, text);
}

static void set_record(follow *f, qd_job_record *rec)
{
    qd_job_record *old = f->rec;
    f->rec = rec;
    tell_state(f, old);
    if (f->bar != NULL && rec->progress != NULL && rec->state == QD_JOB_RUNNING && rec->epoch != f->place.epoch)
        qd_remote_bar_show(f->bar, rec->progress);
    qd_msg_free(old);
}

static qd_code look_again(follow *f, qd_err *err)
{
    qd_job_record *rec = NULL;
    qd_code rc = qd_jobs_get(f->r->jobs, f->id, &rec, NULL, err);
    if (rc == QD_OK) set_record(f, rec);
    if (rc == QD_E_NOT_FOUND) f->deleted = true;
    return rc == QD_E_NOT_FOUND ? QD_OK : rc;
}

static void print_line(follow *f, const qd_log_line *line, uint64_t number)
{
    if (f->bar != NULL) {
        if (line->level == QUANTD__LOG_LEVEL__LOG_WARN && !f->json) qd_remote_bar_note(f->bar, true, line->text);
        return;
    }
    if (f->json) {
        qd_buf_printf(&f->out,
                      "{\"event\":\"log\",\"line\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"time_ms\":%" PRIu64
                      ",\"level\":\"%s\",\"message\":",
                      number, f->place.epoch, (uint64_t)line->time_ms, qd_log_line_level(line->level));
        qd_buf_json_str(&f->out, line->text);
        qd_buf_str(&f->out, "}\n");
    } else {
        qd_log_line_show(&f->second, line->time_ms, line->level, line->text, &f->out);
        qd_buf_str(&f->out, "\n");
    }
}

/* One batch; those of other epochs than the record's are a fenced worker's, or history. */
static qd_code take_batch(follow *f, const qd_bus_msg *m, qd_err *err)
{
    qd_event_batch *b = NULL;
    qd_code rc = qd_event_batch_decode(m->data, m->bytes, &b, err);
    if (rc != QD_OK) return rc == QD_E_NO_MEMORY ? rc : QD_OK; /* malformed: somebody else's */
    if (b->epoch > f->rec->epoch) rc = look_again(f, err);
    if (rc == QD_OK && b->epoch == f->rec->epoch) {
        for (size_t i = qd_log_place_take(&f->place, b); i < b->n_lines; i++)
            print_line(f, b->lines[i], b->first_line + i);
        if (f->bar != NULL && b->progress != NULL && f->rec->state == QD_JOB_RUNNING)
            qd_remote_bar_show(f->bar, b->progress);
        f->last = f->last || b->last;
    }
    qd_msg_free(b);
    if (rc == QD_OK && f->out.len != 0) rc = qd_remote_print(&f->out, err);
    return rc;
}

static qd_code pump_records(follow *f, qd_err *err)
{
    for (int i = 0; i < EVENTS_A_ROUND; i++) {
        qd_bus_msg m = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_job_record *rec = NULL;
        qd_code rc = qd_bus_feed_next(f->r->bus, f->records, 0, &event, &m, err);
        if (rc == QD_OK && event == QD_FEED_MSG && m.bytes == 0) f->deleted = true;
        if (rc == QD_OK && event == QD_FEED_MSG && m.bytes != 0) {
            rc = qd_job_record_decode(m.data, m.bytes, &rec, err);
            if (rc == QD_OK && rec->updated_ms >= f->rec->updated_ms)
                set_record(f, rec);
            else
                qd_msg_free(rec);
        }
        qd_bus_msg_done(&m);
        if (rc != QD_OK || event == QD_FEED_NONE) return rc;
    }
    return QD_OK;
}

static qd_code pump_events(follow *f, qd_err *err)
{
    for (int i = 0; i < EVENTS_A_ROUND; i++) {
        qd_bus_msg m = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_code rc = qd_bus_feed_next(f->r->bus, f->events, i == 0 ? WAIT_MS : 0, &event, &m, err);
        if (rc == QD_OK && event == QD_FEED_MSG) rc = take_batch(f, &m, err);
        if (event == QD_FEED_SYNCED) f->synced = true;
        qd_bus_msg_done(&m);
        if (rc != QD_OK || event == QD_FEED_NONE) return rc;
    }
    return QD_OK;
}

/* True when nothing more is to come. */
static bool is_over(follow *f, bool only_now)
{
    bool ended = f->deleted || qd_job_state_terminal(f->rec->state);
    if (ended && f->ended_ms == 0) f->ended_ms = qd_mono_ms();
    if (f->deleted || (only_now && f->synced)) return true;
    if (!ended) return false;
    if (qd_mono_ms() > f->ended_ms + LAST_WORDS_MAX_MS) return true;
    return f->synced && (f->last || qd_mono_ms() > f->ended_ms + LAST_WORDS_MS);
}

/* Until the job has ended (only_now: until all that is there was told), or a signal comes: QD_E_CANCELED. */
static qd_code go(follow *f, bool only_now, qd_cancel *cancel, qd_err *err)
{
    while (!is_over(f, only_now)) {
        if (qd_cancel_asked(cancel)) return qd_fail(err, QD_E_CANCELED, "stopped watching");
        qd_code rc = pump_records(f, err);
        if (rc == QD_OK) rc = pump_events(f, err);
        if (rc == QD_OK && qd_mono_ms() - f->looked_ms >= LOOK_AGAIN_MS) {
            rc = look_again(f, err);
            f->looked_ms = qd_mono_ms();
        }
        if (rc == QD_E_AWAY && !f->away) (void)fprintf(stderr, "quantctl: the bus is away; waiting for it\n");
        f->away = rc == QD_E_AWAY;
        if (f->away) (void)nanosleep(&(struct timespec){.tv_nsec = WAIT_MS * 1000000L}, NULL);
        if (rc != QD_OK && rc != QD_E_AWAY) return rc;
    }
    return QD_OK;
}

static int tell_end(follow *f)
{
    const qd_job_record *rec = f->rec;
    qd_err err = {0};
    if (f->deleted) {
        (void)qd_fail(&err, QD_E_NOT_FOUND, "job %s was deleted", f->id);
        return qd_cmd_fail(&err, f->json);
    }
    if (f->json) {
        qd_remote_job_json(rec, &f->out);
        qd_buf_str(&f->out, "\n");
        (void)!qd_remote_print(&f->out, NULL);
    }
    if (rec->state == QD_JOB_SUCCEEDED) {
        if (!f->json && rec->report != NULL)
            (void)printf("%s: %u linears quantized, %u tensors copied, relative error %.4f\n  report: %s\n",
                         rec->spec->output_path, (unsigned)rec->report->tensors_quantized,
                         (unsigned)rec->report->tensors_copied, rec->report->rel_error, rec->report->path);
        return 0;
    }
    (void)fprintf(stderr, "quantctl: job %s %s%s%s\n", f->id, qd_job_state_name(rec->state),
                  rec->error != NULL ? ": " : "", rec->error != NULL ? rec->error->message : "");
    return 1;
}

int qd_remote_watch(qd_remote *r, const char *id, bool json)
{
    static qd_cancel cancel; /* a handler refers to it until the program ends */
    follow f = {.r = r, .id = id, .json = json};
    qd_err err = {0};
    int code = 0;
    f.bar = qd_remote_bar_new(json);
    qd_code rc = f.bar == NULL ? qd_fail(&err, QD_E_NO_MEMORY, "out of memory") : begin(&f, &err);
    qd_signals_to(&cancel);
    if (rc == QD_OK) rc = go(&f, false, &cancel, &err);
    qd_remote_bar_free(f.bar);
    f.bar = NULL;
    if (rc == QD_OK) {
        code = tell_end(&f);
    } else if (rc == QD_E_CANCELED) {
        (void)fprintf(stderr,
                      "quantctl: job %s goes on; `quantctl watch %s` looks again, `quantctl cancel %s` stops it\n", id,
                      id, id);
        code = qd_signals_exit(&cancel);
    } else {
        code = qd_cmd_fail(&err, json);
    }
    done(&f);
    return code;
}

static qd_code parse(int argc, char **argv, qd_remote_args *a, bool *follow_it, const char **ret_id, qd_err *err)
{
    qd_arg_list rest = {0};
    qd_opt opts[1 + QD_REMOTE_OPTS] = {{"--follow", "-f", QD_OPT_FLAG, follow_it}};
    uint32_t n = 1 + qd_remote_opts(a, opts + 1);
    qd_code rc = qd_args_parse(argc, argv, opts, n, 0, 1, &rest, err);
    if (rc != QD_OK || a->help) return rc;
    if (rest.n != 1) return qd_fail(err, QD_E_USAGE, "which job? quantctl %s JOB_ID", argv[0]);
    *ret_id = rest.items[0];
    return qd_id_check(*ret_id, "job id", err);
}

/* The stream forgets after some days; what is stored beside the report stays. */
static qd_code print_stored(follow *f, qd_err *err)
{
    char *text = NULL;
    size_t n = 0;
    if (f->place.next_line > 1 || f->rec->log_lines == 0 || f->json) return QD_OK;
    char *path = qd_path_join(f->rec->spec->output_path, QD_LOG_FILE);
    qd_code rc = path == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory")
                              : qd_file_read(path, STORED_BYTES_MAX, &text, &n, err);
    if (rc == QD_OK) (void)fwrite(text, 1, n, stdout);
    qd_free(text);
    qd_free(path);
    return rc;
}

int qd_cmd_watch(int argc, char **argv)
{
    qd_remote_args a = {0};
    qd_remote r = {0};
    qd_err err = {0};
    const char *id = NULL;
    bool ignored = false;
    int code = 0;
    qd_code rc = parse(argc, argv, &a, &ignored, &id, &err);
    if (rc == QD_OK && a.help) return fputs(k_watch_usage, stdout) < 0;
    if (rc == QD_OK) rc = qd_remote_open(&a, &r, &err);
    if (rc == QD_OK) code = qd_remote_watch(&r, id, a.json);
    qd_remote_close(&r);
    return rc == QD_OK ? code : qd_cmd_fail(&err, a.json);
}

int qd_cmd_logs(int argc, char **argv)
{
    static qd_cancel cancel;
    qd_remote_args a = {0};
    qd_remote r = {0};
    qd_err err = {0};
    const char *id = NULL;
    bool to_the_end = false;
    qd_code rc = parse(argc, argv, &a, &to_the_end, &id, &err);
    if (rc == QD_OK && a.help) return fputs(k_logs_usage, stdout) < 0;
    if (getenv("TZ") == NULL) (void)setenv("TZ", "Asia/Shanghai", 1);
    tzset();
    if (rc == QD_OK) rc = qd_remote_open(&a, &r, &err);
    if (rc == QD_OK) {
        follow f = {.r = &r, .id = id, .json = a.json};
        rc = begin(&f, &err);
        qd_signals_to(&cancel);
        if (rc == QD_OK) rc = go(&f, !to_the_end, &cancel, &err);
        if (rc == QD_OK) rc = print_stored(&f, &err);
        done(&f);
    }
    qd_remote_close(&r);
    if (rc == QD_E_CANCELED) return qd_signals_exit(&cancel);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, a.json);
}
