/* test_ops_int8.c -- products of 8-bit integers by blocks: their definition written out, NVFP4 values, what they leave
 * alone. */
#include "tests/unit/gpu/ops_rig.h"

/* A block of n as integers of -120 .. 120 and a scale, as host_int8.c says. */
static float integers(const float *x, int n, int *q)
{
    float most = 0;
    for (int i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    for (int i = 0; i < n; i++) q[i] = most < 1e-30f ? 0 : (int)rintf(x[i] * (120.0f / most));
    return most < 1e-30f ? 0.0f : most * (1.0f / 120.0f);
}

static void int8_case(fix *f, const char *device, uint64_t m, uint64_t n, uint64_t k, bool biased)
{
    uint64_t per = strcmp(device, "cpu-int8-coarse") == 0 && k % 64 == 0 ? 64 : 16;
    uint64_t ldx = k + 3, ldy = n + 5;
    float *x = some(f, m * ldx), *w = some(f, n * k), *bias = some(f, n), *y = some(f, m * ldy);
    float *before = malloc(m * ldy * sizeof *y);
    assert_non_null(before);
    for (uint64_t i = 0; i < 16 && i < n * k; i++) w[i] = 0; /* a block of nothing */
    memcpy(before, y, m * ldy * sizeof *y);
    qd_weight wt = {.dtype = QD_F32, .n = n, .k = k, .data = w, .bias = biased ? bias : NULL};
    assert_int_equal(f->lane.ops->weight_pack(f->lane.ops, &wt, false, NULL, &f->err), QD_OK);
    assert_int_equal(f->lane.ops->linear(&f->lane, x, m, ldx, &wt, y, ldy, &f->err), QD_OK);
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < ldy; j++) {
            float s = 0;
            for (uint64_t b = 0; j < n && b < k; b += per) {
                int p[64], q[64], dot = 0;
                float a = integers(x + i * ldx + b, (int)per, p), c = integers(w + j * k + b, (int)per, q);
                for (uint64_t e = 0; e < per; e++) dot += p[e] * q[e];
                s = fmaf((float)dot, c * a, s);
            }
            if (j < n && biased) s += bias[j];
            if (f->lane.bf16) s = j < n ? rounded(s) : s;
            assert_true(y[i * ldy + j] == (j < n ? s : before[i * ldy + j]));
        }
    f->lane.ops->weight_unpack(&wt);
    assert_null(wt.packed);
    free(x), free(w), free(bias), free(y), free(before);
}

static void integer_products_are_exact_in_their_blocks(void **state)
{
    static const char *const devices[] = {"cpu-int8", "cpu-int8-coarse"};
    fix *f = *state;
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int d = 0; d < 2; d++) {
            f->lane.bf16 = bf16 != 0;
            f->lane.ops = qd_ops_host(devices[d]);
            if (f->lane.ops == NULL) skip();
            int8_case(f, devices[d], 1, 1, 16, false);
            int8_case(f, devices[d], 7, 50, 96, true);
            int8_case(f, devices[d], 131, 97, 64, false); /* two stripes of x, rows left over, three panels of w */
            int8_case(f, devices[d], 5, 48, 1536, true);  /* pieces of w that the cache holds */
        }
}

static void an_exact_matrix_has_the_products_of_plain_f32(void **state)
{
    static const char *const devices[] = {"cpu", "cpu-int8", "cpu-int8-coarse"};
    enum {
        M = 9,
        ROWS = 24,
        K = 64
    };
    fix *f = *state;
    float *x = some(f, M * K), *w = some(f, ROWS * K), y[3][M * ROWS];
    if (qd_ops_host("cpu-int8") == NULL) skip();
    for (int d = 0; d < 3; d++) {
        qd_weight wt = {.dtype = QD_F32, .n = ROWS, .k = K, .data = w, .exact = true};
        f->lane.ops = qd_ops_host(devices[d]);
        assert_int_equal(f->lane.ops->weight_pack(f->lane.ops, &wt, false, NULL, &f->err), QD_OK);
        assert_int_equal(f->lane.ops->linear(&f->lane, x, M, K, &wt, y[d], ROWS, &f->err), QD_OK);
        if (wt.packed != NULL) f->lane.ops->weight_unpack(&wt);
        assert_memory_equal(y[d], y[0], sizeof y[0]);
    }
    free(x), free(w);
}

