/* test_buf.c -- text that is UTF-8 is told from bytes that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

static void only_well_formed_utf8_is_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"", "a\n", "\xc2\xa0", "\xe2\x96\x81x", "\xef\xbf\xbd", "\xf0\x9f\x98\x80"};
    static const char *const bad[] = {"\x80", "a\xc2", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xff"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(qd_str_is_utf8(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(qd_str_is_utf8(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_well_formed_utf8_is_utf8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
