/* job_gang.c -- what a job does because it is one of several ranks'. */
#include "engine/job_inside.h"

static void only_look(void *ctx, const qd_job_progress *p)
{
    qd_job *j = ctx;
    int none = 0; /* a signal that came first is the reason that stays */
    (void)p;
    if (qd_gang_look(j->gang, NULL) != QD_OK && atomic_compare_exchange_strong(&j->cancel->signal, &none, 1))
        j->broke = true;
}

static void on_progress(void *ctx, const qd_job_progress *p)
{
    qd_job *j = ctx;
    const qd_job_events *e = j->opts_events;
    only_look(ctx, p);
    if (e != NULL && e->progress != NULL) e->progress(e->ctx, p);
}

static void on_note(void *ctx, qd_note_level level, const char *text)
{
    const qd_job_events *e = ((qd_job *)ctx)->opts_events;
    if (e != NULL && e->note != NULL) e->note(e->ctx, level, text);
}

void qd_job_watch_gang(qd_job *j)
{
    if (j->gang == NULL) return;
    j->silent = (qd_job_events){.ctx = j, .progress = only_look};
    j->watched =
        (qd_job_events){.ctx = j, .progress = on_progress, .note = qd_gang_rank(j->gang) == 0 ? on_note : NULL};
    j->events = &j->watched;
}

qd_code qd_job_join(qd_job *j, qd_err *err)
{
    if (j->gang == NULL) return QD_OK;
    qd_code rc = qd_gang_same(j->gang, "plan", &j->plan.hash, sizeof j->plan.hash, err);
    return rc == QD_OK ? qd_delivery_new(&j->run, &j->delivery, err) : rc;
}

qd_code qd_job_share_state(qd_job *j, qd_err *err)
{
    const qd_plan *p = &j->plan;
    qd_run *r = &j->run;
    qd_code rc = QD_OK;
    QD_TRY(qd_gang_share(j->gang, r->unit_done, p->n_units * sizeof *r->unit_done, err));
    QD_TRY(qd_gang_share(j->gang, r->result, p->n_items * sizeof *r->result, err));
    QD_TRY(qd_gang_share(j->gang, r->layer_inputs, p->n_layers * sizeof *r->layer_inputs, err));
    QD_TRY(qd_gang_share(j->gang, r->layer_error, p->n_layers * sizeof *r->layer_error, err));
out:
    return rc;
}

typedef struct usage {
    double device_s;
    uint64_t call_bytes, message_bytes;
} usage;

qd_code qd_job_release(qd_job *j, qd_err *err)
{
    usage all[QD_COMM_RANKS_MAX], mine = {.device_s = qd_seconds_since(j->start_ns)};
    j->res.n_ranks = qd_gang_size(j->gang);
    if (j->gang == NULL) return QD_OK;
    mine.call_bytes = j->gang->call_bytes;
    mine.message_bytes = qd_gang_rank(j->gang) != 0 ? j->gang->message_bytes : 0; /* each has two ends */
    qd_code rc = qd_gang_gather(j->gang, &mine, sizeof mine, all, err);
    if (rc != QD_OK) return rc;
    j->gang->over = true;
    for (uint32_t r = 0; r < j->res.n_ranks; r++) {
        j->res.others_s += r != qd_gang_rank(j->gang) ? all[r].device_s : 0;
        j->res.call_bytes += all[r].call_bytes;
        j->res.message_bytes += all[r].message_bytes;
    }
    return QD_OK;
}

qd_code qd_job_end_gang(qd_job *j, qd_code rc, qd_err *err)
{
    if (rc == QD_OK || j->gang == NULL) return rc;
    const qd_err *first = &j->gang->comm->first;
    if ((rc == QD_E_CANCELED || rc == QD_E_GANG) && !j->broke && qd_cancel_asked(j->cancel)) {
        rc = qd_fail(err, QD_E_CANCELED, "canceled"); /* whoever of the gang saw it first */
    } else if (rc == QD_E_CANCELED && first->code != QD_OK) {
        *err = *first;
        rc = first->code;
    }
    qd_gang_fail(j->gang, err);
    return rc;
}
