/* test_amax.c -- the amax kernels: one program for the shim, one for each translated PTX. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/args.h"
#include "gpu/cuda/launch.h"
#include "gpu/num.h"
#include "tests/kernel/inputs.h"

#include <stdlib.h>
#include <string.h>

static const qd_dtype dtypes[] = {QD_BF16, QD_F16, QD_F32};
enum {
    N_DTYPES = sizeof dtypes / sizeof *dtypes
};

/* n elements in a buffer of exactly that size, so that a sanitizer sees a read past them; without one there are NaNs.
 */
#ifdef __SANITIZE_ADDRESS__
#define BEHIND 0
#else
#define BEHIND 64
#endif
static void *weights(input_family f, qd_dtype t, uint32_t seed, size_t n)
{
    const size_t n_blocks = n / QD_NVFP4_BLOCK + 1, bytes = n * input_bytes(t);
    void *whole = malloc(n_blocks * QD_NVFP4_BLOCK * input_bytes(t)), *w = NULL;
    assert_non_null(whole);
    assert_int_equal(posix_memalign(&w, 16, bytes + BEHIND + (bytes + BEHIND == 0)), 0);
    input_fill(f, t, seed, whole, n_blocks);
    memcpy(w, whole, bytes);
#if BEHIND > 0
    memset((char *)w + bytes, 0xff, BEHIND);
#endif
    free(whole);
    return w;
}

static void the_largest_magnitude_is_found_whatever_the_length(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 3, 7, 8, 9, 31, 255, 1000, 8192, 8195, 40013};
    for (size_t k = 0; k < N_DTYPES; k++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            for (int f = 0; f < IN_FAMILY_COUNT; f++) {
                void *w = weights((input_family)f, dtypes[k], (uint32_t)i + 1, lengths[i]);
                uint32_t bits = 0;
                shim_set_order((shim_order)((size_t)f % SHIM_ORDER_COUNT), (uint32_t)i);
                assert_int_equal(qd_cuda_amax((int)dtypes[k], w, lengths[i], &bits, NULL), 0);
                assert_int_equal(bits, qd_f32_bits(input_amax(dtypes[k], w, lengths[i])));
                free(w);
            }
        }
    }
}

static void (*const kernels[N_DTYPES])(const void *) = {qd_k_amax_bf16, qd_k_amax_f16, qd_k_amax_f32};

/* -2 and a last bit, alone above zeros, is found at each `step`-th index by one block. */
static void find_each(size_t k, size_t n, size_t step, unsigned n_threads)
{
    static const uint32_t one[N_DTYPES] = {0xc001u, 0xc001u, 0xc0000001u};
    const unsigned bytes = input_bytes(dtypes[k]);
    void *w = weights(IN_SPARSE, dtypes[k], 1, n);
    memset(w, 0, n * bytes);
    for (size_t i = 0; i < n; i += step) {
        uint32_t bits = 0;
        const qd_cuda_amax_args args = {w, n, &bits};
        memcpy((char *)w + i * bytes, &one[k], bytes);
        assert_int_equal(shim_launch(kernels[k], &args, sizeof args, shim_dim(1), shim_dim(n_threads)), 0);
        assert_int_equal(bits, qd_f32_bits(-input_get(dtypes[k], w, i)));
        memset((char *)w + i * bytes, 0, bytes);
    }
    free(w);
}

/* Every place counts: of a thread's loads, in a loop over several and behind it, of the tail, of the warps. */
static void no_element_is_missed(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_DTYPES; k++) {
        const size_t load = 16 / input_bytes(dtypes[k]);
        find_each(k, 77, 1, 256);
        find_each(k, 32 * load * 11 + load - 1, 1, 32);
        for (unsigned n_warps = 2; n_warps <= 32; n_warps += n_warps < 10 ? 1 : 11)
            find_each(k, 32 * n_warps * load, 32 * load, 32 * n_warps);
    }
}

static void several_launches_raise_one_maximum(void **state)
{
    (void)state;
    uint32_t bits = 0;
    float amax = 0.0f;
    for (uint32_t i = 0; i < 5; i++) {
        void *w = weights(IN_NORMAL, QD_BF16, i, 500);
        amax = fmaxf(amax, input_amax(QD_BF16, w, 500));
        assert_int_equal(qd_cuda_amax(QD_BF16, w, 500, &bits, NULL), 0);
        assert_int_equal(bits, qd_f32_bits(amax));
        free(w);
    }
}

static void an_infinity_or_a_nan_shows_wherever_it_is(void **state)
{
    (void)state;
    static const size_t places[] = {0, 1, 15, 700, 8190, 8194};
    static const uint32_t bad[N_DTYPES][4] = {{0x7f80, 0xff80, 0x7f81, 0xffff},
                                              {0x7c00, 0xfc00, 0x7c01, 0xffff},
                                              {0x7f800000, 0xff800000, 0x7f800001, 0xffffffff}};
    for (size_t k = 0; k < N_DTYPES; k++) {
        for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
            for (size_t b = 0; b < 4; b++) {
                const unsigned bytes = input_bytes(dtypes[k]);
                uint32_t bits = 0;
                void *w = weights(IN_HUGE, dtypes[k], 3, 8195);
                memcpy((char *)w + places[p] * bytes, &bad[k][b], bytes);
                assert_int_equal(qd_cuda_amax((int)dtypes[k], w, 8195, &bits, NULL), 0);
                assert_true(bits >= 0x7f800000u);
                free(w);
            }
        }
    }
}

static void every_launch_shape_gives_the_same(void **state)
{
    (void)state;
    static const unsigned shapes[][2] = {{1, 32}, {1, 1024}, {2, 96}, {7, 64}, {64, 32}, {3, 512}};
    for (size_t k = 0; k < N_DTYPES; k++) {
        void *w = weights(IN_BITS, dtypes[k], 9, 5003);
        const uint32_t want = qd_f32_bits(input_amax(dtypes[k], w, 5003));
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            for (int order = 0; order < SHIM_ORDER_COUNT; order++) {
                uint32_t bits = 0;
                const qd_cuda_amax_args args = {w, 5003, &bits};
                shim_set_order((shim_order)order, (uint32_t)s);
                assert_int_equal(
                    shim_launch(kernels[k], &args, sizeof args, shim_dim(shapes[s][0]), shim_dim(shapes[s][1])), 0);
                assert_int_equal(bits, want);
            }
        }
        free(w);
    }
}

static void what_has_no_kernel_is_refused_and_nothing_is_written(void **state)
{
    (void)state;
    uint32_t bits[2] = {7, 7};
    void *w = weights(IN_NORMAL, QD_F32, 1, 64);
    assert_int_equal(qd_cuda_amax(QD_F64, w, 8, bits, NULL), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_amax(-1, w, 8, bits, NULL), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_amax(QD_F32, NULL, 8, bits, NULL), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_amax(QD_F32, (char *)w + 4, 8, bits, NULL), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_amax(QD_F32, w, 8, NULL, NULL), QD_CUDA_INVALID);
    assert_int_equal(bits[0], 7);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_magnitude_is_found_whatever_the_length),
        cmocka_unit_test(no_element_is_missed),
        cmocka_unit_test(several_launches_raise_one_maximum),
        cmocka_unit_test(an_infinity_or_a_nan_shows_wherever_it_is),
        cmocka_unit_test(every_launch_shape_gives_the_same),
        cmocka_unit_test(what_has_no_kernel_is_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests_name("amax", tests, NULL, NULL);
}
