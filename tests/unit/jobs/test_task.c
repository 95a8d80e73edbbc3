/* test_task.c -- a job in work: fence, lease, progress, log. */
#include "tests/unit/jobs/rig.h"

#include <string.h>

static void a_renewal_writes_the_lease_and_holds_the_message(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_bus_msg m = {0};
    bool got = true;
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    for (int i = 0; i < 5; i++) {
        pass_ms(r, LEASE_MS / 2);
        assert_int_equal(qd_task_renew(t, NULL), QD_OK);
        assert_int_equal(qd_jobs_fetch(r->w2.jobs, &m, &got, NULL), QD_OK);
        assert_false(got);
    }
    rig_done(r, t);
}

static void progress_stands_in_the_record(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_progress p;
    quantd__progress__init(&p);
    p.layer = 3;
    p.permille = 370;
    assert_int_equal(qd_task_progress(t, &p, NULL), QD_OK);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->progress->permille, 370);
    assert_int_equal(rec->state, QD_JOB_RUNNING);
    qd_msg_free(rec);
    rig_done(r, t);
}

static void while_the_bus_is_away_the_holder_works_on_and_writes_at_its_old_revision(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    qd_progress p;
    quantd__progress__init(&p);
    qd_bus_mem_partition(r->w1.real, true);
    p.permille = 1;
    assert_int_equal(qd_task_progress(t, &p, NULL), QD_E_AWAY);
    assert_int_equal(qd_task_renew(t, NULL), QD_E_AWAY);
    assert_int_equal(qd_task_may_commit(t, NULL), QD_E_AWAY); /* the one thing that needs an answer */
    qd_bus_mem_partition(r->w1.real, false);
    p.permille = 2;
    assert_int_equal(qd_task_progress(t, &p, NULL), QD_OK);
    assert_int_equal(qd_task_may_commit(t, NULL), QD_OK);
    rename_out(r, t);
    assert_int_equal(qd_task_finish(t, NULL, 5, NULL), QD_OK);
    assert_int_equal(state_of(r, "j1"), QD_JOB_SUCCEEDED);
    rig_done(r, t);
}

static void a_cancel_is_seen_by_every_call(void **state)
{
    (void)state;
    for (int call = 0; call < 6; call++) {
        rig *r = rig_new(NULL);
        qd_err err = {0};
        qd_job_state s = QD_JOB_PENDING;
        qd_progress p;
        quantd__progress__init(&p);
        qd_job_error e = error_of(QUANTD__ERROR_CLASS__ERROR_JOB);
        create(r, "j1");
        qd_task *t = take_run(r, &r->w1);
        r->staging = 1;
        assert_int_equal(qd_task_poll(t, &err), QD_OK);
        assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
        assert_int_equal(s, QD_JOB_CANCELING);
        qd_code rc = call == 0   ? qd_task_poll(t, &err)
                     : call == 1 ? qd_task_renew(t, &err)
                     : call == 2 ? qd_task_progress(t, &p, &err)
                     : call == 3 ? qd_task_may_commit(t, &err)
                     : call == 4 ? qd_task_hand_back(t, NULL, 1, &err)
                                 : qd_task_fail(t, &e, 1, NULL, &err);
        assert_int_equal(rc, QD_E_CANCELED);
        assert_int_equal(qd_task_canceled(t, 7, NULL), QD_OK);
        qd_job_record *rec = record_of(r, "j1");
        assert_int_equal(rec->state, QD_JOB_CANCELED);
        assert_int_equal(rec->device_ms, 7);
        qd_msg_free(rec);
        assert_int_equal(r->staging, 0);
        assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
        assert_false(key_there(r, QD_BUCKET_LIVE, "lease.j1"));
        rig_done(r, t);
    }
}

static void a_poll_without_news_reads_nothing(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    assert_int_equal(qd_task_poll(t, NULL), QD_OK);
    lose(&r->w1, LOSE_REQUEST, 0);
    assert_int_equal(qd_task_poll(t, NULL), QD_OK);
    assert_int_equal(r->w1.calls, 0);
    qd_progress p;
    quantd__progress__init(&p);
    p.permille = 10;
    lose(&r->w1, LOSE_NOTHING, 0);
    assert_int_equal(qd_task_progress(t, &p, NULL), QD_OK);
    lose(&r->w1, LOSE_REQUEST, 99);
    assert_int_equal(qd_task_poll(t, NULL), QD_OK); /* it heard of its own write, and knows it */
    assert_int_equal(r->w1.calls, 0);
    assert_int_equal(qd_task_fd(t), -1);
    rig_done(r, t);
}

