/* gang_follow.c -- a member: it offers itself, joins, and stops in time by its own clock. */
#include "base/mem.h"
#include "jobs/gang_inside.h"
#include "jobs/worker.h"

#include <stdio.h>
#include <string.h>

#define OFFERED QUANTD__MEMBER_STATE__MEMBER_OFFERED
#define JOINED  QUANTD__MEMBER_STATE__MEMBER_JOINED
#define RUNNING QUANTD__MEMBER_STATE__MEMBER_RUNNING
#define DONE    QUANTD__MEMBER_STATE__MEMBER_DONE
#define LEFT    QUANTD__MEMBER_STATE__MEMBER_LEFT

enum {
    RETRY_MS = 100
};

struct qd_follow {
    qd_jobs *j;
    qd_job_record *rec; /* as it was when we offered ourselves; owned */
    uint64_t rec_rev, epoch;
    uint32_t number, rank, size;
    Quantd__MemberState state;
    bool child, stop, over, untold;                    /* child: one may run; untold: the key does not say state yet */
    qd_job_error *error;                               /* told with LEFT; owned */
    uint64_t device_ms, until_ms, due_ms, patience_ms; /* patience: of an offer, when no lease has been read */
    uint8_t *invite;                                   /* owned */
    size_t n_invite;
    qd_bus_hint *hint; /* of the gang's key */
    char why[256];
};

void qd_follow_free(qd_follow *f)
{
    if (f == NULL) return;
    qd_bus_hint_close(f->j->bus, f->hint);
    qd_msg_free(f->rec);
    qd_msg_free(f->error);
    qd_free(f->invite);
    qd_free(f);
}

uint64_t qd_follow_until_ms(const qd_follow *f)
{
    return f->until_ms;
}

/* When its leader counts as lost. */
static uint64_t limit_ms(const qd_follow *f)
{
    return f->state == OFFERED ? qd_max_u64(f->until_ms, f->patience_ms) : f->until_ms;
}

uint64_t qd_follow_due_ms(const qd_follow *f)
{
    return qd_min_u64(f->due_ms, limit_ms(f));
}

const qd_job_record *qd_follow_record(const qd_follow *f)
{
    return f->rec;
}

uint64_t qd_follow_epoch(const qd_follow *f)
{
    return f->epoch;
}

uint32_t qd_follow_number(const qd_follow *f)
{
    return f->number;
}

uint32_t qd_follow_rank(const qd_follow *f)
{
    return f->rank;
}

uint32_t qd_follow_size(const qd_follow *f)
{
    return f->size;
}

const uint8_t *qd_follow_invite(const qd_follow *f, size_t *ret_n)
{
    *ret_n = f->n_invite;
    return f->invite;
}

const char *qd_follow_why(const qd_follow *f)
{
    return f->why;
}

static void say(qd_follow *f, const char *why)
{
    if (f->why[0] == '\0') (void)snprintf(f->why, sizeof f->why, "%s", why);
}

/* No part in the gang any more: a child is to be stopped first. */
static void leave(qd_follow *f, const char *why)
{
    say(f, why);
    f->stop = f->child;
    f->over = f->over || f->state == DONE; /* the key says so already */
    if (f->child || f->state == DONE || f->state == LEFT) return;
    f->state = LEFT;
    f->untold = true;
    f->due_ms = 0;
}

/* Writes the key, then learns how long we may go on: a lease from the older of our write and the leader's, counted from
 * before ours was sent. */
static qd_code beat(qd_follow *f, qd_err *err)
{
    qd_jobs *j = f->j;
    const qd_jobs_bugs *bugs = &j->opts.bugs;
    char key[QD_SUBJECT_BYTES];
    uint64_t from_ms = qd_jobs_mono_ms(j), live_ms = 0;
    qd_gang_member *m = qd_gang_member_new(), *own = NULL;
    qd_bus_msg msg = {0};
    qd_lease *lease = NULL;
    qd_code rc = m == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for a member") : QD_OK;
    if (rc == QD_OK) rc = qd_text_set(&m->worker, j->self, err);
    if (rc == QD_OK) rc = qd_text_set(&m->job_id, f->rec->id, err);
    if (rc != QD_OK) goto out;
    m->epoch = f->epoch;
    m->number = f->number;
    m->state = f->state;
    m->device_ms = f->device_ms;
    m->error = f->error; /* lent */
    rc = qd_member_put(j, m, err);
    m->error = NULL;
    QD_TRY(rc);
    f->untold = false;
    QD_TRY(qd_member_get(j, j->self, &own, &live_ms, err));
    QD_TRY(qd_key(QD_KEY_LEASE, f->rec->id, key, err));
    rc = qd_bus_kv_get(j->bus, QD_BUCKET_LIVE, key, &msg, err);
    if (rc == QD_OK && qd_lease_decode(msg.data, msg.bytes, &lease, NULL) != QD_OK) j->stats.malformed++;
    if (rc == QD_E_NOT_FOUND) rc = QD_OK; /* not yet, or no more: our time runs */
    if (rc != QD_OK) goto out;
    if (lease != NULL && lease->epoch > f->epoch) leave(f, "another worker has taken the job");
    if (lease != NULL && lease->epoch == f->epoch) {
        uint64_t span_ms = qd_min_u64(j->opts.lease_ms, lease->lease_ms);
        uint64_t age_ms = live_ms > msg.time_ms ? live_ms - msg.time_ms : 0;
        if (bugs->member_clock_late) from_ms = qd_jobs_mono_ms(j), age_ms = 0;
        uint64_t until_ms = from_ms + (age_ms < span_ms ? span_ms - age_ms : 0);
        f->until_ms = qd_max_u64(f->until_ms, until_ms);
    }
    if (bugs->member_ignores_lease) f->until_ms = from_ms + 100 * j->opts.lease_ms;
out:
    qd_msg_free(lease);
    qd_bus_msg_done(&msg);
    qd_msg_free(own);
    qd_msg_free(m);
    return rc;
}

