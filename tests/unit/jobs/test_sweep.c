/* test_sweep.c -- what keeps jobs going, and what cleans up. */
#include "tests/unit/jobs/rig.h"

#include <stdio.h>
#include <string.h>

static void record(rig *r, const char *id, const char *tenant)
{
    qd_job_spec *s = spec_new(id);
    assert_int_equal(qd_text_set(&s->tenant, tenant, NULL), QD_OK);
    assert_int_equal(qd_jobs_create(r->gate.jobs, id, s, true, NULL, NULL), QD_OK);
    qd_msg_free(s);
    pass_ms(r, 1);
}

static void tenants_are_served_in_turn_and_within_their_limits(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.running_max = 2};
    rig *r = rig_new(&opts);
    qd_jobs_swept swept = {0};
    for (int i = 1; i <= 4; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "ja%d", i);
        record(r, id, "a");
    }
    record(r, "jb1", "b");
    qd_bus_mem_set_msgs_max(r->mem, QD_STREAM_JOBS, 2);
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(swept.admitted, 2);
    assert_true(swept.queue_full);
    assert_int_equal(state_of(r, "ja1"), QD_JOB_QUEUING);
    assert_int_equal(state_of(r, "jb1"), QD_JOB_QUEUING); /* b's turn came before a's second */
    assert_int_equal(state_of(r, "ja2"), QD_JOB_PENDING);
    qd_bus_mem_set_msgs_max(r->mem, QD_STREAM_JOBS, 100);
    admit(r);
    assert_int_equal(state_of(r, "ja2"), QD_JOB_QUEUING);
    assert_int_equal(state_of(r, "ja3"), QD_JOB_PENDING); /* a has two */
    assert_int_equal(qd_jobs_view_in(r->gate.jobs, "a", QD_JOB_QUEUING), 2);
    assert_int_equal(qd_jobs_view_in(r->gate.jobs, NULL, QD_JOB_QUEUING), 3);
    qd_job_state s = QD_JOB_PENDING;
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "ja1", "", NULL, &s, NULL), QD_OK);
    admit(r);
    assert_int_equal(state_of(r, "ja3"), QD_JOB_QUEUING);
    assert_int_equal(state_of(r, "ja4"), QD_JOB_PENDING);
    rig_free(r);
}

/* How many jobs a sweep of this program admits. */
static size_t admits(program *p)
{
    qd_jobs_swept swept = {0};
    assert_int_equal(qd_jobs_sweep(p->jobs, &swept, NULL), QD_OK);
    return swept.admitted;
}

static void one_program_sweeps_and_another_when_it_is_silent_or_slow(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    assert_int_equal(admits(&r->w1), 0); /* takes the seat */
    assert_int_equal(admits(&r->w2), 0);
    record(r, "j1", "a");
    assert_int_equal(admits(&r->w2), 0);
    assert_int_equal(admits(&r->w1), 1);
    record(r, "j2", "a");
    assert_int_equal(admits(&r->w2), 0);
    pass_ms(r, 3000);
    assert_int_equal(admits(&r->w2), 1); /* it has waited long enough */
    pass_ms(r, LEASE_MS);
    record(r, "j3", "a");
    assert_int_equal(admits(&r->w2), 1); /* nobody is heard: it is w2's now */
    record(r, "j4", "a");
    assert_int_equal(admits(&r->w1), 0); /* and it sees that */
    assert_int_equal(admits(&r->w2), 1);
    rig_free(r);
}

static void a_tenants_own_limits_are_read(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_tenant_limits l;
    quantd__tenant_limits__init(&l);
    char tenant[] = "a";
    qd_buf buf = {0};
    l.version = QD_WIRE_VERSION;
    l.tenant = tenant;
    l.running_max = 1;
    assert_int_equal(qd_tenant_limits_encode(&l, &buf, NULL), QD_OK);
    assert_int_equal(
        qd_bus_kv_put(r->gate.real, QD_BUCKET_ACCESS, "tenant.a", buf.data, buf.len, QD_REV_ANY, NULL, NULL), QD_OK);
    qd_buf_done(&buf);
    record(r, "j1", "a");
    record(r, "j2", "a");
    admit(r);
    assert_int_equal(state_of(r, "j1"), QD_JOB_QUEUING);
    assert_int_equal(state_of(r, "j2"), QD_JOB_PENDING);
    rig_free(r);
}

