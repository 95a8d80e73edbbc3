#include "daemon/child_blame.h"

#include "base/clock.h"
#include "daemon/child.h"
#include "jobs/jobs.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

void qd_child_blame(qd_child_result *r, qd_code code, Quantd__ErrorClass class, const char *text)
{
    qd_msg_free(r->error);
    r->error = qd_job_error_new();
    if (r->error == NULL) return;
    r->error->error_class = class;
    r->error->time_ms = qd_unix_ms();
    (void)!qd_text_set(&r->error->code, qd_code_name(code), NULL);
    (void)!qd_text_set(&r->error->message, text, NULL);
}

void qd_child_judge_exit(qd_child_result *r, int status, bool asked, const char *killed_for)
{
    char text[256];
    const char *signal_name = WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "";
    if (r->ok || r->error != NULL) return; /* it told us itself */
    if (asked) {
        r->stopped = true;
        qd_child_blame(r, QD_E_CANCELED, QUANTD__ERROR_CLASS__ERROR_JOB, "stopped");
        return;
    }
    if (killed_for != NULL) {
        qd_child_blame(r, QD_E_DEVICE, QUANTD__ERROR_CLASS__ERROR_NODE, killed_for);
    } else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        qd_child_blame(r, QD_E_NO_MEMORY, QUANTD__ERROR_CLASS__ERROR_NODE,
                       "the job's process was killed (signal 9): memory ran out, or somebody ended it");
    } else if (WIFSIGNALED(status)) {
        bool node = WTERMSIG(status) == SIGBUS || WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGINT;
        (void)snprintf(text, sizeof text, "the job's process ended by signal %d (%s)", WTERMSIG(status), signal_name);
        qd_child_blame(r, node ? QD_E_DEVICE : QD_E_INTERNAL,
                       node ? QUANTD__ERROR_CLASS__ERROR_NODE : QUANTD__ERROR_CLASS__ERROR_JOB, text);
    } else if (WEXITSTATUS(status) == QD_CHILD_EXIT_ALONE) {
        qd_child_blame(r, QD_E_AWAY, QUANTD__ERROR_CLASS__ERROR_BUS,
                       "the job's process heard nothing of its worker and stopped: the worker was held up");
    } else {
        (void)snprintf(text, sizeof text, "the job's process ended with exit code %d and without a word",
                       WEXITSTATUS(status));
        qd_child_blame(r, QD_E_INTERNAL, QUANTD__ERROR_CLASS__ERROR_NODE, text);
    }
}

void qd_child_judge_word(qd_child_result *r, bool asked)
{
    qd_job_error *e = r->error;
    qd_code code = qd_code_named(e->code);
    e->error_class = qd_jobs_class_of(code);
    bool bus = e->error_class == QUANTD__ERROR_CLASS__ERROR_BUS;
    if (bus && (code == QD_E_GANG || (code == QD_E_CANCELED && asked))) return;
    if (!bus && e->error_class != QUANTD__ERROR_CLASS__ERROR_CLASS_NONE) return;
    e->error_class = qd_jobs_class_of(QD_E_INTERNAL);
    (void)!qd_text_set(&e->code, qd_code_name(QD_E_INTERNAL), NULL);
}
