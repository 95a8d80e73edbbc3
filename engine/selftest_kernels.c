/* selftest_kernels.c -- arithmetic and device operations on boundaries and ties. */
#include "base/mem.h"
#include "engine/selftest.h"
#include "gpu/num.h"
#include "quant/nvfp4.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    TILE_BLOCKS = 4096, /* of a 16-bit float's patterns: 32 binades of BF16 */
    TILES = 8,          /* all patterns without the sign */
    ROW_BLOCKS = 16
};

void qd_selftest_case(qd_selftest_check *c, bool ok, const char *fmt, ...)
{
    va_list ap;
    c->n_cases++;
    if (ok) return;
    if (c->n_failed++ != 0) return;
    va_start(ap, fmt);
    (void)vsnprintf(c->what, sizeof c->what, fmt, ap);
    va_end(ap);
}

/* A small float without infinities, by its definition. */
static double value_of(unsigned code, int mantissa_bits, int bias)
{
    unsigned m = code & ((1u << mantissa_bits) - 1), e = code >> mantissa_bits;
    double f = (double)m / (double)(1u << mantissa_bits);
    return e == 0 ? ldexp(f, 1 - bias) : ldexp(1 + f, (int)e - bias);
}

typedef struct small_float {
    const char *name;
    int mantissa_bits, bias;
    unsigned top; /* code of the largest value; above it saturates */
    uint8_t (*encode)(float x);
    float (*decode)(uint8_t code);
} small_float;

static uint8_t e2m1_encode(float x)
{
    return qd_e2m1_from_f32(x);
}
static float e2m1_decode(uint8_t code)
{
    return qd_e2m1_to_f32(code);
}
static uint8_t e4m3_encode(float x)
{
    return qd_e4m3_from_f32(x);
}
static float e4m3_decode(uint8_t code)
{
    return qd_e4m3_to_f32(code);
}

/* Each code, each tie between two, and the floats beside both. */
static void check_small_float(const small_float *f, qd_selftest_check *c)
{
    for (unsigned code = 0; code <= f->top; code++) {
        double v = value_of(code, f->mantissa_bits, f->bias);
        float x = (float)v;
        qd_selftest_case(c, (double)f->decode((uint8_t)code) == v, "%s code %u: expected %g, found %g", f->name, code,
                         v, (double)f->decode((uint8_t)code));
        qd_selftest_case(c, f->encode(x) == code, "%s of %g: expected code %u, found %u", f->name, v, code,
                         f->encode(x));
        if (code == f->top) continue;
        float tie = (float)((v + value_of(code + 1, f->mantissa_bits, f->bias)) / 2);
        unsigned even = code % 2 == 0 ? code : code + 1;
        const struct {
            float x;
            unsigned code;
        } near[] = {{nextafterf(tie, 0), code}, {tie, even}, {nextafterf(tie, INFINITY), code + 1}};
        for (size_t i = 0; i < sizeof near / sizeof near[0]; i++)
            qd_selftest_case(c, f->encode(near[i].x) == near[i].code, "%s of %a: expected code %u, found %u", f->name,
                             (double)near[i].x, near[i].code, f->encode(near[i].x));
    }
    qd_selftest_case(c, f->encode(1e30f) == f->top, "%s of 1e30: expected code %u, found %u", f->name, f->top,
                     f->encode(1e30f));
}

static void check_halves(qd_selftest_check *c)
{
    for (unsigned p = 0; p < 0x7f80; p++) {
        double v = (double)qd_bf16_to_f32((uint16_t)p);
        qd_selftest_case(c, v == value_of(p, 7, 127) && qd_bf16_from_f32((float)v) == p, "BF16 pattern %#x", p);
    }
    for (unsigned p = 0; p < 0x7c00; p++) {
        double v = (double)qd_f16_to_f32((uint16_t)p);
        qd_selftest_case(c, v == value_of(p, 10, 15) && qd_f16_from_f32((float)v) == p, "F16 pattern %#x", p);
    }
}

void qd_selftest_numbers(qd_selftest_check *c)
{
    const small_float floats[] = {{"E2M1", 1, 1, 7, e2m1_encode, e2m1_decode},
                                  {"E4M3", 3, 7, 0x7e, e4m3_encode, e4m3_decode}};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) check_small_float(&floats[i], c);
    check_halves(c);
}

