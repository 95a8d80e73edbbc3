/* Heads and targets as they come over the wire, without sockets. */
#include "gateway/request.h"

#include "gateway/accept.h"
#include "gateway/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Headers as "Name: value\n...". Returns the status. */
static int status_of(const char *headers, bool http11, qd_head *ret)
{
    *ret = (qd_head){0};
    for (const char *s = headers; *s != '\0';) {
        size_t name = strcspn(s, ":"), line = strcspn(s, "\n");
        qd_head_add(ret, s, name, s + name + 2, line - name - 2, 1000);
        s += line + 1;
    }
    qd_head_end(ret, http11);
    return ret->status;
}

static void heads_are_taken_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        bool http11;
        int status;
    } cases[] = {
        {"Host: a\n", true, 0},
        {"Host: a\nContent-Length: 12\n", true, 0},
        {"Host: a\ncontent-length: 0\nX:  \ttab\n", true, 0},
        {"Host: a\nTransfer-Encoding: Chunked\n", true, 0},
        {"", false, 0},
        {"", true, 400},
        {"Host: a\nhost: a\n", true, 400},
        {"Host: a\nHost: b\n", false, 400},
        {"Host: a\nContent-Length: 1\nContent-Length: 1\n", true, 400},
        {"Host: a\nContent-Length: 1\nTransfer-Encoding: chunked\n", true, 400},
        {"Host: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n", true, 400},
        {"Host: a\nTransfer-Encoding: gzip\n", true, 501},
        {"Host: a\nTransfer-Encoding: chunked, chunked\n", true, 501},
        {"Transfer-Encoding: chunked\n", false, 400},
        {"Host: a\nContent-Length: \n", true, 400},
        {"Host: a\nContent-Length: -1\n", true, 400},
        {"Host: a\nContent-Length: 1,1\n", true, 400},
        {"Host: a\nContent-Length: 9999999999999999999\n", true, 400},
        {"Host: a\nExpect: 100-continue\n", true, 0},
        {"Host: a\nExpect: other\n", true, 417},
        {"Host: a\nX-A: a\x01\n", true, 400},
        {"Host: a\nX-A: a\x7f\n", true, 400},
        {"Host: a\nX A: a\n", true, 400},
        {"Host : a\n", true, 400},
        {"Host: a\n: a\n", true, 400},
        {"Host: a\nX\xe9: a\n", true, 400},
    };
    qd_head h;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (status_of(cases[i].headers, cases[i].http11, &h) != cases[i].status)
            fail_msg("%s: %d", cases[i].headers, h.status);
    assert_int_equal(status_of("Host: a\nContent-Length: 123456789012345678\n", true, &h), 0);
    assert_int_equal(h.body_bytes, 123456789012345678);
}

static void heads_have_their_limits(void **state)
{
    (void)state;
    qd_head h = {0};
    char value[1000];
    memset(value, 'a', sizeof value);
    qd_head_add(&h, "X", 1, value, 995, 1000);
    assert_int_equal(h.status, 0);
    qd_head_add(&h, "X", 1, "", 0, 1000);
    assert_int_equal(h.status, 431);
    h = (qd_head){0};
    for (int i = 0; i < QD_REQUEST_HEADERS_MAX; i++) qd_head_add(&h, "X", 1, "", 0, 1000);
    assert_int_equal(h.status, 0);
    qd_head_add(&h, "X", 1, "", 0, 1000);
    assert_int_equal(h.status, 431);
}

static void targets_are_split_and_queries_decoded(void **state)
{
    (void)state;
    qd_http_pair q[QD_REQUEST_QUERY_MAX];
    const char *path = NULL;
    size_t n = 0;
    char one[] = "/a%20b/c?x=1&&y=%E4%BD%A0+z&=v&w&a=b=c";
    assert_null(qd_target_split(one, &path, q, &n));
    assert_string_equal(path, "/a%20b/c");
    assert_int_equal(n, 5);
    assert_string_equal(q[1].name, "y");
    assert_string_equal(q[1].value, "\xe4\xbd\xa0 z");
    assert_string_equal(q[2].name, "");
    assert_string_equal(q[3].value, "");
    assert_string_equal(q[4].value, "b=c");
    static const char *const bad[] = {"",          "a",  "*",     "http://x/", "/a b",    "/\x01",   "/\x7f",
                                      "/\xc3\xa9", "/#", "/?a=%", "/?%zz=1",   "/?a=%00", "/?a=%ff", "/?a=\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char target[64];
        (void)snprintf(target, sizeof target, "%s", bad[i]);
        if (qd_target_split(target, &path, q, &n) == NULL) fail_msg("taken: %s", bad[i]);
    }
    char many[512] = "/?";
    for (int i = 0; i < QD_REQUEST_QUERY_MAX; i++) (void)strcat(many, "a&");
    assert_null(qd_target_split(many, &path, q, &n));
    char more[512] = "/?";
    for (int i = 0; i <= QD_REQUEST_QUERY_MAX; i++) (void)strcat(more, "a&");
    assert_non_null(qd_target_split(more, &path, q, &n));
}

