/* test_golden.c -- the golden vectors: scalar tables, and every finite block in compressed-tensors' arithmetic, by the
 * reference and by the kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/args.h"
#include "gpu/cuda/launch.h"
#include "gpu/kernels.h"
#include "quant/nvfp4.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int load(void **state)
{
    json_error_t e;
    json_t *root = json_load_file(QD_TEST_SOURCE_DIR "/tests/golden/nvfp4_vectors.json", 0, &e);
    if (root == NULL) print_error("%s:%d: %s\n", e.source, e.line, e.text);
    *state = root;
    return root == NULL ? -1 : 0;
}

static int unload(void **state)
{
    json_decref(*state);
    return 0;
}

static uint32_t hex(const json_t *v)
{
    assert_true(json_is_string(v));
    return (uint32_t)strtoul(json_string_value(v), NULL, 16);
}

static uint8_t byte(const json_t *v)
{
    assert_true(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < 256);
    return (uint8_t)json_integer_value(v);
}

static void e2m1_codes_are_the_hardware_s(void **state)
{
    const json_t *rows = json_object_get(*state, "e2m1_scalar");
    assert_true(json_array_size(rows) > 50);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const float x = qd_bits_f32(hex(json_object_get(row, "bits")));
        const uint8_t want = byte(json_object_get(row, "hw"));
        uint32_t code;
        assert_int_equal(qd_e2m1_from_f32(x), want);
        if (isnan(x)) continue;
        const float r = qd_e2m1_round(fminf(fabsf(x), QD_E2M1_MAX), &code);
        assert_int_equal(code, want & 7u);
        assert_true(qd_f32_bits(r) == qd_f32_bits(qd_e2m1_to_f32(want & 7u)));
    }
}

static void e4m3_codes_are_clamped_then_rounded_to_even(void **state)
{
    const json_t *rows = json_object_get(*state, "e4m3_scalar");
    assert_true(json_array_size(rows) > 40);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const float x = qd_bits_f32(hex(json_object_get(row, "bits")));
        assert_int_equal(qd_e4m3_from_f32(x), byte(json_object_get(row, "sat")));
    }
}

typedef struct golden_block {
    _Alignas(16) uint16_t w[QD_NVFP4_BLOCK];
    float gs, amax;
    int own_amax, finite;
    _Alignas(8) uint8_t codes[8];
    uint8_t scale;
} golden_block;

static golden_block read_block(const json_t *row)
{
    golden_block b = {.finite = 1};
    const json_t *w = json_object_get(row, "w_bf16"), *ct = json_object_get(row, "ct");
    const json_t *packed = json_object_get(ct, "packed");
    assert_int_equal(json_array_size(w), QD_NVFP4_BLOCK);
    assert_int_equal(json_array_size(packed), 8);
    for (size_t i = 0; i < QD_NVFP4_BLOCK; i++) {
        b.w[i] = (uint16_t)hex(json_array_get(w, i));
        const float x = fabsf(qd_bf16_to_f32(b.w[i]));
        if (!isfinite(x)) b.finite = 0;
        if (x > b.amax) b.amax = x;
    }
    for (size_t i = 0; i < 8; i++) b.codes[i] = byte(json_array_get(packed, i));
    b.own_amax = strcmp(json_string_value(json_object_get(row, "amax")), "own") == 0;
    if (!b.own_amax) b.amax = 64.0f;
    b.gs = qd_bits_f32(hex(json_object_get(ct, "global_scale_bits")));
    b.scale = byte(json_object_get(ct, "scale_byte"));
    return b;
}

static void every_finite_block_is_compressed_tensors(void **state)
{
    const json_t *rows = json_object_get(*state, "blocks");
    const qd_nvfp4_recipe recipe = {QD_RULE_MINMAX, QD_SCALE_CT_EXACT};
    size_t n_finite = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        golden_block b = read_block(json_array_get(rows, i));
        if (!b.finite) continue;
        n_finite++;
        assert_true(qd_f32_bits(qd_nvfp4_global(&recipe, QD_BF16, b.amax)) == qd_f32_bits(b.gs));

        float w[QD_NVFP4_BLOCK], err2 = -1.0f, w2 = -1.0f;
        _Alignas(8) uint8_t codes[8];
        uint8_t scale, flags = 0xee;
        for (size_t k = 0; k < QD_NVFP4_BLOCK; k++) w[k] = qd_bf16_to_f32(b.w[k]);
        qd_nvfp4_block(w, NULL, b.gs, QD_RULE_MINMAX, QD_ARITH_CT_BF16, codes, &scale);
        assert_int_equal(scale, b.scale);
        assert_memory_equal(codes, b.codes, sizeof codes);

        memset(codes, 0xee, sizeof codes);
        const qd_nvfp4_tile tile = {.dtype = QD_BF16,
                                    .arith = QD_ARITH_CT_BF16,
                                    .gs = b.gs,
                                    .w = b.w,
                                    .n_blocks = 1,
                                    .codes = codes,
                                    .scales = &scale};
        const qd_cuda_block_sums sums = {&err2, &w2, &flags};
        scale = 0xee;
        assert_int_equal(qd_cuda_nvfp4_encode(&tile, &sums, NULL), 0);
        assert_int_equal(scale, b.scale);
        assert_memory_equal(codes, b.codes, sizeof codes);
        assert_true(err2 >= 0.0f && w2 >= 0.0f && flags < 4);
    }
    assert_true(n_finite >= 20);
}

static void blocks_that_are_not_finite_show_in_amax(void **state)
{
    const json_t *rows = json_object_get(*state, "blocks");
    size_t n_bad = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        golden_block b = read_block(json_array_get(rows, i));
        uint32_t bits = 0;
        assert_int_equal(qd_cuda_amax(QD_BF16, b.w, QD_NVFP4_BLOCK, &bits, NULL), 0);
        assert_int_equal(bits >= 0x7f800000u, !b.finite);
        if (b.finite && b.own_amax) assert_true(bits == qd_f32_bits(b.amax));
        n_bad += !b.finite;
    }
    assert_true(n_bad > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e2m1_codes_are_the_hardware_s),
        cmocka_unit_test(e4m3_codes_are_clamped_then_rounded_to_even),
        cmocka_unit_test(every_finite_block_is_compressed_tensors),
        cmocka_unit_test(blocks_that_are_not_finite_show_in_amax),
    };
    return cmocka_run_group_tests_name("golden", tests, load, unload);
}
