/* conformance_queue.c -- lanes of the work queue. */
#include "tests/unit/bus/conformance.h"

#include "proto/subject.h"

#include <stdio.h>
#include <string.h>

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
    OK(conformance_publish(b, subject, text, NULL, QD_REV_ANY, &ack, &err));
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
    for (int i = 0; i < 3; i++)
        OK(conformance_publish(h->a, "quant.event.upto.w", "x", NULL, QD_REV_ANY, &ack[i], &err));
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
    FAILS(QD_E_CONFLICT, conformance_publish(h->b, l.job, "j1", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_stream(h->a, QD_STREAM_JOBS, &s, &err));
    int room = CONFORMANCE_QUEUE_MAX - (int)s.msgs;
    assert_true(room > 0 && s.bytes > 0 && s.last_seq >= s.first_seq);
    for (int i = 0; i < room; i++) {
        (void)snprintf(subject, sizeof subject, "%s-%d", l.job, i);
        queue(h->a, subject, "x");
    }
    FAILS(QD_E_FULL, conformance_publish(h->b, "quant.job.cpu.full.0.more", "x", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_purge(h->a, QD_STREAM_JOBS, l.job, QD_REV_ANY, &n, &err));
    OK(conformance_publish(h->b, "quant.job.cpu.full.0.more", "x", NULL, QD_REV_ANY, &ack, &err));
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

const struct CMUnitTest conformance_queue[] = {
    cmocka_unit_test(a_job_is_handed_out_once_and_gone_when_acknowledged),
    cmocka_unit_test(what_is_not_acknowledged_comes_again_and_a_stale_ack_counts),
    cmocka_unit_test(a_nak_brings_it_back_and_a_term_does_not),
    cmocka_unit_test(progress_keeps_it_from_coming_again),
    cmocka_unit_test(a_purged_job_is_never_handed_out),
    cmocka_unit_test(a_purge_stops_at_its_sequence),
    cmocka_unit_test(a_job_is_queued_once_and_a_full_queue_says_so),
    cmocka_unit_test(a_lane_has_one_consumer_with_one_set_up),
    cmocka_unit_test(a_lane_holds_back_what_is_above_its_limit),
};
const size_t conformance_queue_n = sizeof conformance_queue / sizeof conformance_queue[0];
