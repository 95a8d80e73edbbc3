/* test_nats_parse.c -- what a nats-server sends is taken apart, what it never sends is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/nats_parse.h"

#include <string.h>

static void base64_is_decoded_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *bytes;
    } good[] = {{"", ""},        {"YQ==", "a"},        {"YWI=", "ab"},
                {"YWJj", "abc"}, {"YWJjZA==", "abcd"}, {"+/+/", "\xfb\xff\xbf"}};
    uint8_t out[64];
    size_t n = 0;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(qd_base64_decode(good[i].text, strlen(good[i].text), out, &n));
        assert_int_equal(n, strlen(good[i].bytes));
        assert_memory_equal(out, good[i].bytes, n);
    }
    static const char *const bad[] = {"a", "ab", "abc", "a===", "====", "ab=c", "YW==YQ==", "ab c", "ab\n=", "ab-_"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (qd_base64_decode(bad[i], strlen(bad[i]), out, &n)) fail_msg("%s was taken", bad[i]);
}

static void times_are_utc_milliseconds(void **state)
{
    (void)state;
    uint64_t ms = 0;
    assert_true(qd_rfc3339_ms("2026-11-24T17:16:08.123456789Z", &ms));
    assert_true(ms == UINT64_C(1795540568123));
    assert_true(qd_rfc3339_ms("1970-01-01T00:00:00Z", &ms));
    assert_true(ms == 0);
    assert_true(qd_rfc3339_ms("2026-11-25T01:16:08.1+08:00", &ms));
    assert_true(ms == UINT64_C(1795540568100));
    assert_true(qd_rfc3339_ms("2026-11-24T16:16:08.01-01:00", &ms));
    assert_true(ms == UINT64_C(1795540568010));
    static const char *const bad[] = {"",
                                      "2026-11-24",
                                      "2026-11-24T17:16:08",
                                      "2026-13-24T17:16:08Z",
                                      "2026-11-24T24:16:08Z",
                                      "2026-11-24T17:16:08.Z",
                                      "2026-11-24T17:16:08Zx",
                                      "2026-11-24 17:16:08Z",
                                      "1969-12-31T23:59:59Z",
                                      "2026-11-24T17:16:08+8:00",
                                      "1970-01-01T00:00:00+01:00",
                                      "26-11-24T17:16:08Z",
                                      "2026-11-00T17:16:08Z"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (qd_rfc3339_ms(bad[i], &ms)) fail_msg("%s was taken", bad[i]);
}

static void a_consumers_reply_subject_is_read_with_and_without_a_domain(void **state)
{
    (void)state;
    static const char *const good[] = {"$JS.ACK.S.c.2.17.5.1795540568123456789.9",
                                       "$JS.ACK.hub.ACC.S.c.2.17.5.1795540568123456789.9",
                                       "$JS.ACK._.ACC.S.c.2.17.5.1795540568123456789.9.tok"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        qd_ack_subject a = {0};
        assert_true(qd_ack_subject_parse(good[i], &a));
        assert_int_equal(a.delivered, 2);
        assert_int_equal(a.stream_seq, 17);
        assert_int_equal(a.consumer_seq, 5);
        assert_true(a.time_ms == UINT64_C(1795540568123));
        assert_int_equal(a.pending, 9);
    }
    static const char *const bad[] = {NULL,
                                      "",
                                      "_INBOX.x",
                                      "$JS.ACK.S.c.2.17.5.1.9.8",
                                      "$JS.ACK.S.c.2.17.5.1",
                                      "$JS.ACK.S.c.x.17.5.1.9",
                                      "$JS.ACK.S.c.0.17.5.1.9",
                                      "$JS.ACK.S.c.1.0.5.1.9",
                                      "$JS.ACK.S.c.1.-1.5.1.9",
                                      "$JS.ACK.S.c.99999999999999999999.17.5.1.9",
                                      "$JS.ACK.S.c..17.5.1.9",
                                      "$JS.ACK.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qd_ack_subject a = {0};
        if (qd_ack_subject_parse(bad[i], &a)) fail_msg("%s was taken", bad[i]);
    }
}

static bool headers(const char *text, qd_bus_header ret[QD_BUS_HEADERS_MAX], size_t *ret_n)
{
    static char block[512];
    memset(block, 0, sizeof block);
    memcpy(block, text, strlen(text));
    return qd_headers_parse(block, strlen(text), ret, ret_n);
}

static void headers_are_read_and_markers_seen(void **state)
{
    (void)state;
    qd_bus_header h[QD_BUS_HEADERS_MAX];
    size_t n = 9;
    assert_true(headers("", h, &n));
    assert_int_equal(n, 0);
    assert_true(headers("NATS/1.0\r\nKV-Operation: DEL\r\nA:b: c\r\n\r\n", h, &n));
    assert_int_equal(n, 2);
    assert_string_equal(h[0].name, "KV-Operation");
    assert_string_equal(h[0].value, "DEL");
    assert_string_equal(h[1].value, "b: c");
    assert_true(qd_headers_deleted(h, n));
    assert_false(qd_headers_deleted(h + 1, 1));
    assert_true(headers("NATS/1.0\r\nKV-Operation: PUT\r\n\r\n", h, &n));
    assert_false(qd_headers_deleted(h, n));
    assert_true(headers("NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n", h, &n));
    assert_true(qd_headers_deleted(h, n));
    assert_true(headers("NATS/1.0 404 No Messages\r\n\r\n", h, &n));
    assert_int_equal(n, 0);
    assert_true(headers("NATS/1.0\r\na:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\ng:1\r\nh:1\r\ni:1\r\n\r\n", h, &n));
    assert_int_equal(n, QD_BUS_HEADERS_MAX);
    static const char *const bad[] = {"HTTP/1.1\r\n\r\n",        "NATS/1.0",         "NATS/1.0\r\nA\r\n\r\n",
                                      "NATS/1.0\r\n: x\r\n\r\n", "NATS/1.0\r\nA: b", "NATS/1.0\r\nA: b\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (headers(bad[i], h, &n)) fail_msg("%s was taken", bad[i]);
    char nul[] = "NATS/1.0\r\nA\0: b\r\n\r\n";
    assert_false(qd_headers_parse(nul, sizeof nul - 1, h, &n));
}

static void errors_of_the_api_have_our_codes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        qd_code code;
    } cases[] = {
        {"{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: 3\"}}", QD_E_CONFLICT},
        {"{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"maximum messages exceeded\"}}", QD_E_FULL},
        {"{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"maximum messages per subject exceeded\"}}",
         QD_E_CONFLICT},
        {"{\"error\":{\"code\":503,\"err_code\":10023}}", QD_E_FULL},
        {"{\"error\":{\"code\":404,\"err_code\":10059}}", QD_E_NOT_FOUND},
        {"{\"error\":{\"code\":400,\"err_code\":10054}}", QD_E_TOO_LARGE},
        {"{\"error\":{\"code\":503,\"err_code\":10008}}", QD_E_AWAY},
        {"{\"error\":{\"code\":400,\"err_code\":10100}}", QD_E_REFUSED},
        {"{\"error\":{\"code\":500,\"err_code\":10074}}", QD_E_REFUSED},
        {"{\"error\":{\"code\":500,\"err_code\":10052}}", QD_E_REFUSED},
        {"{\"error\":{\"code\":503,\"err_code\":10036}}", QD_E_REFUSED},
        {"{\"error\":{\"code\":500,\"err_code\":10041}}", QD_E_AWAY},
        {"{\"error\":{}}", QD_E_REFUSED},
        {"[]", QD_E_AWAY},
        {"", QD_E_AWAY},
        {"{\"seq\":1", QD_E_AWAY},
        {"{\"seq\":1}", QD_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *o = NULL;
        qd_err err = {0};
        assert_int_equal(qd_api_reply("x", cases[i].text, strlen(cases[i].text), &o, &err), cases[i].code);
        assert_true((o != NULL) == (cases[i].code == QD_OK));
        assert_true((err.msg[0] == '\0') == (cases[i].code == QD_OK));
        json_decref(o);
    }
    assert_int_equal(qd_api_reply("x", "{}", 2, NULL, NULL), QD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_is_decoded_or_refused),
        cmocka_unit_test(times_are_utc_milliseconds),
        cmocka_unit_test(a_consumers_reply_subject_is_read_with_and_without_a_domain),
        cmocka_unit_test(headers_are_read_and_markers_seen),
        cmocka_unit_test(errors_of_the_api_have_our_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
