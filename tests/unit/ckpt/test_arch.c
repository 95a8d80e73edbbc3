/* test_arch.c -- names find their place: role, layer, expert, fused set; tensors become the linears the tables promise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "ckpt/arch.h"

#include <string.h>

static const qd_arch *table(const char *model_type)
{
    qd_config c = {.model_type = model_type, .text_model_type = model_type};
    return qd_arch_find(&c);
}

typedef struct want {
    const char *name;
    qd_role role;
    int32_t layer, expert;
    const char *fuse;
    bool fuse_ct;
} want;

static void check_place(const qd_arch *a, const want *w, uint32_t rank)
{
    const qd_tensor t = {.name = w->name, .rank = rank, .shape = {64, 64, 64}};
    qd_place p = {0};
    qd_arch_place(a, &t, &p);
    if (p.role != w->role || p.layer != w->layer || p.expert != w->expert || strcmp(p.fuse, w->fuse) != 0 ||
        p.fuse_ct != w->fuse_ct)
        fail_msg("%s: found %s, layer %d, expert %d, set \"%s\" %d", w->name, qd_role_name(p.role), p.layer, p.expert,
                 p.fuse, p.fuse_ct);
}

static void every_architecture_is_found_with_and_without_text(void **state)
{
    (void)state;
    static const char *const names[] = {"llama",     "mistral",    "mixtral", "qwen2",      "qwen3",
                                        "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[64];
        assert_non_null(table(names[i]));
        assert_string_equal(qd_arch_name(table(names[i])), names[i]);
        strcpy(text, names[i]);
        strcat(text, "_text");
        assert_ptr_equal(table(text), table(names[i]));
    }
    assert_null(table(""));
    assert_null(table("_text"));
    assert_null(table("gpt2"));
    assert_null(table("qwen3_vl_moe_text")); /* its fused experts are transposed */
    assert_null(table("llama4_text"));
    assert_string_equal(qd_arch_name(NULL), "generic");
}

static void the_text_model_is_found_under_every_prefix(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"model.", "model.language_model.", "language_model.model.",
                                           "language_model.", ""};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        char name[128];
        strcpy(name, prefixes[i]);
        strcat(name, "layers.12.self_attn.k_proj.weight");
        check_place(table("llama"), &(want){name, QD_ROLE_ATTN, 12, -1, "qkv", true}, 2);
    }
    check_place(table("llama"), &(want){"language_model.lm_head.weight", QD_ROLE_HEAD, -1, -1, "", false}, 2);
    check_place(table("llama"), &(want){"model.language_model.embed_tokens.weight", QD_ROLE_EMBED, -1, -1, "", false},
                2);
}

