/* test_format.c -- both formats name, type and describe their parts as their readers expect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "quant/format.h"

#include <dirent.h>
#include <fnmatch.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFIG_BYTES_MAX = 1 << 20,
    IGNORED_MAX = 256
};

static const char *const ignored[] = {"lm_head", "model.layers.0.mlp.gate"};
static const char *const globs[] = {"*linear_attn.in_proj_a*", "mtp.*", "*.gate", "layer?.(x)"};

static qd_format_info some_info(bool input_scales)
{
    return (qd_format_info){.ignored = ignored,
                            .n_ignored = 2,
                            .ignored_patterns = globs,
                            .n_ignored_patterns = 4,
                            .input_scales = input_scales};
}

static void formats_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(qd_format_find("compressed-tensors"), &qd_format_compressed_tensors);
    assert_ptr_equal(qd_format_find("modelopt"), &qd_format_modelopt);
    assert_null(qd_format_find("gguf"));
    assert_null(qd_format_find(""));
}

static void check_part(const qd_format *f, qd_part_kind kind, const char *suffix, qd_dtype dtype, uint32_t rank)
{
    for (uint32_t i = 0; i < f->n_parts; i++) {
        if (f->parts[i].kind != kind) continue;
        assert_string_equal(f->parts[i].suffix, suffix);
        assert_int_equal(f->parts[i].dtype, dtype);
        assert_int_equal(f->parts[i].rank, rank);
        return;
    }
    fail_msg("%s has no part %s", f->name, suffix);
}

static void parts_have_the_names_types_and_ranks_that_readers_take(void **state)
{
    (void)state;
    const qd_format *ct = &qd_format_compressed_tensors, *mo = &qd_format_modelopt;
    check_part(ct, QD_PART_CODES, ".weight_packed", QD_U8, 2);
    check_part(ct, QD_PART_SCALES, ".weight_scale", QD_F8_E4M3, 2);
    check_part(ct, QD_PART_GLOBAL, ".weight_global_scale", QD_F32, 1);
    check_part(ct, QD_PART_INPUT_SCALE, ".input_global_scale", QD_F32, 1);
    check_part(mo, QD_PART_CODES, ".weight", QD_U8, 2);
    check_part(mo, QD_PART_SCALES, ".weight_scale", QD_F8_E4M3, 2);
    check_part(mo, QD_PART_GLOBAL, ".weight_scale_2", QD_F32, 0);
    check_part(mo, QD_PART_INPUT_SCALE, ".input_scale", QD_F32, 0);
    assert_int_equal(ct->n_parts, 4);
    assert_int_equal(mo->n_parts, 4);
    assert_null(ct->extra_file);
    assert_string_equal(mo->extra_file, "hf_quant_config.json");
}

static void a_divisor_stays_one_or_becomes_a_multiplier(void **state)
{
    (void)state;
    static const float values[] = {1.0f, 2688.0f, 3.7f, 1e-30f, 1e30f, 9.0e-36f};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        float gs = values[i], v = qd_format_compressed_tensors.global_value(gs);
        assert_memory_equal(&v, &gs, sizeof v);
        v = qd_format_compressed_tensors.global_from_value(gs);
        assert_memory_equal(&v, &gs, sizeof v);
        float m = 1.0f / gs;
        v = qd_format_modelopt.global_value(gs);
        assert_memory_equal(&v, &m, sizeof v);
        v = qd_format_modelopt.global_from_value(m) / gs;
        assert_true(v > 0.9999998f && v < 1.0000003f);
    }
}

static json_t *config_of(const qd_format *f, const qd_format_info *info)
{
    json_t *v = NULL;
    qd_err err = {0};
    if (f->config(info, &v, &err) != QD_OK) fail_msg("%s", err.msg);
    return v;
}

static void expect_json(json_t *found, const char *text)
{
    json_t *expected = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(expected);
    if (!json_equal(found, expected)) {
        char *s = json_dumps(found, JSON_SORT_KEYS);
        fail_msg("expected %s, found %s", text, s);
    }
    json_decref(expected);
    json_decref(found);
}

static void modelopt_configs_are_complete(void **state)
{
    (void)state;
#define NAMES \
    "[\"lm_head\", \"model.layers.0.mlp.gate\", \"*linear_attn.in_proj_a*\", \"mtp.*\", \"*.gate\", \"layer?.(x)\"]"
#define FOUR     "{\"dynamic\": false, \"num_bits\": 4, \"type\": \"float\", \"group_size\": 16}"
#define PRODUCER "\"producer\": {\"name\": \"modelopt\", \"version\": \"quantd " QD_VERSION "\"}"
    qd_format_info weights = some_info(false), both = some_info(true);
    json_t *v = NULL;
    expect_json(config_of(&qd_format_modelopt, &weights),
                "{\"quant_method\": \"modelopt\", \"quant_algo\": \"W4A16_NVFP4\", \"ignore\": " NAMES
                ", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": " FOUR "}}, " PRODUCER
                "}");
    expect_json(config_of(&qd_format_modelopt, &both),
                "{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\", \"ignore\": " NAMES
                ", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": " FOUR
                ", \"input_activations\": " FOUR "}}, " PRODUCER "}");
    assert_int_equal(qd_format_modelopt.extra(&both, &v, NULL), QD_OK);
    expect_json(v, "{" PRODUCER ", \"quantization\": {\"quant_algo\": \"NVFP4\", \"kv_cache_quant_algo\": null, "
                   "\"group_size\": 16, \"exclude_modules\": " NAMES "}}");
    assert_int_equal(qd_format_modelopt.extra(&weights, &v, NULL), QD_OK);
    expect_json(v, "{" PRODUCER ", \"quantization\": {\"quant_algo\": \"W4A16_NVFP4\", \"kv_cache_quant_algo\": null, "
                   "\"group_size\": 16, \"exclude_modules\": " NAMES "}}");
    assert_int_not_equal(qd_format_compressed_tensors.extra(&both, &v, NULL), QD_OK);
    both.kv_cache = true;
    json_t *with = config_of(&qd_format_modelopt, &both);
    expect_json(json_incref(json_object_get(with, "kv_cache_scheme")),
                "{\"dynamic\": false, \"num_bits\": 8, \"type\": \"float\"}");
    json_decref(with);
    assert_int_equal(qd_format_modelopt.extra(&both, &v, NULL), QD_OK);
    expect_json(json_incref(json_object_get(json_object_get(v, "quantization"), "kv_cache_quant_algo")), "\"FP8\"");
    json_decref(v);
}

static void scales_of_the_cache_are_what_a_step_is_worth(void **state)
{
    (void)state;
    const qd_format *ct = &qd_format_compressed_tensors, *mo = &qd_format_modelopt;
    assert_true(ct->kv_value(896.0f) == 2.0f && mo->kv_value(896.0f) == 2.0f);
    assert_true(ct->kv_value(4.48f) == 4.48f / 448.0f);
    assert_true(mo->kv_value(4.48f) == 1.0f); /* as ModelOpt's exporter: never less */
    assert_true(ct->kv_value(0.0f) == 1.0f && mo->kv_value(0.0f) == 1.0f);
}

