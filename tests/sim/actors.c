/* actors.c -- what daemon/ and gateway/ will do with jobs/, in few words. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

static uint64_t unix_ms(void *ctx)
{
    (void)ctx;
    return sim_now() + UINT64_C(1700000000000);
}

static uint64_t mono_ms(void *ctx)
{
    (void)ctx;
    return sim_now();
}

static const qd_jobs_clock clock_of_sim = {.unix_ms = unix_ms, .mono_ms = mono_ms};

static bool up(const actor *a)
{
    return !a->crashed && !sim.stop;
}

bool sim_up(const actor *a)
{
    return up(a);
}

static bool begin(actor *a)
{
    a->crashed = false;
    if (sim_bus_open(a) != QD_OK) return false;
    qd_jobs_opts opts = {.self = a->name,
                         .clock = &clock_of_sim,
                         .disk = &sim_disk,
                         .lease_ms = LEASE_MS,
                         .leak_ms = 2 * LEASE_MS,
                         .node_retry_ms = 3 * LEASE_MS,
                         .attempts_max = ATTEMPTS_MAX,
                         .gang = sim_gangs ? &a->gang : NULL,
                         .bugs = sim.bugs};
    a->next_sweep_ms = a->next_beat_ms = 0;
    a->next_leaks_ms = sim_now() + sim_random(4000);
    a->drain_at_ms = sim_faults() && sim_chance(16384) ? sim_now() + sim_random(20000) : UINT64_MAX;
    return qd_jobs_open(&a->bus, &opts, &a->jobs, NULL) == QD_OK;
}

static void end(actor *a)
{
    qd_jobs_close(a->jobs);
    a->jobs = NULL;
    sim_bus_close(a);
}

/* The sweep that every program runs. */
static void keep_house(actor *a)
{
    qd_jobs_swept swept = {0};
    uint64_t now = sim_now();
    if (now >= a->next_sweep_ms) {
        a->next_sweep_ms = now + 1000 + sim_random(2000);
        (void)!qd_jobs_sweep(a->jobs, &swept, NULL);
    }
    if (now >= a->next_leaks_ms && up(a)) {
        a->next_leaks_ms = now + 4000 + sim_random(4000);
        (void)!qd_jobs_sweep_leaks(a->jobs, &swept, NULL);
    }
    sim_total.republished += swept.republished;
    sim_total.swept_cancels += swept.canceled;
    sim_total.names_freed += swept.names;
    if (swept.republished + swept.canceled + swept.names + swept.leases + swept.paths != 0)
        sim_say("sweep: %zu published again, %zu canceled, %zu names, %zu leases, %zu paths", swept.republished,
                swept.canceled, swept.names, swept.leases, swept.paths);
}

qd_code sim_fail_task(qd_task *t, Quantd__ErrorClass c)
{
    qd_job_error e;
    quantd__job_error__init(&e);
    char code[] = "io_error", message[] = "simulated";
    e.code = code;
    e.message = message;
    e.error_class = c;
    return qd_task_fail(t, &e, 1, NULL, NULL);
}

ending sim_work(job *k, qd_task *t, unsigned *step, Quantd__ErrorClass *ret_class, qd_code *ret_rc)
{
    uint64_t epoch = qd_task_record(t)->epoch;
    qd_code rc = *step == 0 ? sim_disk_make(k, epoch, NULL) : QD_OK;
    if (rc == QD_OK && *step != 0) rc = sim_disk_write(k, epoch, NULL);
    if (rc == QD_OK && *step >= k->steps && k->nature == BAD) {
        *ret_class = QUANTD__ERROR_CLASS__ERROR_JOB;
        return FAIL;
    }
    if (rc == QD_OK && *step >= k->steps) {
        *ret_rc = qd_task_may_commit(t, NULL);
        if (*ret_rc != QD_OK) return WORK;
        rc = sim_disk_commit(k, epoch, NULL);
        if (rc == QD_OK) return FINISH;
    }
    if (rc == QD_E_NOT_FOUND) { /* the child's paths fail: whoever took them has written so first */
        *ret_rc = qd_task_check(t, NULL);
        if (*ret_rc == QD_OK)
            sim_fail("%s: staging %llu is gone while it is %s's", k->id, (unsigned long long)epoch, sim.now->name);
        return WORK;
    }
    if (rc != QD_OK) {
        *ret_class = sim_chance(8192) ? QUANTD__ERROR_CLASS__ERROR_BUS : QUANTD__ERROR_CLASS__ERROR_NODE;
        return FAIL;
    }
    ++*step;
    return WORK;
}

