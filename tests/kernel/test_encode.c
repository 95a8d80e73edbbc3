/* test_encode.c -- the encode kernels against the reference of gpu/kernels.h, bit for bit: one program for the shim,
 * one for each translated PTX. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/args.h"
#include "gpu/cuda/launch.h"
#include "gpu/kernels.h"
#include "quant/nvfp4.h"
#include "tests/kernel/inputs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qd_dtype dtypes[] = {QD_BF16, QD_F16, QD_F32};
enum {
    N_DTYPES = sizeof dtypes / sizeof *dtypes,
    CANARY_BYTES = 16,
    CANARY = 0xee
};

/* What an encode writes, each array followed by bytes that must stay. */
typedef struct outputs {
    uint64_t n_blocks;
    uint8_t *codes, *scales, *err2, *w2, *flags;
} outputs;

static uint8_t *array(size_t bytes)
{
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 16, bytes + CANARY_BYTES), 0);
    memset(p, CANARY, bytes + CANARY_BYTES);
    return p;
}

static outputs make_outputs(size_t n)
{
    return (outputs){n, array(n * 8), array(n), array(n * sizeof(float)), array(n * sizeof(float)), array(n)};
}

static void free_outputs(outputs *o)
{
    free(o->codes);
    free(o->scales);
    free(o->err2);
    free(o->w2);
    free(o->flags);
}

static void assert_array(const uint8_t *got, const uint8_t *want, size_t bytes, const char *what, const char *where)
{
    for (size_t i = 0; i < bytes + CANARY_BYTES; i++)
        if (got[i] != want[i])
            fail_msg("%s: %s differ at byte %zu of %zu: %02x, the reference says %02x", where, what, i, bytes, got[i],
                     want[i]);
}

static void assert_outputs(const outputs *got, const outputs *want, const char *where)
{
    const size_t n = want->n_blocks;
    assert_array(got->scales, want->scales, n, "scales", where);
    assert_array(got->codes, want->codes, n * 8, "codes", where);
    assert_array(got->err2, want->err2, n * sizeof(float), "squared errors", where);
    assert_array(got->w2, want->w2, n * sizeof(float), "squares", where);
    assert_array(got->flags, want->flags, n, "flags", where);
}

static void reference(const qd_nvfp4_tile *t, outputs *o)
{
    for (uint64_t b = 0; b < t->n_blocks; b++) {
        float w[QD_NVFP4_BLOCK];
        for (size_t i = 0; i < QD_NVFP4_BLOCK; i++)
            w[i] = input_get((qd_dtype)t->dtype, t->w, (size_t)b * QD_NVFP4_BLOCK + i);
        const float *weight = t->col_weight != NULL ? t->col_weight + b % t->blocks_per_row * QD_NVFP4_BLOCK : NULL;
        const qd_nvfp4_block_sums s =
            qd_nvfp4_block(w, weight, t->gs, t->rule, t->arith, o->codes + b * 8, o->scales + b);
        memcpy(o->err2 + b * sizeof(float), &s.err2, sizeof s.err2);
        memcpy(o->w2 + b * sizeof(float), &s.w2, sizeof s.w2);
        o->flags[b] = (uint8_t)((s.clipped != 0 ? QD_CUDA_CLIPPED : 0) | (s.zero != 0 ? QD_CUDA_ZERO : 0));
    }
}

static int launch(const qd_nvfp4_tile *t, outputs *o)
{
    const qd_cuda_block_sums sums = {(float *)(void *)o->err2, (float *)(void *)o->w2, o->flags};
    qd_nvfp4_tile tile = *t;
    tile.codes = o->codes;
    tile.scales = o->scales;
    return qd_cuda_nvfp4_encode(&tile, &sums, NULL);
}

/* Every combination that has a kernel: rule, arithmetic, with column weights or without. */
typedef struct mode {
    qd_nvfp4_rule rule;
    qd_nvfp4_arith arith;
    int weighted;
} mode;

