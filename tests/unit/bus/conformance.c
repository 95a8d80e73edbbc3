#include "tests/unit/bus/conformance.h"

#include "base/mem.h"
#include "proto/subject.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LONG_MS = 8000, /* far more than anything takes; over at once when it is there */
    ACK_WAIT_MS = 2000
};

void conformance_ok(qd_code rc, const qd_err *err, const char *what, int line)
{
    if (rc != QD_OK) fail_msg("line %d: %s: %s: %s", line, what, qd_code_name(rc), err->msg);
}

#define OK(call)                                       \
    do {                                               \
        qd_err err = {0};                              \
        conformance_ok((call), &err, #call, __LINE__); \
    } while (0)
#define FAILS(want, call)                                                                                    \
    do {                                                                                                     \
        qd_err err = {0};                                                                                    \
        qd_code rc = (call);                                                                                 \
        if (rc != (want))                                                                                    \
            fail_msg("line %d: %s: %s, expected %s: %s", __LINE__, #call, qd_code_name(rc), #want, err.msg); \
        assert_int_equal(err.code, want);                                                                    \
        assert_true(err.msg[0] != '\0');                                                                     \
    } while (0)

static uint64_t put(qd_bus *b, const char *key, const char *value, uint64_t expect)
{
    uint64_t rev = 0;
    OK(qd_bus_kv_put(b, QD_BUCKET_JOBS, key, value, strlen(value), expect, &rev, &err));
    assert_true(rev > 0);
    return rev;
}

static void holds(qd_bus *b, const char *key, const char *value, uint64_t rev)
{
    qd_bus_msg m = {0};
    OK(qd_bus_kv_get(b, QD_BUCKET_JOBS, key, &m, &err));
    assert_int_equal(m.bytes, strlen(value));
    assert_string_equal((const char *)m.data, value);
    assert_string_equal(m.key, key);
    assert_true(m.seq == rev);
    assert_true(m.time_ms > 0);
    assert_false(m.deleted);
    qd_bus_msg_done(&m);
}

static void a_key_is_created_once_and_changed_by_its_revision(void **state)
{
    harness *h = *state;
    qd_bus_msg m = {0};
    FAILS(QD_E_NOT_FOUND, qd_bus_kv_get(h->a, QD_BUCKET_JOBS, "job.k1", &m, &err));
    uint64_t r1 = put(h->a, "job.k1", "one", QD_REV_ABSENT);
    FAILS(QD_E_CONFLICT, qd_bus_kv_put(h->b, QD_BUCKET_JOBS, "job.k1", "x", 1, QD_REV_ABSENT, NULL, &err));
    holds(h->b, "job.k1", "one", r1);
    uint64_t r2 = put(h->b, "job.k1", "two", r1);
    assert_true(r2 > r1);
    FAILS(QD_E_CONFLICT, qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "job.k1", "x", 1, r1, NULL, &err));
    FAILS(QD_E_CONFLICT, qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "job.k1-never", "x", 1, r1, NULL, &err));
    holds(h->a, "job.k1", "two", r2);
    uint64_t r3 = put(h->a, "job.k1", "", QD_REV_ANY);
    holds(h->b, "job.k1", "", r3);
    (void)put(h->a, "job.k1-any", "v", QD_REV_ANY);
}

static void values_are_any_bytes(void **state)
{
    harness *h = *state;
    uint8_t all[1000];
    qd_bus_msg m = {0};
    for (size_t i = 0; i < sizeof all; i++) all[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n < sizeof all; n += 997 / 3 + 1) {
        OK(qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "job.bytes", all, n, QD_REV_ANY, NULL, &err));
        OK(qd_bus_kv_get(h->b, QD_BUCKET_JOBS, "job.bytes", &m, &err));
        assert_int_equal(m.bytes, n);
        assert_memory_equal(m.data, all, n);
        assert_int_equal(m.data[n], 0);
        qd_bus_msg_done(&m);
    }
}

