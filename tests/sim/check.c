/* check.c -- the invariants, on every write as it reaches the store. */
#include "bus/mem_client.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

static const qd_mem_stream *stream(const char *name)
{
    static const qd_mem_stream none;
    qd_mem_stream *t = NULL;
    return qd_mem_stream_find(&sim.mem->store, name, &t, NULL) == QD_OK && t != NULL ? t : &none;
}

static size_t job_failures(const qd_job_record *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_failures; i++) {
        bool fresh = r->failures[i]->error_class == QUANTD__ERROR_CLASS__ERROR_JOB;
        for (size_t x = 0; x < i && fresh; x++)
            fresh = r->failures[x]->error_class != QUANTD__ERROR_CLASS__ERROR_JOB ||
                    strcmp(r->failures[x]->worker, r->failures[i]->worker) != 0;
        n += fresh;
    }
    return n;
}

static void bad_step(const job *k, const qd_job_record *r, const char *why)
{
    sim_fail("%s: %s, epoch %llu (%s, attempts %u) -> %s, epoch %llu (%s, attempts %u): %s", k->id,
             qd_job_state_name(k->state), (unsigned long long)k->epoch, k->owner, k->attempts,
             qd_job_state_name(r->state), (unsigned long long)r->epoch, r->owner, r->attempts, why);
}

/* RUNNING to RUNNING of the next epoch: only from one who is, or once was, silent for a lease time: who saw
 * that may have been slow to act on it. */
static void check_takeover(const job *k, const qd_job_record *r)
{
    uint64_t silent = sim_now() - k->lease_ms;
    if (k->lease_epoch < k->epoch || (silent < LEASE_MS && k->lease_gap_ms < LEASE_MS))
        bad_step(k, r, "its owner's lease was alive");
}

static void check_end(const job *k, const qd_job_record *r)
{
    if (r->state == QD_JOB_SUCCEEDED) {
        if (!k->out) bad_step(k, r, "there is no OUT");
        if (k->cancel_ok) bad_step(k, r, "its cancel was answered with success");
        if (k->nature == BAD) bad_step(k, r, "it cannot succeed");
        if (r->report == NULL || r->report->tensors_quantized != 7) bad_step(k, r, "no report");
    }
    if (r->state == QD_JOB_FAILED) {
        if (k->nature == GOOD && r->attempts < ATTEMPTS_MAX) bad_step(k, r, "nothing is wrong with it");
        if (k->nature == BAD && job_failures(r) == 0 && r->attempts < ATTEMPTS_MAX) bad_step(k, r, "nobody failed it");
        if (r->error == NULL) bad_step(k, r, "no error");
    }
    if (r->state == QD_JOB_CANCELED && k->out) bad_step(k, r, "OUT is there");
    if (r->ended_ms == 0) bad_step(k, r, "no time of the end");
    sim_total.succeeded += r->state == QD_JOB_SUCCEEDED;
    sim_total.found_outs += r->state == QD_JOB_SUCCEEDED && r->epoch != k->out_epoch;
    sim_total.failed += r->state == QD_JOB_FAILED;
    sim_total.canceled += r->state == QD_JOB_CANCELED;
}

static void check_transition(const job *k, const qd_job_record *r)
{
    bool same = r->epoch == k->epoch, next = r->epoch == k->epoch + 1, ok = false;
    bool same_owner = strcmp(r->owner, k->owner) == 0;
    uint32_t attempts = k->attempts;
    switch ((int)r->state) {
    case QD_JOB_PENDING:
        ok = k->state == QD_JOB_FAILED && k->requeues != 0 && same;
        attempts = 0;
        sim_total.requeues++;
        break;
    case QD_JOB_QUEUING:
        ok = same && (k->state == QD_JOB_PENDING || k->state == QD_JOB_RUNNING) && r->owner[0] == '\0';
        if (k->state == QD_JOB_RUNNING) {
            bool job_class = r->n_failures > k->n_failures &&
                             r->failures[r->n_failures - 1]->error_class == QUANTD__ERROR_CLASS__ERROR_JOB;
            attempts -= !job_class && attempts != 0;
            sim_total.failures += r->n_failures > k->n_failures;
            sim_total.hand_backs += r->n_failures == k->n_failures;
        }
        break;
    case QD_JOB_RUNNING:
        if (same) {
            ok = k->state == QD_JOB_RUNNING && same_owner;
        } else {
            ok = next && r->owner[0] != '\0' &&
                 (k->state == QD_JOB_PENDING || k->state == QD_JOB_QUEUING || k->state == QD_JOB_RUNNING);
            attempts++;
            if (k->state == QD_JOB_RUNNING) check_takeover(k, r);
            sim_total.takeovers += k->state == QD_JOB_RUNNING;
        }
        break;
    case QD_JOB_CANCELING:
        ok = same && same_owner && r->cancel != NULL && r->epoch != 0 && !qd_job_state_terminal(k->state);
        break;
    case QD_JOB_CANCELED:
        ok = same && (k->state == QD_JOB_CANCELING ||
                      (k->epoch == 0 && (k->state == QD_JOB_PENDING || k->state == QD_JOB_QUEUING)));
        break;
    case QD_JOB_SUCCEEDED:
    case QD_JOB_FAILED:
        ok = same && k->state == QD_JOB_RUNNING;
        break;
    default:
        break;
    }
    if (!ok) bad_step(k, r, "no such transition");
    if (r->attempts != attempts) bad_step(k, r, "attempts are wrong");
}

