/* follow.c -- one thread that follows buckets "jobs" and "access" into the index and the keys.
 *
 * It reads each bucket whole when it begins and after a break: what the index knows by its revision costs a look, no
 * decoding and no write. To begin behind the last message told instead would miss deletions whose markers were taken
 * away meanwhile, and a stream that was made anew. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "gateway/backend_inside.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    MESSAGES_A_ROUND = 2048,
    WAIT_MS = 200,
    WAIT_US_WITHOUT_FD = 2000,
    AGAIN_MS = 500,
    REFUSED_MAX = 10,      /* in a row; then it is for good */
    CLEAN_MS = 600 * 1000, /* leftovers are looked for so often */
    FLEET_MS = 5000        /* workers are asked after so often */
};

typedef struct follower_feed {
    const char *bucket, *filter;
    qd_bus_feed *feed;
    bool synced;
} follower_feed;

struct qd_follow {
    qd_backend_bus *b;
    qd_pool *thread;
    atomic_bool stop;
    char self[QD_ID_BYTES];
    qd_bus *bus;
    bool provisioned;
    follower_feed access, jobs;
    uint32_t refused;
    uint64_t clean_ms, fleet_ms;
    size_t n_problems;
};

static void close_feed(qd_follow *f, follower_feed *d)
{
    qd_bus_feed_close(f->bus, d->feed);
    d->feed = NULL;
    d->synced = false;
}

static void close_all(qd_follow *f)
{
    close_feed(f, &f->access);
    close_feed(f, &f->jobs);
    qd_bus_free(f->bus);
    f->bus = NULL;
}

static void begin(qd_follow *f, follower_feed *d)
{
    d->synced = false;
    if (d == &f->jobs)
        qd_index_begin(f->b->index);
    else
        qd_keys_begin(f->b->keys);
}

static bool is_memory(qd_code rc)
{
    return rc == QD_E_NO_MEMORY || rc == QD_E_IO;
}

static qd_code take_job(qd_follow *f, const qd_bus_msg *m, qd_err *err)
{
    qd_index *x = f->b->index;
    qd_key_kind kind = QD_KEY_JOB;
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    if (qd_key_parse(m->key, &kind, id, err) != QD_OK || kind != QD_KEY_JOB) return QD_E_INPUT;
    if (m->deleted) return qd_index_deleted(x, id, m->seq, err);
    if (qd_index_knows(x, id, m->seq)) return QD_OK;
    qd_code rc = qd_job_record_decode(m->data, m->bytes, &rec, err);
    if (rc == QD_OK && strcmp(rec->id, id) != 0)
        rc = qd_fail(err, QD_E_INPUT, "job %s: its record is that of %s", id, rec->id);
    if (rc == QD_OK) {
        rc = qd_index_put(x, rec, m->seq, err);
    } else if (!is_memory(rc)) { /* not for this program; what was known of it is old */
        qd_code gone = qd_index_deleted(x, id, m->seq, err);
        if (gone != QD_OK) rc = gone;
    }
    qd_msg_free(rec);
    return rc;
}