static void a_deleted_key_is_absent_and_can_be_made_anew(void **state)
{
    harness *h = *state;
    qd_bus_msg m = {0};
    uint64_t r1 = put(h->a, "job.d1", "one", QD_REV_ABSENT);
    FAILS(QD_E_CONFLICT, qd_bus_kv_delete(h->b, QD_BUCKET_JOBS, "job.d1", r1 + 1000, &err));
    holds(h->a, "job.d1", "one", r1);
    OK(qd_bus_kv_delete(h->b, QD_BUCKET_JOBS, "job.d1", r1, &err));
    FAILS(QD_E_NOT_FOUND, qd_bus_kv_get(h->a, QD_BUCKET_JOBS, "job.d1", &m, &err));
    FAILS(QD_E_CONFLICT, qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "job.d1", r1, &err));
    FAILS(QD_E_CONFLICT, qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "job.d1", "x", 1, r1, NULL, &err));
    uint64_t r2 = put(h->a, "job.d1", "again", QD_REV_ABSENT);
    assert_true(r2 > r1);
    FAILS(QD_E_CONFLICT, qd_bus_kv_put(h->b, QD_BUCKET_JOBS, "job.d1", "x", 1, QD_REV_ABSENT, NULL, &err));
    holds(h->b, "job.d1", "again", r2);
    OK(qd_bus_kv_delete(h->b, QD_BUCKET_JOBS, "job.d1", QD_REV_ANY, &err));
    OK(qd_bus_kv_delete(h->b, QD_BUCKET_JOBS, "job.d1", QD_REV_ANY, &err));
    OK(qd_bus_kv_delete(h->b, QD_BUCKET_JOBS, "job.d-never", QD_REV_ANY, &err));
}

static void what_cannot_be_a_key_is_refused(void **state)
{
    harness *h = *state;
    static const char *const no[] = {"", ".", "a..b", "a.", ".a", "a b", "a*", "a.>", "a\n", "\xc3\xa4", "a.*.b"};
    qd_bus_msg m = {0};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        FAILS(QD_E_INPUT, qd_bus_kv_put(h->a, QD_BUCKET_JOBS, no[i], "x", 1, QD_REV_ANY, NULL, &err));
        FAILS(QD_E_INPUT, qd_bus_kv_get(h->a, QD_BUCKET_JOBS, no[i], &m, &err));
        FAILS(QD_E_INPUT, qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, no[i], QD_REV_ANY, &err));
    }
    FAILS(QD_E_INPUT, qd_bus_kv_put(h->a, "no.bucket", "a", "x", 1, QD_REV_ANY, NULL, &err));
    qd_bus_feed *f = NULL;
    FAILS(QD_E_INPUT, qd_bus_kv_watch(h->a, QD_BUCKET_JOBS, "a b", &f, &err));
    FAILS(QD_E_NOT_FOUND, qd_bus_kv_watch(h->a, "nosuch", ">", &f, &err));
}

static void what_is_too_large_is_refused_before_it_is_sent(void **state)
{
    harness *h = *state;
    size_t n = QD_MSG_BYTES_MAX + 1;
    char *big = qd_calloc(1, n);
    qd_bus_puback ack = {0};
    assert_non_null(big);
    qd_bus_pub p = {.subject = "quant.event.big.w", .data = big, .bytes = n, .expect_subject_seq = QD_REV_ANY};
    FAILS(QD_E_TOO_LARGE, qd_bus_publish(h->a, &p, &ack, &err));
    p.subject = "quant.job.cpu.big.0.j"; /* the stream's own limit is lower than the server's */
    p.bytes = 8192;
    FAILS(QD_E_TOO_LARGE, qd_bus_publish(h->a, &p, &ack, &err));
    FAILS(QD_E_TOO_LARGE, qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "job.big", big, n, QD_REV_ANY, NULL, &err));
    FAILS(QD_E_TOO_LARGE,
          qd_bus_kv_put(h->a, QD_BUCKET_JOBS, "job.big", big, QD_MSG_BYTES_MAX * 3 / 4, QD_REV_ANY, NULL, &err));
    qd_free(big);
}

static qd_code note_key(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    (void)err;
    char *list = ctx;
    size_t n = strlen(list);
    (void)snprintf(list + n, 200 - n, "%s=%s ", m->key, (const char *)m->data);
    return QD_OK;
}

static qd_code stop_at_once(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    ++*(int *)ctx;
    return qd_fail(err, QD_E_CANCELED, "enough at %s", m->key);
}

