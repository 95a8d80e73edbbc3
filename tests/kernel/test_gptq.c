/* test_gptq.c -- the kernels of GPTQ against the host (quant/gptq.h): the same codes, scales, errors and losses bit for
 * bit, given the same factor and the same products, in every order of threads, for rows of all sorts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/forward.h"
#include "gpu/gptq.h"
#include "quant/gptq.h"
#include "tests/kernel/fixture.h"
#include "tests/kernel/inputs.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    B = QD_NVFP4_BLOCK,
    PANEL = QD_GPTQ_PANEL
};

/* What columns take over from each other. */
typedef enum factor_kind {
    DEPENDENT, /* as of inputs that depend on each other */
    COARSE,    /* by halves and quarters: sums stay exact, and many scales cost the same */
    ALONE,     /* nothing: ties of E2M1 stay ties */
    FACTOR_COUNT
} factor_kind;

static float noise(fixture *f)
{
    return (float)(int32_t)input_random(&f->seed) * 0x1p-31f;
}

static float pick(fixture *f, const float *from, uint32_t n)
{
    return from[(input_random(&f->seed) >> 8) % n];
}

/* Columns in blocks out of order. Until drop(). */
static qd_gptq_factor make_factor(fixture *fix, factor_kind kind, uint64_t n)
{
    static const float diagonal[] = {1.0f, 2.0f, 0.5f}, other[] = {0.0f, 0.5f, -0.5f, 0.25f, 1.0f};
    qd_gptq_factor f = {.n = n, .damp = 0.125f};
    f.l = keep(fix, n * n * sizeof *f.l);
    f.order = keep(fix, n * sizeof *f.order);
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t block = (i / B * 7 + 3) % (n / B);
        f.order[i] = (uint32_t)(block * B + (i * 5 + 2) % B);
        for (uint64_t j = 0; j < n; j++) {
            float v = j == i ? 1.0f + fabsf(noise(fix)) : noise(fix) * 0.3f;
            if (kind != DEPENDENT) v = j == i ? pick(fix, diagonal, 3) : kind == ALONE ? 0.0f : pick(fix, other, 5);
            f.l[i * n + j] = j > i ? 0.0f : v;
        }
    }
    return f;
}

/* Rows of all sorts: ordinary, zeros of both signs, one large value, multiples of half steps, tiny and huge ones, some
 * that become infinite, blocks of ties of E2M1 and their neighbours under a scale that is a power of two. */
static void make_rows(fixture *f, uint64_t n_rows, uint64_t n, float *w)
{
    static const float steps[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 6.0f};
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t i = 0; i < n; i++) {
            const float x = noise(f);
            float *to = w + r * n + i;
            switch (r % 9) {
            case 1:
                *to = i % 2 == 0 ? 0.0f : -0.0f;
                break;
            case 2:
                *to = i % 37 == 5 ? 100.0f * x : 0.01f * x;
                break;
            case 3:
                *to = floorf(x * 12) * 0.25f;
                break;
            case 4:
                *to = x * 0x1p-140f;
                break;
            case 5:
                *to = x * 0x1p100f;
                break;
            case 6:
                *to = x * (i / B % 3 == 1 ? 0x1.8p127f : 1.0f);
                break;
            case 7:
                *to = copysignf(ldexpf(pick(f, steps, 8), (int)(i / B % 16) - 9), x);
                if (i % 5 == 0) *to = nextafterf(*to, i % 2 == 0 ? 0.0f : 2 * *to);
                break;
            default:
                *to = x;
            }
        }
}

static void same_bytes(const void *a, const void *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) fail_msg("%s: byte %zu differs", what, i);
}

