/* test_forward.c -- the kernels of a forward pass against the host's operations (gpu/ops.h): the same bits, rounded or
 * not, over sizes on and beside the edges of blocks, in blocks of several sizes and every order of threads; ties of
 * BF16, infinities and NaNs among the numbers. Buffers end where their data ends: what is read or written past them
 * ends the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/forward.h"
#include "gpu/elements.h"
#include "gpu/host_blocks.h"
#include "gpu/ops.h"
#include "quant/stats.h"
#include "tests/kernel/fixture.h"
#include "tests/kernel/inputs.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <string.h>

static void rows_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t ldx = n + 3, ldy = n + 1, all = rows * ldx;
    const float *x0 = some(f, all), *y = some(f, rows * ldy), *gate = some(f, rows);
    float *x[2] = {copy_of(f, x0, all), copy_of(f, x0, all)};
    const qd_ops *ops = f->lane.ops;
    ops->add(&f->lane, x[0], ldx, y, ldy, rows, n);
    OK(qd_cuda_add(NULL, bf16, x[1], ldx, y, ldy, rows, n));
    same(x[0], x[1], all);
    for (int i = 0; i < 2; i++) memcpy(x[i], x0, all * sizeof *x0);
    ops->silu_mul(&f->lane, x[0], ldx, y, ldy, rows, n);
    OK(qd_cuda_silu_mul(NULL, bf16, x[1], ldx, y, ldy, rows, n));
    same(x[0], x[1], all);
    for (int i = 0; i < 2; i++) memcpy(x[i], x0, all * sizeof *x0);
    ops->gate_rows(&f->lane, x[0], ldx, gate, rows, n);
    OK(qd_cuda_gate_rows(NULL, bf16, x[1], ldx, gate, rows, n));
    same(x[0], x[1], all);
}

static void operations_of_rows_are_the_host_s(void **state)
{
    each(state, rows_pass);
}

static void heads_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t heads = rows % 4 + 1, head = n + 5, ldx = heads * head + 2, ldy = heads * n;
    const float *x0 = some(f, rows * ldx), *w = some(f, n), *gate = some(f, rows * ldy);
    float *y[2], *z[2];
    const qd_ops *ops = f->lane.ops;
    for (int i = 0; i < 2; i++) {
        y[i] = keep(f, rows * ldy * sizeof(float));
        z[i] = copy_of(f, x0, rows * ldx);
    }
    for (int plus_one = 0; plus_one < 2; plus_one++) {
        ops->rms_norm(&f->lane, x0, ldx, rows, heads, head, n, w, plus_one ? QD_NORM_PLUS_ONE : QD_NORM_PLAIN, 1e-6f,
                      y[0], ldy, n);
        OK(qd_cuda_rms_norm(NULL, bf16, x0, ldx, rows, heads, head, n, w, plus_one, 1e-6f, y[1], ldy, n));
        same(y[0], y[1], rows * ldy);
    }
    ops->gated_norm(&f->lane, y[0], gate, ldy, rows, heads, n, w, 1e-5f, y[0]);
    OK(qd_cuda_gated_norm(NULL, bf16, y[1], gate, ldy, rows, heads, n, w, 1e-5f, y[1]));
    same(y[0], y[1], rows * ldy);
    ops->copy(&f->lane, x0, ldx, head, rows, heads, n, y[0], ldy, n);
    OK(qd_cuda_copy(NULL, x0, ldx, head, rows, heads, n, y[1], ldy, n));
    same(y[0], y[1], rows * ldy);
    ops->gate(&f->lane, y[0], ldy, z[0], ldx, rows, heads, head, n);
    OK(qd_cuda_gate(NULL, bf16, y[1], ldy, z[1], ldx, rows, heads, head, n));
    same(y[0], y[1], rows * ldy);
    const size_t half = (n + 5) / 2;
    const float *cos = some(f, rows * half), *sin = some(f, rows * half);
    ops->rope(&f->lane, z[0], rows, ldx, heads, head, 2 * half, cos, sin);
    OK(qd_cuda_rope(NULL, bf16, z[1], rows, ldx, heads, head, 2 * half, cos, sin));
    same(z[0], z[1], rows * ldx);
}

static void norms_rope_gates_and_copies_of_heads_are_the_host_s(void **state)
{
    each(state, heads_pass);
}

static void conv_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t some_taps[] = {1 + n % 5, 9, 0}, ldx = n + 1, ldy = n + 2;
    for (int i = 0; i < 3; i++) {
        const size_t taps = some_taps[i];
        const float *x = some(f, rows * ldx), *w = some(f, n * taps);
        float *y[2] = {some(f, rows * ldy), NULL};
        y[1] = copy_of(f, y[0], rows * ldy);
        f->lane.ops->conv_silu(&f->lane, x, ldx, rows, n, w, taps, y[0], ldy);
        OK(qd_cuda_conv_silu(NULL, bf16, x, ldx, rows, n, w, taps, y[1], ldy));
        same(y[0], y[1], rows * ldy);
    }
}

static void convolutions_are_the_host_s(void **state)
{
    each(state, conv_pass);
}

/* expf and log1pf are the libraries': within 2 ulp each, four steps where that is a subnormal number; and one where the
 * product is. */
