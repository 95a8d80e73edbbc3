/* test_bailian.c -- what Bailian's API answers where all is well. */
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

#define ROOT "/api/v1/fine-tunes/compress"
#define JOBS ROOT "/jobs"

static void has_members(const json_t *o, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (json_object_get(o, names[i]) == NULL) fail_msg("%s is missing", names[i]);
    assert_int_equal(json_object_size(o), n);
}

static const char *const k_listed[] = {
    "job_id",
    "job_name",
    "status",
    "model",
    "base_model",
    "template_id",
    "template_name",
    "group",
    "create_time",
    "start_time",
    "training_type",
    "compress_type",
    "end_time",
    "quantized_output",
    "custom_calibration_file_ids",
    "usage", /* of jobs that came to an end they were not to blame for */
};
enum {
    LISTED = sizeof k_listed / sizeof k_listed[0]
};

static bool is_null(const answer *a, const char *path)
{
    return json_is_null(at(a->body, path));
}

static void a_creation_is_answered_with_the_job(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(
        f,
        &(ask){.target = JOBS,
               .lang = "en-US",
               .body = "{\"model\":\"demo-ft-1\",\"template_id\":\"nvfp4-w4a4\",\"job_name\":\"  \xe6\xb5\x8b 1.0 \","
                       "\"job_description\":\"why\",\"output_model_suffix\":\"test\",\"hyper_parameters\":"
                       "{\"calib_samples\":\"64\",\"calib_seq_len\":256,\"calib_input\":true},"
                       "\"custom_calibration_file_ids\":[\"" FAKE_FILE "\"],\"unknown\":{}}"});
    assert_string_equal(text_at(&a, "output.job_id"), "quant-202604112000-0000"); /* 20:00 in Shanghai */
    assert_string_equal(text_at(&a, "output.job_name"), "\xe6\xb5\x8b 1.0");
    assert_string_equal(text_at(&a, "output.status"), "PENDING");
    assert_string_equal(text_at(&a, "output.base_model"), "smollm2");
    assert_string_equal(text_at(&a, "output.template_name"), "NVFP4 W4A4, weights and activations");
    assert_string_equal(text_at(&a, "output.training_type"), "quantization");
    assert_string_equal(text_at(&a, "output.compress_type"), "quantization");
    assert_string_equal(text_at(&a, "output.group"), "quantization");
    assert_string_equal(text_at(&a, "output.create_time"), "2026-04-11 20:00:00");
    assert_string_equal(text_at(&a, "output.hyper_parameters.calib_samples"), "64");
    assert_string_equal(text_at(&a, "output.hyper_parameters.calib_seq_len"), "256");
    assert_string_equal(text_at(&a, "output.hyper_parameters.block_scale"), "hessian");
    assert_null(at(a.body, "output.hyper_parameters.input_scale")); /* not shown to users */
    assert_string_equal(text_at(&a, "output.custom_calibration_file_ids.0"), FAKE_FILE);
    assert_true(is_null(&a, "output.quantized_output") && is_null(&a, "output.start_time") &&
                is_null(&a, "output.end_time") && is_null(&a, "output.error"));
    assert_int_equal(json_object_size(at(a.body, "output")), LISTED - 1 + 2);
    answer_done(&a);
    const qd_job_record *rec = fake_job_of(f, "quant-202604112000-0000");
    assert_string_equal(rec->spec->output_model_id, "smollm2-test-quant-202604112000-0000");
    assert_string_equal(qd_name_value_find(rec->spec->api_fields, rec->spec->n_api_fields, "quant_spec"), "w4a4");
    assert_string_equal(qd_name_value_find(rec->spec->api_fields, rec->spec->n_api_fields, "quant_method"), "gptq");
    fake_free(f);
}

static void what_is_not_given_has_its_default(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(
        f,
        &(ask){.target = JOBS "/",
               .body = "{\"model\":\"demo-ft-1\",\"template_id\":\"quant-flash-nvfp4-mlp-nomtp\",\"job_name\":\"  \","
                       "\"job_description\":null,\"hyper_parameters\":null,\"output_model_suffix\":\"\"}"});
    assert_string_equal(text_at(&a, "output.job_name"), text_at(&a, "output.job_id"));
    assert_int_equal(json_object_size(at(a.body, "output.hyper_parameters")), 0); /* the template shows none */
    assert_int_equal(json_array_size(at(a.body, "output.custom_calibration_file_ids")), 0);
    answer_done(&a);
    a = good(f, &(ask){.target = JOBS "/quant-202604112000-0000"});
    assert_true(is_null(&a, "output.job_description"));
    answer_done(&a);
    fake_free(f);
}