/* Of jobs that call, the first must not be passed over and over by younger ones. */
static void check_line(job *k, const qd_job_record *r)
{
    bool takes = r->state == QD_JOB_RUNNING && r->epoch > k->epoch;
    for (size_t i = 0; takes && sim.load && i < sim.n_jobs; i++) {
        job *older = &sim.jobs[i];
        bool first = older->calls && (older->created_ms < r->created_ms) &&
                     older->spec->lane->priority <= k->spec->lane->priority;
        if (first && ++older->passed > 3 * sim.n_workers)
            sim_fail("%s calls, and %u younger jobs were taken meanwhile", older->id, older->passed);
    }
    k->created_ms = r->created_ms;
    k->calls = r->state == QD_JOB_RUNNING && r->reservation != NULL;
    if (!k->calls) k->passed = 0;
}

static void check_record(const qd_mem_msg *m)
{
    qd_job_record *r = NULL;
    job *k = sim_job(m->m.key + 4);
    if (k == NULL) {
        sim_fail("a record of nobody's: %s", m->m.key);
        return;
    }
    if (m->m.deleted) {
        if (!k->delete_asked || !qd_job_state_terminal(k->state))
            sim_fail("%s is deleted, %s", k->id, qd_job_state_name(k->state));
        k->deleted = true;
        k->seen = false;
        sim_total.deletes++;
        return;
    }
    if (qd_job_record_decode(m->m.data, m->m.bytes, &r, NULL) != QD_OK) {
        sim_fail("%s: its record cannot be read", k->id);
        return;
    }
    if (sim.trace)
        sim_say("  record %s: %s, epoch %llu, owner %s, attempts %u, revision %llu", k->id, qd_job_state_name(r->state),
                (unsigned long long)r->epoch, r->owner, r->attempts, (unsigned long long)m->m.seq);
    if (!k->seen) {
        if (r->state != QD_JOB_PENDING || r->epoch != 0 || k->deleted) bad_step(k, r, "a new record");
    } else {
        check_transition(k, r);
    }
    if (qd_job_state_terminal(r->state)) check_end(k, r);
    check_line(k, r);
    if (k->seen && r->epoch != k->epoch) k->taken_from = (uint64_t)k->state;
    k->seen = true;
    k->state = r->state;
    k->epoch = r->epoch;
    k->attempts = r->attempts;
    k->n_failures = r->n_failures;
    k->rev = m->m.seq;
    (void)snprintf(k->owner, sizeof k->owner, "%s", r->owner);
    qd_msg_free(r);
}

static void check_lease(const qd_mem_msg *m)
{
    qd_lease *l = NULL;
    job *k = sim_job(m->m.key + 6);
    if (k == NULL || m->m.deleted || qd_lease_decode(m->m.data, m->m.bytes, &l, NULL) != QD_OK) return;
    sim_say("  lease of %s: %s, epoch %llu, renewal %llu", k->id, l->worker, (unsigned long long)l->epoch,
            (unsigned long long)l->renewals);
    if (l->epoch >= k->epoch) {
        uint64_t gap_ms = l->epoch == k->lease_epoch ? m->m.time_ms - k->lease_ms : 0;
        if (l->epoch != k->lease_epoch || gap_ms > k->lease_gap_ms) k->lease_gap_ms = gap_ms;
        k->lease_ms = m->m.time_ms;
        k->lease_epoch = l->epoch;
    }
    qd_msg_free(l);
}

void check_step(void)
{
    if (sim.records == NULL) {
        sim.records = stream("KV_" QD_BUCKET_JOBS);
        sim.live = stream("KV_" QD_BUCKET_LIVE);
    }
    const qd_mem_stream *jobs = sim.records, *live = sim.live;
    for (; sim.live_cursor < live->n_slots; sim.live_cursor++) {
        const qd_mem_msg *m = live->slots[sim.live_cursor];
        if (m != NULL && strncmp(m->m.key, "lease.", 6) == 0) check_lease(m);
    }
    for (; sim.jobs_cursor < jobs->n_slots; sim.jobs_cursor++) {
        const qd_mem_msg *m = jobs->slots[sim.jobs_cursor];
        if (m != NULL && strncmp(m->m.key, "job.", 4) == 0)
            check_record(m);
        else if (m != NULL)
            sim_say("  %s: %s, revision %llu", m->m.key, m->m.deleted ? "(deleted)" : (const char *)m->m.data,
                    (unsigned long long)m->m.seq);
    }
}