static void a_list_tells_each_key_that_matches_in_the_order_of_writes(void **state)
{
    harness *h = *state;
    char list[200] = "";
    int told = 0;
    (void)put(h->a, "lst.b", "1", QD_REV_ABSENT);
    (void)put(h->a, "lst.a", "2", QD_REV_ABSENT);
    (void)put(h->a, "lst.c.d", "3", QD_REV_ABSENT);
    (void)put(h->a, "lsu.x", "4", QD_REV_ABSENT);
    (void)put(h->b, "lst.b", "5", QD_REV_ANY);
    (void)put(h->b, "lst.gone", "6", QD_REV_ANY);
    OK(qd_bus_kv_delete(h->b, QD_BUCKET_JOBS, "lst.gone", QD_REV_ANY, &err));
    OK(qd_bus_kv_list(h->a, QD_BUCKET_JOBS, "lst.>", note_key, list, &err));
    assert_string_equal(list, "lst.a=2 lst.c.d=3 lst.b=5 ");
    list[0] = '\0';
    OK(qd_bus_kv_list(h->a, QD_BUCKET_JOBS, "lst.a", note_key, list, &err));
    assert_string_equal(list, "lst.a=2 ");
    list[0] = '\0';
    OK(qd_bus_kv_list(h->a, QD_BUCKET_JOBS, "none.>", note_key, list, &err));
    assert_string_equal(list, "");
    FAILS(QD_E_CANCELED, qd_bus_kv_list(h->a, QD_BUCKET_JOBS, "lst.>", stop_at_once, &told, &err));
    assert_int_equal(told, 1);
}

static qd_bus_feed_event next(qd_bus *b, qd_bus_feed *f, qd_bus_msg *ret)
{
    qd_bus_feed_event event = QD_FEED_NONE;
    qd_bus_msg_done(ret);
    OK(qd_bus_feed_next(b, f, LONG_MS, &event, ret, &err));
    return event;
}

static void a_watch_tells_what_is_there_then_what_changes(void **state)
{
    harness *h = *state;
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    uint64_t r1 = put(h->a, "wat.a", "1", QD_REV_ABSENT);
    uint64_t r2 = put(h->a, "wat.b", "2", QD_REV_ABSENT);
    (void)put(h->a, "wau.c", "3", QD_REV_ABSENT);
    OK(qd_bus_kv_watch(h->b, QD_BUCKET_JOBS, "wat.>", &f, &err));
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal(m.key, "wat.a");
    assert_true(m.seq == r1);
    uint64_t t1 = m.time_ms;
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal(m.key, "wat.b");
    assert_string_equal((const char *)m.data, "2");
    assert_true(m.seq == r2);
    assert_true(m.time_ms >= t1 && t1 > 0);
    assert_int_equal(next(h->b, f, &m), QD_FEED_SYNCED);
    uint64_t r3 = put(h->a, "wat.a", "4", r1);
    (void)put(h->a, "wau.c", "5", QD_REV_ANY);
    OK(qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "wat.b", r2, &err));
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal(m.key, "wat.a");
    assert_true(m.seq == r3);
    assert_false(m.deleted);
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal(m.key, "wat.b");
    assert_true(m.deleted);
    assert_int_equal(m.bytes, 0);
    qd_bus_msg_done(&m);
    qd_bus_feed_event event = QD_FEED_MSG;
    OK(qd_bus_feed_next(h->b, f, 0, &event, &m, &err));
    assert_int_equal(event, QD_FEED_NONE);
    qd_bus_feed_close(h->b, f);
}

static void a_watch_of_nothing_is_synced_at_once(void **state)
{
    harness *h = *state;
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    OK(qd_bus_kv_watch(h->b, QD_BUCKET_JOBS, "empty.>", &f, &err));
    assert_int_equal(next(h->b, f, &m), QD_FEED_SYNCED);
    (void)put(h->a, "empty.a", "1", QD_REV_ABSENT);
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal(m.key, "empty.a");
    qd_bus_msg_done(&m);
    qd_bus_feed_close(h->b, f);
}