/* Readers bind an expression at the beginning only; it must still take what the glob takes, and nothing else. */
static void expressions_take_what_their_globs_take(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.0.mlp.gate",
                                        "model.layers.0.mlp.gate_proj",
                                        "mtp.fc",
                                        "mtp",
                                        "mtpx.fc",
                                        "model.mtp.fc",
                                        "a.linear_attn.in_proj_a",
                                        "a.linear_attn.in_proj_ba",
                                        "linear_attnXin_proj_a",
                                        "layer1.(x)",
                                        "layer12.(x)",
                                        "layer1.x",
                                        "gate"};
    qd_format_info info = some_info(false);
    json_t *c = config_of(&qd_format_compressed_tensors, &info);
    const json_t *list = json_object_get(c, "ignore");
    assert_int_equal(json_array_size(list), 6);
    assert_string_equal(json_string_value(json_array_get(list, 1)), "model.layers.0.mlp.gate");
    assert_string_equal(json_string_value(json_array_get(list, 2)), "re:.*linear_attn\\.in_proj_a.*$");
    for (size_t g = 0; g < 4; g++) {
        const char *re = json_string_value(json_array_get(list, 2 + g));
        char bound[128];
        regex_t compiled;
        assert_int_equal(strncmp(re, "re:", 3), 0);
        (void)snprintf(bound, sizeof bound, "^%s", re + 3);
        assert_int_equal(regcomp(&compiled, bound, REG_EXTENDED | REG_NOSUB), 0);
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            if ((fnmatch(globs[g], names[i], 0) == 0) != (regexec(&compiled, names[i], 0, NULL, 0) == 0))
                fail_msg("%s and %s differ on %s", globs[g], re, names[i]);
        regfree(&compiled);
    }
    json_decref(c);
}

