/* test_dev_host.c -- every instruction set of the host device gives the scalar reference's bytes and sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/mem.h"
#include "gpu/dev.h"
#include "gpu/kernels.h"
#include "tests/unit/gpu/patterns.h"

#include <stdbool.h>
#include <stdlib.h>

enum {
    N_BLOCKS = 333, /* odd: leaves a rest for 8 and for 16 lanes */
    GUARD = 64,
    GUARD_BYTE = 0xa5
};

static const char *const k_isas[] = {"generic", "generic16", "avx2", "avx512"};
static const qd_dtype k_dtypes[] = {QD_BF16, QD_F16, QD_F32};

typedef struct result {
    qd_nvfp4_sums sums;
    uint8_t codes[N_BLOCKS * 8 + 2 * GUARD], scales[N_BLOCKS + 2 * GUARD];
} result;

typedef struct fixture {
    qd_dev *scalar, *dev[4];
    unsigned char w[N_BLOCKS * 64 + 8];
    float weight[N_BLOCKS * 16];
    result want, got;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    qd_err err;
    if (f == NULL || qd_dev_open_host("scalar", &f->scalar, &err) != QD_OK) return -1;
    for (int i = 0; i < 4; i++) {
        qd_code rc = qd_dev_open_host(k_isas[i], &f->dev[i], &err);
        if (rc == QD_E_UNSUPPORTED && i >= 2)
            print_message("not on this processor: %s\n", k_isas[i]);
        else if (rc != QD_OK)
            return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 4; i++) qd_dev_free(f->dev[i]);
    qd_dev_free(f->scalar);
    free(f);
    return 0;
}

/* The global scale of a rule's headroom, as quant/nvfp4.c has it. */
static float global_of(qd_nvfp4_rule rule, qd_nvfp4_arith arith, float amax)
{
    float top = rule == QD_RULE_MINMAX ? 2688.0f : rule == QD_RULE_FOUR_OVER_SIX ? 1536.0f : 1344.0f;
    if (amax == 0.0f) return 1.0f;
    float gs = arith == QD_ARITH_FP32 ? top / amax : qd_ct_round(qd_ct_round(1.0f / amax, arith) * 2688.0f, arith);
    if (!(gs > 0.0f) || gs > 0x1p127f) gs = 1.0f;
    return arith == QD_ARITH_FP32 && gs > 0x1p110f ? 0x1p110f : gs;
}

static void encode(qd_dev *d, qd_nvfp4_tile t, result *r)
{
    qd_err err = {0};
    memset(r, GUARD_BYTE, sizeof *r);
    t.codes = r->codes + GUARD + 1; /* no alignment is promised */
    t.scales = r->scales + GUARD + 1;
    assert_int_equal(d->ops->nvfp4_encode(d, &t, &r->sums, &err), QD_OK);
    for (int i = 0; i <= GUARD; i++) {
        assert_int_equal(r->codes[i], GUARD_BYTE);
        assert_int_equal(r->scales[i], GUARD_BYTE);
    }
    for (size_t i = (size_t)t.n_blocks * 8 + GUARD + 1; i < sizeof r->codes; i++)
        assert_int_equal(r->codes[i], GUARD_BYTE);
    for (size_t i = (size_t)t.n_blocks + GUARD + 1; i < sizeof r->scales; i++)
        assert_int_equal(r->scales[i], GUARD_BYTE);
}

