/* test_template.c -- templates parse as a whole or are refused with the key that is wrong; they are found by id and by
 * path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/mem.h"
#include "catalog/template.h"
#include "tests/unit/ckpt/scratch.h"

#include <math.h>

#define PARAM                                                                                                            \
    "{\"name\": \"p\", \"label\": {\"zh\": \"甲\", \"en\": \"P\"}, \"description\": {\"zh\": \"乙\", \"en\": \"Q\"}, " \
    "\"type\": \"int\", \"default\": 4, \"min\": 0, \"max\": 8, \"step\": 2}"
#define TEMPLATE                                                                                                      \
    "{\"id\": \"t\", \"name\": {\"zh\": \"名\", \"en\": \"N\"}, \"description\": {\"zh\": \"述\", \"en\": \"D\"}, " \
    "\"base_models\": [\"*\"], \"scheme\": \"nvfp4\", \"activations\": \"none\", \"scope\": \"linears\"}"

/* The object of text with patch laid over it; a null in patch removes the key. */
static json_t *patched(const char *text, const char *patch)
{
    json_t *o = json_loads(text, 0, NULL), *p = json_loads(patch, 0, NULL), *v;
    const char *key;
    assert_non_null(o);
    if (p == NULL) fail_msg("not JSON: %s", patch);
    json_object_foreach(p, key, v)
    {
        if (json_is_null(v))
            (void)json_object_del(o, key);
        else
            assert_int_equal(json_object_set(o, key, v), 0);
    }
    json_decref(p);
    return o;
}

/* Parses TEMPLATE with patch, and with the one parameter PARAM and param_patch when that is given. */
static qd_code parse(const char *patch, const char *param_patch, qd_template *ret, qd_err *err)
{
    json_t *o = patched(TEMPLATE, patch);
    if (param_patch != NULL) {
        json_t *list = json_array();
        assert_int_equal(json_array_append_new(list, patched(PARAM, param_patch)), 0);
        assert_int_equal(json_object_set_new(o, "hyper_parameters", list), 0);
    }
    char *text = json_dumps(o, 0);
    assert_non_null(text);
    json_decref(o);
    qd_code rc = qd_template_parse(text, strlen(text), "x.json", ret, err);
    qd_free(text);
    return rc;
}

static void a_template_and_its_defaults_are_read(void **state)
{
    (void)state;
    qd_template t = {0};
    qd_err err = {0};
    assert_int_equal(parse("{\"exclude\": [\"*.k_proj\"], \"mtp\": \"copy\"}", "{}", &t, &err), QD_OK);
    assert_string_equal(t.id, "t");
    assert_string_equal(t.name.zh, "名");
    assert_string_equal(t.description.en, "D");
    assert_string_equal(t.scheme, "nvfp4");
    assert_false(t.input_scales);
    assert_int_equal(t.scope, QD_SCOPE_LINEARS);
    assert_int_equal(t.n_base_models, 1);
    assert_string_equal(t.exclude[0], "*.k_proj");
    assert_int_equal(t.n_params, 1);
    const qd_param *p = &t.params[0];
    assert_string_equal(p->name, "p");
    assert_string_equal(p->label.zh, "甲");
    assert_int_equal(p->type, QD_PARAM_INT);
    assert_true(p->min <= 0.0 && p->min >= 0.0 && p->max <= 8.0 && p->max >= 8.0 && p->step >= 2.0);
    assert_string_equal(p->dflt, "4");
    assert_true(p->visible);
    qd_template_done(&t);
    assert_null(t.params);
    assert_int_equal(parse("{\"activations\": \"nvfp4\", \"scope\": \"experts\"}",
                           "{\"type\": \"number\", \"min\": null, \"max\": null, \"step\": null, \"default\": 0.1, "
                           "\"visible\": false}",
                           &t, &err),
                     QD_OK);
    assert_true(t.input_scales);
    assert_int_equal(t.scope, QD_SCOPE_EXPERTS);
    assert_int_equal(t.n_exclude, 0);
    assert_string_equal(t.params[0].dflt, "0.1");
    assert_true(isinf(t.params[0].min) && isinf(t.params[0].max));
    assert_false(t.params[0].visible);
    qd_template_done(&t);
    qd_template_done(&t);
    qd_template_done(NULL);
}