/* Every E2M1 value under a scale comes out as it went in. */
static void integer_products_hold_nvfp4_values(void **state)
{
    static const float e2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    fix *f = *state;
    float x[32], w[32], y = 0;
    double sum = 0;
    f->lane.ops = qd_ops_host("cpu-int8");
    if (f->lane.ops == NULL) skip();
    for (int n = 0; n < 2000; n++) {
        sum = 0;
        for (int i = 0; i < 32; i++) {
            float a = qd_e4m3_to_f32((uint8_t)(1 + (n * 7 + i / 16) % 126));
            x[i] = e2m1[(int)(fabsf(next(f)) * 7.999f)] * a * (next(f) < 0 ? -1.0f : 1.0f);
            w[i] = e2m1[(int)(fabsf(next(f)) * 7.999f)] * 0.25f;
            sum += (double)x[i] * (double)w[i];
        }
        qd_weight wt = {.dtype = QD_F32, .n = 1, .k = 32, .data = w};
        assert_int_equal(f->lane.ops->weight_pack(f->lane.ops, &wt, false, NULL, &f->err), QD_OK);
        assert_int_equal(f->lane.ops->linear(&f->lane, x, 1, 32, &wt, &y, 1, &f->err), QD_OK);
        near((double)y, sum, 1e-6 * (fabs(sum) + 448 * 6), "product", (uint64_t)n);
        f->lane.ops->weight_unpack(&wt);
    }
}

/* Whatever the threads; and in a layer as wide as Llama-3-8B's, in pieces that end with a tick. */
static void packing_is_the_same_in_any_number_of_threads(void **state)
{
    static const char *const devices[] = {"cpu-bf16", "cpu-int8", "cpu-int8-coarse"};
    enum {
        WIDE = 14336,
        ROWS = 1040, /* blocks and panels, and some rows left over */
        PIECE = 512 * WIDE
    };
    fix *f = *state;
    float *x = some(f, 2 * WIDE), y[2][2 * ROWS];
    uint16_t *w = malloc((size_t)ROWS * WIDE * sizeof *w);
    assert_non_null(w);
    for (int i = 0; i < ROWS * WIDE; i++) w[i] = qd_bf16_from_f32(x[i % (2 * WIDE - 1)]);
    f->lane.bf16 = true;
    for (int d = 0; d < 3; d++) {
        qd_weight of[2];
        qd_cancel cancel = {0};
        qd_tasks tasks = {.n_threads = 3, .cancel = &cancel};
        f->lane.ops = qd_ops_host(devices[d]);
        if (f->lane.ops == NULL) continue;
        for (int i = 0; i < 2; i++) {
            of[i] = (qd_weight){.dtype = QD_BF16, .n = ROWS, .k = WIDE, .data = w};
            assert_int_equal(f->lane.ops->weight_pack(f->lane.ops, &of[i], true, i == 0 ? NULL : &tasks, &f->err),
                             QD_OK);
            assert_int_equal(f->lane.ops->linear(&f->lane, x, 2, WIDE, &of[i], y[i], ROWS, &f->err), QD_OK);
            f->lane.ops->weight_unpack(&of[i]);
        }
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        assert_true(tasks.n_ticks >= (uint64_t)ROWS * WIDE / PIECE);
        qd_cancel_set(&cancel, 15);
        assert_int_equal(f->lane.ops->weight_pack(f->lane.ops, &of[0], true, &tasks, &f->err), QD_E_CANCELED);
        assert_null(of[0].packed);
    }
    free(x), free(w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(integer_products_are_exact_in_their_blocks),
        T(an_exact_matrix_has_the_products_of_plain_f32),
        T(integer_products_hold_nvfp4_values),
        T(packing_is_the_same_in_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
