/* test_lastbit.c -- inputs picked so that nothing hides a wrong last bit: arguments at which one ulp of one of exp()'s
 * constants shows, all of BF16's, ties of BF16 behind an exponential or a norm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/forward.h"
#include "gpu/elements.h"
#include "gpu/ops.h"
#include "tests/kernel/fixture.h"
#include "tests/kernel/inputs.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <string.h>

enum {
    N = 1024,
    TIES = 64, /* of a function of the gate */
    EXPERTS = 7,
    SPECIAL_ROWS = 8,
    ROWS = SPECIAL_ROWS + 0x10000 / N + 8
};

/* Where exp() ends, beside it, where 2^n takes two steps; the smallest numbers, on and beside ties of BF16's. */
static const uint32_t ends[] = {0x42b17216u, 0x42b17217u, 0x42b17218u, 0x42b17219u, 0x42b0c0a6u, 0x42b10000u,
                                0x42b16000u, 0x42aeac4eu, 0x42aeac4fu, 0x42aeac50u, 0x42aeac51u, 0x42ae0000u,
                                0x00000001u, 0x00000002u, 0x00000003u, 0x00008000u, 0x00018000u, 0x00028000u,
                                0x00048000u, 0x00028001u, 0x7f800000u, 0x7f800001u};

/* e^x among one 1 and six of them, as qd_route_row() leaves it and as it normalizes all seven. */
static float seventh(float x)
{
    const float e = qd_exp(-fabsf(x));
    float sum = 1.0f;
    for (int i = 1; i < EXPERTS; i++) sum += e;
    return e / sum;
}

static float normalized_seventh(float x)
{
    const float e = qd_exp(-fabsf(x));
    float sum = 1.0f, taken;
    for (int i = 1; i < EXPERTS; i++) sum += e;
    taken = 1.0f / sum;
    for (int i = 1; i < EXPERTS; i++) taken += e / sum;
    return e / sum / taken;
}

/* Numbers that fn puts halfway between two numbers of BF16: found by trying, one in some 2^16 is. */
static size_t add_ties(float (*fn)(float), float *to)
{
    size_t n = 0;
    for (uint32_t bits = 0x3e000000u; n < TIES && bits < 0x41000000u; bits += 0xf) {
        const float x = qd_bits_f32(bits | (bits & 1u) << 31);
        if ((qd_f32_bits(fn(x)) & 0xffffu) == 0x8000u) to[n++] = x;
    }
    assert_true(n > TIES / 2);
    return n;
}

/* The few that each tell something: at most N. Looked for once. */
static size_t special(float *to)
{
    static float found[N];
    static size_t n;
    if (n == 0) {
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            found[n++] = qd_bits_f32(ends[i]);
            found[n++] = -qd_bits_f32(ends[i]);
        }
        n += telling(found + n);
        n += add_ties(qd_sigmoid, found + n);
        n += add_ties(qd_silu, found + n);
        n += add_ties(seventh, found + n);
        n += add_ties(normalized_seventh, found + n);
        assert_true(n <= N);
    }
    memcpy(to, found, n * sizeof *to);
    return n;
}

/* ret [ROWS][N]: the special gates in every place that an unrolled loop tells apart, every number of BF16, ordinary
 * ones. */
static const float *gates(fixture *f)
{
    float few[N], *g = some(f, ROWS * N);
    const size_t n = special(few);
    for (size_t r = 0; r < SPECIAL_ROWS; r++)
        for (size_t i = 0; i < n; i++) g[r * N + (i + (r < 4 ? 256 * r : 16 * r)) % N] = few[i];
    for (uint32_t i = 0; i < 0x10000; i++) g[SPECIAL_ROWS * N + i] = qd_bits_f32(i << 16);
    return g;
}

