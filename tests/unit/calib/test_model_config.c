/* test_model_config.c -- config.json of every architecture as transformers reads it; what cannot be is refused by key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "calib/model_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SIZES                                                                                  \
    "\"hidden_size\":64,\"num_hidden_layers\":4,\"vocab_size\":100,\"num_attention_heads\":4," \
    "\"num_key_value_heads\":2,\"intermediate_size\":96"
#define EXPERTS "\"num_experts\":6,\"num_experts_per_tok\":2,\"moe_intermediate_size\":32"

typedef struct fix {
    qd_config c;
    qd_arena arena;
    qd_model_config m;
    qd_err err;
} fix;

static int setup(void **state)
{
    static fix f;
    memset(&f, 0, sizeof f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fix *f = *state;
    qd_config_done(&f->c);
    qd_arena_done(&f->arena);
    return 0;
}

static qd_code read_text(fix *f, const char *text)
{
    qd_config_done(&f->c);
    assert_int_equal(qd_config_parse(text, strlen(text), "c", &f->c, &f->err), QD_OK);
    return qd_model_config_read(&f->c, "c", &f->arena, &f->m, &f->err);
}

static void accepts(fix *f, const char *text)
{
    if (read_text(f, text) != QD_OK) fail_msg("%s: %s", text, f->err.msg);
}

static void a_llama_has_the_defaults_of_transformers(void **state)
{
    fix *f = *state;
    accepts(f, "{\"model_type\":\"llama\"," SIZES "}");
    assert_int_equal(f->m.head_dim, 16);
    assert_int_equal(f->m.rope.dim, 16);
    assert_true(f->m.rope.theta == 10000 && f->m.rope.kind == QD_ROPE_DEFAULT && f->m.rope.attention_factor == 1);
    assert_true(f->m.eps == 1e-6f);
    assert_false(f->m.qk_norm || f->m.norm_plus_one || f->m.attention_gate || f->m.tied);
    assert_int_equal(f->m.window, 0);
    assert_int_equal(f->m.n_experts, 0);
    accepts(f, "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":1,\"vocab_size\":9,"
               "\"num_attention_heads\":4,\"intermediate_size\":8}");
    assert_int_equal(f->m.n_kv_heads, 4);
}

static void windows_are_of_the_layers_that_use_them(void **state)
{
    fix *f = *state;
    accepts(f, "{\"model_type\":\"mistral\"," SIZES "}");
    assert_int_equal(f->m.window, 4096);
    assert_true(f->m.layers[0].sliding && f->m.layers[3].sliding);
    accepts(f, "{\"model_type\":\"mistral\"," SIZES ",\"sliding_window\":null}");
    assert_false(f->m.layers[0].sliding);
    accepts(f, "{\"model_type\":\"mixtral\"," SIZES ",\"num_local_experts\":4,\"num_experts_per_tok\":2}");
    assert_false(f->m.layers[0].sliding);
    accepts(f, "{\"model_type\":\"qwen2\"," SIZES ",\"sliding_window\":7}");
    assert_false(f->m.layers[3].sliding);
    accepts(f, "{\"model_type\":\"qwen2\"," SIZES
               ",\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":3}");
    assert_true(!f->m.layers[2].sliding && f->m.layers[3].sliding && f->m.window == 7);
    accepts(f, "{\"model_type\":\"qwen3\"," SIZES ",\"use_sliding_window\":true,\"sliding_window\":7,\"layer_types\":["
               "\"sliding_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]}");
    assert_true(f->m.layers[0].sliding && !f->m.layers[1].sliding && f->m.layers[3].sliding);
    assert_int_equal(f->m.head_dim, 128);
}

static void experts_are_where_the_config_says(void **state)
{
    fix *f = *state;
    accepts(f, "{\"model_type\":\"qwen3_moe\"," SIZES "," EXPERTS
               ",\"decoder_sparse_step\":2,\"mlp_only_layers\":[1,99]}");
    assert_true(!f->m.layers[0].moe && !f->m.layers[1].moe && !f->m.layers[2].moe && f->m.layers[3].moe);
    assert_false(f->m.normalize_top_k);
    assert_false(f->m.f32_router_weights);
    accepts(f, "{\"model_type\":\"mixtral\"," SIZES ",\"num_local_experts\":4,\"num_experts_per_tok\":2}");
    assert_true(f->m.layers[0].moe && f->m.normalize_top_k && f->m.f32_router_weights);
    assert_int_equal(f->m.expert_intermediate, 96);
    assert_true(f->m.eps == 1e-5f && f->m.rope.theta == 1e6);
}

static void hybrid_models_alternate(void **state)
{
    fix *f = *state;
    accepts(f, "{\"model_type\":\"qwen3_5_moe\",\"text_config\":{\"model_type\":\"qwen3_5_moe_text\"," SIZES "," EXPERTS
               ",\"shared_expert_intermediate_size\":48,\"full_attention_interval\":2}}");
    assert_true(f->m.layers[0].linear_attention && !f->m.layers[1].linear_attention && f->m.layers[0].moe);
    assert_true(f->m.norm_plus_one && f->m.attention_gate && f->m.qk_norm && !f->m.interleaved_qkvz);
    assert_int_equal(f->m.head_dim, 256);
    assert_int_equal(f->m.rope.dim, 64); /* a quarter */
    assert_int_equal(f->m.v_heads, 32);
    assert_int_equal(f->m.shared_intermediate, 48);
    accepts(f, "{\"model_type\":\"qwen3_next\"," SIZES "," EXPERTS ",\"shared_expert_intermediate_size\":48}");
    assert_true(f->m.interleaved_qkvz && f->m.normalize_top_k && !f->m.layers[3].linear_attention);
}

