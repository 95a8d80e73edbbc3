#include "tests/unit/bus/conformance.h"

#include "base/hash.h"
#include "base/mem.h"
#include "proto/subject.h"

#include <stdio.h>
#include <string.h>

void conformance_ok(qd_code rc, const qd_err *err, const char *what, int line)
{
    if (rc != QD_OK) fail_msg("line %d: %s: %s: %s", line, what, qd_code_name(rc), err->msg);
}

qd_code conformance_publish(qd_bus *b, const char *subject, const char *text, const char *id, uint64_t expect,
                            qd_bus_puback *ret, qd_err *err)
{
    qd_bus_pub p = {
        .subject = subject, .data = text, .bytes = strlen(text), .msg_id = id, .expect_subject_seq = expect};
    return qd_bus_publish(b, &p, ret, err);
}

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
    qd_bus_puback ack = {0}; /* to a plain publish, a marker is a message */
    FAILS(QD_E_CONFLICT, conformance_publish(h->a, "$KV.jobs.job.d1", "x", NULL, 0, &ack, &err));
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

static void a_message_is_stored_once_under_its_id(void **state)
{
    harness *h = *state;
    qd_bus_puback one = {0}, two = {0};
    OK(conformance_publish(h->a, "quant.event.id.w", "1", "id-1", QD_REV_ANY, &one, &err));
    assert_false(one.duplicate);
    OK(conformance_publish(h->b, "quant.event.id.w", "1", "id-1", QD_REV_ANY, &two, &err));
    assert_true(two.duplicate);
    assert_true(one.seq == two.seq);
    OK(conformance_publish(h->b, "quant.event.id.w", "2", "id-2", QD_REV_ANY, &two, &err));
    assert_true(two.seq > one.seq && !two.duplicate);
    FAILS(QD_E_CONFLICT, conformance_publish(h->a, "quant.event.id.w", "3", NULL, one.seq, &two, &err));
    OK(conformance_publish(h->a, "quant.event.id.w", "3", NULL, two.seq, &two, &err));
    FAILS(QD_E_CONFLICT, conformance_publish(h->a, "quant.event.id.w", "4", NULL, 0, &two, &err));
    OK(conformance_publish(h->a, "quant.event.id.other", "4", NULL, 0, &two, &err));
    FAILS(QD_E_REFUSED, conformance_publish(h->a, "quant.nowhere", "x", NULL, QD_REV_ANY, &two, &err));
    FAILS(QD_E_INPUT, conformance_publish(h->a, "quant.event.*.w", "x", NULL, QD_REV_ANY, &two, &err));
    FAILS(QD_E_INPUT, conformance_publish(h->a, "quant.event.a b.w", "x", NULL, QD_REV_ANY, &two, &err));
    FAILS(QD_E_INPUT, conformance_publish(h->a, "quant.event.a.w", "x", "a\r\nb", QD_REV_ANY, &two, &err));
}

/* Hints come by themselves, a moment later than the answer of the write. Until the last one is of this text. */
static void hears(harness *h, qd_bus_hint *hint, const char *text)
{
    qd_bus_news news = {0};
    uint64_t want = qd_hash64(text, strlen(text), 0), n = 0;
    for (int i = 0; i < 400 && (n == 0 || news.hash != want); i++) {
        qd_bus_news more = {0};
        qd_bus_hint_take(h->b, hint, &more);
        n += more.n;
        if (more.n != 0) news = more;
        if (more.n == 0) h->sleep_ms(h->ctx, 20);
    }
    assert_true(n > 0);
    assert_true(news.hash == want);
}

static void a_hint_tells_that_something_was_written_and_what_its_hash_is(void **state)
{
    harness *h = *state;
    qd_bus_hint *hint = NULL;
    qd_bus_news news = {.n = 7};
    FAILS(QD_E_INPUT, qd_bus_hint_open(h->b, "$KV.jobs.job.*", &hint, &err));
    (void)put(h->a, "job.hinted", "before", QD_REV_ABSENT);
    OK(qd_bus_hint_open(h->b, "$KV.jobs.job.hinted", &hint, &err));
    qd_bus_msg m = {0};
    OK(qd_bus_kv_get(h->b, QD_BUCKET_JOBS, "job.hinted", &m, &err)); /* from now on the server knows of it */
    qd_bus_msg_done(&m);
    qd_bus_hint_take(h->b, hint, &news);
    assert_int_equal(news.n, 0);
    (void)put(h->a, "job.hinted-not", "other", QD_REV_ABSENT);
    (void)put(h->a, "job.hinted", "one", QD_REV_ANY);
    hears(h, hint, "one");
    (void)put(h->a, "job.hinted", "two", QD_REV_ANY);
    (void)put(h->b, "job.hinted", "three", QD_REV_ANY);
    hears(h, hint, "three");
    OK(qd_bus_kv_delete(h->a, QD_BUCKET_JOBS, "job.hinted", QD_REV_ANY, &err));
    hears(h, hint, "");
    qd_bus_hint_take(h->b, hint, &news);
    assert_int_equal(news.n, 0);
    qd_bus_hint_close(h->b, hint);
    qd_bus_hint_close(h->b, NULL);
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
        OK(conformance_publish(h->a, "quant.event.not.w", "x", NULL, QD_REV_ANY, &ack[3], &err));
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
    OK(conformance_publish(h->a, "quant.event.fed.v", "d", NULL, QD_REV_ANY, &ack[3], &err));
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

const struct CMUnitTest conformance_kv[] = {
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
    cmocka_unit_test(a_hint_tells_that_something_was_written_and_what_its_hash_is),
    cmocka_unit_test(a_feed_tells_a_stream_from_a_sequence_on_with_headers),
    cmocka_unit_test(times_are_the_servers_and_tell_an_age),
    cmocka_unit_test(a_client_knows_that_it_is_connected),
};
const size_t conformance_kv_n = sizeof conformance_kv / sizeof conformance_kv[0];

static int run(const char *group, const struct CMUnitTest *tests, size_t n, CMFixtureFunction setup,
               CMFixtureFunction teardown)
{
    struct CMUnitTest copy[32];
    if (n > sizeof copy / sizeof copy[0]) return 1;
    for (size_t i = 0; i < n; i++) {
        copy[i] = tests[i];
        copy[i].setup_func = setup;
        copy[i].teardown_func = teardown;
    }
    return _cmocka_run_group_tests(group, copy, n, NULL, NULL);
}

int conformance_run(const char *bus, CMFixtureFunction setup, CMFixtureFunction teardown)
{
    char kv[64], queue[64];
    (void)snprintf(kv, sizeof kv, "%s: keys and feeds", bus);
    (void)snprintf(queue, sizeof queue, "%s: lanes", bus);
    return run(kv, conformance_kv, conformance_kv_n, setup, teardown) +
           run(queue, conformance_queue, conformance_queue_n, setup, teardown);
}
