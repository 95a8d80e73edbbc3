/* test_tasks.c -- independent tasks over some threads: each once, the first error, cancels, ticks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/tasks.h"

#include <pthread.h>
#include <string.h>

enum {
    N = 200,
    THREADS = 3
};

typedef struct seen {
    atomic_uint times[N];
    atomic_uint workers; /* a bit each */
    pthread_t caller;
    atomic_bool elsewhere; /* a task ran in another thread than the caller's */
    uint64_t fails_at;
    qd_cancel *cancels;
    uint64_t told, calls;
} seen;

static qd_code once(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    seen *s = arg;
    (void)atomic_fetch_add(&s->times[task], 1);
    (void)atomic_fetch_or(&s->workers, 1u << worker);
    if (!pthread_equal(pthread_self(), s->caller)) atomic_store(&s->elsewhere, true);
    if (s->cancels != NULL) qd_cancel_set(s->cancels, 15);
    return task == s->fails_at ? qd_fail(err, QD_E_IO, "task %u", (unsigned)task) : QD_OK;
}

static void tell(void *ctx, uint64_t n_ticks)
{
    seen *s = ctx;
    assert_true(n_ticks >= s->told);
    s->told = n_ticks;
    s->calls++;
}

static seen fresh(void)
{
    return (seen){.caller = pthread_self(), .fails_at = UINT64_MAX};
}

static unsigned n_done(const seen *s)
{
    unsigned n = 0;
    for (int i = 0; i < N; i++) n += s->times[i];
    return n;
}

static void each_task_runs_once_and_is_a_tick(void **state)
{
    (void)state;
    seen s = fresh();
    qd_tasks t = {.n_threads = THREADS, .tell = tell, .ctx = &s, .n_ticks = 7};
    qd_err e = {0};
    assert_int_equal(qd_tasks_run(&t, N, once, &s, &e), QD_OK);
    for (int i = 0; i < N; i++) assert_int_equal(s.times[i], 1);
    assert_int_equal(s.workers >> THREADS, 0);
    assert_int_equal(t.n_ticks, 7 + N);
    assert_int_equal(s.told, 7 + N); /* also after the last one */
    assert_int_equal(qd_tasks_run(&t, 0, once, &s, &e), QD_OK);
    assert_int_equal(n_done(&s), N);
}

static void a_single_task_and_tasks_of_nobody_run_in_the_callers_thread(void **state)
{
    (void)state;
    seen s = fresh();
    qd_tasks t = {.n_threads = THREADS, .tell = tell, .ctx = &s};
    qd_err e = {0};
    assert_int_equal(qd_tasks_run(&t, 1, once, &s, &e), QD_OK);
    assert_int_equal(s.told, 1);
    assert_int_equal(qd_tasks_run(NULL, N, once, &s, &e), QD_OK);
    assert_int_equal(n_done(&s), N + 1);
    assert_false(s.elsewhere);
    assert_int_equal(s.workers, 1);
    assert_int_equal(qd_tasks_workers(NULL), 1);
    assert_int_equal(qd_tasks_workers(&t), THREADS);
}

static void the_first_error_ends_it(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= THREADS; threads++) {
        seen s = fresh();
        qd_tasks t = {.n_threads = threads};
        qd_err e = {0};
        s.fails_at = 5;
        assert_int_equal(qd_tasks_run(threads == 0 ? NULL : &t, N, once, &s, &e), QD_E_IO);
        assert_string_equal(e.msg, "task 5");
        assert_in_range(n_done(&s), 6, N);
        if (threads <= 1) assert_int_equal(n_done(&s), 6);
    }
}

static void a_cancel_is_heard_before_each_task_and_at_each_tick(void **state)
{
    (void)state;
    seen s = fresh();
    qd_cancel cancel = {0};
    qd_tasks t = {.n_threads = 1, .cancel = &cancel, .tell = tell, .ctx = &s};
    qd_err e = {0};
    assert_int_equal(qd_tasks_tick(&t, &e), QD_OK);
    assert_int_equal(s.told, 1);
    s.cancels = &cancel;
    assert_int_equal(qd_tasks_run(&t, N, once, &s, &e), QD_E_CANCELED);
    assert_int_equal(n_done(&s), 1);
    assert_int_equal(qd_tasks_run(&t, 1, once, &s, &e), QD_E_CANCELED);
    assert_int_equal(n_done(&s), 1);
    uint64_t calls = s.calls;
    assert_int_equal(qd_tasks_tick(&t, &e), QD_E_CANCELED);
    assert_int_equal(s.calls, calls + 1); /* it is told first */
    assert_int_equal(qd_tasks_tick(NULL, &e), QD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_task_runs_once_and_is_a_tick),
        cmocka_unit_test(a_single_task_and_tasks_of_nobody_run_in_the_callers_thread),
        cmocka_unit_test(the_first_error_ends_it),
        cmocka_unit_test(a_cancel_is_heard_before_each_task_and_at_each_tick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