static float finite_max(qd_dtype t)
{
    return t == QD_F16 ? 65504.0f : t == QD_BF16 ? 0x1.fep127f : 0x1.fffffep127f;
}

static void put(qd_dtype t, void *w, uint64_t i, float x)
{
    if (fabsf(x) > finite_max(t)) x = copysignf(finite_max(t), x);
    uint16_t h = t == QD_BF16 ? qd_bf16_from_f32(x) : qd_f16_from_f32(x);
    if (t == QD_F32)
        ((float *)w)[i] = x;
    else
        ((uint16_t *)w)[i] = h;
}

/* Pattern p of a dtype's magnitudes. F32: the 16-bit pattern, and now and then one bit beside it. */
static float magnitude(qd_dtype t, unsigned p)
{
    if (t == QD_F16) return qd_f16_to_f32((uint16_t)(p < 0x7c00 ? p : p % 0x7c00));
    float x = qd_bf16_to_f32((uint16_t)(p < 0x7f80 ? p : p % 0x7f80));
    return t == QD_F32 ? qd_bits_f32(qd_f32_bits(x) + p % 3) : x;
}

/* Tile k: block b has pattern k * TILE_BLOCKS + b as its largest magnitude, and beside it what is a tie of E2M1 under a
 * scale of a sixth or a quarter of that, zeros of both signs, and neighbours. */
static float fill_tile(qd_dtype t, unsigned k, void *w)
{
    static const float part[QD_NVFP4_BLOCK] = {1,         0.25f / 6, 0.75f / 6, 1.25f / 6, 1.75f / 6, 2.5f / 6,
                                               3.5f / 6,  5.0f / 6,  0.0f,      -0.0f,     0.25f / 4, 0.75f / 4,
                                               1.25f / 4, 2.5f / 4,  3.5f / 4,  0x1p-20f};
    float amax = 0;
    for (unsigned b = 0; b < TILE_BLOCKS; b++) {
        float most = magnitude(t, k * TILE_BLOCKS + b);
        amax = most > amax ? most : amax;
        for (unsigned i = 0; i < QD_NVFP4_BLOCK; i++) {
            float x = most * part[(i + b) % QD_NVFP4_BLOCK];
            put(t, w, (uint64_t)b * QD_NVFP4_BLOCK + i, (b >> i & 1) != 0 ? -x : x);
        }
    }
    return amax < finite_max(t) ? amax : finite_max(t);
}

static const qd_dtype k_dtypes[] = {QD_BF16, QD_F16, QD_F32};

