/* Whole jobs on gangs over shared memory. */
#include "tests/unit/gang/jobs.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static gang_kind g_kind = {.tells = true};

static int set_up(void **state)
{
    g_kind.kind = qd_comm_shm();
    return jobs_set_up(state, &g_kind);
}

int main(void)
{
#define X(name) cmocka_unit_test_setup_teardown(name, set_up, jobs_tear_down),
    const struct CMUnitTest tests[] = {GANG_JOB_TESTS(X)};
#undef X
    return cmocka_run_group_tests(tests, NULL, NULL);
}
