/* test_create.c -- jobs come to be once, hold their names, and are refused when there are too many. */
#include "tests/unit/jobs/rig.h"

#include <string.h>

static qd_code try_create(rig *r, const char *id, const char *name, bool unique)
{
    qd_job_spec *s = spec_new(name);
    qd_err err = {0};
    qd_code rc = qd_jobs_create(r->gate.jobs, id, s, unique, NULL, &err);
    if (rc != QD_OK) assert_true(err.msg[0] != '\0');
    qd_msg_free(s);
    return rc;
}

static void a_job_is_recorded_and_holds_its_name(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    char id[QD_ID_BYTES];
    assert_int_equal(try_create(r, "j1", "run 1", true), QD_OK);
    qd_job_record *rec = record_of(r, "j1");
    assert_int_equal(rec->state, QD_JOB_PENDING);
    assert_int_equal(rec->epoch, 0);
    assert_true(rec->created_ms != 0);
    assert_string_equal(rec->spec->name, "run 1");
    qd_msg_free(rec);
    assert_int_equal(qd_jobs_by_name(r->gate.jobs, "default", "run 1", id, NULL), QD_OK);
    assert_string_equal(id, "j1");
    assert_int_equal(stream_msgs(r, QD_STREAM_AUDIT), 1);
    rig_free(r);
}

static void the_same_id_again_is_the_same_job(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    create(r, "j1"); /* admitted */
    assert_int_equal(try_create(r, "j1", "j1", true), QD_OK);
    assert_int_equal(state_of(r, "j1"), QD_JOB_QUEUING);
    rig_free(r);
}

static void a_held_name_is_refused_with_its_holder(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_spec *s = spec_new("same");
    qd_err err = {0};
    assert_int_equal(try_create(r, "j1", "same", true), QD_OK);
    assert_int_equal(qd_jobs_create(r->gate.jobs, "j2", s, true, NULL, &err), QD_E_CONFLICT);
    assert_non_null(strstr(err.msg, "j1"));
    assert_true(record_gone(r, "j2"));
    assert_int_equal(qd_jobs_create(r->gate.jobs, "j3", s, false, NULL, &err), QD_OK); /* an API without unique names */
    qd_msg_free(s);
    rig_free(r);
}

static void a_bad_spec_leaves_nothing(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_spec *s = spec_new("n");
    assert_int_equal(qd_text_set(&s->output_path, "relative", NULL), QD_OK);
    assert_int_equal(qd_jobs_create(r->gate.jobs, "j1", s, true, NULL, NULL), QD_E_INPUT);
    assert_int_equal(qd_jobs_by_name(r->gate.jobs, "default", "n", (char[QD_ID_BYTES]){0}, NULL), QD_E_NOT_FOUND);
    assert_int_equal(qd_jobs_create(r->gate.jobs, "no id", s, true, NULL, NULL), QD_E_INPUT);
    qd_msg_free(s);
    rig_free(r);
}

static void a_creation_that_was_long_under_way_does_not_bring_a_deleted_job_back(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_state s = QD_JOB_PENDING;
    assert_int_equal(try_create(r, "j1", "n", true), QD_OK);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    assert_int_equal(qd_jobs_delete(r->gate.jobs, "j1", NULL, NULL), QD_OK);
    assert_int_equal(try_create(r, "j1", "n", false), QD_OK); /* it was created; that it is deleted is another matter */
    assert_true(record_gone(r, "j1"));
    rig_free(r);
}

static void whichever_call_is_lost_there_is_one_job_in_the_end(void **state)
{
    (void)state;
    for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++) {
        bool lost = true;
        unsigned n = 0;
        for (; lost; n++) {
            rig *r = rig_new(NULL);
            lose(&r->gate, (loss)what, n);
            qd_code rc = try_create(r, "j1", "n", true);
            lost = r->gate.lost;
            assert_true(rc == QD_OK || rc == QD_E_AWAY);
            lose(&r->gate, LOSE_NOTHING, 0);
            if (rc != QD_OK) assert_int_equal(try_create(r, "j1", "n", true), QD_OK);
            assert_int_equal(state_of(r, "j1"), QD_JOB_PENDING);
            assert_true(key_there(r, QD_BUCKET_JOBS, "name.default.n"));
            rig_free(r);
        }
        assert_true(n >= 4);
    }
}

static void a_full_queue_has_its_own_code(void **state)
{
    (void)state;
    qd_jobs_opts opts = {.queued_max = 2, .recorded_max = 3};
    rig *r = rig_new(&opts);
    qd_job_state s = QD_JOB_PENDING;
    create(r, "j1");
    create(r, "j2");
    assert_int_equal(qd_jobs_view_pump(r->gate.jobs, 0, NULL, NULL), QD_OK);
    assert_int_equal(try_create(r, "j3", "j3", true), QD_E_FULL);
    assert_int_equal(qd_jobs_by_name(r->gate.jobs, "default", "j3", (char[QD_ID_BYTES]){0}, NULL), QD_E_NOT_FOUND);
    assert_int_equal(try_create(r, "j2", "j2", true), QD_OK); /* but not for one that is in */
    for (int i = 1; i <= 2; i++)
        assert_int_equal(qd_jobs_cancel(r->gate.jobs, i == 1 ? "j1" : "j2", "", NULL, &s, NULL), QD_OK);
    admit(r); /* the view takes it in */
    create(r, "j3");
    admit(r);
    assert_int_equal(try_create(r, "j4", "j4", true), QD_E_FULL); /* on record */
    rig_free(r);
}

