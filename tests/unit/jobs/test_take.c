/* test_take.c -- the record decides who runs a job, not the message. */
#include "tests/unit/jobs/rig.h"

#include <string.h>

static void a_queued_job_is_taken(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    const qd_job_record *rec = qd_task_record(t);
    assert_int_equal(rec->state, QD_JOB_RUNNING);
    assert_int_equal(rec->epoch, 1);
    assert_int_equal(rec->attempts, 1);
    assert_string_equal(rec->owner, "w1");
    assert_true(rec->started_ms != 0);
    assert_false(qd_task_resume(t));
    char staging[256];
    qd_task_staging(t, staging, sizeof staging);
    assert_string_equal(staging, "/models/out/smollm2-x.staging.1");
    assert_true(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
    rig_done(r, t);
}

static void a_job_published_but_not_yet_queuing_is_taken(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_spec *s = spec_new("j1");
    assert_int_equal(qd_jobs_create(r->gate.jobs, "j1", s, true, NULL, NULL), QD_OK);
    qd_msg_free(s);
    qd_bus_pub p = {.subject = "quant.job.cpu.any.0.j1", .data = "j1", .bytes = 2, .expect_subject_seq = QD_REV_ANY};
    qd_bus_puback ack = {0};
    assert_int_equal(qd_bus_publish(r->gate.real, &p, &ack, NULL), QD_OK);
    qd_task *t = take_run(r, &r->w1);
    admit(r); /* and admission leaves it so */
    assert_int_equal(state_of(r, "j1"), QD_JOB_RUNNING);
    rig_done(r, t);
}

static void messages_of_ended_and_unknown_jobs_are_dropped(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    qd_job_state s = QD_JOB_PENDING;
    qd_bus_puback ack = {0};
    create(r, "j1");
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    for (int i = 1; i <= 2; i++) { /* j1 has ended, j2 never was */
        qd_bus_pub p = {.subject = i == 1 ? "quant.job.cpu.any.0.j1" : "quant.job.cpu.any.0.j2",
                        .data = "",
                        .expect_subject_seq = QD_REV_ANY};
        assert_int_equal(qd_bus_publish(r->gate.real, &p, &ack, NULL), QD_OK);
        assert_int_equal(take(r, &r->w1, &t), QD_TAKE_DROPPED);
        assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    }
    rig_free(r);
}

static void a_live_owner_is_left_alone(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create(r, "j1");
    qd_task *mine = take_run(r, &r->w1);
    pass_ms(r, LEASE_MS - 1); /* the message is not told to be in work, the lease is renewed */
    assert_int_equal(qd_task_renew(mine, NULL), QD_OK);
    pass_ms(r, LEASE_MS);
    assert_int_equal(qd_task_renew(mine, NULL), QD_OK);
    pass_ms(r, LEASE_MS / 2);
    qd_bus_mem_faults dup = {.duplicate = 65536};
    qd_bus_mem_set_faults(r->mem, &dup);
    assert_int_equal(take(r, &r->w2, &t), QD_TAKE_LATER);
    qd_bus_mem_set_faults(r->mem, NULL);
    assert_int_equal(qd_task_check(mine, NULL), QD_OK);
    qd_task_free(mine);
    rig_free(r);
}

static void a_dead_owners_job_is_taken_with_the_next_epoch_and_its_staging(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_err err = {0};
    create(r, "j1");
    qd_task *old = take_run(r, &r->w1);
    r->staging = 1;
    pass_ms(r, LEASE_MS);
    qd_task *t = take_run(r, &r->w2);
    assert_int_equal(qd_task_record(t)->epoch, 2);
    assert_int_equal(qd_task_record(t)->attempts, 2);
    assert_true(qd_task_resume(t));
    assert_int_equal(r->staging, 2);
    assert_int_equal(qd_task_renew(old, &err), QD_E_CONFLICT);
    assert_int_equal(qd_task_may_commit(old, &err), QD_E_CONFLICT);
    assert_int_equal(qd_task_finish(old, NULL, 1, &err), QD_E_CONFLICT);
    assert_int_equal(qd_task_canceled(old, 1, &err), QD_E_CONFLICT);
    assert_int_equal(qd_task_hand_back(old, NULL, 1, &err), QD_E_CONFLICT);
    assert_int_equal(r->staging, 2); /* no path was touched */
    qd_jobs_stats stats = {0};
    qd_jobs_stats_get(r->w1.jobs, &stats);
    assert_true(stats.fenced >= 1);
    qd_task_free(old);
    rig_done(r, t);
}

static void nobody_takes_over_in_the_first_lease_time_after_a_reconnect(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create(r, "j1");
    qd_task *old = take_run(r, &r->w1);
    qd_bus_mem_partition(r->w2.real, true);
    pass_ms(r, 3 * LEASE_MS);
    qd_bus_mem_partition(r->w2.real, false);
    assert_int_equal(take(r, &r->w2, &t), QD_TAKE_LATER);
    pass_ms(r, LEASE_MS);
    t = take_run(r, &r->w2);
    qd_task_free(t);
    qd_task_free(old);
    rig_free(r);
}

static void an_owner_that_died_before_its_lease_is_given_one(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create(r, "j1");
    qd_task *old = take_run(r, &r->w1);
    assert_int_equal(qd_bus_kv_delete(r->gate.real, QD_BUCKET_LIVE, "lease.j1", QD_REV_ANY, NULL), QD_OK);
    pass_ms(r, LEASE_MS);
    assert_int_equal(take(r, &r->w2, &t), QD_TAKE_LATER);
    assert_true(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
    pass_ms(r, LEASE_MS);
    t = take_run(r, &r->w2);
    qd_task_free(t);
    qd_task_free(old);
    rig_free(r);
}

static void an_output_in_place_is_the_end(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create(r, "j1");
    qd_task *old = take_run(r, &r->w1);
    rename_out(r, old); /* and it dies before it can say so */
    pass_ms(r, LEASE_MS);
    assert_int_equal(take(r, &r->w2, &t), QD_TAKE_ENDED);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_SUCCEEDED);
    assert_int_equal(rec->report->tensors_quantized, 42);
    qd_msg_free(rec);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    assert_false(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
    qd_task_free(old);
    rig_free(r);
}

static void a_dead_workers_cancel_is_carried_out(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    qd_job_state s = QD_JOB_PENDING;
    create(r, "j1");
    qd_task *old = take_run(r, &r->w1);
    rename_out(r, old);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    assert_int_equal(s, QD_JOB_CANCELING);
    pass_ms(r, LEASE_MS);
    assert_int_equal(take(r, &r->w2, &t), QD_TAKE_ENDED);
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELED);
    assert_false(r->out);
    qd_task_free(old);
    rig_free(r);
}

static void a_failing_disk_is_the_nodes_fault(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create(r, "j1");
    r->disk_fails = true;
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_LATER);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_QUEUING);
    assert_int_equal(rec->attempts, 0);
    assert_int_equal(rec->n_failures, 1);
    assert_int_equal(rec->failures[0]->error_class, QUANTD__ERROR_CLASS__ERROR_NODE);
    qd_msg_free(rec);
    r->disk_fails = false;
    pass_ms(r, LEASE_MS);
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_LATER); /* not here again so soon */
    pass_ms(r, LEASE_MS);
    t = take_run(r, &r->w2);
    rig_done(r, t);
}