static void bounds_are_inclusive(void **state)
{
    (void)state;
    static const char *const good_ones[] = {
        "\"job_name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", /* 50 */
        "\"job_name\":\"._-()[]:/+#@, \\u4f60\"",
        "\"output_model_suffix\":\"a2345678\"",
        "\"hyper_parameters\":{\"calib_samples\":65536}",
        "\"hyper_parameters\":{\"calib_samples\":1.0}",
        "\"hyper_parameters\":{\"calib_seq_len\":\"16\"}",
        "\"hyper_parameters\":{}",
        "\"custom_calibration_file_ids\":[\"" FAKE_FILE "\",\"" FAKE_FILE "\",\"" FAKE_FILE "\",\"" FAKE_FILE
        "\",\"" FAKE_FILE "\"]",
        "\"custom_calibration_file_ids\":[]",
        "\"job_description\":\"a\\nb\\tc\"",
    };
    fake *f = fake_new();
    char body[1024];
    for (size_t i = 0; i < sizeof good_ones / sizeof good_ones[0]; i++) {
        (void)snprintf(body, sizeof body, "{\"model\":\"demo-ft-1\",\"template_id\":\"nvfp4-w4a4\",%s}", good_ones[i]);
        answer a = good(f, &(ask){.target = JOBS, .body = body});
        answer_done(&a);
    }
    answer a = good(f, &(ask){.target = JOBS,
                              .body = "{\"model\":\"qwen-ft\",\"template_id\":\"types\",\"hyper_parameters\":"
                                      "{\"ratio\":0.75,\"count\":256,\"flag\":false,\"text\":\"\"}}"});
    assert_string_equal(text_at(&a, "output.hyper_parameters.ratio"), "0.75");
    assert_string_equal(text_at(&a, "output.hyper_parameters.flag"), "false");
    answer_done(&a);
    fake_free(f);
}

static void the_same_idempotency_key_is_the_same_job(void **state)
{
    (void)state;
    fake *f = fake_new();
    ask a = {.target = JOBS, .body = "{\"model\":\"demo-ft-1\",\"template_id\":\"nvfp4-w4a4\"}", .repeat_key = "k1"};
    answer one = good(f, &a), two = good(f, &a);
    assert_string_equal(text_at(&one, "output.job_id"), text_at(&two, "output.job_id"));
    answer_done(&one);
    answer_done(&two);
    static const char *const others[] = {"\"template_id\":\"nvfp4-w4a16\"",
                                         "\"template_id\":\"nvfp4-w4a4\",\"job_name\":\"n\"",
                                         "\"template_id\":\"nvfp4-w4a4\",\"job_description\":\"d\"",
                                         "\"template_id\":\"nvfp4-w4a4\",\"output_model_suffix\":\"s\"",
                                         "\"template_id\":\"nvfp4-w4a4\",\"hyper_parameters\":{\"calib_samples\":8}",
                                         "\"template_id\":\"nvfp4-w4a4\",\"custom_calibration_file_ids\":[\"" FAKE_FILE
                                         "\"]"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char body[512];
        (void)snprintf(body, sizeof body, "{\"model\":\"demo-ft-1\",%s}", others[i]);
        a.body = body;
        refused(f, &a, 400, "InvalidParameter");
    }
    /* The members of an object have no order. */
    a.repeat_key = "k2";
    a.body = "{\"model\":\"demo-ft-1\",\"template_id\":\"nvfp4-w4a4\",\"hyper_parameters\":{\"calib_samples\":8,"
             "\"calib_seq_len\":512}}";
    one = good(f, &a);
    a.body = "{\"hyper_parameters\":{\"calib_seq_len\":512,\"calib_samples\":8},\"template_id\":\"nvfp4-w4a4\","
             "\"model\":\"demo-ft-1\"}";
    two = good(f, &a);
    assert_string_equal(text_at(&one, "output.job_id"), text_at(&two, "output.job_id"));
    answer_done(&one);
    answer_done(&two);
    fake_free(f);
}

