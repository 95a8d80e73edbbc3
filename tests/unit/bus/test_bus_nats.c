/* test_bus_nats.c -- the bus over a real nats-server keeps every bus's promises, and those of a server that comes and
 * goes: test_bus_nats SERVER (77: there is no such program). */
#include "tests/unit/bus/conformance.h"

#include "base/fault.h"
#include "base/json.h"
#include "bus/bus_nats.h"
#include "bus/mailbox.h"
#include "proto/subject.h"
#include "tests/unit/bus/server.h"

#include <errno.h>
#include <nats/nats.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static test_server server;
static const qd_bus_nats_limits limits = {.queue_msgs_max = CONFORMANCE_QUEUE_MAX, .event_bytes_max = 64 << 20};

static void sleep_real(void *ctx, uint64_t ms)
{
    (void)ctx;
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

static qd_bus *open_bus(const qd_bus_nats_config *more)
{
    qd_bus_nats_config cfg = *more;
    qd_bus *b = NULL;
    cfg.urls = server.url;
    OK(qd_bus_nats_open(&cfg, &b, &err));
    return b;
}

static int setup(void **state)
{
    static const qd_bus_nats_config plain = {.name = "test", .call_timeout_ms = 10000}; /* a busy disk: fsync */
    char warning[256];
    harness *h = calloc(1, sizeof *h);
    if (h == NULL) return -1;
    h->sleep_ms = sleep_real;
    h->a = open_bus(&plain);
    h->b = open_bus(&plain);
    OK(qd_bus_nats_provision(h->a, &limits, warning, sizeof warning, &err));
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    harness *h = *state;
    qd_bus_free(h->a);
    qd_bus_free(h->b);
    free(h);
    return 0;
}

static void provisioning_is_idempotent_and_names_what_differs(void **state)
{
    harness *h = *state;
    char warning[256];
    OK(qd_bus_nats_provision(h->b, &limits, warning, sizeof warning, &err));
    qd_bus_nats_limits other = limits;
    other.queue_msgs_max = 7;
    qd_err why = {0};
    assert_int_equal(qd_bus_nats_provision(h->b, &other, warning, sizeof warning, &why), QD_E_CONFIG);
    assert_string_equal(why.msg, "stream QUANT_JOBS is there with another \"max_msgs\": expected 7, found 40");
}

static void an_old_server_is_warned_of(void **state)
{
    harness *h = *state;
    char warning[256] = "", conf[96], command[256];
    OK(qd_bus_nats_provision(h->a, &limits, warning, sizeof warning, &err));
    (void)snprintf(conf, sizeof conf, "%s/conf", server.dir);
    (void)snprintf(command, sizeof command, "grep -q 'sync_interval: always' '%s'", conf);
    bool writes_through = test_shell(command);
    assert_int_equal(warning[0] == '\0', writes_through);
}

static uint64_t put(qd_bus *b, const char *key, const char *value, uint64_t expect)
{
    uint64_t rev = 0;
    OK(qd_bus_kv_put(b, QD_BUCKET_JOBS, key, value, strlen(value), expect, &rev, &err));
    return rev;
}

typedef struct counted {
    unsigned n;
    bool in_order;
} counted;

static qd_code count(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    counted *c = ctx;
    char want[32];
    (void)err;
    (void)snprintf(want, sizeof want, "many.%u", c->n++);
    c->in_order = c->in_order && strcmp(m->key, want) == 0;
    return QD_OK;
}

static void a_feed_larger_than_its_mailbox_loses_nothing(void **state)
{
    harness *h = *state;
    qd_bus *small = open_bus(&(qd_bus_nats_config){.feed_batch = 3});
    counted c = {.in_order = true};
    for (unsigned i = 0; i < 200; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "many.%u", i);
        (void)put(h->a, key, "x", QD_REV_ANY);
    }
    OK(qd_bus_kv_list(small, QD_BUCKET_JOBS, "many.>", count, &c, &err));
    assert_int_equal(c.n, 200);
    assert_true(c.in_order);
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    qd_bus_feed_event event = QD_FEED_NONE;
    OK(qd_bus_kv_watch(small, QD_BUCKET_JOBS, "flood.>", &f, &err));
    OK(qd_bus_feed_next(small, f, LONG_MS, &event, &m, &err));
    assert_int_equal(event, QD_FEED_SYNCED);
    for (unsigned i = 0; i < 100; i++) (void)put(h->a, "flood.one", "x", QD_REV_ANY);
    uint64_t last = put(h->a, "flood.one", "last", QD_REV_ANY), seen = 0;
    for (unsigned i = 0; seen != last; i++) { /* every change it tells is newer; the last one comes */
        assert_true(i <= 101);
        OK(qd_bus_feed_next(small, f, LONG_MS, &event, &m, &err));
        assert_int_equal(event, QD_FEED_MSG);
        assert_true(m.seq > seen);
        seen = m.seq;
        qd_bus_msg_done(&m);
    }
    qd_bus_feed_close(small, f);
    qd_bus_free(small);
}

