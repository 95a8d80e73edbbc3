/* test_end.c -- how tasks end. */
#include "tests/unit/jobs/rig.h"

#include <string.h>

static void a_finished_job_says_what_it_made(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_report_summary report;
    quantd__report_summary__init(&report);
    assert_int_equal(qd_task_may_commit(t, NULL), QD_OK);
    rename_out(r, t);
    report.tensors_quantized = 7;
    assert_int_equal(qd_task_finish(t, &report, 1234, NULL), QD_OK);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_SUCCEEDED);
    assert_int_equal(rec->report->tensors_quantized, 7);
    assert_int_equal(rec->device_ms, 1234);
    assert_true(rec->ended_ms != 0);
    assert_string_equal(rec->owner, "w1");
    qd_msg_free(rec);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    assert_false(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
    rig_done(r, t);
}

static void without_an_output_there_is_no_success(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    assert_int_equal(qd_task_finish(t, NULL, 0, NULL), QD_E_VERIFY);
    assert_int_equal(state_of(r, "j1"), QD_JOB_RUNNING);
    rig_done(r, t);
}

static void what_nobody_canceled_is_not_carried_out(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    r->staging = 1;
    assert_int_equal(qd_task_canceled(t, 0, NULL), QD_E_USAGE);
    assert_int_equal(r->staging, 1);
    assert_int_equal(state_of(r, "j1"), QD_JOB_RUNNING);
    rig_done(r, t);
}

static void a_cancel_before_the_last_write_wins(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_job_state s = QD_JOB_PENDING;
    assert_int_equal(qd_task_may_commit(t, NULL), QD_OK);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    rename_out(r, t);
    assert_int_equal(qd_task_finish(t, NULL, 0, NULL), QD_E_CANCELED);
    assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELED);
    assert_false(r->out);
    rig_done(r, t);
}

static void a_cancel_after_the_last_write_is_told_so(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_job_state s = QD_JOB_PENDING;
    rename_out(r, t);
    assert_int_equal(qd_task_finish(t, NULL, 0, NULL), QD_OK);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_E_BUSY);
    assert_true(r->out);
    rig_done(r, t);
}

static void a_hand_back_is_not_counted(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_progress p;
    quantd__progress__init(&p);
    r->staging = 1;
    p.layer = 9;
    assert_int_equal(qd_task_hand_back(t, &p, 10, NULL), QD_OK);
    qd_task_free(t);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_QUEUING);
    assert_int_equal(rec->attempts, 0);
    assert_int_equal(rec->progress->layer, 9);
    assert_string_equal(rec->owner, "");
    qd_msg_free(rec);
    t = take_run(r, &r->w2); /* at once, and with what was done */
    assert_true(qd_task_resume(t));
    assert_int_equal(qd_task_record(t)->attempts, 1);
    assert_int_equal(qd_task_record(t)->epoch, 2);
    rig_done(r, t);
}

static void an_output_in_place_turns_every_end_into_success(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        qd_task *t = NULL;
        rig *r = rig_running(&t);
        qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_NODE);
        rename_out(r, t);
        assert_int_equal(how == 0 ? qd_task_fail(t, &e, 0, NULL, NULL) : qd_task_hand_back(t, NULL, 0, NULL), QD_OK);
        assert_int_equal(state_of(r, "j1"), QD_JOB_SUCCEEDED);
        rig_done(r, t);
    }
}

static void two_workers_must_fail_a_job(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    bool failed = true;
    qd_task *none = NULL;
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_JOB);
    r->staging = 1;
    assert_int_equal(qd_task_fail(t, &e, 0, &failed, NULL), QD_OK);
    qd_task_free(t);
    assert_false(failed);
    assert_int_equal(state_of(r, "j1"), QD_JOB_QUEUING);
    pass_ms(r, LEASE_MS);
    assert_int_equal(take(r, &r->w1, &none), QD_TAKE_LATER); /* not here again */
    pass_ms(r, LEASE_MS);
    t = take_run(r, &r->w2);
    assert_int_equal(qd_task_record(t)->attempts, 2);
    assert_int_equal(qd_task_fail(t, &e, 0, &failed, NULL), QD_OK);
    qd_task_free(t);
    assert_true(failed);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_FAILED);
    assert_int_equal(rec->n_failures, 2);
    assert_string_equal(rec->failures[0]->worker, "w1");
    assert_string_equal(rec->error->worker, "w2");
    assert_string_equal(rec->error->code, "bad_input");
    qd_msg_free(rec);
    assert_int_equal(r->staging, 0);
    assert_int_equal(stream_msgs(r, QD_STREAM_DEAD), 1);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    rig_free(r);
}

static void where_there_is_no_other_worker_one_is_enough(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    bool failed = false;
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_JOB);
    assert_int_equal(qd_jobs_heartbeat_end(r->w2.jobs, NULL), QD_OK);
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    assert_int_equal(qd_task_fail(t, &e, 0, &failed, NULL), QD_OK);
    assert_true(failed);
    rig_done(r, t);
}

static void when_the_other_worker_does_not_come_back_the_job_ends(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_task *none = NULL;
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_JOB);
    assert_int_equal(qd_task_fail(t, &e, 0, NULL, NULL), QD_OK);
    qd_task_free(t);
    pass_ms(r, 50 * LEASE_MS);
    beat(&r->w1, "w1");
    assert_int_equal(take(r, &r->w1, &none), QD_TAKE_ENDED);
    assert_int_equal(state_of(r, "j1"), QD_JOB_FAILED);
    rig_free(r);
}

