/* test_device_gptq.c -- GPTQ in a device's memory (quant/gptq_device.c, gpu/cuda/solver.c) over the doubles of the CUDA
 * runtime, cuBLAS and cuSOLVER: factors and codes against the host's, matrices that cannot be factored, failing calls.
 * Streams are lazy: what is not waited for is not done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "gpu/cuda/device.h"
#include "gpu/cuda/ops_cuda.h"
#include "gpu/kernels.h"
#include "quant/gptq.h"
#include "quant/nvfp4.h"
#include "tests/shim/cuda/fake_cuda.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) assert_int_equal((call), QD_OK)
#define GS       100.0f

enum {
    N = 304, /* two panels and a bit, three tiles of the host's factor */
    ROWS = 37,
    TOKENS = 400,
    B = QD_NVFP4_BLOCK
};

static uint32_t g_seed = 3;
static float g_x[TOKENS * N], g_h[N * N], g_w[ROWS * N], g_q[ROWS * N];

static float noise(void)
{
    g_seed = g_seed * 1664525u + 1013904223u;
    return (float)(int32_t)g_seed * 0x1p-31f;
}

/* Inputs whose channels differ in size and depend on each other, H of them, weights, and what rounding makes of those.
 */
static int setup(void **state)
{
    uint8_t codes[N / 2], scales[N / B];
    (void)state;
    fake_set_lazy(true);
    for (int t = 0; t < TOKENS; t++) {
        const float shared = noise();
        for (int k = 0; k < N; k++)
            g_x[t * N + k] = (noise() + 0.7f * shared * (float)(k % 3)) * (k % 29 == 3 ? 9.0f : 1.0f);
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double s = 0;
            for (int t = 0; t < TOKENS; t++) s += (double)g_x[t * N + i] * (double)g_x[t * N + j];
            g_h[i * N + j] = (float)s;
        }
    for (int i = 0; i < ROWS * N; i++) g_w[i] = noise();
    for (int r = 0; r < ROWS; r++) {
        for (int b = 0; b < N / B; b++)
            (void)qd_nvfp4_block(g_w + r * N + b * B, NULL, GS, QD_RULE_MINMAX, QD_ARITH_FP32, codes + b * B / 2,
                                 scales + b);
        qd_nvfp4_decode(codes, scales, GS, N / B, g_q + r * N);
    }
    return 0;
}

static float element(const void *h, uint64_t i, uint64_t j)
{
    return ((const float *)h)[i * N + j];
}

typedef struct found {
    uint8_t codes[ROWS * N / 2], scales[ROWS * N / B];
    double loss[ROWS], rtn[ROWS];
} found;

static qd_code on_host(const float *h, found *ret, bool *ret_ok, qd_gptq_factor *f, qd_err *err)
{
    qd_tasks tasks = {.n_threads = 1};
    qd_lane lane = {.ops = qd_ops_host("cpu")};
    float *scratch = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_gptq_factor_make(&tasks, &lane, h, element, N, 0.01f, f, ret_ok, err));
    if (!*ret_ok) goto out;
    scratch = malloc(qd_gptq_scratch(f, ROWS) * sizeof *scratch);
    assert_non_null(scratch);
    QD_TRY(qd_gptq_loss(&lane, f, g_w, g_q, ROWS, GS, scratch, ret->rtn, err));
    QD_TRY(qd_gptq_rows(&lane, f, g_w, ROWS, GS, scratch, ret->codes, ret->scales, ret->loss, err));
out:
    free(scratch);
    qd_scratch_done(&lane.scratch);
    return rc;
}