/* The device's steps with the host's products, whose rows are as many. */
static void on_device(fixture *fix, const qd_gptq_factor *f, const float *w, uint64_t n_rows, float gs, float *d,
                      uint8_t *codes, uint8_t *scales, double *loss)
{
    const uint64_t n = f->n;
    float *x = keep(fix, n_rows * n * sizeof *x), *sum = keep(fix, n_rows * PANEL * sizeof *sum);
    double *squares = keep(fix, n_rows * sizeof *squares);
    qd_lane *lane = &fix->lane;
    qd_err err = {0};
    memset(loss, 0, n_rows * sizeof *loss);
    OK(qd_cuda_gptq_gather(NULL, w, NULL, n_rows, n, f->order, gs, x));
    for (uint64_t end = n; end > 0;) {
        const uint64_t p = (end - 1) / PANEL * PANEL, done = n - end;
        memset(sum, 0, n_rows * PANEL * sizeof *sum);
        if (done != 0)
            assert_int_equal(lane->ops->gemm(lane, false, n_rows, end - p, done, d + end, n, f->l + end * n + p, n,
                                             false, sum, PANEL, &err),
                             QD_OK);
        OK(qd_cuda_gptq_panel(NULL, f->l, f->order, n, n_rows, p, end, x, d, sum, loss, codes, scales));
        end = p;
    }
    OK(qd_cuda_squares(NULL, d, n_rows, n, squares));
    for (uint64_t r = 0; r < n_rows; r++) loss[r] -= (double)f->damp * squares[r];
}

static void rows_pass(fixture *fix, factor_kind kind, uint64_t n, uint64_t n_rows)
{
    const qd_gptq_factor f = make_factor(fix, kind, n);
    const float gs = kind == DEPENDENT ? 2.5f : 2.0f;
    float *w = keep(fix, n_rows * n * sizeof *w), *d = keep(fix, n_rows * n * sizeof *d);
    float *scratch = keep(fix, qd_gptq_scratch(&f, n_rows) * sizeof *scratch);
    uint8_t *codes[2], *scales[2];
    double *loss[2];
    qd_err err = {0};
    for (int k = 0; k < 2; k++) {
        codes[k] = keep(fix, n_rows * n / 2);
        scales[k] = keep(fix, n_rows * n / B);
        loss[k] = keep(fix, n_rows * sizeof **loss);
    }
    make_rows(fix, n_rows, n, w);
    assert_int_equal(qd_gptq_rows(&fix->lane, &f, w, n_rows, gs, scratch, codes[0], scales[0], loss[0], &err), QD_OK);
    on_device(fix, &f, w, n_rows, gs, d, codes[1], scales[1], loss[1]);
    same_bytes(codes[0], codes[1], n_rows * n / 2, "codes");
    same_bytes(scales[0], scales[1], n_rows * n / B, "scales");
    same(scratch + n_rows * n, d, n_rows * n);
    for (uint64_t r = 0; r < n_rows; r++)
        if (memcmp(&loss[0][r], &loss[1][r], sizeof **loss) != 0 && !(isnan(loss[0][r]) && isnan(loss[1][r])))
            fail_msg("row %u: loss on the host %a, on the device %a", (unsigned)r, loss[0][r], loss[1][r]);
    drop(fix);
}

static void rows_are_the_host_s_bit_for_bit(void **state)
{
    static const uint64_t sizes[][2] = {{16, 1}, {48, 16}, {128, 17}, {144, 18}, {304, 37}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < FACTOR_COUNT; kind++) {
            shim_set_order((shim_order)((i + (size_t)kind) % SHIM_ORDER_COUNT), (uint32_t)i);
            rows_pass(*state, (factor_kind)kind, sizes[i][0], sizes[i][1]);
        }
}

