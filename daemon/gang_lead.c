/* gang_lead.c -- the gang of the job in work: when its child is started, stopped, and started anew. */
#include "base/mem.h"
#include "daemon/worker_inside.h"

#include <stdio.h>
#include <string.h>

enum {
    HEAR_MS = 200 /* how often members are heard of while the child runs */
};

static void start_child(qd_worker *w)
{
    qd_job_run *r = &w->run;
    uint32_t size = qd_lead_size(r->lead);
    qd_err err = {0};
    char text[80];
    qd_child_gang *gang = size == 1 ? NULL : qd_run_gang(w, 0, size);
    if (size > 1) {
        (void)snprintf(text, sizeof text, "Runs on %u workers.", (unsigned)size);
        qd_run_note(w, QUANTD__LOG_LEVEL__LOG_INFO, text);
        qd_log_say(w->log, QD_LOG_INFO, "leads gang %u of %u ranks", (unsigned)qd_lead_number(r->lead), (unsigned)size);
    }
    if (qd_run_spawn(w, qd_task_record(r->task), gang, &r->child, &err) != QD_OK) qd_run_fail(w, &err);
    qd_lead_started(r->lead);
    qd_msg_free(gang);
}

static void break_gang(qd_worker *w)
{
    qd_job_run *r = &w->run;
    if (r->regroup || r->allowed || r->exited || r->child == NULL) return;
    r->regroup = true;
    qd_log_say(w->log, QD_LOG_WARN, "gang is broken: %s", qd_lead_why(r->lead));
    qd_childproc_stop(r->child, QUANTD__STOP_KIND__STOP_GANG, qd_lead_why(r->lead), w->settings->cancel_ms);
}

/* Whether the child that has ended is to be followed by one of a new gang. */
static bool goes_on(const qd_job_run *r)
{
    const qd_child_result *res = r->child == NULL ? NULL : qd_childproc_result_of(r->child);
    if (!r->exited || res == NULL || r->allowed || r->stop != QD_STOP_NONE || r->gang_error != NULL || r->yields)
        return false;
    bool broke = res->error != NULL && strcmp(res->error->code, qd_code_name(QD_E_GANG)) == 0;
    return !res->ok && qd_lead_size(r->lead) > 1 && (r->regroup || broke);
}

static void call_again(qd_worker *w)
{
    qd_job_run *r = &w->run;
    const qd_child_result *res = qd_childproc_result_of(r->child);
    const qd_job_error *fault = qd_lead_error(r->lead);
    qd_err err = {0};
    char text[320];
    const char *why = r->regroup || res->error == NULL ? qd_lead_why(r->lead) : res->error->message;
    if (!r->regroup) qd_log_say(w->log, QD_LOG_WARN, "gang is broken: %s", why);
    (void)snprintf(text, sizeof text, "The gang is broken: %.240s", why);
    qd_run_note(w, QUANTD__LOG_LEVEL__LOG_WARN, text);
    r->regroup = false;
    if (fault != NULL) { /* it would fail again */
        r->gang_error = qd_job_error_new();
        qd_code rc = r->gang_error == NULL ? QD_E_NO_MEMORY : qd_text_set(&r->gang_error->code, fault->code, NULL);
        if (rc == QD_OK) rc = qd_text_set(&r->gang_error->message, fault->message, NULL);
        if (r->gang_error != NULL) r->gang_error->error_class = fault->error_class;
        if (rc == QD_OK) return;
    }
    if (qd_lead_again(r->lead, why, &err) != QD_OK) {
        qd_log_err(w->log, QD_LOG_WARN, "job goes back", &err);
        r->yields = true;
        return;
    }
    qd_childproc_free(r->child);
    r->child = NULL;
    r->exited = r->asks = false;
}

void qd_run_lead(qd_worker *w, uint64_t now)
{
    qd_job_run *r = &w->run;
    qd_lead_word word = QD_LEAD_WAIT;
    qd_err err = {0};
    if (r->lead == NULL) return;
    if (goes_on(r)) call_again(w);
    if (r->exited || now < r->lead_ms || !qd_worker_up(w)) return;
    qd_run_hear_members(w);
    if (r->stop == QD_STOP_CANCEL) { /* members stop beside our child, not after it */
        r->lead_ms = now + HEAR_MS;
        (void)qd_run_clear(w, false);
    }
    if (r->stop != QD_STOP_NONE) return;
    qd_code rc = qd_worker_asked(w, qd_lead_step(r->lead, &word, &err));
    qd_run_heed(w, rc, &err);
    r->lead_ms = r->child != NULL ? now + HEAR_MS : qd_lead_due_ms(r->lead);
    if (r->exited || r->stop != QD_STOP_NONE) return;
    if (word == QD_LEAD_START && rc == QD_OK) start_child(w);
    if (word == QD_LEAD_BROKEN) break_gang(w);
    if (word != QD_LEAD_YIELD) return;
    qd_log_say(w->log, QD_LOG_INFO, "job goes back: %s", qd_lead_why(r->lead));
    r->yields = r->exited = true;
}

void qd_run_invite(qd_worker *w, const Quantd__ChildInvite *invite)
{
    qd_err err = {0};
    if (qd_lead_invite(w->run.lead, invite->invite.data, invite->invite.len, &err) != QD_OK)
        qd_log_err(w->log, QD_LOG_WARN, "an invite cannot be sent", &err);
    w->run.lead_ms = 0;
}

bool qd_run_clear(qd_worker *w, bool ok)
{
    qd_job_run *r = &w->run;
    qd_lead_word word = QD_LEAD_WAIT;
    qd_err err = {0};
    if (ok || r->lead == NULL || r->stop == QD_STOP_FENCED) return true;
    qd_lead_dissolve(r->lead, r->stop == QD_STOP_CANCEL ? "the job is canceled" : "the job ends here");
    qd_code rc = qd_worker_asked(w, qd_lead_step(r->lead, &word, &err));
    if (rc == QD_E_CONFLICT) qd_run_heed(w, rc, &err);
    r->clearing = rc == QD_OK && word != QD_LEAD_CLEAR;
    return rc == QD_OK && word == QD_LEAD_CLEAR;
}

uint64_t qd_run_lead_due_ms(const qd_worker *w)
{
    return w->run.lead == NULL ? UINT64_MAX : w->run.lead_ms;
}