static qd_code take_access(qd_follow *f, const qd_bus_msg *m, qd_err *err)
{
    qd_key_kind kind = QD_KEY_JOB;
    char id[QD_ID_BYTES];
    union {
        void *any;
        qd_api_key *key;
        qd_tenant_limits *limits;
        qd_file_meta *file;
    } msg = {0};
    qd_code rc = qd_key_parse(m->key, &kind, id, err);
    if (rc != QD_OK) return rc;
    if (m->deleted) {
        qd_keys_deleted(f->b->keys, m->key, m->seq);
        return QD_OK;
    }
    const char *found = "";
    if (kind == QD_KEY_APIKEY) {
        rc = qd_api_key_decode(m->data, m->bytes, &msg.key, err);
        if (rc == QD_OK) found = msg.key->id;
    } else if (kind == QD_KEY_TENANT) {
        rc = qd_tenant_limits_decode(m->data, m->bytes, &msg.limits, err);
        if (rc == QD_OK) found = msg.limits->tenant;
    } else if (kind == QD_KEY_FILE) {
        rc = qd_file_meta_decode(m->data, m->bytes, &msg.file, err);
        if (rc == QD_OK) found = msg.file->id;
    } else {
        return QD_OK; /* a newer program's */
    }
    if (rc == QD_OK && strcmp(found, id) != 0) {
        rc = qd_fail(err, QD_E_INPUT, "%s: it is that of %s", m->key, found);
        qd_msg_free(msg.any);
    } else if (rc == QD_OK) {
        return qd_keys_put(f->b->keys, m->key, msg.any, m->seq, err);
    }
    if (!is_memory(rc)) qd_keys_deleted(f->b->keys, m->key, m->seq);
    return rc;
}

/* All that is there, up to a bound. *ret_any: there was something. */
static qd_code pump(qd_follow *f, follower_feed *d, bool *ret_any, qd_err *err)
{
    bool jobs = d == &f->jobs;
    qd_code rc = QD_OK;
    if (d->feed == NULL) {
        QD_TRY(qd_bus_kv_watch(f->bus, d->bucket, d->filter, &d->feed, err));
        begin(f, d);
    }
    for (int i = 0; i < MESSAGES_A_ROUND; i++) {
        qd_bus_msg m = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        QD_TRY(qd_bus_feed_next(f->bus, d->feed, 0, &event, &m, err));
        if (event == QD_FEED_NONE) break;
        *ret_any = true;
        if (event == QD_FEED_RESET) begin(f, d);
        if (event == QD_FEED_MSG) rc = jobs ? take_job(f, &m, err) : take_access(f, &m, err);
        if (event == QD_FEED_SYNCED) {
            if (jobs)
                rc = qd_index_synced(f->b->index, err);
            else
                qd_keys_synced(f->b->keys);
            d->synced = rc == QD_OK;
        }
        qd_bus_msg_done(&m);
        if (rc != QD_OK && !is_memory(rc)) { /* unreadable: it is left out, and counted */
            (void)atomic_fetch_add(&f->b->malformed, 1);
            rc = QD_OK;
        }
        if (rc != QD_OK) goto out;
    }
    if (jobs) rc = qd_index_commit(f->b->index, err);
out:
    if (is_memory(rc)) close_feed(f, d); /* what it told is lost: have it tell everything anew */
    if (rc == QD_E_IO && jobs) atomic_store(&f->b->index_broken, true);
    return rc;
}

/* A connection, and the streams made. */
static qd_code arrive(qd_follow *f, qd_err *err)
{
    const qd_backend_bus_door *door = &f->b->door;
    qd_bus_state state = {0};
    qd_code rc = QD_OK;
    if (f->bus == NULL) QD_TRY(door->open(door->ctx, f->self, true, &f->bus, err));
    qd_bus_state_get(f->bus, &state);
    atomic_store(&f->b->connected, state.connected);
    if (f->provisioned) goto out;
    if (!state.connected) return qd_fail(err, QD_E_AWAY, "the bus does not answer yet");
    rc = door->provision(door->ctx, f->bus, err);
    f->provisioned = rc == QD_OK;
out:
    return rc;
}

static void mend_index(qd_follow *f)
{
    qd_err err = {0};
    if (!atomic_load(&f->b->index_broken)) return;
    close_feed(f, &f->jobs);
    atomic_store(&f->b->synced, false); /* what it does not have meanwhile is asked of the bus */
    if (qd_index_reset(f->b->index, &err) == QD_OK)
        atomic_store(&f->b->index_broken, false);
    else
        qd_glog_err(f->b->cfg.log, QD_LOG_ERROR, "the index cannot be made", &err);
}

