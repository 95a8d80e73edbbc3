/* run.c -- the job in work: its child, lease, log and end. */
#include "base/file.h"
#include "base/mem.h"
#include "daemon/worker_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    EVENTS_A_STEP = 512,
    PROGRESS_MS = 2000,
    ASK_MS = 200,
    POLL_MS = 100,     /* where the bus cannot wake us */
    POLL_FD_MS = 1000, /* where it can */
    RETRY_MS = 200,
    SHORT_KILL_MS = 1
};

static const char k_success[] = "Quantization succeeded!";

void qd_run_note(qd_worker *w, Quantd__LogLevel level, const char *text)
{
    qd_joblog_add(&w->run.log, qd_unix_ms(), level, text);
}

/* The task ends without a child: what was wrong is in why. */
void qd_run_fail(qd_worker *w, const qd_err *why)
{
    qd_job_run *r = &w->run;
    qd_log_err(w->log, QD_LOG_ERROR, "job cannot be started", why);
    r->exited = true;
    r->start_error = *why;
}

void qd_run_begin(qd_worker *w, qd_task *task)
{
    qd_err err = {0};
    const qd_job_record *rec = qd_task_record(task);
    uint64_t now = qd_mono_ms();
    w->run = (qd_job_run){.task = task, .began_ms = now, .renew_ms = now, .progress_ms = now + PROGRESS_MS};
    qd_joblog_begin(&w->run.log, w->settings->log_bytes_max);
    qd_log_field(w->log, "job", rec->id);
    qd_log_say(w->log, QD_LOG_INFO, "job taken: %s with %s to %s epoch=%" PRIu64 " attempt=%u", rec->spec->source_path,
               rec->spec->template_id, rec->spec->output_path, (uint64_t)rec->epoch, (unsigned)rec->attempts);
    qd_run_note(w, QUANTD__LOG_LEVEL__LOG_INFO, "Starting quantization...");
    if (qd_lead_open(task, &w->run.lead, &err) != QD_OK)
        qd_run_fail(w, &err);
    else
        qd_run_lead(w, now);
}

void qd_run_stop(qd_worker *w, qd_stop_cause cause, const char *why)
{
    static const Quantd__StopKind kinds[] = {QUANTD__STOP_KIND__STOP_NONE, QUANTD__STOP_KIND__STOP_DRAIN,
                                             QUANTD__STOP_KIND__STOP_CANCEL, QUANTD__STOP_KIND__STOP_FENCED};
    qd_job_run *r = &w->run;
    if (r->task == NULL || r->stop > cause) return;
    bool again = r->stop == cause;
    if (again && cause != QD_STOP_DRAIN) return;
    r->stop = cause;
    qd_log_say(w->log, QD_LOG_INFO, "job is stopped: %s", why);
    r->exited = r->exited || r->child == NULL; /* it waits for others: nothing is to be stopped */
    if (r->exited) return;
    uint64_t kill_ms = again ? SHORT_KILL_MS : w->settings->cancel_ms;
    r->patience_ms = cause == QD_STOP_DRAIN && !again ? qd_mono_ms() + w->settings->drain_ms : 0;
    if (r->patience_ms != 0) kill_ms += w->settings->drain_ms;
    qd_childproc_stop(r->child, kinds[cause], why, kill_ms);
}

/* The drain takes too long: now at the next tile. */
static void lose_patience(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    if (r->exited || r->patience_ms == 0 || now < r->patience_ms) return;
    r->patience_ms = 0;
    qd_log_say(w->log, QD_LOG_INFO, "the drain's time is over: job is stopped at the next tile");
    qd_childproc_stop(r->child, QUANTD__STOP_KIND__STOP_CANCEL, "the drain's time is over", w->settings->cancel_ms);
}

/* What the record says about us, from any call of the task. */
void qd_run_heed(qd_worker *w, qd_code rc, const qd_err *err)
{
    if (rc == QD_E_CANCELED) qd_run_stop(w, QD_STOP_CANCEL, "canceled");
    if (rc == QD_E_CONFLICT || rc == QD_E_NOT_FOUND) qd_run_stop(w, QD_STOP_FENCED, err->msg);
}

