#include "engine/pipeline.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "engine/tile.h"

#include <signal.h>
#include <string.h>

enum {
    WATCH_MS = 100
};

typedef struct pipeline {
    qd_run *run;
    qd_journal *journal;
    qd_sched *sched;
    qd_delivery *delivery;
    qd_cancel *cancel;
    sem_t compute;
    unsigned char *buffers; /* worker_bytes each */
} pipeline;

void qd_meter_show(qd_meter *m, uint64_t done_bytes, uint64_t n_steps, int32_t layer, bool last)
{
    uint64_t now = qd_mono_ns();
    if (m->events == NULL || m->events->progress == NULL || (!last && now - m->last_ns < (uint64_t)WATCH_MS * 1000000u))
        return;
    m->last_ns = now;
    double elapsed = (double)(now - m->start_ns) * 1e-9, fresh = (double)(done_bytes - m->resumed_bytes);
    double rate = elapsed > 0 ? fresh / elapsed : 0;
    qd_job_progress p = {.phase = m->phase,
                         .layer = layer,
                         .n_layers = m->n_layers,
                         .done_bytes = done_bytes,
                         .total_bytes = m->total_bytes,
                         .elapsed_s = elapsed,
                         .eta_s = rate > 0 ? (double)(m->total_bytes - done_bytes) / rate : -1,
                         .rate_bytes_s = rate,
                         .n_steps = n_steps};
    m->events->progress(m->events->ctx, &p);
}

static qd_code do_task(pipeline *pl, qd_worker *w, const qd_task *t, qd_err *err)
{
    const qd_plan *p = pl->run->plan;
    uint32_t unit = p->items[p->tile_item[t->tile]].unit;
    void *data = t->data;
    qd_code rc = QD_OK;
    if (qd_cancel_asked(pl->cancel)) return qd_fail(err, QD_E_CANCELED, "canceled");
    switch (t->kind) {
    case QD_TASK_LOAD:
        rc = qd_tile_load(w, t->tile, t->area, &data, err);
        if (rc == QD_OK && qd_sched_loaded(pl->sched, t, data)) {
            qd_unit_scale(pl->run, unit);
            qd_sched_ready(pl->sched, unit);
        }
        return rc;
    case QD_TASK_ENCODE:
        if (data == NULL) rc = qd_tile_load(w, t->tile, t->area, &data, err);
        if (rc == QD_OK) rc = qd_tile_encode(w, t->tile, data, err);
        break;
    case QD_TASK_COPY:
        rc = qd_tile_copy(w, t->tile, t->area, err);
        break;
    case QD_TASK_NONE:
        return QD_OK;
    }
    if (rc == QD_OK && qd_sched_wrote(pl->sched, t)) {
        rc = qd_unit_close(pl->run, pl->journal, unit, err);
        if (rc == QD_OK) qd_sched_unit_done(pl->sched, unit);
    }
    return rc;
}

static void work(void *arg, unsigned index)
{
    pipeline *pl = arg;
    qd_worker w = {.run = pl->run, .compute = &pl->compute, .buf = pl->buffers + index * pl->run->plan->worker_bytes};
    for (;;) {
        qd_err err = {0};
        qd_task t = qd_sched_next(pl->sched);
        if (t.kind == QD_TASK_NONE) break;
        if (do_task(pl, &w, &t, &err) != QD_OK) qd_sched_stop(pl->sched, &err);
    }
    qd_worker_done(&w);
}

static void watch(pipeline *pl, const qd_job_events *events, uint64_t *peak_bytes)
{
    const qd_plan *p = pl->run->plan;
    qd_sched_seen seen;
    bool over = qd_sched_wait(pl->sched, 0, &seen) && pl->delivery == NULL;
    qd_meter m = {.events = events,
                  .phase = "quantize",
                  .total_bytes = p->src_bytes,
                  .start_ns = qd_mono_ns(),
                  .resumed_bytes = seen.done_bytes,
                  .n_layers = (int32_t)p->n_layers};
    while (!over) {
        qd_err e = {0};
        if (qd_delivery_turn(pl->delivery, pl->sched, pl->journal, &seen, &over, &e) != QD_OK) {
            qd_sched_stop(pl->sched, &e);
            over = true;
        }
        uint64_t rss = qd_rss_anon_bytes();
        if (rss > *peak_bytes) *peak_bytes = rss;
        if (qd_cancel_asked(pl->cancel)) {
            (void)qd_fail(&e, QD_E_CANCELED, "canceled");
            qd_sched_stop(pl->sched, &e);
        }
        if (qd_cancel_drain_asked(pl->cancel)) qd_sched_drain(pl->sched);
        qd_meter_show(&m, seen.done_bytes, seen.n_steps, seen.layer, over);
    }
}

static qd_code flush(qd_run *run, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < run->plan->n_parts && rc == QD_OK; i++)
        rc = qd_sink_flush(run->sink, run->sink_part[i], 0, run->plan->parts[i].size_bytes, err);
    return rc;
}

qd_code qd_pipeline_run(qd_run *run, qd_journal *journal, qd_delivery *delivery, const qd_job_events *events,
                        qd_cancel *cancel, uint64_t *peak_bytes, qd_err *err)
{
    const qd_plan *p = run->plan;
    pipeline pl = {.run = run, .journal = journal, .delivery = delivery, .cancel = cancel};
    qd_pool *pool = NULL;
    qd_code rc = QD_OK;
    size_t slots_bytes = (size_t)(p->n_slots * p->slot_bytes), buffers_bytes = (size_t)(p->n_workers * p->worker_bytes);
    unsigned char *slots = qd_map(slots_bytes);
    pl.buffers = qd_map(buffers_bytes);
    (void)sem_init(&pl.compute, 0, p->n_compute);
    if (slots == NULL || pl.buffers == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu bytes of tiles", slots_bytes + buffers_bytes);
        goto out;
    }
    QD_TRY(qd_sched_new(run, slots, &pl.sched, err));
    qd_delivery_begin(delivery);
    for (uint32_t u = 0; u < p->n_units; u++) /* tensors without elements have no tile that could close them */
        if (p->units[u].n_tiles == 0 && !run->unit_done[u] && run->unit_rank[u] == qd_gang_rank(run->gang))
            QD_TRY(qd_unit_close(run, journal, u, err));
    QD_TRY(qd_pool_start(p->n_workers, "qd-tile", work, &pl, &pool, err));
    qd_cancel_drains(cancel, true); /* a unit that is begun is worth its end: it need not be read again */
    watch(&pl, events, peak_bytes);
    qd_pool_join(pool);
    qd_cancel_drains(cancel, false);
    rc = flush(run, err); /* also after a failure: a resume finds as much as there is */
    if (qd_sched_result(pl.sched, NULL) != QD_OK)
        rc = qd_sched_result(pl.sched, err);
    else
        qd_delivery_end(delivery);
out:
    qd_sched_free(pl.sched);
    (void)sem_destroy(&pl.compute);
    qd_unmap(slots, slots_bytes);
    qd_unmap(pl.buffers, buffers_bytes);
    return rc;
}