static void sweeps_at_the_same_time_admit_a_job_once(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_jobs_swept swept = {0};
    record(r, "j1", "a");
    assert_int_equal(qd_jobs_view_pump(r->w1.jobs, 0, NULL, NULL), QD_OK);
    assert_int_equal(qd_jobs_view_pump(r->w2.jobs, 0, NULL, NULL), QD_OK);
    assert_int_equal(qd_jobs_sweep(r->w1.jobs, &swept, NULL), QD_OK);
    assert_int_equal(qd_jobs_sweep(r->w2.jobs, &swept, NULL), QD_OK);
    assert_int_equal(swept.admitted, 1);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 1);
    rig_free(r);
}

static void whichever_call_of_an_admission_is_lost_the_job_is_queued_once(void **state)
{
    (void)state;
    for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++) {
        bool lost = true;
        for (unsigned n = 0; lost; n++) {
            rig *r = rig_new(NULL);
            qd_jobs_swept swept = {0};
            record(r, "j1", "a");
            lose(&r->gate, (loss)what, n);
            qd_code rc = qd_jobs_sweep(r->gate.jobs, &swept, NULL);
            lost = r->gate.lost;
            lose(&r->gate, LOSE_NOTHING, 0);
            if (rc != QD_OK) assert_int_equal(rc, QD_E_AWAY);
            admit(r);
            assert_int_equal(state_of(r, "j1"), QD_JOB_QUEUING);
            assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 1);
            rig_free(r);
        }
    }
}

static void a_lost_message_is_published_again(void **state)
{
    (void)state;
    for (int running = 0; running < 2; running++) {
        rig *r = rig_new(NULL);
        qd_jobs_swept swept = {0};
        uint64_t n = 0;
        qd_task *t = NULL;
        create(r, "j1");
        if (running) t = take_run(r, &r->w1);
        admit(r);
        assert_int_equal(qd_bus_purge(r->gate.real, QD_STREAM_JOBS, "quant.job.cpu.any.0.j1", QD_REV_ANY, &n, NULL),
                         QD_OK);
        assert_int_equal(n, 1);
        pass_ms(r, 2 * LEASE_MS);
        assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
        assert_int_equal(swept.republished, 1);
        assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 1);
        pass_ms(r, 2 * LEASE_MS);
        assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK); /* it is there now */
        assert_int_equal(swept.republished, 1);
        qd_task_free(t);
        t = take_run(r, &r->w2);
        qd_task_free(t);
        rig_free(r);
    }
}

static void many_lost_messages_are_found_by_their_number(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_jobs_swept swept = {0};
    uint64_t n = 0;
    for (int i = 0; i < 20; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "j%d", i);
        record(r, id, "a");
    }
    admit(r);
    pass_ms(r, 2 * LEASE_MS);
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(swept.republished, 0);
    for (int i = 0; i < 20; i++) {
        char subject[64];
        (void)snprintf(subject, sizeof subject, "quant.job.cpu.any.0.j%d", i);
        assert_int_equal(qd_bus_purge(r->gate.real, QD_STREAM_JOBS, subject, QD_REV_ANY, &n, NULL), QD_OK);
    }
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_true(swept.republished < 20);
    pass_ms(r, 2 * LEASE_MS);
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(swept.republished, 20);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 20);
    rig_free(r);
}