static void a_feeds_descriptor_is_readable_when_there_is_something_to_tell(void **state)
{
    harness *h = *state;
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    qd_bus_feed_event event = QD_FEED_NONE;
    OK(qd_bus_kv_watch(h->b, QD_BUCKET_JOBS, "fd.>", &f, &err));
    do OK(qd_bus_feed_next(h->b, f, 0, &event, &m, &err));
    while (event != QD_FEED_NONE);
    struct pollfd p = {.fd = qd_bus_feed_fd(h->b, f), .events = POLLIN};
    assert_true(p.fd >= 0);
    (void)put(h->a, "fd.a", "x", QD_REV_ANY);
    assert_int_equal(poll(&p, 1, LONG_MS), 1);
    OK(qd_bus_feed_next(h->b, f, 0, &event, &m, &err));
    assert_int_equal(event, QD_FEED_MSG);
    qd_bus_msg_done(&m);
    qd_bus_feed_close(h->b, f);
}

/* Takes what a feed tells until a key (or SYNCED for NULL) comes; says whether a RESET was among it. */
static bool until(qd_bus *b, qd_bus_feed *f, const char *value)
{
    bool reset = false;
    for (int i = 0; i < 400; i++) {
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_bus_msg m = {0};
        qd_err err = {0};
        qd_code rc = qd_bus_feed_next(b, f, 250, &event, &m, &err);
        if (rc != QD_OK && rc != QD_E_AWAY) fail_msg("%s: %s", qd_code_name(rc), err.msg);
        if (rc == QD_E_AWAY) continue;
        bool there =
            value == NULL ? event == QD_FEED_SYNCED : event == QD_FEED_MSG && strcmp((const char *)m.data, value) == 0;
        reset = reset || event == QD_FEED_RESET;
        qd_bus_msg_done(&m);
        if (there) return reset;
    }
    fail_msg("the feed never told %s", value == NULL ? "SYNCED" : value);
    return false;
}

static void wait_connected(qd_bus *b, bool connected)
{
    qd_bus_state s = {0};
    for (int i = 0; i < 2000; i++, sleep_real(NULL, 10)) {
        qd_bus_state_get(b, &s);
        if (s.connected == connected) return;
    }
    fail_msg("the bus never was %s", connected ? "there" : "away");
}