static void refuse(const char *patch, const char *param_patch, const char *words)
{
    qd_template t = {.n_params = 77};
    qd_err err = {0};
    qd_code rc = parse(patch, param_patch, &t, &err);
    if (rc != QD_E_CONFIG || err.code != QD_E_CONFIG)
        fail_msg("%s: found code %s (%s)", words, qd_code_name(rc), err.msg);
    if (strncmp(err.msg, "x.json: ", 8) != 0 || strstr(err.msg, words) == NULL)
        fail_msg("expected \"%s\" in \"%s\"", words, err.msg);
    assert_int_equal(t.n_params, 77);
}

static void what_is_not_a_template_is_refused_with_its_key(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{\"colour\": 1}", "found \"colour\""},
        {"{\"id\": null}", "\"id\" is missing"},
        {"{\"id\": 7}", "\"id\": expected a string, found integer"},
        {"{\"id\": \"\"}", "\"id\": expected a text, found an empty one"},
        {"{\"id\": \"../x\"}", "\"id\": expected at most 64 of a-z"},
        {"{\"id\": \".x\"}", "found \".x\""},
        {"{\"name\": \"N\"}", "name: expected an object, found string"},
        {"{\"name\": {\"zh\": \"名\"}}", "name: \"en\" is missing"},
        {"{\"name\": {\"zh\": \"名\", \"en\": \"N\", \"fr\": \"M\"}}", "name: expected keys zh, en, found \"fr\""},
        {"{\"description\": null}", "description: expected an object, found nothing"},
        {"{\"base_models\": []}", "\"base_models\": expected at least one glob"},
        {"{\"base_models\": null}", "\"base_models\": expected at least one glob"},
        {"{\"base_models\": [1]}", "\"base_models\"[0]: expected a text that is not empty, found integer"},
        {"{\"base_models\": [\"a\", \"\"]}",
         "\"base_models\"[1]: expected a text that is not empty, found an empty one"},
        {"{\"scheme\": \"int4\"}", "\"scheme\": expected \"nvfp4\", found \"int4\""},
        {"{\"activations\": \"fp8\"}", "\"activations\": expected one of \"none\", \"nvfp4\", found \"fp8\""},
        {"{\"scope\": \"all\"}", "\"scope\": expected one of \"linears\", \"mlp\", \"experts\", found \"all\""},
        {"{\"exclude\": \"x\"}", "\"exclude\": expected an array, found string"},
        {"{\"exclude\": [\"x\", \"x\"]}", "found \"x\" twice"},
        {"{\"mtp\": \"drop\"}", "\"mtp\": expected \"copy\", found \"drop\""},
        {"{\"hyper_parameters\": {}}", "\"hyper_parameters\": expected an array, found object"},
        {"{\"hyper_parameters\": [1]}", "hyper_parameters[0]: expected an object, found integer"},
        {"{\"hyper_parameters\": [" PARAM ", " PARAM "]}",
         "hyper_parameters[1]: \"name\": expected different names, found p twice"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) refuse(rows[i][0], NULL, rows[i][1]);
}

