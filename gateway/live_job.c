/* live_job.c -- the two feeds of a watched job, made into its list of events. */
#include "base/mem.h"
#include "gateway/conns.h"
#include "gateway/live_inside.h"

enum {
    MSGS_A_ROUND = 256,
    REOPEN_MS = 500,
    LAST_WORDS_MS = 1500,      /* after the end, where the last batch does not come */
    LAST_WORDS_MAX_MS = 10000, /* the same, where the feed does not even say that it is up to date */
    RECORD_WAIT_MS = 500       /* for the record of a batch of a later attempt */
};

void qd_live_job_free(qd_live *l, qd_live_job *j)
{
    qd_bus_feed_close(l->c.bus, j->records);
    qd_bus_feed_close(l->c.bus, j->batches);
    qd_msg_free(j->rec);
    qd_events_done(&j->events);
    qd_free(j);
}

static qd_code open_feeds(qd_live *l, qd_live_job *j, qd_err *err)
{
    char name[QD_SUBJECT_BYTES];
    qd_code rc = QD_OK;
    if (j->records == NULL) {
        QD_TRY(qd_key(QD_KEY_JOB, j->id, name, err));
        QD_TRY(qd_bus_kv_watch(l->c.bus, QD_BUCKET_JOBS, name, &j->records, err));
    }
    if (j->batches == NULL) {
        QD_TRY(qd_subject_event(j->id, NULL, name, err));
        const qd_bus_feed_spec spec = {
            .stream = QD_STREAM_EVENTS, .filter = name, .start = QD_FEED_FROM_SEQ, .from_seq = 1, .bulk = true};
        QD_TRY(qd_bus_feed_open(l->c.bus, &spec, &j->batches, err));
    }
out:
    return rc;
}

/* Tells a state that has not been told; that of the end waits for the last lines. */
static void tell_state(qd_live *l, qd_live_job *j)
{
    const qd_job_record *r = j->rec;
    if (r == NULL || (j->told && j->told_state == r->state && j->told_epoch == r->epoch)) return;
    j->told = true;
    j->told_state = r->state;
    j->told_epoch = r->epoch;
    (void)pthread_mutex_lock(&l->lock);
    l->n_events += qd_events_status(&j->events, r, j->rec_rev);
    (void)pthread_mutex_unlock(&l->lock);
}

static void take_record(qd_live *l, qd_live_job *j, const qd_bus_msg *m)
{
    qd_job_record *rec = NULL;
    qd_err err = {0};
    if (m->deleted || m->bytes == 0) {
        j->deleted = true;
        return;
    }
    if (m->seq <= j->rec_rev || qd_job_record_decode(m->data, m->bytes, &rec, &err) != QD_OK) return;
    qd_msg_free(j->rec);
    j->rec = rec;
    j->rec_rev = m->seq;
    j->deleted = false;
    if (!qd_job_state_terminal(rec->state)) {
        j->ended_ms = 0;
        tell_state(l, j);
    }
}

static void pump_records(qd_live *l, qd_live_job *j)
{
    for (int i = 0; i < MSGS_A_ROUND && j->records != NULL; i++) {
        qd_bus_msg m = {0};
        qd_err err = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_code rc = qd_bus_feed_next(l->c.bus, j->records, 0, &event, &m, &err);
        if (rc == QD_OK && event == QD_FEED_MSG) take_record(l, j, &m);
        if (rc == QD_OK && event == QD_FEED_SYNCED) {
            j->records_synced = true;
            j->deleted = j->deleted || j->rec == NULL;
        }
        qd_bus_msg_done(&m);
        if (rc != QD_OK || event == QD_FEED_NONE) return;
    }
}

