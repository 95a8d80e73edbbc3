/* test_bus_mem_faults.c -- the faults of the bus in process are those it was asked for, and the same for the same seed.
 */
#include "tests/unit/bus/conformance.h"

#include "base/fault.h"
#include "base/hash.h"
#include "bus/bus_mem.h"
#include "proto/subject.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALWAYS = 65536
};

typedef struct world {
    qd_bus_mem *mem;
    qd_bus *a, *b;
} world;

static world make(uint64_t seed, const qd_bus_mem_hooks *hooks)
{
    world w = {0};
    OK(qd_bus_mem_new(seed, 1000, hooks, &w.mem, &err));
    OK(qd_bus_mem_client(w.mem, "a", &w.a, &err));
    OK(qd_bus_mem_client(w.mem, "b", &w.b, &err));
    return w;
}

static void end(world *w)
{
    qd_bus_free(w->a);
    qd_bus_free(w->b);
    qd_bus_mem_free(w->mem);
}

static uint64_t put(qd_bus *b, const char *key, const char *value, uint64_t expect)
{
    uint64_t rev = 0;
    OK(qd_bus_kv_put(b, QD_BUCKET_JOBS, key, value, strlen(value), expect, &rev, &err));
    return rev;
}

static bool is(qd_bus *b, const char *key, const char *value)
{
    qd_bus_msg m = {0};
    if (qd_bus_kv_get(b, QD_BUCKET_JOBS, key, &m, NULL) != QD_OK) return value == NULL;
    bool same = value != NULL && strcmp((const char *)m.data, value) == 0;
    qd_bus_msg_done(&m);
    return same;
}

static void a_lost_request_does_nothing_and_takes_its_time(void **state)
{
    (void)state;
    world w = make(1, NULL);
    qd_bus_mem_faults f = {.lose_request = ALWAYS, .away_ms = 2000};
    qd_bus_mem_set_faults(w.mem, &f);
    FAILS(QD_E_AWAY, qd_bus_kv_put(w.a, QD_BUCKET_JOBS, "job.x", "v", 1, QD_REV_ABSENT, NULL, &err));
    assert_int_equal(qd_bus_mem_now_ms(w.mem), 3000);
    qd_bus_mem_set_faults(w.mem, NULL);
    assert_true(is(w.b, "job.x", NULL));
    end(&w);
}

static void a_lost_reply_has_done_it(void **state)
{
    (void)state;
    world w = make(1, NULL);
    qd_bus_mem_faults f = {.lose_reply = ALWAYS, .away_ms = 2000};
    qd_bus_puback ack = {0};
    qd_bus_msg m = {0};
    qd_bus_mem_set_faults(w.mem, &f);
    FAILS(QD_E_AWAY, qd_bus_kv_put(w.a, QD_BUCKET_JOBS, "job.x", "v", 1, QD_REV_ABSENT, NULL, &err));
    FAILS(QD_E_AWAY, conformance_publish(w.a, "quant.event.j.w", "e", "id-1", QD_REV_ANY, &ack, &err));
    FAILS(QD_E_AWAY, qd_bus_kv_get(w.a, QD_BUCKET_JOBS, "job.x", &m, &err));
    assert_null(m.block);
    qd_bus_mem_set_faults(w.mem, NULL);
    assert_true(is(w.b, "job.x", "v"));
    OK(conformance_publish(w.a, "quant.event.j.w", "e", "id-1", QD_REV_ANY, &ack, &err));
    assert_true(ack.duplicate); /* as bus.h says: publish the same again */
    end(&w);
}

