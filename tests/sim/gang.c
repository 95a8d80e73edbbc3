/* gang.c -- leaders and members as daemon/ will have them, and worlds in which jobs ask for several workers.
 *
 * A gang's work is done when its leader and each of its members have taken their steps; ranks see each other's through
 * shared memory, the communicator of these worlds. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

bool sim_make_gangs(void)
{
    bool calm = sim.p.crash + sim.p.stall + sim.p.cut + sim.p.outage + sim.p.disk_error == 0;
    sim.load = calm || sim_chance(6000);
    uint32_t n = (uint32_t)sim.n_workers;
    sim.flaky = sim_chance(4000);
    bool retires = n > 1 && !sim.load && sim_chance(20000);
    if (sim.load) {
        sim.p = (profile){.faults_end_ms = 6000, .end_ms = 600000};
        qd_bus_mem_set_faults(sim.mem, NULL);
        sim_total.loads++;
    }
    for (size_t i = 0; i < sim.n_actors; i++) {
        actor *a = &sim.actors[i];
        a->gang = (qd_gang_self){.build = "b",
                                 .numerics_id = "any",
                                 .device_class = "cpu",
                                 .host = sim_chance(32768) ? "h1" : "h2",
                                 .collective = "shm",
                                 .window_ms = 100 + sim_random(400)};
        a->sick = a->sick && !sim.load;
    }
    if (retires) sim.actors[sim_random(n)].retires_at_ms = 2000 + sim_random(sim.p.faults_end_ms);
    uint32_t most = n - retires;
    for (size_t i = 0; i < sim.n_jobs; i++) {
        qd_job_spec *s = sim.jobs[i].spec;
        s->ranks_min = (uint32_t)sim_random(most + 1);
        s->ranks_max = sim_chance(32768) ? s->ranks_min : s->ranks_min + (uint32_t)sim_random(3);
        if (sim.load) { /* one for all workers, and small ones */
            s->ranks_min = i == 2 ? n : 1;
            s->ranks_max = s->ranks_min;
            s->lane->priority = 0;
            sim.jobs[i].unique = false;
            sim.jobs[i].nature = GOOD;
        }
    }
    return true;
}

/* Rank 0's part of the work, which ends when all parts are done. */
static ending lead_work(job *k, qd_task *t, uint32_t size, unsigned *step, Quantd__ErrorClass *class, qd_code *rc)
{
    bool waits = *step >= k->steps && k->nature == GOOD && k->parts + 1 < size;
    return waits ? WORK : sim_work(k, t, step, class, rc);
}

static void start(actor *a, job *k, qd_task *t, qd_lead *l)
{
    uint32_t size = qd_lead_size(l);
    (void)a;
    sim_say("%s: gang %u of epoch %llu starts, %u ranks", k->id, qd_lead_number(l),
            (unsigned long long)qd_task_record(t)->epoch, size);
    qd_lead_started(l);
    k->gang_epoch = qd_task_record(t)->epoch;
    k->gang_number = qd_lead_number(l);
    k->parts = 0;
    if (size < qd_task_record(t)->spec->ranks_min) sim_fail("%s: a gang of %u", k->id, size);
    sim_total.gangs += size > 1;
    sim_total.gangs_alone += size == 1;
    if (size > 1) (void)!qd_lead_invite(l, "here", 4, NULL);
}

/* A gang is broken: a new one, or what else becomes of the job. */
static ending broken(job *k, qd_lead *l, const char *why, Quantd__ErrorClass *class)
{
    sim_say("%s: its gang is broken: %s", k->id, why);
    sim_total.gangs_broken++;
    if (qd_lead_error(l) != NULL) {
        *class = QUANTD__ERROR_CLASS__ERROR_JOB;
        return FAIL;
    }
    if (qd_lead_again(l, why, NULL) != QD_OK) return HAND_BACK; /* too often */
    sim_total.gangs_again++;
    return WORK;
}

typedef struct leading {
    qd_lead *l;
    bool child, yields, off;
    unsigned step;
    Quantd__ErrorClass class;
} leading;

/* What the leader's state machine says, and the child does. */
static ending lead_step(actor *a, job *k, qd_task *t, leading *g, qd_code *rc)
{
    qd_lead_word word = QD_LEAD_WAIT;
    *rc = qd_lead_step(g->l, &word, NULL);
    if (!sim_up(a) || *rc == QD_E_CANCELED || *rc == QD_E_CONFLICT) return WORK;
    if (word == QD_LEAD_YIELD) {
        g->yields = true;
        sim_say("%s yields: %s", k->id, qd_lead_why(g->l));
        sim_total.yields += strstr(qd_lead_why(g->l), "first in line") != NULL;
        sim_total.too_few += strstr(qd_lead_why(g->l), "alive") != NULL;
        return HAND_BACK;
    }
    if (word == QD_LEAD_START && *rc == QD_OK) {
        start(a, k, t, g->l);
        g->child = true;
    }
    if (word == QD_LEAD_BROKEN ||
        (g->child && qd_lead_size(g->l) > 1 && sim_faults() && sim_chance(sim.flaky ? 50000 : 300))) {
        g->child = false;
        return broken(k, g->l, word == QD_LEAD_BROKEN ? qd_lead_why(g->l) : "gang_broken", &g->class);
    }
    if (!g->child) return WORK;
    ending how = lead_work(k, t, qd_lead_size(g->l), &g->step, &g->class, rc);
    if (how != WORK) g->child = false;
    return how;
}

