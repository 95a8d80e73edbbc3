/* test_values.c -- settings lie over defaults when they are values of the type; scope and exclusions take the right
 * linears. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "catalog/template.h"
#include "ckpt/arch.h"

#include <math.h>
#include <string.h>

static const char *const rules[] = {"minmax", "mse"}, *const only[] = {"rtn"};
static qd_param params[] = {
    {.name = "bits", .type = QD_PARAM_INT, .min = 2, .max = 8, .step = 2, .dflt = "4"},
    {.name = "ratio", .type = QD_PARAM_NUMBER, .min = 0, .max = 1, .step = 0.1, .dflt = "0.5"},
    {.name = "offset", .type = QD_PARAM_NUMBER, .min = -HUGE_VAL, .max = HUGE_VAL, .dflt = "0"},
    {.name = "seed", .type = QD_PARAM_INT, .min = -HUGE_VAL, .max = HUGE_VAL, .dflt = "1"},
    {.name = "quick", .type = QD_PARAM_BOOL, .dflt = "false"},
    {.name = "block_scale", .type = QD_PARAM_ENUM, .choices = rules, .n_choices = 2, .dflt = "mse"},
    {.name = "method", .type = QD_PARAM_ENUM, .choices = only, .n_choices = 1, .dflt = "rtn", .visible = false},
    {.name = "note", .type = QD_PARAM_STRING, .dflt = ""},
};
static const qd_template with_params = {.id = "t", .params = params, .n_params = sizeof params / sizeof params[0]};

static void defaults_hold_until_they_are_set(void **state)
{
    (void)state;
    qd_arena arena = {0};
    qd_values v = {0};
    qd_err err = {0};
    const char *const settings[] = {"bits=06", "block_scale=minmax", "note=a=b", "bits=8", "method=rtn"};
    assert_int_equal(qd_values_resolve(&with_params, NULL, 0, &arena, &v, &err), QD_OK);
    assert_string_equal(qd_values_get(&v, "bits"), "4");
    assert_string_equal(qd_values_get(&v, "note"), "");
    assert_null(qd_values_get(&v, "absent"));
    if (qd_values_resolve(&with_params, settings, 5, &arena, &v, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_string_equal(qd_values_get(&v, "bits"), "8"); /* the last one holds */
    assert_string_equal(qd_values_get(&v, "block_scale"), "minmax");
    assert_string_equal(qd_values_get(&v, "note"), "a=b");
    assert_string_equal(qd_values_get(&v, "ratio"), "0.5");
    qd_arena_done(&arena);
}

static void a_value_has_one_spelling(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"bits=+04", "bits", "4"},
        {"ratio=3e-1", "ratio", "0.3"},
        {"ratio=.70", "ratio", "0.7"},
        {"ratio=1", "ratio", "1"},
        {"offset=-0.0", "offset", "0"},
        {"seed=-0", "seed", "0"},
        {"seed=-12", "seed", "-12"},
        {"quick=true", "quick", "true"},
        {"offset=1e300", "offset", "1e+300"},
        {"note= x ", "note", " x "},
        {"seed=9007199254740992", "seed", "9007199254740992"},
    };
    qd_arena arena = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qd_values v = {0};
        qd_err err = {0};
        if (qd_values_resolve(&with_params, rows[i], 1, &arena, &v, &err) != QD_OK) fail_msg("%s", err.msg);
        assert_string_equal(qd_values_get(&v, rows[i][1]), rows[i][2]);
    }
    qd_arena_done(&arena);
}

static void refuse(const qd_template *t, const char *setting, const char *sentence)
{
    qd_arena arena = {0};
    qd_values v = {0};
    qd_err err = {0};
    qd_code rc = qd_values_resolve(t, &setting, 1, &arena, &v, &err);
    if (rc != QD_E_INPUT) fail_msg("%s: found code %s", setting, qd_code_name(rc));
    assert_string_equal(err.msg, sentence);
    assert_null(v.tmpl);
    qd_arena_done(&arena);
}

static void what_is_not_a_value_is_refused_with_what_was_expected(void **state)
{
    (void)state;
#define BITS  "template t: parameter bits: expected a whole number from 2 to 8 in steps of 2, found "
#define RATIO "template t: parameter ratio: expected a number from 0 to 1 in steps of 0.1, found "
#define SEED  "template t: parameter seed: expected a whole number, found "
    static const char *const rows[][2] = {
        {"bits=3", BITS "\"3\""},
        {"bits=10", BITS "\"10\""},
        {"bits=0", BITS "\"0\""},
        {"bits=4.0", BITS "\"4.0\""},
        {"bits=four", BITS "\"four\""},
        {"bits=", BITS "\"\""},
        {"bits= 4", BITS "\" 4\""},
        {"bits=4-", BITS "\"4-\""},
        {"bits=99999999999999999999999999", BITS "\"99999999999999999999999999\""},
        {"seed=9007199254740993000", SEED "\"9007199254740993000\""},
        {"ratio=0.25", RATIO "\"0.25\""},
        {"ratio=1.1", RATIO "\"1.1\""},
        {"ratio=-0.1", RATIO "\"-0.1\""},
        {"ratio=nan", RATIO "\"nan\""},
        {"ratio=0x1", RATIO "\"0x1\""},
        {"offset=1e999", "template t: parameter offset: expected a number, found \"1e999\""},
        {"offset=inf", "template t: parameter offset: expected a number, found \"inf\""},
        {"quick=1", "template t: parameter quick: expected true or false, found \"1\""},
        {"block_scale=hessian", "template t: parameter block_scale: expected one of minmax, mse, found \"hessian\""},
        {"method=gptq", "template t: parameter method: expected rtn, found \"gptq\""},
        {"bits", "template t: expected a setting NAME=VALUE, found \"bits\""},
        {"bit=4",
         "template t: unknown parameter \"bit\" (known: bits, ratio, offset, seed, quick, block_scale, method, note)"},
        {"=4",
         "template t: unknown parameter \"\" (known: bits, ratio, offset, seed, quick, block_scale, method, note)"},
    };
    static const qd_template empty = {.id = "e"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) refuse(&with_params, rows[i][0], rows[i][1]);
    refuse(&empty, "bits=4", "template e: unknown parameter \"bits\" (it has none)");
}

