#include "proto/logline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_line_is_shown_with_its_second_and_its_level(void **state)
{
    (void)state;
    qd_log_second second = {0};
    qd_buf b = {0};
    assert_int_equal(setenv("TZ", "Asia/Shanghai", 1), 0);
    tzset();
    qd_log_line_show(&second, UINT64_C(1775880155999), QUANTD__LOG_LEVEL__LOG_INFO, "a", &b);
    qd_buf_str(&b, "|");
    qd_log_line_show(&second, UINT64_C(1775880155000), QUANTD__LOG_LEVEL__LOG_ERROR, "b", &b);
    qd_buf_str(&b, "|");
    qd_log_line_show(&second, UINT64_C(1775880156000), (Quantd__LogLevel)77, "", &b);
    assert_false(b.failed);
    assert_string_equal(b.data,
                        "2026-04-11 12:02:35 - INFO - a|2026-04-11 12:02:35 - ERROR - b|2026-04-11 12:02:36 - INFO - ");
    qd_buf_done(&b);
    char when[QD_LOG_WHEN_BYTES] = "x";
    qd_log_when(UINT64_MAX, when);
    assert_true(strlen(when) < sizeof when);
}

static size_t take(qd_log_place *p, uint64_t epoch, uint64_t first_line, size_t n)
{
    qd_event_batch b = {.epoch = epoch, .first_line = first_line, .n_lines = n};
    return qd_log_place_take(p, &b);
}

static void every_line_of_an_epoch_is_told_once(void **state)
{
    (void)state;
    qd_log_place p = {0};
    assert_int_equal(take(&p, 1, 1, 10), 0);
    assert_int_equal(take(&p, 1, 1, 10), 10); /* again */
    assert_int_equal(take(&p, 1, 6, 10), 5);  /* half of it again */
    assert_int_equal(p.next_line, 16);
    assert_int_equal(take(&p, 1, 3, 2), 2);
    assert_int_equal(p.next_line, 16);
    assert_int_equal(take(&p, 1, 20, 1), 0); /* what lies between is lost */
    assert_int_equal(take(&p, 1, 0, 0), 0);  /* a change of state has no lines */
    assert_int_equal(take(&p, 2, 1, 1), 0);
    assert_int_equal(p.epoch, 2);
    assert_int_equal(p.next_line, 2);
}

static void lines_for_programs_are_known_by_their_marker(void **state)
{
    (void)state;
    assert_true(qd_log_is_marker("##FT_COMPLETE##") && qd_log_is_marker("a ### ##A## b"));
    assert_false(qd_log_is_marker("") || qd_log_is_marker("####") || qd_log_is_marker("##a##") ||
                 qd_log_is_marker("## A ##") || qd_log_is_marker("##A#"));
    assert_string_equal(qd_log_line_level(QUANTD__LOG_LEVEL__LOG_WARN), "WARN");
    assert_string_equal(qd_log_line_level((Quantd__LogLevel)9), "INFO");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_shown_with_its_second_and_its_level),
        cmocka_unit_test(every_line_of_an_epoch_is_told_once),
        cmocka_unit_test(lines_for_programs_are_known_by_their_marker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
