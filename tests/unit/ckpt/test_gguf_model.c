/* test_gguf_model.c -- a GGUF file's names, sizes and vocabulary become those of a Hugging Face model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/json.h"
#include "ckpt/gguf_model.h"
#include "ckpt/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct opened {
    qd_source *src;
    qd_gguf gguf;
    qd_gguf_model model;
} opened;

static qd_code open_corpus(const char *name, opened *o, qd_err *err)
{
    char path[512];
    (void)snprintf(path, sizeof path, QD_TEST_SOURCE_DIR "/tests/fuzz/corpus/gguf/%s", name);
    qd_code rc = qd_source_open_file(path, &o->src, err);
    if (rc == QD_OK) rc = qd_gguf_read(o->src, &o->gguf, err);
    return rc == QD_OK ? qd_gguf_model_read(&o->gguf, o->src, &o->model, err) : rc;
}

static void done(opened *o)
{
    qd_gguf_model_done(&o->model);
    qd_gguf_done(&o->gguf);
    qd_source_free(o->src);
    memset(o, 0, sizeof *o);
}

static json_t *parsed(qd_buf *b)
{
    json_t *root = NULL;
    qd_err err = {0};
    assert_false(b->failed);
    if (qd_json_parse(b->data, b->len, "text", &root, &err) != QD_OK) fail_msg("%s", err.msg);
    qd_buf_done(b);
    return root;
}

static void names_are_those_of_transformers(void **state)
{
    (void)state;
    opened o = {0};
    qd_err err = {0};
    if (open_corpus("good_llama", &o, &err) != QD_OK) fail_msg("%s", err.msg);
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
    };
    assert_int_equal(o.model.n_outs, sizeof names / sizeof names[0]);
    for (uint32_t i = 0; i < o.model.n_outs; i++) {
        assert_string_equal(o.model.outs[i].tensor.name, names[i]);
        assert_int_equal(o.model.outs[i].tensor.dtype, QD_BF16);
        assert_int_equal(o.model.outs[i].n_heads, i == 4 || i == 5 ? 2 : 0); /* q and k are interleaved */
    }
    assert_true(o.model.tied);
    assert_string_equal(qd_gguf_model_type(&o.model), "llama");
    done(&o);
}

static void config_says_what_the_metadata_says(void **state)
{
    (void)state;
    opened o = {0};
    qd_err err = {0};
    qd_buf b = {0};
    assert_int_equal(open_corpus("good_rope_yarn", &o, &err), QD_OK);
    qd_gguf_config_json(&o.model, &b);
    json_t *c = parsed(&b), *rope = json_object_get(c, "rope_parameters");
    assert_int_equal(json_integer_value(json_object_get(c, "hidden_size")), 32);
    assert_int_equal(json_integer_value(json_object_get(c, "head_dim")), 16);
    assert_int_equal(json_integer_value(json_object_get(c, "vocab_size")), 104);
    assert_int_equal(json_integer_value(json_object_get(c, "eos_token_id")), 2);
    assert_true(json_is_null(json_object_get(c, "pad_token_id")));
    assert_true(json_is_true(json_object_get(c, "tie_word_embeddings")));
    assert_true(json_real_value(json_object_get(c, "rms_norm_eps")) == 1e-5);
    assert_string_equal(json_string_value(json_object_get(rope, "rope_type")), "yarn");
    assert_true(json_real_value(json_object_get(rope, "factor")) == 4.0);
    assert_true(json_real_value(json_object_get(rope, "rope_theta")) == 10000.0);
    assert_true(json_real_value(json_object_get(c, "rope_theta")) == 10000.0);
    json_decref(c);
    done(&o);
}

static json_t *tokenizer(const char *name)
{
    opened o = {0};
    qd_err err = {0};
    qd_buf b = {0};
    assert_int_equal(open_corpus(name, &o, &err), QD_OK);
    if (qd_gguf_tokenizer_json(&o.gguf, &o.model, &b, &err) != QD_OK) fail_msg("%s", err.msg);
    done(&o);
    return parsed(&b);
}

