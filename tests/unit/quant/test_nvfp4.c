/* test_nvfp4.c -- golden blocks of compressed-tensors, global scales at both ends, decoding, and what the search gains.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "gpu/dev.h"
#include "quant/nvfp4.h"
#include "tests/unit/gpu/patterns.h"

#include <float.h>
#include <stdlib.h>

enum {
    COPIES = 35, /* whole groups of 8 and of 16 lanes and a rest */
    N_BLOCKS = 512
};

static const qd_dtype k_dtypes[] = {QD_BF16, QD_F16, QD_F32};

static json_t *golden(void)
{
    json_t *v = NULL;
    qd_err err = {0};
    if (qd_json_load(QD_TEST_SOURCE_DIR "/tests/golden/nvfp4_vectors.json", 1 << 20, &v, &err) != QD_OK)
        fail_msg("%s", err.msg);
    return v;
}

static uint32_t hex_of(const json_t *v)
{
    assert_true(json_is_string(v));
    return (uint32_t)strtoul(json_string_value(v), NULL, 16);
}

static uint64_t int_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    assert_true(json_is_integer(v));
    return (uint64_t)json_integer_value(v);
}

static void the_codecs_equal_the_golden_scalars(void **state)
{
    (void)state;
    json_t *v = golden();
    const json_t *e2 = json_object_get(v, "e2m1_scalar"), *e4 = json_object_get(v, "e4m3_scalar");
    assert_true(json_array_size(e2) >= 50 && json_array_size(e4) >= 40);
    for (size_t i = 0; i < json_array_size(e2); i++) {
        const json_t *o = json_array_get(e2, i);
        assert_int_equal(qd_e2m1_from_f32(qd_bits_f32(hex_of(json_object_get(o, "bits")))), int_of(o, "hw"));
    }
    for (size_t i = 0; i < json_array_size(e4); i++) {
        const json_t *o = json_array_get(e4, i);
        assert_int_equal(qd_e4m3_from_f32(qd_bits_f32(hex_of(json_object_get(o, "bits")))), int_of(o, "sat"));
    }
    json_decref(v);
}

/* Returns false for a block with a NaN or an infinity, which is refused before it gets here. */
static bool load_block(const json_t *o, uint16_t *w, float *ret_amax)
{
    const json_t *hex = json_object_get(o, "w_bf16");
    assert_int_equal(json_array_size(hex), 16);
    *ret_amax = 0.0f;
    for (size_t i = 0; i < 16; i++) {
        w[i] = (uint16_t)hex_of(json_array_get(hex, i));
        float a = fabsf(qd_bf16_to_f32(w[i]));
        if (!(a <= FLT_MAX)) return false;
        if (a > *ret_amax) *ret_amax = a;
    }
    return true;
}

static void check_golden_block(qd_dev *d, const json_t *o, const uint16_t *block, float amax)
{
    static const qd_nvfp4_recipe ct = {QD_RULE_MINMAX, QD_SCALE_CT_EXACT};
    const json_t *want = json_object_get(o, "ct"), *packed = json_object_get(want, "packed");
    float gs = qd_nvfp4_global(&ct, QD_BF16, amax);
    assert_int_equal(qd_f32_bits(gs), hex_of(json_object_get(want, "global_scale_bits")));
    uint16_t w[COPIES * 16];
    uint8_t codes[COPIES * 8], scales[COPIES];
    for (size_t i = 0; i < COPIES; i++) memcpy(w + i * 16, block, 32);
    qd_nvfp4_tile t = {.dtype = QD_BF16,
                       .arith = qd_nvfp4_arith_of(&ct, QD_BF16),
                       .gs = gs,
                       .w = w,
                       .n_blocks = COPIES,
                       .codes = codes,
                       .scales = scales};
    qd_nvfp4_sums sums;
    assert_int_equal(d->ops->nvfp4_encode(d, &t, &sums, NULL), QD_OK);
    for (size_t i = 0; i < COPIES; i++) {
        assert_int_equal(scales[i], int_of(want, "scale_byte"));
        for (size_t j = 0; j < 8; j++)
            assert_int_equal(codes[i * 8 + j], json_integer_value(json_array_get(packed, j)));
    }
}