static void run_task(actor *a, qd_task *t)
{
    job *k = sim_job(qd_task_record(t)->id);
    qd_progress p;
    quantd__progress__init(&p);
    Quantd__ErrorClass class = QUANTD__ERROR_CLASS__ERROR_JOB;
    ending how = WORK;
    unsigned step = 0, tries = 0;
    uint64_t renew_ms = sim_now() + LEASE_MS / 3;
    while (up(a)) {
        qd_code rc = QD_OK;
        sim_sleep(50 + sim_random(300));
        if (!up(a)) break;
        if (sim_now() >= a->next_beat_ms) a->next_beat_ms = 0; /* the main loop's */
        if (sim_now() >= renew_ms && sim_chance(49152)) { /* after a stall, timers and the child come in any order */
            rc = qd_task_renew(t, NULL);
            renew_ms = sim_now() + LEASE_MS / 3;
        } else if (how == WORK && sim_chance(16384)) {
            rc = qd_task_poll(t, NULL);
        } else if (how == WORK && sim_chance(16384)) {
            p.permille = step * 100;
            rc = qd_task_progress(t, &p, NULL);
        }
        if (how == WORK && rc != QD_E_CANCELED && rc != QD_E_CONFLICT) {
            if (sim_now() >= a->drain_at_ms)
                how = HAND_BACK;
            else
                how = sim_work(k, t, &step, &class, &rc);
        }
        if (rc == QD_E_CANCELED && how == WORK) how = CANCELED;
        if (rc == QD_E_CONFLICT && how == WORK) break; /* fenced */
        if (how == WORK || !up(a)) continue;
        rc = how == FINISH      ? qd_task_finish(t, NULL, 1, NULL)
             : how == FAIL      ? sim_fail_task(t, class)
             : how == HAND_BACK ? qd_task_hand_back(t, &p, 1, NULL)
                                : qd_task_canceled(t, 1, NULL);
        if (!up(a)) break;
        if (rc == QD_E_VERIFY) sim_fail("%s: finished without OUT", k->id);
        if (rc == QD_OK || rc == QD_E_CONFLICT || (rc == QD_E_CANCELED && how == FINISH) || ++tries == 30) break;
        if (rc == QD_E_CANCELED) how = CANCELED;
    }
    qd_task_free(t);
}

void sim_heartbeat(actor *a)
{
    qd_worker_heartbeat hb;
    quantd__worker_heartbeat__init(&hb);
    char cpu[] = "cpu", any[] = "any";
    hb.version = QD_WIRE_VERSION;
    hb.id = a->name;
    hb.state = QUANTD__WORKER_STATE__WORKER_IDLE;
    hb.device_class = cpu;
    hb.numerics_id = any;
    char build[] = "b", shm[] = "shm", host[QD_ID_BYTES];
    if (sim_gangs) {
        (void)snprintf(host, sizeof host, "%s", a->gang.host);
        hb.build = build;
        hb.collective_version = shm;
        hb.host = host;
    }
    if (qd_jobs_heartbeat(a->jobs, &hb, NULL) == QD_OK) a->next_beat_ms = sim_now() + LEASE_MS;
}

static void take_one(actor *a)
{
    qd_bus_msg m = {0};
    bool got = false;
    qd_take how = QD_TAKE_LATER;
    qd_task *t = NULL;
    qd_bus_state before = {0};
    if (qd_jobs_fetch(a->jobs, &m, &got, NULL) != QD_OK || !got) return;
    sim_say("%s has the message %s, delivery %llu", a->name, m.subject, (unsigned long long)m.delivered);
    qd_bus_state_get(&a->bus, &before);
    qd_code rc = qd_jobs_take(a->jobs, &m, &how, &t, NULL);
    if (rc == QD_OK && how == QD_TAKE_RUN) {
        check_take(a, t, &before);
        if (sim_gangs)
            sim_lead_task(a, t);
        else
            run_task(a, t);
    }
}

