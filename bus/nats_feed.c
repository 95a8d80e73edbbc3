/* nats_feed.c -- feeds: an ephemeral pull consumer that is asked for one batch after the other, so that never more
 * comes than the mailbox holds, and that is made anew whenever anything is in doubt. */
#include "base/clock.h"
#include "base/mem.h"
#include "bus/mailbox.h"
#include "bus/nats_conn.h"
#include "proto/subject.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    STEP_MS = 200,
    AWAY_STEP_MS = 20,
    QUIET_MS = 250,      /* not synced and nothing comes: ask what is left */
    HEARTBEAT_MS = 2000, /* of the server while a request waits */
    SILENCE_MS = 5000,   /* without one: the request is lost */
    EXPIRES_MS = 30000,  /* of a request */
    INACTIVE_MS = 60000, /* the server drops a consumer that nobody asks */
    MAILBOX_SPARE = 64,  /* statuses and heartbeats beside a batch */
    STARTS_MAX = 3       /* in one call that is not to wait */
};

struct qd_bus_feed {
    char stream[QD_SUBJECT_BYTES], filter[QD_SUBJECT_BYTES];
    qd_bus_start start;
    uint64_t from_seq; /* where FROM_SEQ goes on */
    qd_nats_link *link;
    int fd; /* eventfd of every mailbox it has had */
    qd_mailbox *box;
    natsSubscription *sub;
    char consumer[QD_NATS_NAME_BYTES], reply[QD_NATS_NAME_BYTES];
    unsigned long connects; /* of the link when the consumer was made */
    uint64_t consumer_seq, initial, told, heard_ns;
    uint32_t outstanding;        /* messages asked for and not yet come */
    bool running, synced, reset; /* reset: RESET is to be told */
};

static void drop_msg(void *item)
{
    natsMsg_Destroy(item);
}

/* On a thread of the library: hands over, never waits. */
static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    (void)nc;
    (void)sub;
    if (!qd_mailbox_put(closure, msg)) natsMsg_Destroy(msg);
}

static void on_complete(void *closure)
{
    qd_mailbox_release(closure);
}

/* Leaves the consumer and all that is under way from it. */
static void leave(qd_nats *n, qd_bus_feed *f)
{
    char api[2 * QD_SUBJECT_BYTES];
    if (f->sub != NULL) natsSubscription_Destroy(f->sub);
    f->sub = NULL;
    if (f->box != NULL) qd_mailbox_close(f->box);
    if (f->consumer[0] != '\0' && f->running && atomic_load(&f->link->connected)) {
        /* Without waiting: the server drops it by itself if this is lost. */
        (void)snprintf(api, sizeof api, "$JS.API.CONSUMER.DELETE.%s.%s", f->stream, f->consumer);
        (void)natsConnection_PublishString(n->control.nc, api, "");
    }
    f->consumer[0] = '\0';
    f->running = false;
}

static qd_code subscribe(qd_nats *n, qd_bus_feed *f, qd_err *err)
{
    natsInbox *inbox = NULL;
    qd_mailbox *box = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_mailbox_new(n->feed_batch + MAILBOX_SPARE, drop_msg, f->fd, &box, err));
    natsStatus s = natsInbox_Create(&inbox);
    if (s == NATS_OK) {
        (void)snprintf(f->reply, sizeof f->reply, "%s", inbox);
        qd_mailbox_hold(box);
        s = natsConnection_Subscribe(&f->sub, f->link->nc, f->reply, on_message, box);
        if (s != NATS_OK) qd_mailbox_release(box);
    }
    if (s == NATS_OK) s = natsSubscription_SetOnCompleteCB(f->sub, on_complete, box);
    if (s != NATS_OK) {
        rc = qd_nats_fail(err, s, f->stream);
        goto out;
    }
    f->box = box;
    box = NULL;
out:
    natsInbox_Destroy(inbox);
    qd_mailbox_release(box);
    return rc;
}

