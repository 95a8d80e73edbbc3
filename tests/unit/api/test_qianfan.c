/* test_qianfan.c -- what Qianfan's API answers where all is well. */
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

static answer create(fake *f, const char *config, const char *repeat_key)
{
    char body[512];
    (void)snprintf(
        body, sizeof body,
        "{\"name\":\"n\",\"description\":\"d\",\"sourceModelId\":\"%s\",\"modelSetId\":\"%s\",\"config\":%s}",
        f->models[0].qianfan_id, f->models[0].qianfan_set_id, config);
    return good(f, &(ask){.target = "CreateModelCompTask", .body = body, .repeat_key = repeat_key});
}

static answer with_task(fake *f, const char *action, const char *id)
{
    char body[128];
    (void)snprintf(body, sizeof body, "{\"modelCompTaskId\":\"%s\"}", id);
    return ask_of(f, &(ask){.target = action, .body = body});
}

static void a_creation_is_answered_with_the_tasks_id(void **state)
{
    (void)state;
    fake *f = fake_new();
    f->random = UINT64_C(0x123456789abcdef0);
    answer a = create(f, "{\"strategy\":\"Quantization\",\"weight\":\"nvfp4-w4a4\"}", NULL);
    const char *id = text_at(&a, "result");
    assert_int_equal(strlen(id), 17);
    assert_memory_equal(id, "amva-", 5);
    assert_int_equal(strspn(id + 5, "abcdefghijklmnopqrstuvwxyz0123456789"), 12);
    const qd_job_record *rec = fake_job_of(f, id);
    assert_string_equal(rec->spec->template_id, "nvfp4-w4a4");
    assert_string_equal(rec->spec->name, "n");
    assert_string_equal(qd_name_value_find(rec->spec->api_fields, rec->spec->n_api_fields, "quant_spec"), "w4a4");
    answer t = with_task(f, "DescribeModelCompTask", id);
    assert_string_equal(text_at(&t, "result.config.weight"), "nvfp4-w4a4"); /* as submitted */
    assert_string_equal(text_at(&t, "result.sourceModelId"), f->models[0].qianfan_id);
    assert_string_equal(text_at(&t, "result.status"), "creating");
    answer_done(&t);
    answer_done(&a);
    fake_free(f);
}

static void names_need_not_be_unique_and_a_key_makes_a_repeat(void **state)
{
    (void)state;
    static const char config[] = "{\"strategy\":\"Quantization\",\"weight\":\"NVFP4\"}";
    fake *f = fake_new();
    answer a = create(f, config, NULL), b = create(f, config, NULL), c = create(f, config, "k"),
           d = create(f, config, "k");
    assert_string_not_equal(text_at(&a, "result"), text_at(&b, "result"));
    assert_string_not_equal(text_at(&b, "result"), text_at(&c, "result"));
    assert_string_equal(text_at(&c, "result"), text_at(&d, "result"));
    answer_done(&a);
    answer_done(&b);
    answer_done(&c);
    answer_done(&d);
    fake_free(f);
}

static void each_state_has_its_members(void **state)
{
    (void)state;
    static const char *const names[] = {"",         "creating",  "creating", "running",
                                        "stopping", "succeeded", "failed",   "stopped"};
    fake *f = fake_new();
    for (int s = QD_JOB_PENDING; s <= QD_JOB_CANCELED; s++) {
        char id[64];
        (void)snprintf(id, sizeof id, FAKE_QIANFAN_JOB "%d", s);
        answer a = with_task(f, "DescribeModelCompTask", id);
        assert_int_equal(a.status, 200);
        assert_string_equal(text_at(&a, "result.id"), id);
        assert_string_equal(text_at(&a, "result.status"), names[s]);
        assert_string_equal(text_at(&a, "result.failedReason"),
                            s == QD_JOB_FAILED ? "calibration: no usable sample" : "");
        assert_int_equal(text_at(&a, "result.finishTime")[0] != '\0', s >= QD_JOB_SUCCEEDED);
        assert_int_equal(at(a.body, "result.modelId") != NULL, s == QD_JOB_SUCCEEDED);
        assert_int_equal(json_object_size(at(a.body, "result")), s == QD_JOB_SUCCEEDED ? 10 : 9);
        assert_string_equal(text_at(&a, "result.config.strategy"), "Quantization");
        answer_done(&a);
    }
    answer a = with_task(f, "DescribeModelCompTask", FAKE_QIANFAN_JOB "5");
    assert_string_equal(text_at(&a, "result.createTime"), "2026-04-11T19:05:00+08:00");
    assert_string_equal(text_at(&a, "result.finishTime"), "2026-04-11T19:16:00+08:00");
    assert_memory_equal(text_at(&a, "result.modelId"), "amv-", 4);
    answer_done(&a);
    fake_free(f);
}