static void pump_child(qd_worker *w)
{
    qd_job_run *r = &w->run;
    for (int i = 0; i < EVENTS_A_STEP && r->child != NULL && !r->exited; i++) {
        const qd_child_frame *f = NULL;
        switch (qd_childproc_next(r->child, &f)) {
        case QD_CHILD_NOTHING:
            return;
        case QD_CHILD_TICKED: {
            const qd_progress *p = qd_childproc_result_of(r->child)->progress;
            if (p != NULL) qd_joblog_progress(&r->log, p->permille);
            break;
        }
        case QD_CHILD_LOGGED:
            for (size_t k = 0; k < f->log->n_lines; k++) qd_joblog_take(&r->log, f->log->lines[k]);
            f->log->n_lines = 0; /* they are the log's now */
            break;
        case QD_CHILD_ASKS:
            r->asks = true;
            break;
        case QD_CHILD_INVITES:
            qd_run_invite(w, f->invite);
            break;
        case QD_CHILD_EXITED:
            r->exited = true;
            break;
        }
    }
}

/* The child waits for the last word before the rename. Its log goes in first, so that it is whole when OUT appears. */
static void answer(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    qd_err err = {0};
    char staging[QD_RUN_PATH_MAX];
    if (!r->asks || r->exited || r->regroup || r->stop != QD_STOP_NONE || now < r->ask_ms || !qd_worker_up(w)) return;
    qd_code rc = qd_worker_asked(w, qd_task_may_commit(r->task, &err));
    r->ask_ms = now + ASK_MS;
    qd_run_heed(w, rc, &err);
    if (rc != QD_OK) return;
    qd_run_hear_members(w);
    qd_joblog_progress(&r->log, 1000);
    qd_task_staging(r->task, staging, sizeof staging);
    r->success_ms = qd_unix_ms();
    rc = qd_joblog_store(&r->log, staging, r->success_ms, k_success, &err);
    if (rc == QD_OK)
        qd_task_set_log_lines(r->task, r->log.n_text + 1);
    else
        qd_log_err(w->log, QD_LOG_WARN, "the job's log is not stored beside its report", &err);
    r->asks = false;
    r->allowed = true;
    qd_childproc_allow(r->child);
}

/* Whoever takes the job renames staging first: a path that is gone is the fence that is seen without the bus. */
static bool staging_is_gone(qd_worker *w)
{
    qd_job_run *r = &w->run;
    char staging[QD_RUN_PATH_MAX];
    qd_task_staging(r->task, staging, sizeof staging);
    if (qd_path_is_dir(staging)) {
        r->seen_staging = true;
        return false;
    }
    return r->seen_staging && !qd_path_exists(qd_task_record(r->task)->spec->output_path);
}

static void renew(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    qd_err err = {0};
    if (now < r->renew_ms || (r->exited && !r->clearing)) return;
    r->renew_ms = now + w->settings->lease_ms / 3;
    if (r->child != NULL && !r->exited) qd_childproc_alive(r->child, w->settings->lease_ms * 2 / 3);
    if (!r->exited && staging_is_gone(w)) {
        qd_run_stop(w, QD_STOP_FENCED, "another worker has taken its staging directory");
        return;
    }
    if (!qd_worker_up(w)) return;
    qd_code rc = qd_worker_asked(w, qd_task_renew(r->task, &err));
    qd_run_heed(w, rc, &err);
    if (rc == QD_E_AWAY) r->renew_ms = now + RETRY_MS;
}

static void follow_record(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    qd_err err = {0};
    if (r->exited || r->stop >= QD_STOP_CANCEL || !qd_worker_up(w)) return;
    int fd = qd_task_fd(r->task);
    if (fd < 0 && now < r->poll_ms) return;
    r->poll_ms = now + (fd < 0 ? POLL_MS : POLL_FD_MS);
    qd_code rc = qd_worker_asked(w, qd_task_poll(r->task, &err));
    qd_run_heed(w, rc, &err);
}

static void write_progress(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    qd_err err = {0};
    const qd_progress *p = r->child == NULL ? NULL : qd_childproc_result_of(r->child)->progress;
    if (r->exited || r->stop != QD_STOP_NONE || p == NULL || now < r->progress_ms ||
        p->permille / 10 == r->told_permille / 10)
        return;
    if (!qd_worker_up(w)) return;
    r->progress_ms = now + PROGRESS_MS;
    r->told_permille = p->permille;
    qd_run_heed(w, qd_worker_asked(w, qd_task_progress(r->task, p, &err)), &err);
}