static void a_sentencepiece_vocabulary_gets_merges_from_its_scores(void **state)
{
    (void)state;
    json_t *t = tokenizer("good_sentencepiece"), *model = json_object_get(t, "model");
    const json_t *merges = json_object_get(model, "merges");
    assert_int_equal(json_array_size(merges), 1);
    assert_string_equal(json_string_value(json_array_get(json_array_get(merges, 0), 0)), "a");
    assert_string_equal(json_string_value(json_array_get(json_array_get(merges, 0), 1)), "b");
    assert_true(json_is_true(json_object_get(model, "byte_fallback")));
    json_decref(t);
}

static void a_byte_level_vocabulary_keeps_its_ids(void **state)
{
    (void)state;
    json_t *t = tokenizer("good_qwen_tokenizer"), *vocab = json_object_get(json_object_get(t, "model"), "vocab");
    assert_int_equal(json_object_size(vocab), 104);
    assert_int_equal(json_integer_value(json_object_get(vocab, "<|im_end|>")), 2);
    assert_string_equal(json_string_value(json_object_get(json_object_get(t, "normalizer"), "type")), "NFC");
    assert_int_equal(json_array_size(json_object_get(t, "added_tokens")), 3);
    json_decref(t);
}

static void what_is_written_is_read_by_our_own_tokenizer(void **state)
{
    (void)state;
    static const char *const files[] = {"good_llama", "good_sentencepiece", "good_qwen_tokenizer"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        opened o = {0};
        qd_err err = {0};
        qd_buf b = {0};
        qd_tokenizer *t = NULL;
        qd_ids ids = {0};
        assert_int_equal(open_corpus(files[i], &o, &err), QD_OK);
        assert_int_equal(qd_gguf_tokenizer_json(&o.gguf, &o.model, &b, &err), QD_OK);
        if (qd_tokenizer_parse(b.data, b.len, files[i], &t, &err) != QD_OK) fail_msg("%s", err.msg);
        assert_int_equal(qd_tokenizer_encode(t, "ab", 2, true, &ids, &err), QD_OK);
        assert_int_equal(ids.data[ids.n - 1], qd_tokenizer_id(t, "ab"));
        assert_int_equal(ids.data[0] == o.model.bos, i > 0); /* the two whose files ask for it */
        qd_ids_done(&ids);
        qd_tokenizer_free(t);
        qd_buf_done(&b);
        done(&o);
    }
}

static void a_failing_allocation_is_told(void **state)
{
    (void)state;
    static const char *const files[] = {"good_llama", "good_sentencepiece"};
    for (size_t k = 0; k < 2; k++) {
        unsigned long n = 1;
        for (qd_code rc = QD_E_INTERNAL; rc != QD_OK; n++) {
            opened o = {0};
            qd_err err = {0};
            qd_buf json = {0}, config = {0};
            qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
            rc = open_corpus(files[k], &o, &err);
            if (rc == QD_OK) rc = qd_gguf_tokenizer_json(&o.gguf, &o.model, &json, &err);
            if (rc == QD_OK) rc = qd_gguf_tokenizer_config_json(&o.gguf, &o.model, &config, &err);
            qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
            if (rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
            qd_buf_done(&json);
            qd_buf_done(&config);
            done(&o);
            assert_true(n < 10000);
        }
        assert_true(n > 10);
    }
}

static void a_model_without_metadata_is_refused_by_key(void **state)
{
    (void)state;
    opened o = {0};
    qd_err err = {0};
    assert_int_equal(open_corpus("good_empty", &o, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "good_empty: \"general.architecture\" is missing (expected a string)"));
    done(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_transformers),
        cmocka_unit_test(config_says_what_the_metadata_says),
        cmocka_unit_test(a_sentencepiece_vocabulary_gets_merges_from_its_scores),
        cmocka_unit_test(a_byte_level_vocabulary_keeps_its_ids),
        cmocka_unit_test(what_is_written_is_read_by_our_own_tokenizer),
        cmocka_unit_test(a_failing_allocation_is_told),
        cmocka_unit_test(a_model_without_metadata_is_refused_by_key),
    };
    qd_json_use_qd_memory();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