static void markers_are_taken_away_and_nothing_else(void **state)
{
    harness *h = *state;
    char list[200] = "";
    uint64_t n = 0;
    qd_bus_stream_state before = {0}, after = {0};
    (void)put(h->a, "cmp.stays", "1", QD_REV_ABSENT);
    (void)put(h->a, "cmp.gone", "2", QD_REV_ABSENT);
    OK(qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "cmp.gone", QD_REV_ANY, &err));
    (void)put(h->a, "cmp.anew", "3", QD_REV_ABSENT);
    OK(qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "cmp.anew", QD_REV_ANY, &err));
    (void)put(h->a, "cmp.anew", "4", QD_REV_ABSENT);
    OK(qd_bus_stream(h->a, "KV_" QD_BUCKET_JOBS, &before, &err));
    OK(qd_bus_kv_compact(h->a, QD_BUCKET_JOBS, "cmp.>", 1, &n, &err));
    assert_int_equal(n, 0);
    OK(qd_bus_kv_compact(h->a, QD_BUCKET_JOBS, "cmp.>", UINT64_MAX, &n, &err));
    assert_int_equal(n, 1);
    OK(qd_bus_stream(h->a, "KV_" QD_BUCKET_JOBS, &after, &err));
    assert_true(before.msgs == after.msgs + 1);
    OK(qd_bus_kv_list(h->a, QD_BUCKET_JOBS, "cmp.>", note_key, list, &err));
    assert_string_equal(list, "cmp.stays=1 cmp.anew=4 ");
    (void)put(h->a, "cmp.gone", "5", QD_REV_ABSENT);
}

static qd_code publish(qd_bus *b, const char *subject, const char *text, const char *id, uint64_t expect,
                       qd_bus_puback *ret, qd_err *err)
{
    qd_bus_pub p = {
        .subject = subject, .data = text, .bytes = strlen(text), .msg_id = id, .expect_subject_seq = expect};
    return qd_bus_publish(b, &p, ret, err);
}

static void a_message_is_stored_once_under_its_id(void **state)
{
    harness *h = *state;
    qd_bus_puback one = {0}, two = {0};
    OK(publish(h->a, "quant.event.id.w", "1", "id-1", QD_REV_ANY, &one, &err));
    assert_false(one.duplicate);
    OK(publish(h->b, "quant.event.id.w", "1", "id-1", QD_REV_ANY, &two, &err));
    assert_true(two.duplicate);
    assert_true(one.seq == two.seq);
    OK(publish(h->b, "quant.event.id.w", "2", "id-2", QD_REV_ANY, &two, &err));
    assert_true(two.seq > one.seq && !two.duplicate);
    FAILS(QD_E_CONFLICT, publish(h->a, "quant.event.id.w", "3", NULL, one.seq, &two, &err));
    OK(publish(h->a, "quant.event.id.w", "3", NULL, two.seq, &two, &err));
    FAILS(QD_E_CONFLICT, publish(h->a, "quant.event.id.w", "4", NULL, 0, &two, &err));
    OK(publish(h->a, "quant.event.id.other", "4", NULL, 0, &two, &err));
    FAILS(QD_E_REFUSED, publish(h->a, "quant.nowhere", "x", NULL, QD_REV_ANY, &two, &err));
    FAILS(QD_E_INPUT, publish(h->a, "quant.event.*.w", "x", NULL, QD_REV_ANY, &two, &err));
    FAILS(QD_E_INPUT, publish(h->a, "quant.event.a b.w", "x", NULL, QD_REV_ANY, &two, &err));
    FAILS(QD_E_INPUT, publish(h->a, "quant.event.a.w", "x", "a\r\nb", QD_REV_ANY, &two, &err));
}

