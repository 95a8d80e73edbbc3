/* test_bce_sign.c -- signatures: the vendor's SDK's own vector, and what must not pass. */
#include "gateway/bce_sign.h"
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

/* Made with the vendor's Python SDK, its clock frozen, and recomputed independently. */
#define AK        "testak0123456789abcdef"
#define SK        "testsk0123456789abcdef"
#define SIGNATURE "4f06ceda591939da79bc86aec4226ee2280615e5492ea77cbed7f6a1654aa45d"
#define PREFIX    "bce-auth-v1/" AK "/2026-04-11T12:00:00Z/300/"
#define ALL       "content-type;host;request-source;x-bce-date"

static const qd_http_pair k_query[] = {{"Action", "DescribeModelCompTask"}};
static const qd_http_pair k_headers[] = {
    {"Host", "127.0.0.1:18080"},
    {"Content-Type", " application/json\t"},
    {"request-source", "qianfan_py_sdk_v0.4.12.3"},
    {"x-bce-date", "2026-04-11T12:00:00Z"},
};

static qd_http_request vector(void)
{
    return (qd_http_request){.method = "POST",
                             .path = "/v2/model",
                             .query = k_query,
                             .n_query = 1,
                             .headers = k_headers,
                             .n_headers = 4,
                             .now_ms = FAKE_NOW_MS};
}

static qd_code verify(const qd_http_request *r, const char *authorization, const char *secret)
{
    qd_bce_auth a = {0};
    assert_true(qd_bce_parse(authorization, &a));
    return qd_bce_verify(&a, r, secret, NULL);
}

static void the_sdks_vector_is_good_in_any_order_of_its_headers(void **state)
{
    (void)state;
    qd_http_request r = vector();
    assert_int_equal(verify(&r, PREFIX ALL "/" SIGNATURE, SK), QD_OK);
    assert_int_equal(verify(&r, PREFIX "host;request-source;x-bce-date;content-type/" SIGNATURE, SK), QD_OK);
    assert_int_equal(verify(&r, PREFIX "request-source;x-bce-date;content-type;host/" SIGNATURE, SK), QD_OK);
    assert_int_equal(verify(&r, PREFIX "Host;X-BCE-Date;Content-Type;Request-Source/" SIGNATURE, SK), QD_OK);
}

static void the_canonical_request_is_the_vectors(void **state)
{
    (void)state;
    qd_http_request r = vector();
    qd_bce_auth a = {0};
    qd_buf b = {0};
    assert_true(qd_bce_parse(PREFIX ALL "/" SIGNATURE, &a));
    assert_true(qd_bce_canonical(&a, &r, &b));
    assert_string_equal(b.data, "POST\n/v2/model\nAction=DescribeModelCompTask\ncontent-type:application%2Fjson\n"
                                "host:127.0.0.1%3A18080\nrequest-source:qianfan_py_sdk_v0.4.12.3\n"
                                "x-bce-date:2026-04-11T12%3A00%3A00Z");
    qd_buf_done(&b);
}

static void pairs_of_the_query_are_encoded_and_sorted(void **state)
{
    (void)state;
    const qd_http_pair query[] = {
        {"b", "x/y z"}, {"a", ""}, {"Authorization", "no"}, {"B", "~._-"}, {"a", "\xe4\xbd\xa0"}};
    qd_http_request r = vector();
    qd_bce_auth a = {0};
    qd_buf b = {0};
    r.query = query;
    r.n_query = 5;
    r.path = "/v2/mo%64el%20x";
    assert_true(qd_bce_parse(PREFIX "host/" SIGNATURE, &a));
    assert_true(qd_bce_canonical(&a, &r, &b));
    assert_string_equal(b.data, "POST\n/v2/model%20x\nB=~._-&a=&a=%E4%BD%A0&b=x%2Fy%20z\nhost:127.0.0.1%3A18080");
    qd_buf_done(&b);
}

static void without_a_list_the_default_headers_are_signed(void **state)
{
    (void)state;
    qd_http_request r = vector();
    qd_bce_auth a = {0};
    qd_buf b = {0};
    assert_true(qd_bce_parse(PREFIX "/" SIGNATURE, &a));
    assert_true(qd_bce_canonical(&a, &r, &b));
    assert_non_null(strstr(b.data, "\ncontent-type:application%2Fjson\nhost:127.0.0.1%3A18080\nx-bce-date:"));
    assert_null(strstr(b.data, "request-source"));
    qd_buf_done(&b);
}