static void a_deleted_record_is_a_lost_job(void **state)
{
    (void)state;
    qd_task *t = NULL;
    rig *r = rig_running(&t);
    assert_int_equal(qd_bus_kv_delete(r->gate.real, QD_BUCKET_JOBS, "job.j1", QD_REV_ANY, NULL), QD_OK);
    assert_int_equal(qd_task_check(t, NULL), QD_E_CONFLICT);
    rig_done(r, t);
}

static qd_bus_msg last_event(rig *r)
{
    qd_bus_feed_spec spec = {.stream = QD_STREAM_EVENTS, .filter = "quant.event.j1.*", .start = QD_FEED_FROM_SEQ};
    qd_bus_feed *f = NULL;
    qd_bus_msg m = {0};
    qd_bus_feed_event event = QD_FEED_MSG;
    assert_int_equal(qd_bus_feed_open(r->gate.real, &spec, &f, NULL), QD_OK);
    for (int i = 0; i < 100; i++) {
        qd_bus_msg next = {0};
        assert_int_equal(qd_bus_feed_next(r->gate.real, f, 0, &event, &next, NULL), QD_OK);
        if (event == QD_FEED_NONE) break;
        if (event != QD_FEED_MSG) continue;
        qd_bus_msg_done(&m);
        m = next;
    }
    qd_bus_feed_close(r->gate.real, f);
    return m;
}

static void log_lines_are_numbered_and_told_once(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_log_line a, b, *lines[] = {&a, &b};
    quantd__log_line__init(&a);
    quantd__log_line__init(&b);
    char text[] = "Starting quantization...", more[] = "Quantization progress: 37%";
    a.text = text;
    b.text = more;
    a.level = b.level = QUANTD__LOG_LEVEL__LOG_INFO;
    create(r, "j1");
    qd_task *t = take_run(r, &r->w1);
    assert_int_equal(qd_task_log(t, lines, 2, NULL, NULL), QD_OK);
    lose(&r->w1, LOSE_REPLY, 0); /* stored, and not known to be */
    assert_int_equal(qd_task_log(t, lines + 1, 1, NULL, NULL), QD_E_AWAY);
    lose(&r->w1, LOSE_NOTHING, 0);
    assert_int_equal(qd_task_log(t, lines + 1, 1, NULL, NULL), QD_OK);
    assert_int_equal(stream_msgs(r, QD_STREAM_EVENTS), 2);
    qd_bus_msg m = last_event(r);
    assert_string_equal(qd_bus_msg_header(&m, QD_HEADER_EPOCH), "1");
    assert_string_equal(qd_bus_msg_header(&m, QD_HEADER_LINE), "3");
    assert_string_equal(qd_bus_msg_header(&m, QD_HEADER_LINES), "1");
    qd_event_batch *batch = NULL;
    assert_int_equal(qd_event_batch_decode(m.data, m.bytes, &batch, NULL), QD_OK);
    assert_string_equal(batch->lines[0]->text, more);
    assert_int_equal(batch->first_line, 3);
    qd_msg_free(batch);
    qd_bus_msg_done(&m);
    rename_out(r, t);
    qd_task_set_log_lines(t, 3);
    assert_int_equal(qd_task_finish(t, NULL, 0, NULL), QD_OK);
    m = last_event(r);
    assert_int_equal(qd_event_batch_decode(m.data, m.bytes, &batch, NULL), QD_OK);
    assert_true(batch->last);
    assert_int_equal(batch->state, QD_JOB_SUCCEEDED);
    qd_msg_free(batch);
    qd_bus_msg_done(&m);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->log_lines, 3);
    qd_msg_free(rec);
    rig_done(r, t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_renewal_writes_the_lease_and_holds_the_message),
        cmocka_unit_test(progress_stands_in_the_record),
        cmocka_unit_test(while_the_bus_is_away_the_holder_works_on_and_writes_at_its_old_revision),
        cmocka_unit_test(a_cancel_is_seen_by_every_call),
        cmocka_unit_test(a_poll_without_news_reads_nothing),
        cmocka_unit_test(a_deleted_record_is_a_lost_job),
        cmocka_unit_test(log_lines_are_numbered_and_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
