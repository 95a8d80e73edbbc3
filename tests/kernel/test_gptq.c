/* test_gptq.c -- the kernels of GPTQ against the host (quant/gptq.h): the same codes, scales, errors and losses bit for
 * bit, given the same factor and the same products, in every order of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/forward.h"
#include "gpu/gptq.h"
#include "quant/gptq.h"
#include "tests/kernel/inputs.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    B = QD_NVFP4_BLOCK,
    PANEL = QD_GPTQ_PANEL
};

static uint32_t g_seed = 17;

static float noise(void)
{
    return (float)(int32_t)input_random(&g_seed) * 0x1p-31f;
}

static void *some_bytes(size_t n)
{
    void *p = malloc(n);
    assert_non_null(p);
    memset(p, 0xa5, n);
    return p;
}

/* A factor as of inputs that depend on each other, columns in blocks out of order. */
static qd_gptq_factor make_factor(uint64_t n)
{
    qd_gptq_factor f = {.n = n, .damp = 0.125f};
    f.l = some_bytes(n * n * sizeof *f.l);
    f.order = some_bytes(n * sizeof *f.order);
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t block = (i / B * 7 + 3) % (n / B);
        f.order[i] = (uint32_t)(block * B + (i * 5 + 2) % B);
        for (uint64_t j = 0; j < n; j++)
            f.l[i * n + j] = j > i ? 0.0f : j == i ? 1.0f + fabsf(noise()) : noise() * 0.3f;
    }
    return f;
}

/* Rows of all sorts: ordinary, zeros of both signs, one large value, multiples of half steps, tiny and huge ones. */
static void make_rows(uint64_t n_rows, uint64_t n, float *w)
{
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t i = 0; i < n; i++) {
            const float x = noise();
            float *to = w + r * n + i;
            switch (r % 7) {
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
            default:
                *to = x;
            }
        }
}

static void same(const void *a, const void *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) fail_msg("%s: byte %zu differs", what, i);
}

/* The device's steps with the host's products, whose rows are as many. */
static void on_device(qd_lane *lane, const qd_gptq_factor *f, const float *w, uint64_t n_rows, float gs, float *d,
                      uint8_t *codes, uint8_t *scales, double *loss)
{
    const uint64_t n = f->n;
    float *x = some_bytes(n_rows * n * sizeof *x), *sum = some_bytes(n_rows * PANEL * sizeof *sum);
    double *squares = some_bytes(n_rows * sizeof *squares);
    qd_err err = {0};
    memset(loss, 0, n_rows * sizeof *loss);
    assert_int_equal(qd_cuda_gptq_gather(NULL, w, NULL, n_rows, n, f->order, gs, x), 0);
    for (uint64_t end = n; end > 0;) {
        const uint64_t p = (end - 1) / PANEL * PANEL, done = n - end;
        memset(sum, 0, n_rows * PANEL * sizeof *sum);
        if (done != 0)
            assert_int_equal(lane->ops->gemm(lane, false, n_rows, end - p, done, d + end, n, f->l + end * n + p, n,
                                             false, sum, PANEL, &err),
                             QD_OK);
        assert_int_equal(qd_cuda_gptq_panel(NULL, f->l, f->order, n, n_rows, p, end, x, d, sum, loss, codes, scales),
                         0);
        end = p;
    }
    assert_int_equal(qd_cuda_squares(NULL, d, n_rows, n, squares), 0);
    for (uint64_t r = 0; r < n_rows; r++) loss[r] -= (double)f->damp * squares[r];
    free(x);
    free(sum);
    free(squares);
}

