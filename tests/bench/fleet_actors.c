/* fleet_actors.c -- gateways and workers as daemon/worker.c and daemon/run.c drive jobs/, with a sleep for the engine.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "jobs/sweep.h"
#include "jobs/task.h"
#include "jobs/worker.h"
#include "tests/bench/fleet.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SWEEP_MS = 1000, /* the daemon's settings and constants */
    FETCH_MS = 1000,
    FETCH_HINT_MS = 50,
    POLL_FD_MS = 1000,
    PROGRESS_MS = 2000,
    LOG_MS = 50,
    IDLE_MS_MAX = 20
};

void fleet_nap(fleet_thread *t, uint64_t ns)
{
    struct timespec s = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    t->idle_ns += ns;
    (void)nanosleep(&s, NULL);
}

fleet_job *fleet_job_of(fleet *f, const char *id)
{
    size_t i = id[0] == 'f' ? (size_t)strtoull(id + 1, NULL, 10) : SIZE_MAX;
    return &f->jobs[i < f->n_jobs ? i : f->n_jobs]; /* the last is nobody's */
}

/* ---- directories that are a flag each */

static qd_code d_adopt(void *ctx, const qd_job_record *rec, bool *ret_found, qd_err *err)
{
    (void)ctx;
    (void)rec;
    (void)err;
    *ret_found = false;
    return QD_OK;
}

static qd_code d_output(void *ctx, const qd_job_record *rec, bool *ret_there, qd_report_summary *ret, qd_err *err)
{
    (void)ret;
    (void)err;
    *ret_there = atomic_load(&fleet_job_of(ctx, rec->id)->out);
    return QD_OK;
}

static qd_code d_none(void *ctx, const qd_job_record *rec, qd_err *err)
{
    (void)ctx;
    (void)rec;
    (void)err;
    return QD_OK;
}

static qd_code d_each(void *ctx, qd_disk_each fn, void *fn_ctx, qd_err *err)
{
    (void)ctx;
    (void)fn;
    (void)fn_ctx;
    (void)err;
    return QD_OK;
}

static qd_code d_discard(void *ctx, const qd_disk_item *item, qd_err *err)
{
    (void)ctx;
    (void)item;
    (void)err;
    return QD_OK;
}

void fleet_disk(fleet *f)
{
    f->disk = (qd_jobs_disk){.ctx = f,
                             .adopt = d_adopt,
                             .output = d_output,
                             .discard_staging = d_none,
                             .discard_output = d_none,
                             .each = d_each,
                             .discard = d_discard};
}

/* ---- gateways: create, and sweep once a second */

static qd_job_spec *new_spec(qd_err *err)
{
    qd_job_spec *s = qd_job_spec_new();
    qd_job_lane *lane = qd_job_lane_new();
    qd_code rc = s == NULL || lane == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job") : QD_OK;
    if (rc == QD_OK) {
        s->lane = lane;
        lane->priority = 5; /* quantctl's default */
        rc = qd_text_set(&lane->device_class, "cpu", err);
    }
    if (rc == QD_OK) rc = qd_text_set(&lane->numerics_id, "any", err);
    if (rc == QD_OK) rc = qd_text_set(&s->model_id, "Qwen/Qwen3-8B", err);
    if (rc == QD_OK) rc = qd_text_set(&s->template_id, "nvfp4-w4a16", err);
    if (rc == QD_OK) rc = qd_text_set(&s->source_path, "/var/lib/quantd/models/Qwen/Qwen3-8B", err);
    if (rc == QD_OK) return s;
    if (s == NULL) qd_msg_free(lane);
    qd_msg_free(s);
    return NULL;
}

static qd_code create(fleet *f, qd_jobs *j, qd_job_spec *s, size_t i, qd_err *err)
{
    char id[24], text[64];
    (void)snprintf(id, sizeof id, "f%07zu", i);
    (void)snprintf(text, sizeof text, "job number %zu", i);
    qd_code rc = qd_text_set(&s->name, text, err);
    (void)snprintf(text, sizeof text, "t%zu", i % 10);
    if (rc == QD_OK) rc = qd_text_set(&s->tenant, text, err);
    (void)snprintf(text, sizeof text, "/var/lib/quantd/output/model.%s", id);
    if (rc == QD_OK) rc = qd_text_set(&s->output_path, text, err);
    if (f->jobs[i].asked_ns == 0) f->jobs[i].asked_ns = qd_mono_ns();
    if (rc == QD_OK) rc = qd_jobs_create(j, id, s, true, NULL, err);
    return rc;
}