static void decay_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const float *b = some(f, rows * n), *a = some(f, rows * n), *dt = some(f, n);
    float *a_log = some(f, n);
    for (size_t i = 0; i < n; i++) a_log[i] = fminf(fmaxf(a_log[i], -20), 20);
    float *beta[2], *g[2];
    for (int i = 0; i < 2; i++) {
        beta[i] = keep(f, rows * n * sizeof(float));
        g[i] = keep(f, rows * n * sizeof(float));
    }
    f->lane.ops->decay(&f->lane, b, n, a, n, a_log, dt, rows, n, beta[0], g[0]);
    OK(qd_cuda_decay(NULL, bf16, b, n, a, n, a_log, dt, rows, n, beta[1], g[1]));
    same(beta[0], beta[1], rows * n);
    for (size_t i = 0; i < rows * n; i++)
        if (g[0][i] != g[1][i] && !(isnan(g[0][i]) && isnan(g[1][i])) &&
            !(fabsf(g[0][i] - g[1][i]) <= 0x1p-21f * fabsf(g[0][i]) + 0x1p-147f * expf(a_log[i % n]) + 0x1p-149f))
            fail_msg("element %zu: host %a, device %a", i, (double)g[0][i], (double)g[1][i]);
}

static void steps_are_the_host_s_and_decays_within_four_ulp(void **state)
{
    each(state, decay_pass);
}

static void experts_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const uint32_t experts = (uint32_t)(n % 40) + 1, top_k = (uint32_t)(n % 7) % experts + 1;
    float *logits = some(f, rows * experts);
    for (size_t i = 0; i < rows * experts; i++) logits[i] = floorf(logits[i] * 4) * 0.25f; /* many are equal */
    uint32_t *index[2];
    float *weight[2], *margin[2], *x[2];
    const float *y = some(f, rows * n), *x0 = some(f, rows * (n + 2));
    for (int i = 0; i < 2; i++) {
        index[i] = keep(f, rows * top_k * sizeof(uint32_t));
        weight[i] = keep(f, rows * top_k * sizeof(float));
        margin[i] = keep(f, rows * sizeof(float));
        x[i] = copy_of(f, x0, rows * (n + 2));
    }
    for (int normalize = 0; normalize < 2; normalize++)
        same_routes(f, bf16, logits, rows, experts, top_k, normalize, index, weight, margin);
    uint32_t *to = keep(f, rows * sizeof *to);
    for (size_t i = 0; i < rows; i++) to[i] = (uint32_t)(rows - 1 - i);
    f->lane.ops->scatter_add(&f->lane, y, to, margin[0], rows, n, x[0], n + 2);
    OK(qd_cuda_scatter_add(NULL, bf16, y, to, margin[0], rows, n, x[1], n + 2));
    same(x[0], x[1], rows * (n + 2));
    f->lane.ops->gather(&f->lane, x0, n + 2, to, rows, n, x[0]);
    OK(qd_cuda_gather(NULL, x0, n + 2, to, rows, n, x[1]));
    same(x[0], x[1], rows * n);
}

/* Numbers that are mostly different, then many that are the same. */
static void every_expert_is_weighed(void **state)
{
    enum {
        ROWS = 150
    };
    static const uint32_t cases[][2] = {{1, 1}, {5, 2}, {8, 3}, {9, 8}, {33, 6}, {60, 11}}; /* experts, of a token */
    fixture *f = *state;
    for (size_t k = 0; k < 4 * sizeof cases / sizeof *cases; k++) {
        const uint32_t experts = cases[k / 4][0], top_k = cases[k / 4][1];
        float *logits = some(f, ROWS * experts), *weight[2], *margin[2];
        uint32_t *index[2];
        for (size_t i = 0; k % 4 >= 2 && i < ROWS * experts; i++) logits[i] = floorf(logits[i]);
        for (int i = 0; i < 2; i++) {
            index[i] = keep(f, ROWS * top_k * sizeof(uint32_t));
            weight[i] = keep(f, ROWS * top_k * sizeof(float));
            margin[i] = keep(f, ROWS * sizeof(float));
        }
        f->lane.bf16 = false;
        f->lane.ops->route(&f->lane, logits, ROWS, experts, top_k, k % 2 != 0, true, index[0], weight[0], margin[0]);
        OK(qd_cuda_route(NULL, 0, logits, ROWS, experts, top_k, k % 2 != 0, index[1], weight[1], margin[1]));
        assert_memory_equal(index[0], index[1], ROWS * top_k * sizeof(uint32_t));
        same(weight[0], weight[1], ROWS * top_k);
        same(margin[0], margin[1], ROWS);
        drop(f);
    }
}