static void everything_is_away(harness *h, const char *job, uint64_t r1, qd_bus_pull *p, qd_bus_feed *keys)
{
    qd_bus_puback ack = {0};
    qd_bus_msg m = {0};
    bool got = false;
    qd_bus_feed_event event = QD_FEED_NONE;
    FAILS(QD_E_AWAY, qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "rst.a", "x", 1, r1, NULL, &err));
    FAILS(QD_E_AWAY, qd_bus_kv_get(h->a, QD_BUCKET_JOBS, "rst.a", &m, &err));
    FAILS(QD_E_AWAY, qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "rst.a", r1, &err));
    FAILS(QD_E_AWAY, conformance_publish(h->a, "quant.event.rst.w", "x", NULL, QD_REV_ANY, &ack, &err));
    FAILS(QD_E_AWAY, qd_bus_purge(h->a, QD_STREAM_JOBS, job, QD_REV_ANY, NULL, &err));
    FAILS(QD_E_AWAY, qd_bus_pull_fetch(h->b, p, 100, &m, &got, &err));
    FAILS(QD_E_AWAY, qd_bus_feed_next(h->b, keys, 100, &event, &m, &err));
    qd_bus_state s = {0};
    qd_bus_state_get(h->a, &s);
    assert_int_equal(s.connected_ms, 0);
}

/* Takes what a feed tells until `last` comes; says whether `other` came before. */
static bool told_before(qd_bus *b, qd_bus_feed *f, const char *last, const char *other)
{
    bool before = false;
    for (int i = 0; i < 100; i++) {
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_bus_msg m = {0};
        if (qd_bus_feed_next(b, f, 250, &event, &m, NULL) != QD_OK || event != QD_FEED_MSG) continue;
        before = before || strcmp((const char *)m.data, other) == 0;
        bool done = strcmp((const char *)m.data, last) == 0;
        qd_bus_msg_done(&m);
        if (done) return before;
    }
    fail_msg("the feed never told %s", last);
    return true;
}

static void a_killed_server_is_away_and_comes_back_with_everything(void **state)
{
    harness *h = *state;
    qd_bus_feed *keys = NULL, *events = NULL;
    qd_bus_pull *p = NULL;
    qd_bus_puback ack = {0};
    qd_bus_msg m = {0};
    bool got = false;
    char filter[QD_SUBJECT_BYTES], durable[QD_SUBJECT_BYTES], job[QD_SUBJECT_BYTES];
    qd_lane lane = {.device_class = "cpu", .numerics_id = "restart"};
    OK(qd_subject_lane(&lane, filter, durable, &err));
    OK(qd_subject_job(&lane, "j1", job, &err));
    qd_bus_pull_spec pull = {
        .stream = QD_STREAM_JOBS, .durable = durable, .filter = filter, .ack_wait_ms = ACK_WAIT_MS};
    qd_bus_feed_spec spec = {.stream = QD_STREAM_EVENTS, .filter = "quant.event.rst.*", .start = QD_FEED_FROM_SEQ};
    uint64_t r1 = put(h->a, "rst.a", "one", QD_REV_ABSENT);
    (void)put(h->a, "rst.gone", "x", QD_REV_ABSENT);
    OK(conformance_publish(h->a, "quant.event.rst.w", "e1", NULL, QD_REV_ANY, &ack, &err));
    OK(conformance_publish(h->a, job, "j1", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_kv_watch(h->b, QD_BUCKET_JOBS, "rst.>", &keys, &err));
    OK(qd_bus_feed_open(h->b, &spec, &events, &err));
    OK(qd_bus_pull_open(h->b, &pull, &p, &err));
    assert_false(until(h->b, keys, NULL));
    assert_false(until(h->b, events, NULL));

    test_server_kill(&server);
    wait_connected(h->a, false);
    wait_connected(h->b, false);
    everything_is_away(h, job, r1, p, keys);
    assert_true(test_server_start(&server));
    wait_connected(h->a, true);
    wait_connected(h->b, true);
    qd_bus_state s = {0};
    qd_bus_state_get(h->a, &s);
    assert_int_equal(s.connects, 2);
    qd_code rc = QD_E_AWAY; /* JetStream itself may take a moment longer */
    for (int i = 0; i < 200 && rc == QD_E_AWAY; i++, sleep_real(NULL, 20))
        rc = qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "rst.a", "two", 3, r1, NULL, NULL);
    assert_int_equal(rc, QD_OK);
    OK(qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "rst.gone", QD_REV_ANY, &err));
    assert_true(until(h->b, keys, "two"));
    assert_false(until(h->b, keys, NULL)); /* synced again */
    OK(conformance_publish(h->a, "quant.event.rst.w", "e2", NULL, QD_REV_ANY, &ack, &err));
    assert_false(told_before(h->b, events, "e2", "e1")); /* it goes on behind e1 */
    for (int i = 0; i < 100 && !got; i++) (void)!qd_bus_pull_fetch(h->b, p, 250, &m, &got, NULL);
    assert_true(got);
    assert_string_equal((const char *)m.data, "j1");
    OK(qd_bus_pull_ack(h->b, &m, &err));
    qd_bus_msg_done(&m);
    qd_bus_pull_close(h->b, p);
    qd_bus_feed_close(h->b, keys);
    qd_bus_feed_close(h->b, events);
}

