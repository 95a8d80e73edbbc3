/* Checkpoints that lie about their tensors: refused with a sentence, whatever is computed from shapes. */
#include "tests/unit/engine/small_model.h"

#include "engine/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A model of one F8 tensor with its block scales beside it, planned. */
static qd_code plan(const char *name, uint32_t rank, const uint64_t *shape, uint32_t scale_rank,
                    const uint64_t *scale_shape, qd_err *err)
{
    static const char config[] = "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"],"
                                 " \"num_hidden_layers\": 1, \"rms_norm_eps\": 1e-06, \"tie_word_embeddings\": true,"
                                 " \"quantization_config\": {\"quant_method\": \"fp8\"}}";
    char root[] = "qd-select-XXXXXX", scales[128];
    (void)snprintf(scales, sizeof scales, "%s_scale_inv", name);
    assert_non_null(mkdtemp(root));
    qd_tensor list[2] = {{.name = name, .dtype = QD_F8_E4M3, .rank = rank, .n_elems = 1},
                         {.name = scales, .dtype = QD_F32, .rank = scale_rank, .n_elems = 1}};
    for (uint32_t i = 0; i < rank; i++) list[0].n_elems *= list[0].shape[i] = shape[i];
    for (uint32_t i = 0; i < scale_rank; i++) list[1].n_elems *= list[1].shape[i] = scale_shape[i];
    list[0].bytes = list[0].n_elems;
    list[1].off = list[0].bytes;
    list[1].bytes = 4 * list[1].n_elems;
    qd_buf b = {0}, shown = {0};
    if (qd_st_write_header(list, 2, NULL, 0, &b, NULL) != QD_OK) abort();
    for (uint64_t i = 0; i < list[1].off + list[1].bytes; i++) qd_buf_add(&b, "", 1);
    sm_put(root, "model.safetensors", b.data, b.len);
    sm_put(root, "config.json", config, sizeof config - 1);
    sm_put(root, "tokenizer.json", "{}", 2);
    qd_template tmpl = {0};
    qd_arena arena = {0};
    qd_values values;
    qd_err e = {0};
    assert_int_equal(qd_template_load(QD_TEST_SOURCE_DIR "/deploy/templates", "nvfp4-w4a16", &tmpl, &e), QD_OK);
    assert_int_equal(qd_values_resolve(&tmpl, NULL, 0, &arena, &values, &e), QD_OK);
    const qd_job_opts o = {.model_dir = root, .out_dir = "qd-select-out", .tmpl = &tmpl, .values = &values};
    qd_code rc = qd_job_dry_run(&o, false, &shown, err);
    qd_buf_done(&b);
    qd_buf_done(&shown);
    qd_template_done(&tmpl);
    qd_arena_done(&arena);
    assert_int_equal(qd_tree_remove(root, NULL), QD_OK);
    return rc;
}

static void an_f8_tensor_that_is_no_matrix_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"model.norm.weight", "model.layers.0.self_attn.q_proj.weight", "other"};
    static const uint64_t one[] = {1, 1}, none[] = {0}, flat[] = {4, 0}, thin[] = {0, 4}, deep[] = {2, 2, 2};
    const struct {
        uint32_t rank;
        const uint64_t *shape;
    } shapes[] = {{0, none}, {1, none}, {1, one}, {2, flat}, {2, thin}, {3, deep}};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (uint32_t scale_rank = 0; scale_rank <= 2; scale_rank++) {
                qd_err err = {0};
                qd_code rc = plan(names[n], shapes[i].rank, shapes[i].shape, scale_rank, one, &err);
                assert_true(rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED);
                assert_int_not_equal(err.msg[0], '\0');
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_f8_tensor_that_is_no_matrix_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
