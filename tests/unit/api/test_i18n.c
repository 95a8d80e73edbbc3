/* test_i18n.c -- the language of a reply, and texts with places for values. */
#include "gateway/i18n.h"
#include "tests/unit/api/rig.h"

#include <string.h>

static qd_lang lang(const char *query, const char *header)
{
    const qd_http_pair q = {"lang", query}, h = {"accept-language", header};
    qd_http_request r = {.query = &q, .n_query = query != NULL, .headers = &h, .n_headers = header != NULL};
    return qd_lang_of(&r);
}

static void query_beats_header_beats_chinese(void **state)
{
    (void)state;
    static const struct {
        const char *query, *header;
        qd_lang expected;
    } cases[] = {
        {NULL, NULL, QD_ZH},
        {"en-US", NULL, QD_EN},
        {"EN-us", "zh-CN", QD_EN},
        {"zh-CN", "en-US", QD_ZH},
        {"fr-FR", "en-US", QD_ZH}, /* given but not supported: the header is not looked at */
        {"", "en-US", QD_ZH},
        {NULL, "en-US", QD_EN},
        {NULL, "en", QD_EN},
        {NULL, "EN-gb", QD_EN},
        {NULL, "fr, de", QD_ZH},
        {NULL, "fr, en;q=0.5", QD_EN},
        {NULL, "en;q=0.5, zh;q=0.9", QD_ZH},
        {NULL, "zh;q=0.5,en;q=0.51", QD_EN},
        {NULL, "zh-CN,en;q=1.0", QD_ZH}, /* the first of equals */
        {NULL, "en,zh", QD_EN},
        {NULL, "en;q=0", QD_ZH},
        {NULL, "english", QD_ZH},
        {NULL, "en;q=nonsense", QD_ZH},
        {NULL, ",,;;q=,en ; q=0.3", QD_EN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (lang(cases[i].query, cases[i].header) != cases[i].expected) fail_msg("case %zu", i);
}

static void fills(const char *text, const char *a0, const char *a1, const char *expected)
{
    qd_buf b = {0};
    qd_fill(&b, text, (const char *const[]){a0, a1, NULL});
    assert_string_equal(b.data, expected);
    qd_buf_done(&b);
}

static void values_stand_in_their_places(void **state)
{
    (void)state;
    fills("a {1} b {0}.", "x", "y", "a y b x.");
    fills("{0}{2}{3}{", "{1}", "y", "{1}{3}{"); /* a value is not looked into */
    fills("{0}", "a\xff\xc3", NULL, "a\xef\xbf\xbd\xef\xbf\xbd");
    fills("plain", NULL, NULL, "plain");
}

static void long_values_are_cut(void **state)
{
    (void)state;
    char longer[1000];
    qd_buf b = {0};
    for (size_t i = 0; i < 999; i += 3) memcpy(longer + i, "\xe4\xbd\xa0", 3);
    longer[999] = '\0';
    qd_fill(&b, "{0}", (const char *const[]){longer, NULL, NULL});
    assert_int_equal(b.len, 3 * QD_FILL_ARG_CHARS + 3);
    assert_true(qd_str_is_utf8(b.data));
    assert_int_equal(qd_chars(longer), 333);
    qd_buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(query_beats_header_beats_chinese),
        cmocka_unit_test(values_stand_in_their_places),
        cmocka_unit_test(long_values_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
