/* test_config.c -- config.json is read where it is right and refused, by key, where it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "ckpt/config.h"

#include <errno.h>
#include <string.h>

static qd_code parse(const char *text, qd_config *c, qd_err *err)
{
    return qd_config_parse(text, strlen(text), "c", c, err);
}

static void a_plain_model_is_read_from_the_root(void **state)
{
    (void)state;
    qd_config c = {0};
    qd_err err = {0};
    assert_int_equal(
        parse("{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\",\"x\"],\"num_hidden_layers\":3,"
              "\"hidden_size\":64,\"vocab_size\":100,\"tie_word_embeddings\":true}",
              &c, &err),
        QD_OK);
    assert_string_equal(c.model_type, "llama");
    assert_string_equal(c.text_model_type, "llama");
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.n_layers, 3);
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.vocab_size, 100);
    assert_true(c.tied_embeddings);
    assert_string_equal(c.quant_method, "");
    assert_int_equal(c.fp8_block_rows, 128);
    assert_int_equal(c.fp8_block_cols, 128);
    assert_non_null(c.root);
    qd_config_done(&c);
    assert_null(c.root);
    qd_config_done(&c); /* twice is harmless */
    qd_config_done(NULL);
}

static void a_wrapper_is_read_from_its_text_config(void **state)
{
    (void)state;
    qd_config c = {0};
    qd_err err = {0};
    assert_int_equal(parse("{\"model_type\":\"qwen3_5_moe\",\"text_config\":{\"model_type\":\"qwen3_5_moe_text\","
                           "\"num_hidden_layers\":4,\"hidden_size\":8,\"vocab_size\":9,\"tie_word_embeddings\":true},"
                           "\"hidden_size\":7}",
                           &c, &err),
                     QD_OK);
    assert_string_equal(c.model_type, "qwen3_5_moe");
    assert_string_equal(c.text_model_type, "qwen3_5_moe_text");
    assert_int_equal(c.n_layers, 4);
    assert_int_equal(c.hidden_size, 8);
    assert_int_equal(c.vocab_size, 9);
    assert_true(c.tied_embeddings);
    assert_string_equal(c.architecture, "");
    qd_config_done(&c);
}

static void the_roots_word_on_tied_embeddings_counts(void **state)
{
    (void)state;
    qd_config c = {0};
    qd_err err = {0};
    assert_int_equal(parse("{\"text_config\":{\"tie_word_embeddings\":true},\"tie_word_embeddings\":false}", &c, &err),
                     QD_OK);
    assert_false(c.tied_embeddings);
    qd_config_done(&c);
}

static void an_empty_config_and_nulls_give_the_defaults(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        ("{\"model_type\":null,\"architectures\":null,\"text_config\":null,\"num_hidden_layers\":null,"
         "\"tie_word_embeddings\":null,\"quantization_config\":null}"),
        "{\"architectures\":[]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        qd_config c = {0};
        qd_err err = {0};
        assert_int_equal(parse(texts[i], &c, &err), QD_OK);
        assert_string_equal(c.model_type, "");
        assert_string_equal(c.text_model_type, "");
        assert_string_equal(c.architecture, "");
        assert_int_equal(c.n_layers, 0);
        assert_false(c.tied_embeddings);
        assert_string_equal(c.quant_method, "");
        qd_config_done(&c);
    }
}

static void a_quantized_source_says_how(void **state)
{
    (void)state;
    static const struct {
        const char *text, *method;
        uint64_t rows, cols;
    } cases[] = {
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[64,256]}}", "fp8", 64, 256},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":null}}", "fp8", 128, 128},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"weight_block_size\":\"any\"}}", "gptq", 128, 128},
        {"{\"quantization_config\":{}}", "unnamed", 128, 128},
        {"{\"quantization_config\":{\"quant_method\":\"\"}}", "unnamed", 128, 128},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qd_config c = {0};
        qd_err err = {0};
        assert_int_equal(parse(cases[i].text, &c, &err), QD_OK);
        assert_string_equal(c.quant_method, cases[i].method);
        assert_int_equal(c.fp8_block_rows, cases[i].rows);
        assert_int_equal(c.fp8_block_cols, cases[i].cols);
        qd_config_done(&c);
    }
}

