/* test_stats.c -- statistics of a linear's input against plain sums; what W4A4 makes of activations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "gpu/host_blocks.h"
#include "gpu/kernels.h"
#include "quant/stats.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum {
    K = 48,
    TOKENS = 37
};

/* Values over many binades, a few of them large; the same for each run. */
static void fill(float *x, uint64_t n)
{
    uint32_t r = 12345;
    for (uint64_t i = 0; i < n; i++) {
        r = r * 1664525u + 1013904223u;
        x[i] = ldexpf((float)(int32_t)r, -31 - (int)(r >> 8 & 7u));
        if (i % 211 == 7) x[i] *= 40.0f;
        x[i] = qd_bf16_to_f32(qd_bf16_from_f32(x[i])); /* the same numbers in both dtypes */
    }
}

static void sums_and_amax_are_the_plain_ones(void **state)
{
    (void)state;
    float x[TOKENS * K], amax = 0;
    double sum2[K] = {0};
    uint32_t bits[TOKENS * K / 16];
    qd_err e = {0};
    qd_input_stats s = {0};
    fill(x, TOKENS * K);
    for (int i = 0; i < TOKENS * K; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
        sum2[i % K] += (double)x[i] * (double)x[i];
    }
    assert_int_equal(qd_input_stats_init(K, true, &s, &e), QD_OK);
    qd_input_stats_add(&s, x, TOKENS, bits);
    assert_true(s.amax == amax && qd_input_amax(&s, QD_INPUT_MINMAX) == amax);
    assert_int_equal(s.n_tokens, TOKENS);
    assert_true(s.bad_token == UINT64_MAX);
    assert_memory_equal(s.sum2, sum2, sizeof sum2);
    for (int b = 0; b < TOKENS * K / 16; b++) {
        float m = 0;
        for (int i = 0; i < 16; i++) m = fmaxf(m, fabsf(x[b * 16 + i]));
        assert_int_equal(bits[b], qd_f32_bits(m));
    }
    qd_input_stats_done(&s);
}

static void parts_merged_in_order_do_not_depend_on_who_made_them(void **state)
{
    (void)state;
    float x[TOKENS * K];
    uint32_t bits[TOKENS * K / 16];
    qd_err e = {0};
    qd_input_stats whole = {0}, part[4] = {{0}};
    fill(x, TOKENS * K);
    x[20 * K + 17] = NAN;
    assert_int_equal(qd_input_stats_init(K, true, &whole, &e), QD_OK);
    for (int p = 3; p >= 0; p--) { /* made in any order */
        uint64_t first = (uint64_t)p * 10, n = p == 3 ? TOKENS - 30 : 10;
        assert_int_equal(qd_input_stats_init(K, true, &part[p], &e), QD_OK);
        qd_input_stats_add(&part[p], x + first * K, n, bits);
    }
    for (int p = 0; p < 4; p++) qd_input_stats_merge(&whole, &part[p]);
    assert_int_equal(whole.n_tokens, TOKENS);
    assert_int_equal(whole.bad_token, 20);
    assert_int_equal(whole.bad_channel, 17);
    uint64_t blocks = 0;
    for (int b = 0; b < QD_STATS_BINS; b++) blocks += whole.block_amax_bins[b];
    assert_int_equal(blocks, TOKENS * K / 16);
    for (int p = 0; p < 4; p++) qd_input_stats_done(&part[p]);
    qd_input_stats_done(&whole);
}