static void routing_gather_and_scatter_are_the_host_s(void **state)
{
    each(state, experts_pass);
}

/* With one query head and a value matrix of ones and an identity the host's attention would hide its probabilities;
 * what it does to a row of scores is written out here in its order. */
static void softmax_on_host(float *s, size_t n, float scale, int bf16)
{
    float top = -INFINITY, sum[QD_SUM_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        s[i] = qd_score(s[i], scale, bf16);
        top = s[i] > top ? s[i] : top;
    }
    for (size_t i = 0; i < n; i++) {
        s[i] = qd_exp(s[i] - top);
        sum[i % QD_SUM_LANES] += s[i];
    }
    for (int step = QD_SUM_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) sum[i] += sum[i + step];
    for (size_t i = 0; i < n; i++) s[i] = qd_rounded(s[i] / sum[0], bf16);
}

static void softmax_pass(fixture *f, int bf16, size_t queries, size_t first, size_t w, float scale)
{
    const size_t heads = 3, first_key = w != 0 && first + 1 > w ? first + 1 - w : 0;
    const size_t keys = first + queries - first_key;
    float *s[2] = {some(f, heads * queries * keys), NULL};
    s[1] = copy_of(f, s[0], heads * queries * keys);
    for (size_t r = 0; r < heads * queries; r++) {
        const size_t q = first + r % queries, to = q + 1 - first_key;
        const size_t from = w != 0 && q + 1 > w ? q + 1 - w - first_key : 0;
        float *row = s[0] + r * keys;
        softmax_on_host(row + from, to - from, scale, bf16);
        for (size_t j = 0; j < keys; j++) row[j] = j < from || j >= to ? 0.0f : row[j];
    }
    OK(qd_cuda_softmax(NULL, bf16, s[1], heads, queries, keys, first, first_key, w, scale));
    same(s[0], s[1], heads * queries * keys);
    drop(f);
}

static void softmax_sees_what_lies_before_in_its_window(void **state)
{
    /* Queries, the first of them, window; the last three: more keys than an unrolled loop takes at once. */
    static const size_t cases[][3] = {{21, 40, 0},  {21, 40, 1}, {21, 40, 5}, {21, 40, 33}, {21, 40, 41},
                                      {21, 40, 60}, {9, 0, 100}, {3, 469, 0}, {2, 600, 0},  {20, 300, 290}};
    fixture *f = *state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int i = 0; i < 2 * KIND_COUNT; i++) {
            f->kind = (fixture_kind)(i / 2);
            shim_set_order((shim_order)(k % SHIM_ORDER_COUNT), (uint32_t)k);
            softmax_pass(f, i % 2, cases[k][0], cases[k][1], cases[k][2], f->kind == KIND_COARSE ? 0.59375f : 0.3f);
        }
    f->kind = KIND_ORDINARY;
}

static void convert_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t ld = n + 1;
    const float *x = some(f, rows * ld), *bias = some(f, n);
    float *y[2], *z[2] = {copy_of(f, x, rows * ld), copy_of(f, x, rows * ld)};
    uint16_t *h[2];
    for (int i = 0; i < 2; i++) {
        h[i] = keep(f, rows * n * sizeof(uint16_t));
        y[i] = keep(f, rows * n * sizeof(float));
    }
    for (size_t r = 0; r < rows; r++) f->lane.ops->store(QD_BF16, x + r * ld, n, h[0] + r * n);
    OK(qd_cuda_narrow(NULL, x, ld, rows, n, h[1]));
    assert_memory_equal(h[0], h[1], rows * n * sizeof(uint16_t));
    static const qd_dtype dtypes[] = {QD_BF16, QD_F16};
    for (int i = 0; i < 2; i++) {
        f->lane.ops->load(dtypes[i], h[0], rows * n, y[0]);
        OK(qd_cuda_widen(NULL, (int)dtypes[i], h[0], rows * n, y[1]));
        same(y[0], y[1], rows * n);
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) z[0][r * ld + i] = qd_rounded(z[0][r * ld + i] + bias[i], bf16);
    OK(qd_cuda_bias(NULL, bf16, z[1], ld, rows, n, bias));
    same(z[0], z[1], rows * ld);
    float *only[2] = {copy_of(f, x, rows * ld), copy_of(f, x, rows * ld)};
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) only[0][r * ld + i] = qd_rounded(x[r * ld + i], bf16);
    OK(qd_cuda_bias(NULL, bf16, only[1], ld, rows, n, NULL));
    assert_memory_equal(only[0], only[1], rows * ld * sizeof **only); /* a NaN's bits too */
}