static void one_directory_that_fails_does_not_stand_before_the_others(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.retention_ms = 1000};
    rig *r = rig_new(&opts);
    qd_jobs_swept swept = {0};
    qd_job_state s = QD_JOB_PENDING;
    for (int i = 1; i <= 2; i++) create(r, i == 1 ? "j1" : "j2");
    qd_task *t = take_run(r, &r->w1);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j2", "", NULL, &s, NULL), QD_OK);
    r->disk_fails = true;
    for (int i = 0; i < 6; i++) {
        pass_ms(r, LEASE_MS);
        qd_code rc = qd_jobs_sweep(r->gate.jobs, &swept, NULL);
        assert_true(rc == QD_OK || rc == QD_E_IO);
    }
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELING); /* cannot be */
    assert_true(record_gone(r, "j2"));
    r->disk_fails = false;
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELED);
    qd_task_free(t);
    rig_free(r);
}

static void the_cancel_of_a_dead_worker_needs_no_other_worker(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_jobs_swept swept = {0};
    qd_job_state s = QD_JOB_PENDING;
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    r->staging = 1;
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    for (int i = 0; i < 8; i++) { /* while it lives, it is its own */
        pass_ms(r, LEASE_MS / 3);
        assert_int_equal(qd_task_renew(t, NULL), QD_E_CANCELED);
        assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    }
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELING);
    for (int i = 0; i < 8; i++) {
        pass_ms(r, LEASE_MS / 3);
        assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    }
    assert_int_equal(swept.canceled, 1);
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELED);
    assert_int_equal(r->staging, 0);
    assert_int_equal(qd_task_canceled(t, 0, NULL), QD_OK); /* its owner finds it done */
    qd_task_free(t);
    rig_free(r);
}

static void a_cancel_in_another_clients_way_is_carried_out(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_jobs_swept swept = {0};
    qd_buf buf = {0};
    create(r, "j1");
    qd_job_record *rec = record_of(r, "j1");
    rec->state = QD_JOB_CANCELING; /* docs/wire.md: whatever the state was */
    assert_int_equal(qd_job_record_encode(rec, &buf, NULL), QD_OK);
    qd_msg_free(rec);
    assert_int_equal(qd_bus_kv_put(r->gate.real, QD_BUCKET_JOBS, "job.j1", buf.data, buf.len, QD_REV_ANY, NULL, NULL),
                     QD_OK);
    qd_buf_done(&buf);
    r->disk_fails = true; /* nothing is there to be moved */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
        pass_ms(r, LEASE_MS);
    }
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELED);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    rig_free(r);
}

static void the_cancel_of_a_job_handed_back_takes_its_directories(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_state s = QD_JOB_PENDING;
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    r->staging = 1;
    assert_int_equal(qd_task_hand_back(t, NULL, 0, NULL), QD_OK);
    qd_task_free(t);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    assert_int_equal(s, QD_JOB_CANCELED);
    assert_int_equal(r->staging, 0);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    rig_free(r);
}

static void ended_jobs_are_forgotten_after_their_time(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.retention_ms = 1000000};
    rig *r = rig_new(&opts);
    qd_jobs_swept swept = {0};
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    rename_out(r, t);
    assert_int_equal(qd_task_finish(t, NULL, 0, NULL), QD_OK);
    qd_task_free(t);
    admit(r);
    assert_false(record_gone(r, "j1"));
    pass_ms(r, 1000001);
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(swept.deleted, 1);
    assert_true(record_gone(r, "j1"));
    assert_false(key_there(r, QD_BUCKET_JOBS, "name.default.j1"));
    assert_true(r->out); /* the model stays */
    assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK);
    assert_true(r->out);
    rig_free(r);
}

static void names_without_a_record_are_freed_after_a_while(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.leak_ms = 5000};
    rig *r = rig_new(&opts);
    qd_jobs_swept swept = {0};
    create(r, "j1");
    assert_int_equal(
        qd_bus_kv_put(r->gate.real, QD_BUCKET_JOBS, "name.default.gone", "j7", 2, QD_REV_ABSENT, NULL, NULL), QD_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK);
        assert_int_equal(swept.names, i == 2);
        pass_ms(r, 2500);
    }
    assert_false(key_there(r, QD_BUCKET_JOBS, "name.default.gone"));
    assert_true(key_there(r, QD_BUCKET_JOBS, "name.default.j1"));
    rig_free(r);
}