static void a_bus_opens_before_its_server_is_there(void **state)
{
    harness *h = *state;
    test_server_kill(&server);
    qd_bus *early = open_bus(&(qd_bus_nats_config){.reconnect_wait_ms = 50});
    qd_bus_msg m = {0};
    FAILS(QD_E_AWAY, qd_bus_kv_get(early, QD_BUCKET_JOBS, "job.none", &m, &err));
    assert_true(test_server_start(&server));
    wait_connected(early, true);
    qd_code rc = QD_E_AWAY;
    for (int i = 0; i < 200 && rc == QD_E_AWAY; i++, sleep_real(NULL, 20))
        rc = qd_bus_kv_get(early, QD_BUCKET_JOBS, "job.none", &m, NULL);
    assert_int_equal(rc, QD_E_NOT_FOUND);
    qd_bus_free(early);
    (void)h;
}

/* Takes connections and ends each before the greeting, as a server does that is starting or short of time. */
static void *hang_up(void *arg)
{
    atomic_int *n = arg;
    int fd = -1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server.port)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 8) == 0)
        for (; *n > 0 && (fd = accept(listener, NULL, NULL)) >= 0; (void)atomic_fetch_sub(n, 1)) (void)close(fd);
    (void)close(listener);
    return NULL;
}

static void a_greeting_that_is_cut_off_is_not_a_refusal(void **state)
{
    (void)state;
    enum {
        CUT = 6
    };
    atomic_int n = CUT;
    pthread_t thread;
    qd_bus_msg m = {0};
    qd_bus_hint *hint = NULL;
    qd_bus_state s = {0};
    test_server_kill(&server);
    assert_int_equal(pthread_create(&thread, NULL, hang_up, &n), 0);
    qd_bus *early = open_bus(&(qd_bus_nats_config){.reconnect_wait_ms = 50});
    FAILS(QD_E_AWAY, qd_bus_hint_open(early, "$KV.jobs.job.x", &hint, &err));
    for (int i = 0; i < 2000 && n > 0; i++, sleep_real(NULL, 10)) {
        FAILS(QD_E_AWAY, qd_bus_kv_get(early, QD_BUCKET_JOBS, "job.none", &m, &err));
        qd_bus_state_get(early, &s);
        assert_false(s.closed);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(n, 0);
    assert_true(test_server_start(&server));
    wait_connected(early, true);
    qd_code rc = QD_E_AWAY;
    for (int i = 0; i < 200 && rc == QD_E_AWAY; i++, sleep_real(NULL, 20))
        rc = qd_bus_kv_get(early, QD_BUCKET_JOBS, "job.none", &m, NULL);
    assert_int_equal(rc, QD_E_NOT_FOUND);
    qd_bus_free(early);
}

/* Answers a pull with what no server sends. */
static void answer_rubbish(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    (void)sub;
    (void)closure;
    (void)natsConnection_PublishRequestString(nc, natsMsg_GetReply(msg), "$JS.ACK.x", "rubbish");
    (void)natsConnection_PublishString(nc, natsMsg_GetReply(msg), "rubbish");
    (void)natsConnection_Flush(nc);
    natsMsg_Destroy(msg);
}

static void foreign_messages_are_counted_and_nothing_else(void **state)
{
    harness *h = *state;
    natsConnection *nc = NULL;
    natsSubscription *sub = NULL;
    char filter[QD_SUBJECT_BYTES], durable[QD_SUBJECT_BYTES];
    qd_lane lane = {.device_class = "cpu", .numerics_id = "rubbish"};
    qd_bus_pull *p = NULL;
    qd_bus_msg m = {0};
    qd_bus_state s = {0};
    bool got = true;
    OK(qd_subject_lane(&lane, filter, durable, &err));
    qd_bus_pull_spec spec = {
        .stream = QD_STREAM_JOBS, .durable = durable, .filter = filter, .ack_wait_ms = ACK_WAIT_MS};
    OK(qd_bus_pull_open(h->a, &spec, &p, &err));
    assert_int_equal(natsConnection_ConnectTo(&nc, server.url), NATS_OK);
    assert_int_equal(natsConnection_Subscribe(&sub, nc, "$JS.API.CONSUMER.MSG.NEXT.>", answer_rubbish, NULL), NATS_OK);
    assert_int_equal(natsConnection_Flush(nc), NATS_OK);
    OK(qd_bus_pull_fetch(h->a, p, 1000, &m, &got, &err));
    assert_false(got);
    qd_bus_state_get(h->a, &s);
    assert_true(s.malformed >= 1);
    natsSubscription_Destroy(sub);
    natsConnection_Destroy(nc);
    qd_bus_pull_close(h->a, p);
}

/* Keeps the subject of a feed's request. */
static void keep_subject(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    (void)nc;
    (void)sub;
    (void)qd_mailbox_put(closure, strdup(natsMsg_GetSubject(msg)));
    natsMsg_Destroy(msg);
}

static void a_feed_whose_consumer_is_lost_starts_again(void **state)
{
    harness *h = *state;
    natsConnection *nc = NULL;
    natsSubscription *sub = NULL;
    qd_mailbox *subjects = NULL;
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    qd_bus_feed_event event = QD_FEED_NONE;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    OK(qd_mailbox_new(8, free, fd, &subjects, &err));
    assert_int_equal(natsConnection_ConnectTo(&nc, server.url), NATS_OK);
    assert_int_equal(natsConnection_Subscribe(&sub, nc, "$JS.API.CONSUMER.MSG.NEXT.>", keep_subject, subjects),
                     NATS_OK);
    assert_int_equal(natsConnection_Flush(nc), NATS_OK);
    (void)put(h->a, "gap.a", "one", QD_REV_ANY);
    OK(qd_bus_kv_watch(h->b, QD_BUCKET_JOBS, "gap.>", &f, &err));
    assert_false(until(h->b, f, NULL));
    char *subject = qd_mailbox_take(subjects, LONG_MS), api[256];
    assert_non_null(subject);
    (void)snprintf(api, sizeof api, "$JS.API.CONSUMER.DELETE.%s", subject + strlen("$JS.API.CONSUMER.MSG.NEXT."));
    assert_int_equal(natsConnection_PublishString(nc, api, ""), NATS_OK);
    OK(qd_bus_feed_next(h->b, f, LONG_MS, &event, &m, &err));
    assert_int_equal(event, QD_FEED_RESET);
    assert_false(until(h->b, f, "one"));
    assert_false(until(h->b, f, NULL));
    free(subject);
    natsSubscription_Destroy(sub);
    natsConnection_Destroy(nc);
    qd_mailbox_release(subjects);
    (void)close(fd);
    qd_bus_feed_close(h->b, f);
}

static qd_code count_one(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    (void)m;
    (void)err;
    ++*(unsigned *)ctx;
    return QD_OK;
}

/* Everything once, with the n-th allocation failed, for every n; what happened all the same may happen again. */
static void a_failed_allocation_is_an_error(void **state)
{
    harness *h = *state;
    char filter[QD_SUBJECT_BYTES], durable[QD_SUBJECT_BYTES], job[QD_SUBJECT_BYTES];
    qd_lane lane = {.device_class = "cpu", .numerics_id = "alloc"};
    OK(qd_subject_lane(&lane, filter, durable, &err));
    OK(qd_subject_job(&lane, "j1", job, &err));
    qd_bus_pull_spec spec = {
        .stream = QD_STREAM_JOBS, .durable = durable, .filter = filter, .ack_wait_ms = ACK_WAIT_MS};
    qd_json_use_qd_memory();
    bool done = false;
    for (unsigned long n = 1; !done; n++) {
        qd_bus_pull *p = NULL;
        qd_bus_puback ack = {0};
        qd_bus_msg m = {0}, pulled = {0};
        qd_err err = {0};
        unsigned keys = 0;
        bool got = false;
        assert_true(n < 2000);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        qd_code rc = qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "alc.x", "v", 1, QD_REV_ANY, NULL, &err);
        if (rc == QD_OK) rc = qd_bus_kv_get(h->a, QD_BUCKET_JOBS, "alc.x", &m, &err);
        if (rc == QD_OK) rc = qd_bus_kv_list(h->a, QD_BUCKET_JOBS, "alc.>", count_one, &keys, &err);
        if (rc == QD_OK) rc = qd_bus_purge(h->a, QD_STREAM_JOBS, job, QD_REV_ANY, NULL, &err);
        if (rc == QD_OK) rc = conformance_publish(h->a, job, "j1", NULL, QD_REV_ANY, &ack, &err);
        if (rc == QD_OK) rc = qd_bus_pull_open(h->a, &spec, &p, &err);
        if (rc == QD_OK) rc = qd_bus_pull_fetch(h->a, p, LONG_MS, &pulled, &got, &err);
        if (rc == QD_OK && got) rc = qd_bus_pull_ack(h->a, &pulled, &err);
        done = qd_fault_count(QD_FAULT_ALLOC) < n;
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        qd_bus_msg_done(&m);
        qd_bus_msg_done(&pulled);
        qd_bus_pull_close(h->a, p);
        if (done) {
            assert_int_equal(rc, QD_OK);
            assert_true(keys == 1 && got && n > 50);
        } else if (rc != QD_E_NO_MEMORY) {
            fail_msg("allocation %lu: %s: %s", n, qd_code_name(rc), err.msg);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(provisioning_is_idempotent_and_names_what_differs),
        T(an_old_server_is_warned_of),
        T(a_feed_larger_than_its_mailbox_loses_nothing),
        T(a_feeds_descriptor_is_readable_when_there_is_something_to_tell),
        T(foreign_messages_are_counted_and_nothing_else),
        T(a_feed_whose_consumer_is_lost_starts_again),
        T(a_failed_allocation_is_an_error),
        T(a_killed_server_is_away_and_comes_back_with_everything),
        T(a_bus_opens_before_its_server_is_there),
        T(a_greeting_that_is_cut_off_is_not_a_refusal),
#undef T
    };
    char command[600];
    (void)snprintf(command, sizeof command, "command -v '%s' >/dev/null", argc > 1 ? argv[1] : "");
    if (argc < 2 || argv[1][0] == '\0' || !test_shell(command)) {
        (void)printf("left out: no nats-server found at \"%s\"\n", argc > 1 ? argv[1] : "");
        return 77;
    }
    int failed = 1;
    if (test_server_init(&server, argv[1]) && test_server_start(&server)) {
        failed = conformance_run("bus_nats", setup, teardown);
        failed += cmocka_run_group_tests_name("bus_nats: a server that comes and goes", tests, NULL, NULL);
    } else {
        (void)fprintf(stderr, "%s does not start\n", argv[1]);
    }
    test_server_done(&server);
    nats_Close();
    return failed == 0 ? 0 : 1;
}