static void a_wrong_type_is_refused_by_its_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"[]", "c: expected an object, found array"},
        {"{\"model_type\":3}", "c: \"model_type\": expected a string, found integer"},
        {"{\"architectures\":\"x\"}", "c: \"architectures\": expected an array, found string"},
        {"{\"architectures\":[\"x\",{}]}", "c: \"architectures\"[1]: expected a string, found object"},
        {"{\"text_config\":[]}", "c: \"text_config\": expected an object, found array"},
        {"{\"text_config\":{\"model_type\":[]}}", "c: text_config: \"model_type\": expected a string, found array"},
        {"{\"num_hidden_layers\":\"3\"}", "c: \"num_hidden_layers\": expected a whole number, found string"},
        {"{\"num_hidden_layers\":3.0}", "c: \"num_hidden_layers\": expected a whole number, found number"},
        {"{\"num_hidden_layers\":-1}", "c: \"num_hidden_layers\": expected 0 to 1048576, found -1"},
        {"{\"text_config\":{\"num_hidden_layers\":1048577}}",
         "c: text_config: \"num_hidden_layers\": expected 0 to 1048576, found 1048577"},
        {"{\"hidden_size\":{}}", "c: \"hidden_size\": expected a whole number, found object"},
        {"{\"vocab_size\":true}", "c: \"vocab_size\": expected a whole number, found boolean"},
        {"{\"tie_word_embeddings\":1}", "c: \"tie_word_embeddings\": expected true or false, found integer"},
        {"{\"quantization_config\":\"fp8\"}", "c: \"quantization_config\": expected an object, found string"},
        {"{\"quantization_config\":{\"quant_method\":8}}",
         "c: quantization_config: \"quant_method\": expected a string, found integer"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":128}}",
         "c: quantization_config: \"weight_block_size\": expected an array, found integer"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}}",
         "c: quantization_config: \"weight_block_size\": expected 2 numbers, found 1"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,\"1\"]}}",
         "c: quantization_config: \"weight_block_size\"[1]: expected a whole number, found string"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,1]}}",
         "c: quantization_config: \"weight_block_size\"[0]: expected 1 to 1048576, found 0"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qd_config c = {.n_layers = 77};
        qd_err err = {0};
        assert_int_equal(parse(bad[i].text, &c, &err), QD_E_INPUT);
        assert_string_equal(err.msg, bad[i].sentence);
        assert_int_equal(c.n_layers, 77);
    }
}

static void what_is_not_json_or_says_a_key_twice_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "{", "{\"a\":1}x", "\xff\xfe{}", "{\"a\":1,\"a\":1}", "{'a':1}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        qd_config c = {.n_layers = 77};
        qd_err err = {0};
        assert_int_equal(parse(texts[i], &c, &err), QD_E_INPUT);
        assert_non_null(strstr(err.msg, "c: not valid JSON at line "));
        assert_int_equal(c.n_layers, 77);
    }
}

static void each_failing_allocation_is_out_of_memory(void **state)
{
    (void)state;
    qd_code rc = QD_E_NO_MEMORY;
    for (unsigned long n = 1; rc != QD_OK; n++) {
        qd_config c = {0};
        qd_err err = {0};
        assert_true(n < 1000);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = parse("{\"model_type\":\"llama\",\"architectures\":[\"x\"],\"text_config\":{\"num_hidden_layers\":3}}", &c,
                   &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (n == 1) assert_int_not_equal(rc, QD_OK);
        if (rc != QD_OK && rc != QD_E_NO_MEMORY) fail_msg("allocation %lu: %s", n, err.msg);
        qd_config_done(&c);
    }
}

int main(void)
{
    qd_json_use_qd_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_model_is_read_from_the_root),
        cmocka_unit_test(a_wrapper_is_read_from_its_text_config),
        cmocka_unit_test(the_roots_word_on_tied_embeddings_counts),
        cmocka_unit_test(an_empty_config_and_nulls_give_the_defaults),
        cmocka_unit_test(a_quantized_source_says_how),
        cmocka_unit_test(a_wrong_type_is_refused_by_its_key),
        cmocka_unit_test(what_is_not_json_or_says_a_key_twice_is_refused),
        cmocka_unit_test(each_failing_allocation_is_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
