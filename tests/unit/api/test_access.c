/* test_access.c -- nobody reaches what is another's, on any endpoint; a reading key writes nothing. */
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

#define JOBS "/api/v1/fine-tunes/compress/jobs"

typedef struct probe {
    ask ask;
    int status; /* for a caller to whom it does not belong */
    const char *code;
    bool writes;
} probe;

#define TASK(id) "{\"modelCompTaskId\":\"" id "\"}"
#define BODY(ids) \
    "{\"model\":\"demo-ft-1\",\"template_id\":\"nvfp4-w4a16\",\"custom_calibration_file_ids\":[\"" ids "\"]}"

/* All endpoints that take an id, with ids of tenant acme. */
static const probe k_probes[] = {
    {{.target = JOBS "/" FAKE_BAILIAN_JOB "5"}, 404, "NotFound", false},
    {{.target = JOBS "/" FAKE_BAILIAN_JOB "5/logs"}, 404, "NotFound", false},
    {{.target = JOBS "/" FAKE_BAILIAN_JOB "1/cancel", .method = "POST"}, 404, "NotFound", true},
    {{.target = JOBS "/" FAKE_BAILIAN_JOB "5", .method = "DELETE"}, 404, "NotFound", true},
    {{.target = "/api/v1/files/" FAKE_FILE}, 400, "InvalidParameter", false},
    {{.target = "/api/v1/files/" FAKE_FILE, .method = "DELETE"}, 400, "InvalidParameter", true},
    {{.target = JOBS, .body = BODY(FAKE_FILE)}, 400, "InvalidParameter", true},
    {{.target = "DescribeModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "5")}, 404, "NoSuchModelCompTask", false},
    {{.target = "CancelModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "1")}, 404, "NoSuchModelCompTask", true},
    {{.target = "StopModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "1")}, 404, "NoSuchModelCompTask", true},
    {{.target = "DeleteModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "5")}, 404, "NoSuchModelCompTask", true},
    {{.target = "DescribeModelCompTasks", .body = "{\"marker\":\"" FAKE_QIANFAN_JOB "5\"}"},
     400,
     "InappropriateJSON",
     false},
    {{.target = "DescribeModelSet", .body = "{\"modelSetName\":\"smollm2\"}"}, 404, "NoSuchModelSet", false},
};
enum {
    PROBES = sizeof k_probes / sizeof k_probes[0]
};

static void what_is_anothers_looks_absent(void **state)
{
    (void)state;
    for (size_t i = 0; i < PROBES; i++) {
        fake *f = fake_new();
        ask a = k_probes[i].ask;
        size_t jobs = f->n_jobs, files = f->n_files;
        a.key = "other";
        refused(f, &a, k_probes[i].status, k_probes[i].code);
        assert_int_equal(f->n_jobs, jobs);
        assert_int_equal(f->n_files, files);
        assert_int_equal(fake_job_of(f, FAKE_BAILIAN_JOB "1")->state, QD_JOB_PENDING);
        assert_int_equal(fake_job_of(f, FAKE_QIANFAN_JOB "1")->state, QD_JOB_PENDING);
        a.key = "acme";
        answer own = good(f, &a); /* the probe itself is good */
        answer_done(&own);
        fake_free(f);
    }
}

static void an_absent_thing_and_anothers_are_answered_alike(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = ask_of(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB_OTHER, .lang = "en"});
    answer b = ask_of(f, &(ask){.target = JOBS "/quant-202604111200-0bae", .lang = "en"});
    char *text = strstr(a.reply.body.data, "0bad");
    assert_non_null(text);
    memcpy(text, "0bae", 4);
    assert_string_equal(a.reply.body.data, b.reply.body.data);
    answer_done(&a);
    answer_done(&b);
    fake_free(f);
}

static void a_reading_key_reads_and_does_not_write(void **state)
{
    (void)state;
    for (size_t i = 0; i < PROBES; i++) {
        fake *f = fake_new();
        ask a = k_probes[i].ask;
        a.key = "read";
        if (k_probes[i].writes) {
            refused(f, &a, 403, ask_is_qianfan(&a) ? "AccessDenied" : "Forbidden");
        } else {
            answer own = good(f, &a);
            answer_done(&own);
        }
        fake_free(f);
    }
    fake *f = fake_new();
    refused(f, &(ask){.target = "/api/v1/files", .method = "POST", .key = "read"}, 403, "Forbidden");
    refused(f, &(ask){.target = "CreateModelCompTask", .key = "read"}, 403, "AccessDenied");
    fake_free(f);
}

static void no_endpoint_answers_without_a_key(void **state)
{
    (void)state;
    static const char *const others[] = {
        JOBS,      "/api/v1/fine-tunes/compress/templates", "/api/v1/files", "/api/v1/nothing",
        "/api/v1", JOBS "/" FAKE_BAILIAN_JOB "3/events",
    };
    fake *f = fake_new();
    for (size_t i = 0; i < PROBES; i++) {
        ask a = k_probes[i].ask;
        bool qianfan = ask_is_qianfan(&a);
        a.key = "";
        refused(f, &a, qianfan ? 400 : 401, qianfan ? "InvalidHTTPAuthHeader" : "Unauthorized");
        a.key = "off";
        refused(f, &a, 403, qianfan ? "AccessDenied" : "Forbidden");
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        refused(f, &(ask){.target = others[i], .key = ""}, 401, "Unauthorized");
    fake_free(f);
}

/* A signature of 64 zeros. */
#define UNSIGNED(key) "bce-auth-v1/ak-" key "/2026-04-11T12:00:00Z/300/host/" ZEROS ZEROS ZEROS ZEROS
#define ZEROS         "0000000000000000"

static void a_signing_key_tells_its_holder_only_that_it_is_disabled_and_whose_it_is(void **state)
{
    (void)state;
    static const char *const keys[] = {UNSIGNED("off"), UNSIGNED("acme")};
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const qd_http_pair headers[] = {{"Host", "h"}, {"Authorization", keys[i]}};
        const qd_http_request r = {.method = "POST",
                                   .path = "/v2/model",
                                   .headers = headers,
                                   .n_headers = 2,
                                   .request_id = RIG_REQUEST_ID,
                                   .now_ms = FAKE_NOW_MS};
        qd_http_reply reply = {0};
        qd_caller c = {0};
        assert_false(qd_api_qianfan()->admit(&f->env, &r, &c, &reply));
        assert_non_null(strstr(reply.body.data, "SignatureDoesNotMatch"));
        assert_string_equal(c.tenant, "");
        assert_string_equal(c.key_id, "");
        qd_http_reply_done(&reply);
    }
    fake_free(f);
}

static void each_api_sees_the_jobs_that_it_made(void **state)
{
    (void)state;
    fake *f = fake_new();
    refused(f, &(ask){.target = JOBS "/" FAKE_QIANFAN_JOB "5"}, 404, "NotFound");
    refused(f, &(ask){.target = JOBS "/" FAKE_QIANFAN_JOB "5", .method = "DELETE"}, 404, "NotFound");
    refused(f, &(ask){.target = "DescribeModelCompTask", .body = TASK(FAKE_BAILIAN_JOB "5")}, 404,
            "NoSuchModelCompTask");
    answer a = good(f, &(ask){.target = JOBS, .key = "other"});
    assert_int_equal(json_integer_value(at(a.body, "output.total")), 1);
    assert_string_equal(text_at(&a, "output.jobs.0.job_id"), FAKE_BAILIAN_JOB_OTHER);
    answer_done(&a);
    a = good(f, &(ask){.target = "DescribeModelCompTasks", .key = "other"});
    assert_int_equal(json_array_size(at(a.body, "result.modelCompTaskList")), 1);
    answer_done(&a);
    fake_free(f);
}

/* The server lets one in to a job's events by admit(); see api.h. */
static void events_and_uploads_are_let_in_by_their_keys(void **state)
{
    (void)state;
    fake *f = fake_new();
    qd_http_pair key = {"Authorization", "bearer   sk-acme"};
    qd_http_request r = {.method = "GET",
                         .path = JOBS "/" FAKE_BAILIAN_JOB "3/events",
                         .headers = &key,
                         .n_headers = 1,
                         .request_id = RIG_REQUEST_ID};
    qd_caller c = {0};
    qd_http_reply reply = {0};
    assert_true(qd_api_bailian()->admit(&f->env, &r, &c, &reply));
    assert_string_equal(c.tenant, "acme");
    r.method = "POST";
    r.path = "/api/v1/files/";
    assert_true(qd_api_bailian()->admit(&f->env, &r, &c, &reply));
    assert_true(qd_api_bailian()->is_upload(&r));
    assert_false(qd_api_qianfan()->is_upload(&r));
    qd_http_reply_done(&reply);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_anothers_looks_absent),
        cmocka_unit_test(an_absent_thing_and_anothers_are_answered_alike),
        cmocka_unit_test(a_reading_key_reads_and_does_not_write),
        cmocka_unit_test(no_endpoint_answers_without_a_key),
        cmocka_unit_test(a_signing_key_tells_its_holder_only_that_it_is_disabled_and_whose_it_is),
        cmocka_unit_test(each_api_sees_the_jobs_that_it_made),
        cmocka_unit_test(events_and_uploads_are_let_in_by_their_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