static void an_output_that_no_run_left_is_the_jobs_fault_and_stays(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create(r, "j1");
    beat(&r->w2, "w2");
    r->out = r->out_broken = true;
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_LATER);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_QUEUING);
    assert_int_equal(rec->failures[0]->error_class, QUANTD__ERROR_CLASS__ERROR_JOB);
    qd_msg_free(rec);
    pass_ms(r, LEASE_MS);
    assert_int_equal(take(r, &r->w2, &t), QD_TAKE_LATER);
    rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_FAILED);
    assert_string_equal(rec->error->message, "no run left this");
    qd_msg_free(rec);
    assert_true(r->out); /* somebody's directory */
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    rig_free(r);
}

static void too_many_lost_attempts_are_the_end(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.attempts_max = 2};
    rig *r = rig_new(&opts);
    qd_task *t = NULL;
    create(r, "j1");
    for (int i = 0; i < 2; i++) {
        t = take_run(r, i == 0 ? &r->w1 : &r->w2);
        r->staging = qd_task_record(t)->epoch;
        qd_task_free(t); /* dies */
        pass_ms(r, LEASE_MS);
    }
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_ENDED);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_FAILED);
    assert_non_null(rec->error);
    qd_msg_free(rec);
    assert_int_equal(r->staging, 0);
    assert_int_equal(stream_msgs(r, QD_STREAM_DEAD), 1);
    rig_free(r);
}