static void a_changed_request_does_not_match(void **state)
{
    (void)state;
    const qd_http_pair other_host[] = {{"Host", "127.0.0.1:18081"}, k_headers[1], k_headers[2], k_headers[3]};
    const qd_http_pair two_dates[] = {
        k_headers[0], k_headers[1], k_headers[2], k_headers[3], {"X-Bce-Date", "2026-04-11T12:00:00Z"}};
    static const qd_http_pair other_query[] = {{"Action", "DeleteModelCompTask"}};
    const char *good = PREFIX ALL "/" SIGNATURE;
    qd_http_request r = vector();
    r.headers = other_host;
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
    r = vector();
    r.headers = two_dates;
    r.n_headers = 5;
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
    r = vector();
    r.n_headers = 3; /* a signed header is missing */
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
    r = vector();
    r.query = other_query;
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
    r = vector();
    r.method = "GET";
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
    r = vector();
    r.path = "/v2/model2";
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
    r.path = "/v2/%zz";
    assert_int_equal(verify(&r, good, SK), QD_E_REFUSED);
}

static void a_forged_signature_does_not_match(void **state)
{
    (void)state;
    qd_http_request r = vector();
    char forged[] = PREFIX ALL "/" SIGNATURE;
    assert_int_equal(verify(&r, forged, "another secret"), QD_E_REFUSED);
    for (size_t i = 1; i <= 64; i++) { /* each digit counts */
        char *c = &forged[sizeof forged - 1 - i], was = *c;
        *c = was == '0' ? '1' : '0';
        assert_int_equal(verify(&r, forged, SK), QD_E_REFUSED);
        *c = was;
    }
    assert_int_equal(verify(&r, PREFIX "content-type;host;x-bce-date/" SIGNATURE, SK), QD_E_REFUSED);
    /* a longer life than was signed */
    assert_int_equal(verify(&r, "bce-auth-v1/" AK "/2026-04-11T12:00:00Z/301/" ALL "/" SIGNATURE, SK), QD_E_REFUSED);
}

static void host_must_be_signed(void **state)
{
    (void)state;
    qd_http_request r = vector();
    qd_bce_auth a = {0};
    qd_buf b = {0};
    assert_true(qd_bce_parse(PREFIX "content-type;x-bce-date/" SIGNATURE, &a));
    assert_false(qd_bce_canonical(&a, &r, &b));
    assert_true(qd_bce_parse(PREFIX "host;;x-bce-date/" SIGNATURE, &a));
    assert_false(qd_bce_canonical(&a, &r, &b));
    qd_buf_done(&b);
}

static bool in_time(const char *when, const char *seconds)
{
    char s[256];
    qd_bce_auth a = {0};
    (void)snprintf(s, sizeof s, "bce-auth-v1/" AK "/%s/%s/host/" SIGNATURE, when, seconds);
    assert_true(qd_bce_parse(s, &a));
    return qd_bce_in_time(&a, FAKE_NOW_MS);
}

static void a_signature_is_good_for_its_time_only(void **state)
{
    (void)state;
    assert_true(in_time("2026-04-11T12:00:00Z", "0"));
    assert_true(in_time("2026-04-11T11:55:00Z", "300"));
    assert_false(in_time("2026-04-11T11:54:59Z", "300"));
    assert_true(in_time("2026-04-11T12:15:00Z", "300"));
    assert_false(in_time("2026-04-11T12:15:01Z", "300"));
    assert_true(in_time("2026-04-09T12:00:00Z", "180000"));
    assert_true(in_time("2026-04-04T12:00:00Z", "999999999")); /* seven days at most */
    assert_false(in_time("2026-04-04T11:59:59Z", "999999999"));
}

static void other_headers_than_six_parts_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "bce-auth-v1",
        "bce-auth-v2/ak/2026-04-11T12:00:00Z/300/host/" SIGNATURE,
        "bce-auth-v1//2026-04-11T12:00:00Z/300/host/" SIGNATURE,
        "bce-auth-v1/a k/2026-04-11T12:00:00Z/300/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11T12:00:00+08:00/300/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11 12:00:00/300/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-02-30T12:00:00Z/300/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11T12:00:00Z//host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/-1/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/0x10/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/1000000000/host/" SIGNATURE,
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/300/host/",
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/300/host/" SIGNATURE "0",
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/300/host/" SIGNATURE "/x",
        "bce-auth-v1/ak/2026-04-11T12:00:00Z/300/" SIGNATURE,
        "Bearer bce-auth-v1/ak/2026-04-11T12:00:00Z/300/host/" SIGNATURE,
    };
    qd_bce_auth a = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (qd_bce_parse(bad[i], &a)) fail_msg("taken: %s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sdks_vector_is_good_in_any_order_of_its_headers),
        cmocka_unit_test(the_canonical_request_is_the_vectors),
        cmocka_unit_test(pairs_of_the_query_are_encoded_and_sorted),
        cmocka_unit_test(without_a_list_the_default_headers_are_signed),
        cmocka_unit_test(a_changed_request_does_not_match),
        cmocka_unit_test(a_forged_signature_does_not_match),
        cmocka_unit_test(host_must_be_signed),
        cmocka_unit_test(a_signature_is_good_for_its_time_only),
        cmocka_unit_test(other_headers_than_six_parts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