/* A whole device for it: opened, used, closed. l [N][N]: may be NULL. */
static qd_code on_device(const float *h, uint64_t n_rows, found *ret, bool *ret_ok, float *l, float *ret_damp,
                         uint32_t *order, qd_err *err)
{
    qd_lane lane = {0};
    qd_gptq_factor f = {0};
    uint64_t room = 0;
    float *there = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_library_of()->open(0, &lane.ops, err));
    QD_TRY(lane.ops->solver->room(lane.ops, N, &room, err));
    QD_TRY(lane.ops->reserve(
        lane.ops, lane.ops->lane_bytes + 2 * sizeof g_h + room + qd_gptq_bytes_there(N, n_rows) + (8 << 20), err));
    QD_TRY(qd_lane_open(&lane, err));
    QD_TRY(qd_scratch_take(&lane.scratch, N, N, &there, err));
    QD_TRY(lane.ops->upload(&lane, QD_F32, h, (uint64_t)N * N, there, err));
    QD_TRY(qd_gptq_factor_there(&lane, there, N, 0.01f, &f, ret_ok, err));
    if (!*ret_ok) goto out;
    if (l != NULL) QD_TRY(lane.ops->download(&lane, QD_F32, f.l, (uint64_t)N * N, l, err));
    if (order != NULL) memcpy(order, f.order, N * sizeof *order);
    if (ret_damp != NULL) *ret_damp = f.damp;
    QD_TRY(qd_gptq_rows_there(&lane, &f, g_w, g_q, n_rows, GS, ret->codes, ret->scales, ret->loss, ret->rtn, err));
out:
    qd_gptq_factor_done(&f);
    if (lane.device != NULL) qd_lane_close(&lane);
    if (lane.ops != NULL) {
        const uint64_t used = qd_cuda_device_of(lane.ops)->pool.used;
        lane.ops->close(lane.ops);
        assert_int_equal(used, 0);
    }
    return rc;
}

static found g_host, g_gpu;

static void factor_and_codes_are_the_host_s_within_their_bound(void **state)
{
    static float l[N * N];
    uint32_t order[N];
    qd_gptq_factor f = {0};
    qd_err err = {0};
    bool ok[2] = {false};
    float damp = 0, most = 0, off = 0;
    int other = 0;
    double far = 0;
    (void)state;
    OK(on_host(g_h, &g_host, &ok[0], &f, &err));
    OK(on_device(g_h, ROWS, &g_gpu, &ok[1], l, &damp, order, &err));
    assert_true(ok[0] && ok[1]);
    assert_memory_equal(order, f.order, sizeof order);
    assert_true(qd_f32_bits(damp) == qd_f32_bits(f.damp));
    for (int i = 0; i < N * N; i++) {
        most = fmaxf(most, fabsf(f.l[i]));
        off = fmaxf(off, fabsf(f.l[i] - l[i]));
        if (i % N > i / N) assert_true(qd_f32_bits(l[i]) == 0);
    }
    assert_true(off <= 1e-5f * most);
    for (int i = 0; i < ROWS * N / 2; i++) other += g_host.codes[i] != g_gpu.codes[i];
    for (int r = 0; r < ROWS; r++) {
        far = fmax(far, fabs(g_gpu.loss[r] / g_host.loss[r] - 1));
        assert_true(fabs(g_gpu.rtn[r] / g_host.rtn[r] - 1) <= 1e-4);
        assert_true(g_gpu.loss[r] < g_gpu.rtn[r]);
    }
    print_message("factor off by %.1e of its largest, %d of %d bytes of codes differ, losses off by %.1e\n",
                  (double)(off / most), other, ROWS * N / 2, far);
    assert_true(other <= ROWS * N / 2 / 50);
    assert_true(far <= 0.02);
    qd_gptq_factor_done(&f);
    assert_int_equal(fake_live(), 0);
}

/* The loss that is told is that of the codes, without the damping. */
static void the_loss_is_that_of_the_codes(void **state)
{
    float q[N];
    qd_err err = {0};
    bool ok = false;
    (void)state;
    OK(on_device(g_h, ROWS, &g_gpu, &ok, NULL, NULL, NULL, &err));
    for (int r = 0; r < ROWS; r++) {
        double want = 0;
        qd_nvfp4_decode(g_gpu.codes + r * N / 2, g_gpu.scales + r * N / B, GS, N / B, q);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                want += (double)g_h[i * N + j] * (double)(g_w[r * N + i] - q[i]) * (double)(g_w[r * N + j] - q[j]);
        assert_true(fabs(g_gpu.loss[r] / ((double)GS * (double)GS * want) - 1) <= 1e-3);
    }
}