static void the_percentile_leaves_out_one_block_in_ten_thousand(void **state)
{
    (void)state;
    enum {
        N = 30000
    };
    qd_err e = {0};
    qd_input_stats s = {0};
    assert_int_equal(qd_input_stats_init(16, false, &s, &e), QD_OK);
    for (uint64_t t = 0; t < N; t++) {
        float x[16] = {0};
        x[t % 16] = t < 2 ? 100.0f : 1.0f + (float)(t % 100) * 0.01f; /* two of 30,000 are far out */
        uint32_t bits;
        qd_input_stats_add(&s, x, 1, &bits);
    }
    float a = qd_input_amax(&s, QD_INPUT_PERCENTILE);
    assert_true(a >= 1.99f && a < 1.99f * 1.07f); /* the upper edge of a sixteenth of an octave */
    assert_true(qd_input_amax(&s, QD_INPUT_MINMAX) == 100.0f);
    qd_input_stats_done(&s);

    assert_int_equal(qd_input_stats_init(16, false, &s, &e), QD_OK);
    assert_true(qd_input_amax(&s, QD_INPUT_PERCENTILE) == 0.0f); /* nothing seen */
    float one[16] = {0};
    one[3] = -0.7f;
    uint32_t bits;
    qd_input_stats_add(&s, one, 1, &bits);
    assert_true(qd_input_amax(&s, QD_INPUT_PERCENTILE) == 0.7f); /* never above what was seen */
    qd_input_stats_done(&s);
}

/* fp4(x * gs / c) * c / gs in double, c = E4M3(amax * gs / 6). */
static void plain_fake_quant(double gs, const float *x, double *out)
{
    double amax = 0;
    for (int i = 0; i < 16; i++) amax = fmax(amax, fabs((double)x[i]));
    double c = (double)qd_e4m3_to_f32(qd_e4m3_from_f32((float)(amax * gs / 6)));
    if (c == 0) c = 0x1p-9;
    for (int i = 0; i < 16; i++)
        out[i] = (double)qd_e2m1_to_f32(qd_e2m1_from_f32((float)((double)x[i] * gs / c))) * c / gs;
}

static void activations_are_rounded_as_the_kernels_do(void **state)
{
    (void)state;
    float x[TOKENS * K], q[TOKENS * K];
    uint32_t bits[TOKENS * K / 16];
    uint64_t differ = 0;
    double err = 0;
    fill(x, TOKENS * K);
    for (int i = 32; i < 48; i++) x[i] = i % 2 == 0 ? 0.0f : -0.0f; /* a block of zeros */
    memcpy(q, x, sizeof q);
    qd_host_block_amax(q, TOKENS * K / 16, bits);
    qd_host_fake_quant(67.2f, bits, q, TOKENS * K / 16, q);
    for (int b = 0; b < TOKENS * K / 16; b++) {
        double want[16];
        float decoded[16];
        uint8_t codes[8] = {0}, scale;
        plain_fake_quant((double)67.2f, x + b * 16, want);
        (void)qd_nvfp4_block_fp32(x + b * 16, NULL, 67.2f, QD_RULE_MINMAX, codes, &scale);
        qd_nvfp4_decode(codes, &scale, 67.2f, 1, decoded);
        assert_memory_equal(decoded, q + b * 16, sizeof decoded); /* the bits of an encode, decoded */
        for (int i = 0; i < 16; i++) {
            double d = (double)x[b * 16 + i] - (double)q[b * 16 + i];
            differ += fabs(want[i] - (double)q[b * 16 + i]) > 1e-6 * fabs(want[i]);
            err += d * d;
        }
    }
    assert_true(differ <= 2); /* a tie that float32 rounds to the other side */
    assert_true(err > 0);
    double got = qd_host_fake_quant_error(67.2f, bits, x, TOKENS * K / 16);
    assert_true(fabs(got - err) <= 1e-5 * err);
}

static void the_global_scale_is_finite_for_any_amax(void **state)
{
    (void)state;
    const qd_nvfp4_recipe fp32 = {.rule = QD_RULE_MSE, .arith = QD_SCALE_FP32},
                          ct = {.rule = QD_RULE_MINMAX, .arith = QD_SCALE_CT_EXACT};
    const float amaxes[] = {0.0f, 0x1p-149f, 0x1p-126f, 1.0f, 3.0e38f};
    for (size_t i = 0; i < sizeof amaxes / sizeof amaxes[0]; i++) {
        float a = qd_input_global(&fp32, QD_BF16, amaxes[i]), b = qd_input_global(&ct, QD_BF16, amaxes[i]);
        assert_true(isfinite(a) && a > 0 && isfinite(b) && b > 0);
    }
    assert_true(qd_input_global(&fp32, QD_BF16, 2.0f) == 672.0f);
    assert_true(qd_input_global(&ct, QD_BF16, 2.0f) == 1344.0f);
}