static void what_is_not_a_parameter_is_refused_with_its_key(void **state)
{
    (void)state;
#define ENUM "\"type\": \"enum\", \"min\": null, \"max\": null, \"step\": null, "
    static const char *const rows[][2] = {
        {"{\"unit\": 1}", "hyper_parameters[0]: expected keys name, label, description, type, default"},
        {"{\"name\": \"A b\"}", "\"name\": expected at most 64 of a-z, 0-9 and '_', found \"A b\""},
        {"{\"label\": null}", "label: expected an object, found nothing"},
        {"{\"type\": \"float\"}",
         "\"type\": expected one of \"int\", \"number\", \"bool\", \"enum\", \"string\", found \"float\""},
        {"{\"default\": null}", "\"default\": expected a value of type \"int\", found nothing"},
        {"{\"default\": \"4\"}", "\"default\": expected a value of type \"int\", found string"},
        {"{\"default\": 4.0}", "\"default\": expected a value of type \"int\", found number"},
        {"{\"default\": 9}",
         "\"default\": parameter p: expected a whole number from 0 to 8 in steps of 2, found \"9\""},
        {"{\"default\": 3}", "expected a whole number from 0 to 8 in steps of 2, found \"3\""},
        {"{\"min\": 0.5}", "\"min\": expected a whole number, found 0.5"},
        {"{\"max\": \"8\"}", "\"max\": expected a number, found string"},
        {"{\"min\": 9}", "\"min\": expected at most \"max\" (8), found 9"},
        {"{\"step\": 0}", "\"step\": expected more than 0, found 0"},
        {"{\"step\": -2}", "\"step\": expected more than 0, found -2"},
        {"{\"choices\": [\"a\"]}", "\"choices\": expected none for type \"int\", found 1"},
        {"{\"visible\": 1}", "\"visible\": expected true or false, found integer"},
        {"{\"type\": \"enum\"}", "\"min\": expected none for type \"enum\", found one"},
        {"{" ENUM "\"default\": \"a\"}", "\"choices\": expected some for type \"enum\", found 0"},
        {"{" ENUM "\"choices\": [\"a\", \"b\"], \"default\": \"c\"}", "expected one of a, b, found \"c\""},
        {"{" ENUM "\"choices\": [\"a\", \"a\"], \"default\": \"a\"}", "found \"a\" twice"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) refuse("{}", rows[i][0], rows[i][1]);
}

static void text_that_is_not_json_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "{", "[]", "7", "{\"id\": \"t\", \"id\": \"t\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        qd_template t = {0};
        qd_err err = {0};
        assert_int_equal(qd_template_parse(texts[i], strlen(texts[i]), "x.json", &t, &err), QD_E_CONFIG);
        assert_non_null(strstr(err.msg, "x.json"));
    }
}

static void templates_are_found_by_id_and_by_path(void **state)
{
    scratch *s = *state;
    qd_template t = {0};
    qd_err err = {0};
    char dirs[1024];
    put_text(s, "t.json", TEMPLATE);
    (void)snprintf(dirs, sizeof dirs, ":%s/absent:%s:", s->dir, s->dir);
    assert_int_equal(qd_template_load(dirs, "t", &t, &err), QD_OK);
    assert_string_equal(t.id, "t");
    qd_template_done(&t);
    assert_int_equal(qd_template_load("", at(s, "t.json"), &t, &err), QD_OK);
    qd_template_done(&t);
    put_text(s, "u.json", TEMPLATE); /* id t */
    assert_int_equal(qd_template_load(dirs, "u", &t, &err), QD_E_CONFIG);
    assert_non_null(strstr(err.msg, "u.json: \"id\": expected \"u\" as the file is named, found \"t\""));
    assert_int_equal(qd_template_load(dirs, "none", &t, &err), QD_E_INPUT);
    assert_string_equal(err.msg, "unknown template \"none\" (known: t, u)");
    assert_int_equal(qd_template_load(dirs, "..", &t, &err), QD_E_INPUT);
    assert_int_equal(qd_template_load(dirs, "", &t, &err), QD_E_INPUT);
    assert_int_equal(qd_template_load(dirs, at(s, "absent.json"), &t, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "absent.json"));
    assert_int_equal(qd_template_load(at(s, "absent"), "t", &t, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "unknown template \"t\" (none found in "));
}