static void conversions_and_biases_are_the_host_s(void **state)
{
    each(state, convert_pass);
}

static void every_half_widens_as_on_the_host(void **state)
{
    enum {
        N = 0x10000
    };
    static const qd_dtype dtypes[] = {QD_BF16, QD_F16};
    fixture *f = *state;
    uint16_t *h = keep(f, N * sizeof *h);
    float *y[2] = {keep(f, N * sizeof **y), keep(f, N * sizeof **y)};
    for (uint32_t i = 0; i < N; i++) h[i] = (uint16_t)i;
    for (int i = 0; i < 2; i++) {
        f->lane.ops->load(dtypes[i], h, N, y[0]);
        OK(qd_cuda_widen(NULL, (int)dtypes[i], h, N, y[1]));
        same(y[0], y[1], N);
    }
    drop(f);
}

static void blocks_and_moments_are_the_host_s(void **state)
{
    fixture *f = *state;
    static const float scales[] = {1.0f, 3.7f, 0x1p40f, 0x1p-20f};
    for (int in = 0; in < IN_FAMILY_COUNT; in++) {
        const size_t n_blocks = 6 * 37, n = n_blocks * QD_NVFP4_BLOCK, cols = 6 * QD_NVFP4_BLOCK;
        float *x = keep(f, n * sizeof *x), *y[2];
        double *sum2 = keep(f, cols * sizeof *sum2);
        uint32_t *bits[2];
        qd_input_stats stats = {0};
        qd_err err = {0};
        input_fill((input_family)in, QD_F32, 7, x, n_blocks);
        for (int i = 0; i < 2; i++) {
            y[i] = keep(f, n * sizeof(float));
            bits[i] = keep(f, n_blocks * sizeof(uint32_t));
        }
        OK(qd_input_stats_init((uint32_t)cols, true, &stats, &err));
        qd_input_stats_add(&stats, x, 37, bits[0]);
        shim_set_order((shim_order)(in % SHIM_ORDER_COUNT), (uint32_t)in);
        OK(qd_cuda_block_amax(NULL, x, n_blocks, bits[1]));
        assert_memory_equal(bits[0], bits[1], n_blocks * sizeof(uint32_t));
        memset(sum2, 0, cols * sizeof *sum2);
        static const size_t portions[] = {1, 2, 3, 4, 17, 8, 2}; /* on and beside what an unrolled loop takes at once */
        for (size_t k = 0, at = 0; k < sizeof portions / sizeof *portions; at += portions[k++])
            OK(qd_cuda_moments(NULL, x + at * cols, cols, portions[k], cols, sum2));
        assert_memory_equal(stats.sum2, sum2, cols * sizeof *sum2);
        for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
            qd_host_fake_quant(scales[k], bits[0], x, n_blocks, y[0]);
            OK(qd_cuda_fake_quant(NULL, scales[k], bits[1], x, n_blocks, y[1]));
            same(y[0], y[1], n);
        }
        qd_input_stats_done(&stats);
        drop(f);
    }
}

static void what_is_empty_or_too_large_launches_nothing(void **state)
{
    (void)state;
    float x = 1.0f;
    OK(qd_cuda_add(NULL, 1, &x, 1, &x, 1, 0, 5));
    OK(qd_cuda_add(NULL, 1, &x, 1, &x, 1, 5, 0));
    OK(qd_cuda_bias(NULL, 0, &x, 1, 1, 1, NULL));
    assert_int_equal(qd_cuda_add(NULL, 1, &x, 1, &x, 1, UINT64_C(1) << 40, 5), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_widen(NULL, QD_F32, &x, 1, &x), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_route(NULL, 0, &x, 1, 1, 2, 0, NULL, &x, &x), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_delta(NULL, 0, 1, 1, 1, 257, 1, &x, 1, &x, &x, &x), QD_CUDA_INVALID);
    assert_true(x == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_of_rows_are_the_host_s),
        cmocka_unit_test(norms_rope_gates_and_copies_of_heads_are_the_host_s),
        cmocka_unit_test(convolutions_are_the_host_s),
        cmocka_unit_test(steps_are_the_host_s_and_decays_within_four_ulp),
        cmocka_unit_test(every_expert_is_weighed),
        cmocka_unit_test(routing_gather_and_scatter_are_the_host_s),
        cmocka_unit_test(softmax_sees_what_lies_before_in_its_window),
        cmocka_unit_test(conversions_and_biases_are_the_host_s),
        cmocka_unit_test(every_half_widens_as_on_the_host),
        cmocka_unit_test(blocks_and_moments_are_the_host_s),
        cmocka_unit_test(what_is_empty_or_too_large_launches_nothing),
    };
    return cmocka_run_group_tests_name("forward", tests, setup, teardown);
}
