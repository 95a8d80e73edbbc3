/* test_gpu_watch.c -- the thread that asks a GPU: events come at once, a driver that hangs holds up nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "daemon/gpu_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    NEVER_MS = 3600000,
    HANG_MS = 30000 /* guards against a hang */
};

static char g_says[64], g_next[80];

/* In one step: the thread reads it at any time. */
static void say(const char *text)
{
    FILE *f = fopen(g_next, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(g_next, g_says), 0);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(g_says, sizeof g_says, "/tmp/qd-nvml-XXXXXX");
    int fd = mkstemp(g_says);
    if (fd < 0 || close(fd) != 0) return -1;
    (void)snprintf(g_next, sizeof g_next, "%s.next", g_says);
    return setenv("QD_FAKE_NVML", g_says, 1);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(g_says);
}

static qd_gpu_watch *open_watch(uint64_t every_ms)
{
    qd_gpu_watch *w = NULL;
    qd_err err = {0};
    if (qd_gpu_watch_open(QD_TEST_NVML, 0, every_ms, &w, &err) != QD_OK) fail_msg("%s", err.msg);
    return w;
}

static void rest(void)
{
    const struct timespec t = {.tv_nsec = 2000000};
    (void)nanosleep(&t, NULL);
}

static qd_gpu_health first_reading(qd_gpu_watch *w)
{
    qd_gpu_health h = {0};
    uint64_t age_ms = 0, began = qd_mono_ms();
    while (h.known == 0 && qd_mono_ms() < began + HANG_MS) {
        rest();
        qd_gpu_watch_get(w, &h, &age_ms);
    }
    return h;
}

static bool waits_for_fault(qd_gpu_watch *w, uint64_t silent_ms, char why[128])
{
    uint64_t began = qd_mono_ms();
    while (qd_mono_ms() < began + HANG_MS) {
        if (qd_gpu_watch_faulty(w, silent_ms, why, 128)) return true;
        rest();
    }
    return false;
}

static void an_event_brings_the_next_reading_at_once(void **state)
{
    char why[128] = "";
    (void)state;
    say("temperature 55\n");
    qd_gpu_watch *w = open_watch(NEVER_MS);
    assert_int_equal(first_reading(w).temperature_c, 55);
    assert_false(qd_gpu_watch_faulty(w, NEVER_MS, why, sizeof why));
    say("xid 95 1\n");
    assert_true(waits_for_fault(w, NEVER_MS, why));
    assert_string_equal(why, "the GPU reported XID 95, which needs a reset or a repair");
    qd_gpu_watch_close(w);
}

static void counts_are_read_again_and_again(void **state)
{
    char why[128] = "";
    (void)state;
    say("");
    qd_gpu_watch *w = open_watch(10);
    (void)first_reading(w);
    say("ecc 1\n");
    assert_true(waits_for_fault(w, NEVER_MS, why));
    assert_string_equal(why, "1 uncorrected ECC errors in the GPU's memory");
    qd_gpu_watch_close(w);
}

static void a_driver_that_hangs_is_a_fault_and_holds_up_nobody(void **state)
{
    char why[128] = "";
    (void)state;
    say("");
    qd_gpu_watch *w = open_watch(10);
    (void)first_reading(w);
    say("hang nvmlDeviceGetTemperature 1000\n");
    assert_true(waits_for_fault(w, 300, why));
    assert_non_null(strstr(why, "has not answered"));
    say("");
    qd_gpu_watch_close(w);
}

static void no_library_is_an_error_and_no_thread(void **state)
{
    qd_gpu_watch *w = NULL;
    qd_err err = {0};
    (void)state;
    assert_int_equal(qd_gpu_watch_open("/nowhere/libnvidia-ml.so.1", 0, 10, &w, &err), QD_E_UNSUPPORTED);
    assert_null(w);
    qd_gpu_watch_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_event_brings_the_next_reading_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(counts_are_read_again_and_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_driver_that_hangs_is_a_fault_and_holds_up_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(no_library_is_an_error_and_no_thread, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
