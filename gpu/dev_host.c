/* dev_host.c -- the processor this runs on as a device: the scalar reference and, for whole groups of blocks, the
 * widest vector version that the processor has. Operations have no state, so any number of threads may call them. */
#include "base/mem.h"
#include "gpu/dev.h"
#include "gpu/host_isa.h"
#include "gpu/kernels.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct host {
    qd_dev dev;
    const qd_host_isa *isa; /* NULL: scalar */
    char name[24];
} host;

/* One element as its 16 or 32 bits; w need only be aligned to the element, and memcpy does not even ask for that. */
static uint32_t load_bits(qd_dtype dtype, const unsigned char *w)
{
    uint16_t h;
    uint32_t u;
    if (dtype == QD_F32) {
        memcpy(&u, w, sizeof u);
        return u;
    }
    memcpy(&h, w, sizeof h);
    return h;
}

static float to_f32(qd_dtype dtype, uint32_t bits)
{
    if (dtype == QD_BF16) return qd_bf16_to_f32((uint16_t)bits);
    if (dtype == QD_F16) return qd_f16_to_f32((uint16_t)bits);
    return qd_bits_f32(bits);
}

static bool known_dtype(qd_dtype dtype)
{
    return dtype == QD_BF16 || dtype == QD_F16 || dtype == QD_F32;
}

static qd_code host_amax(qd_dev *d, qd_dtype dtype, const void *w, uint64_t n, float *ret_amax, bool *ret_finite,
                         qd_err *err)
{
    const host *h = d->ctx;
    if (!known_dtype(dtype))
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: amax expects BF16, F16 or F32, found %s", d->name,
                       qd_dtype_name(dtype));
    uint64_t done = 0;
    uint32_t top = h->isa != NULL ? h->isa->amax_bits(dtype, w, n, &done) : 0;
    uint32_t mask = dtype == QD_F32 ? 0x7fffffffu : 0x7fffu;
    const unsigned char *p = w;
    for (uint64_t i = done; i < n; i++) {
        uint32_t bits = load_bits(dtype, p + i * qd_dtype_bytes(dtype)) & mask;
        if (bits > top) top = bits;
    }
    uint32_t infinity = dtype == QD_F32 ? 0x7f800000u : dtype == QD_BF16 ? 0x7f80u : 0x7c00u;
    *ret_finite = top < infinity;
    *ret_amax = to_f32(dtype, top);
    return QD_OK;
}

static void encode_scalar(const qd_nvfp4_tile *t, uint64_t first, qd_nvfp4_sums *sums)
{
    uint64_t bytes = qd_dtype_bytes((qd_dtype)t->dtype);
    for (uint64_t b = first; b < t->n_blocks; b++) {
        float w[QD_NVFP4_BLOCK];
        const unsigned char *p = (const unsigned char *)t->w + b * QD_NVFP4_BLOCK * bytes;
        for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++)
            w[i] = to_f32((qd_dtype)t->dtype, load_bits((qd_dtype)t->dtype, p + i * bytes));
        const float *weight = t->col_weight != NULL ? t->col_weight + (b % t->blocks_per_row) * QD_NVFP4_BLOCK : NULL;
        qd_nvfp4_block_sums s =
            qd_nvfp4_block(w, weight, t->gs, t->rule, t->arith, t->codes + b * (QD_NVFP4_BLOCK / 2), t->scales + b);
        sums->err2 += (double)s.err2;
        sums->w2 += (double)s.w2;
        sums->n_clipped += s.clipped;
        sums->n_zero += s.zero;
    }
}

qd_code qd_dev_check_tile(const qd_dev *d, const qd_nvfp4_tile *t, qd_err *err)
{
    if (t->dtype < 0 || t->dtype >= QD_DTYPE_COUNT || !known_dtype((qd_dtype)t->dtype))
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: encode expects BF16, F16 or F32, found %s", d->name,
                       qd_dtype_name((qd_dtype)t->dtype));
    if (t->rule >= QD_RULE_COUNT || t->arith >= QD_ARITH_COUNT ||
        (t->arith != QD_ARITH_FP32 && t->rule != QD_RULE_MINMAX))
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: no encode for rule %d with arithmetic %d", d->name, (int)t->rule,
                       (int)t->arith);
    if (!(t->gs > 0.0f) || t->gs > 0x1.fffffep127f)
        return qd_fail(err, QD_E_INTERNAL, "%s: expected a finite global scale > 0, found %g", d->name, (double)t->gs);
    if (t->col_weight != NULL && t->blocks_per_row == 0)
        return qd_fail(err, QD_E_INTERNAL, "%s: column weights for rows of 0 blocks", d->name);
    return QD_OK;
}

static qd_code host_encode(qd_dev *d, const qd_nvfp4_tile *t, qd_nvfp4_sums *ret_sums, qd_err *err)
{
    const host *h = d->ctx;
    qd_code rc = qd_dev_check_tile(d, t, err);
    if (rc != QD_OK) return rc;
    qd_nvfp4_sums sums = {0};
    uint64_t done = h->isa != NULL ? h->isa->encode(t, &sums) : 0;
    encode_scalar(t, done, &sums);
    *ret_sums = sums;
    return QD_OK;
}

static void host_free(qd_dev *d)
{
    qd_free(d->ctx);
}

static const qd_dev_ops k_host_ops = {.amax = host_amax, .nvfp4_encode = host_encode, .free = host_free};

/* The best first: what "NULL" takes. */
static bool find_isa(const char *name, const qd_host_isa **ret)
{
    const qd_host_isa *isas[5];
    size_t n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        isas[n++] = &qd_host_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isas[n++] = &qd_host_avx2;
#endif
    isas[n++] = &qd_host_generic;
    isas[n++] = &qd_host_generic16;
    for (size_t i = 0; i < n; i++) {
        if (name == NULL || strcmp(name, isas[i]->name) == 0) {
            *ret = isas[i];
            return true;
        }
    }
    *ret = NULL;
    return strcmp(name, "scalar") == 0;
}

qd_code qd_dev_open_host(const char *isa, qd_dev **ret, qd_err *err)
{
    const qd_host_isa *found;
    if (!find_isa(isa, &found))
        return qd_fail(err, QD_E_UNSUPPORTED,
                       "cpu: expected scalar, generic, generic16, avx2 or avx512 as far as the "
                       "processor has it, found %s",
                       isa);
    host *h = qd_calloc(1, sizeof *h);
    if (h == NULL) return qd_fail(err, QD_E_NO_MEMORY, "cpu: %zu bytes", sizeof *h);
    h->isa = found;
    (void)snprintf(h->name, sizeof h->name, "cpu (%s)", found != NULL ? found->name : "scalar");
    h->dev = (qd_dev){.ops = &k_host_ops, .name = h->name, .ctx = h};
    *ret = &h->dev;
    return QD_OK;
}
