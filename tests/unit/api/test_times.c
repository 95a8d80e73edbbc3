/* test_times.c -- times are written and read in the configured zone. */
#include "gateway/times.h"
#include "tests/unit/api/rig.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void zone(const char *name)
{
    (void)setenv("TZ", name, 1);
    tzset();
}

static void shows(uint64_t ms, qd_time_form form, const char *expected)
{
    char s[QD_TIME_BYTES];
    qd_time_show(ms, form, s);
    assert_string_equal(s, expected);
}

static void times_are_shown_in_the_zone(void **state)
{
    (void)state;
    zone("Asia/Shanghai");
    shows(FAKE_NOW_MS, QD_TIME_PLAIN, "2026-04-11 20:00:00");
    shows(FAKE_NOW_MS + 999, QD_TIME_ISO, "2026-04-11T20:00:00+08:00");
    shows(FAKE_NOW_MS, QD_TIME_MINUTES, "202604112000");
    shows(FAKE_NOW_MS, QD_TIME_CLOCK, "2026-04-11T12:00:00Z");
    zone("America/St_Johns");
    shows(FAKE_NOW_MS, QD_TIME_ISO, "2026-04-11T09:30:00-02:30");
    zone("UTC");
    shows(FAKE_NOW_MS, QD_TIME_ISO, "2026-04-11T12:00:00+00:00");
    shows(0, QD_TIME_PLAIN, "1970-01-01 00:00:00");
    shows(UINT64_MAX, QD_TIME_PLAIN, "9999-12-31 00:00:00");
}

/* expected is from FAKE_NOW_MS on. */
static void reads(const char *text, int64_t first, int64_t last)
{
    qd_time_span s = {0};
    if (!qd_time_read(text, &s)) fail_msg("not read: %s", text);
    if ((int64_t)(s.first_ms - FAKE_NOW_MS) != first || (int64_t)(s.last_ms - FAKE_NOW_MS) != last)
        fail_msg("%s: found %lld to %lld", text, (long long)(s.first_ms - FAKE_NOW_MS),
                 (long long)(s.last_ms - FAKE_NOW_MS));
}

static void every_form_is_read_with_what_it_leaves_open(void **state)
{
    (void)state;
    zone("Asia/Shanghai");
    reads("2026-04-11 20:00:00", 0, 999);
    reads("2026-04-11+20:00:00", 0, 999);
    reads("2026-04-11T20:00", 0, 59999);
    reads("2026-04-11T20:00:00.25", 250, 250);
    reads("2026-04-11T12:00:00Z", 0, 999);
    reads("2026-04-11t12:00:00z", 0, 999);
    reads("2026-04-11T20:00:00+08:00", 0, 999);
    reads("2026-04-11T20:00:00 08:00", 0, 999); /* a '+' that was decoded */
    reads("2026-04-11T20:00:00+0800", 0, 999);
    reads("2026-04-11T06:30:00.123456789-0530", 123, 123);
    reads("2026-04-11", -20 * 3600000, 4 * 3600000 - 1); /* the day in Shanghai */
}

static void a_day_has_the_hours_that_it_has(void **state)
{
    (void)state;
    qd_time_span s = {0};
    zone("Europe/Berlin");
    assert_true(qd_time_read("2026-03-29", &s)); /* clocks go forward */
    assert_int_equal(s.last_ms - s.first_ms + 1, 23 * 3600000);
    assert_true(qd_time_read("2026-10-25", &s));
    assert_int_equal(s.last_ms - s.first_ms + 1, 25 * 3600000);
    assert_true(qd_time_read("2024-02-29", &s));
    assert_int_equal(s.last_ms - s.first_ms + 1, 24 * 3600000);
}

static void other_texts_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "2026",
        "2026-4-1",
        "2026-13-01",
        "2026-00-01",
        "2026-02-29",
        "2026-04-31",
        "2026-04-00",
        "0000-01-01",
        "2026-04-11T",
        "2026-04-11x20:00:00",
        "2026-04-11 24:00:00",
        "2026-04-11 20:60:00",
        "2026-04-11 20:00:60",
        "2026-04-11 20:00:00.",
        "2026-04-11 20:00:00.1234567890",
        "2026-04-11 20:00:00+8",
        "2026-04-11 20:00:00+08:0",
        "2026-04-11 20:00:00Zx",
        "2026-04-11Z",
        "2026-04-11 20:00:00+24:00",
        " 2026-04-11",
        "2026-04-11 ",
        "99999-01-01",
        "-026-04-11",
        "2026-04-11T2:00:00",
    };
    qd_time_span s = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (qd_time_read(bad[i], &s)) fail_msg("read: %s", bad[i]);
}

static void a_time_before_the_epoch_still_restricts(void **state)
{
    (void)state;
    qd_time_span s = {0};
    zone("UTC");
    assert_true(qd_time_read("0001-01-01 00:00:00", &s));
    assert_int_equal(s.first_ms, 1);
    assert_int_equal(s.last_ms, 1);
    assert_true(qd_time_read("9999-12-31T23:59:59-23:59", &s));
    assert_true(s.last_ms > FAKE_NOW_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_shown_in_the_zone),
        cmocka_unit_test(every_form_is_read_with_what_it_leaves_open),
        cmocka_unit_test(a_day_has_the_hours_that_it_has),
        cmocka_unit_test(other_texts_are_refused),
        cmocka_unit_test(a_time_before_the_epoch_still_restricts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