static void a_late_write_happens_after_its_caller_was_told_away(void **state)
{
    (void)state;
    world w = make(1, NULL);
    qd_bus_mem_faults f = {.late = ALWAYS, .away_ms = 1000, .late_ms_max = 500};
    uint64_t r1 = put(w.a, "job.x", "one", QD_REV_ABSENT);
    qd_bus_mem_set_faults(w.mem, &f);
    FAILS(QD_E_AWAY, qd_bus_kv_put(w.a, QD_BUCKET_JOBS, "job.x", "late", 4, r1, NULL, &err));
    FAILS(QD_E_AWAY, qd_bus_kv_put(w.a, QD_BUCKET_JOBS, "job.y", "late", 4, QD_REV_ABSENT, NULL, &err));
    qd_bus_mem_set_faults(w.mem, NULL);
    qd_bus_mem_set_now_ms(w.mem, qd_bus_mem_now_ms(w.mem) + 600);
    assert_true(is(w.b, "job.x", "late"));
    assert_true(is(w.b, "job.y", "late"));
    /* What somebody else wrote meanwhile stays: the late one's expectation no longer holds. */
    uint64_t r2 = put(w.a, "job.z", "one", QD_REV_ABSENT);
    qd_bus_mem_set_faults(w.mem, &f);
    FAILS(QD_E_AWAY, qd_bus_kv_put(w.a, QD_BUCKET_JOBS, "job.z", "late", 4, r2, NULL, &err));
    qd_bus_mem_set_faults(w.mem, NULL);
    qd_bus_msg m = {0};
    OK(qd_bus_kv_get(w.b, QD_BUCKET_JOBS, "job.z", &m, &err));
    if (strcmp((const char *)m.data, "one") == 0) {
        (void)put(w.b, "job.z", "two", m.seq);
        qd_bus_mem_set_now_ms(w.mem, qd_bus_mem_now_ms(w.mem) + 600);
        assert_true(is(w.b, "job.z", "two"));
    }
    qd_bus_msg_done(&m);
    end(&w);
}