static void all_equal_scalar(fixture *f, const qd_nvfp4_tile *t, const char *what, int p)
{
    encode(f->scalar, *t, &f->want);
    for (int i = 0; i < 4; i++) {
        if (f->dev[i] == NULL) continue;
        encode(f->dev[i], *t, &f->got);
        if (memcmp(&f->got, &f->want, sizeof f->got) == 0) continue;
        for (size_t b = 0; b < t->n_blocks; b++)
            if (f->got.scales[GUARD + 1 + b] != f->want.scales[GUARD + 1 + b] ||
                memcmp(f->got.codes + GUARD + 1 + 8 * b, f->want.codes + GUARD + 1 + 8 * b, 8) != 0)
                fail_msg("%s, %s: pattern %d, dtype %s, rule %d, arith %d: block %zu differs, scale %02x and %02x",
                         f->dev[i]->name, what, p, qd_dtype_name((qd_dtype)t->dtype), (int)t->rule, (int)t->arith, b,
                         f->got.scales[GUARD + 1 + b], f->want.scales[GUARD + 1 + b]);
        fail_msg("%s, %s: pattern %d, dtype %s, rule %d, arith %d: sums differ, err2 %a and %a, w2 %a and %a",
                 f->dev[i]->name, what, p, qd_dtype_name((qd_dtype)t->dtype), (int)t->rule, (int)t->arith,
                 f->got.sums.err2, f->want.sums.err2, f->got.sums.w2, f->want.sums.w2);
    }
}

static qd_nvfp4_tile tile_of(fixture *f, pattern p, qd_dtype dtype, qd_nvfp4_rule rule, qd_nvfp4_arith arith)
{
    unsigned char *w = f->w + (dtype == QD_F32 ? 4 : 2); /* aligned to the element and no more */
    float amax;
    bool finite;
    qd_err err;
    pattern_fill(p, dtype, N_BLOCKS, (uint64_t)p, w);
    assert_int_equal(f->scalar->ops->amax(f->scalar, dtype, w, N_BLOCKS * 16, &amax, &finite, &err), QD_OK);
    assert_true(finite);
    return (qd_nvfp4_tile){.dtype = (int)dtype,
                           .rule = rule,
                           .arith = arith,
                           .gs = global_of(rule, arith, amax),
                           .w = w,
                           .n_blocks = N_BLOCKS};
}

static void every_rule_equals_the_scalar_reference(void **state)
{
    fixture *f = *state;
    for (int p = 0; p < P_COUNT; p++)
        for (int d = 0; d < 3; d++)
            for (int rule = 0; rule < QD_RULE_COUNT; rule++) {
                qd_nvfp4_tile t = tile_of(f, (pattern)p, k_dtypes[d], (qd_nvfp4_rule)rule, QD_ARITH_FP32);
                all_equal_scalar(f, &t, "own scale", p);
                if (p == P_HUGE || p == P_BITS) continue;
                t.gs = p == P_DENORMAL ? 0x1p110f : 1.0f; /* grid and ties stay exact */
                all_equal_scalar(f, &t, "exact scale", p);
                t.gs = 0x1.3p-9f; /* small scale codes */
                all_equal_scalar(f, &t, "small scale", p);
            }
}

static void compressed_tensors_arithmetic_equals_the_scalar_reference(void **state)
{
    fixture *f = *state;
    for (int p = 0; p < P_COUNT; p++)
        for (int d = 0; d < 3; d++)
            for (int arith = QD_ARITH_CT_BF16; arith < QD_ARITH_COUNT; arith++) {
                qd_nvfp4_tile t = tile_of(f, (pattern)p, k_dtypes[d], QD_RULE_MINMAX, (qd_nvfp4_arith)arith);
                all_equal_scalar(f, &t, "own scale", p);
                t.gs = 1.0f;
                all_equal_scalar(f, &t, "exact scale", p);
                t.gs = 0x1p126f; /* steps underflow */
                all_equal_scalar(f, &t, "large scale", p);
            }
}

/* 0: ones and twos, 1: with zeros, 2: random over six binades */
static void fill_weights(fixture *f, uint64_t n, int kind)
{
    uint64_t state = 77;
    for (uint64_t i = 0; i < n; i++)
        f->weight[i] = kind < 2 ? (float)(pattern_random(&state) % (kind == 0 ? 2 : 3)) + (kind == 0 ? 1.0f : 0.0f)
                                : ldexpf(pattern_uniform(&state), (int)(pattern_random(&state) % 6));
}

