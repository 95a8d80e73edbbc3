/* gang_lead.c -- the leader: it calls for ranks, names a gang, watches it, and sees it off. */
#include "base/mem.h"
#include "jobs/gang_inside.h"
#include "jobs/gang_pick.h"

#include <stdio.h>
#include <string.h>

typedef enum phase {
    CALL,  /* wants offers */
    FORM,  /* has named members, waits for JOINED */
    READY, /* the child is to start */
    RUN,
    CLEAR, /* waits for members to be off */
    GONE   /* they are */
} phase;

struct qd_lead {
    qd_task *t;
    qd_jobs *j;
    phase phase;
    qd_gang_record *gang; /* as it is, or is to be, in the store; owned; its members are those of the last one named */
    uint64_t rev;         /* of its key */
    bool known;           /* rev is */
    bool dirty;           /* to be written */
    bool called;          /* the reservation is in the record */
    bool invited;         /* members may have started */
    bool for_good;        /* no other gang follows */
    uint32_t min, max, n_breaks;
    uint64_t called_ms, window_ms, join_ms, poll_ms, company_ms; /* own clock; when the next look of each kind is due */
    qd_bus_hint *hints[QD_PICK_MAX];
    bool counted[QD_PICK_MAX]; /* a member's device time is in device_ms */
    uint64_t device_ms;
    qd_job_error *error;
    char why[256];
};

qd_code qd_lead_open(qd_task *t, qd_lead **ret, qd_err *err)
{
    qd_jobs *j = t->j;
    qd_code rc = QD_OK;
    qd_lead *l = qd_calloc(1, sizeof *l);
    qd_gang_record *g = qd_gang_record_new();
    if (l == NULL || g == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
        goto out;
    }
    l->t = t;
    l->j = j;
    qd_gang_ranks(t->rec->spec, &l->min, &l->max);
    if (j->opts.gang == NULL || l->max == 1) {
        l->min = l->max = 1;
        l->phase = READY;
    }
    QD_TRY(qd_text_set(&g->job_id, t->rec->id, err));
    QD_TRY(qd_text_set(&g->leader, j->self, err));
    g->epoch = t->epoch;
    l->gang = g;
    *ret = l;
    return QD_OK;
out:
    qd_msg_free(g);
    qd_free(l);
    return rc;
}

void qd_lead_free(qd_lead *l)
{
    if (l == NULL) return;
    for (size_t i = 0; i < QD_PICK_MAX; i++) qd_bus_hint_close(l->j->bus, l->hints[i]);
    qd_msg_free(l->gang);
    qd_msg_free(l->error);
    qd_free(l);
}

uint32_t qd_lead_size(const qd_lead *l)
{
    return (uint32_t)l->gang->n_members + 1;
}

uint32_t qd_lead_number(const qd_lead *l)
{
    return l->gang->number;
}

const char *qd_lead_why(const qd_lead *l)
{
    return l->why;
}

const qd_job_error *qd_lead_error(const qd_lead *l)
{
    return l->error;
}

uint64_t qd_lead_device_ms(const qd_lead *l)
{
    return l == NULL ? 0 : l->device_ms;
}

uint64_t qd_lead_due_ms(const qd_lead *l)
{
    if (l->phase == GONE || (l->phase == RUN && l->gang->n_members == 0)) return UINT64_MAX;
    return l->dirty || l->phase == READY ? 0 : l->poll_ms;
}