static void late_acks_and_purges_happen_too(void **state)
{
    (void)state;
    world w = make(5, NULL);
    qd_bus_mem_faults f = {.late = ALWAYS, .away_ms = 100, .late_ms_max = 50};
    qd_bus_pull_spec spec = {
        .stream = QD_STREAM_JOBS, .durable = "d", .filter = "quant.job.cpu.any.0.*", .ack_wait_ms = 60000};
    qd_bus_pull *p = NULL;
    qd_bus_puback ack = {0};
    qd_bus_msg m = {0};
    qd_bus_stream_state s = {0};
    bool got = false;
    OK(conformance_publish(w.a, "quant.job.cpu.any.0.j1", "1", NULL, QD_REV_ANY, &ack, &err));
    OK(conformance_publish(w.a, "quant.job.cpu.any.0.j2", "2", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_pull_open(w.a, &spec, &p, &err));
    OK(qd_bus_pull_fetch(w.a, p, 0, &m, &got, &err));
    assert_true(got);
    qd_bus_mem_set_faults(w.mem, &f);
    FAILS(QD_E_AWAY, qd_bus_pull_ack(w.a, &m, &err));
    FAILS(QD_E_AWAY, qd_bus_purge(w.a, QD_STREAM_JOBS, "quant.job.cpu.any.0.j2", QD_REV_ANY, NULL, &err));
    FAILS(QD_E_AWAY, conformance_publish(w.a, "quant.job.cpu.any.0.j3", "3", "id-3", QD_REV_ANY, &ack, &err));
    qd_bus_mem_set_faults(w.mem, NULL);
    qd_bus_mem_set_now_ms(w.mem, qd_bus_mem_now_ms(w.mem) + 1000);
    OK(qd_bus_stream(w.a, QD_STREAM_JOBS, &s, &err));
    assert_int_equal(s.msgs, 1);
    qd_bus_msg_done(&m);
    end(&w); /* with the pull still open */
}

static void a_client_cut_off_is_told_so_and_its_feeds_start_again(void **state)
{
    (void)state;
    world w = make(1, NULL);
    qd_bus_mem_faults f = {.away_ms = 500};
    qd_bus_feed *keys = NULL, *events = NULL;
    qd_bus_feed_spec spec = {.stream = QD_STREAM_EVENTS, .filter = "quant.event.j.*", .start = QD_FEED_FROM_SEQ};
    qd_bus_feed_event event = QD_FEED_NONE;
    qd_bus_puback ack = {0};
    qd_bus_state s = {0};
    qd_bus_msg m = {0};
    qd_bus_mem_set_faults(w.mem, &f);
    (void)put(w.a, "job.x", "one", QD_REV_ABSENT);
    OK(conformance_publish(w.a, "quant.event.j.w", "e1", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_kv_watch(w.b, QD_BUCKET_JOBS, QD_KEYS_JOBS, &keys, &err));
    OK(qd_bus_feed_open(w.b, &spec, &events, &err));
    for (int i = 0; i < 2; i++) {
        qd_bus_msg_done(&m);
        OK(qd_bus_feed_next(w.b, events, 0, &event, &m, &err));
    }
    assert_int_equal(event, QD_FEED_SYNCED);
    qd_bus_mem_partition(w.b, true);
    qd_bus_state_get(w.b, &s);
    assert_false(s.connected);
    FAILS(QD_E_AWAY, qd_bus_kv_put(w.b, QD_BUCKET_JOBS, "job.x", "b", 1, QD_REV_ANY, NULL, &err));
    FAILS(QD_E_AWAY, qd_bus_feed_next(w.b, keys, 100, &event, &m, &err));
    (void)put(w.a, "job.x", "two", QD_REV_ANY);
    OK(conformance_publish(w.a, "quant.event.j.w", "e2", NULL, QD_REV_ANY, &ack, &err));
    qd_bus_mem_partition(w.b, false);
    qd_bus_state_get(w.b, &s);
    assert_true(s.connected && s.connects == 2 && s.connected_ms == 0);
    OK(qd_bus_feed_next(w.b, keys, 0, &event, &m, &err));
    assert_int_equal(event, QD_FEED_RESET);
    OK(qd_bus_feed_next(w.b, keys, 0, &event, &m, &err));
    assert_int_equal(event, QD_FEED_MSG);
    assert_string_equal((const char *)m.data, "two");
    qd_bus_msg_done(&m);
    OK(qd_bus_feed_next(w.b, keys, 0, &event, &m, &err));
    assert_int_equal(event, QD_FEED_SYNCED);
    OK(qd_bus_feed_next(w.b, events, 0, &event, &m, &err));
    assert_int_equal(event, QD_FEED_MSG);
    assert_string_equal((const char *)m.data, "e2"); /* e1 not again */
    qd_bus_msg_done(&m);
    assert_true(is(w.a, "job.x", "two"));
    end(&w); /* with both feeds still open */
}

static void a_duplicate_is_what_another_one_holds(void **state)
{
    (void)state;
    world w = make(1, NULL);
    qd_bus_pull_spec spec = {
        .stream = QD_STREAM_JOBS, .durable = "d", .filter = "quant.job.cpu.any.0.*", .ack_wait_ms = 60000};
    qd_bus_pull *p = NULL, *q = NULL;
    qd_bus_puback ack = {0};
    qd_bus_msg one = {0}, two = {0};
    bool got = false;
    OK(conformance_publish(w.a, "quant.job.cpu.any.0.j1", "1", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_pull_open(w.a, &spec, &p, &err));
    OK(qd_bus_pull_open(w.b, &spec, &q, &err));
    OK(qd_bus_pull_fetch(w.a, p, 0, &one, &got, &err));
    OK(qd_bus_pull_fetch(w.b, q, 0, &two, &got, &err));
    assert_false(got);
    qd_bus_mem_set_faults(w.mem, &(qd_bus_mem_faults){.duplicate = ALWAYS});
    OK(qd_bus_pull_fetch(w.b, q, 0, &two, &got, &err));
    assert_true(got && two.seq == one.seq && two.delivered == 2);
    qd_bus_msg_done(&one);
    qd_bus_msg_done(&two);
    end(&w);
}

static void feeds_lag_and_break_off_but_lose_no_last_state(void **state)
{
    (void)state;
    world w = make(9, NULL);
    qd_bus_mem_faults f = {.feed_reset = ALWAYS / 4, .feed_lag = ALWAYS / 2, .delay_ms_max = 300};
    qd_bus_feed *feed = NULL;
    char seen[32] = "";
    int resets = 0, nothing = 0;
    OK(qd_bus_kv_watch(w.b, QD_BUCKET_JOBS, QD_KEYS_JOBS, &feed, &err));
    qd_bus_mem_set_faults(w.mem, &f);
    for (int i = 0; i < 200; i++) {
        char value[32];
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_bus_msg m = {0};
        (void)snprintf(value, sizeof value, "%d", i);
        if (i < 100) (void)put(w.a, "job.x", value, QD_REV_ANY);
        OK(qd_bus_feed_next(w.b, feed, 20, &event, &m, &err));
        resets += event == QD_FEED_RESET;
        nothing += event == QD_FEED_NONE;
        if (event == QD_FEED_MSG) (void)snprintf(seen, sizeof seen, "%s", (const char *)m.data);
        qd_bus_msg_done(&m);
    }
    assert_string_equal(seen, "99");
    assert_true(resets > 10 && nothing > 10);
    end(&w);
}

/* A random life of two clients; its trace as a hash. */
static uint64_t life(uint64_t seed)
{
    world w = make(seed, NULL);
    qd_bus_mem_faults f = {.lose_request = 3000,
                           .lose_reply = 3000,
                           .late = 3000,
                           .delay = 20000,
                           .duplicate = 3000,
                           .feed_reset = 1000,
                           .feed_lag = 9000,
                           .delay_ms_max = 40,
                           .away_ms = 2000,
                           .late_ms_max = 5000};
    qd_bus_pull_spec spec = {
        .stream = QD_STREAM_JOBS, .durable = "d", .filter = "quant.job.cpu.any.0.*", .ack_wait_ms = 500};
    qd_bus_pull *p = NULL;
    qd_bus_feed *feed = NULL;
    uint64_t trace = 1;
    OK(qd_bus_pull_open(w.a, &spec, &p, &err));
    OK(qd_bus_kv_watch(w.b, QD_BUCKET_JOBS, QD_KEYS_JOBS, &feed, &err));
    qd_bus_mem_set_faults(w.mem, &f);
    for (unsigned i = 0; i < 300; i++) {
        char key[32], subject[64];
        qd_bus *c = i % 3 == 0 ? w.a : w.b;
        qd_bus_msg m = {0}, got_m = {0};
        qd_bus_puback ack = {0};
        qd_bus_feed_event event = QD_FEED_NONE;
        bool got = false;
        uint64_t rev = 0, v[8];
        (void)snprintf(key, sizeof key, "job.k%u", i % 7);
        (void)snprintf(subject, sizeof subject, "quant.job.cpu.any.0.j%u", i % 5);
        qd_bus_mem_partition(w.a, i % 50 > 40);
        v[0] = (uint64_t)qd_bus_kv_get(c, QD_BUCKET_JOBS, key, &m, NULL);
        v[1] = (uint64_t)qd_bus_kv_put(c, QD_BUCKET_JOBS, key, &i, sizeof i, m.seq, &rev, NULL);
        v[2] = (uint64_t)conformance_publish(c, subject, "j", NULL, QD_REV_ANY, &ack, NULL);
        v[3] = (uint64_t)qd_bus_pull_fetch(w.a, p, 30, &got_m, &got, NULL);
        v[4] = got && i % 2 == 0 ? (uint64_t)qd_bus_pull_ack(w.a, &got_m, NULL) : 99;
        v[5] = got_m.seq * 1000 + got_m.delivered;
        qd_bus_msg_done(&m);
        v[6] = (uint64_t)qd_bus_feed_next(w.b, feed, 10, &event, &m, NULL) * 10 + (uint64_t)event + m.seq * 100;
        v[7] = qd_bus_mem_now_ms(w.mem) + rev + ack.seq;
        trace = qd_hash64(v, sizeof v, trace);
        qd_bus_msg_done(&m);
        qd_bus_msg_done(&got_m);
    }
    end(&w);
    return trace;
}

static void the_same_seed_lives_the_same_life(void **state)
{
    (void)state;
    uint64_t first = life(0);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t trace = life(seed);
        assert_true(trace == life(seed));
        assert_true(trace != first);
    }
}

typedef struct counting {
    qd_bus_mem *mem;
    unsigned calls;
} counting;

static void wait_in_steps(void *ctx, qd_bus *client, uint64_t until_ms)
{
    counting *c = ctx;
    (void)client;
    c->calls++;
    uint64_t now = qd_bus_mem_now_ms(c->mem);
    qd_bus_mem_set_now_ms(c->mem, now + 7 < until_ms ? now + 7 : until_ms); /* earlier than asked */
}

static void the_simulator_may_come_back_early(void **state)
{
    (void)state;
    counting c = {0};
    qd_bus_mem_hooks hooks = {.ctx = &c, .wait = wait_in_steps};
    world w = make(1, &hooks);
    c.mem = w.mem;
    qd_bus_pull_spec spec = {
        .stream = QD_STREAM_JOBS, .durable = "d", .filter = "quant.job.cpu.any.0.*", .ack_wait_ms = 100};
    qd_bus_pull *p = NULL;
    qd_bus_puback ack = {0};
    qd_bus_msg m = {0};
    bool got = true;
    OK(qd_bus_pull_open(w.a, &spec, &p, &err));
    OK(qd_bus_pull_fetch(w.a, p, 50, &m, &got, &err));
    assert_false(got);
    assert_int_equal(qd_bus_mem_now_ms(w.mem), 1050);
    assert_int_equal(c.calls, 8);
    OK(conformance_publish(w.a, "quant.job.cpu.any.0.j1", "1", NULL, QD_REV_ANY, &ack, &err));
    OK(qd_bus_pull_fetch(w.a, p, 50, &m, &got, &err));
    assert_true(got);
    qd_bus_msg_done(&m);
    OK(qd_bus_pull_fetch(w.a, p, 5000, &m, &got, &err)); /* again when its ack_wait is over, not at 5000 */
    assert_true(got);
    assert_int_equal(m.delivered, 2);
    assert_int_equal(qd_bus_mem_now_ms(w.mem), 1150);
    qd_bus_msg_done(&m);
    uint64_t changes = qd_bus_mem_changes(w.mem);
    (void)put(w.a, "job.x", "v", QD_REV_ANY);
    assert_true(qd_bus_mem_changes(w.mem) > changes);
    end(&w);
}

static qd_code count_keys(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    (void)m;
    (void)err;
    ++*(unsigned *)ctx;
    return QD_OK;
}

/* Everything once, with the n-th allocation failed, for every n. */
static void a_failed_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    bool done = false;
    for (unsigned long n = 1; !done; n++) {
        qd_bus_mem *mem = NULL;
        qd_bus *c = NULL;
        qd_bus_pull *p = NULL;
        qd_bus_msg m = {0};
        qd_bus_puback ack = {0};
        bool got = false;
        unsigned keys = 0;
        qd_err err = {0};
        qd_bus_pull_spec spec = {
            .stream = QD_STREAM_JOBS, .durable = "d", .filter = "quant.job.cpu.any.0.*", .ack_wait_ms = 100};
        assert_true(n < 200);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        qd_code rc = qd_bus_mem_new(1, 0, NULL, &mem, &err);
        if (rc == QD_OK) rc = qd_bus_mem_client(mem, "c", &c, &err);
        if (rc == QD_OK) rc = qd_bus_kv_put(c, QD_BUCKET_JOBS, "job.x", "v", 1, QD_REV_ABSENT, NULL, &err);
        if (rc == QD_OK) rc = qd_bus_kv_put(c, QD_BUCKET_JOBS, "job.x", "w", 1, QD_REV_ANY, NULL, &err);
        if (rc == QD_OK) rc = qd_bus_kv_list(c, QD_BUCKET_JOBS, ">", count_keys, &keys, &err);
        if (rc == QD_OK) rc = conformance_publish(c, "quant.job.cpu.any.0.j", "j", "id", QD_REV_ANY, &ack, &err);
        if (rc == QD_OK) rc = qd_bus_pull_open(c, &spec, &p, &err);
        if (rc == QD_OK) rc = qd_bus_pull_fetch(c, p, 0, &m, &got, &err);
        if (rc == QD_OK) {
            qd_bus_mem_set_faults(mem, &(qd_bus_mem_faults){.late = ALWAYS, .away_ms = 10, .late_ms_max = 10});
            rc = conformance_publish(c, "quant.event.j.w", "e", "id", QD_REV_ANY, &ack, &err);
            if (rc == QD_E_AWAY) rc = QD_OK;
        }
        done = qd_fault_count(QD_FAULT_ALLOC) < n;
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (done) {
            assert_int_equal(rc, QD_OK);
            assert_true(got && keys == 1 && n > 15);
        } else {
            assert_int_equal(rc, QD_E_NO_MEMORY);
        }
        qd_bus_msg_done(&m);
        qd_bus_free(c);
        qd_bus_mem_free(mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_request_does_nothing_and_takes_its_time),
        cmocka_unit_test(a_lost_reply_has_done_it),
        cmocka_unit_test(a_late_write_happens_after_its_caller_was_told_away),
        cmocka_unit_test(late_acks_and_purges_happen_too),
        cmocka_unit_test(a_client_cut_off_is_told_so_and_its_feeds_start_again),
        cmocka_unit_test(a_duplicate_is_what_another_one_holds),
        cmocka_unit_test(feeds_lag_and_break_off_but_lose_no_last_state),
        cmocka_unit_test(the_same_seed_lives_the_same_life),
        cmocka_unit_test(the_simulator_may_come_back_early),
        cmocka_unit_test(a_failed_allocation_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
