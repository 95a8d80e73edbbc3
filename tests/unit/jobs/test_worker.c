/* test_worker.c -- lanes, heartbeats, orders. */
#include "tests/unit/jobs/rig.h"

#include <stdio.h>
#include <string.h>

static void put_in_lane(rig *r, const char *id, uint32_t priority, const char *device, const char *numerics)
{
    qd_job_spec *s = spec_new(id);
    s->lane->priority = priority;
    assert_int_equal(qd_text_set(&s->lane->device_class, device, NULL), QD_OK);
    assert_int_equal(qd_text_set(&s->lane->numerics_id, numerics, NULL), QD_OK);
    assert_int_equal(qd_jobs_create(r->gate.jobs, id, s, true, NULL, NULL), QD_OK);
    qd_msg_free(s);
    admit(r);
}

static void lanes_are_served_by_priority_and_only_where_they_fit(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    put_in_lane(r, "low", 9, "cpu", "any");
    put_in_lane(r, "mine", 3, "cpu", "n1");
    put_in_lane(r, "other", 0, "cpu", "n2");
    put_in_lane(r, "cuda", 0, "cuda", "any");
    put_in_lane(r, "high", 2, "cpu", "any");
    static const char *const order[] = {"high", "mine", "low"};
    for (int i = 0; i < 3; i++) {
        qd_task *t = take_run(r, &r->w1);
        assert_string_equal(qd_task_record(t)->id, order[i]);
        qd_task_free(t);
    }
    qd_bus_msg m = {0};
    bool got = true;
    assert_int_equal(qd_jobs_fetch(r->w1.jobs, &m, &got, NULL), QD_OK);
    assert_false(got);
    rig_free(r);
}

static bool fetches(rig *r)
{
    qd_bus_msg m = {0};
    bool got = false;
    assert_int_equal(qd_jobs_fetch(r->w1.jobs, &m, &got, NULL), QD_OK);
    if (got) assert_int_equal(qd_bus_pull_nak(r->w1.real, &m, 0, NULL), QD_OK);
    qd_bus_msg_done(&m);
    return got;
}

static void a_lane_without_a_live_job_in_the_view_is_asked_now_and_then_only(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    assert_int_equal(qd_jobs_view_pump(r->w1.jobs, 0, NULL, NULL), QD_OK);
    assert_false(fetches(r)); /* asked all */
    create(r, "j1");
    assert_false(fetches(r));
    assert_int_equal(qd_jobs_view_pump(r->w1.jobs, 0, NULL, NULL), QD_OK);
    assert_true(fetches(r));
    qd_job_state s = QD_JOB_PENDING;
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    assert_int_equal(qd_jobs_view_pump(r->w1.jobs, 0, NULL, NULL), QD_OK);
    create(r, "j2");
    assert_false(fetches(r));
    pass_ms(r, 10000);
    assert_true(fetches(r)); /* whatever the view has missed */
    rig_free(r);
}

typedef struct ages {
    uint64_t w1, w2;
    int n;
} ages;

static qd_code tell(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    ages *a = ctx;
    (void)err;
    *(strcmp(hb->id, "w1") == 0 ? &a->w1 : &a->w2) = age_ms;
    a->n++;
    return QD_OK;
}

static void workers_are_told_with_their_age(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    ages a = {0};
    beat(&r->w1, "w1");
    pass_ms(r, 700);
    beat(&r->w2, "w2");
    pass_ms(r, 300);
    assert_int_equal(qd_bus_kv_put(r->gate.real, QD_BUCKET_LIVE, "worker.w3", "x", 1, QD_REV_ANY, NULL, NULL), QD_OK);
    assert_int_equal(qd_jobs_workers(r->gate.jobs, tell, &a, NULL), QD_OK);
    assert_int_equal(a.n, 2); /* the unreadable one is counted elsewhere */
    assert_int_equal(a.w1, 1000);
    assert_int_equal(a.w2, 300);
    assert_int_equal(qd_jobs_heartbeat_end(r->w1.jobs, NULL), QD_OK);
    a.n = 0;
    assert_int_equal(qd_jobs_workers(r->gate.jobs, tell, &a, NULL), QD_OK);
    assert_int_equal(a.n, 1);
    rig_free(r);
}