void sim_worker(void)
{
    actor *a = sim.now;
    while (!sim.stop && (a->retires_at_ms == 0 || sim_now() < a->retires_at_ms)) {
        bool lanes = false;
        if (!begin(a)) {
            end(a);
            return;
        }
        while (up(a) && !qd_jobs_must_drain(a->jobs) && sim_now() < a->drain_at_ms) {
            if (!lanes) lanes = qd_jobs_lanes_open(a->jobs, "cpu", NULL, NULL) == QD_OK;
            if (up(a) && sim_now() >= a->next_beat_ms) sim_heartbeat(a);
            if (up(a)) keep_house(a);
            if (up(a) && sim_gangs && sim_follow(a)) continue;
            if (up(a) && lanes) take_one(a);
            if (up(a)) sim_sleep(200 + sim_random(sim_faults() ? 600 : 1500));
        }
        end(a);
        sim_sleep(500 + sim_random(4000));
    }
}

static void create_one(actor *a, job *k)
{
    k->asked = true;
    for (int i = 0; i < 6 && up(a); i++) {
        qd_code rc = qd_jobs_create(a->jobs, k->id, k->spec, k->unique, NULL, NULL);
        if (!up(a)) return;
        if (rc == QD_OK) {
            k->created = true;
            sim_say("%s is created", k->id);
            return;
        }
        if (rc != QD_E_AWAY) {
            k->refused = true;
            sim_say("%s is refused: %s", k->id, qd_code_name(rc));
            return;
        }
        sim_sleep(100 + sim_random(1000));
    }
}

static void cancel_one(actor *a, job *k)
{
    qd_job_state state = QD_JOB_PENDING;
    for (int i = 0; i < 4 && up(a); i++) {
        qd_code rc = qd_jobs_cancel(a->jobs, k->id, "enough", NULL, &state, NULL);
        if (!up(a)) return;
        if (rc != QD_E_AWAY) {
            sim_say("cancel of %s: %s", k->id, qd_code_name(rc));
            check_cancel_answer(k, rc);
            return;
        }
        sim_sleep(100 + sim_random(500));
    }
}

/* Whatever people do with a job that is there. */
static void meddle(actor *a)
{
    job *k = &sim.jobs[sim_random(sim.n_jobs)];
    if (!k->asked || k->refused) return;
    if (sim_chance(6000)) cancel_one(a, k);
    if (up(a) && k->seen && k->state == QD_JOB_FAILED && k->requeues == 0 && sim_chance(20000)) {
        k->requeues++;
        if (qd_jobs_requeue(a->jobs, k->id, NULL, NULL) == QD_OK) sim_say("%s is queued again", k->id);
    }
    if (up(a) && k->seen && qd_job_state_terminal(k->state) && sim_chance(6000)) {
        k->delete_asked = true;
        if (qd_jobs_delete(a->jobs, k->id, NULL, NULL) == QD_OK) sim_say("%s is deleted", k->id);
    }
}

void sim_gateway(void)
{
    actor *a = sim.now;
    while (!sim.stop) {
        if (!begin(a)) {
            end(a);
            return;
        }
        while (up(a)) {
            while (sim.load && up(a) && sim.n_created < sim.n_jobs) create_one(a, &sim.jobs[sim.n_created++]);
            if (sim.n_created < sim.n_jobs && sim_chance(20000)) create_one(a, &sim.jobs[sim.n_created++]);
            job *k = &sim.jobs[sim_random(sim.n_jobs)]; /* somebody asks again */
            if (up(a) && k->asked && !k->created && !k->refused && sim_chance(8192)) create_one(a, k);
            if (up(a) && sim_faults()) meddle(a);
            if (up(a)) keep_house(a);
            if (up(a)) sim_sleep(300 + sim_random(1000));
        }
        end(a);
        sim_sleep(500 + sim_random(3000));
    }
}
