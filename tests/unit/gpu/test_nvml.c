/* test_nvml.c -- a GPU's health by a double of NVML: what is known, what is faulty, what fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char g_says[64];

static void say(const char *text)
{
    FILE *f = fopen(g_says, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(g_says, sizeof g_says, "/tmp/qd-nvml-XXXXXX");
    int fd = mkstemp(g_says);
    if (fd < 0 || close(fd) != 0) return -1;
    return setenv("QD_FAKE_NVML", g_says, 1);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(g_says);
}

static qd_nvml *open_gpu(const char *library, unsigned index)
{
    qd_nvml *n = NULL;
    qd_err err = {0};
    if (qd_nvml_open(library, index, &n, &err) != QD_OK) fail_msg("%s", err.msg);
    return n;
}

static void a_sound_gpu_tells_all(void **state)
{
    qd_gpu_health h = {0};
    char why[128] = "?", throttle[128];
    (void)state;
    say("temperature 61\nthrottle 36\ntotal 1000\nfree 400\nlinks 18\n");
    qd_nvml *n = open_gpu(QD_TEST_NVML, 1);
    qd_nvml_read(n, &h);
    assert_string_equal(h.name, "Fake GPU 1");
    assert_string_equal(h.uuid, "GPU-00000000-0000-0000-0000-000000000001");
    assert_string_equal(h.pci, "00000000:19:00.0");
    assert_int_equal(h.memory_bytes, 1000);
    assert_int_equal(h.memory_free_bytes, 400);
    assert_int_equal(h.temperature_c, 61);
    assert_int_equal(h.nvlinks, 18);
    assert_int_equal(h.known, 127);
    assert_int_equal(h.failed_calls, 0);
    assert_false(qd_gpu_faulty(&h, why, sizeof why));
    qd_gpu_throttle_text(h.throttle, throttle, sizeof throttle);
    assert_string_equal(throttle, "power cap, thermal slowdown");
    qd_gpu_throttle_text(UINT64_MAX, throttle, 10);
    assert_int_equal(strlen(throttle), 9);
    qd_nvml_close(n);
}

static void faults_are_told_in_words(void **state)
{
    static const struct {
        const char *says, *why;
    } faults[] = {{"ecc 3\n", "3 uncorrected ECC errors in the GPU's memory"},
                  {"remap_failed 1\n", "a bad row of the GPU's memory could not be replaced"},
                  {"fail nvmlDeviceGetTemperature 15\n", "the GPU is lost or needs a reset"},
                  {"fail nvmlDeviceGetMemoryInfo 16\n", "the GPU is lost or needs a reset"}};
    (void)state;
    say("");
    qd_nvml *n = open_gpu(QD_TEST_NVML, 0);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        qd_gpu_health h = {0};
        char why[128] = "";
        say(faults[i].says);
        qd_nvml_read(n, &h);
        assert_true(qd_gpu_faulty(&h, why, sizeof why));
        assert_string_equal(why, faults[i].why);
    }
    qd_nvml_close(n);
}

static void an_xid_is_heard_and_a_fatal_one_stays(void **state)
{
    qd_gpu_health h = {0};
    char why[128] = "";
    (void)state;
    say("");
    qd_nvml *n = open_gpu(QD_TEST_NVML, 0);
    assert_false(qd_nvml_wait(n, 1));
    say("xid 31 1\n"); /* an application's fault */
    assert_true(qd_nvml_wait(n, 1));
    assert_false(qd_nvml_wait(n, 1));
    qd_nvml_read(n, &h);
    assert_int_equal(h.xid, 31);
    assert_false(qd_gpu_faulty(&h, why, sizeof why));
    say("xid 79 2\n");
    assert_true(qd_nvml_wait(n, 1));
    say("xid 13 3\n");
    assert_true(qd_nvml_wait(n, 1));
    qd_nvml_read(n, &h);
    assert_int_equal(h.xid, 13);
    assert_true(qd_gpu_faulty(&h, why, sizeof why));
    assert_string_equal(why, "the GPU reported XID 79, which needs a reset or a repair");
    qd_nvml_close(n);
    for (uint64_t x = 0; x < 1000; x++)
        assert_int_equal(qd_xid_is_fatal(x), x == 48 || x == 62 || x == 64 || x == 74 || x == 79 || x == 95 ||
                                                 x == 119 || x == 120 || x == 140);
}