static void names_of_the_tables_find_their_place(void **state)
{
    (void)state;
    static const want moe[] = {
        {"model.layers.3.self_attn.o_proj.weight", QD_ROLE_ATTN, 3, -1, "", false},
        {"model.layers.3.self_attn.q_norm.weight", QD_ROLE_NORM, 3, -1, "", false},
        {"model.layers.3.self_attn.q_proj.bias", QD_ROLE_SMALL, 3, -1, "", false},
        {"model.layers.3.input_layernorm.weight", QD_ROLE_NORM, 3, -1, "", false},
        {"model.layers.3.linear_attn.in_proj_qkv.weight", QD_ROLE_LINEAR_ATTN, 3, -1, "in_proj", false},
        {"model.layers.3.linear_attn.in_proj_z.weight", QD_ROLE_LINEAR_ATTN, 3, -1, "in_proj", false},
        {"model.layers.3.linear_attn.out_proj.weight", QD_ROLE_LINEAR_ATTN, 3, -1, "", false},
        {"model.layers.3.linear_attn.in_proj_a.weight", QD_ROLE_SMALL, 3, -1, "", false},
        {"model.layers.3.linear_attn.in_proj_b.weight", QD_ROLE_SMALL, 3, -1, "", false},
        {"model.layers.3.linear_attn.conv1d.weight", QD_ROLE_SMALL, 3, -1, "", false},
        {"model.layers.3.linear_attn.A_log", QD_ROLE_SMALL, 3, -1, "", false},
        {"model.layers.3.linear_attn.dt_bias", QD_ROLE_SMALL, 3, -1, "", false},
        {"model.layers.3.linear_attn.norm.weight", QD_ROLE_NORM, 3, -1, "", false},
        {"model.layers.3.mlp.gate.weight", QD_ROLE_ROUTER, 3, -1, "", false},
        {"model.layers.3.mlp.shared_expert_gate.weight", QD_ROLE_GATE, 3, -1, "", false},
        {"model.layers.3.mlp.shared_expert.up_proj.weight", QD_ROLE_SHARED_EXPERT, 3, -1, "gate_up", true},
        {"model.layers.3.mlp.shared_expert.down_proj.weight", QD_ROLE_SHARED_EXPERT, 3, -1, "", false},
        {"model.layers.3.mlp.experts.17.gate_proj.weight", QD_ROLE_EXPERT, 3, 17, "gate_up", true},
        {"model.layers.3.mlp.experts.17.down_proj.weight", QD_ROLE_EXPERT, 3, 17, "", false},
        {"model.layers.3.mlp.experts.gate_up_proj", QD_ROLE_EXPERT, 3, -1, "gate_up", true},
        {"model.layers.3.mlp.gate_proj.weight", QD_ROLE_MLP, 3, -1, "gate_up", true},
        {"model.norm.weight", QD_ROLE_NORM, -1, -1, "", false},
        {"lm_head.weight", QD_ROLE_HEAD, -1, -1, "", false},
        {"model.visual.blocks.0.attn.qkv.weight", QD_ROLE_VISION, -1, -1, "", false},
        {"vision_tower.layers.0.self_attn.q_proj.weight", QD_ROLE_VISION, -1, -1, "", false},
        {"mtp.layers.0.self_attn.q_proj.weight", QD_ROLE_MTP, -1, -1, "", false},
        {"mtp.layers.0.mlp.experts.gate_up_proj", QD_ROLE_MTP, -1, -1, "", false},
        {"mtp.fc.weight", QD_ROLE_MTP, -1, -1, "", false},
        {"model.layers.3.self_attn.q_proj.weight.extra", QD_ROLE_OTHER, 3, -1, "", false},
        {"model.layers.x.self_attn.q_proj.weight", QD_ROLE_OTHER, -1, -1, "", false},
        {"model.layers.1234567890.self_attn.q_proj.weight", QD_ROLE_OTHER, -1, -1, "", false},
        {"model.layers.3.self_attn.rotary_emb.inv_freq", QD_ROLE_OTHER, 3, -1, "", false},
        {"model.layers.3.mlp.experts.1.2.down_proj.weight", QD_ROLE_OTHER, 3, -1, "", false},
        {"", QD_ROLE_OTHER, -1, -1, "", false},
    };
    static const want mixtral[] = {
        {"model.layers.0.block_sparse_moe.experts.7.w1.weight", QD_ROLE_EXPERT, 0, 7, "gate_up", true},
        {"model.layers.0.block_sparse_moe.experts.7.w3.weight", QD_ROLE_EXPERT, 0, 7, "gate_up", true},
        {"model.layers.0.block_sparse_moe.experts.7.w2.weight", QD_ROLE_EXPERT, 0, 7, "", false},
        {"model.layers.0.block_sparse_moe.gate.weight", QD_ROLE_ROUTER, 0, -1, "", false},
    };
    static const want next[] = {
        {"model.layers.0.linear_attn.in_proj_qkvz.weight", QD_ROLE_LINEAR_ATTN, 0, -1, "", false},
        {"model.layers.0.linear_attn.in_proj_ba.weight", QD_ROLE_SMALL, 0, -1, "", false},
        {"mtp.layers.0.mlp.experts.3.up_proj.weight", QD_ROLE_MTP, -1, -1, "", false},
    };
    for (size_t i = 0; i < sizeof moe / sizeof moe[0]; i++) check_place(table("qwen3_5_moe_text"), &moe[i], 2);
    for (size_t i = 0; i < sizeof mixtral / sizeof mixtral[0]; i++) check_place(table("mixtral"), &mixtral[i], 2);
    for (size_t i = 0; i < sizeof next / sizeof next[0]; i++) check_place(table("qwen3_next"), &next[i], 2);
}