static void column_weights_equal_the_scalar_reference(void **state)
{
    static const uint64_t rows[] = {1, 3, 7, 8, 16, 21, 32, N_BLOCKS};
    fixture *f = *state;
    for (int p = 0; p < P_COUNT; p++)
        for (int d = 0; d < 3; d++)
            for (int r = 0; r < 8; r++) {
                qd_nvfp4_tile t = tile_of(f, (pattern)p, k_dtypes[d], QD_RULE_MSE, QD_ARITH_FP32);
                fill_weights(f, rows[r] * 16, (r + d) % 3);
                t.col_weight = f->weight;
                t.blocks_per_row = rows[r];
                t.n_blocks = 57;
                all_equal_scalar(f, &t, "column weights", p);
            }
}

static void any_number_of_blocks_is_encoded_and_no_more(void **state)
{
    fixture *f = *state;
    for (uint64_t n = 0; n <= 40; n++)
        for (int rule = 0; rule < QD_RULE_COUNT; rule++) {
            qd_nvfp4_tile t = tile_of(f, P_NORMAL, QD_BF16, (qd_nvfp4_rule)rule, QD_ARITH_FP32);
            t.n_blocks = n;
            all_equal_scalar(f, &t, "block count", (int)n);
        }
}

/* All 126 codes, and the error as the encoder computes it. */
static void the_sweep_finds_the_best_of_all_codes(void **state)
{
    fixture *f = *state;
    uint64_t n_low = 0;
    for (int p = 0; p < P_COUNT; p++)
        for (int k = 0; k < 4; k++) {
            qd_nvfp4_tile t = tile_of(f, (pattern)p, QD_F32, QD_RULE_MSE, QD_ARITH_FP32);
            if (k % 2 == 1) t.gs *= 0x1p-14f; /* codes below 16 */
            bool weighted = k >= 2;
            fill_weights(f, 16, 0);
            for (uint64_t b = 0; b < N_BLOCKS; b++) {
                float w[16], x[16], best = HUGE_VALF, amax = 0.0f;
                uint8_t codes[8], scale;
                memcpy(w, (const unsigned char *)t.w + b * 64, sizeof w);
                (void)qd_nvfp4_block_fp32(w, weighted ? f->weight : NULL, t.gs, QD_RULE_MSE, codes, &scale);
                for (int i = 0; i < 16; i++) {
                    x[i] = fabsf(w[i]) * t.gs;
                    amax = fmaxf(amax, x[i]);
                }
                if (amax == 0.0f) continue;
                for (uint32_t c = 1; c <= QD_E4M3_MAX_CODE; c++)
                    best = fminf(best, qd_nvfp4_block_error(x, weighted ? f->weight : NULL, c));
                float found = qd_nvfp4_block_error(x, weighted ? f->weight : NULL, scale);
                if (!((double)found <= (double)best * (1.0 + 1e-6)))
                    fail_msg("pattern %d, block %llu: code %u has error %g, the best has %g", p, (unsigned long long)b,
                             scale, (double)found, (double)best);
                n_low += scale < 16;
            }
        }
    assert_true(n_low > 1000);
}

static void the_largest_magnitude_is_found_wherever_it_lies(void **state)
{
    fixture *f = *state;
    for (int d = 0; d < 3; d++)
        for (uint64_t n = 0; n < 300; n += n < 40 ? 1 : 13)
            for (uint64_t at = 0; at < (n == 0 ? 1 : n); at++) {
                unsigned char *w = f->w + qd_dtype_bytes(k_dtypes[d]);
                for (uint64_t i = 0; i < n; i++) pattern_store(k_dtypes[d], i % 3 == 0 ? -1.5f : 0.25f, w, i);
                if (n != 0) pattern_store(k_dtypes[d], at % 2 == 0 ? -2.5f : 2.5f, w, at);
                pattern_store(k_dtypes[d], 9.0f, w, n); /* beyond the end */
                for (int i = 0; i < 5; i++) {
                    qd_dev *dev = i < 4 ? f->dev[i] : f->scalar;
                    if (dev == NULL) continue;
                    float amax = -1.0f;
                    bool finite = false;
                    assert_int_equal(dev->ops->amax(dev, k_dtypes[d], w, n, &amax, &finite, NULL), QD_OK);
                    assert_true(finite);
                    assert_true(amax == (n == 0 ? 0.0f : 2.5f));
                }
            }
}