static void exponentials_pass(fixture *f, int bf16, const float *g, size_t rows, size_t n)
{
    const size_t all = rows * N;
    float *u = keep(f, all * sizeof *u), *w = keep(f, N * sizeof *w), *x[2], *y[2];
    for (size_t i = 0; i < all; i++) u[i] = i % 3 == 0 ? -1.0f : 1.0f;
    for (size_t i = 0; i < N; i++) w[i] = 1.0f;
    for (int i = 0; i < 2; i++) {
        x[i] = copy_of(f, u, all);
        y[i] = copy_of(f, g, all);
    }
    f->lane.ops->silu_mul(&f->lane, y[0], N, u, N, rows, n);
    OK(qd_cuda_silu_mul(NULL, bf16, y[1], N, u, N, rows, n));
    same(y[0], y[1], all);
    f->lane.ops->gate(&f->lane, x[0], N, g, N, rows, 1, n, n);
    OK(qd_cuda_gate(NULL, bf16, x[1], N, g, N, rows, 1, n, n));
    same(x[0], x[1], all);
    f->lane.ops->conv_silu(&f->lane, g, N, rows, n, w, 1, y[0], N);
    OK(qd_cuda_conv_silu(NULL, bf16, g, N, rows, n, w, 1, y[1], N));
    same(y[0], y[1], all);
    f->lane.ops->gated_norm(&f->lane, u, g, n, rows, 1, n, w, 0.0f, y[0]);
    OK(qd_cuda_gated_norm(NULL, bf16, u, g, n, rows, 1, n, w, 0.0f, y[1]));
    same(y[0], y[1], all);
    f->lane.ops->decay(&f->lane, g, N, u, N, w, w, rows, n, y[0], x[0]);
    OK(qd_cuda_decay(NULL, bf16, g, N, u, N, w, w, rows, n, y[1], x[1]));
    same(y[0], y[1], rows * n);
}

static void exponentials_are_the_host_s_to_the_last_bit(void **state)
{
    fixture *f = *state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const float *g = gates(f);
        f->lane.bf16 = bf16 != 0;
        shim_set_order((shim_order)bf16, 1);
        exponentials_pass(f, bf16, g, ROWS, N);
        exponentials_pass(f, bf16, g, SPECIAL_ROWS, 700); /* the rest of an unrolled loop */
        drop(f);
    }
}

static void gates_of_rows_are_the_host_s_to_the_last_bit(void **state)
{
    enum {
        COLS = 3
    };
    fixture *f = *state;
    float g[N];
    const size_t rows = special(g);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        float *x[2];
        for (int i = 0; i < 2; i++) {
            x[i] = keep(f, rows * COLS * sizeof(float));
            for (size_t j = 0; j < rows * COLS; j++) x[i][j] = j % 2 == 0 ? 1.0f : -2.0f;
        }
        f->lane.bf16 = bf16 != 0;
        f->lane.ops->gate_rows(&f->lane, x[0], COLS, g, rows, COLS);
        OK(qd_cuda_gate_rows(NULL, bf16, x[1], COLS, g, rows, COLS));
        same(x[0], x[1], rows * COLS);
        drop(f);
    }
}

/* 1 and e^x to one sum, the other keys nothing: x for each of the keys that a thread has. */
static void probabilities_are_the_host_s_to_the_last_bit(void **state)
{
    enum {
        KEYS = 3 * QD_SUM_LANES
    };
    fixture *f = *state;
    float g[N];
    const size_t rows = special(g);
    for (size_t k = 0; k < 2 * KEYS / QD_SUM_LANES; k++) {
        const size_t at = 1 + k / 2 * QD_SUM_LANES;
        const int bf16 = k % 2 != 0;
        float *s = keep(f, rows * KEYS * sizeof *s), *want = keep(f, rows * KEYS * sizeof *want);
        for (size_t r = 0; r < rows; r++) {
            const float x = -fabsf(qd_rounded(g[r], bf16)), e = qd_exp(x);
            for (size_t i = 0; i < KEYS; i++) {
                s[r * KEYS + i] = i == 0 ? 0.0f : i == at ? x : -1000.0f;
                want[r * KEYS + i] = qd_rounded((i == 0 ? 1.0f : i == at ? e : 0.0f) / (1.0f + e), bf16);
            }
        }
        OK(qd_cuda_softmax(NULL, bf16, s, rows, 1, KEYS, KEYS - 1, 0, 0, 1.0f));
        same(want, s, rows * KEYS);
        drop(f);
    }
}