static qd_code send_batch(void *ctx, Quantd__LogLine **lines, size_t n, qd_err *err)
{
    const qd_job_run *r = ctx;
    const qd_progress *p = r->child == NULL ? NULL : qd_childproc_result_of(r->child)->progress;
    return qd_task_log(r->task, lines, n, p, err);
}

static void send_log(qd_worker *w, bool all)
{
    qd_job_run *r = &w->run;
    qd_err err = {0};
    if (!qd_worker_up(w)) return;
    qd_code rc = qd_worker_asked(w, qd_joblog_send(&r->log, send_batch, r, all, &err));
    if (rc != QD_OK && rc != QD_E_AWAY) qd_log_err(w->log, QD_LOG_WARN, "log lines could not be sent", &err);
}

/* The last line of the job's log. */
static void tell_end(qd_worker *w, const qd_child_result *res, const qd_job_error *error)
{
    qd_job_run *r = &w->run;
    char text[QD_ERR_MSG_BYTES + 64];
    if (r->told) return;
    r->told = true;
    if (res != NULL && res->ok && r->stop < QD_STOP_CANCEL) {
        qd_joblog_progress(&r->log, 1000);
        /* The same line as in the file: whoever reads the one and then the other sees one log. */
        qd_joblog_add(&r->log, r->success_ms != 0 ? r->success_ms : qd_unix_ms(), QUANTD__LOG_LEVEL__LOG_INFO,
                      k_success);
    } else if (r->stop == QD_STOP_CANCEL) {
        qd_run_note(w, QUANTD__LOG_LEVEL__LOG_WARN, "Quantization canceled.");
    } else if (r->stop == QD_STOP_DRAIN) {
        qd_run_note(w, QUANTD__LOG_LEVEL__LOG_INFO, "The worker stops; the job goes on where it was on another one.");
    } else if (r->yields) {
        qd_run_note(w, QUANTD__LOG_LEVEL__LOG_INFO, "The job waits in the queue for other workers.");
    } else if (error != NULL) {
        (void)snprintf(text, sizeof text, "Quantization failed: %s", error->message);
        qd_run_note(w, QUANTD__LOG_LEVEL__LOG_ERROR, text);
    }
}

static qd_job_error *start_error(const qd_err *why)
{
    qd_job_error *e = qd_job_error_new();
    if (e == NULL || qd_text_set(&e->code, qd_code_name(why->code), NULL) != QD_OK ||
        qd_text_set(&e->message, why->msg, NULL) != QD_OK) {
        qd_msg_free(e);
        return NULL;
    }
    e->error_class = qd_jobs_class_of(why->code);
    return e;
}

/* Writes how it ended. AWAY: again later, with the same arguments. */
static qd_code write_end(qd_worker *w, const qd_child_result *res, const qd_job_error *error, const char **ret_what,
                         qd_err *err)
{
    qd_job_run *r = &w->run;
    bool dead = false;
    qd_code rc = QD_OK;
    uint64_t device_ms = qd_mono_ms() - r->began_ms + qd_lead_device_ms(r->lead);
    if (r->stop == QD_STOP_FENCED) {
        *ret_what = "let go: it is another worker's";
    } else if (res != NULL && res->ok) {
        *ret_what = "succeeded";
        rc = qd_task_finish(r->task, res->report, device_ms, err);
        if (rc == QD_E_CANCELED) *ret_what = "canceled";
    } else if (r->stop == QD_STOP_CANCEL) {
        *ret_what = "canceled";
        rc = qd_task_canceled(r->task, device_ms, err);
    } else if (r->yields) {
        *ret_what = "handed back";
        rc = qd_lead_yield(r->lead, err);
    } else if (r->stop == QD_STOP_DRAIN || error == NULL) {
        *ret_what = "handed back";
        rc = qd_task_hand_back(r->task, res != NULL ? res->progress : NULL, device_ms, err);
    } else {
        rc = qd_task_fail(r->task, error, device_ms, &dead, err);
        *ret_what = dead ? "failed" : "failed here, another worker may try";
    }
    return rc;
}

