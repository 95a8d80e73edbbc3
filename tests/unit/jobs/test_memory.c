/* test_memory.c -- whichever allocation fails, a job comes to its end all the same, and nothing leaks. */
#include "base/fault.h"
#include "tests/unit/jobs/rig.h"

#include <errno.h>

static void fails_at(unsigned long n)
{
    qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
}

/* One job's life, with trying again; each step may meet the failing allocation. */
static void live(rig *r)
{
    qd_job_spec *s = spec_new("j1");
    qd_jobs_swept swept = {0};
    qd_task *t = NULL;
    qd_progress p;
    quantd__progress__init(&p);
    for (int i = 0; i < 3 && qd_jobs_create(r->gate.jobs, "j1", s, true, NULL, NULL) != QD_OK; i++) {
    }
    for (int i = 0; i < 3; i++) {
        qd_code rc = qd_jobs_sweep(r->gate.jobs, &swept, NULL);
        if (rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
        rc = qd_jobs_sweep_leaks(r->gate.jobs, &swept, NULL);
        if (rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
    }
    for (int i = 0; i < 5 && t == NULL; i++) {
        qd_bus_msg m = {0};
        qd_take how = QD_TAKE_LATER;
        bool got = false;
        if (qd_jobs_fetch(r->w1.jobs, &m, &got, NULL) == QD_OK && got)
            if (qd_jobs_take(r->w1.jobs, &m, &how, &t, NULL) != QD_OK) assert_null(t);
        if (t == NULL) pass_ms(r, 2 * LEASE_MS);
    }
    assert_non_null(t);
    for (int i = 0; i < 2; i++) {
        (void)!qd_task_renew(t, NULL);
        (void)!qd_task_progress(t, &p, NULL);
        (void)!qd_task_poll(t, NULL);
    }
    rename_out(r, t);
    qd_code rc = QD_E_NO_MEMORY;
    for (int i = 0; i < 3 && rc != QD_OK; i++) rc = qd_task_finish(t, NULL, 1, NULL);
    assert_int_equal(rc, QD_OK);
    qd_task_free(t);
    qd_msg_free(s);
}

static void whichever_allocation_fails_the_job_ends_well(void **state)
{
    (void)state;
    unsigned long seen = 1;
    for (unsigned long n = 1; n <= seen; n++) {
        qd_jobs_opts opts = {.node_retry_ms = 1}; /* want of memory is the node's fault */
        rig *r = rig_new(&opts);
        fails_at(n + 40); /* behind what the test's own spec takes */
        live(r);
        seen = qd_fault_count(QD_FAULT_ALLOC);
        fails_at(0);
        assert_int_equal(state_of(r, "j1"), QD_JOB_SUCCEEDED);
        rig_free(r);
    }
    assert_true(seen > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whichever_allocation_fails_the_job_ends_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