static void without_a_table_the_usual_names_decide(void **state)
{
    (void)state;
    static const want wants[] = {
        {"transformer.h.5.attn.c_attn.weight", QD_ROLE_LINEAR_OTHER, 5, -1, "", false},
        {"model.layers.2.self_attn.q_proj.weight", QD_ROLE_LINEAR_OTHER, 2, -1, "qkv", true},
        {"model.layers.2.mlp.experts.4.up_proj.weight", QD_ROLE_LINEAR_OTHER, 2, 4, "gate_up", true},
        {"layers.2.feed_forward.w3.weight", QD_ROLE_LINEAR_OTHER, 2, -1, "gate_up", true},
        {"model.layers.2.self_attn.kv_a_proj_with_mqa.weight", QD_ROLE_LINEAR_OTHER, 2, -1, "qkv_a", true},
        {"model.layers.2.linear_attn.in_proj_z.weight", QD_ROLE_LINEAR_OTHER, 2, -1, "in_proj", false},
        {"encoder.blocks.7.fc1.weight", QD_ROLE_LINEAR_OTHER, 7, -1, "", false},
        {"model.layers.2.self_attn.output.weight", QD_ROLE_LINEAR_OTHER, 2, -1, "", false},
        {"model.layers.2.mlp.gate_proj.bias", QD_ROLE_SMALL, 2, -1, "", false},
        {"model.embed_tokens.weight", QD_ROLE_EMBED, -1, -1, "", false},
        {"transformer.wte.weight", QD_ROLE_EMBED, -1, -1, "", false},
        {"transformer.wpe.weight", QD_ROLE_EMBED, -1, -1, "", false},
        {"tok_embeddings.weight", QD_ROLE_EMBED, -1, -1, "", false},
        {"transformer.h.5.ln_1.weight", QD_ROLE_NORM, 5, -1, "", false},
        {"model.layers.2.post_attention_norm.weight", QD_ROLE_NORM, 2, -1, "", false},
        {"model.layers.2.mlp.gate.weight", QD_ROLE_ROUTER, 2, -1, "", false},
        {"model.layers.2.mlp.router.weight", QD_ROLE_ROUTER, 2, -1, "", false},
        {"model.layers.2.block_sparse_moe.router.layer.weight", QD_ROLE_ROUTER, 2, -1, "", false},
        {"model.layers.2.mlp.shared_expert_gate.weight", QD_ROLE_GATE, 2, -1, "", false},
        {"model.layers.2.mixer.conv1d.weight", QD_ROLE_SMALL, 2, -1, "", false},
        {"lm_head.weight", QD_ROLE_HEAD, -1, -1, "", false},
        {"output.weight", QD_ROLE_HEAD, -1, -1, "", false},
        {"score.weight", QD_ROLE_HEAD, -1, -1, "", false},
        {"classifier.dense.weight", QD_ROLE_HEAD, -1, -1, "", false},
        {"embed_out.weight", QD_ROLE_HEAD, -1, -1, "", false},
        {"visual.blocks.0.attn.qkv.weight", QD_ROLE_VISION, 0, -1, "", false},
        {"model.vision_tower.encoder.layers.0.fc1.weight", QD_ROLE_VISION, 0, -1, "", false},
        {"model.mtp_layers.0.self_attn.q_proj.weight", QD_ROLE_MTP, -1, -1, "", false},
        {"mtp.fc.weight", QD_ROLE_MTP, -1, -1, "", false},
        {"model.layers.2.self_attn.sinks", QD_ROLE_OTHER, 2, -1, "", false},
        {"weight", QD_ROLE_OTHER, -1, -1, "", false},
        {"", QD_ROLE_OTHER, -1, -1, "", false},
    };
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) check_place(NULL, &wants[i], 2);
    check_place(NULL, &(want){"model.layers.2.mlp.fc1.weight", QD_ROLE_OTHER, 2, -1, "", false}, 1);
    check_place(NULL, &(want){"model.layers.2.mlp.fc1.weight", QD_ROLE_OTHER, 2, -1, "", false}, 3);
}

static void a_name_of_many_parts_or_bytes_is_left_alone(void **state)
{
    (void)state;
    char dots[201], longer[QD_ST_NAME_BYTES_MAX + 64];
    memset(dots, '.', 200);
    dots[200] = '\0';
    check_place(NULL, &(want){dots, QD_ROLE_OTHER, -1, -1, "", false}, 2);
    memset(longer, 'a', sizeof longer);
    strcpy(longer + sizeof longer - 8, ".weight");
    check_place(NULL, &(want){longer, QD_ROLE_OTHER, -1, -1, "", false}, 2);
}

/* A checkpoint of one tensor. */
typedef struct one {
    qd_ckpt c;
    qd_ckpt_file file;
    qd_tensor t;
    qd_arena arena;
    qd_linear got[16];
    unsigned n;
    qd_code answer;
} one;

static qd_code collect(void *ctx, const qd_linear *l, qd_err *err)
{
    one *o = ctx;
    assert_true(o->n < 16);
    o->got[o->n++] = *l;
    return o->answer == QD_OK ? QD_OK : qd_fail(err, o->answer, "stopped");
}