static void ct_exact_equals_compressed_tensors_on_every_finite_golden_block(void **state)
{
    (void)state;
    static const char *const isas[] = {"scalar", "generic", "generic16", "avx2", "avx512"};
    json_t *v = golden();
    const json_t *blocks = json_object_get(v, "blocks");
    unsigned n = 0;
    for (int i = 0; i < 5; i++) {
        qd_dev *d = NULL;
        qd_err err;
        qd_code rc = qd_dev_open_host(isas[i], &d, &err);
        if (i >= 3 && rc == QD_E_UNSUPPORTED) continue;
        assert_int_equal(rc, QD_OK);
        for (size_t b = 0; b < json_array_size(blocks); b++) {
            const json_t *o = json_array_get(blocks, b);
            uint16_t w[16];
            float amax;
            if (!load_block(o, w, &amax)) continue;
            if (strcmp(json_string_value(json_object_get(o, "amax")), "own") != 0) amax = 64.0f;
            check_golden_block(d, o, w, amax);
            n++;
        }
        qd_dev_free(d);
    }
    assert_true(n >= 3 * 22);
    json_decref(v);
}

static void ct_exact_global_scales_equal_the_reference(void **state)
{
    static const struct {
        qd_dtype dtype;
        float amax;
        uint32_t bits;
    } k_cases[] = {
        {QD_BF16, 0x0.0p+0f, 0x3f800000},
        {QD_BF16, 0x1.0000000000000p-133f, 0x3f800000},
        {QD_BF16, 0x1.0000000000000p-14f, 0x4c280000},
        {QD_BF16, 0x1.f800000000000p-15f, 0x4c2b0000},
        {QD_BF16, 0x1.9400000000000p-7f, 0x48550000},
        {QD_BF16, 0x1.3000000000000p-5f, 0x478e0000},
        {QD_BF16, 0x1.0000000000000p+0f, 0x45280000},
        {QD_BF16, 0x1.8000000000000p+2f, 0x43e00000},
        {QD_BF16, 0x1.0000000000000p+6f, 0x42280000},
        {QD_BF16, 0x1.0000000000000p+16f, 0x3d280000},
        {QD_BF16, 0x1.fe00000000000p+127f, 0x05280000},
        {QD_F16, 0x0.0p+0f, 0x3f800000},
        {QD_F16, 0x0.0p+0f, 0x3f800000},
        {QD_F16, 0x1.0000000000000p-14f, 0x3f800000},
        {QD_F16, 0x1.f780000000000p-15f, 0x3f800000},
        {QD_F16, 0x1.9300000000000p-7f, 0x3f800000},
        {QD_F16, 0x1.3000000000000p-5f, 0x3f800000},
        {QD_F16, 0x1.0000000000000p+0f, 0x45280000},
        {QD_F16, 0x1.8000000000000p+2f, 0x43e00000},
        {QD_F16, 0x1.0000000000000p+6f, 0x42280000},
        {QD_F16, 0x1.ffc0000000000p+15f, 0x3d280000},
        {QD_F32, 0x0.0p+0f, 0x3f800000},
        {QD_F32, 0x1.16c2000000000p-133f, 0x3f800000},
        {QD_F32, 0x1.0000000000000p-14f, 0x4c280000},
        {QD_F32, 0x1.f751040000000p-15f, 0x4c2ae601},
        {QD_F32, 0x1.930be00000000p-7f, 0x48556a27},
        {QD_F32, 0x1.2fec560000000p-5f, 0x478d826b},
        {QD_F32, 0x1.0000000000000p+0f, 0x45280000},
        {QD_F32, 0x1.8000000000000p+2f, 0x43e00000},
        {QD_F32, 0x1.0000000000000p+6f, 0x42280000},
        {QD_F32, 0x1.ffc0000000000p+15f, 0x3d281503},
        {QD_F32, 0x1.fe00000000000p+127f, 0x0528a8a8},
    };
    (void)state;
    const qd_nvfp4_recipe ct = {QD_RULE_MINMAX, QD_SCALE_CT_EXACT};
    for (size_t i = 0; i < sizeof k_cases / sizeof k_cases[0]; i++)
        assert_int_equal(qd_f32_bits(qd_nvfp4_global(&ct, k_cases[i].dtype, k_cases[i].amax)), k_cases[i].bits);
}

static void a_global_scale_is_a_normal_number_with_the_rules_headroom(void **state)
{
    static const float top[QD_RULE_COUNT] = {2688.0f, 1536.0f, 1344.0f};
    (void)state;
    for (int rule = 0; rule < QD_RULE_COUNT; rule++) {
        const qd_nvfp4_recipe r = {(qd_nvfp4_rule)rule, QD_SCALE_FP32};
        assert_true(qd_nvfp4_global(&r, QD_F32, 0.0f) == 1.0f);
        for (uint32_t b = 1; b < 0x7f800000u; b += b < 4096 ? 1 : 99991) {
            float amax = qd_bits_f32(b), gs = qd_nvfp4_global(&r, QD_F32, amax);
            assert_true(gs >= FLT_MIN && gs <= 0x1p110f);
            assert_true(1.0f / gs >= FLT_MIN && 1.0f / gs <= FLT_MAX);
            assert_true(amax * gs <= top[rule] * 1.0000002f);
            if (gs < 0x1p110f) assert_true(amax * gs >= top[rule] * 0.9999998f);
        }
        float gs = qd_nvfp4_global(&r, QD_F32, FLT_MAX);
        assert_true(gs >= FLT_MIN && FLT_MAX * gs > 1000.0f);
    }
}