void *fleet_gateway(void *thread)
{
    fleet_thread *t = thread;
    fleet *f = t->f;
    char name[32];
    qd_jobs *j = NULL;
    qd_job_spec *s = NULL;
    qd_code rc = QD_OK;
    uint64_t began = qd_mono_ns(), sweep_ms = 0;
    double per_ns = f->rate / 1e9;
    size_t i = t->share;
    (void)snprintf(name, sizeof name, "gateway%zu", t->share);
    const qd_jobs_opts opts = {.self = name, .lease_ms = f->lease_ms};
    QD_TRY(qd_jobs_open(&t->bus.bus, &opts, &j, &t->err));
    s = new_spec(&t->err);
    if (s == NULL) rc = QD_E_NO_MEMORY;
    while (rc == QD_OK && !atomic_load(&f->stop)) {
        qd_jobs_swept swept = {0};
        uint64_t now = qd_mono_ns();
        if (now / 1000000 >= sweep_ms) {
            sweep_ms = now / 1000000 + SWEEP_MS;
            rc = qd_jobs_sweep(j, &swept, &t->err);
            if (rc == QD_E_AWAY) rc = QD_OK;
            continue;
        }
        bool due = i < f->n_jobs && (f->rate == 0 || (double)(now - began) * per_ns >= (double)i);
        if (!due) {
            fleet_nap(t, 1000000);
            continue;
        }
        rc = create(f, j, s, i, &t->err);
        if (rc == QD_OK) {
            (void)atomic_fetch_add(&f->n_created, 1);
            i += t->of;
        } else if (rc == QD_E_FULL || rc == QD_E_AWAY) {
            (void)atomic_fetch_add(&f->n_refused, 1);
            rc = QD_OK;
            fleet_nap(t, 100000000);
        }
    }
out:
    qd_msg_free(s);
    qd_jobs_close(j);
    t->rc = rc;
    if (rc != QD_OK) atomic_store(&f->stop, true);
    return NULL;
}

/* ---- workers, many a thread */

typedef struct worker {
    char id[32];
    qd_jobs *jobs;
    qd_task *task;
    bool keeps, lanes; /* keeps: it has a view and sweeps */
    uint64_t heartbeat_ms, order_ms, sweep_ms, pump_ms, fetch_ms;
    uint64_t end_ms, renew_ms, poll_ms, log_ms, progress_ms; /* of the task */
    size_t queuing_seen;
    uint64_t random;
} worker;

static qd_code tell_alive(fleet *f, worker *w, qd_err *err)
{
    qd_worker_heartbeat hb;
    quantd__worker_heartbeat__init(&hb);
    char cpu[] = "cpu", host[] = "node0001", build[] = "0.1.0", numerics[] = "cpu-1", job[QD_ID_BYTES] = "";
    if (w->task != NULL) (void)snprintf(job, sizeof job, "%s", qd_task_record(w->task)->id);
    hb.version = QD_WIRE_VERSION;
    hb.id = w->id;
    hb.host = host;
    hb.build = build;
    hb.device_class = cpu;
    hb.device = cpu;
    hb.numerics_id = numerics;
    hb.job_id = job;
    hb.state = w->task == NULL ? QUANTD__WORKER_STATE__WORKER_IDLE : QUANTD__WORKER_STATE__WORKER_BUSY;
    hb.heartbeat_ms = (uint32_t)f->heartbeat_ms;
    return qd_jobs_heartbeat(w->jobs, &hb, err);
}

static qd_code say(worker *w, const char *a, const char *b, qd_err *err)
{
    Quantd__LogLine line[2], *lines[2] = {&line[0], &line[1]};
    const char *texts[2] = {a, b};
    char copy[2][64];
    for (int i = 0; i < 2; i++) {
        quantd__log_line__init(&line[i]);
        (void)snprintf(copy[i], sizeof copy[i], "%s", texts[i]);
        line[i].text = copy[i];
        line[i].level = QUANTD__LOG_LEVEL__LOG_INFO;
        line[i].time_ms = qd_unix_ms();
    }
    return qd_task_log(w->task, lines, 2, NULL, err);
}