static void a_jobs_events_are_told_from_other_paths(void **state)
{
    (void)state;
    const char *id = NULL;
    size_t n = 0;
#define AT "/api/v1/fine-tunes/compress/jobs/"
    assert_true(qd_is_events("GET", AT "quant-1/events", &id, &n));
    assert_int_equal(n, 7);
    assert_memory_equal(id, "quant-1", n);
    assert_true(qd_is_events("GET", AT "j/events/", &id, &n));
    assert_false(qd_is_events("POST", AT "j/events", &id, &n));
    assert_false(qd_is_events("GET", AT "/events", &id, &n));
    assert_false(qd_is_events("GET", AT "j/eventsx", &id, &n));
    assert_false(qd_is_events("GET", AT "j/x/events", &id, &n));
    assert_false(qd_is_events("GET", AT "j", &id, &n));
}

static qd_accept_kind kind_of(const char *first, bool *ret_known)
{
    qd_accept_kind k = QD_ACCEPT_TLS;
    *ret_known = qd_accept_tell(first, strlen(first), &k);
    return k;
}

static void the_first_bytes_of_a_connection_tell_where_it_goes(void **state)
{
    (void)state;
    bool known = false;
    assert_int_equal(kind_of("GET " AT "j/events HTTP/1.1\r\n", &known), QD_ACCEPT_LIVE);
    assert_true(known);
    assert_int_equal(kind_of("GET " AT "j/events?lang=en", &known), QD_ACCEPT_LIVE);
    assert_true(known);
    static const char *const not_yet[] = {"", "G", "GET", "GET ", "GET /", "GET " AT "j/even"};
    for (size_t i = 0; i < sizeof not_yet / sizeof not_yet[0]; i++) {
        (void)kind_of(not_yet[i], &known);
        assert_false(known);
    }
    static const char *const plain[] = {"P",   "POST /", "GET / HTTP/1.1", "\x16\x03\x01", "GET " AT "j HTTP/1.1",
                                        "get "};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        assert_int_equal(kind_of(plain[i], &known), QD_ACCEPT_PLAIN);
        assert_true(known);
    }
    char many[300];
    memset(many, 'a', sizeof many);
    memcpy(many, "GET /", 5);
    many[299] = '\0';
    assert_int_equal(kind_of(many, &known), QD_ACCEPT_PLAIN);
    assert_true(known);
}

static void ids_of_requests_are_uuids_and_differ(void **state)
{
    (void)state;
    char a[QD_REQUEST_ID_BYTES], b[QD_REQUEST_ID_BYTES];
    assert_int_equal(qd_request_id_new(a, NULL), QD_OK);
    assert_int_equal(qd_request_id_new(b, NULL), QD_OK);
    assert_int_equal(strlen(a), 36);
    assert_int_equal(a[14], '4');
    assert_non_null(strchr("89ab", a[19]));
    assert_string_not_equal(a, b);
}

static void names_of_files_are_plain(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ".", "..", "a/b", "/", "a\\b", "a\nb", "\xff", "a\x7f"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(qd_file_name_ok(bad[i]));
    assert_true(qd_file_name_ok("a b \xe4\xbd\xa0 (1).jsonl"));
}

static void routes_hold_nothing_a_stranger_chose(void **state)
{
    (void)state;
    static const struct {
        const char *path, *action, *route;
    } cases[] = {
        {AT "quant-1/logs", NULL, AT "{id}/logs"},
        {"/api/v1/files/file-1/", NULL, "/api/v1/files/{id}"},
        {"/v2/model", "CreateModelCompTask", "/v2/model?CreateModelCompTask"},
        {"/v2/model", "x\"} 1\n", "/v2/model"},
        {"/v2/model", "", "/v2/model"},
        {"/\"}/{", NULL, "/{id}/{id}"},
        {"/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", NULL, "/long"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char route[QD_ROUTE_BYTES];
        qd_http_pair q = {"Action", cases[i].action};
        qd_http_request r = {.path = cases[i].path, .query = &q, .n_query = cases[i].action != NULL};
        qd_route_of(&r, route);
        assert_string_equal(route, cases[i].route);
    }
}

static void routes_beyond_the_table_are_counted_together(void **state)
{
    (void)state;
    qd_metrics *m = qd_metrics_new();
    qd_buf b = {0};
    assert_non_null(m);
    for (int i = 0; i < 300; i++) {
        char route[QD_ROUTE_BYTES];
        (void)snprintf(route, sizeof route, "/r%d", i);
        qd_metrics_count(m, "api", i % 2 == 0 ? "GET" : "\"}evil", route, 200 + i, (uint64_t)i * 1000000);
    }
    qd_metrics_show(m, &b);
    assert_non_null(strstr(b.data, "{api=\"api\",method=\"other\",route=\"/r1\",class=\"2xx\"} 1\n"));
    assert_non_null(strstr(b.data, "{api=\"other\",method=\"any\",route=\"other\",class=\"4xx\"} 100\n"));
    assert_non_null(strstr(b.data, "_bucket{api=\"api\",le=\"0.1\"} 101\n"));
    assert_non_null(strstr(b.data, "_count{api=\"api\"} 300\n"));
    assert_null(strstr(b.data, "evil"));
    qd_buf_done(&b);
    qd_metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_taken_or_refused),
        cmocka_unit_test(heads_have_their_limits),
        cmocka_unit_test(targets_are_split_and_queries_decoded),
        cmocka_unit_test(a_jobs_events_are_told_from_other_paths),
        cmocka_unit_test(the_first_bytes_of_a_connection_tell_where_it_goes),
        cmocka_unit_test(ids_of_requests_are_uuids_and_differ),
        cmocka_unit_test(names_of_files_are_plain),
        cmocka_unit_test(routes_hold_nothing_a_stranger_chose),
        cmocka_unit_test(routes_beyond_the_table_are_counted_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