/* Puts the gang's key. One of a later epoch there means that the job is another's. */
static qd_code put(qd_lead *l, qd_err *err)
{
    qd_code rc = QD_OK;
    for (int i = 0; i < QD_JOBS_TRIES && l->dirty; i++) {
        qd_gang_record *found = NULL;
        if (!l->known) {
            rc = qd_gang_get(l->j, l->gang->job_id, &found, &l->rev, err);
            bool later = rc == QD_OK && found->epoch > l->gang->epoch;
            qd_msg_free(found);
            if (later) return qd_fail(err, QD_E_CONFLICT, "job %s: a gang of a later epoch is there", l->gang->job_id);
            if (rc == QD_E_NOT_FOUND) l->rev = QD_REV_ABSENT;
            if (rc == QD_E_AWAY || rc == QD_E_NO_MEMORY) return rc;
            l->known = true; /* what cannot be read is replaced */
        }
        rc = qd_gang_put(l->j, l->gang, l->rev, &l->rev, err);
        l->known = rc == QD_OK;
        l->dirty = rc != QD_OK;
        if (rc != QD_OK && rc != QD_E_CONFLICT && rc != QD_E_AWAY) return rc;
    }
    return rc == QD_OK ? QD_OK : qd_fail(err, QD_E_AWAY, "job %s: its gang could not be written", l->gang->job_id);
}

static void set_state(qd_lead *l, Quantd__GangState s)
{
    l->gang->state = s;
    l->dirty = true;
}

static qd_code call_fn(qd_task *t, void *arg, qd_err *err)
{
    qd_reservation *r = NULL;
    (void)arg;
    qd_code rc = qd_line_reservation(t->j, t->rec->spec, &r, err);
    if (rc == QD_OK) qd_record_call(t->rec, r);
    return rc;
}

static qd_code formed_fn(qd_task *t, void *arg, qd_err *err)
{
    (void)err;
    qd_record_call(t->rec, NULL);
    t->rec->ranks = *(const uint32_t *)arg;
    return QD_OK;
}

/* The record says of how many ranks the gang is, and that it waits for no more. */
static qd_code formed(qd_lead *l, qd_err *err)
{
    uint32_t size = qd_lead_size(l);
    qd_code rc = qd_task_write(l->t, QD_JOB_RUNNING, QD_JOB_RUNNING, formed_fn, &size, err);
    if (rc == QD_OK) l->phase = READY;
    if (rc == QD_OK) l->called = false;
    return rc;
}

static uint64_t window(const qd_lead *l)
{
    uint64_t ms = l->j->opts.gang->window_ms;
    return ms != 0 ? ms : l->j->opts.lease_ms / 10;
}

static uint64_t join_wait(const qd_lead *l)
{
    uint64_t ms = l->j->opts.gang->join_ms;
    return ms != 0 ? ms : l->j->opts.lease_ms / 2;
}

static void close_hints(qd_lead *l)
{
    for (size_t i = 0; i < QD_PICK_MAX; i++) {
        qd_bus_hint_close(l->j->bus, l->hints[i]);
        l->hints[i] = NULL;
        l->counted[i] = false;
    }
}

/* Names a gang of those picked. */
static qd_code name(qd_lead *l, const qd_pick *p, uint64_t now, qd_err *err)
{
    qd_gang_record *g = l->gang;
    qd_code rc = QD_OK;
    for (size_t i = 0; i < g->n_members; i++) qd_free(g->members[i]);
    g->n_members = 0;
    close_hints(l);
    for (size_t i = 0; i < p->n; i++) QD_TRY(qd_text_add(&g->members, &g->n_members, p->list[i].worker, err));
    if (p->n == 0) return formed(l, err); /* alone */
    g->number++;
    qd_free(g->invite.data);
    g->invite = (ProtobufCBinaryData){0};
    l->invited = false;
    set_state(l, QUANTD__GANG_STATE__GANG_FORMING);
    l->phase = FORM;
    l->poll_ms = now;
    l->join_ms = now + join_wait(l);
    rc = put(l, err);
out:
    return rc;
}

/* Looks whether somebody older wants this worker. */
static qd_code must_yield(qd_lead *l, bool *ret, qd_err *err)
{
    qd_jobs_seen own = {.created_ms = l->t->rec->created_ms};
    qd_job_record *older = NULL;
    (void)snprintf(own.id, sizeof own.id, "%s", l->t->rec->id);
    own.lane.priority = l->t->rec->spec->lane->priority;
    qd_code rc = qd_jobs_view_pump(l->j, 0, NULL, err);
    if (rc == QD_OK && !l->j->opts.bugs.no_yield) rc = qd_line_first(l->j, &own, &older, err);
    *ret = older != NULL;
    if (older != NULL) (void)snprintf(l->why, sizeof l->why, "job %s is first in line for this worker", older->id);
    qd_msg_free(older);
    return rc;
}

