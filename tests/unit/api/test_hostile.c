/* test_hostile.c -- requests of bad will are refused as the caller's fault, change nothing, and get JSON. */
#include "base/mem.h"
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

#define JOBS "/api/v1/fine-tunes/compress/jobs"

static void ids_that_lead_elsewhere_are_unknown(void **state)
{
    (void)state;
    static const char *const ids[] = {
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2Fetc%2Fpasswd",
        "..%5c..",
        "a%00b",
        "%ff%fe",
        "%zz",
        "%",
        "a%0d%0aSet-Cookie:%20x",
        "*",
        ">",
        "job.*",
        "a.b",
        "-rf",
        "%20",
        "quant-202604111200-0005%00",
        "quant-202604111200-000%35%2f",
        "\xf0\x9f\x98\x80",
        "';DROP TABLE jobs;--",
        "$(id)",
        "%25s%25n",
    };
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        char target[256], body[256];
        (void)snprintf(target, sizeof target, JOBS "/%s", ids[i]);
        refused(f, &(ask){.target = target}, 404, "NotFound");
        refused(f, &(ask){.target = target, .method = "DELETE"}, 404, "NotFound");
        (void)snprintf(target, sizeof target, JOBS "/%s/logs", ids[i]);
        refused(f, &(ask){.target = target}, 404, "NotFound");
        (void)snprintf(target, sizeof target, JOBS "/%s/cancel", ids[i]);
        refused(f, &(ask){.target = target, .method = "POST"}, 404, "NotFound");
        (void)snprintf(target, sizeof target, "/api/v1/files/%s", ids[i]);
        refused(f, &(ask){.target = target}, 400, "InvalidParameter");
        refused(f, &(ask){.target = target, .method = "DELETE"}, 400, "InvalidParameter");
        (void)snprintf(body, sizeof body, "{\"modelCompTaskId\":\"%s\"}", ids[i]);
        refused(f, &(ask){.target = "DescribeModelCompTask", .body = body}, 404, "NoSuchModelCompTask");
        refused(f, &(ask){.target = "DeleteModelCompTask", .body = body}, 404, "NoSuchModelCompTask");
    }
    fake_free(f);
}

static void an_endless_id_is_unknown(void **state)
{
    (void)state;
    fake *f = fake_new();
    char target[9000] = JOBS "/";
    memset(target + strlen(target), 'a', 8000);
    refused(f, &(ask){.target = target}, 404, "NotFound");
    fake_free(f);
}

static void paths_beside_the_endpoints_are_no_endpoints(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "/api/v1",
        "/api/v1/",
        "/api/v1//files",
        "/api/v1/fine-tunes",
        JOBS "//",
        JOBS "/a/b",
        JOBS "/a/logs/b",
        JOBS "/a/logs//",
        "/api/v1/fine-tunes/compress/jobs%2fa",
        "/api/v1/FILES",
        "/api/v1/files/a/b",
    };
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        refused(f, &(ask){.target = paths[i]}, 404, "ResourceNotFound");
    assert_false(qd_api_bailian()->owns("/api/v10/files"));
    assert_false(qd_api_bailian()->owns("/"));
    assert_false(qd_api_qianfan()->owns("/v/model"));
    assert_false(qd_api_qianfan()->owns("/v2model"));
    assert_true(qd_api_qianfan()->owns("/v2/model"));
    fake_free(f);
}

/* No body of these makes a job or a 5xx. */
static void bad_body(fake *f, const char *body, size_t n)
{
    size_t jobs = f->n_jobs;
    answer a = ask_of(f, &(ask){.target = JOBS, .body = body, .body_bytes = n});
    if (a.status != 400) fail_msg("%.80s: %d %s", body, a.status, a.reply.body.data);
    assert_string_equal(code_of(&a), "InvalidParameter");
    answer_done(&a);
    a = ask_of(f, &(ask){.target = "CreateModelCompTask", .body = body, .body_bytes = n});
    if (a.status != 400) fail_msg("%.80s: %d %s", body, a.status, a.reply.body.data);
    answer_done(&a);
    assert_int_equal(f->n_jobs, jobs);
}

static void bodies_that_are_no_json_objects_are_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{",
        "}",
        "null",
        "1",
        "\"a\"",
        "[]",
        "[[]]",
        "{\"a\"}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":1}x",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"\\u0000\":1}",
        "{\"a\":\"\x01\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":1e999}",
        "{\"a\":99999999999999999999999}",
        "{\"a\":1,\"a\":2}",
        "\xef\xbb\xbf{}",
        "<xml/>",
        " ",
        "a=b&c=d",
    };
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) bad_body(f, bodies[i], 0);
    bad_body(f, "{}\0{}", 5);
    bad_body(f, "\0", 1);
    fake_free(f);
}

static void deep_json_is_refused(void **state)
{
    (void)state;
    fake *f = fake_new();
    enum {
        DEPTH = 100000
    };
    char *body = qd_malloc(2 * DEPTH + 1);
    assert_non_null(body);
    memset(body, '[', DEPTH);
    memset(body + DEPTH, ']', DEPTH);
    body[2 * DEPTH] = '\0';
    bad_body(f, body, 0);
    for (size_t i = 0; i + 5 < DEPTH; i += 5) memcpy(body + i, "{\"a\":", 5);
    bad_body(f, body, 0);
    qd_free(body);
    fake_free(f);
}