static void drop(worker *w)
{
    qd_task_free(w->task);
    w->task = NULL;
    w->heartbeat_ms = w->fetch_ms = 0;
}

/* The child has asked, renamed and ended. */
static qd_code end_task(fleet *f, worker *w, qd_err *err)
{
    qd_report_summary r;
    quantd__report_summary__init(&r);
    fleet_job *k = fleet_job_of(f, qd_task_record(w->task)->id);
    qd_code rc = QD_OK;
    r.tensors_quantized = 252;
    QD_TRY(qd_task_may_commit(w->task, err));
    atomic_store(&k->out, true);
    QD_TRY(qd_task_check(w->task, err));
    QD_TRY(say(w, "Quantization progress: 100%", "Quantization succeeded!", err));
    QD_TRY(qd_task_finish(w->task, &r, f->work_ms, err));
    k->ended_ns = qd_mono_ns();
    (void)atomic_fetch_add(&f->n_done, 1);
out:
    return rc;
}

static qd_code run_task(fleet *f, worker *w, uint64_t now, qd_err *err)
{
    qd_code rc = QD_OK;
    if (now >= w->renew_ms) {
        w->renew_ms = now + f->lease_ms / 3;
        QD_TRY(qd_task_renew(w->task, err));
    }
    if (now >= w->poll_ms) {
        w->poll_ms = now + POLL_FD_MS;
        QD_TRY(qd_task_poll(w->task, err));
    }
    if (now >= w->log_ms) {
        w->log_ms = UINT64_MAX;
        QD_TRY(say(w, "Starting quantization...", "Quantization progress: 0%", err));
    }
    if (now >= w->progress_ms && now < w->end_ms) {
        qd_progress p;
        quantd__progress__init(&p);
        w->progress_ms = now + PROGRESS_MS;
        QD_TRY(qd_task_progress(w->task, &p, err));
    }
    if (now >= w->end_ms) {
        QD_TRY(end_task(f, w, err));
        drop(w);
    }
out:
    return rc;
}

static qd_code look_for_job(fleet *f, worker *w, uint64_t now, qd_err *err)
{
    qd_bus_msg m = {0};
    qd_take how = QD_TAKE_LATER;
    bool got = false;
    qd_code rc = QD_OK;
    if (w->keeps && now >= w->pump_ms) {
        w->pump_ms = now + FETCH_HINT_MS;
        QD_TRY(qd_jobs_view_pump(w->jobs, 0, NULL, err));
        size_t queuing = qd_jobs_view_in(w->jobs, NULL, QD_JOB_QUEUING);
        if (queuing > w->queuing_seen) w->fetch_ms = 0;
        w->queuing_seen = queuing;
    }
    if (now < w->fetch_ms) return QD_OK;
    w->fetch_ms = now + FETCH_MS;
    QD_TRY(qd_jobs_fetch(w->jobs, &m, &got, err));
    if (!got) return QD_OK;
    w->fetch_ms = now + FETCH_HINT_MS;
    QD_TRY(qd_jobs_take(w->jobs, &m, &how, &w->task, err));
    if (how != QD_TAKE_RUN) {
        (void)atomic_fetch_add(&f->n_again, 1);
        return QD_OK;
    }
    fleet_job *k = fleet_job_of(f, qd_task_record(w->task)->id);
    k->running_ns = qd_mono_ns();
    (void)atomic_fetch_add(&f->n_taken, 1);
    now = qd_mono_ms();
    w->random = qd_hash64(w->id, strlen(w->id), w->random + 1);
    w->end_ms = now + f->work_ms / 2 + w->random % (f->work_ms + 1);
    w->renew_ms = w->poll_ms = now; /* the daemon renews at once, too */
    w->log_ms = now + LOG_MS;
    w->progress_ms = now + PROGRESS_MS;
    w->heartbeat_ms = 0;
out:
    return rc;
}