/* x for one expert, each in turn, and for all but the first. */
static void experts_shares_are_the_host_s_to_the_last_bit(void **state)
{
    fixture *f = *state;
    float g[N];
    const size_t n = special(g), rows = n * EXPERTS;
    float *logits = keep(f, rows * EXPERTS * sizeof *logits);
    for (size_t i = 0; i < rows * EXPERTS; i++) {
        const size_t e = i % EXPERTS, only = i / EXPERTS % EXPERTS;
        logits[i] = e == 0 ? 0.0f : only == 0 || e == only ? -fabsf(g[i / EXPERTS / EXPERTS]) : -1000.0f;
    }
    for (int k = 0; k < 8; k++) {
        static const uint32_t some[] = {1, EXPERTS - 1, EXPERTS, EXPERTS};
        const uint32_t top_k = some[k / 2];
        const int bf16 = k % 2, normalize = k / 2 == 3;
        float *weight[2], *margin[2];
        uint32_t *index[2];
        for (int i = 0; i < 2; i++) {
            weight[i] = keep(f, rows * top_k * sizeof(float));
            margin[i] = keep(f, rows * sizeof(float));
            index[i] = keep(f, rows * top_k * sizeof(uint32_t));
        }
        same_routes(f, bf16, logits, rows, EXPERTS, top_k, normalize, index, weight, margin);
    }
    drop(f);
}

/* One element so large that the others are lost in the sum of squares: 1 / rms is a power of two, and ties stay ties.
 */
static void norms_round_ties_as_the_host_does(void **state)
{
    static const size_t sizes[] = {16, 64, 256};
    fixture *f = *state;
    f->kind = KIND_COARSE;
    for (size_t k = 0; k < 4 * sizeof sizes / sizeof *sizes; k++) {
        const size_t n = sizes[k / 4], rows = 9;
        float *x = keep(f, rows * n * sizeof *x), *w = some(f, n), *gate = keep(f, rows * n * sizeof *gate), *y[2];
        const int bf16 = k % 2 != 0;
        for (size_t i = 0; i < rows * n; i++) {
            const uint32_t r = input_random(&f->seed) >> 8;
            x[i] = i % n == 0 ? 0x1p20f : (1.0f + (float)(r % 256) / 256) * (r / 256 % 2 != 0 ? 1.0f : -1.0f);
            gate[i] = r / 512 % 2 != 0 ? 32.0f : 64.0f; /* SiLU leaves them */
        }
        for (size_t i = 0; i < n; i++) w[i] = k % 4 < 2 ? 1.0f : i % 16 == 5 ? INFINITY : w[i];
        for (int i = 0; i < 2; i++) y[i] = keep(f, rows * n * sizeof(float));
        f->lane.bf16 = bf16 != 0;
        for (int plus_one = 0; plus_one < 2; plus_one++) {
            for (size_t i = 0; i < n; i++) w[i] = plus_one && k % 4 < 2 ? 0.0f : w[i];
            f->lane.ops->rms_norm(&f->lane, x, n, rows, 1, n, n, w, plus_one ? QD_NORM_PLUS_ONE : QD_NORM_PLAIN, 0.0f,
                                  y[0], n, n);
            OK(qd_cuda_rms_norm(NULL, bf16, x, n, rows, 1, n, n, w, plus_one, 0.0f, y[1], n, n));
            same(y[0], y[1], rows * n);
        }
        for (size_t i = 0; i < n; i++) w[i] = k % 4 < 2 ? 1.0f : w[i];
        f->lane.ops->gated_norm(&f->lane, x, gate, n, rows, 1, n, w, 0.0f, y[0]);
        OK(qd_cuda_gated_norm(NULL, bf16, x, gate, n, rows, 1, n, w, 0.0f, y[1]));
        same(y[0], y[1], rows * n);
        drop(f);
    }
    f->kind = KIND_ORDINARY;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponentials_are_the_host_s_to_the_last_bit),
        cmocka_unit_test(gates_of_rows_are_the_host_s_to_the_last_bit),
        cmocka_unit_test(probabilities_are_the_host_s_to_the_last_bit),
        cmocka_unit_test(experts_shares_are_the_host_s_to_the_last_bit),
        cmocka_unit_test(norms_round_ties_as_the_host_does),
    };
    return cmocka_run_group_tests_name("lastbit", tests, setup, teardown);
}
