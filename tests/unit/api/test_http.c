/* test_http.c -- requests are read and replies are formed as gateway/http.h says. */
#include "gateway/http.h"
#include "tests/unit/api/rig.h"

#include <string.h>

static bool decodes(const char *s, const char *expected)
{
    char ret[64];
    return qd_http_decode(s, strlen(s), ret) && strcmp(ret, expected) == 0;
}

static void percent_escapes_are_decoded_and_plus_is_not(void **state)
{
    (void)state;
    assert_true(decodes("a%2Fb+c%e4%BD%a0", "a/b+c\xe4\xbd\xa0"));
    assert_true(decodes("", ""));
}

static void bad_escapes_nul_and_other_bytes_than_utf8_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"%", "%4", "%zz", "%4g", "a%00b", "%ff", "%c3", "%ed%a0%80", "%c0%af", "\xff"};
    char ret[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(qd_http_decode(bad[i], strlen(bad[i]), ret));
    assert_false(qd_http_decode("%4142", 2, ret)); /* n bounds the escape */
}

static void names_of_headers_are_found_in_any_case_and_of_queries_in_theirs(void **state)
{
    (void)state;
    const qd_http_pair p[] = {{"Host", "a"}, {"host", "b"}, {"x", ""}};
    qd_http_request r = {.headers = p, .n_headers = 3, .query = p, .n_query = 3};
    assert_string_equal(qd_http_header(&r, "HOST"), "a");
    assert_string_equal(qd_http_query(&r, "host"), "b");
    assert_string_equal(qd_http_query(&r, "x"), "");
    assert_null(qd_http_query(&r, "X"));
    assert_null(qd_http_header(&r, "y"));
}

static void a_body_that_cannot_be_made_is_a_500(void **state)
{
    (void)state;
    qd_http_reply r = {0};
    qd_http_reply_json(&r, 200, NULL);
    assert_int_equal(r.status, 500);
    assert_string_equal(r.body.data, "{}");
    qd_http_reply_json(&r, 200, json_pack("{s:s}", "a", "\xe4\xbd\xa0"));
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.data, "{\"a\":\"\xe4\xbd\xa0\"}");
    qd_http_reply_done(&r);
}

static void a_header_holds_printable_ascii_only(void **state)
{
    (void)state;
    qd_http_reply r = {0};
    char longer[400];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    qd_http_reply_header(&r, "A", "a\r\nSet-Cookie: x\x7f\xe4\xbd\xa0~");
    assert_string_equal(r.headers[0].value, "a??Set-Cookie: x????~");
    for (int i = 0; i < 2 * QD_HTTP_HEADERS_MAX; i++) qd_http_reply_header(&r, "B", longer);
    assert_int_equal(r.n_headers, QD_HTTP_HEADERS_MAX);
    assert_int_equal(strlen(r.headers[1].value), sizeof r.headers[1].value - 1);
    qd_http_reply_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percent_escapes_are_decoded_and_plus_is_not),
        cmocka_unit_test(bad_escapes_nul_and_other_bytes_than_utf8_are_refused),
        cmocka_unit_test(names_of_headers_are_found_in_any_case_and_of_queries_in_theirs),
        cmocka_unit_test(a_body_that_cannot_be_made_is_a_500),
        cmocka_unit_test(a_header_holds_printable_ascii_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
