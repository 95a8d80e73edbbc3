/* test_device.c -- a CUDA device (gpu/cuda/device.c and what it is made of) over the doubles of the CUDA runtime and of
 * cuBLAS: products against the host's within a bound, copies, memory, failures. Streams are lazy: what is not waited
 * for is not done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "gpu/cuda/device.h"
#include "gpu/cuda/ops_cuda.h"
#include "gpu/elements.h"
#include "tests/shim/cuda/fake_cuda.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES (UINT64_C(160) << 20)

typedef struct fixture {
    qd_lane host, gpu;
    uint32_t seed;
    qd_err err;
} fixture;

#define OK(call) assert_int_equal((call), QD_OK)

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return -1;
    fake_set_lazy(true);
    f->seed = 99;
    f->host.ops = qd_ops_host("cpu");
    if (qd_cuda_library_of()->open(1, &f->gpu.ops, &f->err) != QD_OK ||
        f->gpu.ops->reserve(f->gpu.ops, MEMORY_BYTES, &f->err) != QD_OK || qd_lane_open(&f->gpu, &f->err) != QD_OK) {
        print_error("%s\n", f->err.msg);
        return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    qd_scratch_done(&f->host.scratch);
    qd_lane_close(&f->gpu);
    f->gpu.ops->close(f->gpu.ops);
    free(f);
    return fake_live() == 0 ? 0 : -1;
}

static float next(fixture *f)
{
    f->seed = f->seed * 1664525u + 1013904223u;
    return (float)(f->seed >> 8) * 0x1p-23f - 1.0f;
}

static float *some(fixture *f, uint64_t n, bool bf16)
{
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    for (uint64_t i = 0; i < n; i++) p[i] = qd_rounded(next(f), bf16);
    return p;
}

/* n values on the device. */
static float *there(fixture *f, const float *x, uint64_t n)
{
    float *d = NULL;
    OK(qd_scratch_take(&f->gpu.scratch, 1, n, &d, &f->err));
    if (x != NULL) OK(f->gpu.ops->upload(&f->gpu, QD_F32, x, n, d, &f->err));
    return d;
}

/* The device's values against the host's, within `bound` of the largest. */
static void close_to(fixture *f, const float *want, const float *device, uint64_t n, float bound)
{
    float most = 0, *got = malloc(n * sizeof *got);
    assert_non_null(got);
    OK(f->gpu.ops->download(&f->gpu, QD_F32, device, n, got, &f->err));
    for (uint64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(want[i]));
    for (uint64_t i = 0; i < n; i++)
        if (!(fabsf(want[i] - got[i]) <= bound * most))
            fail_msg("element %u: host %g, device %g", (unsigned)i, (double)want[i], (double)got[i]);
    free(got);
}

static void values_come_back_as_they_went(void **state)
{
    fixture *f = *state;
    static const uint64_t sizes[] = {1, 17, 100000, QD_CUDA_STAGE_BYTES / 4, 3 * QD_CUDA_STAGE_BYTES / 4 + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint64_t n = sizes[i];
        const qd_scratch_mark mark = qd_scratch_here(&f->gpu.scratch);
        float *x = some(f, n, true), *d = there(f, x, n);
        uint16_t *h = malloc(n * sizeof *h), *back = malloc(n * sizeof *back);
        assert_true(h != NULL && back != NULL);
        close_to(f, x, d, n, 0);
        qd_ops_host("cpu")->store(QD_BF16, x, n, h);
        f->gpu.ops->zero(&f->gpu, d, n);
        OK(f->gpu.ops->upload(&f->gpu, QD_BF16, h, n, d, &f->err));
        close_to(f, x, d, n, 0);
        OK(f->gpu.ops->download(&f->gpu, QD_BF16, d, n, back, &f->err));
        assert_memory_equal(h, back, n * sizeof *h);
        qd_scratch_back(&f->gpu.scratch, mark);
        free(x);
        free(h);
        free(back);
    }
}