static qd_code step_call(qd_lead *l, uint64_t now, qd_lead_word *ret, qd_err *err)
{
    qd_pick p = {.job_id = l->gang->job_id, .epoch = l->gang->epoch, .n_max = l->max - 1};
    bool yield = false, enough = true;
    qd_code rc = QD_OK;
    if (!l->called || l->t->rec->reservation == NULL) { /* it may be gone by a write in doubt */
        bool again = l->called;
        QD_TRY(qd_task_write(l->t, QD_JOB_RUNNING, QD_JOB_RUNNING, call_fn, NULL, err));
        if (again) return QD_OK;
        l->called = true;
        l->called_ms = now;
        l->window_ms = l->company_ms = now + window(l);
        l->poll_ms = now + window(l) / 4;
    }
    if (now < l->poll_ms) return QD_OK;
    l->poll_ms = now + (now < l->called_ms + 4 * window(l) ? window(l) / 4 + 1 : l->j->opts.lease_ms / 16);
    QD_TRY(must_yield(l, &yield, err));
    if (yield) {
        *ret = QD_LEAD_YIELD;
        return QD_OK;
    }
    QD_TRY(qd_pick_offers(l->j, &p, err));
    if (p.n + 1 >= l->max || (p.n + 1 >= l->min && now >= l->window_ms)) return name(l, &p, now, err);
    if (now < l->company_ms) return QD_OK;
    l->company_ms = now + l->j->opts.lease_ms;
    QD_TRY(qd_line_enough(l->j, l->t->rec->spec, &enough, err));
    if (enough) return QD_OK;
    *ret = QD_LEAD_YIELD;
    (void)snprintf(l->why, sizeof l->why, "fewer than the %u workers it needs are alive", (unsigned)l->min);
out:
    return rc;
}

typedef enum seat {
    ABSENT, /* has no part in this gang, or was silent for a lease */
    NAMED,
    JOINED,
    WORKS, /* or may */
    DONE
} seat;

/* Where member i is. */
static qd_code look_at(qd_lead *l, size_t i, uint64_t live_ms, seat *ret, qd_err *err)
{
    qd_gang_member *m = NULL;
    uint64_t at_ms = 0;
    qd_code rc = qd_member_get(l->j, l->gang->members[i], &m, &at_ms, err);
    *ret = ABSENT;
    if (rc == QD_E_AWAY || rc == QD_E_NO_MEMORY) return rc;
    bool here = rc == QD_OK && strcmp(m->job_id, l->gang->job_id) == 0 && m->epoch == l->gang->epoch;
    bool ours = here && m->number == l->gang->number;
    bool silent = rc == QD_OK && live_ms > at_ms && live_ms - at_ms >= l->j->opts.lease_ms;
    if (here && !silent && m->state == QUANTD__MEMBER_STATE__MEMBER_OFFERED) *ret = NAMED;
    if (here && !silent && !ours && m->state == QUANTD__MEMBER_STATE__MEMBER_JOINED) *ret = NAMED; /* an earlier one */
    if (ours && !silent && m->state == QUANTD__MEMBER_STATE__MEMBER_JOINED) *ret = JOINED;
    if (ours && !silent && m->state == QUANTD__MEMBER_STATE__MEMBER_RUNNING) *ret = WORKS;
    if (ours && m->state == QUANTD__MEMBER_STATE__MEMBER_DONE) *ret = silent ? ABSENT : DONE;
    bool ended =
        ours && (m->state == QUANTD__MEMBER_STATE__MEMBER_DONE || m->state == QUANTD__MEMBER_STATE__MEMBER_LEFT);
    if (ended && !l->counted[i]) {
        l->counted[i] = true;
        l->device_ms += m->device_ms;
        if (m->error != NULL) {
            (void)snprintf(l->why, sizeof l->why, "rank %zu (%s) failed: %.160s", i + 1, l->gang->members[i],
                           m->error->message);
            bool fault = m->error->error_class == QUANTD__ERROR_CLASS__ERROR_JOB;
            if (fault && l->error == NULL) {
                l->error = m->error;
                m->error = NULL;
            }
        }
    }
    qd_msg_free(m);
    return QD_OK;
}

