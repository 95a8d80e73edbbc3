/* gang_member.c -- a part in another worker's job: its child, and that it ends in time. */
#include "base/mem.h"
#include "daemon/worker_inside.h"

#include <stdio.h>
#include <string.h>

enum {
    EVENTS_A_STEP = 512,
    HEAR_MS = 100, /* how often the gang is looked at */
    KILL_MS = 1    /* when the time is over */
};

bool qd_member_look(qd_worker *w)
{
    qd_member_run *m = &w->member;
    qd_err err = {0};
    if (m->follow != NULL) return true;
    qd_code rc = qd_worker_asked(w, qd_follow_look(w->jobs, &m->follow, &err));
    if (rc != QD_OK && rc != QD_E_AWAY) qd_log_err(w->log, QD_LOG_WARN, "calls of other workers", &err);
    if (m->follow == NULL) return false;
    m->step_ms = 0;
    qd_joblog_begin(&m->log, 0);
    qd_log_say(w->log, QD_LOG_INFO, "offers itself to job %s", qd_follow_record(m->follow)->id);
    return true;
}

static void start_child(qd_worker *w)
{
    qd_member_run *m = &w->member;
    qd_err err = {0};
    char text[QD_ID_BYTES + 32];
    size_t n = 0;
    const uint8_t *invite = qd_follow_invite(m->follow, &n);
    qd_child_gang *gang = qd_run_gang(w, qd_follow_rank(m->follow), qd_follow_size(m->follow));
    qd_code rc = gang == NULL ? qd_fail(&err, QD_E_NO_MEMORY, "out of memory for a gang") : QD_OK;
    if (rc == QD_OK) {
        gang->invite = (ProtobufCBinaryData){.len = n, .data = qd_malloc(n)};
        if (gang->invite.data == NULL) rc = qd_fail(&err, QD_E_NO_MEMORY, "out of memory for an invite");
    }
    if (rc == QD_OK) memcpy(gang->invite.data, invite, n);
    if (rc == QD_OK) rc = qd_run_spawn(w, qd_follow_record(m->follow), gang, &m->child, &err);
    qd_msg_free(gang);
    m->exited = m->stopping = false;
    m->began_ms = qd_mono_ms();
    m->alive_ms = 0;
    if (rc == QD_OK) {
        (void)snprintf(text, sizeof text, "Runs on worker %s.", w->id);
        qd_member_note(w, qd_unix_ms(), QUANTD__LOG_LEVEL__LOG_INFO, text);
        qd_log_say(w->log, QD_LOG_INFO, "rank %u of %u of job %s", (unsigned)qd_follow_rank(m->follow),
                   (unsigned)qd_follow_size(m->follow), qd_follow_record(m->follow)->id);
        qd_follow_tell(m->follow, QUANTD__MEMBER_STATE__MEMBER_RUNNING, NULL, 0);
        return;
    }
    qd_log_err(w->log, QD_LOG_ERROR, "a part of another worker's job cannot be started", &err);
    qd_job_error *e = qd_job_error_new();
    if (e != NULL && qd_text_set(&e->code, qd_code_name(err.code), NULL) == QD_OK &&
        qd_text_set(&e->message, err.msg, NULL) == QD_OK)
        e->error_class = qd_jobs_class_of(err.code);
    qd_follow_tell(m->follow, QUANTD__MEMBER_STATE__MEMBER_LEFT, e, 0);
    qd_msg_free(e);
}

static void stop_child(qd_worker *w, Quantd__StopKind kind, const char *why, uint64_t kill_ms)
{
    qd_member_run *m = &w->member;
    if (m->child == NULL || m->exited || m->stopping) return;
    m->stopping = true;
    qd_log_say(w->log, QD_LOG_INFO, "its part is stopped: %s", why);
    qd_childproc_stop(m->child, kind, why, kill_ms);
}

/* Into the job's log, and into this program's. */
static void tell_lines(qd_worker *w, const Quantd__ChildLog *log)
{
    for (size_t i = 0; i < log->n_lines; i++) {
        qd_member_note(w, log->lines[i]->time_ms, log->lines[i]->level, log->lines[i]->text);
        bool bad = log->lines[i]->level >= QUANTD__LOG_LEVEL__LOG_WARN;
        qd_log_say(w->log, bad ? QD_LOG_WARN : QD_LOG_DEBUG, "job %s: %s", qd_follow_record(w->member.follow)->id,
                   log->lines[i]->text);
    }
}