static void a_program_without_a_view_asks_the_stream(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    create(r, "j1");
    qd_bus_mem_set_msgs_max(r->mem, QD_STREAM_JOBS, 1);
    qd_job_spec *s = spec_new("j2");
    /* bus_mem's limit is not the table's, so the stream is full for admission only: the job waits PENDING. */
    assert_int_equal(qd_jobs_create(r->w1.jobs, "j2", s, true, NULL, NULL), QD_OK);
    qd_msg_free(s);
    qd_jobs_swept swept = {0};
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
    assert_true(swept.queue_full);
    assert_int_equal(state_of(r, "j2"), QD_JOB_PENDING);
    assert_int_equal(try_create(r, "j3", "j3", true), QD_E_FULL);
    rig_free(r);
}

static void a_cancel_of_a_waiting_job_ends_it_and_its_message(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_state s = QD_JOB_PENDING;
    qd_jobs_caller by = {.user = "ann", .request_id = "r-1", .from = "127.0.0.1"};
    create(r, "j1");
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 1);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "no longer wanted", &by, &s, NULL), QD_OK);
    assert_int_equal(s, QD_JOB_CANCELED);
    assert_int_equal(stream_msgs(r, QD_STREAM_JOBS), 0);
    qd_job_record *rec = record_of(r, "j1");
    assert_string_equal(rec->cancel->by, "ann");
    assert_string_equal(rec->cancel->reason, "no longer wanted");
    assert_true(rec->ended_ms != 0);
    qd_msg_free(rec);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK); /* again */
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j9", "", NULL, &s, NULL), QD_E_NOT_FOUND);
    rig_free(r);
}

static void whichever_call_of_a_cancel_is_lost_the_answer_is_true(void **state)
{
    (void)state;
    for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++) {
        bool lost = true;
        for (unsigned n = 0; lost; n++) {
            rig *r = rig_new(NULL);
            qd_job_state s = QD_JOB_PENDING;
            create(r, "j1");
            lose(&r->gate, (loss)what, n);
            qd_code rc = qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL);
            lost = r->gate.lost;
            lose(&r->gate, LOSE_NOTHING, 0);
            if (rc != QD_OK) {
                assert_int_equal(rc, QD_E_AWAY);
                assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
            }
            assert_int_equal(state_of(r, "j1"), QD_JOB_CANCELED);
            rig_free(r);
        }
    }
}

static void an_ended_job_is_deleted_with_its_name(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_state s = QD_JOB_PENDING;
    create(r, "j1");
    assert_int_equal(qd_jobs_delete(r->gate.jobs, "j1", NULL, NULL), QD_E_BUSY);
    assert_int_equal(qd_jobs_cancel(r->gate.jobs, "j1", "", NULL, &s, NULL), QD_OK);
    for (unsigned n = 0; n < 12; n++) { /* the first calls lose an answer each */
        lose(&r->gate, LOSE_REPLY, n);
        qd_code rc = qd_jobs_delete(r->gate.jobs, "j1", NULL, NULL);
        assert_true(rc == QD_OK || rc == QD_E_AWAY || rc == QD_E_NOT_FOUND);
    }
    lose(&r->gate, LOSE_NOTHING, 0);
    assert_true(record_gone(r, "j1"));
    assert_int_equal(qd_jobs_delete(r->gate.jobs, "j1", NULL, NULL), QD_E_NOT_FOUND);
    pass_ms(r, 100 * LEASE_MS);
    qd_jobs_swept swept = {0};
    assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK); /* sees it */
    pass_ms(r, 100 * LEASE_MS);
    assert_int_equal(qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL), QD_OK);
    assert_false(key_there(r, QD_BUCKET_JOBS, "name.default.j1"));
    assert_int_equal(try_create(r, "j2", "j1", true), QD_OK); /* the name is free */
    rig_free(r);
}

static qd_code count(void *ctx, const qd_job_record *rec, uint64_t rev, qd_err *err)
{
    (void)err;
    assert_true(rev != 0 && rec->id[0] == 'j');
    ++*(size_t *)ctx;
    return QD_OK;
}

static void records_of_newer_programs_are_counted_not_told(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    size_t n = 0, unread = 0;
    static const uint8_t newer[] = {0x08, 99, 0x12, 2, 'j', '3'};
    qd_jobs_stats stats = {0};
    create(r, "j1");
    create(r, "j2");
    assert_int_equal(
        qd_bus_kv_put(r->gate.real, QD_BUCKET_JOBS, "job.j3", newer, sizeof newer, QD_REV_ABSENT, NULL, NULL), QD_OK);
    assert_int_equal(qd_jobs_each(r->gate.jobs, count, &n, &unread, NULL), QD_OK);
    assert_int_equal(n, 2);
    assert_int_equal(unread, 1);
    qd_jobs_stats_get(r->gate.jobs, &stats);
    assert_true(stats.malformed >= 1);
    assert_int_equal(qd_jobs_get(r->gate.jobs, "j3", &(qd_job_record *){NULL}, NULL, NULL), QD_E_VERSION);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_is_recorded_and_holds_its_name),
        cmocka_unit_test(the_same_id_again_is_the_same_job),
        cmocka_unit_test(a_held_name_is_refused_with_its_holder),
        cmocka_unit_test(a_bad_spec_leaves_nothing),
        cmocka_unit_test(a_creation_that_was_long_under_way_does_not_bring_a_deleted_job_back),
        cmocka_unit_test(whichever_call_is_lost_there_is_one_job_in_the_end),
        cmocka_unit_test(a_full_queue_has_its_own_code),
        cmocka_unit_test(a_program_without_a_view_asks_the_stream),
        cmocka_unit_test(a_cancel_of_a_waiting_job_ends_it_and_its_message),
        cmocka_unit_test(whichever_call_of_a_cancel_is_lost_the_answer_is_true),
        cmocka_unit_test(an_ended_job_is_deleted_with_its_name),
        cmocka_unit_test(records_of_newer_programs_are_counted_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