static qd_code step_form(qd_lead *l, uint64_t now, qd_err *err)
{
    uint64_t live_ms = 0;
    size_t n_joined = 0;
    bool gone = false;
    qd_code rc = QD_OK;
    if (now < l->poll_ms) return QD_OK;
    l->poll_ms = now + window(l) / 4 + 1;
    QD_TRY(qd_live_now(l->j, &live_ms, err));
    for (size_t i = 0; i < l->gang->n_members; i++) {
        seat s = ABSENT;
        QD_TRY(look_at(l, i, live_ms, &s, err));
        n_joined += s == JOINED;
        gone = gone || s == ABSENT;
    }
    if (n_joined == l->gang->n_members) return formed(l, err);
    if (gone || now >= l->join_ms) { /* those who are there stay until they are named again */
        l->phase = CALL;
        l->poll_ms = now;
    }
out:
    return rc;
}

/* Whether something was heard of a member. */
static bool heard(qd_lead *l)
{
    bool any = false;
    for (size_t i = 0; i < l->gang->n_members; i++) {
        char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES + 16];
        qd_bus_news news = {0};
        if (l->hints[i] == NULL && qd_key(QD_KEY_MEMBER, l->gang->members[i], key, NULL) == QD_OK) {
            (void)snprintf(subject, sizeof subject, "$KV." QD_BUCKET_LIVE ".%s", key);
            any = qd_bus_hint_open(l->j->bus, subject, &l->hints[i], NULL) == QD_OK || any;
        }
        if (l->hints[i] != NULL) qd_bus_hint_take(l->j->bus, l->hints[i], &news);
        any = any || news.n != 0;
    }
    return any;
}

static qd_code step_run(qd_lead *l, uint64_t now, qd_lead_word *ret, qd_err *err)
{
    uint64_t live_ms = 0;
    qd_code rc = QD_OK;
    *ret = QD_LEAD_RUN;
    if (l->gang->n_members == 0 || (!heard(l) && now < l->poll_ms)) return QD_OK;
    l->poll_ms = now + l->j->opts.lease_ms / 6;
    QD_TRY(qd_live_now(l->j, &live_ms, err));
    for (size_t i = 0; i < l->gang->n_members; i++) {
        seat s = ABSENT;
        QD_TRY(look_at(l, i, live_ms, &s, err));
        bool late = s == JOINED && l->invited && now >= l->join_ms; /* it has not started */
        if (s != ABSENT && s != NAMED && !late) continue;
        if (*ret != QD_LEAD_BROKEN && (!l->counted[i] || l->why[0] == '\0'))
            (void)snprintf(l->why, sizeof l->why, "rank %zu (%s) is gone, or was not heard of for a lease", i + 1,
                           l->gang->members[i]);
        *ret = QD_LEAD_BROKEN;
    }
out:
    return rc;
}

static qd_code step_clear(qd_lead *l, uint64_t now, qd_err *err)
{
    uint64_t live_ms = 0;
    bool off = true;
    qd_code rc = QD_OK;
    bool wait = l->invited && !l->j->opts.bugs.gang_not_cleared;
    if (wait && !heard(l) && now < l->poll_ms) return QD_OK;
    l->poll_ms = now + qd_min_u64(l->j->opts.lease_ms / 16, 250);
    if (wait) QD_TRY(qd_live_now(l->j, &live_ms, err));
    for (size_t i = 0; wait && i < l->gang->n_members; i++) {
        seat s = ABSENT;
        QD_TRY(look_at(l, i, live_ms, &s, err));
        off = off && (s == ABSENT || s == NAMED || s == DONE);
    }
    if (!off) return QD_OK;
    l->phase = l->for_good ? GONE : l->max == 1 ? READY : CALL;
    l->poll_ms = now;
out:
    return rc;
}