static void each_state_has_its_members(void **state)
{
    (void)state;
    fake *f = fake_new();
    for (int s = QD_JOB_PENDING; s <= QD_JOB_CANCELED; s++) {
        char target[128];
        bool begun = s >= QD_JOB_RUNNING, over = s >= QD_JOB_SUCCEEDED;
        (void)snprintf(target, sizeof target, JOBS "/" FAKE_BAILIAN_JOB "%d", s);
        answer a = good(f, &(ask){.target = target, .lang = "en"});
        assert_string_equal(text_at(&a, "output.status"), qd_job_state_name((qd_job_state)s));
        assert_int_equal(is_null(&a, "output.start_time"), !begun);
        assert_int_equal(is_null(&a, "output.end_time"), !over);
        assert_int_equal(is_null(&a, "output.quantized_output"), s != QD_JOB_SUCCEEDED);
        assert_int_equal(is_null(&a, "output.error"), s != QD_JOB_FAILED);
        assert_int_equal(at(a.body, "output.usage") != NULL, s == QD_JOB_SUCCEEDED || s == QD_JOB_CANCELED);
        assert_string_equal(text_at(&a, "output.job_description"), "a description");
        assert_string_equal(text_at(&a, "output.template_name"), "Template"); /* as it was at creation */
        assert_true(text_at(&a, "output.template_description")[0] == 'W');
        assert_string_equal(text_at(&a, "output.hyper_parameters.block_scale"), "mse");
        assert_null(at(a.body, "output.hyper_parameters.secret"));
        answer_done(&a);
    }
    answer a = good(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "5"});
    assert_int_equal(json_integer_value(at(a.body, "output.usage")), 600);
    assert_string_equal(text_at(&a, "output.quantized_output"), "smollm2-" FAKE_BAILIAN_JOB "5");
    assert_string_equal(text_at(&a, "output.start_time"), "2026-04-11 19:06:00");
    answer_done(&a);
    a = good(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "6"});
    assert_string_equal(text_at(&a, "output.error.code"), "InvalidParameter");
    assert_string_equal(text_at(&a, "output.error.message"), "calibration: no usable sample");
    answer_done(&a);
    fake_free(f);
}

static void a_list_leaves_out_what_only_one_job_shows(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(f, &(ask){.target = JOBS "?status=SUCCEEDED"});
    has_members(at(a.body, "output.jobs.0"), k_listed, LISTED);
    answer_done(&a);
    a = good(f, &(ask){.target = JOBS "?status=FAILED"});
    has_members(at(a.body, "output.jobs.0"), k_listed, LISTED - 1);
    answer_done(&a);
    fake_free(f);
}

static void a_job_whose_template_is_gone_keeps_its_name(void **state)
{
    (void)state;
    fake *f = fake_new();
    assert_int_equal(qd_text_set(&fake_job_of(f, FAKE_BAILIAN_JOB "5")->spec->template_id, "gone", NULL), QD_OK);
    answer a = good(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "5"});
    assert_string_equal(text_at(&a, "output.template_name"), "\xe6\xa8\xa1\xe6\x9d\xbf");
    assert_true(is_null(&a, "output.template_description"));
    answer_done(&a);
    fake_free(f);
}

static void log_lines_are_paged(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        size_t n;
        const char *first;
    } cases[] = {
        {"", 100, "2026-04-11 20:00:00 - INFO - line 1"},
        {"?offset=1&line=1000", 1000, "2026-04-11 20:00:00 - INFO - line 2"},
        {"?line=5000", 1000, "2026-04-11 20:00:00 - INFO - line 1"}, /* cut, not refused */
        {"?offset=1204", 1, "2026-04-11 20:00:00 - INFO - line 1205"},
        {"?offset=9223372036854775807", 0, ""},
    };
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char target[128];
        (void)snprintf(target, sizeof target, JOBS "/" FAKE_BAILIAN_JOB "5/logs%s", cases[i].query);
        answer a = good(f, &(ask){.target = target});
        assert_int_equal(json_integer_value(at(a.body, "output.total")), 1205);
        assert_int_equal(json_array_size(at(a.body, "output.logs")), cases[i].n);
        assert_string_equal(text_at(&a, "output.logs.0"), cases[i].first);
        answer_done(&a);
    }
    answer a = good(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "1/logs"});
    assert_int_equal(json_integer_value(at(a.body, "output.total")), 0);
    assert_true(json_is_array(at(a.body, "output.logs")));
    answer_done(&a);
    fake_free(f);
}

/* Which of the seven states a change is let through in. */
static void allowed_in(const char *method, const char *end, unsigned states)
{
    for (int s = QD_JOB_PENDING; s <= QD_JOB_CANCELED; s++) {
        fake *f = fake_new();
        char target[128];
        (void)snprintf(target, sizeof target, JOBS "/" FAKE_BAILIAN_JOB "%d%s", s, end);
        if ((states >> s & 1) != 0) {
            answer a = good(f, &(ask){.target = target, .method = method});
            assert_string_equal(text_at(&a, "output.status"), "success");
            answer_done(&a);
        } else {
            refused(f, &(ask){.target = target, .method = method}, 400, "UnsupportedOperation");
        }
        fake_free(f);
    }
}