/* A failed pivot takes ten times the damping, as on the host. */
static void a_matrix_that_is_not_positive_takes_more_damping_or_none(void **state)
{
    static float h[N * N];
    qd_gptq_factor f = {0};
    qd_err err = {0};
    float mean = 0;
    (void)state;
    for (int i = 0; i < N; i++) mean += g_h[i * N + i] / N;
    /* A negative eigenvalue of 0.05 and 0.5 of the mean: 0.1 and 1 of damping are enough; of 5: none is. NaN: none. */
    static const float below[] = {0.05f, 0.5f, 5.0f, NAN};
    static const float want[] = {0.1f, 1.0f, 0, 0};
    for (int k = 0; k < 4; k++) {
        bool ok[2] = {true, true};
        float damp = 0, trace = 0;
        memset(h, 0, sizeof h);
        for (int i = 0; i < N; i++) h[i * N + i] = i == 77 ? -below[k] * mean : mean;
        for (int i = 0; i < N; i++) trace += h[i * N + i] / N;
        OK(on_host(h, &g_host, &ok[0], &f, &err));
        OK(on_device(h, 1, &g_gpu, &ok[1], NULL, &damp, NULL, &err));
        assert_int_equal(ok[0], ok[1]);
        assert_int_equal(ok[1], want[k] > 0);
        if (ok[1]) {
            assert_true(qd_f32_bits(damp) == qd_f32_bits(f.damp));
            assert_true(fabsf(damp / (want[k] * trace) - 1) <= 1e-4f);
        }
        qd_gptq_factor_done(&f);
    }
    assert_int_equal(fake_live(), 0);
}

static void each_call_that_fails_is_told_and_nothing_leaks(void **state)
{
    (void)state;
    qd_err err = {0};
    bool ok = false;
    unsigned long n = 0, told = 0;
    OK(on_device(g_h, 3, &g_gpu, &ok, NULL, NULL, NULL, &err));
    const found all = g_gpu;
    for (n = 1; n < 400; n++) {
        err = (qd_err){0};
        fake_fail_at(n);
        const qd_code rc = on_device(g_h, 3, &g_gpu, &ok, NULL, NULL, NULL, &err);
        const bool reached = fake_calls() >= n;
        fake_fail_at(0);
        assert_int_equal(fake_live(), 0);
        if (rc == QD_OK) assert_memory_equal(&all, &g_gpu, sizeof all);
        if (!reached) {
            OK(rc);
            break;
        }
        told += rc != QD_OK;
        if (rc != QD_OK) assert_true(strncmp(err.msg, "gpu0: ", 6) == 0);
    }
    assert_true(n > 60 && n < 400);
    assert_true(told + 6 > n); /* those of tidying up are not */
    for (unsigned long k = 1; k < 100; k++) {
        err = (qd_err){0};
        qd_fault_arm(QD_FAULT_ALLOC, k, ENOMEM);
        const qd_code rc = on_device(g_h, 3, &g_gpu, &ok, NULL, NULL, NULL, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        assert_int_equal(fake_live(), 0);
        if (rc == QD_OK) break;
        assert_int_equal(rc, QD_E_NO_MEMORY);
        assert_true(k < 99);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factor_and_codes_are_the_host_s_within_their_bound),
        cmocka_unit_test(the_loss_is_that_of_the_codes),
        cmocka_unit_test(a_matrix_that_is_not_positive_takes_more_damping_or_none),
        cmocka_unit_test(each_call_that_fails_is_told_and_nothing_leaks),
    };
    return cmocka_run_group_tests_name("device_gptq", tests, setup, NULL);
}