static const mode modes[] = {
    {QD_RULE_MINMAX, QD_ARITH_FP32, 0},    {QD_RULE_FOUR_OVER_SIX, QD_ARITH_FP32, 0},
    {QD_RULE_MSE, QD_ARITH_FP32, 0},       {QD_RULE_MSE, QD_ARITH_FP32, 1},
    {QD_RULE_MINMAX, QD_ARITH_CT_BF16, 0}, {QD_RULE_MINMAX, QD_ARITH_CT_F16, 0},
    {QD_RULE_MINMAX, QD_ARITH_CT_F32, 0},
};
enum {
    N_MODES = sizeof modes / sizeof *modes,
    BLOCKS_PER_ROW = 5
};

/* Importance of each column: ones, large, small, and zeros, one of which will hide a block's largest element. */
static void fill_weights(float *weight, uint32_t seed)
{
    static const float some[] = {1.0f, 0.0f, 100.0f, 0x1p-10f, 0.7f};
    for (size_t i = 0; i < (size_t)BLOCKS_PER_ROW * QD_NVFP4_BLOCK; i++) weight[i] = some[input_random(&seed) % 5];
}

static float global_scale(const mode *m, qd_dtype t, float amax)
{
    const qd_nvfp4_recipe r = {m->rule, m->arith == QD_ARITH_FP32 ? QD_SCALE_FP32 : QD_SCALE_CT_EXACT};
    return qd_nvfp4_global(&r, t, amax);
}

static void compare(qd_dtype t, const mode *m, input_family f, const void *w, size_t n_blocks, float gs,
                    const float *weight)
{
    char where[128];
    outputs got = make_outputs(n_blocks), want = make_outputs(n_blocks);
    qd_nvfp4_tile tile = {.dtype = (int)t, .rule = m->rule, .arith = m->arith, .gs = gs, .w = w, .n_blocks = n_blocks};
    if (m->weighted) {
        tile.col_weight = weight;
        tile.blocks_per_row = BLOCKS_PER_ROW;
    }
    snprintf(where, sizeof where, "%s, %s, rule %d, arithmetic %d, weighted %d, gs %a", qd_dtype_name(t), input_name(f),
             (int)m->rule, (int)m->arith, m->weighted, (double)gs);
    reference(&tile, &want);
    assert_int_equal(launch(&tile, &got), 0);
    assert_outputs(&got, &want, where);
    free_outputs(&got);
    free_outputs(&want);
}

static void every_rule_and_dtype_equals_the_reference(void **state)
{
    (void)state;
    enum {
        N_BLOCKS = 203
    };
    float weight[BLOCKS_PER_ROW * QD_NVFP4_BLOCK];
    uint32_t n = 0;
    for (size_t k = 0; k < N_DTYPES; k++) {
        for (int f = 0; f < IN_FAMILY_COUNT; f++) {
            void *w = array((size_t)N_BLOCKS * QD_NVFP4_BLOCK * input_bytes(dtypes[k]));
            input_fill((input_family)f, dtypes[k], 11, w, N_BLOCKS);
            const float amax = input_amax(dtypes[k], w, (size_t)N_BLOCKS * QD_NVFP4_BLOCK);
            for (size_t m = 0; m < N_MODES; m++) {
                const float scales[] = {global_scale(&modes[m], dtypes[k], amax), INPUT_TIE_GS, 0x1p-20f, 0x1p20f};
                for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
                    shim_set_order((shim_order)(n % SHIM_ORDER_COUNT), n);
                    fill_weights(weight, ++n);
                    compare(dtypes[k], &modes[m], (input_family)f, w, N_BLOCKS, scales[s], weight);
                }
            }
            free(w);
        }
    }
}

/* One element a block, whose product with gs is about the smallest number there is, or about a tie of E2M1 under the
 * smallest scale. */
