/* test_shapes.c -- tensors made from config.json are those that checkpoints of the architecture have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "calib/layer_weights.h"
#include "calib/shapes.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_left_out(const qd_ckpt *c, const qd_tensor *t)
{
    qd_place p = {0};
    qd_arch_place(qd_arch_find(&c->config), t, &p);
    return p.role == QD_ROLE_VISION || p.role == QD_ROLE_MTP;
}

static const qd_tensor *find(const qd_shapes *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_tensors; i++)
        if (strcmp(s->tensors[i].name, name) == 0) return &s->tensors[i];
    return NULL;
}

/* As many tensors, each of them there with its shape and dtype. */
static void compare(const char *dir, const qd_ckpt *c, const qd_shapes *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        const qd_tensor *t = &c->tensors[i], *made = find(s, t->name);
        if (is_left_out(c, t)) {
            assert_null(made);
            assert_non_null(s->left_out);
            continue;
        }
        n++;
        if (made == NULL) fail_msg("%s: %s was not made", dir, t->name);
        if (made->rank != t->rank || memcmp(made->shape, t->shape, t->rank * sizeof t->shape[0]) != 0)
            fail_msg("%s: %s has another shape", dir, t->name);
        if (made->dtype != t->dtype) fail_msg("%s: %s has another dtype", dir, t->name);
    }
    if (n != s->n_tensors) fail_msg("%s: expected %u tensors, %u were made", dir, n, s->n_tensors);
}

static void they_are_those_of_the_reference_checkpoints(void **state)
{
    unsigned n_models = 0;
    (void)state;
    DIR *d = opendir(QD_TEST_SHARED_DIR "/fixtures");
    if (d == NULL) {
        print_message("skipped: no reference data here\n");
        skip();
    }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char dir[4096], config[4200];
        qd_ckpt c = {0};
        qd_arena arena = {0};
        qd_shapes s = {0};
        qd_err err = {0};
        (void)snprintf(dir, sizeof dir, "%s/fixtures/%s", QD_TEST_SHARED_DIR, e->d_name);
        (void)snprintf(config, sizeof config, "%s/config.json", dir);
        if (e->d_name[0] == '.' || !qd_path_exists(config)) continue;
        if (qd_ckpt_open(dir, &c, &err) != QD_OK) fail_msg("%s", err.msg);
        if (qd_model_shapes(NULL, &c.config, dir, &arena, &s, &err) != QD_OK) fail_msg("%s", err.msg);
        compare(dir, &c, &s);
        qd_arena_done(&arena);
        qd_ckpt_done(&c);
        n_models++;
    }
    (void)closedir(d);
    assert_true(n_models > 0);
}

#define SMALL                                                                                                         \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":96,\"num_attention_heads\":4,\"num_key_value_heads\":" \
    "2,"                                                                                                              \
    "\"head_dim\":16,\"intermediate_size\":128"

static qd_code make(const char *json, qd_arena *arena, qd_config *c, qd_shapes *s, qd_err *err)
{
    assert_int_equal(qd_config_parse(json, strlen(json), "config.json", c, err), QD_OK);
    return qd_model_shapes(NULL, c, "config.json", arena, s, err);
}

static qd_code make_only(const char *json, qd_err *err)
{
    qd_arena arena = {0};
    qd_config c = {0};
    qd_shapes s = {0};
    *err = (qd_err){0};
    qd_code rc = make(json, &arena, &c, &s, err);
    assert_true(arena.total_bytes < (UINT64_C(64) << 20));
    qd_config_done(&c);
    qd_arena_done(&arena);
    return rc;
}

static void biases_tied_heads_and_dtypes_follow_the_config(void **state)
{
    qd_arena arena = {0};
    qd_config c = {0};
    qd_shapes s = {0};
    qd_err err = {0};
    (void)state;
    if (make("{\"model_type\":\"llama\",\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true,"
             "\"torch_dtype\":\"float16\"," SMALL "}",
             &arena, &c, &s, &err) != QD_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(s.n_tensors, 2 + 2 * (2 + 7 + 7));
    assert_null(find(&s, "lm_head.weight"));
    const qd_tensor *t = find(&s, "model.layers.1.self_attn.o_proj.bias");
    assert_true(t != NULL && t->rank == 1 && t->shape[0] == 64 && t->dtype == QD_F16);
    assert_non_null(find(&s, "model.layers.0.mlp.down_proj.bias"));
    qd_config_done(&c);
    qd_arena_done(&arena);
}

static void what_cannot_be_known_is_refused(void **state)
{
    qd_err err = {0};
    (void)state;
    assert_int_equal(make_only("{\"model_type\":\"falcon\"," SMALL "}", &err), QD_E_UNSUPPORTED);
    assert_int_equal(make_only("{\"model_type\":\"llama\",\"dtype\":\"int8\"," SMALL "}", &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "int8"));
    assert_int_equal(
        make_only("{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"fp8\"}," SMALL "}", &err),
        QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "fp8"));
    assert_int_equal(make_only("{\"model_type\":\"llama\",\"attention_bias\":3," SMALL "}", &err), QD_E_INPUT);
}

