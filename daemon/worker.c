/* worker.c -- the round of duties: heartbeat, orders, sweeps, and looking for a job. */
#include "daemon/worker.h"

#include "base/hash.h"
#include "base/mem.h"
#include "daemon/probe.h"
#include "daemon/worker_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum {
    FETCH_MS = 1000,    /* without a hint */
    FETCH_HINT_MS = 50, /* with one: a job is seen in a lane */
    LEAKS_MS = 60000,
    GPU_SILENT_MS = 60000, /* a driver that resets a GPU may take a while */
    AWAY_MS = 100,
    AWAY_MS_MIN = 20,
    SWEEP_JITTER_MS = 200,
    STEP_MS_MAX = 1000,
    LANE_WAIT_MS = 10, /* where a job is seen: a pull that does not wait makes nats-server 2.9 count its queue */
    WINDOW_MS = 1000   /* a leader that has enough waits so long for more */
};

/* Whether the GPU that is watched is the device. */
static bool watches_device(const qd_worker *w)
{
    const char *watched = w->settings->gpu_health;
    return qd_probe_is_gpu(w->device) && (watched[0] == '\0' || strcmp(watched, w->device) == 0);
}

/* pci: "" as long as its GPU's is not known, which the GPU's watch tells some time. */
static void look_where(qd_worker *w, const char *pci)
{
    (void)snprintf(w->pci, sizeof w->pci, "%s", pci);
    qd_topology_make(w->sys, w->settings->topology, w->host, qd_probe_is_gpu(w->device) ? pci : NULL, &w->cpus,
                     &w->topology);
}

qd_code qd_worker_open(const qd_worker_opts *o, qd_worker **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_worker *w = qd_calloc(1, sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a worker");
    const qd_settings *s = w->settings = o->settings;
    w->bus = o->bus;
    w->log = o->log;
    QD_TRY(qd_id_check(o->id, "worker", err));
    (void)snprintf(w->id, sizeof w->id, "%s", o->id);
    (void)snprintf(w->device, sizeof w->device, "%s", o->device);
    (void)snprintf(w->device_class, sizeof w->device_class, "%s", o->device_class);
    (void)snprintf(w->numerics_id, sizeof w->numerics_id, "%s", o->numerics_id);
    (void)snprintf(w->collective, sizeof w->collective, "%s", o->collective);
    w->templates = qd_strdup(o->templates);
    w->program = o->program == NULL ? NULL : qd_strdup(o->program);
    w->sys = qd_strdup(o->sys != NULL ? o->sys : "/sys");
    if (w->templates == NULL || w->sys == NULL || (o->program != NULL && w->program == NULL)) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a worker");
        goto out;
    }
    w->gpu = o->gpu;
    w->started_ms = qd_unix_ms();
    w->jitter_ms = qd_hash64(w->id, strlen(w->id), 0) % SWEEP_JITTER_MS;
    (void)gethostname(w->host, sizeof w->host - 1);
    (void)sched_getaffinity(0, sizeof w->cpus, &w->cpus);
    look_where(w, "");
    w->self = (qd_gang_self){.build = QD_VERSION,
                             .numerics_id = w->numerics_id,
                             .device_class = w->device_class,
                             .host = w->host,
                             .collective = w->collective,
                             .one_host = o->one_host,
                             .window_ms = qd_min_u64(WINDOW_MS, s->lease_ms / 10)};
    w->disk.roots = s->output_roots;
    w->disk_ops = qd_disk_ops(&w->disk);
    const qd_jobs_opts jo = {.self = w->id,
                             .disk = &w->disk_ops,
                             .lease_ms = s->lease_ms,
                             .attempts_max = (uint32_t)s->attempts_max,
                             .running_max = (uint32_t)s->running_max,
                             .queued_max = (uint32_t)s->queued_max,
                             .recorded_max = (uint32_t)s->recorded_max,
                             .retention_ms = s->retention_ms,
                             .node_retry_ms = s->node_retry_ms,
                             .step_ms = LANE_WAIT_MS,
                             .gang = w->collective[0] != '\0' ? &w->self : NULL};
    QD_TRY(qd_jobs_open(o->bus, &jo, &w->jobs, err));
    *ret = w;
    w = NULL;
out:
    qd_worker_close(w);
    return rc;
}