static void the_smallest_blocks_equal_the_reference(void **state)
{
    (void)state;
    static const float few[] = {0.25f, 0.5f, 0.75f, 1.0f, 1.5f, 2.0f, 2.5f, 3.0f, 3.5f, 5.0f, 6.0f, 7.0f};
    static const float gs[] = {0x1p-9f, 0x1p-140f};
    enum {
        N_BLOCKS = 3 * sizeof few / sizeof *few
    };
    float weight[BLOCKS_PER_ROW * QD_NVFP4_BLOCK];
    fill_weights(weight, 7);
    for (size_t k = 0; k < N_DTYPES; k++) {
        const unsigned bytes = input_bytes(dtypes[k]);
        unsigned char *w = array((size_t)N_BLOCKS * QD_NVFP4_BLOCK * bytes);
        memset(w, 0, (size_t)N_BLOCKS * QD_NVFP4_BLOCK * bytes);
        for (size_t b = 0; b < N_BLOCKS; b++) /* a number, and its neighbours in the dtype */
            input_put(dtypes[k], w, b * QD_NVFP4_BLOCK + b % QD_NVFP4_BLOCK, few[b / 3] * (b % 2 == 0 ? 1.0f : -1.0f),
                      (int)(b % 3) - 1);
        for (size_t m = 0; m < N_MODES; m++)
            for (size_t s = 0; s < sizeof gs / sizeof *gs; s++)
                compare(dtypes[k], &modes[m], IN_SPARSE, w, N_BLOCKS, gs[s], weight);
        for (size_t b = 0; b < N_BLOCKS; b++) /* 2^-9 times as much, of which 2^-140 leaves 2^-149 */
            input_put(dtypes[k], w, b * QD_NVFP4_BLOCK + b % QD_NVFP4_BLOCK, few[b / 3] * 0x1p-9f, 0);
        for (size_t m = 0; m < N_MODES; m++)
            for (size_t s = 0; s < sizeof gs / sizeof *gs; s++)
                compare(dtypes[k], &modes[m], IN_SPARSE, w, N_BLOCKS, gs[s], weight);
        free(w);
    }
}

/* compressed-tensors rounds amax / 6 to the dtype of the weights. Numbers on and beside the edges of that rounding,
 * under global scales that put the result just below and just above a tie of E4M3. */
static void raw_scales_round_as_the_reference_s(void **state)
{
    (void)state;
    static const float edges[] = {0x1.fffp15f,       65504.0f,       65520.0f,         65536.0f, 1.0f + 0x1p-11f,
                                  1.0f + 0x1.8p-10f, 1.0f + 0x1p-8f, 1.0f + 0x1.8p-7f, 0x1p-14f, 0x1.004p-14f,
                                  0x1p-15f,          0x1.8p-24f,     0x1.4p-22f,       0x1p-24f, 0x1p-25f,
                                  0x1.fep127f / 8,   0x1.01p-126f};
    static const mode ct[] = {{QD_RULE_MINMAX, QD_ARITH_CT_BF16, 0}, {QD_RULE_MINMAX, QD_ARITH_CT_F16, 0}};
    _Alignas(16) float w[QD_NVFP4_BLOCK];
    for (size_t i = 0; i < 3 * sizeof edges / sizeof *edges; i++) {
        float edge = edges[i / 3];
        edge = i % 3 == 0 ? nextafterf(edge, 0.0f) : i % 3 == 1 ? edge : nextafterf(edge, INFINITY);
        for (size_t k = 0; k < QD_NVFP4_BLOCK; k++) w[k] = edge * (float)k / 16;
        w[3] = 6.0f * edge;
        for (int k = 0; k < 9; k++) /* 1.0625 lies halfway between two codes */
            for (size_t m = 0; m < sizeof ct / sizeof *ct; m++)
                compare(QD_F32, &ct[m], IN_BITS, w, 1, 1.0625f / edge * (1.0f + (float)(k - 4) * 0x1p-12f), NULL);
    }
}

/* Elements whose quotient is a tie of E2M1, but not their product with the global scale: the sides of the tie differ in
 * the last bits of the error. */
static void ties_of_a_rounded_step_equal_the_reference(void **state)
{
    (void)state;
    static const float ties[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f}, scales[] = {3.0f, 7.0f, 0.7f, 81.0f};
    enum {
        FIRST = 8, /* scale code */
        N_BLOCKS = QD_E4M3_MAX_CODE - FIRST
    };
    float *w = (float *)(void *)array((size_t)N_BLOCKS * QD_NVFP4_BLOCK * sizeof *w),
          weight[BLOCKS_PER_ROW * QD_NVFP4_BLOCK];
    fill_weights(weight, 9);
    for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
        for (size_t i = 0; i < (size_t)N_BLOCKS * QD_NVFP4_BLOCK; i++) {
            const float s = qd_e4m3_to_f32((uint8_t)(FIRST + i / QD_NVFP4_BLOCK));
            w[i] = (i % QD_NVFP4_BLOCK == 9 ? 6.0f : ties[i % 7]) * s / scales[k];
        }
        for (size_t m = 0; m < N_MODES; m++) compare(QD_F32, &modes[m], IN_E2M1_TIES, w, N_BLOCKS, scales[k], weight);
    }
    free(w);
}