static void a_config_that_asks_for_millions_of_tensors_is_refused_before_it_takes_memory(void **state)
{
    qd_err err = {0};
    (void)state;
    assert_int_equal(
        make_only("{\"model_type\":\"qwen3_moe\",\"num_experts\":65536,\"num_experts_per_tok\":1,"
                  "\"moe_intermediate_size\":16,\"num_hidden_layers\":4096,\"hidden_size\":64,\"vocab_size\":96,"
                  "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":16,\"intermediate_size\":128}",
                  &err),
        QD_E_INPUT);
    assert_non_null(strstr(err.msg, "at most 1048576 tensors"));
}

static void a_forward_pass_can_be_planned_over_shapes_alone(void **state)
{
    static const char dir[] = QD_TEST_SOURCE_DIR "/tests/e2e/configs/moe-1t";
    qd_ckpt c = {0};
    qd_model_index x = {0};
    qd_err err = {0};
    const char *left_out = "?";
    char byte[16];
    (void)state;
    assert_true(qd_ckpt_lacks_weights(dir));
    if (qd_ckpt_open_shapes(dir, qd_model_shapes, NULL, &c, &left_out, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_null(left_out);
    assert_true(c.tensor_bytes > UINT64_C(2000000000000)); /* a trillion parameters of two bytes */
    if (qd_model_index_open(&c, &x, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_int_equal(qd_source_read(c.files[0].src, c.tensors[7].off, byte, sizeof byte, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "no weights"));
    assert_int_equal(qd_ckpt_check(&c, &err), QD_OK);
    qd_model_index_done(&x);
    qd_ckpt_done(&c);
}

static void put_text(const char *dir, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(qd_file_replace(path, text, strlen(text), NULL), QD_OK);
}

static void an_index_without_its_files_says_what_is_missing(void **state)
{
    char dir[] = "/tmp/qd-shapes-XXXXXX";
    qd_ckpt c = {0};
    qd_err err = {0};
    const char *left_out = NULL;
    (void)state;
    assert_non_null(mkdtemp(dir));
    put_text(dir, "config.json", "{\"model_type\":\"llama\",\"tie_word_embeddings\":true," SMALL "}");
    put_text(dir, "model.safetensors.index.json",
             "{\"weight_map\":{\"model.norm.weight\":\"a.safetensors\",\"mtp.x\":\"a.safetensors\","
             "\"mtp.y\":\"a.safetensors\"}}");
    assert_true(qd_ckpt_lacks_weights(dir));
    if (qd_ckpt_open_shapes(dir, qd_model_shapes, NULL, &c, &left_out, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_string_equal(left_out, "2 tensors of model.safetensors.index.json; 19 planned ones are not in it");
    qd_ckpt_done(&c);
    put_text(dir, "a.safetensors", "");
    assert_false(qd_ckpt_lacks_weights(dir)); /* then it is what it says, and damaged */
    assert_int_equal(qd_tree_remove(dir, NULL), QD_OK);
}

static void every_allocation_may_fail(void **state)
{
    static const char dir[] = QD_TEST_SOURCE_DIR "/tests/e2e/configs/llama-3-8b";
    unsigned n_failed = 0;
    qd_code rc = QD_E_NO_MEMORY;
    (void)state;
    qd_json_use_qd_memory();
    for (unsigned long n = 1; n < 100000 && rc != QD_OK; n += n < 200 ? 1 : 97) {
        qd_ckpt c = {0};
        qd_err err = {0};
        const char *left_out = NULL;
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = qd_ckpt_open_shapes(dir, qd_model_shapes, NULL, &c, &left_out, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
        n_failed += rc != QD_OK;
        if (rc == QD_OK) qd_ckpt_done(&c);
    }
    assert_int_equal(rc, QD_OK);
    assert_true(n_failed > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_those_of_the_reference_checkpoints),
        cmocka_unit_test(biases_tied_heads_and_dtypes_follow_the_config),
        cmocka_unit_test(what_cannot_be_known_is_refused),
        cmocka_unit_test(a_config_that_asks_for_millions_of_tensors_is_refused_before_it_takes_memory),
        cmocka_unit_test(a_forward_pass_can_be_planned_over_shapes_alone),
        cmocka_unit_test(an_index_without_its_files_says_what_is_missing),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