/* The reference's config, with our null for the observer of the weights, which names a class of the reference's tool.
 */
static json_t *reference_config(const json_t *root)
{
    json_t *q = json_deep_copy(json_object_get(root, "quantization_config"));
    json_t *group = json_object_get(json_object_get(q, "config_groups"), "group_0");
    assert_true(json_is_string(json_object_get(json_object_get(group, "weights"), "observer")));
    assert_int_equal(json_object_set_new(json_object_get(group, "weights"), "observer", json_null()), 0);
    return q;
}

static void compare_with_reference(const char *path)
{
    const char *names[IGNORED_MAX];
    json_t *root = NULL;
    qd_err err = {0};
    if (qd_json_load(path, CONFIG_BYTES_MAX, &root, &err) != QD_OK) fail_msg("%s", err.msg);
    json_t *expected = reference_config(root);
    const json_t *list = json_object_get(expected, "ignore");
    qd_format_info info = {.ignored = names, .n_ignored = (uint32_t)json_array_size(list), .input_scales = true};
    assert_in_range(info.n_ignored, 1, IGNORED_MAX);
    for (uint32_t i = 0; i < info.n_ignored; i++) names[i] = json_string_value(json_array_get(list, i));
    json_t *found = config_of(&qd_format_compressed_tensors, &info);
    if (!json_equal(found, expected)) fail_msg("%s: found %s", path, json_dumps(found, JSON_SORT_KEYS));
    json_decref(found);
    /* Weights only: the same but for the inputs. */
    json_t *group = json_object_get(json_object_get(expected, "config_groups"), "group_0");
    assert_int_equal(json_object_set_new(group, "input_activations", json_null()), 0);
    info.input_scales = false;
    found = config_of(&qd_format_compressed_tensors, &info);
    if (!json_equal(found, expected)) fail_msg("%s: found %s", path, json_dumps(found, JSON_SORT_KEYS));
    json_decref(found);
    json_decref(expected);
    json_decref(root);
}

static void the_config_is_that_of_llm_compressor(void **state)
{
    (void)state;
    unsigned n = 0;
    DIR *d = opendir(QD_TEST_SHARED_DIR "/fixtures");
    if (d == NULL) {
        print_message("skipped: no reference data here\n");
        skip();
    }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[4200];
        (void)snprintf(path, sizeof path, "%s/fixtures/%s/ct-rtn.config.json", QD_TEST_SHARED_DIR, e->d_name);
        if (e->d_name[0] == '.' || !qd_path_exists(path)) continue;
        compare_with_reference(path);
        n++;
    }
    (void)closedir(d);
    assert_true(n > 0);
}

typedef qd_code (*maker)(const qd_format_info *info, json_t **ret, qd_err *err);

static void each_failing_allocation_is_out_of_memory(void **state)
{
    (void)state;
    const maker makers[] = {qd_format_compressed_tensors.config, qd_format_modelopt.config, qd_format_modelopt.extra};
    qd_format_info info = some_info(true);
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        unsigned long n = 0;
        for (qd_code rc = QD_E_NO_MEMORY; rc != QD_OK;) {
            json_t *v = (json_t *)(void *)&info;
            qd_err err = {0};
            qd_fault_arm(QD_FAULT_ALLOC, ++n, 12);
            rc = makers[i](&info, &v, &err);
            qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
            if (rc == QD_OK) {
                json_decref(v);
                break;
            }
            assert_int_equal(rc, QD_E_NO_MEMORY);
            assert_ptr_equal(v, &info);
            assert_true(n < 10000);
        }
        assert_true(n > 20);
    }
}

int main(void)
{
    qd_json_use_qd_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_found_by_name),
        cmocka_unit_test(parts_have_the_names_types_and_ranks_that_readers_take),
        cmocka_unit_test(a_divisor_stays_one_or_becomes_a_multiplier),
        cmocka_unit_test(modelopt_configs_are_complete),
        cmocka_unit_test(scales_of_the_cache_are_what_a_step_is_worth),
        cmocka_unit_test(expressions_take_what_their_globs_take),
        cmocka_unit_test(the_config_is_that_of_llm_compressor),
        cmocka_unit_test(each_failing_allocation_is_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