/* Every member as every type that it is not. */
static void each_type(fake *f, const char *target, const char *const *members, size_t n, const char *rest)
{
    static const char *const values[] = {
        "1",   "-1",     "1.5",  "1e308", "9223372036854775807", "true",         "[]",
        "[1]", "[null]", "[[]]", "{}",    "{\"a\":{}}",          "\"\xc2\x85\"",
    };
    char body[512];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            (void)snprintf(body, sizeof body, "{\"%s\":%s%s}", members[i], values[k], rest);
            answer a = ask_of(f, &(ask){.target = target, .body = body});
            if (a.status >= 500) fail_msg("%s: %d %s", body, a.status, a.reply.body.data);
            answer_done(&a);
        }
}

static void members_of_wrong_types_are_the_callers_fault(void **state)
{
    (void)state;
    static const char *const bailian[] = {"model",
                                          "template_id",
                                          "job_name",
                                          "job_description",
                                          "hyper_parameters",
                                          "custom_calibration_file_ids",
                                          "output_model_suffix"};
    static const char *const qianfan[] = {"name",        "description",     "sourceModelId", "modelSetId",
                                          "config",      "modelCompTaskId", "marker",        "maxKeys",
                                          "pageReverse", "modelId",         "modelSetName"};
    static const char *const actions[] = {"CreateModelCompTask", "DescribeModelCompTask",  "DescribeModelCompTasks",
                                          "CancelModelCompTask", "DeleteModelCompTask",    "DescribeModel",
                                          "DescribeModelSet",    "DescribeCustomModelSets"};
    fake *f = fake_new();
    each_type(f, JOBS, bailian, 2, "");
    each_type(f, JOBS, bailian + 2, 5, "");
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) each_type(f, actions[i], qianfan, 11, "");
    fake_free(f);
    f = fake_new();
    each_type(f, JOBS, bailian + 2, 5, ",\"model\":\"demo-ft-1\",\"template_id\":\"nvfp4-w4a4\"");
    refused(
        f,
        &(ask){.target = JOBS,
               .body = "{\"model\":\"qwen-ft\",\"template_id\":\"types\",\"hyper_parameters\":{\"text\":\"\\u0001\"}}"},
        400, "InvalidParameter");
    fake_free(f);
}

static void numbers_of_any_size_are_refused_as_such(void **state)
{
    (void)state;
    static const char *const queries[] = {
        "page_no=-1",
        "page_no=0",
        "page_no=1.5",
        "page_no=0x1",
        "page_no=%201",
        "page_no=1%20",
        "page_no=+1",
        "page_no=1e3",
        "page_no=99999999999999999999999999",
        "page_no=18446744073709551616",
        "page_no=4294967296",
        "page_size=0",
        "page_size=101",
        "page_size=-10",
        "page_no=%D9%A1",
    };
    fake *f = fake_new();
    char target[256];
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        (void)snprintf(target, sizeof target, JOBS "?%s", queries[i]);
        refused(f, &(ask){.target = target}, 400, "InvalidParameter");
        (void)snprintf(target, sizeof target, "/api/v1/files?%s", queries[i]);
        refused(f, &(ask){.target = target}, 400, "InvalidParameter");
    }
    refused(f, &(ask){.target = "DescribeModelCompTasks", .body = "{\"maxKeys\":-9223372036854775808}"}, 400,
            "InappropriateJSON");
    refused(f, &(ask){.target = "DescribeModelCompTasks", .body = "{\"maxKeys\":1.5}"}, 400, "InappropriateJSON");
    answer a = good(f, &(ask){.target = "DescribeModelCompTasks", .body = "{\"maxKeys\":9223372036854775807}"});
    answer_done(&a);
    fake_free(f);
}

static void what_a_caller_sends_does_not_become_a_header_or_markup(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = ask_of(f, &(ask){.target = "DescribeModel", .body = "{\"modelId\":\"x\\r\\nSet-Cookie: a=b\\u4f60\"}"});
    assert_int_equal(a.status, 404);
    assert_string_equal(a.reply.headers[2].value, "The specified model x??Set-Cookie: a=b??? does not exist.");
    answer_done(&a);
    a = ask_of(f, &(ask){.target = JOBS "?status=%22%7D%2C%7B", .lang = "en"});
    assert_int_equal(json_object_size(a.body), 3);
    answer_done(&a);
    fake_free(f);
}

static void a_replayed_request_is_refused_outside_its_window(void **state)
{
    (void)state;
    fake *f = fake_new();
    ask a = {.target = "DescribeModelCompTasks", .later_ms = 300000};
    answer again = good(f, &a);
    answer_done(&again);
    a.later_ms = 300001;
    refused(f, &a, 400, "RequestExpired");
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_that_lead_elsewhere_are_unknown),
        cmocka_unit_test(an_endless_id_is_unknown),
        cmocka_unit_test(paths_beside_the_endpoints_are_no_endpoints),
        cmocka_unit_test(bodies_that_are_no_json_objects_are_refused),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(members_of_wrong_types_are_the_callers_fault),
        cmocka_unit_test(numbers_of_any_size_are_refused_as_such),
        cmocka_unit_test(what_a_caller_sends_does_not_become_a_header_or_markup),
        cmocka_unit_test(a_replayed_request_is_refused_outside_its_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
