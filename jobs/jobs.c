#include "jobs/jobs.h"

#include "base/clock.h"
#include "base/mem.h"
#include "jobs/inside.h"

#include <stdio.h>
#include <string.h>

static uint64_t system_unix_ms(void *ctx)
{
    (void)ctx;
    return qd_unix_ms();
}

static uint64_t system_mono_ms(void *ctx)
{
    (void)ctx;
    return qd_mono_ms();
}

qd_code qd_jobs_open(qd_bus *bus, const qd_jobs_opts *opts, qd_jobs **ret, qd_err *err)
{
    qd_code rc = qd_id_check(opts->self, "the name of this program", err);
    if (rc != QD_OK) return rc;
    qd_jobs *j = qd_calloc(1, sizeof *j);
    if (j == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for jobs");
    j->bus = bus;
    j->opts = *opts;
    (void)snprintf(j->self, sizeof j->self, "%s", opts->self);
    j->opts.self = j->self;
    j->clock =
        opts->clock != NULL ? *opts->clock : (qd_jobs_clock){.unix_ms = system_unix_ms, .mono_ms = system_mono_ms};
    if (j->opts.lease_ms == 0) j->opts.lease_ms = 15000;
    if (j->opts.attempts_max == 0) j->opts.attempts_max = 10;
    if (j->opts.node_retry_ms == 0) j->opts.node_retry_ms = 600000;
    if (j->opts.leak_ms == 0) j->opts.leak_ms = 10 * j->opts.lease_ms;
    *ret = j;
    return QD_OK;
}

void qd_jobs_close(qd_jobs *j)
{
    if (j == NULL) return;
    for (size_t i = 0; i < j->n_lanes; i++) qd_bus_pull_close(j->bus, j->lanes[i]);
    qd_view_done(&j->view, j->bus);
    qd_bus_hint_close(j->bus, j->seat_hint);
    qd_buf_done(&j->buf);
    qd_free(j->leaks);
    qd_free(j);
}

void qd_jobs_stats_get(const qd_jobs *j, qd_jobs_stats *ret)
{
    *ret = j->stats;
}

Quantd__ErrorClass qd_jobs_class_of(qd_code code)
{
    switch (code) { /* all of them: a new code does not compile before somebody has decided */
    case QD_E_ROOM:
    case QD_E_NO_MEMORY:
    case QD_E_IO:
    case QD_E_DEVICE:
    case QD_E_BUSY:    /* a run that holds the directory and is not heard of */
    case QD_E_VERIFY:  /* what was written is not what is read */
    case QD_E_CONFIG:  /* a template or setting of this node */
    case QD_E_VERSION: /* what a newer program wrote: a newer worker can */
        return QUANTD__ERROR_CLASS__ERROR_NODE;
    case QD_E_AWAY:
    case QD_E_FULL:
    case QD_E_REFUSED:
    case QD_E_CONFLICT:
    case QD_E_GANG:     /* another rank is gone: a new gang, nobody here failed */
    case QD_E_CANCELED: /* the record says who asked; nobody failed */
        return QUANTD__ERROR_CLASS__ERROR_BUS;
    case QD_E_USAGE:
    case QD_E_INPUT:
    case QD_E_CHANGED:
    case QD_E_UNSUPPORTED:
    case QD_E_QUALITY:
    case QD_E_INTERNAL: /* of code that reads the job's files */
    case QD_E_NOT_FOUND:
    case QD_E_TOO_LARGE:
        return QUANTD__ERROR_CLASS__ERROR_JOB;
    case QD_OK:
    case QD_CODE_COUNT:
        break;
    }
    return QUANTD__ERROR_CLASS__ERROR_CLASS_NONE;
}

void qd_jobs_audit(qd_jobs *j, const char *tenant, const qd_jobs_caller *by, const char *action, const char *subject,
                   qd_code outcome)
{
    static const qd_jobs_caller nobody = {0};
    char to[QD_SUBJECT_BYTES];
    qd_buf buf = {0};
    qd_audit_entry *a = qd_audit_entry_new();
    qd_code rc = a == NULL ? QD_E_NO_MEMORY : QD_OK;
    if (by == NULL) by = &nobody;
    if (rc == QD_OK) {
        a->time_ms = qd_jobs_unix_ms(j);
        rc = qd_text_set(&a->tenant, tenant, NULL);
    }
    if (rc == QD_OK) rc = qd_text_set(&a->user, by->user, NULL);
    if (rc == QD_OK) rc = qd_text_set(&a->action, action, NULL);
    if (rc == QD_OK) rc = qd_text_set(&a->subject, subject, NULL);
    if (rc == QD_OK) rc = qd_text_set(&a->outcome, qd_code_name(outcome), NULL);
    if (rc == QD_OK) rc = qd_text_set(&a->request_id, by->request_id, NULL);
    if (rc == QD_OK) rc = qd_text_set(&a->from, by->from == NULL ? j->self : by->from, NULL);
    if (rc == QD_OK) rc = qd_subject_audit(tenant, to, NULL);
    if (rc == QD_OK) rc = qd_audit_entry_encode(a, &buf, NULL);
    if (rc == QD_OK) {
        qd_bus_pub p = {.subject = to, .data = buf.data, .bytes = buf.len, .expect_subject_seq = QD_REV_ANY};
        qd_bus_puback ack = {0};
        rc = qd_bus_publish(j->bus, &p, &ack, NULL);
    }
    if (rc != QD_OK) j->stats.audit_lost++;
    qd_buf_done(&buf);
    qd_msg_free(a);
}