qd_code qd_lead_step(qd_lead *l, qd_lead_word *ret, qd_err *err)
{
    uint64_t now = qd_jobs_mono_ms(l->j);
    qd_code rc = QD_OK;
    *ret = l->phase == RUN ? QD_LEAD_RUN : QD_LEAD_WAIT;
    if (l->phase == READY) *ret = QD_LEAD_START;
    if (l->phase == GONE) *ret = QD_LEAD_CLEAR;
    if (l->dirty && l->phase != GONE) QD_TRY(put(l, err));
    if (l->phase == CALL) rc = step_call(l, now, ret, err);
    if (rc == QD_OK && l->phase == FORM) rc = step_form(l, now, err);
    if (l->phase == RUN) rc = step_run(l, now, ret, err);
    if (l->phase == CLEAR) rc = step_clear(l, now, err);
    if (rc == QD_OK && l->phase == READY) *ret = QD_LEAD_START;
    if (rc == QD_OK && l->phase == GONE) *ret = QD_LEAD_CLEAR;
out:
    return rc;
}

void qd_lead_started(qd_lead *l)
{
    l->phase = RUN;
    l->poll_ms = 0;
    l->why[0] = '\0';
}

qd_code qd_lead_invite(qd_lead *l, const void *bytes, size_t n_bytes, qd_err *err)
{
    uint8_t *copy = n_bytes == 0 ? NULL : qd_malloc(n_bytes);
    if (copy == NULL) return qd_fail(err, QD_E_INPUT, "an invite of %zu bytes", n_bytes);
    memcpy(copy, bytes, n_bytes);
    qd_free(l->gang->invite.data);
    l->gang->invite = (ProtobufCBinaryData){.len = n_bytes, .data = copy};
    l->invited = true;
    l->join_ms = qd_jobs_mono_ms(l->j) + join_wait(l);
    set_state(l, QUANTD__GANG_STATE__GANG_RUNNING);
    return QD_OK;
}

/* Members are to stop. Those of a gang that was never invited have nothing to stop. */
static void see_off(qd_lead *l, const char *why)
{
    l->phase = CLEAR;
    l->poll_ms = 0;
    if (l->gang->n_members == 0 || l->gang->number == 0) {
        l->invited = false;
        return;
    }
    (void)!qd_text_set(&l->gang->why, why, NULL);
    set_state(l, QUANTD__GANG_STATE__GANG_OVER);
}

qd_code qd_lead_again(qd_lead *l, const char *why, qd_err *err)
{
    char text[sizeof l->why];
    (void)snprintf(text, sizeof text, "%s", why); /* it may be qd_lead_why() */
    if (++l->n_breaks > QD_GANG_BREAKS_MAX)
        return qd_fail(err, QD_E_GANG, "its gang broke %u times, the last time: %s", (unsigned)l->n_breaks, text);
    see_off(l, text);
    return QD_OK;
}

void qd_lead_dissolve(qd_lead *l, const char *why)
{
    if (l->for_good) return;
    l->for_good = true;
    if (l->phase != CLEAR) see_off(l, why);
}

qd_code qd_lead_yield(qd_lead *l, qd_err *err)
{
    bool enough = true; /* else nobody can lead it now */
    qd_code rc = qd_line_enough(l->j, l->t->rec->spec, &enough, err);
    if (rc != QD_OK) return rc;
    return qd_task_back_after(l->t, NULL, 0, enough ? 0 : l->j->opts.lease_ms, err);
}

void qd_lead_end(qd_lead *l)
{
    char key[QD_SUBJECT_BYTES];
    if (l == NULL || l->gang->number == 0 || !l->known) return; /* else a sweep finds it */
    if (qd_key(QD_KEY_GANG, l->gang->job_id, key, NULL) == QD_OK)
        (void)!qd_bus_kv_delete(l->j->bus, QD_BUCKET_LIVE, key, l->rev, NULL);
}
