/* test_buf.c -- text that is UTF-8 is told from bytes that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static void plain_text_ends_at_the_first_byte_that_is_not(void **state)
{
    (void)state;
    char text[40];
    for (int c = 0; c < 256; c++) /* each byte at each place, before and behind whole words */
        for (size_t at = 0; at < 24; at++) {
            memset(text, 'x', sizeof text);
            text[at] = (char)(unsigned char)c;
            size_t want = c >= 0x20 && c < 0x7f ? 24 : at;
            assert_int_equal(qd_str_plain(text, 24), want);
            for (size_t k = at + 1; k < 24; k++) text[k] = (char)(unsigned char)(k * 37); /* whatever follows */
            assert_int_equal(qd_str_plain(text, at + 1), c >= 0x20 && c < 0x7f ? at + 1 : at);
        }
    assert_int_equal(qd_str_plain("", 0), 0);
    assert_true(qd_str_is_utf8("plain words, then 你好, and more words"));
    assert_false(qd_str_is_utf8("plain words, then \xff"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_text_ends_at_the_first_byte_that_is_not),
                                       cmocka_unit_test(only_well_formed_utf8_is_utf8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