static void a_matrix_is_put_in_order_and_cleared_above_its_diagonal(void **state)
{
    static const uint64_t sizes[] = {1, 16, 33, 80};
    fixture *f = *state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint64_t n = sizes[s];
        float *h = keep(f, n * n * sizeof *h), *a = keep(f, n * n * sizeof *a);
        uint32_t *order = keep(f, n * sizeof *order);
        for (uint64_t i = 0; i < n; i++) {
            order[i] = (uint32_t)(i % 2 == 0 ? n - 1 - i / 2 : i / 2);
            for (uint64_t j = 0; j <= i; j++) h[i * n + j] = noise(f);
        }
        OK(qd_cuda_permute(NULL, h, n, order, 0.75f, a));
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t j = 0; j < n; j++) {
                const uint64_t p = order[i] > order[j] ? order[i] : order[j], q = order[i] + order[j] - p;
                const float want = j > i ? 0.0f : j == i ? h[p * n + q] + 0.75f : h[p * n + q];
                assert_true(qd_f32_bits(want) == qd_f32_bits(a[i * n + j]));
                a[i * n + j] = 1.0f;
            }
        OK(qd_cuda_lower(NULL, a, n));
        for (uint64_t i = 0; i < n * n; i++) assert_true((a[i] > 0) == (i % n <= i / n));
        drop(f);
    }
}

static void differences_are_gathered_in_order(void **state)
{
    enum {
        ROWS = 11,
        N = 48
    };
    fixture *f = *state;
    float *w = some(f, ROWS * N), *q = some(f, ROWS * N), *x = keep(f, ROWS * N * sizeof *x);
    uint32_t *order = keep(f, N * sizeof *order);
    for (uint32_t i = 0; i < N; i++) order[i] = (i * 11 + 4) % N;
    for (int with_q = 0; with_q < 2; with_q++) {
        OK(qd_cuda_gptq_gather(NULL, w, with_q ? q : NULL, ROWS, N, order, 3.3f, x));
        for (uint32_t i = 0; i < ROWS * N; i++) {
            const uint32_t from = i / N * N + order[i % N];
            assert_true(qd_f32_bits(x[i]) == qd_f32_bits((with_q ? w[from] - q[from] : w[from]) * 3.3f));
        }
    }
    drop(f);
}

/* n on and beside multiples of four, rows on and beside a block's threads. */
static void squares_are_summed_in_order(void **state)
{
    static const uint64_t sizes[][2] = {{0, 3}, {1, 1}, {2, 257}, {3, 2}, {4, 255}, {5, 256}, {7, 9}, {8, 2}, {30, 5}};
    fixture *f = *state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint64_t n = sizes[s][0], rows = sizes[s][1];
        const float *x = some(f, rows * n);
        double *sum = keep(f, rows * sizeof *sum);
        OK(qd_cuda_squares(NULL, x, rows, n, sum));
        for (uint64_t r = 0; r < rows; r++) {
            double want = 0;
            for (uint64_t i = 0; i < n; i++) want += (double)x[r * n + i] * (double)x[r * n + i];
            assert_memory_equal(&sum[r], &want, sizeof want);
        }
        drop(f);
    }
}

static void what_no_kernel_takes_is_refused(void **state)
{
    (void)state;
    assert_int_equal(qd_cuda_gptq_panel(NULL, NULL, NULL, 32, 1, 0, 48, 0, 0, 0, 0, 0, 0), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_gptq_panel(NULL, NULL, NULL, 32, 1, 16, 16, 0, 0, 0, 0, 0, 0), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_gptq_panel(NULL, NULL, NULL, 512, 1, 0, 144, 0, 0, 0, 0, 0, 0), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_gptq_panel(NULL, NULL, NULL, 512, 1, 8, 24, 0, 0, 0, 0, 0, 0), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_gptq_panel(NULL, NULL, NULL, 32, 0, 0, 32, 0, 0, 0, 0, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_the_host_s_bit_for_bit),
        cmocka_unit_test(a_matrix_is_put_in_order_and_cleared_above_its_diagonal),
        cmocka_unit_test(differences_are_gathered_in_order),
        cmocka_unit_test(squares_are_summed_in_order),
        cmocka_unit_test(what_no_kernel_takes_is_refused),
    };
    return cmocka_run_group_tests_name("gptq", tests, setup, teardown);
}