static qd_code expand(one *o, const qd_arch *a, const char *name, uint32_t rank, const uint64_t *shape, qd_err *err)
{
    qd_arena_done(&o->arena);
    o->n = 0;
    o->file = (qd_ckpt_file){.name = "m.safetensors"};
    o->t = (qd_tensor){.name = name, .dtype = QD_BF16, .rank = rank, .n_elems = 1};
    for (uint32_t i = 0; i < rank; i++) {
        o->t.shape[i] = shape[i];
        o->t.n_elems *= shape[i];
    }
    o->c.files = &o->file;
    o->c.n_files = 1;
    o->c.tensors = &o->t;
    o->c.n_tensors = 1;
    return qd_arch_linears(a, &o->c, 0, &o->arena, collect, o, err);
}

static void a_matrix_is_one_linear_and_sets_share_a_key(void **state)
{
    (void)state;
    one o = {0};
    qd_err err = {0};
    const uint64_t shape[] = {48, 32};
    assert_int_equal(expand(&o, table("qwen3"), "model.layers.4.self_attn.v_proj.weight", 2, shape, &err), QD_OK);
    assert_int_equal(o.n, 1);
    assert_string_equal(o.got[0].name, "model.layers.4.self_attn.v_proj");
    assert_string_equal(o.got[0].fuse_key, "model.layers.4.self_attn.qkv");
    assert_string_equal(o.got[0].fuse_key_ct, "model.layers.4.self_attn.qkv");
    assert_int_equal(o.got[0].rows, 48);
    assert_int_equal(o.got[0].cols, 32);
    assert_int_equal(o.got[0].first_row, 0);
    assert_int_equal(expand(&o, table("qwen3"), "model.layers.4.mlp.down_proj.weight", 2, shape, &err), QD_OK);
    assert_string_equal(o.got[0].fuse_key, "model.layers.4.mlp.down_proj");
    assert_string_equal(o.got[0].fuse_key_ct, "model.layers.4.mlp.down_proj");
    assert_int_equal(expand(&o, table("qwen3_5"), "model.layers.0.linear_attn.in_proj_z.weight", 2, shape, &err),
                     QD_OK);
    assert_string_equal(o.got[0].fuse_key, "model.layers.0.linear_attn.in_proj");
    assert_string_equal(o.got[0].fuse_key_ct, "model.layers.0.linear_attn.in_proj_z");
    assert_int_equal(expand(&o, NULL, "q_proj.weight", 2, shape, &err), QD_OK);
    assert_string_equal(o.got[0].name, "q_proj");
    assert_string_equal(o.got[0].fuse_key, "qkv");
    assert_int_equal(expand(&o, table("qwen3"), "lm_head.weight", 2, shape, &err), QD_OK);
    assert_int_equal(o.n, 0);
    qd_arena_done(&o.arena);
}

static void fused_experts_split_into_gate_up_and_down(void **state)
{
    (void)state;
    one o = {0};
    qd_err err = {0};
    const uint64_t gate_up[] = {3, 10, 32}, down[] = {3, 32, 5};
    const qd_arch *a = table("qwen3_5_moe");
    assert_int_equal(expand(&o, a, "model.language_model.layers.1.mlp.experts.gate_up_proj", 3, gate_up, &err), QD_OK);
    assert_int_equal(o.n, 6);
    assert_string_equal(o.got[5].name, "model.language_model.layers.1.mlp.experts.2.up_proj");
    assert_string_equal(o.got[4].name, "model.language_model.layers.1.mlp.experts.2.gate_proj");
    assert_string_equal(o.got[4].fuse_key, "model.language_model.layers.1.mlp.experts.2.gate_up");
    assert_string_equal(o.got[4].fuse_key, o.got[5].fuse_key_ct);
    assert_string_not_equal(o.got[3].fuse_key, o.got[4].fuse_key);
    assert_int_equal(o.got[4].first_row, 20);
    assert_int_equal(o.got[5].first_row, 25);
    assert_int_equal(o.got[5].rows, 5);
    assert_int_equal(o.got[5].cols, 32);
    assert_int_equal(o.got[5].place.expert, 2);
    assert_int_equal(o.got[5].place.layer, 1);
    assert_int_equal(expand(&o, a, "model.language_model.layers.1.mlp.experts.down_proj", 3, down, &err), QD_OK);
    assert_int_equal(o.n, 3);
    assert_string_equal(o.got[1].name, "model.language_model.layers.1.mlp.experts.1.down_proj");
    assert_string_equal(o.got[1].fuse_key, o.got[1].name);
    assert_int_equal(o.got[1].first_row, 32);
    assert_int_equal(o.got[1].rows, 32);
    assert_int_equal(o.got[1].cols, 5);
    qd_arena_done(&o.arena);
}