static void tell_batch(qd_live *l, qd_live_job *j, const qd_event_batch *b)
{
    if (b->epoch != j->place.epoch) j->last = false;
    size_t i = qd_log_place_take(&j->place, b);
    (void)pthread_mutex_lock(&l->lock);
    for (; i < b->n_lines; i++) l->n_events += qd_events_log(&j->events, b->epoch, b->first_line + i, b->lines[i]);
    if (b->progress != NULL && b->progress->permille != j->permille && j->rec->state == QD_JOB_RUNNING) {
        j->permille = b->progress->permille;
        l->n_events += qd_events_progress(&j->events, b->progress);
    }
    (void)pthread_mutex_unlock(&l->lock);
    j->last = j->last || b->last;
}

static void take_batch(qd_live *l, qd_live_job *j, const qd_bus_msg *m)
{
    qd_event_batch *b = NULL;
    qd_err err = {0};
    if (qd_event_batch_decode(m->data, m->bytes, &b, &err) != QD_OK) return; /* malformed: somebody else's */
    /* The record of a new attempt is written before its first line, but comes by another feed. */
    for (uint64_t end = qd_gateway_ms() + RECORD_WAIT_MS; j->rec != NULL && b->epoch > j->rec->epoch;) {
        qd_bus_msg r = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_code rc = qd_bus_feed_next(l->c.bus, j->records, 20, &event, &r, &err);
        if (rc == QD_OK && event == QD_FEED_MSG) take_record(l, j, &r);
        qd_bus_msg_done(&r);
        if (rc != QD_OK || qd_gateway_ms() >= end) break;
    }
    if (j->rec != NULL && b->epoch == j->rec->epoch) tell_batch(l, j, b);
    qd_msg_free(b);
}

static void pump_batches(qd_live *l, qd_live_job *j)
{
    for (int i = 0; i < MSGS_A_ROUND && j->batches != NULL && j->records_synced; i++) {
        qd_bus_msg m = {0};
        qd_err err = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_code rc = qd_bus_feed_next(l->c.bus, j->batches, 0, &event, &m, &err);
        if (rc == QD_OK && event == QD_FEED_MSG) take_batch(l, j, &m);
        if (rc == QD_OK && event == QD_FEED_SYNCED) j->batches_synced = true;
        qd_bus_msg_done(&m);
        if (rc != QD_OK || event == QD_FEED_NONE) return;
    }
}

/* True when nothing more is to come of a job that has ended. */
static bool is_over(qd_live_job *j, uint64_t now)
{
    if (j->deleted) return true;
    if (j->rec == NULL || !qd_job_state_terminal(j->rec->state)) return false;
    if (j->ended_ms == 0) j->ended_ms = now;
    if (now > j->ended_ms + LAST_WORDS_MAX_MS) return true;
    bool never_ran = j->rec->epoch == 0;
    return j->batches_synced && (j->last || never_ran || now > j->ended_ms + LAST_WORDS_MS);
}

static void end_job(qd_live *l, qd_live_job *j)
{
    if (!j->deleted) tell_state(l, j);
    (void)pthread_mutex_lock(&l->lock);
    if (j->deleted) l->n_events += qd_events_deleted(&j->events);
    j->over = true;
    (void)pthread_mutex_unlock(&l->lock);
}

void qd_live_job_pump(qd_live *l, qd_live_job *j)
{
    qd_err err = {0};
    uint64_t now = qd_gateway_ms(), before = l->n_events;
    if (j->over) return; /* only this thread sets it */
    if ((j->records == NULL || j->batches == NULL) && now >= j->try_ms) {
        j->try_ms = now + REOPEN_MS;
        qd_code rc = open_feeds(l, j, &err);
        if (rc != QD_OK && rc != QD_E_AWAY && l->c.log != NULL)
            qd_glog_err(l->c.log, QD_LOG_WARN, "a job's events cannot be followed", &err);
    }
    pump_records(l, j);
    pump_batches(l, j);
    if (is_over(j, qd_gateway_ms())) end_job(l, j);
    if (l->n_events == before && !j->over) return;
    (void)pthread_mutex_lock(&l->lock);
    qd_live_wake_all(j);
    (void)pthread_mutex_unlock(&l->lock);
}