static void a_newer_programs_job_is_left_to_newer_workers(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    static const uint8_t newer[] = {0x08, 99, 0x12, 2, 'j', '1'};
    create(r, "j1");
    assert_int_equal(qd_bus_kv_put(r->gate.real, QD_BUCKET_JOBS, "job.j1", newer, sizeof newer, QD_REV_ANY, NULL, NULL),
                     QD_OK);
    qd_bus_msg m = {0};
    bool got = false;
    qd_take how = QD_TAKE_RUN;
    assert_int_equal(qd_jobs_fetch(r->w1.jobs, &m, &got, NULL), QD_OK);
    assert_int_equal(qd_jobs_take(r->w1.jobs, &m, &how, &t, NULL), QD_E_VERSION);
    assert_int_equal(how, QD_TAKE_LATER);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 1);
    rig_free(r);
}

static void whichever_call_of_a_take_is_lost_one_worker_has_it_in_the_end(void **state)
{
    (void)state;
    for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++) {
        bool lost = true;
        for (unsigned n = 0; lost; n++) {
            rig *r = rig_new(NULL);
            qd_task *t = NULL;
            qd_bus_msg m = {0};
            bool got = false;
            qd_take how = QD_TAKE_LATER;
            create(r, "j1");
            assert_int_equal(qd_jobs_fetch(r->w1.jobs, &m, &got, NULL), QD_OK);
            lose(&r->w1, (loss)what, n);
            qd_code rc = qd_jobs_take(r->w1.jobs, &m, &how, &t, NULL);
            lost = r->w1.lost;
            assert_int_equal(rc, QD_OK);
            assert_int_equal(how, QD_TAKE_RUN);
            assert_int_equal(qd_task_record(t)->epoch, 1);
            assert_int_equal(qd_task_record(t)->attempts, 1);
            lose(&r->w1, LOSE_NOTHING, 0);
            assert_int_equal(qd_task_renew(t, NULL), QD_OK);
            rig_done(r, t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queued_job_is_taken),
        cmocka_unit_test(a_job_published_but_not_yet_queuing_is_taken),
        cmocka_unit_test(messages_of_ended_and_unknown_jobs_are_dropped),
        cmocka_unit_test(a_live_owner_is_left_alone),
        cmocka_unit_test(a_dead_owners_job_is_taken_with_the_next_epoch_and_its_staging),
        cmocka_unit_test(nobody_takes_over_in_the_first_lease_time_after_a_reconnect),
        cmocka_unit_test(an_owner_that_died_before_its_lease_is_given_one),
        cmocka_unit_test(an_output_in_place_is_the_end),
        cmocka_unit_test(a_dead_workers_cancel_is_carried_out),
        cmocka_unit_test(a_failing_disk_is_the_nodes_fault),
        cmocka_unit_test(an_output_that_no_run_left_is_the_jobs_fault_and_stays),
        cmocka_unit_test(too_many_lost_attempts_are_the_end),
        cmocka_unit_test(a_newer_programs_job_is_left_to_newer_workers),
        cmocka_unit_test(whichever_call_of_a_take_is_lost_one_worker_has_it_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