static void rope_is_read_old_and_new(void **state)
{
    fix *f = *state;
    float w[8];
    accepts(f, "{\"model_type\":\"llama\"," SIZES
               ",\"rope_theta\":500,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}");
    assert_true(f->m.rope.kind == QD_ROPE_LINEAR && f->m.rope.theta == 500);
    qd_rope_frequencies(&f->m.rope, w);
    assert_true(w[0] == 0.25f && fabs((double)w[7] - pow(500, -14.0 / 16) / 4) < 1e-8);
    accepts(f, "{\"model_type\":\"llama\"," SIZES ",\"rope_theta\":1,\"rope_parameters\":{\"rope_type\":\"llama3\","
               "\"rope_theta\":500000,\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
               "\"original_max_position_embeddings\":64}}");
    qd_rope_frequencies(&f->m.rope, w);
    assert_true(w[0] == 1);                                                   /* short waves stay */
    assert_true(fabs((double)w[7] * 8 / pow(500000, -14.0 / 16) - 1) < 1e-6); /* long ones are stretched */
    accepts(f, "{\"model_type\":\"qwen3\"," SIZES ",\"head_dim\":16,\"rope_parameters\":{\"rope_type\":\"yarn\","
               "\"rope_theta\":1000000,\"factor\":4,\"original_max_position_embeddings\":64}}");
    qd_rope_frequencies(&f->m.rope, w);
    assert_true(fabs(f->m.rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12);
    assert_true(w[0] == 1 && fabs((double)w[7] * 4 / pow(1e6, -14.0 / 16) - 1) < 1e-6);
    accepts(f, "{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8,"
               "\"original_max_position_embeddings\":64,\"mscale\":1.3,\"mscale_all_dim\":0.7}}");
    assert_true(fabs(f->m.rope.attention_factor - (0.13 * log(8) + 1) / (0.07 * log(8) + 1)) < 1e-12);
    accepts(f, "{\"model_type\":\"qwen3_5\"," SIZES ",\"rope_parameters\":{\"rope_type\":\"default\","
               "\"mrope_section\":[11,11,10],\"rope_theta\":10,\"partial_rotary_factor\":0.5}}");
    assert_true(f->m.rope.dim == 128 && f->m.rope.theta == 10);
}

static void what_cannot_be_is_refused_by_key(void **state)
{
    fix *f = *state;
    static const struct {
        const char *text;
        qd_code rc;
        const char *said;
    } cases[] = {
        {"{\"model_type\":\"llama\",\"hidden_size\":64}", QD_E_INPUT, "\"num_hidden_layers\" is missing"},
        {"{\"model_type\":\"llama\"," SIZES ",\"head_dim\":0}", QD_E_INPUT,
         "\"head_dim\": expected 1 to 4096, found 0"},
        {"{\"model_type\":\"llama\"," SIZES ",\"head_dim\":5}", QD_E_INPUT, "even number of turned elements"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rms_norm_eps\":-1}", QD_E_INPUT, "\"rms_norm_eps\": expected 0 to 1"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_theta\":\"x\"}", QD_E_INPUT, "\"rope_theta\": expected a number"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_theta\":0}", QD_E_INPUT, "\"rope_theta\": expected 1 to"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":{\"type\":\"dynamic\"}}", QD_E_UNSUPPORTED,
         "\"dynamic\""},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":{\"type\":\"llama3\",\"high_freq_factor\":1}}",
         QD_E_INPUT, "\"high_freq_factor\": expected more than 1"},
        {"{\"model_type\":\"llama\"," SIZES ",\"layer_types\":[\"full_attention\"]}", QD_E_INPUT,
         "\"layer_types\": expected 4 entries, found 1"},
        {"{\"model_type\":\"llama\"," SIZES ",\"layer_types\":[1,2,3,4]}", QD_E_UNSUPPORTED, "\"layer_types\"[0]"},
        {"{\"model_type\":\"llama\"," SIZES ",\"layer_types\":[\"linear_attention\",\"a\",\"a\",\"a\"]}",
         QD_E_UNSUPPORTED, "found \"linear_attention\""},
        {"{\"model_type\":\"llama\"," SIZES ",\"hidden_act\":\"relu\"}", QD_E_UNSUPPORTED, "\"hidden_act\""},
        {"{\"model_type\":\"qwen3_moe\"," SIZES
         ",\"num_experts\":2,\"num_experts_per_tok\":3,\"moe_intermediate_size\":4}",
         QD_E_INPUT, "expected at most the 2 experts, found 3"},
        {"{\"model_type\":\"qwen3_moe\"," SIZES "," EXPERTS ",\"mlp_only_layers\":[\"a\"]}", QD_E_INPUT,
         "\"mlp_only_layers\"[0]"},
        {"{\"model_type\":\"qwen3_5\"," SIZES ",\"linear_num_key_heads\":3,\"linear_num_value_heads\":4}", QD_E_INPUT,
         "linear_num_value_heads a multiple of"},
        {"{\"model_type\":\"bert\"," SIZES "}", QD_E_UNSUPPORTED, "model_type \"bert\""},
        {"{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":4097}", QD_E_INPUT, "expected 0 to 4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_text(f, cases[i].text), cases[i].rc);
        if (strstr(f->err.msg, cases[i].said) == NULL) fail_msg("%s: %s", cases[i].text, f->err.msg);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_llama_has_the_defaults_of_transformers),
        T(windows_are_of_the_layers_that_use_them),
        T(experts_are_where_the_config_says),
        T(hybrid_models_alternate),
        T(rope_is_read_old_and_new),
        T(what_cannot_be_is_refused_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