static void clean(qd_follow *f)
{
    uint64_t now = qd_mono_ms();
    qd_desk desk = {.b = f->b, .bus = f->bus};
    qd_err err = {0};
    if (f->clean_ms != 0 && now < f->clean_ms) return;
    f->clean_ms = now + CLEAN_MS;
    qd_files_sweep(f->b);
    (void)!qd_call_sweep(&desk, NULL, NULL);
    size_t n = qd_registry_problem(f->b->models, &err);
    if (n != f->n_problems && n != 0)
        qd_glog_err(f->b->cfg.log, QD_LOG_WARN, "models are left out; the first one", &err);
    f->n_problems = n;
}

static qd_code count_workers(qd_follow *f, qd_err *err)
{
    uint64_t now = qd_mono_ms();
    if (now < f->fleet_ms) return QD_OK;
    f->fleet_ms = now + FLEET_MS;
    return qd_fleet_refresh(f->b->fleet, f->bus, now, err);
}

/* Until there is something to be read, or a while. */
static void wait_for(qd_follow *f)
{
    struct pollfd fds[2] = {{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    if (f->bus != NULL && f->access.feed != NULL) fds[0].fd = qd_bus_feed_fd(f->bus, f->access.feed);
    if (f->bus != NULL && f->jobs.feed != NULL) fds[1].fd = qd_bus_feed_fd(f->bus, f->jobs.feed);
    if (fds[0].fd < 0 || fds[1].fd < 0)
        (void)usleep(WAIT_US_WITHOUT_FD);
    else
        (void)poll(fds, 2, WAIT_MS);
}

static void run(void *arg, unsigned worker)
{
    qd_follow *f = arg;
    (void)worker;
    while (!atomic_load(&f->stop)) {
        qd_err err = {0};
        bool any = false;
        mend_index(f);
        qd_code rc = arrive(f, &err);
        if (rc == QD_OK) rc = pump(f, &f->access, &any, &err);
        if (rc == QD_OK && !atomic_load(&f->b->index_broken)) rc = pump(f, &f->jobs, &any, &err);
        atomic_store(&f->b->synced, f->access.synced && f->jobs.synced);
        if (rc == QD_OK && f->access.synced && f->jobs.synced) {
            clean(f);
            rc = count_workers(f, &err);
        }
        f->refused = rc == QD_E_REFUSED ? f->refused + 1 : 0;
        if (rc == QD_E_CONFIG || f->refused > REFUSED_MAX) {
            qd_backend_fail(f->b, &err);
            break;
        }
        if (rc != QD_OK && rc != QD_E_AWAY) {
            qd_glog_err(f->b->cfg.log, QD_LOG_WARN, "following the bus", &err);
            if (rc == QD_E_REFUSED) close_all(f);
        }
        if (rc != QD_OK)
            (void)usleep(AGAIN_MS * 1000);
        else if (!any)
            wait_for(f);
    }
    atomic_store(&f->b->connected, false);
    close_all(f);
}

qd_code qd_follow_start(qd_backend_bus *b, qd_follow **ret, qd_err *err)
{
    qd_follow *f = qd_calloc(1, sizeof *f);
    if (f == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for following the bus");
    f->b = b;
    f->access = (follower_feed){.bucket = QD_BUCKET_ACCESS, .filter = ">"};
    f->jobs = (follower_feed){.bucket = QD_BUCKET_JOBS, .filter = QD_KEYS_JOBS};
    (void)snprintf(f->self, sizeof f->self, "%.56s-f", b->cfg.self);
    qd_code rc = qd_pool_start(1, "gw-follow", run, f, &f->thread, err);
    if (rc == QD_OK)
        *ret = f;
    else
        qd_free(f);
    return rc;
}

void qd_follow_stop(qd_follow *f)
{
    if (f == NULL) return;
    atomic_store(&f->stop, true);
    qd_pool_join(f->thread);
    qd_free(f);
}