void qd_worker_close(qd_worker *w)
{
    if (w == NULL) return;
    qd_run_drop(w);
    qd_member_drop(w);
    if (w->jobs != NULL && w->lanes_open) (void)!qd_jobs_heartbeat_end(w->jobs, NULL);
    qd_jobs_close(w->jobs);
    qd_disk_done(&w->disk);
    qd_free(w->templates);
    qd_free(w->program);
    qd_free(w->sys);
    qd_free(w);
}

static bool tired(const qd_worker *w)
{
    return qd_jobs_must_drain(w->jobs);
}

static bool looks(const qd_worker *w)
{
    return w->run.task == NULL && w->member.follow == NULL && !w->draining && !w->unfit && !tired(w);
}

static Quantd__WorkerState state_of(const qd_worker *w)
{
    bool busy = w->run.task != NULL || w->member.child != NULL;
    if (w->draining || w->unfit)
        return busy ? QUANTD__WORKER_STATE__WORKER_DRAINING : QUANTD__WORKER_STATE__WORKER_DRAINED;
    if (tired(w)) return QUANTD__WORKER_STATE__WORKER_PAUSED;
    return busy ? QUANTD__WORKER_STATE__WORKER_BUSY : QUANTD__WORKER_STATE__WORKER_IDLE;
}

static qd_code set_texts(const qd_worker *w, qd_worker_heartbeat *h, qd_err *err)
{
    const qd_job_record *rec = w->run.task != NULL        ? qd_task_record(w->run.task)
                               : w->member.follow != NULL ? qd_follow_record(w->member.follow)
                                                          : NULL;
    const struct {
        char **field;
        const char *value;
    } texts[] = {{&h->id, w->id},
                 {&h->host, w->host},
                 {&h->why, w->why},
                 {&h->build, QD_VERSION},
                 {&h->numerics_id, w->numerics_id},
                 {&h->device_class, w->device_class},
                 {&h->device, w->device},
                 {&h->collective_version, w->self.collective}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        qd_code rc = qd_text_set(texts[i].field, texts[i].value, err);
        if (rc != QD_OK) return rc;
    }
    for (uint32_t i = 0; i < w->topology.n; i++) {
        qd_code rc = qd_text_add(&h->topology, &h->n_topology, w->topology.place[i], err);
        if (rc != QD_OK) return rc;
    }
    return rec == NULL ? QD_OK : qd_text_set(&h->job_id, rec->id, err);
}