static void a_feed_tells_a_stream_from_a_sequence_on_with_headers(void **state)
{
    harness *h = *state;
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    qd_bus_puback ack[4] = {{0}};
    const qd_bus_header headers[] = {{QD_HEADER_EPOCH, "7"}, {QD_HEADER_LINE, "1"}};
    for (int i = 0; i < 3; i++) {
        char text[] = {(char)('a' + i), '\0'};
        qd_bus_pub p = {.subject = "quant.event.fed.w",
                        .data = text,
                        .bytes = 1,
                        .expect_subject_seq = QD_REV_ANY,
                        .headers = headers,
                        .n_headers = 2,
                        .bulk = i == 1};
        OK(qd_bus_publish(h->a, &p, &ack[i], &err));
        OK(publish(h->a, "quant.event.not.w", "x", NULL, QD_REV_ANY, &ack[3], &err));
    }
    qd_bus_feed_spec spec = {
        .stream = QD_STREAM_EVENTS, .filter = "quant.event.fed.*", .start = QD_FEED_FROM_SEQ, .from_seq = ack[1].seq};
    OK(qd_bus_feed_open(h->b, &spec, &f, &err));
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal((const char *)m.data, "b");
    assert_string_equal(m.subject, "quant.event.fed.w");
    assert_null(m.key);
    assert_string_equal(qd_bus_msg_header(&m, QD_HEADER_EPOCH), "7");
    assert_string_equal(qd_bus_msg_header(&m, QD_HEADER_LINE), "1");
    assert_null(qd_bus_msg_header(&m, "Nothing"));
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_true(m.seq == ack[2].seq);
    assert_int_equal(next(h->b, f, &m), QD_FEED_SYNCED);
    OK(publish(h->a, "quant.event.fed.v", "d", NULL, QD_REV_ANY, &ack[3], &err));
    assert_int_equal(next(h->b, f, &m), QD_FEED_MSG);
    assert_string_equal((const char *)m.data, "d");
    assert_int_equal(m.n_headers, 0);
    qd_bus_feed_close(h->b, f);
    spec.from_seq = ack[3].seq + 1000; /* behind the end */
    spec.bulk = true;
    OK(qd_bus_feed_open(h->b, &spec, &f, &err));
    assert_int_equal(next(h->b, f, &m), QD_FEED_SYNCED);
    qd_bus_feed_close(h->b, f);
    qd_bus_msg_done(&m);
}

typedef struct lane_of_test {
    char durable[QD_SUBJECT_BYTES], filter[QD_SUBJECT_BYTES], job[QD_SUBJECT_BYTES];
    qd_bus_pull_spec spec;
} lane_of_test;

static void lane_named(const char *name, lane_of_test *ret)
{
    qd_lane lane = {.device_class = "cpu"};
    (void)snprintf(lane.numerics_id, sizeof lane.numerics_id, "%s", name);
    OK(qd_subject_lane(&lane, ret->filter, ret->durable, &err));
    OK(qd_subject_job(&lane, "j1", ret->job, &err));
    ret->spec = (qd_bus_pull_spec){
        .stream = QD_STREAM_JOBS, .durable = ret->durable, .filter = ret->filter, .ack_wait_ms = ACK_WAIT_MS};
}

static qd_bus_pull *pull(qd_bus *b, const lane_of_test *l)
{
    qd_bus_pull *p = NULL;
    OK(qd_bus_pull_open(b, &l->spec, &p, &err));
    return p;
}

static bool fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret)
{
    bool got = false;
    qd_bus_msg_done(ret);
    OK(qd_bus_pull_fetch(b, p, wait_ms, ret, &got, &err));
    return got;
}

static void queue(qd_bus *b, const char *subject, const char *text)
{
    qd_bus_puback ack = {0};
    OK(publish(b, subject, text, NULL, QD_REV_ANY, &ack, &err));
}

static void a_job_is_handed_out_once_and_gone_when_acknowledged(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_msg m = {0}, none = {0};
    lane_named("once", &l);
    qd_bus_pull *p = pull(h->a, &l), *q = pull(h->b, &l);
    assert_false(fetch(h->a, p, 0, &m));
    assert_false(fetch(h->a, p, 50, &m));
    queue(h->b, l.job, "j1");
    assert_true(fetch(h->a, p, LONG_MS, &m));
    assert_string_equal((const char *)m.data, "j1");
    assert_string_equal(m.subject, l.job);
    assert_int_equal(m.delivered, 1);
    assert_true(m.seq > 0 && m.time_ms > 0);
    assert_false(fetch(h->b, q, 100, &none));
    OK(qd_bus_pull_ack(h->a, &m, &err));
    OK(qd_bus_pull_ack(h->a, &m, &err));
    assert_false(fetch(h->b, q, ACK_WAIT_MS + 500, &none));
    queue(h->a, l.job, "j1 again"); /* its subject is free */
    assert_true(fetch(h->b, q, LONG_MS, &m));
    OK(qd_bus_pull_ack(h->b, &m, &err));
    qd_bus_msg_done(&m);
    qd_bus_pull_close(h->a, p);
    qd_bus_pull_close(h->b, q);
}