static void pump_child(qd_worker *w)
{
    qd_member_run *m = &w->member;
    for (int i = 0; i < EVENTS_A_STEP && m->child != NULL && !m->exited; i++) {
        const qd_child_frame *f = NULL;
        switch (qd_childproc_next(m->child, &f)) {
        case QD_CHILD_NOTHING:
            return;
        case QD_CHILD_TICKED:
            break;
        case QD_CHILD_LOGGED:
            tell_lines(w, f->log);
            break;
        case QD_CHILD_ASKS:
        case QD_CHILD_INVITES:
            stop_child(w, QUANTD__STOP_KIND__STOP_FENCED, "a rank other than 0 asked, or sent an invite", 0);
            break;
        case QD_CHILD_EXITED:
            m->exited = true;
            break;
        }
    }
}

/* What became of the child goes to the leader. */
static void tell_end(qd_worker *w)
{
    qd_member_run *m = &w->member;
    const qd_child_result *res = qd_childproc_result_of(m->child);
    uint64_t device_ms = qd_mono_ms() - m->began_ms;
    const qd_job_error *error = res->ok || m->stopping ? NULL : res->error;
    if (error != NULL) {
        qd_log_say(w->log, QD_LOG_WARN, "its part has failed: %s", error->message);
        qd_member_note(w, qd_unix_ms(), QUANTD__LOG_LEVEL__LOG_WARN, error->message);
    }
    qd_member_send_log(w, true); /* before the leader hears that there is no more */
    qd_follow_tell(m->follow, res->ok ? QUANTD__MEMBER_STATE__MEMBER_DONE : QUANTD__MEMBER_STATE__MEMBER_LEFT, error,
                   device_ms);
    qd_childproc_free(m->child);
    m->child = NULL;
    m->step_ms = 0;
}

/* The child ends with the time that is left, whatever becomes of us or the bus. */
static void keep_time(qd_worker *w, uint64_t now)
{
    qd_member_run *m = &w->member;
    uint64_t until_ms = qd_follow_until_ms(m->follow), lease_ms = w->settings->lease_ms;
    if (m->child == NULL || m->exited) return;
    if (now >= until_ms) {
        stop_child(w, QUANTD__STOP_KIND__STOP_FENCED, "its leader was not heard of for a lease", KILL_MS);
        return;
    }
    if (now < m->alive_ms) return;
    m->alive_ms = now + lease_ms / 6;
    qd_childproc_alive(m->child, qd_min_u64(lease_ms * 2 / 3, until_ms - now));
}

void qd_member_step(qd_worker *w)
{
    qd_member_run *m = &w->member;
    qd_follow_word word = QD_FOLLOW_WAIT;
    qd_err err = {0};
    if (m->follow == NULL) return;
    pump_child(w);
    if (m->child != NULL && m->exited) tell_end(w);
    qd_member_send_log(w, false);
    uint64_t now = qd_mono_ms();
    if (now >= m->step_ms && qd_worker_up(w)) {
        m->step_ms = now + HEAR_MS;
        qd_code rc = qd_worker_asked(w, qd_follow_step(m->follow, &word, &err));
        if (rc != QD_OK && rc != QD_E_AWAY) qd_log_err(w->log, QD_LOG_WARN, "gang", &err);
        if (word == QD_FOLLOW_START && rc == QD_OK) start_child(w);
        if (word == QD_FOLLOW_STOP)
            stop_child(w, QUANTD__STOP_KIND__STOP_GANG, qd_follow_why(m->follow), w->settings->cancel_ms);
    }
    keep_time(w, now);
    if (word != QD_FOLLOW_OVER) return;
    qd_log_say(w->log, QD_LOG_INFO, "free again: %s", qd_follow_why(m->follow));
    qd_member_drop(w);
    w->fetch_ms = 0;
    w->heartbeat_ms = 0;
}

void qd_member_leave(qd_worker *w)
{
    if (w->member.follow == NULL) return;
    qd_follow_leave(w->member.follow);
    w->member.step_ms = 0;
}

void qd_member_drop(qd_worker *w)
{
    qd_childproc_free(w->member.child);
    qd_follow_free(w->member.follow);
    qd_joblog_done(&w->member.log);
    memset(&w->member, 0, sizeof w->member);
}

uint64_t qd_member_due_ms(const qd_worker *w)
{
    const qd_member_run *m = &w->member;
    if (m->follow == NULL) return UINT64_MAX;
    uint64_t at = m->step_ms;
    at = qd_min_u64(at, qd_joblog_due_ms(&m->log));
    if (m->child != NULL) at = qd_min_u64(at, qd_min_u64(m->alive_ms, qd_childproc_deadline_ms(m->child)));
    return at;
}