/* Whether the leader still calls. */
static qd_code check_call(qd_follow *f, qd_err *err)
{
    qd_job_record *rec = NULL;
    qd_code rc = qd_record_get(f->j, f->rec->id, &rec, &f->rec_rev, NULL, err);
    if (rc == QD_E_AWAY || rc == QD_E_NO_MEMORY) return rc;
    bool calls = rc == QD_OK && rec->state == QD_JOB_RUNNING && rec->epoch == f->epoch && rec->reservation != NULL;
    qd_msg_free(rec);
    if (!calls) leave(f, "nobody calls any more");
    return QD_OK;
}

static void join(qd_follow *f, const qd_gang_record *g, uint32_t rank)
{
    f->number = g->number;
    f->rank = rank;
    f->size = (uint32_t)g->n_members + 1;
    f->state = JOINED;
    f->untold = true;
    f->due_ms = 0; /* the leader waits for that */
}

static qd_code take_invite(qd_follow *f, const qd_gang_record *g, qd_err *err)
{
    if (f->invite != NULL) return QD_OK;
    f->invite = qd_malloc(g->invite.len);
    if (f->invite == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for an invite");
    memcpy(f->invite, g->invite.data, g->invite.len);
    f->n_invite = g->invite.len;
    return QD_OK;
}

static qd_code heed(qd_follow *f, const qd_gang_record *g, qd_err *err)
{
    uint32_t rank = 0;
    for (size_t i = 0; i < g->n_members && rank == 0; i++)
        if (strcmp(g->members[i], f->j->self) == 0) rank = (uint32_t)i + 1;
    bool mine = f->number == g->number && f->state != OFFERED, alive = qd_jobs_mono_ms(f->j) < f->until_ms;
    if (g->state == QUANTD__GANG_STATE__GANG_FORMING && rank != 0 && alive && !mine && !f->child && f->state != DONE)
        join(f, g, rank);
    else if (f->state != OFFERED && !mine && (f->child || f->state == DONE))
        leave(f, "its gang is over: another is formed");
    else if (f->state == JOINED && !mine) { /* named before, and not now */
        f->state = OFFERED;
        f->number = 0;
        f->untold = true;
    } else if (mine && g->state == QUANTD__GANG_STATE__GANG_OVER)
        leave(f, g->why[0] != '\0' ? g->why : "its gang is over");
    else if (mine && g->state == QUANTD__GANG_STATE__GANG_RUNNING && f->state == JOINED && g->invite.len != 0)
        return take_invite(f, g, err);
    return QD_OK;
}

/* What the leader has written. */
static qd_code follow(qd_follow *f, qd_err *err)
{
    qd_gang_record *g = NULL;
    uint64_t rev = 0;
    qd_code rc = qd_gang_get(f->j, f->rec->id, &g, &rev, err);
    if (rc == QD_E_AWAY || rc == QD_E_NO_MEMORY) return rc;
    bool ours = rc == QD_OK && (g->epoch == f->epoch || f->j->opts.bugs.member_any_epoch);
    if (ours && f->j->opts.bugs.member_any_epoch && f->state == OFFERED && g->state == QUANTD__GANG_STATE__GANG_RUNNING)
        g->state = QUANTD__GANG_STATE__GANG_FORMING;
    rc = QD_OK;
    if (ours)
        rc = heed(f, g, err);
    else if (f->state != OFFERED)
        leave(f, "its gang is no more");
    qd_msg_free(g);
    if (rc == QD_OK && f->state == OFFERED) rc = check_call(f, err);
    return rc;
}

/* Whether somebody older calls. */
static qd_code check_line(qd_follow *f, qd_err *err)
{
    qd_job_record *older = NULL;
    qd_code rc = qd_jobs_view_pump(f->j, 0, NULL, err);
    qd_jobs_seen own = {.created_ms = f->rec->created_ms};
    (void)snprintf(own.id, sizeof own.id, "%s", f->rec->id);
    own.lane.priority = f->rec->spec->lane->priority;
    if (rc == QD_OK) rc = qd_line_first(f->j, &own, &older, err);
    if (older != NULL) leave(f, "an older job calls");
    qd_msg_free(older);
    const qd_view_job *seen = qd_view_find(&f->j->view, f->rec->id);
    if (seen != NULL && seen->seen.rev > f->rec_rev) f->due_ms = 0; /* news of our own */
    return rc;
}

static void hear(qd_follow *f)
{
    char key[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES + 16];
    qd_bus_news news = {0};
    if (f->hint == NULL && qd_key(QD_KEY_GANG, f->rec->id, key, NULL) == QD_OK) {
        (void)snprintf(subject, sizeof subject, "$KV." QD_BUCKET_LIVE ".%s", key);
        if (qd_bus_hint_open(f->j->bus, subject, &f->hint, NULL) == QD_OK) f->due_ms = 0;
    }
    if (f->hint != NULL) qd_bus_hint_take(f->j->bus, f->hint, &news);
    if (news.n != 0) f->due_ms = 0;
}

/* The leader was not heard of for a lease: its call is left alone for a while, so that this worker is free to take the
 * job over; it may come back. */
static void lose_leader(qd_follow *f)
{
    if (!f->child && f->state <= JOINED && !f->over && !f->j->opts.bugs.keep_call)
        qd_line_shun(f->j, f->rec->id, 2 * f->j->opts.lease_ms);
    say(f, "its leader was not heard of for a lease");
    f->stop = f->child;
    f->over = !f->child;
}

static void word(const qd_follow *f, qd_follow_word *ret)
{
    bool start = f->state == JOINED && f->invite != NULL && !f->child;
    *ret = f->over    ? QD_FOLLOW_OVER
           : f->stop  ? QD_FOLLOW_STOP
           : f->child ? QD_FOLLOW_RUN
           : start    ? QD_FOLLOW_START
                      : QD_FOLLOW_WAIT;
}

qd_code qd_follow_step(qd_follow *f, qd_follow_word *ret, qd_err *err)
{
    qd_code rc = QD_OK;
    hear(f);
    if (f->state == OFFERED) rc = check_line(f, err);
    uint64_t now = qd_jobs_mono_ms(f->j);
    if (now >= limit_ms(f)) lose_leader(f);
    if (rc == QD_OK && !f->over && (now >= f->due_ms || f->untold)) {
        f->due_ms = now + RETRY_MS;
        bool last = f->state == LEFT;
        rc = beat(f, err);
        if (rc == QD_OK && last)
            f->over = true;
        else if (rc == QD_OK)
            rc = follow(f, err);
        if (rc == QD_OK && f->due_ms != 0 && !f->untold) f->due_ms = now + f->j->opts.lease_ms / 3;
        if (qd_jobs_mono_ms(f->j) >= limit_ms(f)) lose_leader(f);
    }
    word(f, ret);
    return rc;
}

qd_code qd_follow_look(qd_jobs *j, qd_follow **ret, qd_err *err)
{
    qd_job_record *rec = NULL;
    qd_follow *f = NULL;
    qd_code rc = QD_OK;
    *ret = NULL;
    if (j->opts.gang == NULL || qd_jobs_must_drain(j)) return QD_OK;
    QD_TRY(qd_jobs_view_pump(j, 0, NULL, err));
    if (j->view.n_calls == 0) goto out;
    if (j->opts.bugs.queue_first && qd_jobs_view_in(j, NULL, QD_JOB_QUEUING) != 0) goto out;
    QD_TRY(qd_line_first(j, NULL, &rec, err));
    if (rec == NULL) goto out;
    f = qd_calloc(1, sizeof *f);
    if (f == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
        goto out;
    }
    f->j = j;
    f->rec = rec;
    rec = NULL;
    f->epoch = f->rec->epoch;
    f->state = OFFERED;
    f->untold = true;
    f->patience_ms = qd_jobs_mono_ms(j) + j->opts.lease_ms;
    *ret = f;
    f = NULL;
out:
    qd_msg_free(rec);
    qd_follow_free(f);
    return rc;
}

void qd_follow_tell(qd_follow *f, Quantd__MemberState state, const qd_job_error *error, uint64_t device_ms)
{
    ProtobufCMessage *copy = NULL;
    qd_jobs *j = f->j;
    f->child = state == RUNNING;
    f->state = f->stop && state == DONE ? LEFT : state; /* it came to its end while it was to be stopped */
    f->stop = f->stop && state == RUNNING;
    f->device_ms = device_ms;
    f->untold = true;
    f->due_ms = 0;
    if (error == NULL) return;
    if (qd_msg_copy(&error->base, &copy, NULL) == QD_OK) {
        qd_msg_free(f->error);
        f->error = (qd_job_error *)(void *)copy;
    }
    if (error->error_class == QUANTD__ERROR_CLASS__ERROR_NODE) j->node_failures++;
    if (error->error_class != QUANTD__ERROR_CLASS__ERROR_BUS) qd_line_shun(j, f->rec->id, j->opts.node_retry_ms);
}

void qd_follow_leave(qd_follow *f)
{
    leave(f, "the worker drains");
}