static qd_code step(fleet *f, worker *w, uint64_t now, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_jobs_swept swept = {0};
    bool drain = false;
    if (w->task != NULL) QD_TRY(run_task(f, w, now, err));
    if (now >= w->heartbeat_ms) {
        w->heartbeat_ms = now + f->heartbeat_ms;
        QD_TRY(tell_alive(f, w, err));
    }
    if (now >= w->order_ms) {
        w->order_ms = now + f->heartbeat_ms;
        QD_TRY(qd_jobs_order(w->jobs, &drain, err));
    }
    if (w->keeps && now >= w->sweep_ms) {
        w->sweep_ms = now + SWEEP_MS;
        QD_TRY(qd_jobs_sweep(w->jobs, &swept, err));
    }
    if (!w->lanes) QD_TRY(qd_jobs_lanes_open(w->jobs, "cpu", "cpu-1", err));
    w->lanes = true;
    if (w->task == NULL) QD_TRY(look_for_job(f, w, now, err));
out:
    return rc;
}

static uint64_t due_ms(const worker *w)
{
    uint64_t at = w->heartbeat_ms < w->order_ms ? w->heartbeat_ms : w->order_ms, next[7];
    size_t n = 0;
    if (w->keeps) next[n++] = w->sweep_ms;
    if (w->task == NULL) {
        next[n++] = w->fetch_ms;
        if (w->keeps) next[n++] = w->pump_ms;
    } else {
        next[n++] = w->end_ms;
        next[n++] = w->renew_ms;
        next[n++] = w->poll_ms;
        next[n++] = w->log_ms;
        next[n++] = w->progress_ms;
    }
    for (size_t i = 0; i < n; i++) at = next[i] < at ? next[i] : at;
    return at;
}

/* One round: everyone that is due, once. *ret_due_ms: when the next one is. */
static qd_code go_round(fleet_thread *t, worker *ws, size_t n, uint64_t *ret_due_ms)
{
    *ret_due_ms = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        uint64_t now = qd_mono_ms(), due = due_ms(&ws[i]);
        if (due <= now) {
            qd_code rc = step(t->f, &ws[i], now, &t->err);
            if (rc == QD_E_CONFLICT || rc == QD_E_CANCELED) { /* fenced: it was held up for a lease */
                drop(&ws[i]);
                (void)atomic_fetch_add(&t->f->n_again, 1);
            } else if (rc != QD_OK && rc != QD_E_AWAY) {
                return rc;
            }
            due = due_ms(&ws[i]);
        }
        if (due < *ret_due_ms) *ret_due_ms = due;
    }
    return QD_OK;
}

void *fleet_workers(void *thread)
{
    fleet_thread *t = thread;
    fleet *f = t->f;
    size_t n = 0;
    qd_code rc = QD_OK;
    worker *ws = qd_calloc(f->n_workers / t->of + 1, sizeof *ws);
    if (ws == NULL) {
        rc = qd_fail(&t->err, QD_E_NO_MEMORY, "out of memory for workers");
        goto out;
    }
    uint64_t began = qd_mono_ms();
    for (size_t i = t->share; i < f->n_workers; i += t->of) {
        worker *w = &ws[n++];
        (void)snprintf(w->id, sizeof w->id, "node%04zu-gpu%zu", i / 8, i % 8);
        const qd_jobs_opts opts = {.self = w->id, .lease_ms = f->lease_ms, .disk = &f->disk};
        QD_TRY(qd_jobs_open(&t->bus.bus, &opts, &w->jobs, &t->err));
        w->keeps = i < f->n_keepers;
        w->heartbeat_ms = began + i * f->heartbeat_ms / f->n_workers; /* as if started one after the other */
        w->order_ms = w->fetch_ms = began + i * FETCH_MS / f->n_workers;
    }
    while (rc == QD_OK && !atomic_load(&f->stop)) {
        uint64_t due = 0;
        rc = go_round(t, ws, n, &due);
        uint64_t now = qd_mono_ms();
        if (rc == QD_OK && due > now) fleet_nap(t, (due - now < IDLE_MS_MAX ? due - now : IDLE_MS_MAX) * 1000000);
    }
out:
    for (size_t i = 0; i < n; i++) {
        qd_task_free(ws[i].task);
        qd_jobs_close(ws[i].jobs);
    }
    qd_free(ws);
    t->rc = rc;
    if (rc != QD_OK) atomic_store(&f->stop, true);
    return NULL;
}