static void a_list_is_walked_by_markers_both_ways(void **state)
{
    (void)state;
    fake *f = fake_new();
    for (int reverse = 0; reverse < 2; reverse++) {
        char marker[64] = "", body[256], seen[64] = "";
        for (int pages = 0; pages < 10; pages++) {
            (void)snprintf(body, sizeof body, "{\"maxKeys\":3,\"pageReverse\":%s%s%s%s}", reverse ? "true" : "false",
                           *marker ? ",\"marker\":\"" : "", marker, *marker ? "\"" : "");
            answer a = good(f, &(ask){.target = "DescribeModelCompTasks", .body = body});
            const json_t *list = at(a.body, "result.modelCompTaskList");
            for (size_t i = 0; i < json_array_size(list); i++) {
                const char *id = json_string_value(json_object_get(json_array_get(list, i), "id"));
                (void)snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s", id + strlen(FAKE_QIANFAN_JOB));
                assert_int_equal(json_object_size(json_array_get(list, i)), 9);
            }
            const char *first = json_string_value(json_object_get(json_array_get(list, 0), "id"));
            assert_string_equal(text_at(&a, "result.pageInfo.marker"), first);
            assert_int_equal(json_integer_value(at(a.body, "result.pageInfo.maxKeys")), 3);
            bool more = json_is_true(at(a.body, "result.pageInfo.isTruncated"));
            assert_int_equal(at(a.body, "result.pageInfo.nextMarker") != NULL, more);
            (void)snprintf(marker, sizeof marker, "%s", text_at(&a, "result.pageInfo.nextMarker"));
            answer_done(&a);
            if (!more) break;
        }
        assert_string_equal(seen, reverse ? "7654321" : "1234567");
    }
    fake_free(f);
}

static void a_list_is_filtered_by_source_and_cut_at_a_hundred(void **state)
{
    (void)state;
    fake *f = fake_new();
    char body[128];
    (void)snprintf(body, sizeof body, "{\"sourceModelId\":\"%s\",\"maxKeys\":1000}", f->models[0].qianfan_id);
    answer a = good(f, &(ask){.target = "DescribeModelCompTasks", .body = body});
    assert_int_equal(json_array_size(at(a.body, "result.modelCompTaskList")), 7);
    assert_int_equal(json_integer_value(at(a.body, "result.pageInfo.maxKeys")), 100);
    answer_done(&a);
    a = good(f, &(ask){.target = "DescribeModelCompTasks", .body = "{\"sourceModelId\":\"amv-unknown\"}"});
    assert_int_equal(json_array_size(at(a.body, "result.modelCompTaskList")), 0);
    assert_string_equal(text_at(&a, "result.pageInfo.marker"), "");
    answer_done(&a);
    fake_free(f);
}

static void allowed_in(const char *action, unsigned states)
{
    for (int s = QD_JOB_PENDING; s <= QD_JOB_CANCELED; s++) {
        fake *f = fake_new();
        char id[64];
        (void)snprintf(id, sizeof id, FAKE_QIANFAN_JOB "%d", s);
        answer a = with_task(f, action, id);
        bool allowed = (states >> s & 1) != 0;
        assert_int_equal(a.status, allowed ? 200 : 400);
        assert_string_equal(code_of(&a), allowed ? "" : "OperationNotAllowed");
        assert_int_equal(json_object_size(a.body), allowed ? 1 : 3); /* no result */
        answer_done(&a);
        fake_free(f);
    }
}

static void only_tasks_that_have_not_ended_are_stopped_and_only_ended_ones_deleted(void **state)
{
    (void)state;
    allowed_in("CancelModelCompTask", 1 << QD_JOB_PENDING | 1 << QD_JOB_QUEUING | 1 << QD_JOB_RUNNING);
    allowed_in("StopModelCompTask", 1 << QD_JOB_PENDING | 1 << QD_JOB_QUEUING | 1 << QD_JOB_RUNNING);
    allowed_in("DeleteModelCompTask", 1 << QD_JOB_SUCCEEDED | 1 << QD_JOB_FAILED | 1 << QD_JOB_CANCELED);
}