static void a_shape_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t rank;
        uint64_t shape[3], hidden;
        const char *words;
    } rows[] = {
        {"model.layers.0.mlp.experts.gate_up_proj",
         3,
         {3, 9, 32},
         0,
         "m.safetensors: model.layers.0.mlp.experts.gate_up_proj: expected [experts, 2 x rows, columns], found [3, 9, "
         "32]"},
        {"model.layers.0.mlp.experts.gate_up_proj",
         3,
         {3, 32, 10},
         32,
         "expected [experts, 2 x rows, 32] (hidden_size), found [3, 32, 10]"}, /* transposed */
        {"model.layers.0.mlp.experts.down_proj",
         3,
         {3, 5, 32},
         32,
         "expected [experts, 32 (hidden_size), columns], found [3, 5, 32]"},
        {"model.layers.0.mlp.experts.down_proj", 2, {3, 32}, 0, "expected [experts, rows, columns], found [3, 32]"},
        {"model.layers.0.mlp.experts.down_proj", 3, {1, 0, 8}, 0, "expected [experts, rows, columns], found [1, 0, 8]"},
        {"model.layers.0.mlp.experts.down_proj",
         3,
         {70000, 1, 1},
         0,
         "expected at most 65536 experts, found [70000, 1, 1]"},
        {"model.layers.0.mlp.up_proj.weight", 1, {3}, 0, "expected a matrix of 2 dimensions, found [3]"},
        {"model.layers.0.mlp.up_proj.weight", 3, {3, 4, 5}, 0, "expected a matrix of 2 dimensions, found [3, 4, 5]"},
        {"model.layers.0.mlp.up_proj.weight", 0, {0}, 0, "expected a matrix of 2 dimensions, found []"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        one o = {.c.config.hidden_size = rows[i].hidden};
        qd_err err = {0};
        assert_int_equal(expand(&o, table("qwen3_5_moe"), rows[i].name, rows[i].rank, rows[i].shape, &err), QD_E_INPUT);
        if (strstr(err.msg, rows[i].words) == NULL) fail_msg("expected \"%s\" in \"%s\"", rows[i].words, err.msg);
        assert_int_equal(o.n, 0);
        qd_arena_done(&o.arena);
    }
}

static void the_receiver_can_stop_and_memory_can_run_out(void **state)
{
    (void)state;
    one o = {.answer = QD_E_CANCELED};
    qd_err err = {0};
    const uint64_t shape[] = {3, 10, 32};
    const char *name = "model.layers.0.mlp.experts.gate_up_proj";
    assert_int_equal(expand(&o, table("qwen3_moe"), name, 3, shape, &err), QD_E_CANCELED);
    assert_int_equal(o.n, 1);
    qd_arena_done(&o.arena);
    qd_fault_arm(QD_FAULT_ALLOC, 1, 12);
    assert_int_equal(expand(&o, table("qwen3_moe"), name, 3, shape, &err), QD_E_NO_MEMORY);
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    assert_int_equal(o.n, 0);
    qd_arena_done(&o.arena);
}

static void every_role_has_a_name(void **state)
{
    (void)state;
    for (int r = 0; r < QD_ROLE_COUNT; r++) {
        assert_non_null(qd_role_name((qd_role)r));
        for (int k = 0; k < r; k++) assert_string_not_equal(qd_role_name((qd_role)r), qd_role_name((qd_role)k));
        assert_int_equal(qd_role_is_linear((qd_role)r), r >= QD_ROLE_ATTN);
    }
    assert_string_equal(qd_role_name(QD_ROLE_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_is_found_with_and_without_text),
        cmocka_unit_test(the_text_model_is_found_under_every_prefix),
        cmocka_unit_test(names_of_the_tables_find_their_place),
        cmocka_unit_test(without_a_table_the_usual_names_decide),
        cmocka_unit_test(a_name_of_many_parts_or_bytes_is_left_alone),
        cmocka_unit_test(a_matrix_is_one_linear_and_sets_share_a_key),
        cmocka_unit_test(fused_experts_split_into_gate_up_and_down),
        cmocka_unit_test(a_shape_that_does_not_fit_is_refused),
        cmocka_unit_test(the_receiver_can_stop_and_memory_can_run_out),
        cmocka_unit_test(every_role_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
