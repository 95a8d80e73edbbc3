/* nats_pull.c -- lanes of the work queue: durable consumers, pulls and acknowledgements made by hand.
 *
 * libnats' own Fetch races with no_wait and its Ack crashes on messages it did not fetch itself; the protocol beneath
 * is one request and four words. */
#include "base/clock.h"
#include "base/mem.h"
#include "bus/nats_conn.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    ACK_PENDING_DEFAULT = 1000,
    STEP_MS = 500, /* how soon a wait sees that the server is gone */
    AWAY_STEP_MS = 20
};

struct qd_bus_pull {
    char stream[QD_SUBJECT_BYTES], durable[QD_SUBJECT_BYTES];
    char inbox[QD_NATS_NAME_BYTES];
    natsSubscription *sub;
};

/* Checks one setting of a consumer. */
static qd_code same(const json_t *config, const char *durable, const char *name, json_int_t expected, qd_err *err)
{
    json_int_t found = json_integer_value(json_object_get(config, name));
    if (found == expected) return QD_OK;
    return qd_fail(err, QD_E_REFUSED, "consumer %s: \"%s\": expected %lld, found %lld", durable, name,
                   (long long)expected, (long long)found);
}

static qd_code consumer_check(const json_t *info, const qd_bus_pull_spec *spec, uint64_t pending_max, qd_err *err)
{
    const json_t *c = json_object_get(info, "config");
    const char *filter = json_string_value(json_object_get(c, "filter_subject"));
    if (filter == NULL || strcmp(filter, spec->filter) != 0)
        return qd_fail(err, QD_E_REFUSED, "consumer %s: \"filter_subject\": expected %s, found %s", spec->durable,
                       spec->filter, filter == NULL ? "none" : filter);
    qd_code rc = same(c, spec->durable, "ack_wait", (json_int_t)spec->ack_wait_ms * 1000000, err);
    if (rc == QD_OK) rc = same(c, spec->durable, "max_ack_pending", (json_int_t)pending_max, err);
    if (rc == QD_OK) rc = same(c, spec->durable, "max_deliver", -1, err);
    return rc;
}

static qd_code consumer_ensure(qd_nats *n, const qd_bus_pull_spec *spec, qd_err *err)
{
    char api[2 * QD_SUBJECT_BYTES];
    json_t *info = NULL;
    uint64_t pending_max = spec->ack_pending_max == 0 ? ACK_PENDING_DEFAULT : spec->ack_pending_max;
    qd_err none = {0};
    (void)snprintf(api, sizeof api, "CONSUMER.INFO.%s.%s", spec->stream, spec->durable);
    qd_code rc = qd_nats_api(n, api, NULL, &info, &none);
    if (rc == QD_E_NOT_FOUND) {
        (void)snprintf(api, sizeof api, "CONSUMER.DURABLE.CREATE.%s.%s", spec->stream, spec->durable);
        json_t *body =
            json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i}}", "stream_name", spec->stream, "config",
                      "durable_name", spec->durable, "deliver_policy", "all", "ack_policy", "explicit", "replay_policy",
                      "instant", "filter_subject", spec->filter, "ack_wait", (json_int_t)spec->ack_wait_ms * 1000000,
                      "max_ack_pending", (json_int_t)pending_max, "max_deliver", -1);
        if (body == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for consumer %s", spec->durable);
        rc = qd_nats_api(n, api, body, &info, err);
    } else if (rc != QD_OK && err != NULL) {
        *err = none;
    }
    if (rc == QD_OK) rc = consumer_check(info, spec, pending_max, err);
    json_decref(info);
    return rc;
}

qd_code qd_nats_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    natsInbox *inbox = NULL;
    qd_bus_pull *p = NULL;
    char all[QD_NATS_NAME_BYTES + 4];
    qd_code rc = QD_OK;
    QD_TRY(qd_id_check(spec->stream, "stream", err));
    if (!qd_subject_ok(spec->durable) || strchr(spec->durable, '.') != NULL) {
        rc = qd_fail(err, QD_E_INPUT, "durable \"%.80s\": expected one subject token", spec->durable);
        goto out;
    }
    QD_TRY(consumer_ensure(n, spec, err));
    p = qd_calloc(1, sizeof *p);
    if (p == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a pull of %s", spec->durable);
        goto out;
    }
    (void)snprintf(p->stream, sizeof p->stream, "%s", spec->stream);
    (void)snprintf(p->durable, sizeof p->durable, "%s", spec->durable);
    natsStatus s = natsInbox_Create(&inbox);
    if (s == NATS_OK) {
        (void)snprintf(p->inbox, sizeof p->inbox, "%s", inbox);
        (void)snprintf(all, sizeof all, "%s.*", p->inbox);
        s = natsConnection_SubscribeSync(&p->sub, n->control.nc, all);
    }
    if (s != NATS_OK) {
        rc = qd_nats_fail(err, s, spec->durable);
        goto out;
    }
    *ret = p;
    p = NULL;
out:
    natsInbox_Destroy(inbox);
    qd_free(p);
    return rc;
}

void qd_nats_pull_close(qd_bus *b, qd_bus_pull *p)
{
    (void)b;
    natsSubscription_Destroy(p->sub);
    qd_free(p);
}

