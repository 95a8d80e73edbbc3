/* Which communicator a device has; libraries of another build (where the system looks first) are refused. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include "gpu/comm_of.h"
#include "gpu/device.h"

#include <string.h>

static void ranks_of_the_processor_meet_in_shared_memory(void **state)
{
    static const char *const names[] = {"cpu", "cpu-bf16"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        qd_comm_of of;
        assert_int_equal(qd_comm_find(names[i], &of, NULL), QD_OK);
        assert_ptr_equal(of.kind, qd_comm_shm());
        assert_string_equal(of.version, "shm");
        assert_true(of.one_host);
    }
}

static void a_name_of_no_device_is_refused(void **state)
{
    static const char *const names[] = {"", "gpu", "gpu-1", "gpu1x", "gpu 1", "tpu0", "gpu0,gpu1", "cpu0"};
    qd_comm_of of;
    qd_err err;
    int index;
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(qd_comm_find(names[i], &of, &err), QD_E_USAGE);
        assert_non_null(strstr(err.msg, "expected cpu"));
    }
    assert_int_equal(qd_device_index("gpu12", &index, NULL), QD_OK);
    assert_int_equal(index, 12);
}

static void libraries_of_another_build_are_refused(void **state)
{
    qd_comm_of of;
    const qd_ops *ops = NULL;
    qd_err err;
    (void)state;
    assert_int_equal(qd_comm_find("gpu0", &of, &err), QD_E_UNSUPPORTED);
    assert_string_equal(err.msg, "gpu0: expected the libqd_nccl.so of this build, found another one");
    assert_int_equal(qd_ops_open("gpu0", &ops, &err), QD_E_UNSUPPORTED);
    assert_string_equal(err.msg, "gpu0: expected the libqd_cuda.so of this build, found another one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_the_processor_meet_in_shared_memory),
        cmocka_unit_test(a_name_of_no_device_is_refused),
        cmocka_unit_test(libraries_of_another_build_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