static void what_is_not_supported_is_unknown_and_no_fault(void **state)
{
    qd_gpu_health h = {0};
    char why[128];
    (void)state;
    say("fail nvmlDeviceGetTotalEccErrors 3\nfail nvmlDeviceGetTemperature 999\n");
    qd_nvml *n = open_gpu(QD_TEST_NVML, 0);
    qd_nvml_read(n, &h);
    assert_int_equal(h.known & (QD_GPU_KNOWS_ECC | QD_GPU_KNOWS_TEMPERATURE | QD_GPU_KNOWS_NVLINK), 0);
    assert_int_equal(h.known & QD_GPU_KNOWS_MEMORY, QD_GPU_KNOWS_MEMORY);
    assert_int_equal(h.failed_calls, 1);
    assert_false(qd_gpu_faulty(&h, why, sizeof why));
    qd_nvml_close(n);
}

static void an_older_library_serves_without_events(void **state)
{
    qd_gpu_health h = {0};
    (void)state;
    say("throttle 4\nxid 79 1\n");
    qd_nvml *n = open_gpu(QD_TEST_NVML_OLD, 0);
    assert_false(qd_nvml_wait(n, 1));
    qd_nvml_read(n, &h);
    assert_int_equal(h.throttle, 4); /* by its older name */
    assert_int_equal(h.known & QD_GPU_KNOWS_XID, 0);
    assert_int_equal(h.xid, 0);
    qd_nvml_close(n);
}

static void a_library_that_cannot_serve_is_refused_by_name(void **state)
{
    qd_nvml *n = NULL;
    qd_err err = {0};
    (void)state;
    say("");
    assert_int_equal(qd_nvml_open("/nowhere/libnvidia-ml.so.1", 0, &n, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "/nowhere/libnvidia-ml.so.1"));
    assert_int_equal(qd_nvml_open(QD_TEST_NVML_BARE, 0, &n, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no nvmlDeviceGetMemoryInfo"));
    say("fail nvmlInit_v2 9\n");
    assert_int_equal(qd_nvml_open(QD_TEST_NVML, 0, &n, &err), QD_E_DEVICE);
    assert_non_null(strstr(err.msg, "error 9"));
    say("");
    assert_int_equal(qd_nvml_open(QD_TEST_NVML, 7, &n, &err), QD_E_DEVICE);
    assert_non_null(strstr(err.msg, "gpu7"));
    assert_null(n);
}

/* Each call in its turn fails; nothing is left open, nothing is invented. */
static void any_call_may_fail(void **state)
{
    void *library = dlopen(QD_TEST_NVML, RTLD_NOW | RTLD_LOCAL);
    int (*open_count)(void) = NULL;
    unsigned long long (*calls)(void) = NULL;
    unsigned n_calls = 0, n_refused = 0, n_failed = 0;
    (void)state;
    assert_non_null(library);
    void *a = dlsym(library, "fake_nvml_open_count"), *b = dlsym(library, "fake_nvml_calls");
    memcpy(&open_count, &a, sizeof a);
    memcpy(&calls, &b, sizeof b);
    for (unsigned i = 0; i <= n_calls; i++) { /* 0: none does, and calls are counted */
        char text[64];
        qd_nvml *n = NULL;
        qd_gpu_health h = {0};
        qd_err err = {0};
        unsigned long long before = calls();
        (void)snprintf(text, sizeof text, "links 2\nnth %llu 999\n", i == 0 ? 0 : before + i);
        say(text);
        if (qd_nvml_open(QD_TEST_NVML, 0, &n, &err) == QD_OK) {
            qd_nvml_read(n, &h);
            n_failed += h.failed_calls;
            assert_true(h.nvlinks <= 2);
            assert_true(h.memory_bytes == 80000000000 || (h.known & QD_GPU_KNOWS_MEMORY) == 0);
            (void)qd_nvml_wait(n, 1);
            if (i == 1) fail_msg("nvmlInit failed and the library was taken");
        } else {
            n_refused++;
        }
        qd_nvml_close(n);
        assert_int_equal(open_count(), 0);
        if (i == 0) n_calls = (unsigned)(calls() - before);
    }
    assert_true(n_calls >= 14);
    assert_int_equal(n_refused, 2); /* init, handle */
    assert_true(n_failed >= 7);
    assert_int_equal(dlclose(library), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_sound_gpu_tells_all, setup, teardown),
        cmocka_unit_test_setup_teardown(faults_are_told_in_words, setup, teardown),
        cmocka_unit_test_setup_teardown(an_xid_is_heard_and_a_fatal_one_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_supported_is_unknown_and_no_fault, setup, teardown),
        cmocka_unit_test_setup_teardown(an_older_library_serves_without_events, setup, teardown),
        cmocka_unit_test_setup_teardown(a_library_that_cannot_serve_is_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(any_call_may_fail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