/* Sums in another order: F32 eps times the square root of the length, and one BF16 step where results are rounded. */
static void one_linear(fixture *f, qd_dtype dtype, bool bf16, uint64_t m, uint64_t n, uint64_t k, bool with_bias)
{
    const qd_scratch_mark mark = qd_scratch_here(&f->gpu.scratch);
    const uint64_t ldx = k + 4, ldy = n + 2;
    float *x = some(f, m * ldx, bf16), *w = some(f, n * k, dtype == QD_BF16), *bias = some(f, n, bf16);
    float *y = some(f, m * ldy, false), *dx = there(f, x, m * ldx), *dy = there(f, y, m * ldy);
    uint16_t *h = malloc(n * k * sizeof *h);
    assert_non_null(h);
    f->host.ops->store(QD_BF16, w, n * k, h);
    qd_weight of[2];
    for (int i = 0; i < 2; i++) {
        const qd_ops *ops = i == 0 ? f->host.ops : f->gpu.ops;
        of[i] = (qd_weight){.dtype = dtype,
                            .n = n,
                            .k = k,
                            .data = dtype == QD_BF16 ? (void *)h : (void *)w,
                            .bias = with_bias ? bias : NULL};
        OK(ops->weight_pack(ops, &of[i], bf16, NULL, &f->err));
    }
    f->host.bf16 = f->gpu.bf16 = bf16;
    OK(f->host.ops->linear(&f->host, x, m, ldx, &of[0], y, ldy, &f->err));
    OK(f->gpu.ops->linear(&f->gpu, dx, m, ldx, &of[1], dy, ldy, &f->err));
    close_to(f, y, dy, m * ldy, bf16 ? 0x1p-8f : 1e-6f);
    f->gpu.ops->weight_unpack(&of[1]);
    qd_scratch_back(&f->gpu.scratch, mark);
    free(x);
    free(w);
    free(bias);
    free(y);
    free(h);
}

static void linears_are_the_host_s_within_their_bound(void **state)
{
    fixture *f = *state;
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int bias = 0; bias < 2; bias++) {
            one_linear(f, QD_BF16, bf16 != 0, 7, 33, 48, bias != 0);
            one_linear(f, QD_F32, bf16 != 0, 1, 1, 5, bias != 0);
            one_linear(f, QD_BF16, bf16 != 0, 65, 20, 257, bias != 0);
        }
}

static void products_of_every_kind_are_the_host_s_within_their_bound(void **state)
{
    fixture *f = *state;
    const uint64_t m = 13, n = 21, k = 34, ld = 40;
    const qd_scratch_mark mark = qd_scratch_here(&f->gpu.scratch);
    float *a = some(f, ld * ld, false), *b = some(f, ld * ld, false), *c = some(f, ld * ld, false);
    float *da = there(f, a, ld * ld), *db = there(f, b, ld * ld), *dc = there(f, c, ld * ld);
    for (int kind = 0; kind < 5; kind++) {
        for (int i = 0; i < 2; i++) {
            qd_lane *l = i == 0 ? &f->host : &f->gpu;
            const float *x = i == 0 ? a : da, *y = i == 0 ? b : db;
            float *z = i == 0 ? c : dc;
            if (kind < 4)
                OK(l->ops->gemm(l, (kind & 1) != 0, m, n, k, x, ld, y, ld, (kind & 2) != 0, z, ld, &f->err));
            else {
                qd_gram g;
                OK(l->ops->gram_begin(l, x, ld, k, ld, &g, &f->err));
                OK(l->ops->gram(l, &g, 32, 8, 0, 32, z, ld, &f->err));
            }
        }
        close_to(f, c, dc, ld * ld, 1e-6f);
    }
    assert_int_equal(f->host.flops, f->gpu.flops);
    qd_scratch_back(&f->gpu.scratch, mark);
    free(a);
    free(b);
    free(c);
}