static void only_jobs_that_have_not_ended_are_cancelled_and_only_ended_ones_deleted(void **state)
{
    (void)state;
    allowed_in("POST", "/cancel", 1 << QD_JOB_PENDING | 1 << QD_JOB_QUEUING | 1 << QD_JOB_RUNNING);
    allowed_in("DELETE", "", 1 << QD_JOB_SUCCEEDED | 1 << QD_JOB_FAILED | 1 << QD_JOB_CANCELED);
    fake *f = fake_new();
    answer a = good(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "5/", .method = "DELETE"});
    answer_done(&a);
    refused(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "5"}, 404, "NotFound");
    fake_free(f);
}

static void a_job_that_ends_while_it_is_cancelled_is_refused_all_the_same(void **state)
{
    (void)state;
    fake *f = fake_new();
    f->fail_op = "job_cancel";
    f->fail_code = QD_E_BUSY;
    refused(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "3/cancel", .method = "POST"}, 400, "UnsupportedOperation");
    f->fail_code = QD_E_NOT_FOUND;
    refused(f, &(ask){.target = JOBS "/" FAKE_BAILIAN_JOB "3/cancel", .method = "POST"}, 404, "NotFound");
    fake_free(f);
}

static void templates_are_those_of_the_callers_full_models(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(f, &(ask){.target = ROOT "/templates?lang=en-US"});
    assert_int_equal(json_array_size(at(a.body, "output.custom_models")), 2); /* demo-ft-1, qwen-ft */
    assert_string_equal(text_at(&a, "output.base_models.0"), "smollm2");
    assert_string_equal(text_at(&a, "output.base_models.1"), "qwen3");
    assert_string_equal(text_at(&a, "output.custom_models.0.model"), "demo-ft-1");
    assert_int_equal(json_array_size(at(a.body, "output.custom_models.0.templates")), 4);
    assert_string_equal(text_at(&a, "output.custom_models.0.templates.0.template_id"), "nvfp4-w4a16");
    assert_string_equal(text_at(&a, "output.custom_models.0.templates.0.template_name"), "NVFP4 W4A16, weights only");
    assert_string_equal(text_at(&a, "output.custom_models.0.templates.0.compress_type"), "quantization");
    assert_int_equal(json_array_size(at(a.body, "output.custom_models.0.templates.3.hyper_parameters")), 0);
    answer_done(&a);
    fake_free(f);
}

static void parameters_are_numbers_or_strings(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(f, &(ask){.target = ROOT "/templates?model=qwen3&lang=en-US"});
    assert_int_equal(json_array_size(at(a.body, "output.custom_models")), 1);
    const json_t *p = at(a.body, "output.custom_models.0.templates.4.hyper_parameters");
    assert_int_equal(json_array_size(p), 4); /* one of five is not shown */
    assert_string_equal(json_string_value(at(p, "0.type")), "number");
    assert_string_equal(json_string_value(at(p, "0.data_range.1")), "1");
    assert_string_equal(json_string_value(at(p, "1.defaultValue")), "128");
    assert_string_equal(json_string_value(at(p, "1.recommend_value")), "128");
    assert_string_equal(json_string_value(at(p, "1.data_range.0")), "64");
    assert_int_equal(json_integer_value(at(p, "1.step")), 64);
    assert_null(at(p, "1.support_values"));
    assert_string_equal(json_string_value(at(p, "2.type")), "string");
    assert_string_equal(json_string_value(at(p, "2.support_values.1")), "false");
    assert_string_equal(json_string_value(at(p, "2.display_name")), "Flag");
    assert_null(at(p, "2.data_range"));
    assert_true(json_is_false(at(p, "0.required")) && json_is_false(at(p, "0.advancedParameter")) &&
                json_is_false(at(p, "0.is_advanced_parameter")));
    answer_done(&a);
    fake_free(f);
}

static void templates_are_chosen_by_model_or_base_model(void **state)
{
    (void)state;
    static const struct {
        const char *query, *key;
        size_t n;
    } cases[] = {
        {"model=demo-ft-1", NULL, 1}, {"model=smollm2", NULL, 1}, {"model=none", NULL, 0},
        {"model=other-ft", NULL, 0},  {"model=", NULL, 2},        {"", "other", 1},
    };
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char target[128];
        (void)snprintf(target, sizeof target, ROOT "/templates?%s", cases[i].query);
        answer a = good(f, &(ask){.target = target, .key = cases[i].key});
        assert_int_equal(json_array_size(at(a.body, "output.custom_models")), cases[i].n);
        answer_done(&a);
    }
    answer a = good(f, &(ask){.target = ROOT "/templates?model=demo-ft-1", .key = "some"});
    assert_int_equal(json_array_size(at(a.body, "output.custom_models.0.templates")), 1); /* what the key may use */
    answer_done(&a);
    fake_free(f);
}