static void a_zero_tensor_gets_finite_scales_and_zero_codes(void **state)
{
    (void)state;
    static const qd_nvfp4_recipe k_recipes[] = {{QD_RULE_MINMAX, QD_SCALE_FP32},
                                                {QD_RULE_FOUR_OVER_SIX, QD_SCALE_FP32},
                                                {QD_RULE_MSE, QD_SCALE_FP32},
                                                {QD_RULE_MINMAX, QD_SCALE_CT_EXACT}};
    qd_dev *d = NULL;
    qd_err err;
    assert_int_equal(qd_dev_open_host(NULL, &d, &err), QD_OK);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 3; k++) {
            const uint32_t w[COPIES * 16] = {0};
            uint8_t codes[COPIES * 8], scales[COPIES];
            float gs = qd_nvfp4_global(&k_recipes[i], k_dtypes[k], 0.0f), out[COPIES * 16];
            qd_nvfp4_tile t = {.dtype = (int)k_dtypes[k],
                               .rule = k_recipes[i].rule,
                               .arith = qd_nvfp4_arith_of(&k_recipes[i], k_dtypes[k]),
                               .gs = gs,
                               .w = w,
                               .n_blocks = COPIES,
                               .codes = codes,
                               .scales = scales};
            qd_nvfp4_sums sums;
            assert_true(gs == 1.0f); /* ModelOpt stores 1 / gs: 1, not 0 */
            assert_int_equal(d->ops->nvfp4_encode(d, &t, &sums, NULL), QD_OK);
            for (size_t b = 0; b < COPIES; b++) assert_int_equal(scales[b], 0x20);
            for (size_t b = 0; b < COPIES * 8; b++) assert_int_equal(codes[b], 0);
            assert_int_equal(sums.n_zero, COPIES);
            assert_int_equal(sums.n_clipped, 0);
            assert_true(sums.err2 == 0.0 && sums.w2 == 0.0);
            qd_nvfp4_decode(codes, scales, gs, COPIES, out);
            for (size_t j = 0; j < COPIES * 16; j++) assert_true(out[j] == 0.0f);
        }
    qd_dev_free(d);
}

static void decoding_is_code_times_scale_over_the_global_scale(void **state)
{
    static const float magnitude[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    static const uint8_t codes[8] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe}; /* 0..15, low nibble first */
    (void)state;
    for (unsigned s = 0; s <= 0x7e; s++) {
        double scale = s < 8 ? ldexp(s, -9) : ldexp(1.0 + (s & 7) / 8.0, (int)(s >> 3) - 7);
        const uint8_t byte = (uint8_t)s;
        float out[16], gs = 11.7f;
        uint16_t bf16[16];
        qd_nvfp4_decode(codes, &byte, gs, 1, out);
        qd_nvfp4_decode_bf16(codes, &byte, gs, 1, bf16);
        for (unsigned i = 0; i < 16; i++) {
            float want = (float)((double)magnitude[i & 7] * scale) / gs;
            assert_true(out[i] == (i < 8 ? want : -want));
            assert_int_equal(bf16[i], qd_bf16_from_f32(out[i]));
        }
    }
}

typedef struct quality {
    double err2, w2;
} quality;

/* Squared error of a whole tensor; the encoder's sums are compared with what decoding gives. */
static quality quality_of(qd_dev *d, const qd_nvfp4_recipe *r, qd_dtype dtype, const void *w, const float *exact)
{
    static uint8_t codes[N_BLOCKS * 8], scales[N_BLOCKS];
    static float out[N_BLOCKS * 16];
    float amax;
    bool finite;
    qd_nvfp4_sums sums;
    assert_int_equal(d->ops->amax(d, dtype, w, N_BLOCKS * 16, &amax, &finite, NULL), QD_OK);
    assert_true(finite);
    float gs = qd_nvfp4_global(r, dtype, amax);
    qd_nvfp4_tile t = {.dtype = (int)dtype,
                       .rule = r->rule,
                       .arith = qd_nvfp4_arith_of(r, dtype),
                       .gs = gs,
                       .w = w,
                       .n_blocks = N_BLOCKS,
                       .codes = codes,
                       .scales = scales};
    assert_int_equal(d->ops->nvfp4_encode(d, &t, &sums, NULL), QD_OK);
    qd_nvfp4_decode(codes, scales, gs, N_BLOCKS, out);
    quality q = {0};
    for (size_t i = 0; i < N_BLOCKS * 16; i++) {
        double e = (double)exact[i] - (double)out[i];
        q.err2 += e * e;
        q.w2 += (double)exact[i] * (double)exact[i];
    }
    double g2 = (double)gs * (double)gs;
    assert_true(fabs(sums.err2 / g2 - q.err2) <= 1e-4 * q.err2);
    assert_true(fabs(sums.w2 / g2 - q.w2) <= 1e-4 * q.w2);
    return q;
}