static void end_run(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    const qd_child_result *res = r->child == NULL ? NULL : qd_childproc_result_of(r->child);
    qd_job_error *own = r->start_error.code != QD_OK ? start_error(&r->start_error) : NULL;
    const qd_job_error *error = r->gang_error != NULL ? r->gang_error : res != NULL ? res->error : own;
    const char *what = "";
    qd_err err = {0};
    if (now < r->retry_ms || !qd_worker_up(w)) goto out;
    r->retry_ms = now + RETRY_MS;
    if (res != NULL && res->ok)
        qd_run_heed(w, qd_worker_asked(w, qd_task_check(r->task, &err)), &err); /* a cancel of the last moment */
    for (int i = 0; i < 2 && r->stop != QD_STOP_FENCED; i++) { /* what waits goes first, so that the end has room */
        send_log(w, true);
        if (r->log.n != 0) goto out; /* the bus is away */
        tell_end(w, res, error);
    }
    if (!qd_worker_up(w) || !qd_run_clear(w, res != NULL && res->ok)) goto out;
    qd_code rc = qd_worker_asked(w, write_end(w, res, error, &what, &err));
    if (rc == QD_E_CANCELED && strcmp(what, "canceled") != 0) { /* it came while we wrote something else */
        r->stop = QD_STOP_CANCEL;
        goto out;
    }
    if (rc == QD_E_AWAY) goto out;
    if (rc != QD_OK && rc != QD_E_CANCELED && rc != QD_E_CONFLICT)
        qd_log_err(w->log, QD_LOG_ERROR, "the job's end could not be written; its lease will run out", &err);
    if (rc == QD_OK || rc == QD_E_CANCELED) qd_lead_end(r->lead);
    if (rc == QD_E_CONFLICT) what = "let go: it is another worker's";
    qd_log_say(w->log, error != NULL && r->stop == QD_STOP_NONE ? QD_LOG_WARN : QD_LOG_INFO, "job %s%s%s", what,
               error != NULL && r->stop == QD_STOP_NONE ? ": " : "",
               error != NULL && r->stop == QD_STOP_NONE ? error->message : "");
    w->jobs_done += rc == QD_OK && res != NULL && res->ok;
    w->jobs_failed += error != NULL && r->stop == QD_STOP_NONE && !r->yields;
    qd_run_drop(w);
    w->fetch_ms = 0; /* the next one at once */
    w->heartbeat_ms = 0;
out:
    qd_msg_free(own);
}

void qd_run_step(qd_worker *w)
{
    qd_job_run *r = &w->run;
    if (r->task == NULL) return;
    pump_child(w);
    uint64_t now = qd_mono_ms();
    renew(w, now);
    follow_record(w, now);
    answer(w, now);
    write_progress(w, now);
    lose_patience(w, now);
    qd_run_lead(w, now);
    if (r->exited)
        end_run(w, now);
    else
        send_log(w, false);
}

uint64_t qd_run_due_ms(const qd_worker *w)
{
    const qd_job_run *r = &w->run;
    if (r->task == NULL) return UINT64_MAX;
    if (r->exited) return r->retry_ms;
    uint64_t at = qd_min_u64(r->renew_ms, qd_run_lead_due_ms(w));
    if (r->child != NULL) at = qd_min_u64(at, qd_childproc_deadline_ms(r->child));
    at = qd_min_u64(at, qd_joblog_due_ms(&r->log));
    if (r->patience_ms != 0) at = qd_min_u64(at, r->patience_ms);
    if (r->stop < QD_STOP_CANCEL) at = qd_min_u64(at, r->poll_ms);
    return r->asks && r->stop == QD_STOP_NONE ? qd_min_u64(at, r->ask_ms) : at;
}

void qd_run_drop(qd_worker *w)
{
    qd_childproc_free(w->run.child);
    qd_msg_free(w->run.gang_error);
    qd_lead_free(w->run.lead);
    qd_bus_feed_close(w->bus, w->run.members);
    qd_task_free(w->run.task);
    qd_joblog_done(&w->run.log);
    qd_log_field(w->log, "job", NULL);
    memset(&w->run, 0, sizeof w->run);
}
