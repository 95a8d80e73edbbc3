/* Whole jobs on gangs over NCCL, linked with a double of it. */
#include "gpu/cuda/comm_nccl.h"
#include "tests/unit/gang/jobs.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static gang_kind g_kind;

static int set_up(void **state)
{
    g_kind.kind = qd_comm_nccl();
    return jobs_set_up(state, &g_kind);
}

int main(void)
{
#define X(name) cmocka_unit_test_setup_teardown(name, set_up, jobs_tear_down),
    const struct CMUnitTest tests[] = {GANG_JOB_TESTS(X)};
#undef X
    return cmocka_run_group_tests(tests, NULL, NULL);
}
