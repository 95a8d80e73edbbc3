#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct sink {
    int fds[2];
    qd_log log;
    char text[65536];
} sink;

static void begin(sink *s, bool journal, uint32_t lines_per_s)
{
    assert_int_equal(pipe(s->fds), 0);
    assert_int_equal(journal ? setenv("JOURNAL_STREAM", "8:1", 1) : unsetenv("JOURNAL_STREAM"), 0);
    qd_log_begin(&s->log, s->fds[1], QD_LOG_INFO, lines_per_s);
}

static const char *end(sink *s)
{
    (void)close(s->fds[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(s->fds[0], s->text + n, sizeof s->text - 1 - n)) > 0;) n += (size_t)got;
    (void)close(s->fds[0]);
    s->text[n] = '\0';
    return s->text;
}

static void a_line_for_journald_has_priority_and_fields(void **state)
{
    (void)state;
    sink s;
    begin(&s, true, 0);
    qd_log_field(&s.log, "worker", "gpu0");
    qd_log_field(&s.log, "job", "01J");
    qd_log_say(&s.log, QD_LOG_INFO, "job taken, epoch %d", 3);
    qd_log_field(&s.log, "job", "a \"b\"");
    qd_log_say(&s.log, QD_LOG_ERROR, "x");
    qd_log_field(&s.log, "worker", NULL);
    qd_log_field(&s.log, "never", NULL);
    qd_log_say(&s.log, QD_LOG_WARN, "y");
    assert_string_equal(end(&s), "<6>job taken, epoch 3 worker=gpu0 job=01J\n"
                                 "<3>x worker=gpu0 job=\"a \\\"b\\\"\"\n"
                                 "<4>y job=\"a \\\"b\\\"\"\n");
}

static void a_line_for_people_has_time_and_level(void **state)
{
    (void)state;
    sink s;
    begin(&s, false, 0);
    qd_log_say(&s.log, QD_LOG_WARN, "hello");
    qd_log_say(&s.log, QD_LOG_DEBUG, "not at this level");
    const char *text = end(&s);
    assert_string_equal(text + 24, " warn hello\n");
    assert_int_equal(text[10], 'T');
    assert_int_equal(text[23], 'Z');
}

static void control_bytes_never_make_a_second_line(void **state)
{
    (void)state;
    sink s;
    begin(&s, true, 0);
    qd_log_field(&s.log, "job", "a\nb");
    qd_log_say(&s.log, QD_LOG_INFO, "x\n<0>forged\x1b");
    assert_string_equal(end(&s), "<6>x?<0>forged? job=a?b\n");
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
    (void)state;
    sink s;
    char big[8000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    begin(&s, true, 0);
    qd_log_field(&s.log, "job", big);
    qd_log_say(&s.log, QD_LOG_INFO, "%s", big);
    const char *text = end(&s);
    assert_true(strlen(text) <= 2048);
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void lines_above_the_rate_are_counted_and_told(void **state)
{
    (void)state;
    sink s;
    begin(&s, true, 5);
    for (int i = 0; i < 100; i++) qd_log_say(&s.log, QD_LOG_INFO, "n%d", i);
    assert_true(s.log.suppressed >= 85);
    assert_true(s.log.suppressed <= 90);
    s.log.refilled_ms -= 1000; /* as if a second had passed */
    qd_log_say(&s.log, QD_LOG_INFO, "later");
    const char *text = end(&s);
    assert_non_null(strstr(text, "n9\n"));
    assert_null(strstr(text, "n50\n"));
    assert_non_null(strstr(text, " lines left out: more than 5 a second\n<6>later\n"));
}

static void more_fields_than_there_is_room_for_are_dropped(void **state)
{
    (void)state;
    sink s;
    begin(&s, true, 0);
    for (char c = 'a'; c <= 'z'; c++) qd_log_field(&s.log, (char[]){c, '\0'}, "1");
    qd_log_say(&s.log, QD_LOG_INFO, "x");
    assert_string_equal(end(&s), "<6>x a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1\n");
}

static void an_error_is_told_with_its_code(void **state)
{
    (void)state;
    sink s;
    qd_err err = {0};
    assert_int_equal(qd_fail(&err, QD_E_INPUT, "w: no"), QD_E_INPUT);
    begin(&s, true, 0);
    qd_log_err(&s.log, QD_LOG_ERROR, "job failed", &err);
    assert_string_equal(end(&s), "<3>job failed: w: no code=bad_input\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_for_journald_has_priority_and_fields),
        cmocka_unit_test(a_line_for_people_has_time_and_level),
        cmocka_unit_test(control_bytes_never_make_a_second_line),
        cmocka_unit_test(a_long_line_is_cut_and_still_ends),
        cmocka_unit_test(lines_above_the_rate_are_counted_and_told),
        cmocka_unit_test(more_fields_than_there_is_room_for_are_dropped),
        cmocka_unit_test(an_error_is_told_with_its_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