static void an_order_to_drain_is_seen_and_obeyed_once(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    bool drain = true;
    assert_int_equal(qd_jobs_order(r->w1.jobs, &drain, NULL), QD_OK);
    assert_false(drain);
    assert_int_equal(qd_jobs_order_done(r->w1.jobs, NULL), QD_OK);
    lose(&r->gate, LOSE_REQUEST, 0);
    assert_int_equal(qd_jobs_drain(r->gate.jobs, "w1", "maintenance", NULL, NULL), QD_OK);
    assert_true(r->gate.lost);
    assert_int_equal(qd_jobs_order(r->w2.jobs, &drain, NULL), QD_OK);
    assert_false(drain);
    assert_int_equal(qd_jobs_order(r->w1.jobs, &drain, NULL), QD_OK);
    assert_true(drain);
    assert_int_equal(qd_jobs_drain(r->gate.jobs, "w1", "again", NULL, NULL), QD_OK); /* a newer one stays */
    assert_int_equal(qd_jobs_order_done(r->w1.jobs, NULL), QD_OK);
    assert_int_equal(qd_jobs_order(r->w1.jobs, &drain, NULL), QD_OK);
    assert_true(drain);
    assert_int_equal(qd_jobs_order_done(r->w1.jobs, NULL), QD_OK);
    assert_int_equal(qd_jobs_order(r->w1.jobs, &drain, NULL), QD_OK);
    assert_false(drain);
    assert_int_equal(qd_jobs_drain(r->gate.jobs, "no worker", "", NULL, NULL), QD_E_INPUT);
    rig_free(r);
}

static void the_class_of_a_code_says_whose_fault_it_is(void **state)
{
    (void)state;
    static const char classes[] = {[QD_OK] = '-',          [QD_E_USAGE] = 'j',       [QD_E_INPUT] = 'j',
                                   [QD_E_CHANGED] = 'j',   [QD_E_UNSUPPORTED] = 'j', [QD_E_ROOM] = 'n',
                                   [QD_E_NO_MEMORY] = 'n', [QD_E_QUALITY] = 'j',     [QD_E_BUSY] = 'n',
                                   [QD_E_IO] = 'n',        [QD_E_DEVICE] = 'n',      [QD_E_VERIFY] = 'n',
                                   [QD_E_INTERNAL] = 'j',  [QD_E_CONFIG] = 'n',      [QD_E_CANCELED] = 'b',
                                   [QD_E_CONFLICT] = 'b',  [QD_E_NOT_FOUND] = 'j',   [QD_E_AWAY] = 'b',
                                   [QD_E_FULL] = 'b',      [QD_E_TOO_LARGE] = 'j',   [QD_E_REFUSED] = 'b',
                                   [QD_E_VERSION] = 'n',   [QD_E_GANG] = 'b'};
    assert_int_equal(sizeof classes, QD_CODE_COUNT);
    for (int c = 0; c < QD_CODE_COUNT; c++) {
        Quantd__ErrorClass expected = classes[c] == 'j'   ? QUANTD__ERROR_CLASS__ERROR_JOB
                                      : classes[c] == 'n' ? QUANTD__ERROR_CLASS__ERROR_NODE
                                      : classes[c] == 'b' ? QUANTD__ERROR_CLASS__ERROR_BUS
                                                          : QUANTD__ERROR_CLASS__ERROR_CLASS_NONE;
        if (qd_jobs_class_of((qd_code)c) != expected) fail_msg("%s", qd_code_name((qd_code)c));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_are_served_by_priority_and_only_where_they_fit),
        cmocka_unit_test(a_lane_without_a_live_job_in_the_view_is_asked_now_and_then_only),
        cmocka_unit_test(workers_are_told_with_their_age),
        cmocka_unit_test(an_order_to_drain_is_seen_and_obeyed_once),
        cmocka_unit_test(the_class_of_a_code_says_whose_fault_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