static void rows_are_the_host_s_bit_for_bit(void **state)
{
    static const uint64_t sizes[][2] = {{16, 1}, {48, 16}, {128, 17}, {304, 37}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint64_t n = sizes[i][0], n_rows = sizes[i][1];
        qd_lane lane = {.ops = qd_ops_host("cpu")};
        qd_gptq_factor f = make_factor(n);
        float *w = some_bytes(n_rows * n * sizeof *w), *d = some_bytes(n_rows * n * sizeof *d);
        float *scratch = some_bytes(qd_gptq_scratch(&f, n_rows) * sizeof *scratch);
        uint8_t *codes[2], *scales[2];
        double *loss[2];
        qd_err err = {0};
        for (int k = 0; k < 2; k++) {
            codes[k] = some_bytes(n_rows * n / 2);
            scales[k] = some_bytes(n_rows * n / B);
            loss[k] = some_bytes(n_rows * sizeof **loss);
        }
        make_rows(n_rows, n, w);
        shim_set_order((shim_order)(i % SHIM_ORDER_COUNT), (uint32_t)i);
        assert_int_equal(qd_gptq_rows(&lane, &f, w, n_rows, 2.5f, scratch, codes[0], scales[0], loss[0], &err), QD_OK);
        on_device(&lane, &f, w, n_rows, 2.5f, d, codes[1], scales[1], loss[1]);
        same(codes[0], codes[1], n_rows * n / 2, "codes");
        same(scales[0], scales[1], n_rows * n / B, "scales");
        same(loss[0], loss[1], n_rows * sizeof **loss, "loss");
        same(scratch + n_rows * n, d, n_rows * n * sizeof *d, "errors");
        for (int k = 0; k < 2; k++) {
            free(codes[k]);
            free(scales[k]);
            free(loss[k]);
        }
        free(f.l);
        free(f.order);
        free(w);
        free(d);
        free(scratch);
        qd_scratch_done(&lane.scratch);
    }
}

static void a_matrix_is_put_in_order_and_cleared_above_its_diagonal(void **state)
{
    static const uint64_t sizes[] = {1, 16, 33, 80};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint64_t n = sizes[s];
        float *h = some_bytes(n * n * sizeof *h), *a = some_bytes(n * n * sizeof *a);
        uint32_t *order = some_bytes(n * sizeof *order);
        for (uint64_t i = 0; i < n; i++) {
            order[i] = (uint32_t)(n - 1 - i);
            for (uint64_t j = 0; j <= i; j++) h[i * n + j] = noise();
        }
        assert_int_equal(qd_cuda_permute(NULL, h, n, order, 0.75f, a), 0);
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t j = 0; j < n; j++) {
                const uint64_t p = n - 1 - j, q = n - 1 - i; /* p >= q where j <= i */
                const float want = j > i ? 0.0f : j == i ? h[p * n + q] + 0.75f : h[p * n + q];
                assert_true(qd_f32_bits(want) == qd_f32_bits(a[i * n + j]));
                a[i * n + j] = 1.0f;
            }
        assert_int_equal(qd_cuda_lower(NULL, a, n), 0);
        for (uint64_t i = 0; i < n * n; i++) assert_true((a[i] > 0) == (i % n <= i / n));
        free(h);
        free(a);
        free(order);
    }
}

static void differences_are_gathered_in_order(void **state)
{
    enum {
        ROWS = 5,
        N = 48
    };
    float w[ROWS * N], q[ROWS * N], x[ROWS * N];
    uint32_t order[N];
    (void)state;
    for (int i = 0; i < ROWS * N; i++) {
        w[i] = noise();
        q[i] = noise();
    }
    for (uint32_t i = 0; i < N; i++) order[i] = (i * 11 + 4) % N;
    assert_int_equal(qd_cuda_gptq_gather(NULL, w, q, ROWS, N, order, 3.3f, x), 0);
    for (uint32_t i = 0; i < ROWS * N; i++) {
        const uint32_t from = i / N * N + order[i % N];
        assert_true(qd_f32_bits(x[i]) == qd_f32_bits((w[from] - q[from]) * 3.3f));
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
        cmocka_unit_test(what_no_kernel_takes_is_refused),
    };
    return cmocka_run_group_tests_name("gptq", tests, NULL, NULL);
}