static void a_list_is_sorted_and_names_what_is_broken(void **state)
{
    scratch *s = *state;
    qd_arena arena = {0};
    const char **ids = NULL;
    uint32_t n = 77;
    qd_err err = {0};
    char dirs[1024], text[2048];
    assert_int_equal(mkdir(at(s, "a"), 0700), 0);
    for (const char *id = "tcb"; *id != '\0'; id++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%c.json", *id);
        strcpy(text, TEMPLATE);
        *(strstr(text, "\"t\"") + 1) = *id;
        put_text(s, name, text);
        (void)snprintf(name, sizeof name, "a/%c.json", *id);
        if (*id == 'c') put_text(s, name, text);
    }
    put_text(s, ".hidden.json", "{");
    put_text(s, "notes.txt", "{");
    (void)snprintf(dirs, sizeof dirs, "%s:%s", at(s, "a"), s->dir);
    if (qd_template_list(dirs, &arena, &ids, &n, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_int_equal(n, 3);
    assert_string_equal(ids[0], "b");
    assert_string_equal(ids[1], "c");
    assert_string_equal(ids[2], "t");
    put_text(s, "d.json", "{");
    assert_int_equal(qd_template_list(dirs, &arena, &ids, &n, &err), QD_E_CONFIG);
    assert_non_null(strstr(err.msg, "d.json"));
    assert_int_equal(n, 3);
    assert_int_equal(qd_template_list("", &arena, &ids, &n, &err), QD_OK);
    assert_int_equal(n, 0);
    qd_arena_done(&arena);
}

static void the_shipped_templates_are_what_they_are_called(void **state)
{
    (void)state;
    static const char dirs[] = QD_TEST_SOURCE_DIR "/deploy/templates";
    static const struct {
        const char *id;
        bool input_scales, visible;
        qd_scope scope;
        const char *method, *block_scale, *smoothing;
    } rows[] = {{"nvfp4-w4a16", false, true, QD_SCOPE_LINEARS, "rtn", "mse", "none"},
                {"nvfp4-w4a4", true, true, QD_SCOPE_LINEARS, "gptq", "hessian", "balanced"},
                {"nvfp4-w4a4-fast", true, true, QD_SCOPE_LINEARS, "rtn", "hessian", "balanced"},
                {"quant-flash-nvfp4-mlp-nomtp", true, false, QD_SCOPE_MLP, "gptq", "hessian", "balanced"}};
    qd_arena arena = {0};
    const char **ids = NULL;
    uint32_t n = 0;
    qd_err err = {0};
    if (qd_template_list(dirs, &arena, &ids, &n, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_int_equal(n, sizeof rows / sizeof rows[0]);
    for (uint32_t i = 0; i < n; i++) {
        qd_template t = {0};
        qd_values v = {0};
        assert_string_equal(ids[i], rows[i].id);
        assert_int_equal(qd_template_load(dirs, ids[i], &t, &err), QD_OK);
        assert_int_equal(t.input_scales, rows[i].input_scales);
        assert_int_equal(t.scope, rows[i].scope);
        assert_true((unsigned char)t.name.zh[0] > 0x7f || strstr(t.name.zh, "量化") != NULL);
        assert_int_equal(qd_values_resolve(&t, NULL, 0, &arena, &v, &err), QD_OK);
        assert_string_equal(qd_values_get(&v, "method"), rows[i].method);
        assert_string_equal(qd_values_get(&v, "block_scale"), rows[i].block_scale);
        assert_string_equal(qd_values_get(&v, "smoothing"), rows[i].smoothing);
        assert_string_equal(qd_values_get(&v, "scale_arithmetic"), "fp32");
        assert_int_equal(t.n_params, rows[i].input_scales ? 13 : 10);
        for (uint32_t k = 0; k < t.n_params; k++)
            assert_int_equal(t.params[k].visible, rows[i].visible && strcmp(t.params[k].name, "input_scale") != 0);
        qd_template_done(&t);
    }
    qd_arena_done(&arena);
}

static void each_failing_allocation_is_out_of_memory(void **state)
{
    scratch *s = *state;
    unsigned long n = 0;
    char text[4096];
    (void)snprintf(text, sizeof text, "%.*s, \"hyper_parameters\": [" PARAM "]}", (int)strlen(TEMPLATE) - 1, TEMPLATE);
    put_text(s, "t.json", text);
    for (qd_code rc = QD_E_NO_MEMORY; rc != QD_OK;) {
        qd_template t = {0};
        qd_arena arena = {0};
        qd_err err = {0};
        const char **ids = NULL;
        uint32_t n_ids = 0;
        qd_fault_arm(QD_FAULT_ALLOC, ++n, 12);
        rc = qd_template_list(s->dir, &arena, &ids, &n_ids, &err);
        if (rc == QD_OK) rc = qd_template_load(s->dir, "t", &t, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (rc != QD_OK && rc != QD_E_NO_MEMORY) fail_msg("allocation %lu: %s", n, err.msg);
        if (rc != QD_OK) assert_null(t.id);
        qd_template_done(&t);
        qd_arena_done(&arena);
        assert_true(n < 10000);
    }
    assert_true(n > 20);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)

int main(void)
{
    qd_json_use_qd_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_template_and_its_defaults_are_read),
        cmocka_unit_test(what_is_not_a_template_is_refused_with_its_key),
        cmocka_unit_test(what_is_not_a_parameter_is_refused_with_its_key),
        cmocka_unit_test(text_that_is_not_json_is_refused),
        TEST(templates_are_found_by_id_and_by_path),
        TEST(a_list_is_sorted_and_names_what_is_broken),
        cmocka_unit_test(the_shipped_templates_are_what_they_are_called),
        TEST(each_failing_allocation_is_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