static void a_nan_or_an_infinity_is_seen_wherever_it_lies(void **state)
{
    static const uint32_t bad[3][4] = {{0x7f80, 0xff80, 0x7fc0, 0xff81},
                                       {0x7c00, 0xfc00, 0x7e00, 0xfc01},
                                       {0x7f800000, 0xff800000, 0x7fc00000, 0xff800001}};
    fixture *f = *state;
    for (int d = 0; d < 3; d++)
        for (uint64_t at = 0; at < 259; at++) {
            unsigned char *w = f->w;
            uint64_t bytes = qd_dtype_bytes(k_dtypes[d]);
            pattern_fill(P_HUGE, k_dtypes[d], 17, at, w);
            memcpy(w + at * bytes, &bad[d][at % 4], (size_t)bytes);
            for (int i = 0; i < 5; i++) {
                qd_dev *dev = i < 4 ? f->dev[i] : f->scalar;
                if (dev == NULL) continue;
                float amax;
                bool finite = true;
                assert_int_equal(dev->ops->amax(dev, k_dtypes[d], w, 259, &amax, &finite, NULL), QD_OK);
                assert_false(finite);
                assert_int_equal(dev->ops->amax(dev, k_dtypes[d], w, at, &amax, &finite, NULL), QD_OK);
                assert_true(finite);
            }
        }
}

static void what_cannot_be_encoded_is_refused_and_the_sums_untouched(void **state)
{
    fixture *f = *state;
    qd_nvfp4_tile good = tile_of(f, P_NORMAL, QD_BF16, QD_RULE_MINMAX, QD_ARITH_FP32), t[6];
    for (int i = 0; i < 6; i++) t[i] = good;
    t[0].dtype = QD_I8;
    t[1].dtype = QD_DTYPE_COUNT;
    t[2].gs = 0.0f;
    t[3].gs = HUGE_VALF;
    t[4].arith = QD_ARITH_CT_BF16;
    t[4].rule = QD_RULE_MSE;
    t[5].col_weight = f->weight;
    for (int i = 0; i < 6; i++) {
        qd_nvfp4_sums sums = {.n_zero = 77};
        qd_err err = {0};
        qd_code rc = f->scalar->ops->nvfp4_encode(f->scalar, &t[i], &sums, &err);
        assert_int_not_equal(rc, QD_OK);
        assert_int_equal(err.code, rc);
        assert_int_equal(sums.n_zero, 77);
    }
    float amax = 5.0f;
    bool finite = true;
    assert_int_equal(f->scalar->ops->amax(f->scalar, QD_I32, f->w, 4, &amax, &finite, NULL), QD_E_UNSUPPORTED);
    assert_true(amax == 5.0f);
}

static void opening_names_the_device_and_refuses_what_is_unknown(void **state)
{
    (void)state;
    qd_dev *d = NULL;
    qd_err err = {0};
    assert_int_equal(qd_dev_open_host("sse9", &d, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "sse9"));
    assert_null(d);
    qd_fault_arm(QD_FAULT_ALLOC, 1, 12);
    assert_int_equal(qd_dev_open_host(NULL, &d, &err), QD_E_NO_MEMORY);
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    assert_null(d);
    assert_int_equal(qd_dev_open_host(NULL, &d, &err), QD_OK);
    assert_memory_equal(d->name, "cpu (", 5);
    qd_dev_free(d);
    qd_dev_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_equals_the_scalar_reference),
        cmocka_unit_test(compressed_tensors_arithmetic_equals_the_scalar_reference),
        cmocka_unit_test(column_weights_equal_the_scalar_reference),
        cmocka_unit_test(any_number_of_blocks_is_encoded_and_no_more),
        cmocka_unit_test(the_sweep_finds_the_best_of_all_codes),
        cmocka_unit_test(the_largest_magnitude_is_found_wherever_it_lies),
        cmocka_unit_test(a_nan_or_an_infinity_is_seen_wherever_it_lies),
        cmocka_unit_test(what_cannot_be_encoded_is_refused_and_the_sums_untouched),
        cmocka_unit_test(opening_names_the_device_and_refuses_what_is_unknown),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