static void what_is_not_acknowledged_comes_again_and_a_stale_ack_counts(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_msg first = {0}, second = {0}, none = {0};
    lane_named("again", &l);
    l.spec.ack_wait_ms = 500;
    qd_bus_pull *p = pull(h->a, &l), *q = pull(h->b, &l);
    queue(h->a, l.job, "j1");
    assert_true(fetch(h->a, p, LONG_MS, &first));
    assert_true(fetch(h->b, q, LONG_MS, &second));
    assert_true(second.seq == first.seq);
    assert_int_equal(second.delivered, 2);
    OK(qd_bus_pull_ack(h->a, &first, &err)); /* by him who has lost it: JetStream has no fence */
    assert_false(fetch(h->b, q, 1500, &none));
    OK(qd_bus_pull_ack(h->b, &second, &err));
    qd_bus_msg_done(&first);
    qd_bus_msg_done(&second);
    qd_bus_pull_close(h->a, p);
    qd_bus_pull_close(h->b, q);
}

static void a_nak_brings_it_back_and_a_term_does_not(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_msg m = {0}, none = {0};
    lane_named("nak", &l);
    l.spec.ack_wait_ms = 60000;
    qd_bus_pull *p = pull(h->a, &l), *q = pull(h->b, &l);
    queue(h->a, l.job, "j1");
    assert_true(fetch(h->a, p, LONG_MS, &m));
    OK(qd_bus_pull_nak(h->a, &m, 0, &err));
    assert_true(fetch(h->b, q, LONG_MS, &m));
    assert_int_equal(m.delivered, 2);
    OK(qd_bus_pull_nak(h->b, &m, 1500, &err));
    assert_false(fetch(h->a, p, 200, &none));
    assert_true(fetch(h->a, p, LONG_MS, &m));
    assert_int_equal(m.delivered, 3);
    OK(qd_bus_pull_term(h->a, &m, &err));
    assert_false(fetch(h->b, q, 300, &none));
    queue(h->a, l.job, "another"); /* its subject is free */
    assert_true(fetch(h->b, q, LONG_MS, &m));
    OK(qd_bus_pull_ack(h->b, &m, &err));
    qd_bus_msg_done(&m);
    qd_bus_pull_close(h->a, p);
    qd_bus_pull_close(h->b, q);
}

static void progress_keeps_it_from_coming_again(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_msg m = {0}, none = {0};
    lane_named("progress", &l);
    qd_bus_pull *p = pull(h->a, &l), *q = pull(h->b, &l);
    queue(h->a, l.job, "j1");
    assert_true(fetch(h->a, p, LONG_MS, &m));
    for (int i = 0; i < 12; i++) {
        OK(qd_bus_pull_progress(h->a, &m, &err));
        assert_false(fetch(h->b, q, ACK_WAIT_MS / 8, &none));
    }
    assert_true(fetch(h->b, q, LONG_MS, &m));
    OK(qd_bus_pull_ack(h->b, &m, &err));
    qd_bus_msg_done(&m);
    qd_bus_pull_close(h->a, p);
    qd_bus_pull_close(h->b, q);
}

static void a_purged_job_is_never_handed_out(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_msg m = {0};
    uint64_t n = 0;
    char other[QD_SUBJECT_BYTES + 4];
    lane_named("purge", &l);
    (void)snprintf(other, sizeof other, "%s-2", l.job);
    qd_bus_pull *p = pull(h->a, &l);
    queue(h->a, l.job, "j1");
    queue(h->a, other, "j2");
    OK(qd_bus_purge(h->b, QD_STREAM_JOBS, l.job, QD_REV_ANY, &n, &err));
    assert_int_equal(n, 1);
    OK(qd_bus_purge(h->b, QD_STREAM_JOBS, l.job, QD_REV_ANY, &n, &err));
    assert_int_equal(n, 0);
    assert_true(fetch(h->a, p, LONG_MS, &m));
    assert_string_equal((const char *)m.data, "j2");
    OK(qd_bus_pull_ack(h->a, &m, &err));
    assert_false(fetch(h->a, p, 50, &m));
    FAILS(QD_E_NOT_FOUND, qd_bus_purge(h->b, "NO_STREAM", l.job, QD_REV_ANY, &n, &err));
    qd_bus_msg_done(&m);
    qd_bus_pull_close(h->a, p);
}