static qd_code set_gpu(qd_worker *w, qd_worker_heartbeat *h, qd_err *err)
{
    qd_gpu_health g;
    uint64_t age_ms = 0;
    if (w->gpu == NULL) return QD_OK;
    qd_gpu_watch_get(w->gpu, &g, &age_ms);
    if (watches_device(w) && g.pci[0] != '\0' && strcmp(g.pci, w->pci) != 0) look_where(w, g.pci);
    h->gpu = qd_gpu_state_new();
    if (h->gpu == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a heartbeat");
    h->device_memory_bytes = g.memory_bytes;
    h->device_memory_free_bytes = g.memory_free_bytes;
    h->gpu->known = g.known;
    h->gpu->temperature_c = g.temperature_c;
    h->gpu->ecc_uncorrected = g.ecc_uncorrected;
    h->gpu->throttle = g.throttle;
    h->gpu->xid = g.xid;
    h->gpu->nvlinks = g.nvlinks;
    qd_code rc = qd_text_set(&h->device_name, g.name, err);
    if (rc == QD_OK) rc = qd_text_set(&h->gpu->uuid, g.uuid, err);
    if (rc == QD_OK) rc = qd_text_set(&h->gpu->pci, g.pci, err);
    return rc == QD_OK && w->unfit ? qd_text_set(&h->gpu->fault, w->why, err) : rc;
}

static qd_code heartbeat(qd_worker *w, qd_err *err)
{
    struct sysinfo mem = {0};
    qd_progress *p = w->run.child == NULL ? NULL : qd_childproc_result_of(w->run.child)->progress;
    qd_worker_heartbeat *h = qd_worker_heartbeat_new();
    if (h == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a heartbeat");
    (void)sysinfo(&mem);
    h->pid = (uint64_t)getpid();
    h->state = state_of(w);
    h->host_memory_bytes = (uint64_t)mem.totalram * mem.mem_unit;
    h->host_memory_free_bytes = (uint64_t)(mem.freeram + mem.bufferram) * mem.mem_unit;
    h->epoch = w->run.task == NULL ? 0 : qd_task_record(w->run.task)->epoch;
    h->progress = p; /* lent */
    h->started_ms = w->started_ms;
    h->sent_ms = qd_unix_ms();
    h->jobs_done = w->jobs_done;
    h->jobs_failed = w->jobs_failed;
    h->node_failures = qd_jobs_node_failures(w->jobs);
    h->heartbeat_ms = (uint32_t)w->settings->heartbeat_ms;
    qd_code rc = set_gpu(w, h, err);
    if (rc == QD_OK) rc = set_texts(w, h, err);
    if (rc == QD_OK) rc = qd_jobs_heartbeat(w->jobs, h, err);
    h->progress = NULL;
    qd_msg_free(h);
    return rc;
}

/* One line a change, not one a try. */
static void tell_bus(qd_worker *w, bool up)
{
    if (up && !w->was_up) qd_log_say(w->log, QD_LOG_INFO, "connected to the bus");
    if (!up && w->was_up) qd_log_say(w->log, QD_LOG_WARN, "the bus is away; what runs goes on");
    w->was_up = up;
}

static void complain(qd_worker *w, qd_code rc, const char *what, const qd_err *err)
{
    (void)qd_worker_asked(w, rc);
    if (rc != QD_OK && rc != QD_E_AWAY) qd_log_err(w->log, QD_LOG_WARN, what, err);
}

static void duties(qd_worker *w, uint64_t now)
{
    qd_err err = {0};
    if (now >= w->heartbeat_ms) {
        w->heartbeat_ms = now + w->settings->heartbeat_ms;
        complain(w, heartbeat(w, &err), "heartbeat", &err);
    }
    if (now >= w->order_ms && qd_worker_up(w)) {
        bool drain = false;
        w->order_ms = now + w->settings->heartbeat_ms; /* a question of every worker, as a heartbeat is */
        complain(w, qd_jobs_order(w->jobs, &drain, &err), "orders", &err);
        if (drain && !w->draining) {
            w->ordered = true;
            qd_worker_drain(w, "an operator asked for it");
        }
    }
    if (now >= w->sweep_ms && qd_worker_up(w)) {
        qd_jobs_swept swept = {0};
        w->sweep_ms = now + w->settings->sweep_ms;
        complain(w, qd_jobs_sweep(w->jobs, &swept, &err), "sweep", &err);
        if (swept.admitted + swept.republished + swept.canceled + swept.deleted > 0)
            qd_log_say(w->log, QD_LOG_DEBUG, "sweep: %zu admitted, %zu published again, %zu canceled, %zu deleted",
                       swept.admitted, swept.republished, swept.canceled, swept.deleted);
        if (swept.admitted > 0) w->fetch_ms = 0;
    }
    if (now >= w->leaks_ms && qd_worker_up(w)) {
        qd_jobs_swept swept = {0};
        bool first = w->leaks_ms == 0; /* not in the rush of a start */
        w->leaks_ms = now + (first ? qd_min_u64(LEAKS_MS, 4 * w->settings->lease_ms) : LEAKS_MS);
        if (!first) complain(w, qd_jobs_sweep_leaks(w->jobs, &swept, &err), "sweep of leaks", &err);
    }
}

static void look_for_job(qd_worker *w, uint64_t now)
{
    qd_err err = {0};
    qd_bus_msg m = {0};
    qd_task *task = NULL;
    qd_take took = QD_TAKE_LATER;
    bool got = false;
    if (!w->lanes_open) {
        qd_code opened = qd_jobs_lanes_open(w->jobs, w->device_class, w->numerics_id, &err);
        complain(w, opened, "lanes", &err);
        if (opened != QD_OK) {
            w->fetch_ms = now + FETCH_MS;
            return;
        }
        w->lanes_open = true;
    }
    if (now >= w->pump_ms) { /* news of the records say when it is worth to look */
        w->pump_ms = now + FETCH_HINT_MS;
        complain(w, qd_jobs_view_pump(w->jobs, 0, NULL, &err), "view", &err);
        size_t queuing = qd_jobs_view_in(w->jobs, NULL, QD_JOB_QUEUING);
        if (queuing > w->queuing_seen) w->fetch_ms = 0;
        w->queuing_seen = queuing;
        /* A job that waits to be admitted: soon, but not by everybody in the same instant. */
        if (qd_jobs_view_in(w->jobs, NULL, QD_JOB_PENDING) > 0)
            w->sweep_ms = qd_min_u64(w->sweep_ms, now + w->jitter_ms);
    }
    if (qd_member_look(w)) return; /* calls come before the queue */
    if (now < w->fetch_ms || !qd_worker_up(w)) return;
    w->fetch_ms = now + FETCH_MS;
    qd_code rc = qd_jobs_fetch(w->jobs, &m, &got, &err);
    if (rc == QD_OK && got) {
        w->fetch_ms = now + FETCH_HINT_MS;
        rc = qd_jobs_take(w->jobs, &m, &took, &task, &err);
    }
    complain(w, rc, "look for a job", &err);
    if (rc == QD_OK && task != NULL) {
        qd_run_begin(w, task);
        w->heartbeat_ms = 0;
    }
}

static void tell_tired(qd_worker *w)
{
    if (!tired(w) || w->was_tired) return;
    w->was_tired = true;
    (void)snprintf(w->why, sizeof w->why,
                   "%u failures of this node in a row: it takes no more jobs until it is restarted",
                   qd_jobs_node_failures(w->jobs));
    qd_log_say(w->log, QD_LOG_ERROR, "%s", w->why);
    w->heartbeat_ms = 0;
}

static void look_at_gpu(qd_worker *w)
{
    char why[sizeof w->why];
    if (w->gpu == NULL || w->unfit || !qd_gpu_watch_faulty(w->gpu, GPU_SILENT_MS, why, sizeof why)) return;
    w->unfit = true;
    (void)snprintf(w->why, sizeof w->why, "%.180s: it takes no more jobs until it is restarted", why);
    qd_log_say(w->log, QD_LOG_ERROR, "%s", w->why);
    w->heartbeat_ms = 0;
    qd_run_stop(w, QD_STOP_DRAIN, why);
    qd_member_leave(w);
}

static void drain_step(qd_worker *w, bool up, uint64_t now)
{
    qd_err err = {0};
    if (!w->draining || w->over) return;
    if (w->run.task != NULL && !up && now > w->drained_ms + w->settings->drain_ms + w->settings->cancel_ms) {
        qd_log_say(w->log, QD_LOG_WARN, "the bus is away: the job is left to its lease");
        qd_run_drop(w);
    }
    if (w->member.follow != NULL && now > w->drained_ms + w->settings->drain_ms) qd_member_drop(w);
    if (w->run.task != NULL || w->member.follow != NULL) return;
    if (w->ordered && up && qd_jobs_order_done(w->jobs, &err) == QD_E_AWAY &&
        now < w->drained_ms + w->settings->drain_ms)
        return;
    w->over = true;
}

void qd_worker_step(qd_worker *w, uint64_t *ret_next_ms)
{
    qd_bus_state bus = {0};
    qd_bus_state_get(w->bus, &bus);
    tell_bus(w, bus.connected);
    qd_run_step(w);
    qd_member_step(w);
    uint64_t now = qd_mono_ms();
    if (qd_worker_up(w)) duties(w, now);
    look_at_gpu(w);
    tell_tired(w);
    if (qd_worker_up(w) && looks(w)) look_for_job(w, now);
    drain_step(w, qd_worker_up(w), now);
    uint64_t at = qd_min_u64(now + STEP_MS_MAX, qd_min_u64(qd_run_due_ms(w), qd_member_due_ms(w))), soonest = now + 1;
    if (qd_worker_up(w)) {
        at = qd_min_u64(qd_min_u64(at, w->heartbeat_ms), qd_min_u64(w->sweep_ms, w->order_ms));
        if (looks(w)) at = qd_min_u64(at, w->fetch_ms);
    } else { /* what is due stays so until the bus is back */
        at = qd_min_u64(at, now + AWAY_MS);
        soonest = now + AWAY_MS_MIN;
    }
    *ret_next_ms = w->over ? now : qd_max_u64(at, soonest);
}

size_t qd_worker_fds(qd_worker *w, int ret[QD_WORKER_FDS])
{
    size_t n = 0;
    if (w->run.child != NULL && !w->run.exited) {
        ret[n++] = qd_childproc_fd(w->run.child);
        if (qd_childproc_pid_fd(w->run.child) >= 0) ret[n++] = qd_childproc_pid_fd(w->run.child);
    }
    if (w->member.child != NULL && !w->member.exited) {
        ret[n++] = qd_childproc_fd(w->member.child);
        if (qd_childproc_pid_fd(w->member.child) >= 0) ret[n++] = qd_childproc_pid_fd(w->member.child);
    }
    if (w->run.task != NULL && qd_task_fd(w->run.task) >= 0) ret[n++] = qd_task_fd(w->run.task);
    if (looks(w) && w->lanes_open && qd_jobs_view_fd(w->jobs) >= 0) ret[n++] = qd_jobs_view_fd(w->jobs);
    return n;
}

void qd_worker_drain(qd_worker *w, const char *why)
{
    if (!w->draining) {
        w->drained_ms = qd_mono_ms();
        (void)snprintf(w->why, sizeof w->why, "%s", why);
        qd_log_say(w->log, QD_LOG_INFO, "drains: %s", why);
    }
    w->draining = true;
    w->heartbeat_ms = 0;
    qd_run_stop(w, QD_STOP_DRAIN, why);
    qd_member_leave(w);
}

bool qd_worker_over(const qd_worker *w)
{
    return w->over;
}

bool qd_worker_healthy(const qd_worker *w)
{
    if (w->run.child == NULL || w->run.exited) return true;
    return qd_mono_ms() < qd_childproc_last_tick_ms(w->run.child) + 2 * w->settings->silent_ms;
}

void qd_worker_status(const qd_worker *w, char *ret, size_t room)
{
    const qd_progress *p = w->run.child == NULL ? NULL : qd_childproc_result_of(w->run.child)->progress;
    const char *head = w->draining ? "draining, " : w->was_up ? "" : "bus away, ";
    if (w->member.child != NULL) {
        (void)snprintf(ret, room, "%srank %u of job %s", head, (unsigned)qd_follow_rank(w->member.follow),
                       qd_follow_record(w->member.follow)->id);
        return;
    }
    if (w->run.task == NULL) {
        (void)snprintf(ret, room, "%s%s", head, tired(w) || w->unfit ? w->why : "idle");
        return;
    }
    size_t n = (size_t)snprintf(ret, room, "%sjob %s", head, qd_task_record(w->run.task)->id);
    if (p == NULL || n >= room) return;
    n += (size_t)snprintf(ret + n, room - n, " %s layer %u/%u %u%%", p->phase, (unsigned)p->layer, (unsigned)p->layers,
                          (unsigned)p->permille / 10);
    if (p->eta_ms == 0 || n >= room) return;
    uint64_t s = p->eta_ms / 1000;
    (void)snprintf(ret + n, room - n, s < 120 ? " eta %" PRIu64 "s" : " eta %" PRIu64 "m", s < 120 ? s : s / 60);
}