static void a_tail_of_any_length_is_encoded_and_nothing_past_it(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 2, 31, 127, 128, 129, 255, 257, 300};
    float weight[BLOCKS_PER_ROW * QD_NVFP4_BLOCK];
    fill_weights(weight, 5);
    for (size_t k = 0; k < N_DTYPES; k++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            const size_t n = lengths[i], bytes = n * QD_NVFP4_BLOCK * input_bytes(dtypes[k]);
            void *w = NULL;
            assert_int_equal(posix_memalign(&w, 16, bytes), 0);
            input_fill(IN_NORMAL, dtypes[k], (uint32_t)n, w, n);
            for (size_t m = 0; m < N_MODES; m++)
                compare(dtypes[k], &modes[m], IN_NORMAL, w, n, global_scale(&modes[m], dtypes[k], 0.1f), weight);
            free(w);
        }
    }
}

#define X(type, suffix)                                 \
    {qd_k_minmax_##suffix, qd_k_four_over_six_##suffix, \
     qd_k_mse_##suffix,    qd_k_mse_##suffix,           \
     qd_k_ct_##suffix,     qd_k_ct_##suffix,            \
     qd_k_ct_##suffix},
static void (*const kernels[N_DTYPES][N_MODES])(const void *) = {QD_CUDA_DTYPES(X)};
#undef X

static void every_launch_shape_and_order_gives_the_same(void **state)
{
    (void)state;
    enum {
        N_BLOCKS = 130
    };
    static const unsigned shapes[][2] = {{130, 1}, {5, 27}, {5, 32}, {3, 64}, {2, 96}, {1, 1024}, {9, 128}};
    float weight[BLOCKS_PER_ROW * QD_NVFP4_BLOCK];
    fill_weights(weight, 3);
    for (size_t k = 0; k < N_DTYPES; k++) {
        void *w = array((size_t)N_BLOCKS * QD_NVFP4_BLOCK * input_bytes(dtypes[k]));
        input_fill(IN_NORMAL, dtypes[k], 4, w, N_BLOCKS);
        for (size_t m = 0; m < N_MODES; m++) {
            const qd_nvfp4_tile tile = {.dtype = (int)dtypes[k],
                                        .rule = modes[m].rule,
                                        .arith = modes[m].arith,
                                        .gs = global_scale(&modes[m], dtypes[k], 0.1f),
                                        .w = w,
                                        .col_weight = modes[m].weighted ? weight : NULL,
                                        .blocks_per_row = BLOCKS_PER_ROW,
                                        .n_blocks = N_BLOCKS};
            outputs want = make_outputs(N_BLOCKS);
            reference(&tile, &want);
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                outputs o = make_outputs(N_BLOCKS);
                const qd_cuda_encode_args args = {
                    w,       tile.col_weight, BLOCKS_PER_ROW,          N_BLOCKS,
                    o.codes, o.scales,        (float *)(void *)o.err2, (float *)(void *)o.w2,
                    o.flags, tile.gs,         (int32_t)tile.arith};
                shim_set_order((shim_order)((s + m) % SHIM_ORDER_COUNT), (uint32_t)s);
                assert_int_equal(
                    shim_launch(kernels[k][m], &args, sizeof args, shim_dim(shapes[s][0]), shim_dim(shapes[s][1])), 0);
                assert_outputs(&o, &want, "launch shape");
                free_outputs(&o);
            }
            free_outputs(&want);
        }
        free(w);
    }
}