static void attention_is_the_host_s_within_its_bound(void **state)
{
    fixture *f = *state;
    static const uint64_t shapes[][4] = {{1, 1, 8, 0}, {75, 2, 16, 0}, {75, 1, 16, 9}, {130, 4, 8, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            const qd_scratch_mark mark = qd_scratch_here(&f->gpu.scratch);
            const uint64_t t = shapes[i][0], kv = shapes[i][1], dim = shapes[i][2], heads = 4, q = heads * 2 * dim;
            float *x = some(f, t * q, bf16 != 0), *k = some(f, t * kv * dim, bf16 != 0);
            float *v = some(f, t * kv * dim, bf16 != 0), *out = some(f, t * heads * dim, false);
            float *dout = there(f, NULL, t * heads * dim);
            qd_attention a = {t, heads, kv, dim, shapes[i][3], 0.25f, x, k, v, q, 2 * dim, kv * dim, out, heads * dim};
            f->host.bf16 = f->gpu.bf16 = bf16 != 0;
            OK(f->host.ops->attention(&f->host, &a, &f->err));
            a.q = there(f, x, t * q);
            a.k = there(f, k, t * kv * dim);
            a.v = there(f, v, t * kv * dim);
            a.out = dout;
            OK(f->gpu.ops->attention(&f->gpu, &a, &f->err));
            close_to(f, out, dout, t * heads * dim, bf16 ? 0x1p-7f : 2e-6f);
            qd_scratch_back(&f->gpu.scratch, mark);
            free(x);
            free(k);
            free(v);
            free(out);
        }
}

static void memory_is_taken_once_and_what_is_too_much_is_refused(void **state)
{
    fixture *f = *state;
    qd_cuda_device *d = qd_cuda_device_of(f->gpu.ops);
    const int live = fake_live();
    void *p = NULL;
    OK(f->gpu.ops->reserve(f->gpu.ops, MEMORY_BYTES / 2, &f->err));
    assert_int_equal(fake_bytes_peak(), MEMORY_BYTES);
    assert_int_equal(f->gpu.ops->reserve(f->gpu.ops, MEMORY_BYTES * 2, &f->err), QD_E_INTERNAL);
    assert_int_equal(qd_cuda_take(d, MEMORY_BYTES, &p, &f->err), QD_E_NO_MEMORY);
    assert_non_null(strstr(f->err.msg, "gpu1: 167772160 bytes of device memory wanted"));
    assert_int_equal(fake_live(), live);
}

static void a_pool_gives_out_every_byte_again(void **state)
{
    (void)state;
    qd_range_pool p;
    qd_err err = {0};
    void *at[16];
    uint64_t bytes[16];
    uint32_t seed = 5;
    OK(qd_range_pool_init(&p, (void *)(uintptr_t)4096, 64 * QD_POOL_ALIGN + 7, &err));
    for (int round = 0; round < 200; round++) {
        int n = 0;
        for (; n < 16; n++) {
            seed = seed * 1664525u + 1013904223u;
            bytes[n] = (seed >> 20) % 2000;
            at[n] = qd_range_pool_take(&p, bytes[n]);
            if (at[n] == NULL) break;
            assert_int_equal((uintptr_t)at[n] % QD_POOL_ALIGN, 0);
            for (int i = 0; i < n; i++)
                assert_true((char *)at[i] + bytes[i] <= (char *)at[n] || (char *)at[n] + bytes[n] <= (char *)at[i]);
        }
        for (int i = 0; i < n; i++) {
            const int k = (i * 7 + round) % n, was_given = at[k] == NULL;
            if (was_given) continue;
            qd_range_pool_give(&p, at[k], bytes[k]);
            at[k] = NULL;
        }
        for (int i = 0; i < n; i++) qd_range_pool_give(&p, at[i], bytes[i]);
        assert_int_equal(p.used, 0);
        assert_true(p.gaps != NULL && p.gaps->next == NULL && p.gaps->bytes == 64 * QD_POOL_ALIGN);
    }
    qd_range_pool_done(&p);
}

/* A little of everything. */
static qd_code use(qd_err *err)
{
    static const float x[64] = {1, 2, 3}, w[64] = {4, 5, 6};
    float back[64];
    qd_lane l = {0};
    qd_weight of = {.dtype = QD_F32, .n = 8, .k = 8, .data = w, .bias = x};
    float *d = NULL, *e = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_library_of()->open(0, &l.ops, err));
    QD_TRY(l.ops->reserve(l.ops, UINT64_C(64) << 20, err));
    QD_TRY(l.ops->weight_pack(l.ops, &of, false, NULL, err));
    QD_TRY(qd_lane_open(&l, err));
    QD_TRY(qd_scratch_take(&l.scratch, 8, 8, &d, err));
    QD_TRY(qd_scratch_take(&l.scratch, 8, 8, &e, err));
    QD_TRY(l.ops->upload(&l, QD_BF16, x, 64, d, err));
    QD_TRY(l.ops->upload(&l, QD_F32, x, 64, d, err));
    l.ops->zero(&l, e, 64);
    l.ops->add(&l, e, 8, d, 8, 8, 8);
    QD_TRY(l.ops->linear(&l, e, 8, 8, &of, d, 8, err));
    l.ops->silu_mul(&l, d, 8, e, 8, 8, 8);
    rc = l.ops->download(&l, QD_F32, d, 64, back, err);
out:
    if (l.device != NULL) qd_lane_close(&l);
    if (of.packed != NULL) l.ops->weight_unpack(&of);
    if (l.ops != NULL) l.ops->close(l.ops);
    return rc;
}