static void files_are_listed_shown_and_deleted(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(f, &(ask){.target = "/api/v1/files?page_size=3"});
    assert_int_equal(json_integer_value(at(a.body, "data.total")), 1);
    assert_int_equal(json_integer_value(at(a.body, "data.page_size")), 3);
    assert_string_equal(text_at(&a, "data.files.0.file_id"), FAKE_FILE);
    answer_done(&a);
    a = good(f, &(ask){.target = "/api/v1/files/" FAKE_FILE});
    assert_string_equal(text_at(&a, "data.name"), "calib.jsonl");
    assert_int_equal(json_integer_value(at(a.body, "data.id")), 0x123456789abc);
    assert_int_equal(json_integer_value(at(a.body, "data.size")), 4096);
    assert_string_equal(text_at(&a, "data.gmt_create"), "2026-04-11 20:00:00");
    assert_int_equal(json_object_size(at(a.body, "data")), 12);
    answer_done(&a);
    a = good(f, &(ask){.target = "/api/v1/files/" FAKE_FILE, .method = "DELETE"});
    assert_int_equal(json_object_size(a.body), 1);
    answer_done(&a);
    refused(f, &(ask){.target = "/api/v1/files/" FAKE_FILE}, 400, "InvalidParameter");
    fake_free(f);
}

static void an_upload_names_what_was_stored_and_what_was_not(void **state)
{
    (void)state;
    fake *f = fake_new();
    qd_http_request r = {.method = "POST", .path = "/api/v1/files", .request_id = RIG_REQUEST_ID};
    qd_caller c = {0};
    qd_uploaded files[2] = {{.name = "a.jsonl", .file = f->files[0]},
                            {.name = "b.jsonl", .err = {.code = QD_E_TOO_LARGE}}};
    qd_http_reply reply = {0};
    assert_true(qd_api_bailian()->is_upload(&r));
    static const char *const known[] = {"", "fine-tune", "fine_tune", "file-extract", "batch"},
                             *const others[] = {"fine", "Batch", "fine-tunefine-tune", "\xff", "assistants"};
    for (size_t i = 0; i < 5; i++) {
        assert_true(qd_api_bailian()->takes_purpose(known[i]));
        assert_false(qd_api_bailian()->takes_purpose(others[i]));
    }
    qd_api_bailian()->uploaded(&f->env, &c, &r, files, 2, &reply);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body.data,
                        "{\"request_id\":\"" RIG_REQUEST_ID "\",\"data\":{\"uploaded_files\":[{\"file_id\":\"" FAKE_FILE
                        "\",\"name\":\"calib.jsonl\"}],\"failed_uploads\":[{\"name\":\"b.jsonl\",\"code\":"
                        "\"BadRequest.TooLarge\",\"message\":\"\xe6\x96\x87\xe4\xbb\xb6\xe8\xbf\x87\xe5\xa4\xa7\"}]}}");
    qd_http_reply_done(&reply);
    r.method = "GET";
    assert_false(qd_api_bailian()->is_upload(&r));
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_creation_is_answered_with_the_job),
        cmocka_unit_test(what_is_not_given_has_its_default),
        cmocka_unit_test(bounds_are_inclusive),
        cmocka_unit_test(the_same_idempotency_key_is_the_same_job),
        cmocka_unit_test(each_state_has_its_members),
        cmocka_unit_test(a_list_leaves_out_what_only_one_job_shows),
        cmocka_unit_test(a_job_whose_template_is_gone_keeps_its_name),
        cmocka_unit_test(log_lines_are_paged),
        cmocka_unit_test(only_jobs_that_have_not_ended_are_cancelled_and_only_ended_ones_deleted),
        cmocka_unit_test(a_job_that_ends_while_it_is_cancelled_is_refused_all_the_same),
        cmocka_unit_test(templates_are_those_of_the_callers_full_models),
        cmocka_unit_test(parameters_are_numbers_or_strings),
        cmocka_unit_test(templates_are_chosen_by_model_or_base_model),
        cmocka_unit_test(files_are_listed_shown_and_deleted),
        cmocka_unit_test(an_upload_names_what_was_stored_and_what_was_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