static void leases_and_directories_of_ended_jobs_go(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_jobs_swept swept = {0};
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_JOB);
    assert_int_equal(qd_jobs_heartbeat_end(r->w2.jobs, NULL), QD_OK);
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    r->staging = 1;
    assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(r->staging, 1); /* in use */
    assert_true(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
    assert_int_equal(qd_task_fail(t, &e, 0, NULL, NULL), QD_OK);
    qd_task_free(t);
    r->staging = 1; /* a late one */
    assert_int_equal(qd_bus_kv_put(r->gate.real, QD_BUCKET_LIVE, "lease.j1", "", 0, QD_REV_ANY, NULL, NULL), QD_OK);
    assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK);
    assert_int_equal(r->staging, 0);
    assert_false(r->trash);
    assert_false(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
    rig_free(r);
}

static void the_view_follows(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    bool synced = false;
    for (int i = 0; i < 300; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "j%d", i);
        record(r, id, i % 2 == 0 ? "a" : "b");
    }
    assert_int_equal(qd_jobs_view_pump(r->gate.jobs, 0, &synced, NULL), QD_OK);
    assert_true(synced);
    assert_int_equal(qd_jobs_view_count(r->gate.jobs), 300);
    assert_int_equal(qd_jobs_view_in(r->gate.jobs, "a", QD_JOB_PENDING), 150);
    for (int i = 0; i < 300; i += 3) {
        char id[16];
        qd_job_state s = QD_JOB_PENDING;
        (void)snprintf(id, sizeof id, "j%d", i);
        assert_int_equal(qd_jobs_cancel(r->gate.jobs, id, "", NULL, &s, NULL), QD_OK);
        assert_int_equal(qd_jobs_delete(r->gate.jobs, id, NULL, NULL), QD_OK);
    }
    qd_bus_mem_partition(r->gate.real, true); /* breaks the feed: it tells everything anew */
    qd_bus_mem_partition(r->gate.real, false);
    assert_int_equal(qd_jobs_view_pump(r->gate.jobs, 0, NULL, NULL), QD_OK);
    assert_int_equal(qd_jobs_view_count(r->gate.jobs), 200);
    for (int i = 0; i < 300; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "j%d", i);
        const qd_jobs_seen *seen = qd_jobs_view_find(r->gate.jobs, id);
        assert_true((seen == NULL) == (i % 3 == 0));
        if (seen != NULL) assert_string_equal(seen->id, id);
    }
    assert_null(qd_jobs_view_at(r->gate.jobs, 200));
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tenants_are_served_in_turn_and_within_their_limits),
        cmocka_unit_test(one_program_sweeps_and_another_when_it_is_silent_or_slow),
        cmocka_unit_test(a_tenants_own_limits_are_read),
        cmocka_unit_test(sweeps_at_the_same_time_admit_a_job_once),
        cmocka_unit_test(whichever_call_of_an_admission_is_lost_the_job_is_queued_once),
        cmocka_unit_test(a_lost_message_is_published_again),
        cmocka_unit_test(many_lost_messages_are_found_by_their_number),
        cmocka_unit_test(one_directory_that_fails_does_not_stand_before_the_others),
        cmocka_unit_test(the_cancel_of_a_dead_worker_needs_no_other_worker),
        cmocka_unit_test(a_cancel_in_another_clients_way_is_carried_out),
        cmocka_unit_test(the_cancel_of_a_job_handed_back_takes_its_directories),
        cmocka_unit_test(ended_jobs_are_forgotten_after_their_time),
        cmocka_unit_test(names_without_a_record_are_freed_after_a_while),
        cmocka_unit_test(leases_and_directories_of_ended_jobs_go),
        cmocka_unit_test(the_view_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
