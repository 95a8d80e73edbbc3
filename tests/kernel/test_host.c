/* test_host.c -- the kernels against the host device behind gpu/dev.h: same codes, scales, sums and maxima. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/args.h"
#include "gpu/cuda/launch.h"
#include "gpu/dev.h"
#include "gpu/num.h"
#include "quant/nvfp4.h"
#include "tests/kernel/inputs.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_BLOCKS = 12 * 45,
    BLOCKS_PER_ROW = 12
};

typedef struct fixture {
    qd_dev *host;
    _Alignas(16) unsigned char w[N_BLOCKS * QD_NVFP4_BLOCK * sizeof(float)];
    float weight[BLOCKS_PER_ROW * QD_NVFP4_BLOCK];
    _Alignas(8) uint8_t codes[2][N_BLOCKS * 8];
    uint8_t scales[2][N_BLOCKS], flags[N_BLOCKS];
    float err2[N_BLOCKS], w2[N_BLOCKS];
} fixture;

static int setup(void **state)
{
    qd_err err = {0};
    fixture *f = aligned_alloc(_Alignof(fixture), sizeof *f);
    if (f == NULL) return -1;
    memset(f, 0, sizeof *f);
    *state = f;
    if (qd_dev_open_host(NULL, &f->host, &err) == QD_OK) return 0;
    print_error("%s\n", err.msg);
    return -1;
}

static int teardown(void **state)
{
    fixture *f = *state;
    qd_dev_free(f->host);
    free(f);
    return 0;
}

/* What a caller of the kernels does with the arrays of a tile. */
static qd_nvfp4_sums add_up(const fixture *f)
{
    qd_nvfp4_sums s = {0};
    for (size_t b = 0; b < N_BLOCKS; b++) {
        s.err2 += (double)f->err2[b];
        s.w2 += (double)f->w2[b];
        s.n_clipped += (f->flags[b] & QD_CUDA_CLIPPED) != 0;
        s.n_zero += (f->flags[b] & QD_CUDA_ZERO) != 0;
    }
    return s;
}

static void encode_both(fixture *f, qd_nvfp4_tile t)
{
    qd_nvfp4_sums by_host;
    qd_err err = {0};
    t.codes = f->codes[0];
    t.scales = f->scales[0];
    if (f->host->ops->nvfp4_encode(f->host, &t, &by_host, &err) != QD_OK) fail_msg("%s", err.msg);
    const qd_cuda_block_sums sums = {f->err2, f->w2, f->flags};
    t.codes = f->codes[1];
    t.scales = f->scales[1];
    assert_int_equal(qd_cuda_nvfp4_encode(&t, &sums, NULL), 0);
    const qd_nvfp4_sums by_kernel = add_up(f);
    assert_memory_equal(f->scales[1], f->scales[0], sizeof f->scales[0]);
    assert_memory_equal(f->codes[1], f->codes[0], sizeof f->codes[0]);
    assert_memory_equal(&by_kernel.err2, &by_host.err2, sizeof by_host.err2);
    assert_memory_equal(&by_kernel.w2, &by_host.w2, sizeof by_host.w2);
    assert_int_equal(by_kernel.n_clipped, by_host.n_clipped);
    assert_int_equal(by_kernel.n_zero, by_host.n_zero);
}

static void every_recipe_gives_the_host_device_s_bytes_and_sums(void **state)
{
    fixture *f = *state;
    static const qd_dtype dtypes[] = {QD_BF16, QD_F16, QD_F32};
    static const qd_nvfp4_recipe recipes[] = {{QD_RULE_MINMAX, QD_SCALE_FP32},
                                              {QD_RULE_FOUR_OVER_SIX, QD_SCALE_FP32},
                                              {QD_RULE_MSE, QD_SCALE_FP32},
                                              {QD_RULE_MINMAX, QD_SCALE_CT_EXACT}};
    uint32_t seed = 77;
    for (size_t i = 0; i < BLOCKS_PER_ROW * QD_NVFP4_BLOCK; i++)
        f->weight[i] = (float)(input_random(&seed) % 5) * 0.25f;
    for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
        for (int in = 0; in < IN_FAMILY_COUNT; in++) {
            input_fill((input_family)in, dtypes[k], 21, f->w, N_BLOCKS);
            const float amax = input_amax(dtypes[k], f->w, N_BLOCKS * QD_NVFP4_BLOCK);
            for (size_t r = 0; r < sizeof recipes / sizeof *recipes; r++) {
                qd_nvfp4_tile t = {.dtype = (int)dtypes[k],
                                   .rule = recipes[r].rule,
                                   .arith = qd_nvfp4_arith_of(&recipes[r], dtypes[k]),
                                   .gs = qd_nvfp4_global(&recipes[r], dtypes[k], amax),
                                   .w = f->w,
                                   .blocks_per_row = BLOCKS_PER_ROW,
                                   .n_blocks = N_BLOCKS};
                encode_both(f, t);
                if (t.rule != QD_RULE_MSE) continue;
                t.col_weight = f->weight;
                encode_both(f, t);
            }
        }
    }
}

static void amax_is_the_host_device_s(void **state)
{
    fixture *f = *state;
    static const qd_dtype dtypes[] = {QD_BF16, QD_F16, QD_F32};
    for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
        for (int in = 0; in < IN_FAMILY_COUNT; in++) {
            const uint64_t n = N_BLOCKS * QD_NVFP4_BLOCK - (uint64_t)in;
            uint32_t bits = 0;
            float amax = -1.0f;
            bool finite = false;
            input_fill((input_family)in, dtypes[k], 5, f->w, N_BLOCKS);
            assert_int_equal(f->host->ops->amax(f->host, dtypes[k], f->w, n, &amax, &finite, NULL), QD_OK);
            assert_int_equal(qd_cuda_amax((int)dtypes[k], f->w, n, &bits, NULL), 0);
            assert_true(finite);
            assert_int_equal(bits, qd_f32_bits(amax));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_gives_the_host_device_s_bytes_and_sums),
        cmocka_unit_test(amax_is_the_host_device_s),
    };
    return cmocka_run_group_tests_name("host", tests, setup, teardown);
}
