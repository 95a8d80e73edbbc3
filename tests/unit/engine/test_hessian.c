/* test_hessian.c -- sums over tokens: the plain ones, the same bytes for any threads; moments without an order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/tasks.h"
#include "engine/hessian.h"
#include "engine/moments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 272, /* two tiles, the second small */
    ROWS = 24,
    TILES = 9
};

static float g_x[TILES * ROWS][N];

static void fill(void)
{
    uint32_t r = 5;
    for (int t = 0; t < TILES * ROWS; t++)
        for (int k = 0; k < N; k++) {
            r = r * 1664525u + 1013904223u;
            g_x[t][k] = (float)(int32_t)r * 0x1p-31f;
        }
}

typedef struct adding {
    qd_hessian *h;
    qd_lane lanes[4];
    uint64_t fails_at;
} adding;

static qd_code add(void *arg, unsigned worker, uint64_t tile, qd_err *err)
{
    adding *a = arg;
    if (tile == a->fails_at) {
        qd_hessian_fail(a->h);
        return qd_fail(err, QD_E_IO, "this tile fails");
    }
    return qd_hessian_add(a->h, &a->lanes[worker], g_x[tile * ROWS], N, ROWS, tile * ROWS, ROWS, err);
}

static qd_code sum(unsigned threads, uint64_t fails_at, qd_hessian **ret, qd_err *err)
{
    qd_tasks tasks = {.n_threads = threads};
    adding a = {.fails_at = fails_at};
    for (int i = 0; i < 4; i++) a.lanes[i].ops = qd_ops_host("cpu");
    assert_int_equal(qd_hessian_new(N, &a.h, err), QD_OK);
    *ret = a.h;
    return qd_tasks_run(&tasks, TILES, add, &a, err);
}

static void it_is_the_plain_sum_whatever_the_threads(void **state)
{
    (void)state;
    qd_err e = {0};
    qd_hessian *one = NULL, *four = NULL;
    fill();
    assert_int_equal(sum(1, UINT64_MAX, &one, &e), QD_OK);
    assert_int_equal(sum(4, UINT64_MAX, &four, &e), QD_OK);
    for (uint64_t i = 0; i < N; i++)
        for (uint64_t j = 0; j <= i; j++) {
            double s = 0;
            for (int t = 0; t < TILES * ROWS; t++) s += (double)g_x[t][i] * (double)g_x[t][j];
            float a = qd_hessian_element(one, i, j), b = qd_hessian_element(four, i, j);
            assert_memory_equal(&a, &b, sizeof a);
            assert_true(fabs((double)a - s) < 1e-4);
        }
    qd_hessian_free(one);
    qd_hessian_free(four);
}

/* Rows [x | y] of g_x: sum x x^T, and sum y x^T below it. */
static void of_pairs_one_half_is_summed_with_both(void **state)
{
    enum {
        HALF = N / 2
    };
    (void)state;
    qd_err e = {0};
    qd_hessian *h = NULL;
    qd_lane lane = {.ops = qd_ops_host("cpu")};
    fill();
    assert_int_equal(qd_hessian_new_cross(HALF, &h, &e), QD_OK);
    for (uint64_t t = 0; t < TILES * ROWS; t += ROWS)
        assert_int_equal(qd_hessian_add(h, &lane, g_x[t], N, ROWS, t, ROWS, &e), QD_OK);
    for (uint64_t i = 0; i < N; i++)
        for (uint64_t j = 0; j <= i && j < HALF; j++) {
            double s = 0;
            for (int t = 0; t < TILES * ROWS; t++) s += (double)g_x[t][i] * (double)g_x[t][j];
            assert_true(fabs((double)qd_hessian_element(h, i, j) - s) < 1e-4);
        }
    qd_hessian_free(h);
}

static void strips_are_the_triangle_row_by_row(void **state)
{
    qd_hessian *h = NULL, *copy = NULL;
    qd_err err = {0};
    (void)state;
    fill();
    assert_int_equal(sum(1, UINT64_MAX, &h, &err), QD_OK);
    assert_int_equal(qd_hessian_new(N, &copy, &err), QD_OK);
    float *packed = malloc(qd_hessian_strip_max(h) * sizeof *packed);
    for (uint64_t s = 0, row = 0; s < h->n_tiles; s++) {
        uint64_t n = qd_hessian_strip(h, s, false, packed), at = 0;
        assert_true(n <= qd_hessian_strip_max(h));
        for (; at < n; row++)
            for (uint64_t j = 0; j <= row; j++) assert_true(packed[at++] == qd_hessian_element(h, row, j));
        assert_int_equal(at, n);
        assert_int_equal(qd_hessian_strip(copy, s, true, packed), n);
    }
    for (uint64_t i = 0; i < N; i++)
        for (uint64_t j = 0; j <= i; j++) assert_true(qd_hessian_element(copy, i, j) == qd_hessian_element(h, i, j));
    free(packed);
    qd_hessian_free(copy);
    qd_hessian_free(h);
}

static void who_waits_for_a_tile_that_failed_gives_up(void **state)
{
    (void)state;
    qd_err e = {0};
    qd_hessian *h = NULL;
    qd_code rc = sum(4, 3, &h, &e);
    assert_true(rc == QD_E_IO || rc == QD_E_CANCELED);
    qd_hessian_free(h);
}

static void moments_have_no_order(void **state)
{
    (void)state;
    qd_err e = {0};
    qd_moments a = {0}, b = {0}, c = {0};
    fill();
    assert_int_equal(qd_moments_init(N, &a, &e), QD_OK);
    assert_int_equal(qd_moments_init(N, &b, &e), QD_OK);
    assert_int_equal(qd_moments_init(N, &c, &e), QD_OK);
    for (int t = 0; t < TILES; t++) {
        qd_moments_add(&a, g_x[t * ROWS], ROWS, N);
        qd_moments_add(t % 2 == 0 ? &b : &c, g_x[(TILES - 1 - t) * ROWS], ROWS, N);
    }
    qd_moments_merge(&c, &b);
    assert_memory_equal(a.sum2, c.sum2, N * sizeof *a.sum2);
    assert_memory_equal(a.amax, c.amax, N * sizeof *a.amax);
    for (uint32_t k = 0; k < N; k++) {
        double s = 0;
        for (int t = 0; t < TILES * ROWS; t++) s += (double)g_x[t][k] * (double)g_x[t][k];
        assert_true(fabs(qd_moments_mean2(&a, k) * TILES * ROWS / s - 1) < 1e-12);
    }
    float bad[N] = {[7] = NAN};
    assert_false(a.bad);
    qd_moments_add(&a, bad, 1, N);
    assert_true(a.bad);
    qd_moments_done(&a);
    qd_moments_done(&b);
    qd_moments_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_plain_sum_whatever_the_threads),
        cmocka_unit_test(of_pairs_one_half_is_summed_with_both),
        cmocka_unit_test(strips_are_the_triangle_row_by_row),
        cmocka_unit_test(who_waits_for_a_tile_that_failed_gives_up),
        cmocka_unit_test(moments_have_no_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