static void a_text_beyond_its_limit_is_refused(void **state)
{
    (void)state;
    char setting[5 + 1025 + 1] = "note=";
    memset(setting + 5, 'x', 1025);
    const char *one = setting;
    qd_arena arena = {0};
    qd_values v = {0};
    qd_err err = {0};
    assert_int_equal(qd_values_resolve(&with_params, &one, 1, &arena, &v, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "expected at most 1024 bytes"));
    setting[5 + 1024] = '\0';
    assert_int_equal(qd_values_resolve(&with_params, &one, 1, &arena, &v, &err), QD_OK);
    qd_arena_done(&arena);
}

static void each_scope_takes_its_roles(void **state)
{
    (void)state;
    static const struct {
        qd_role role;
        const char *module;
        bool linears, mlp, experts;
    } rows[] = {
        {QD_ROLE_ATTN, "model.layers.0.self_attn.q_proj", true, false, false},
        {QD_ROLE_LINEAR_ATTN, "model.layers.0.linear_attn.in_proj_z", true, false, false},
        {QD_ROLE_MLP, "model.layers.0.mlp.up_proj", true, true, false},
        {QD_ROLE_SHARED_EXPERT, "model.layers.0.mlp.shared_expert.up_proj", true, true, false},
        {QD_ROLE_EXPERT, "model.layers.0.mlp.experts.3.up_proj", true, true, true},
        {QD_ROLE_LINEAR_OTHER, "model.layers.0.self_attn.q_proj", true, false, false},
        {QD_ROLE_LINEAR_OTHER, "model.layers.0.mlp.dense_h_to_4h", true, true, false},
        {QD_ROLE_LINEAR_OTHER, "layers.0.feed_forward.w1", true, true, false},
        {QD_ROLE_LINEAR_OTHER, "transformer.blocks.0.ffn.up_proj", true, true, false},
        {QD_ROLE_LINEAR_OTHER, "model.layers.0.moe.experts.3.w1", true, true, true},
        {QD_ROLE_LINEAR_OTHER, "model.layers.0.shared_experts.w1", true, true, false},
        {QD_ROLE_HEAD, "lm_head", false, false, false},
        {QD_ROLE_EMBED, "model.embed_tokens", false, false, false},
        {QD_ROLE_ROUTER, "model.layers.0.mlp.gate", false, false, false},
        {QD_ROLE_GATE, "model.layers.0.mlp.shared_expert_gate", false, false, false},
        {QD_ROLE_SMALL, "model.layers.0.linear_attn.in_proj_a", false, false, false},
        {QD_ROLE_VISION, "model.visual.blocks.0.mlp.fc1", false, false, false},
        {QD_ROLE_MTP, "mtp.layers.0.mlp.experts.0.up_proj", false, false, false},
        {QD_ROLE_OTHER, "model.layers.0.mlp.extra", false, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qd_template t = {.scope = QD_SCOPE_LINEARS};
        assert_int_equal(qd_template_takes(&t, (int)rows[i].role, rows[i].module), rows[i].linears);
        t.scope = QD_SCOPE_MLP;
        assert_int_equal(qd_template_takes(&t, (int)rows[i].role, rows[i].module), rows[i].mlp);
        t.scope = QD_SCOPE_EXPERTS;
        assert_int_equal(qd_template_takes(&t, (int)rows[i].role, rows[i].module), rows[i].experts);
    }
}

static void exclusions_leave_modules_out(void **state)
{
    (void)state;
    static const char *const globs[] = {"*.layers.0.*", "*.down_proj"};
    const qd_template t = {.scope = QD_SCOPE_LINEARS, .exclude = globs, .n_exclude = 2};
    assert_false(qd_template_takes(&t, QD_ROLE_MLP, "model.layers.0.mlp.up_proj"));
    assert_true(qd_template_takes(&t, QD_ROLE_MLP, "model.layers.10.mlp.up_proj"));
    assert_false(qd_template_takes(&t, QD_ROLE_MLP, "model.layers.10.mlp.down_proj"));
}

static void memory_can_run_out(void **state)
{
    (void)state;
    static const char *const settings[] = {"bits=6", "absent=1"};
    const qd_code last[] = {QD_OK, QD_E_INPUT};
    for (size_t i = 0; i < 2; i++) {
        unsigned long n = 0;
        for (qd_code rc = QD_E_NO_MEMORY; rc == QD_E_NO_MEMORY;) {
            qd_arena arena = {0};
            qd_values v = {0};
            qd_err err = {0};
            qd_fault_arm(QD_FAULT_ALLOC, ++n, 12);
            rc = qd_values_resolve(&with_params, &settings[i], 1, &arena, &v, &err);
            qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
            assert_true(rc == QD_E_NO_MEMORY || rc == last[i]);
            qd_arena_done(&arena);
        }
        assert_true(n > 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold_until_they_are_set),
        cmocka_unit_test(a_value_has_one_spelling),
        cmocka_unit_test(what_is_not_a_value_is_refused_with_what_was_expected),
        cmocka_unit_test(a_text_beyond_its_limit_is_refused),
        cmocka_unit_test(each_scope_takes_its_roles),
        cmocka_unit_test(exclusions_leave_modules_out),
        cmocka_unit_test(memory_can_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
