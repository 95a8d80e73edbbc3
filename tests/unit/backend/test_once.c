/* A create that breaks off anywhere, and is asked for again under the same Idempotency-Key, makes one job. */
#include "tests/unit/backend/rig.h"

enum {
    CALLS_MAX = 60
};

static void the_same_key_is_the_same_job(void **state)
{
    (void)state;
    rig *r = rig_new(2);
    char a[QD_ID_BYTES], b[QD_ID_BYTES];
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    assert_int_equal(rig_create(r, 0, "acme", "n", "k1", a), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", "n", "k1", b), QD_OK);
    assert_string_equal(a, b);
    assert_int_equal(rig_create(r, 1, "acme", "n", "k1", b), QD_OK); /* by whatever gateway */
    assert_string_equal(a, b);
    assert_int_equal(rig_create(r, 0, "acme", "other", "k1", NULL), QD_E_REFUSED);
    assert_int_equal(rig_create(r, 0, "zeta", "n", "k1", b), QD_OK); /* a tenant's keys are its own */
    assert_string_not_equal(a, b);
    assert_int_equal(rig_count(r, 0, NULL), 2);
    assert_int_equal(r->gate[0]->ops->job_cancel(r->gate[0]->ctx, &ask, QUANTD__API_ORIGIN__API_BAILIAN, a, NULL),
                     QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", "n", "k1", b), QD_OK); /* whatever became of it */
    assert_string_equal(a, b);
    assert_int_equal(r->gate[0]->ops->job_delete(r->gate[0]->ctx, &ask, QUANTD__API_ORIGIN__API_BAILIAN, a, NULL),
                     QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", "n", "k1", NULL), QD_E_REFUSED); /* it is not made twice */
    rig_free(r);
}

/* The job is the only one, and its name is its own. */
static void check_one(rig *r, const char *name, const char *id)
{
    char holder[QD_ID_BYTES];
    qd_jobs *jobs = NULL;
    const qd_jobs_opts opts = {.self = "test"};
    assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_OK);
    assert_int_equal(qd_jobs_open(r->bus, &opts, &jobs, NULL), QD_OK);
    assert_int_equal(qd_jobs_by_name(jobs, "acme", name, holder, NULL), QD_OK);
    assert_string_equal(holder, id);
    qd_jobs_close(jobs);
}

static void one_job_whatever_gets_lost(rig *r, loss what)
{
    char name[32], key[32], id[QD_ID_BYTES], first[QD_ID_BYTES];
    uint64_t expect = rig_count(r, 0, "acme");
    int reached = 0;
    for (int at = 0; at < CALLS_MAX; at++) {
        (void)snprintf(name, sizeof name, "n%d-%d", (int)what, at);
        (void)snprintf(key, sizeof key, "k%d-%d", (int)what, at);
        rig_lose(r, what, at);
        qd_code rc = rig_create(r, 0, "acme", name, key, first);
        bool lost = atomic_load(&r->calls) > at;
        rig_lose(r, LOSE_NOTHING, 0);
        reached += lost;
        if (!lost) assert_int_equal(rc, QD_OK);
        if (rc != QD_OK) assert_int_equal(rc, QD_E_AWAY);
        if (what == LOSE_ALL && at % 2 == 0) { /* the gateway was killed; another one is asked */
            rig_stop(r, 0);
            rig_start(r, 0);
        }
        assert_int_equal(rig_create(r, 0, "acme", name, key, id), QD_OK);
        if (rc == QD_OK) assert_string_equal(id, first);
        check_one(r, name, id);
        expect++;
        EVENTUALLY(rig_count(r, 0, "acme") == expect);
        if (!lost) break;
    }
    assert_true(reached >= 6); /* as many calls a create takes at least */
}

static void a_create_that_breaks_off_is_finished_by_the_same_request(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    one_job_whatever_gets_lost(r, LOSE_REQUEST);
    one_job_whatever_gets_lost(r, LOSE_REPLY);
    one_job_whatever_gets_lost(r, LOSE_ALL);
    rig_free(r);
}

static void without_a_key_a_lost_answer_is_no_second_job(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++)
        for (int at = 0; at < 12; at++) {
            char id[QD_ID_BYTES];
            uint64_t before = rig_count(r, 0, "acme");
            rig_lose(r, (loss)what, at);
            assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK); /* one loss is made good */
            rig_lose(r, LOSE_NOTHING, 0);
            assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_OK);
            (void)usleep(5000);
            assert_int_equal(rig_count(r, 0, "acme"), before + 1);
        }
    rig_free(r);
}

static void a_bus_that_is_away_is_said_not_guessed(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    char id[QD_ID_BYTES];
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
    rig_lose(r, LOSE_ALL, 0);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_E_AWAY);
    assert_int_equal(r->gate[0]->ops->job_cancel(r->gate[0]->ctx, &ask, QUANTD__API_ORIGIN__API_BAILIAN, id, NULL),
                     QD_E_AWAY);
    assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_OK); /* reading goes on */
    rig_lose(r, LOSE_NOTHING, 0);
    rig_free(r);
}

static void cancel_and_delete_are_done_whatever_gets_lost(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++)
        for (int at = 0; at < 8; at++) {
            char id[QD_ID_BYTES];
            assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
            rig_lose(r, (loss)what, at);
            assert_int_equal(
                r->gate[0]->ops->job_cancel(r->gate[0]->ctx, &ask, QUANTD__API_ORIGIN__API_BAILIAN, id, NULL), QD_OK);
            rig_lose(r, (loss)what, at);
            assert_int_equal(
                r->gate[0]->ops->job_delete(r->gate[0]->ctx, &ask, QUANTD__API_ORIGIN__API_BAILIAN, id, NULL), QD_OK);
            rig_lose(r, LOSE_NOTHING, 0);
            assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_E_NOT_FOUND);
        }
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_key_is_the_same_job),
        cmocka_unit_test(a_create_that_breaks_off_is_finished_by_the_same_request),
        cmocka_unit_test(without_a_key_a_lost_answer_is_no_second_job),
        cmocka_unit_test(a_bus_that_is_away_is_said_not_guessed),
        cmocka_unit_test(cancel_and_delete_are_done_whatever_gets_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