static void nap(uint64_t ms)
{
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

typedef enum pulled {
    PULLED_JOB,
    PULLED_NOTHING, /* the request is over */
    PULLED_OTHER,   /* an old request's end: wait on */
    PULLED_AWAY
} pulled;

static pulled judge(natsMsg *msg, const char *reply)
{
    const char *status = qd_nats_status(msg);
    if (status == NULL) return PULLED_JOB;
    if (strcmp(natsMsg_GetSubject(msg), reply) != 0 || strncmp(status, "1", 1) == 0) return PULLED_OTHER;
    if (strcmp(status, "404") == 0 || strcmp(status, "408") == 0) return PULLED_NOTHING;
    const char *text = NULL; /* 409: many things; those about a limit end the request only */
    (void)natsMsgHeader_Get(msg, "Description", &text);
    return strcmp(status, "409") == 0 && text != NULL && strncmp(text, "Exceeded", 8) == 0 ? PULLED_NOTHING
                                                                                           : PULLED_AWAY;
}

/* Takes what is there or comes until deadline (monotonic ns). */
static qd_code take(qd_nats *n, qd_bus_pull *p, const char *reply, uint64_t deadline_ns, qd_bus_msg *ret,
                    pulled *ret_what, qd_err *err)
{
    for (;;) {
        natsMsg *msg = NULL;
        uint64_t now = qd_mono_ns();
        uint64_t left_ms = now < deadline_ns ? (deadline_ns - now) / 1000000 + 1 : 1;
        natsStatus s = natsSubscription_NextMsg(&msg, p->sub, (int64_t)(left_ms < STEP_MS ? left_ms : STEP_MS));
        if (s == NATS_TIMEOUT && qd_mono_ns() < deadline_ns && atomic_load(&n->control.connected)) continue;
        *ret_what = PULLED_AWAY;
        if (s == NATS_TIMEOUT) return QD_OK;
        if (s == NATS_NO_RESPONDERS) return QD_OK; /* the consumer has no leader now, or is gone */
        if (s != NATS_OK) return qd_nats_fail(err, s, p->durable);
        *ret_what = judge(msg, reply);
        qd_ack_subject ack;
        qd_code rc = *ret_what == PULLED_JOB ? qd_nats_msg(n, msg, true, &ack, ret, err) : QD_OK;
        natsMsg_Destroy(msg);
        bool go_on = rc == QD_E_INPUT || (rc == QD_OK && *ret_what == PULLED_OTHER); /* foreign: counted, dropped */
        if (!go_on) return rc;
        *ret_what = PULLED_AWAY;
        if (qd_mono_ns() >= deadline_ns) return QD_OK;
    }
}

qd_code qd_nats_pull_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *ret_got, qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    char api[3 * QD_SUBJECT_BYTES], reply[QD_NATS_NAME_BYTES + 24], body[96];
    uint64_t end_ns = qd_mono_ns() + wait_ms * 1000000;
    while (!atomic_load(&n->control.connected) && qd_mono_ns() < end_ns) nap(AWAY_STEP_MS);
    qd_code rc = qd_nats_up(&n->control, p->durable, err);
    if (rc != QD_OK) return rc;
    uint64_t now = qd_mono_ns(), left_ms = now < end_ns ? (end_ns - now) / 1000000 : 0;
    (void)snprintf(reply, sizeof reply, "%s.%" PRIu64, p->inbox, ++n->n_requests);
    (void)snprintf(api, sizeof api, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", p->stream, p->durable);
    if (left_ms == 0)
        (void)snprintf(body, sizeof body, "{\"batch\":1,\"no_wait\":true}");
    else
        (void)snprintf(body, sizeof body, "{\"batch\":1,\"expires\":%" PRIu64 "}", left_ms * 1000000);
    natsStatus s = natsConnection_PublishRequestString(n->control.nc, api, reply, body);
    if (s != NATS_OK) return qd_nats_fail(err, s, p->durable);
    pulled what = PULLED_AWAY;
    uint64_t deadline = qd_mono_ns() + (left_ms + n->call_timeout_ms) * 1000000;
    rc = take(n, p, reply, deadline, ret, &what, err);
    if (rc != QD_OK) return rc;
    if (what == PULLED_AWAY) return qd_fail(err, QD_E_AWAY, "consumer %s: no answer to a pull", p->durable);
    *ret_got = what == PULLED_JOB;
    return QD_OK;
}

qd_code qd_nats_pull_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    natsMsg *msg = NULL, *reply = NULL;
    natsStatus s = natsMsg_Create(&msg, m->ack, NULL, "+ACK", 4);
    if (s != NATS_OK) return qd_nats_fail(err, s, m->subject);
    qd_code rc = qd_nats_ask(n, &n->control, msg, m->subject, &reply, err);
    natsMsg_Destroy(msg);
    natsMsg_Destroy(reply);
    return rc;
}

static qd_code say(qd_bus *b, const qd_bus_msg *m, const char *word, qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    qd_code rc = qd_nats_up(&n->control, m->subject, err);
    if (rc != QD_OK) return rc;
    natsStatus s = natsConnection_PublishString(n->control.nc, m->ack, word);
    return s == NATS_OK ? QD_OK : qd_nats_fail(err, s, m->subject);
}

qd_code qd_nats_pull_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err)
{
    char word[64];
    if (delay_ms == 0) return say(b, m, "-NAK", err);
    (void)snprintf(word, sizeof word, "-NAK {\"delay\":%" PRIu64 "}", delay_ms * 1000000);
    return say(b, m, word, err);
}

qd_code qd_nats_pull_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return say(b, m, "+WPI", err);
}

qd_code qd_nats_pull_term(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return say(b, m, "+TERM", err);
}