qd_code qd_selftest_amax(qd_dev *d, qd_cancel *cancel, qd_selftest_check *c, qd_err *err)
{
    const uint64_t n = (uint64_t)TILE_BLOCKS * QD_NVFP4_BLOCK;
    qd_code rc = QD_OK;
    float *w = qd_malloc_aligned(64, n * sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the self-test");
    for (size_t t = 0; t < sizeof k_dtypes / sizeof k_dtypes[0]; t++)
        for (unsigned k = 0; k < TILES; k++) {
            float expected = fill_tile(k_dtypes[t], k, w), found = -1;
            bool finite = false;
            if (qd_cancel_asked(cancel)) {
                rc = qd_fail(err, QD_E_CANCELED, "canceled");
                goto out;
            }
            QD_TRY(d->ops->amax(d, k_dtypes[t], w, n, &found, &finite, err));
            qd_selftest_case(c, finite && found == expected, "amax of %s, tile %u: expected %a, found %a",
                             qd_dtype_name(k_dtypes[t]), k, (double)expected, (double)found);
            /* A NaN and an infinity at places that no vector is a multiple of. */
            for (unsigned bad = 0; bad < 2; bad++) {
                uint64_t at = (n - 1) / (bad + 1);
                put(k_dtypes[t], w, at, 1);
                if (k_dtypes[t] == QD_F32)
                    w[at] = bad == 0 ? NAN : -INFINITY;
                else
                    ((uint16_t *)w)[at] =
                        k_dtypes[t] == QD_BF16 ? (bad == 0 ? 0x7fc0 : 0xff80) : (bad == 0 ? 0x7e00 : 0xfc00);
                QD_TRY(d->ops->amax(d, k_dtypes[t], w, n, &found, &finite, err));
                qd_selftest_case(c, !finite, "amax of %s: a value that is not finite was not seen",
                                 qd_dtype_name(k_dtypes[t]));
            }
        }
out:
    qd_free(w);
    return rc;
}

typedef struct encoded {
    uint8_t codes[TILE_BLOCKS * QD_NVFP4_BLOCK / 2], scales[TILE_BLOCKS];
    qd_nvfp4_sums sums;
} encoded;

static qd_code encode(qd_dev *d, qd_nvfp4_tile t, encoded *ret, qd_err *err)
{
    memset(ret, 0xa5, sizeof *ret);
    ret->sums = (qd_nvfp4_sums){0};
    t.codes = ret->codes;
    t.scales = ret->scales;
    return d->ops->nvfp4_encode(d, &t, &ret->sums, err);
}

static void compare(const qd_nvfp4_tile *t, const encoded *a, const encoded *b, qd_selftest_check *c)
{
    static const char *const rules[QD_RULE_COUNT] = {"minmax", "four_over_six", "mse"};
    const char *rule = t->arith == QD_ARITH_FP32 ? rules[t->rule] : "ct-exact";
    const char *dtype = qd_dtype_name((qd_dtype)t->dtype);
    for (uint64_t i = 0; i < t->n_blocks; i++) {
        bool same = a->scales[i] == b->scales[i] && memcmp(a->codes + i * 8, b->codes + i * 8, 8) == 0;
        qd_selftest_case(c, same, "%s of %s, block %" PRIu64 ": expected scale %#x, found %#x, or other codes", rule,
                         dtype, i, b->scales[i], a->scales[i]);
    }
    qd_selftest_case(c, memcmp(&a->sums, &b->sums, sizeof a->sums) == 0, "%s of %s: other sums of errors", rule, dtype);
}

qd_code qd_selftest_encode(qd_dev *d, qd_dev *reference, qd_cancel *cancel, qd_selftest_check *c, qd_err *err)
{
    static const qd_nvfp4_recipe recipes[] = {{QD_RULE_MINMAX, QD_SCALE_FP32},
                                              {QD_RULE_FOUR_OVER_SIX, QD_SCALE_FP32},
                                              {QD_RULE_MSE, QD_SCALE_FP32},
                                              {QD_RULE_MINMAX, QD_SCALE_CT_EXACT}};
    const uint64_t n = (uint64_t)TILE_BLOCKS * QD_NVFP4_BLOCK;
    qd_code rc = QD_OK;
    float *w = qd_malloc_aligned(64, n * sizeof *w), weight[ROW_BLOCKS * QD_NVFP4_BLOCK];
    encoded *both = qd_calloc(2, sizeof *both);
    if (w == NULL || both == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the self-test");
        goto out;
    }
    for (size_t i = 0; i < sizeof weight / sizeof weight[0]; i++) weight[i] = (float)(i * 7 % 5) * 0.25f;
    for (size_t t = 0; t < sizeof k_dtypes / sizeof k_dtypes[0]; t++)
        for (unsigned k = 0; k < TILES; k++) {
            float amax = fill_tile(k_dtypes[t], k, w);
            for (size_t r = 0; r < sizeof recipes / sizeof recipes[0]; r++) {
                qd_nvfp4_tile tile = {.dtype = (int)k_dtypes[t],
                                      .rule = recipes[r].rule,
                                      .arith = qd_nvfp4_arith_of(&recipes[r], k_dtypes[t]),
                                      .gs = qd_nvfp4_global(&recipes[r], k_dtypes[t], amax),
                                      .w = w,
                                      .col_weight = recipes[r].rule == QD_RULE_MSE && k / 2 % 2 == 1 ? weight : NULL,
                                      .blocks_per_row = ROW_BLOCKS,
                                      .n_blocks = TILE_BLOCKS};
                if (recipes[r].rule == QD_RULE_MSE && (k + t) % 2 == 1)
                    continue; /* the search is slow in scalar code */
                if (qd_cancel_asked(cancel)) {
                    rc = qd_fail(err, QD_E_CANCELED, "canceled");
                    goto out;
                }
                QD_TRY(encode(d, tile, &both[0], err));
                QD_TRY(encode(reference, tile, &both[1], err));
                compare(&tile, &both[0], &both[1], c);
            }
        }
out:
    qd_free(w);
    qd_free(both);
    return rc;
}