/* Members first, then the record. OK: it is written. */
static qd_code end_task(qd_task *t, leading *g, ending how)
{
    qd_lead_word word = QD_LEAD_WAIT;
    qd_code rc = QD_OK;
    if (how != FINISH && !g->off) {
        qd_lead_dissolve(g->l, "ends");
        rc = qd_lead_step(g->l, &word, NULL);
        if (rc != QD_OK || word != QD_LEAD_CLEAR) return rc == QD_E_CONFLICT ? rc : QD_E_AWAY;
        g->off = true;
    }
    return how == FINISH     ? qd_task_finish(t, NULL, 1, NULL)
           : g->yields       ? qd_lead_yield(g->l, NULL)
           : how == FAIL     ? sim_fail_task(t, g->class)
           : how == CANCELED ? qd_task_canceled(t, 1, NULL)
                             : qd_task_hand_back(t, NULL, 1, NULL);
}

void sim_lead_task(actor *a, qd_task *t)
{
    job *k = sim_job(qd_task_record(t)->id);
    leading g = {.class = QUANTD__ERROR_CLASS__ERROR_JOB};
    ending how = WORK;
    unsigned tries = 0;
    uint64_t renew_ms = sim_now() + LEASE_MS / 3;
    if (qd_lead_open(t, &g.l, NULL) != QD_OK) goto out;
    while (sim_up(a)) {
        qd_code rc = QD_OK;
        sim_sleep(50 + sim_random(300));
        if (sim_up(a) && sim_now() >= a->next_beat_ms) sim_heartbeat(a);
        if (!sim_up(a)) break;
        if (sim_now() >= renew_ms && sim_chance(49152)) {
            rc = qd_task_renew(t, NULL);
            renew_ms = sim_now() + LEASE_MS / 3;
        } else if (how == WORK && sim_chance(16384)) {
            rc = qd_task_poll(t, NULL);
        }
        if (how == WORK && rc != QD_E_CANCELED && rc != QD_E_CONFLICT)
            how = sim_now() >= a->drain_at_ms ? HAND_BACK : lead_step(a, k, t, &g, &rc);
        if (rc == QD_E_CANCELED && how == WORK) how = CANCELED;
        if (rc == QD_E_CONFLICT && how == WORK) break; /* fenced */
        if (how == WORK || !sim_up(a)) continue;
        g.child = false;
        rc = end_task(t, &g, how);
        if (!sim_up(a)) break;
        if (rc == QD_E_VERIFY) sim_fail("%s: finished without OUT", k->id);
        bool over = rc == QD_OK || (rc == QD_E_CANCELED && how == FINISH);
        if (over) qd_lead_end(g.l);
        if (over || rc == QD_E_CONFLICT || ++tries == 60) break;
        if (rc == QD_E_CANCELED) how = CANCELED;
    }
out:
    qd_lead_free(g.l);
    qd_task_free(t);
}

/* The member's child takes a step. */
static void follow_work(job *k, qd_follow *f, unsigned *step, bool *child)
{
    char code[] = "io_error", message[] = "simulated";
    qd_job_error e;
    quantd__job_error__init(&e);
    e.code = code;
    e.message = message;
    e.error_class = QUANTD__ERROR_CLASS__ERROR_NODE;
    check_member(k, f);
    if (*step >= k->steps) {
        if (k->gang_epoch == qd_follow_epoch(f) && k->gang_number == qd_follow_number(f)) k->parts++;
        qd_follow_tell(f, QUANTD__MEMBER_STATE__MEMBER_DONE, NULL, 1);
        sim_total.members_done++;
        *child = false;
        return;
    }
    qd_code rc = sim_disk_write(k, qd_follow_epoch(f), NULL);
    if (rc == QD_OK || (rc == QD_E_NOT_FOUND && *step == 0)) { /* rank 0 may not have made it yet */
        ++*step;
        return;
    }
    if (rc == QD_E_NOT_FOUND) e.error_class = QUANTD__ERROR_CLASS__ERROR_BUS;
    qd_follow_tell(f, QUANTD__MEMBER_STATE__MEMBER_LEFT, &e, 1);
    sim_total.members_failed++;
    *child = false;
}

bool sim_follow(actor *a)
{
    qd_follow *f = NULL;
    unsigned step = 0;
    bool child = false;
    if (qd_follow_look(a->jobs, &f, NULL) != QD_OK || f == NULL) return false;
    job *k = sim_job(qd_follow_record(f)->id);
    sim_say("%s offers itself to %s", a->name, k->id);
    while (sim_up(a)) {
        qd_follow_word word = QD_FOLLOW_WAIT;
        if (sim_now() >= a->next_beat_ms) sim_heartbeat(a);
        if (sim_up(a) && sim_now() >= a->drain_at_ms) qd_follow_leave(f);
        if (sim_up(a)) (void)!qd_follow_step(f, &word, NULL);
        if (!sim_up(a) || word == QD_FOLLOW_OVER) break;
        if (word == QD_FOLLOW_START) {
            sim_say("%s is rank %u of gang %u of %s", a->name, qd_follow_rank(f), qd_follow_number(f), k->id);
            child = true;
            step = 0;
            qd_follow_tell(f, QUANTD__MEMBER_STATE__MEMBER_RUNNING, NULL, 0);
        }
        if (word == QD_FOLLOW_STOP) {
            sim_say("%s stops: %s", a->name, qd_follow_why(f));
            sim_total.members_alone += strstr(qd_follow_why(f), "not heard") != NULL;
            child = false;
            qd_follow_tell(f, QUANTD__MEMBER_STATE__MEMBER_LEFT, NULL, 1);
        }
        sim_sleep(20 + sim_random(150));
        if (child && sim_up(a) && sim_now() < qd_follow_until_ms(f)) follow_work(k, f, &step, &child);
    }
    sim_say("%s is free of %s: %s", a->name, k->id, qd_follow_why(f));
    sim_total.offers_moved += strstr(qd_follow_why(f), "older") != NULL;
    qd_follow_free(f);
    sim_sleep(20);
    return true;
}