static void the_search_is_no_worse_than_min_max_in_any_tensor(void **state)
{
    static const pattern k_patterns[] = {P_NORMAL, P_SPREADS, P_HEAVY, P_GRID, P_OUTLIER};
    static const qd_nvfp4_recipe mse = {QD_RULE_MSE, QD_SCALE_FP32}, four = {QD_RULE_FOUR_OVER_SIX, QD_SCALE_FP32},
                                 minmax = {QD_RULE_MINMAX, QD_SCALE_FP32}, ct = {QD_RULE_MINMAX, QD_SCALE_CT_EXACT};
    static unsigned char w[N_BLOCKS * 64];
    static float exact[N_BLOCKS * 16];
    (void)state;
    qd_dev *d = NULL;
    qd_err err;
    assert_int_equal(qd_dev_open_host(NULL, &d, &err), QD_OK);
    for (size_t p = 0; p < sizeof k_patterns / sizeof k_patterns[0]; p++)
        for (size_t k = 0; k < 3; k++)
            for (uint64_t seed = 0; seed < 20; seed++) {
                pattern_fill(k_patterns[p], k_dtypes[k], N_BLOCKS, seed, w);
                for (size_t i = 0; i < N_BLOCKS * 16; i++) exact[i] = pattern_load(k_dtypes[k], w, i);
                quality a = quality_of(d, &mse, k_dtypes[k], w, exact), b = quality_of(d, &four, k_dtypes[k], w, exact),
                        c = quality_of(d, &minmax, k_dtypes[k], w, exact),
                        e = quality_of(d, &ct, k_dtypes[k], w, exact);
                assert_true(a.err2 <= c.err2 && a.err2 <= e.err2);
                if (k_patterns[p] == P_NORMAL) assert_true(b.err2 < c.err2 && a.err2 < 0.93 * c.err2);
                if (k_patterns[p] == P_NORMAL) assert_true(c.err2 < 0.012 * c.w2 && a.err2 > 0.004 * a.w2);
            }
    qd_dev_free(d);
}

static void ct_exact_with_a_search_is_refused_with_both_settings_named(void **state)
{
    (void)state;
    for (int rule = 0; rule < QD_RULE_COUNT; rule++) {
        qd_nvfp4_recipe r = {(qd_nvfp4_rule)rule, QD_SCALE_FP32};
        qd_err err = {0};
        assert_int_equal(qd_nvfp4_recipe_check(&r, &err), QD_OK);
        r.arith = QD_SCALE_CT_EXACT;
        assert_int_equal(qd_nvfp4_recipe_check(&r, &err), rule == QD_RULE_MINMAX ? QD_OK : QD_E_USAGE);
        if (rule == QD_RULE_MINMAX) continue;
        assert_non_null(strstr(err.msg, "ct-exact"));
        assert_non_null(strstr(err.msg, rule == QD_RULE_MSE ? "mse" : "four_over_six"));
    }
    qd_nvfp4_recipe r = {QD_RULE_COUNT, QD_SCALE_FP32};
    assert_int_equal(qd_nvfp4_recipe_check(&r, NULL), QD_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_codecs_equal_the_golden_scalars),
        cmocka_unit_test(ct_exact_equals_compressed_tensors_on_every_finite_golden_block),
        cmocka_unit_test(ct_exact_global_scales_equal_the_reference),
        cmocka_unit_test(a_global_scale_is_a_normal_number_with_the_rules_headroom),
        cmocka_unit_test(a_zero_tensor_gets_finite_scales_and_zero_codes),
        cmocka_unit_test(decoding_is_code_times_scale_over_the_global_scale),
        cmocka_unit_test(the_search_is_no_worse_than_min_max_in_any_tensor),
        cmocka_unit_test(ct_exact_with_a_search_is_refused_with_both_settings_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