static void models_say_whether_they_can_be_compressed(void **state)
{
    (void)state;
    static const struct {
        const char *id, *status, *source;
        bool supported;
    } cases[] = {
        {"demo-ft-1", "Ready", "Train", true},
        {"demo-lora", "Ready", "Train", false},
        {"demo-creating", "Creating", "Train", false},
        {"demo-broken", "Fail", "Train", false},
        {"gemma", "Ready", "PlatformPreset", false},
        {"smollm2-" FAKE_QIANFAN_JOB "5", "Ready", "Acceleration", false},
    };
    fake *f = fake_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[128];
        const qd_model *m = NULL;
        for (size_t k = 0; k < f->n_models; k++)
            if (strcmp(f->models[k].id, cases[i].id) == 0) m = &f->models[k];
        assert_non_null(m);
        (void)snprintf(body, sizeof body, "{\"modelId\":\"%s\"}", m->qianfan_id);
        answer a = good(f, &(ask){.target = "DescribeModel", .body = body});
        assert_string_equal(text_at(&a, "result.modelName"), cases[i].id);
        assert_string_equal(text_at(&a, "result.status"), cases[i].status);
        assert_string_equal(text_at(&a, "result.sourceInfo.sourceType"), cases[i].source);
        assert_int_equal(json_is_true(at(a.body, "result.isSupportModelComp")), cases[i].supported);
        bool made = strcmp(cases[i].source, "Acceleration") == 0;
        assert_string_equal(text_at(&a, "result.sourceInfo.modelCompTaskId"), made ? FAKE_QIANFAN_JOB "5" : "");
        answer_done(&a);
    }
    fake_free(f);
}

static void sets_are_shown_by_id_by_name_and_in_pages(void **state)
{
    (void)state;
    fake *f = fake_new();
    char body[128], next[64];
    answer a = good(f, &(ask){.target = "DescribeModelSet", .body = "{\"modelSetName\":\"smollm2\"}"});
    assert_string_equal(text_at(&a, "result.modelSetId"), f->models[0].qianfan_set_id);
    assert_int_equal(json_array_size(at(a.body, "result.modelIds")), 5);
    assert_int_equal(json_array_size(at(a.body, "result.modelNames")), 5);
    assert_string_equal(text_at(&a, "result.source"), "UserCreate");
    assert_int_equal(json_object_size(at(a.body, "result")), 9);
    answer_done(&a);
    (void)snprintf(body, sizeof body, "{\"modelSetId\":\"%s\"}", f->models[6].qianfan_set_id);
    a = good(f, &(ask){.target = "DescribeModelSet", .body = body});
    assert_string_equal(text_at(&a, "result.source"), "System");
    answer_done(&a);
    a = good(f, &(ask){.target = "DescribeCustomModelSets", .body = "{\"maxKeys\":1}"});
    assert_int_equal(json_array_size(at(a.body, "result.modelSetList")),
                     1); /* of smollm2 and qwen3; gemma is no custom one */
    (void)snprintf(next, sizeof next, "%s", text_at(&a, "result.pageInfo.nextMarker"));
    assert_memory_equal(next, "am-", 3);
    answer_done(&a);
    (void)snprintf(body, sizeof body, "{\"marker\":\"%s\"}", next);
    a = good(f, &(ask){.target = "DescribeCustomModelSets", .body = body});
    assert_int_equal(json_array_size(at(a.body, "result.modelSetList")), 1);
    assert_true(json_is_false(at(a.body, "result.pageInfo.isTruncated")));
    assert_null(at(a.body, "result.pageInfo.nextMarker"));
    answer_done(&a);
    fake_free(f);
}

static void a_reply_carries_its_id_and_no_limits(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = good(f, &(ask){.target = "DescribeModelCompTasks"});
    assert_int_equal(a.reply.n_headers, 1); /* X-Ratelimit-Limit-Requests would reset the SDK's own limiter */
    assert_string_equal(a.reply.headers[0].name, "X-Bce-Request-Id");
    answer_done(&a);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_creation_is_answered_with_the_tasks_id),
        cmocka_unit_test(names_need_not_be_unique_and_a_key_makes_a_repeat),
        cmocka_unit_test(each_state_has_its_members),
        cmocka_unit_test(a_list_is_walked_by_markers_both_ways),
        cmocka_unit_test(a_list_is_filtered_by_source_and_cut_at_a_hundred),
        cmocka_unit_test(only_tasks_that_have_not_ended_are_stopped_and_only_ended_ones_deleted),
        cmocka_unit_test(models_say_whether_they_can_be_compressed),
        cmocka_unit_test(sets_are_shown_by_id_by_name_and_in_pages),
        cmocka_unit_test(a_reply_carries_its_id_and_no_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