static void each_call_that_fails_is_told_and_nothing_leaks(void **state)
{
    (void)state;
    const int live = fake_live();
    qd_err err = {0};
    unsigned long n = 0, told = 0;
    for (n = 1; n < 500; n++) {
        err = (qd_err){0};
        fake_fail_at(n);
        const qd_code rc = use(&err);
        const bool reached = fake_calls() >= n;
        fake_fail_at(0);
        assert_int_equal(fake_live(), live);
        if (!reached) {
            OK(rc);
            break;
        }
        told += rc != QD_OK;
        if (rc != QD_OK) assert_true(strncmp(err.msg, "gpu0: ", 6) == 0 || strstr(err.msg, "scratch") != NULL);
    }
    assert_true(n > 40 && n < 500);
    assert_true(told + 6 > n); /* those of tidying up are not */
    for (unsigned long k = 1; k < 100; k++) {
        err = (qd_err){0};
        qd_fault_arm(QD_FAULT_ALLOC, k, ENOMEM);
        const qd_code rc = use(&err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        assert_int_equal(fake_live(), live);
        if (rc == QD_OK) break;
        assert_int_equal(rc, QD_E_NO_MEMORY);
        assert_true(k < 99);
    }
}

static void a_device_that_is_not_there_is_refused(void **state)
{
    (void)state;
    const qd_ops *ops = NULL;
    qd_err err = {0};
    assert_int_equal(qd_cuda_library_of()->open(FAKE_DEVICES, &ops, &err), QD_E_UNSUPPORTED);
    assert_string_equal(err.msg, "gpu8: found 8 CUDA devices (no error)");
    assert_null(ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_went),
        cmocka_unit_test(linears_are_the_host_s_within_their_bound),
        cmocka_unit_test(products_of_every_kind_are_the_host_s_within_their_bound),
        cmocka_unit_test(attention_is_the_host_s_within_its_bound),
        cmocka_unit_test(memory_is_taken_once_and_what_is_too_much_is_refused),
        cmocka_unit_test(a_pool_gives_out_every_byte_again),
        cmocka_unit_test(each_call_that_fails_is_told_and_nothing_leaks),
        cmocka_unit_test(a_device_that_is_not_there_is_refused),
    };
    return cmocka_run_group_tests_name("device", tests, setup, teardown);
}