static qd_input_errors errors_of(const float *x, uint64_t n)
{
    uint32_t bits[TOKENS * K / 16];
    qd_input_errors e;
    qd_host_block_amax(x, n / 16, bits);
    qd_input_errors_init(&e, bits, n / 16);
    qd_input_errors_add(&e, x, bits, n / 16);
    return e;
}

static void the_mse_amax_leaves_the_least_error_of_the_grid(void **state)
{
    (void)state;
    const qd_nvfp4_recipe fp32 = {.arith = QD_SCALE_FP32};
    float x[TOKENS * K], largest = 0;
    uint32_t bits[TOKENS * K / 16];
    fill(x, TOKENS * K);
    qd_host_block_amax(x, TOKENS * K / 16, bits);
    for (int i = 0; i < TOKENS * K; i++) largest = fmaxf(largest, fabsf(x[i]));
    qd_input_errors e = errors_of(x, TOKENS * K);
    float best = qd_input_errors_amax(&e);
    double least = qd_host_fake_quant_error(qd_input_global(&fp32, QD_BF16, best), bits, x, TOKENS * K / 16);
    int seen = 0;
    for (int j = -200; j < 200; j++) {
        float a = (float)pow(2.0, j / 4.0);
        if (a < largest * 0.26f || a > largest * 1.2f) continue;
        seen++;
        double other = qd_host_fake_quant_error(qd_input_global(&fp32, QD_BF16, a), bits, x, TOKENS * K / 16);
        assert_true(least <= other * (1 + 1e-6));
    }
    assert_true(seen >= 8);
    assert_true(best >= largest * 0.24f && best <= largest * 1.2f);
    /* clipping what is far out costs more than it saves */
    x[5] = 4096 * largest;
    e = errors_of(x, TOKENS * K);
    assert_true(qd_input_errors_amax(&e) >= x[5] / 2.01f);
    memset(x, 0, sizeof x);
    e = errors_of(x, TOKENS * K);
    assert_true(qd_input_errors_amax(&e) == 0.0f);
}

static void merged_errors_are_those_of_all_inputs_together(void **state)
{
    (void)state;
    float x[TOKENS * K];
    uint64_t half = (uint64_t)(TOKENS / 2) * K;
    fill(x, TOKENS * K);
    for (uint64_t i = 0; i < half; i++) x[i] *= 0.01f; /* of another grid */
    qd_input_errors whole = errors_of(x, TOKENS * K), sum = {0}, back = {0};
    const qd_input_errors a = errors_of(x, half), b = errors_of(x + half, TOKENS * K - half), none = {0};
    qd_input_errors_merge(&sum, &none);
    qd_input_errors_merge(&sum, &a);
    qd_input_errors_merge(&sum, &b);
    qd_input_errors_merge(&back, &b);
    qd_input_errors_merge(&back, &a);
    assert_int_equal(sum.top, whole.top);
    assert_int_equal(back.top, whole.top);
    for (int i = 0; i < QD_INPUT_STEPS; i++) {
        assert_true(fabs(sum.err[i] - whole.err[i]) <= 1e-4 * whole.err[i]);
        assert_true(sum.err[i] == back.err[i]);
    }
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 2; n++) {
        qd_input_stats s = {0};
        qd_err e = {0};
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        assert_int_equal(qd_input_stats_init(K, true, &s, &e), QD_E_NO_MEMORY);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        assert_null(s.sum2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_amax_are_the_plain_ones),
        cmocka_unit_test(parts_merged_in_order_do_not_depend_on_who_made_them),
        cmocka_unit_test(the_percentile_leaves_out_one_block_in_ten_thousand),
        cmocka_unit_test(activations_are_rounded_as_the_kernels_do),
        cmocka_unit_test(the_global_scale_is_finite_for_any_amax),
        cmocka_unit_test(the_mse_amax_leaves_the_least_error_of_the_grid),
        cmocka_unit_test(merged_errors_are_those_of_all_inputs_together),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