static void a_purge_stops_at_its_sequence(void **state)
{
    harness *h = *state;
    qd_bus_puback ack[3] = {{0}};
    uint64_t n = 0;
    for (int i = 0; i < 3; i++) OK(publish(h->a, "quant.event.upto.w", "x", NULL, QD_REV_ANY, &ack[i], &err));
    OK(qd_bus_purge(h->a, QD_STREAM_EVENTS, "quant.event.upto.w", ack[1].seq, &n, &err));
    assert_int_equal(n, 2);
    OK(qd_bus_purge(h->a, QD_STREAM_EVENTS, "quant.event.upto.w", QD_REV_ANY, &n, &err));
    assert_int_equal(n, 1);
}

static void a_job_is_queued_once_and_a_full_queue_says_so(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_puback ack = {0};
    qd_bus_stream_state s = {0};
    uint64_t n = 0;
    char subject[QD_SUBJECT_BYTES + 16];
    lane_named("full", &l);
    queue(h->a, l.job, "j1");
    FAILS(QD_E_CONFLICT, publish(h->b, l.job, "j1", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_stream(h->a, QD_STREAM_JOBS, &s, &err));
    int room = CONFORMANCE_QUEUE_MAX - (int)s.msgs;
    assert_true(room > 0 && s.bytes > 0 && s.last_seq >= s.first_seq);
    for (int i = 0; i < room; i++) {
        (void)snprintf(subject, sizeof subject, "%s-%d", l.job, i);
        queue(h->a, subject, "x");
    }
    FAILS(QD_E_FULL, publish(h->b, "quant.job.cpu.full.0.more", "x", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_purge(h->a, QD_STREAM_JOBS, l.job, QD_REV_ANY, &n, &err));
    OK(publish(h->b, "quant.job.cpu.full.0.more", "x", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_purge(h->a, QD_STREAM_JOBS, "quant.job.cpu.full.0.more", QD_REV_ANY, &n, &err));
    for (int i = 0; i < room; i++) {
        (void)snprintf(subject, sizeof subject, "%s-%d", l.job, i);
        OK(qd_bus_purge(h->a, QD_STREAM_JOBS, subject, QD_REV_ANY, &n, &err));
    }
    qd_bus_stream_state now = {0};
    OK(qd_bus_stream(h->a, QD_STREAM_JOBS, &now, &err));
    assert_true(now.msgs == s.msgs - 1);
    FAILS(QD_E_NOT_FOUND, qd_bus_stream(h->a, "NO_STREAM", &now, &err));
}

static void a_lane_has_one_consumer_with_one_set_up(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_pull *p = NULL;
    lane_named("setup", &l);
    qd_bus_pull *first = pull(h->a, &l);
    qd_bus_pull_spec other = l.spec;
    other.ack_wait_ms = ACK_WAIT_MS * 2;
    FAILS(QD_E_REFUSED, qd_bus_pull_open(h->b, &other, &p, &err));
    other = l.spec;
    other.filter = "quant.job.cpu.setup.9.*";
    FAILS(QD_E_REFUSED, qd_bus_pull_open(h->b, &other, &p, &err));
    other = l.spec;
    other.durable = "second";
    FAILS(QD_E_REFUSED, qd_bus_pull_open(h->b, &other, &p, &err));
    other.stream = "NO_STREAM";
    FAILS(QD_E_NOT_FOUND, qd_bus_pull_open(h->b, &other, &p, &err));
    assert_null(p);
    qd_bus_pull_close(h->a, first);
}

static void a_lane_holds_back_what_is_above_its_limit(void **state)
{
    harness *h = *state;
    lane_of_test l;
    qd_bus_msg one = {0}, two = {0};
    char other[QD_SUBJECT_BYTES + 4];
    lane_named("limit", &l);
    l.spec.ack_pending_max = 1;
    l.spec.ack_wait_ms = 60000;
    (void)snprintf(other, sizeof other, "%s-2", l.job);
    qd_bus_pull *p = pull(h->a, &l), *q = pull(h->b, &l);
    queue(h->a, l.job, "j1");
    queue(h->a, other, "j2");
    assert_true(fetch(h->a, p, LONG_MS, &one));
    assert_false(fetch(h->b, q, 200, &two));
    OK(qd_bus_pull_ack(h->a, &one, &err));
    assert_true(fetch(h->b, q, LONG_MS, &two));
    assert_string_equal((const char *)two.data, "j2");
    OK(qd_bus_pull_ack(h->b, &two, &err));
    qd_bus_msg_done(&one);
    qd_bus_msg_done(&two);
    qd_bus_pull_close(h->a, p);
    qd_bus_pull_close(h->b, q);
}

static void times_are_the_servers_and_tell_an_age(void **state)
{
    harness *h = *state;
    qd_bus_msg lease = {0}, beat = {0};
    (void)put(h->a, "tim.lease", "x", QD_REV_ANY);
    h->sleep_ms(h->ctx, 300);
    (void)put(h->b, "tim.beat", "x", QD_REV_ANY);
    OK(qd_bus_kv_get(h->b, QD_BUCKET_JOBS, "tim.lease", &lease, &err));
    OK(qd_bus_kv_get(h->b, QD_BUCKET_JOBS, "tim.beat", &beat, &err));
    assert_true(beat.time_ms - lease.time_ms >= 290 && beat.time_ms - lease.time_ms < 60000);
    qd_bus_msg_done(&lease);
    qd_bus_msg_done(&beat);
}

static void a_client_knows_that_it_is_connected(void **state)
{
    harness *h = *state;
    qd_bus_state s = {0};
    h->sleep_ms(h->ctx, 5);
    qd_bus_state_get(h->a, &s);
    assert_true(s.connected);
    assert_int_equal(s.connects, 1);
    assert_true(s.connected_ms >= 5);
    assert_int_equal(s.malformed, 0);
    qd_bus_msg_done(NULL);
    qd_bus_free(NULL);
    qd_bus_feed_close(h->a, NULL);
    qd_bus_pull_close(h->a, NULL);
}

const struct CMUnitTest conformance_tests[] = {
    cmocka_unit_test(a_key_is_created_once_and_changed_by_its_revision),
    cmocka_unit_test(values_are_any_bytes),
    cmocka_unit_test(a_deleted_key_is_absent_and_can_be_made_anew),
    cmocka_unit_test(what_cannot_be_a_key_is_refused),
    cmocka_unit_test(what_is_too_large_is_refused_before_it_is_sent),
    cmocka_unit_test(a_list_tells_each_key_that_matches_in_the_order_of_writes),
    cmocka_unit_test(a_watch_tells_what_is_there_then_what_changes),
    cmocka_unit_test(a_watch_of_nothing_is_synced_at_once),
    cmocka_unit_test(markers_are_taken_away_and_nothing_else),
    cmocka_unit_test(a_message_is_stored_once_under_its_id),
    cmocka_unit_test(a_feed_tells_a_stream_from_a_sequence_on_with_headers),
    cmocka_unit_test(a_job_is_handed_out_once_and_gone_when_acknowledged),
    cmocka_unit_test(what_is_not_acknowledged_comes_again_and_a_stale_ack_counts),
    cmocka_unit_test(a_nak_brings_it_back_and_a_term_does_not),
    cmocka_unit_test(progress_keeps_it_from_coming_again),
    cmocka_unit_test(a_purged_job_is_never_handed_out),
    cmocka_unit_test(a_purge_stops_at_its_sequence),
    cmocka_unit_test(a_job_is_queued_once_and_a_full_queue_says_so),
    cmocka_unit_test(a_lane_has_one_consumer_with_one_set_up),
    cmocka_unit_test(a_lane_holds_back_what_is_above_its_limit),
    cmocka_unit_test(times_are_the_servers_and_tell_an_age),
    cmocka_unit_test(a_client_knows_that_it_is_connected),
};
const size_t conformance_n = sizeof conformance_tests / sizeof conformance_tests[0];