static void node_failures_count_against_the_worker(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.node_retry_ms = 1};
    rig *r = rig_new(&opts);
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_NODE);
    qd_task *none = NULL;
    create(r, "j1");
    for (int i = 1; i <= 3; i++) {
        bool failed = true;
        assert_false(qd_jobs_must_drain(r->w1.jobs));
        qd_task *t = take_run(r, &r->w1);
        assert_int_equal(qd_task_fail(t, &e, 0, &failed, NULL), QD_OK);
        assert_false(failed);
        qd_task_free(t);
        assert_int_equal(qd_jobs_node_failures(r->w1.jobs), i);
        pass_ms(r, LEASE_MS);
    }
    assert_true(qd_jobs_must_drain(r->w1.jobs));
    assert_int_equal(take(r, &r->w1, &none), QD_TAKE_LATER);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->attempts, 0);
    assert_int_equal(rec->state, QD_JOB_QUEUING);
    qd_msg_free(rec);
    rig_free(r);
}

static void a_bus_failure_counts_against_nobody(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_BUS);
    assert_int_equal(qd_task_fail(t, &e, 0, NULL, NULL), QD_OK);
    qd_task_free(t);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->attempts, 0);
    assert_int_equal(rec->n_failures, 0);
    qd_msg_free(rec);
    assert_int_equal(qd_jobs_node_failures(r->w1.jobs), 0);
    pass_ms(r, LEASE_MS);
    t = take_run(r, &r->w1);
    rig_done(r, t);
}

static void a_dead_job_can_be_queued_again(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_JOB);
    assert_int_equal(qd_jobs_heartbeat_end(r->w2.jobs, NULL), QD_OK);
    create(r, "j1");
    assert_int_equal(qd_jobs_requeue(r->gate.jobs, "j1", NULL, NULL), QD_E_BUSY);
    qd_task *t = take_run(r, &r->w1);
    assert_int_equal(qd_task_fail(t, &e, 0, NULL, NULL), QD_OK);
    qd_task_free(t);
    lose(&r->gate, LOSE_REPLY, 1); /* the write's */
    assert_int_equal(qd_jobs_requeue(r->gate.jobs, "j1", NULL, NULL), QD_OK);
    lose(&r->gate, LOSE_NOTHING, 0);
    assert_int_equal(state_of(r, "j1"), QD_JOB_PENDING);
    admit(r);
    t = take_run(r, &r->w1); /* its old failure is forgotten */
    assert_int_equal(qd_task_record(t)->epoch, 2);
    assert_int_equal(qd_task_record(t)->attempts, 1);
    rig_done(r, t);
}

/* Ends of all kinds, with any one call lost: called until they answer, they come out as if nothing had been lost. */
static void whichever_call_of_an_end_is_lost_it_ends_once(void **state)
{
    (void)state;
    for (int end = 0; end < 5; end++)
        for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++) {
            bool lost = true;
            for (unsigned n = 0; lost; n++) {
                qd_task *t = NULL;
                rig *r = rig_running(&t);
                qd_job_state s = QD_JOB_PENDING;
                qd_job_error job = error_of(QUANTD__ERROR_CLASS__ERROR_JOB),
                             node = error_of(QUANTD__ERROR_CLASS__ERROR_NODE);
                if (end == 0) rename_out(r, t);
                if (end == 1) assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
                if (end == 4) assert_int_equal(qd_jobs_heartbeat_end(r->w2.jobs, NULL), QD_OK);
                lose(&r->w1, (loss)what, n);
                qd_code rc = QD_E_AWAY;
                for (int i = 0; i < 3 && rc == QD_E_AWAY; i++)
                    rc = end == 0   ? qd_task_finish(t, NULL, 5, NULL)
                         : end == 1 ? qd_task_canceled(t, 5, NULL)
                         : end == 2 ? qd_task_hand_back(t, NULL, 5, NULL)
                         : end == 3 ? qd_task_fail(t, &node, 5, NULL, NULL)
                                    : qd_task_fail(t, &job, 5, NULL, NULL);
                lost = r->w1.lost;
                assert_int_equal(rc, QD_OK);
                static const qd_job_state want[] = {QD_JOB_SUCCEEDED, QD_JOB_CANCELED, QD_JOB_QUEUING, QD_JOB_QUEUING,
                                                    QD_JOB_FAILED};
                qd_job_record *rec = record_of(r, "j1");
                assert_int_equal(rec->state, want[end]);
                assert_int_equal(rec->device_ms, 5);
                assert_int_equal(rec->attempts, end == 2 || end == 3 ? 0 : 1);
                assert_int_equal(rec->n_failures, end >= 3);
                assert_true(qd_jobs_node_failures(r->w1.jobs) == (end == 3));
                qd_msg_free(rec);
                rig_done(r, t);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finished_job_says_what_it_made),
        cmocka_unit_test(without_an_output_there_is_no_success),
        cmocka_unit_test(what_nobody_canceled_is_not_carried_out),
        cmocka_unit_test(a_cancel_before_the_last_write_wins),
        cmocka_unit_test(a_cancel_after_the_last_write_is_told_so),
        cmocka_unit_test(a_hand_back_is_not_counted),
        cmocka_unit_test(an_output_in_place_turns_every_end_into_success),
        cmocka_unit_test(two_workers_must_fail_a_job),
        cmocka_unit_test(where_there_is_no_other_worker_one_is_enough),
        cmocka_unit_test(when_the_other_worker_does_not_come_back_the_job_ends),
        cmocka_unit_test(node_failures_count_against_the_worker),
        cmocka_unit_test(a_bus_failure_counts_against_nobody),
        cmocka_unit_test(a_dead_job_can_be_queued_again),
        cmocka_unit_test(whichever_call_of_an_end_is_lost_it_ends_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