static qd_code make_consumer(qd_nats *n, qd_bus_feed *f, qd_err *err)
{
    char api[2 * QD_SUBJECT_BYTES];
    json_t *info = NULL;
    bool last = f->start == QD_FEED_LAST_OF_EACH;
    /* A bucket holds one message of each subject anyway; to look for the last ones of a million takes the server long.
     */
    bool bucket = strncmp(f->stream, "KV_", 3) == 0;
    (void)snprintf(api, sizeof api, "CONSUMER.CREATE.%s", f->stream);
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:i}", "deliver_policy",
                  last && bucket ? "all"
                  : last         ? "last_per_subject"
                                 : "by_start_sequence",
                  "ack_policy", "none", "replay_policy", "instant", "filter_subject", f->filter, "inactive_threshold",
                  (json_int_t)INACTIVE_MS * 1000000, "mem_storage", 1, "num_replicas", 1);
    if (config != NULL && !last)
        (void)json_object_set_new(config, "opt_start_seq", json_integer((json_int_t)f->from_seq));
    json_t *body = config == NULL ? NULL : json_pack("{s:s, s:o}", "stream_name", f->stream, "config", config);
    if (body == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a feed of %s", f->stream);
    qd_code rc = qd_nats_api(n, api, body, &info, err);
    if (rc != QD_OK) return rc;
    const char *name = json_string_value(json_object_get(info, "name"));
    json_int_t pending = json_integer_value(json_object_get(info, "num_pending"));
    if (name == NULL || strlen(name) >= sizeof f->consumer)
        rc = qd_fail(err, QD_E_AWAY, "stream %s: a consumer without a name", f->stream);
    else
        (void)snprintf(f->consumer, sizeof f->consumer, "%s", name);
    f->initial = pending < 0 ? 0 : (uint64_t)pending;
    json_decref(info);
    return rc;
}

/* Asks for the next batch. */
static qd_code ask(qd_nats *n, qd_bus_feed *f, qd_err *err)
{
    char api[3 * QD_SUBJECT_BYTES], body[128];
    (void)snprintf(api, sizeof api, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", f->stream, f->consumer);
    (void)snprintf(body, sizeof body, "{\"batch\":%u,\"expires\":%" PRIu64 ",\"idle_heartbeat\":%" PRIu64 "}",
                   (unsigned)n->feed_batch, (uint64_t)EXPIRES_MS * 1000000, (uint64_t)HEARTBEAT_MS * 1000000);
    natsStatus s = natsConnection_PublishRequestString(f->link->nc, api, f->reply, body);
    if (s != NATS_OK) return qd_nats_fail(err, s, f->stream);
    f->outstanding = n->feed_batch;
    f->heard_ns = qd_mono_ns();
    return QD_OK;
}

/* Starts, or starts again where it was. */
static qd_code begin(qd_nats *n, qd_bus_feed *f, qd_err *err)
{
    qd_code rc = QD_OK;
    leave(n, f);
    qd_mailbox_release(f->box);
    f->box = NULL;
    f->connects = atomic_load(&f->link->connects);
    f->consumer_seq = f->told = 0;
    if (f->start == QD_FEED_LAST_OF_EACH) f->synced = false;
    QD_TRY(qd_nats_up(f->link, f->stream, err));
    QD_TRY(subscribe(n, f, err));
    QD_TRY(make_consumer(n, f, err));
    f->running = true;
    QD_TRY(ask(n, f, err));
    return QD_OK;
out:
    leave(n, f);
    return rc;
}

/* Something is in doubt: the next call starts again. */
static void doubt(qd_nats *n, qd_bus_feed *f)
{
    leave(n, f);
    f->reset = f->start == QD_FEED_LAST_OF_EACH;
}

qd_code qd_nats_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    qd_code rc = qd_id_check(spec->stream, "stream", err);
    if (rc != QD_OK) return rc;
    qd_bus_feed *f = qd_calloc(1, sizeof *f);
    if (f == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a feed of %s", spec->stream);
    (void)snprintf(f->stream, sizeof f->stream, "%s", spec->stream);
    (void)snprintf(f->filter, sizeof f->filter, "%s", spec->filter);
    f->start = spec->start;
    f->from_seq = spec->from_seq == 0 ? 1 : spec->from_seq;
    f->link = spec->bulk ? &n->bulk : &n->control;
    f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = f->fd < 0 ? qd_fail_errno(err, QD_E_IO, errno, "eventfd") : begin(n, f, err);
    if (rc != QD_OK) {
        qd_nats_feed_close(b, f);
        return rc;
    }
    *ret = f;
    return QD_OK;
}

void qd_nats_feed_close(qd_bus *b, qd_bus_feed *f)
{
    leave(qd_nats_of(b), f);
    qd_mailbox_release(f->box);
    if (f->fd >= 0) (void)close(f->fd);
    qd_free(f);
}

int qd_nats_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    (void)b;
    return f->fd;
}

/* A status of the server: the request's end, a heartbeat, or a reason to start again. */
static void heed(qd_nats *n, qd_bus_feed *f, const char *status)
{
    if (strcmp(status, "100") == 0) return; /* heartbeat */
    f->outstanding = 0;
    if (strcmp(status, "404") != 0 && strcmp(status, "408") != 0) doubt(n, f);
}