/* The families must reach the places that they are there for, or equality there says nothing. */
static void the_inputs_reach_every_code_and_flag(void **state)
{
    (void)state;
    enum {
        N_BLOCKS = 400
    };
    for (size_t k = 0; k < N_DTYPES; k++) {
        unsigned codes[16] = {0}, scales[256] = {0}, flags[4] = {0}, n_scales = 0;
        for (int f = 0; f < IN_FAMILY_COUNT; f++) {
            void *w = array((size_t)N_BLOCKS * QD_NVFP4_BLOCK * input_bytes(dtypes[k]));
            outputs o = make_outputs(N_BLOCKS);
            input_fill((input_family)f, dtypes[k], 2, w, N_BLOCKS);
            for (size_t m = 0; m < N_MODES; m++) {
                const qd_nvfp4_tile tile = {.dtype = (int)dtypes[k],
                                            .rule = modes[m].rule,
                                            .arith = modes[m].arith,
                                            .gs = INPUT_TIE_GS,
                                            .w = w,
                                            .n_blocks = N_BLOCKS};
                reference(&tile, &o);
                for (size_t b = 0; b < N_BLOCKS; b++) {
                    scales[o.scales[b]]++;
                    flags[o.flags[b]]++;
                    for (size_t i = 0; i < 8; i++) {
                        codes[o.codes[b * 8 + i] & 15u]++;
                        codes[o.codes[b * 8 + i] >> 4]++;
                    }
                }
            }
            free_outputs(&o);
            free(w);
        }
        for (int i = 0; i < 16; i++) assert_true(codes[i] > 0);
        for (int i = 1; i <= QD_E4M3_MAX_CODE; i++) n_scales += scales[i] > 0;
        assert_true(n_scales > 110);
        assert_true(flags[0] > 0 && flags[QD_CUDA_CLIPPED] > 0 && flags[QD_CUDA_ZERO] > 0);
    }
}

static void what_has_no_kernel_is_refused_and_nothing_is_written(void **state)
{
    (void)state;
    enum {
        N_BLOCKS = 4
    };
    void *w = array((size_t)N_BLOCKS * QD_NVFP4_BLOCK * 4);
    const float weight[QD_NVFP4_BLOCK] = {1.0f};
    outputs got = make_outputs(N_BLOCKS), want = make_outputs(N_BLOCKS);
    const qd_nvfp4_tile good = {.dtype = QD_F32, .gs = 1.0f, .w = w, .n_blocks = N_BLOCKS};
    qd_nvfp4_tile bad[12];
    for (size_t i = 0; i < 12; i++) bad[i] = good;
    bad[0].dtype = QD_F64;
    bad[1].dtype = -1;
    bad[2].rule = QD_RULE_COUNT;
    bad[3].arith = QD_ARITH_COUNT;
    bad[4].arith = QD_ARITH_CT_F32;
    bad[4].rule = QD_RULE_MSE;
    bad[5].arith = QD_ARITH_CT_BF16;
    bad[5].rule = QD_RULE_FOUR_OVER_SIX;
    bad[6].w = NULL;
    bad[7].w = (const char *)w + 4;
    bad[8].n_blocks = UINT64_MAX;
    bad[9].col_weight = weight; /* not a rule with weights */
    bad[9].blocks_per_row = 1;
    bad[10].col_weight = weight;
    bad[10].rule = QD_RULE_MSE; /* no row length */
    bad[11].n_blocks = (uint64_t)0x80000000u * 128;
    for (size_t i = 0; i < 12; i++) {
        if (launch(&bad[i], &got) != QD_CUDA_INVALID) fail_msg("case %zu is not refused", i);
    }
    qd_nvfp4_tile none = good;
    none.n_blocks = 0;
    assert_int_equal(launch(&none, &got), 0);
    assert_outputs(&got, &want, "refused");
    free_outputs(&got);
    free_outputs(&want);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_and_dtype_equals_the_reference),
        cmocka_unit_test(the_smallest_blocks_equal_the_reference),
        cmocka_unit_test(raw_scales_round_as_the_reference_s),
        cmocka_unit_test(ties_of_a_rounded_step_equal_the_reference),
        cmocka_unit_test(a_tail_of_any_length_is_encoded_and_nothing_past_it),
        cmocka_unit_test(every_launch_shape_and_order_gives_the_same),
        cmocka_unit_test(the_inputs_reach_every_code_and_flag),
        cmocka_unit_test(what_has_no_kernel_is_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}