void check_cancel_answer(job *k, qd_code rc)
{
    check_step();
    bool ended = qd_job_state_terminal(k->state) && k->state != QD_JOB_CANCELED;
    if (rc == QD_OK) {
        if (k->seen && k->state == QD_JOB_SUCCEEDED)
            sim_fail("%s: its cancel is answered with success, it is SUCCEEDED", k->id);
        k->cancel_ok = true;
    } else if (rc == QD_E_BUSY && !ended && k->requeues == 0 && !k->deleted) {
        sim_fail("%s: its cancel is refused, it is %s", k->id, qd_job_state_name(k->state));
    }
}

void check_take(actor *a, const qd_task *t, const qd_bus_state *before)
{
    qd_bus_state s = {0};
    const job *k = sim_job(qd_task_record(t)->id);
    qd_bus_state_get(&a->bus, &s);
    /* k->taken_from: the state out of which the last take came */
    if (k->taken_from == QD_JOB_RUNNING && s.connects == before->connects && s.connected && s.connected_ms < LEASE_MS)
        sim_fail("%s: %s takes it over %llu ms after a reconnect", k->id, a->name, (unsigned long long)s.connected_ms);
}

static bool names_quiet(void)
{
    const qd_mem_stream *t = stream("KV_" QD_BUCKET_JOBS);
    for (size_t i = t->first; i < t->n_slots; i++) {
        const qd_mem_msg *m = t->slots[i];
        if (m == NULL || m->m.deleted || strncmp(m->m.key, "name.", 5) != 0) continue;
        const job *k = sim_job((const char *)m->m.data);
        if (k == NULL || !k->seen || k->deleted) return false;
    }
    return true;
}

void check_member(const job *k, const qd_follow *f)
{
    check_step();
    if (k->epoch != qd_follow_epoch(f) || (k->state != QD_JOB_RUNNING && k->state != QD_JOB_CANCELING))
        sim_fail("%s: a member of epoch %llu works while the job is %s, epoch %llu", k->id,
                 (unsigned long long)qd_follow_epoch(f), qd_job_state_name(k->state), (unsigned long long)k->epoch);
    if (k->gang_epoch != qd_follow_epoch(f) || k->gang_number != qd_follow_number(f))
        sim_fail("%s: a member of gang %u works while gang %u of epoch %llu does", k->id, qd_follow_number(f),
                 k->gang_number, (unsigned long long)k->gang_epoch);
}

static bool leases_quiet(void)
{
    const qd_mem_stream *t = stream("KV_" QD_BUCKET_LIVE);
    for (size_t i = t->first; i < t->n_slots; i++)
        if (t->slots[i] != NULL && !t->slots[i]->m.deleted &&
            (strncmp(t->slots[i]->m.key, "lease.", 6) == 0 || strncmp(t->slots[i]->m.key, "gang.", 5) == 0))
            return false;
    return true;
}

/* What belongs to a name that was given: its key. */
static void check_names(void)
{
    const qd_mem_stream *t = stream("KV_" QD_BUCKET_JOBS);
    for (size_t i = 0; i < sim.n_jobs; i++) {
        const job *k = &sim.jobs[i];
        char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES + 16];
        if (!k->created || !k->unique || k->deleted) continue;
        if (qd_key_name(k->spec->tenant, k->name, key, NULL) != QD_OK) continue;
        (void)snprintf(subject, sizeof subject, "$KV." QD_BUCKET_JOBS ".%s", key);
        const qd_mem_msg *m = qd_mem_last_of(t, subject);
        if (m == NULL || m->m.deleted || strcmp((const char *)m->m.data, k->id) != 0)
            sim_fail("%s: it does not hold its name %s", k->id, k->name);
    }
}

bool check_quiet(void)
{
    const char *left = NULL;
    const job *whose = NULL;
    for (size_t i = 0; i < sim.n_jobs && left == NULL; i++) {
        const job *k = whose = &sim.jobs[i];
        bool out = k->out && k->state != QD_JOB_SUCCEEDED;
        left = k->seen && !qd_job_state_terminal(k->state) ? qd_job_state_name(k->state)
               : k->n_stagings != 0                        ? "staging"
               : k->n_trash != 0                           ? "trash"
               : out                                       ? "OUT"
                                                           : NULL;
        if (k->created && !k->seen && !k->deleted) sim_fail("%s was created and is not there", k->id);
        if (k->seen && k->state == QD_JOB_SUCCEEDED && !k->out) sim_fail("%s has SUCCEEDED without OUT", k->id);
    }
    if (left == NULL) whose = NULL;
    if (left == NULL && !names_quiet()) left = "a name";
    if (left == NULL && !leases_quiet()) left = "a lease";
    if (left == NULL && stream(QD_STREAM_JOBS)->msgs != 0) left = "a message";
    if (left == NULL && sim.n_created < sim.n_jobs) return false;
    if (left == NULL) check_names();
    if (left != NULL && sim_now() >= sim.p.end_ms)
        sim_fail("%s: still there %llu ms after the faults: %s", whose == NULL ? "bus" : whose->id,
                 (unsigned long long)(sim_now() - sim.p.faults_end_ms), left);
    return left == NULL;
}