/* One message of the mailbox. *ret_event stays NONE when it was none to tell. */
static qd_code accept_msg(qd_nats *n, qd_bus_feed *f, natsMsg *msg, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                          qd_err *err)
{
    qd_ack_subject ack = {0};
    qd_bus_msg m = {0};
    const char *status = qd_nats_status(msg);
    if (status != NULL) {
        heed(n, f, status);
        return QD_OK;
    }
    qd_code rc = qd_nats_msg(n, msg, false, &ack, &m, err);
    if (rc == QD_E_INPUT) return QD_OK; /* foreign: counted, dropped */
    if (rc != QD_OK) return rc;
    if (ack.consumer_seq != f->consumer_seq + 1) { /* one is missing */
        qd_bus_msg_done(&m);
        doubt(n, f);
        return QD_OK;
    }
    f->consumer_seq = ack.consumer_seq;
    if (f->outstanding > 0) f->outstanding--;
    f->told++;
    f->from_seq = ack.stream_seq + 1;
    if (ack.pending == 0) f->initial = f->told; /* fewer than there were: some have been replaced */
    *ret = m;
    *ret_event = QD_FEED_MSG;
    return QD_OK;
}

/* Whether the server has nothing left for this consumer. */
static qd_code ask_left(qd_nats *n, qd_bus_feed *f, qd_err *err)
{
    char api[2 * QD_SUBJECT_BYTES];
    json_t *info = NULL;
    (void)snprintf(api, sizeof api, "CONSUMER.INFO.%s.%s", f->stream, f->consumer);
    qd_code rc = qd_nats_api(n, api, NULL, &info, err);
    if (rc == QD_E_NOT_FOUND) {
        doubt(n, f);
        return QD_OK;
    }
    if (rc != QD_OK) return rc;
    json_int_t seq = json_integer_value(json_object_get(json_object_get(info, "delivered"), "consumer_seq"));
    if (json_integer_value(json_object_get(info, "num_pending")) == 0 && (uint64_t)seq == f->consumer_seq)
        f->initial = f->told;
    json_decref(info);
    return QD_OK;
}

/* Waits a step for something of the mailbox. */
static qd_code step(qd_nats *n, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                    qd_err *err)
{
    qd_code rc = QD_OK;
    if (f->outstanding == 0) rc = ask(n, f, err);
    if (rc != QD_OK) return rc;
    natsMsg *msg = qd_mailbox_take(f->box, wait_ms < STEP_MS ? wait_ms : STEP_MS);
    uint64_t now = qd_mono_ns(), silent_ms = (now - f->heard_ns) / 1000000;
    if (msg != NULL) {
        f->heard_ns = now;
        rc = accept_msg(n, f, msg, ret_event, ret, err);
        natsMsg_Destroy(msg);
        return rc;
    }
    if (qd_mailbox_overflowed(f->box) || silent_ms > SILENCE_MS)
        doubt(n, f);
    else if (!f->synced && silent_ms > QUIET_MS)
        rc = ask_left(n, f, err);
    return rc;
}

qd_code qd_nats_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                          qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    uint64_t end_ns = qd_mono_ns() + wait_ms * 1000000;
    for (uint32_t i = 0;; i++) {
        uint64_t now = qd_mono_ns(), left_ms = now < end_ns ? (end_ns - now) / 1000000 + 1 : 0;
        qd_err why = {0};
        qd_code rc = QD_OK;
        qd_bus_feed_event event = QD_FEED_NONE;
        bool gone = !atomic_load(&f->link->connected) || atomic_load(&f->link->connects) != f->connects;
        if (f->running && gone) doubt(n, f);
        if (!f->running) rc = begin(n, f, &why);
        if (rc == QD_OK && f->reset) {
            f->reset = false;
            *ret_event = QD_FEED_RESET;
            return QD_OK;
        }
        if (rc == QD_OK && !f->synced && f->told >= f->initial) {
            f->synced = true;
            *ret_event = QD_FEED_SYNCED;
            return QD_OK;
        }
        if (rc == QD_OK) rc = step(n, f, left_ms, &event, ret, &why);
        if (rc == QD_OK && event == QD_FEED_MSG) {
            *ret_event = event;
            return QD_OK;
        }
        if (rc == QD_E_AWAY && left_ms > 0) {
            struct timespec t = {.tv_nsec = AWAY_STEP_MS * 1000000L};
            (void)nanosleep(&t, NULL);
        } else if (rc != QD_OK) {
            if (err != NULL) *err = why;
            return rc;
        } else if (left_ms == 0 && (f->running || i >= STARTS_MAX)) {
            *ret_event = QD_FEED_NONE;
            return QD_OK;
        }
    }
}
