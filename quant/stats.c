#include "quant/stats.h"

#include "base/mem.h"
#include "gpu/host_blocks.h"
#include "gpu/num.h"

#include <math.h>
#include <string.h>

enum {
    BIN_FIRST = (127 - 40) << 4, /* exponent and four bits of mantissa of 2^-40 */
    PER_MILLION = 999900
};

qd_code qd_input_stats_init(uint32_t n_channels, bool want_sum2, qd_input_stats *ret, qd_err *err)
{
    qd_input_stats s = {.n_channels = n_channels, .bad_token = UINT64_MAX};
    if (want_sum2) s.sum2 = qd_calloc(n_channels, sizeof *s.sum2);
    s.block_amax_bins = qd_calloc(QD_STATS_BINS, sizeof *s.block_amax_bins);
    if ((want_sum2 && s.sum2 == NULL) || s.block_amax_bins == NULL) {
        qd_input_stats_done(&s);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the statistics of %u channels", n_channels);
    }
    *ret = s;
    return QD_OK;
}

void qd_input_stats_done(qd_input_stats *s)
{
    if (s == NULL) return;
    qd_free(s->sum2);
    qd_free(s->block_amax_bins);
    memset(s, 0, sizeof *s);
}

static uint32_t bin_of(uint32_t amax_bits)
{
    uint32_t b = amax_bits >> 19;
    if (b < BIN_FIRST) return 0;
    return b - BIN_FIRST < QD_STATS_BINS ? b - BIN_FIRST : QD_STATS_BINS - 1;
}

/* The first value that is not finite, in a block that has one. */
static void note_bad(qd_input_stats *s, uint64_t token, uint32_t first_channel, const float *v)
{
    if (s->bad_token != UINT64_MAX) return;
    s->bad_token = token;
    s->bad_channel = first_channel;
    while (isfinite(v[s->bad_channel - first_channel])) s->bad_channel++;
}

void qd_input_stats_add(qd_input_stats *s, const float *x, uint64_t n_tokens, uint32_t *ret_block_bits)
{
    uint32_t amax = qd_f32_bits(s->amax), n_blocks = s->n_channels / QD_NVFP4_BLOCK;
    for (uint64_t t = 0; t < n_tokens; t++) {
        const float *row = x + t * s->n_channels;
        uint32_t *bits = ret_block_bits + t * n_blocks;
        qd_host_block_amax(row, n_blocks, bits);
        for (uint32_t b = 0; b < n_blocks; b++) {
            if (bits[b] >= 0x7f800000u) note_bad(s, s->n_tokens + t, b * QD_NVFP4_BLOCK, row + b * QD_NVFP4_BLOCK);
            if (bits[b] > amax) amax = bits[b];
            s->block_amax_bins[bin_of(bits[b])]++;
        }
        for (uint32_t k = 0; s->sum2 != NULL && k < s->n_channels; k++) s->sum2[k] += (double)row[k] * (double)row[k];
    }
    s->amax = qd_bits_f32(amax);
    s->n_tokens += n_tokens;
}

void qd_input_stats_add_bits(qd_input_stats *s, const uint32_t *block_bits, uint64_t n_tokens)
{
    uint32_t amax = qd_f32_bits(s->amax);
    for (uint64_t b = 0; b < n_tokens * (s->n_channels / QD_NVFP4_BLOCK); b++) {
        if (block_bits[b] > amax) amax = block_bits[b];
        s->block_amax_bins[bin_of(block_bits[b])]++;
    }
    s->amax = qd_bits_f32(amax);
    s->n_tokens += n_tokens;
}

void qd_input_stats_merge(qd_input_stats *s, const qd_input_stats *part)
{
    for (uint32_t k = 0; s->sum2 != NULL && k < s->n_channels; k++) s->sum2[k] += part->sum2[k];
    for (uint32_t b = 0; b < QD_STATS_BINS; b++) s->block_amax_bins[b] += part->block_amax_bins[b];
    if (qd_f32_bits(part->amax) > qd_f32_bits(s->amax)) s->amax = part->amax;
    if (s->bad_token == UINT64_MAX && part->bad_token != UINT64_MAX) {
        s->bad_token = s->n_tokens + part->bad_token;
        s->bad_channel = part->bad_channel;
    }
    s->n_tokens += part->n_tokens;
}

float qd_input_amax(const qd_input_stats *s, qd_input_rule rule)
{
    if (rule != QD_INPUT_PERCENTILE) return s->amax;
    uint64_t total = 0, seen = 0;
    for (uint32_t b = 0; b < QD_STATS_BINS; b++) total += s->block_amax_bins[b];
    uint64_t want = total / 1000000 * PER_MILLION + total % 1000000 * PER_MILLION / 1000000;
    for (uint32_t b = 0; b < QD_STATS_BINS; b++) {
        seen += s->block_amax_bins[b];
        float upper = qd_bits_f32((b + 1 + BIN_FIRST) << 19);
        if (seen >= want && seen > 0) return upper < s->amax ? upper : s->amax;
    }
    return s->amax;
}

static float grid(int32_t j)
{
    static const float quarter[4] = {1.0f, 0x1.306fep+0f, 0x1.6a09e6p+0f, 0x1.ae89fap+0f}; /* 2^(i/4) */
    return ldexpf(quarter[j & 3], (j - (j & 3)) / 4);
}

void qd_input_errors_init(qd_input_errors *e, const uint32_t *bits, uint64_t n_blocks)
{
    uint32_t most = 0;
    int exponent = 0;
    *e = (qd_input_errors){0};
    for (uint64_t b = 0; b < n_blocks; b++) most = bits[b] > most ? bits[b] : most;
    if (most == 0 || most >= 0x7f800000u) return;
    (void)frexpf(qd_bits_f32(most), &exponent);
    e->any = true;
    e->top = 4 * (exponent - 1);
    while (grid(e->top) < qd_bits_f32(most)) e->top++;
}

void qd_input_errors_add(qd_input_errors *e, const float *x, const uint32_t *bits, uint64_t n_blocks)
{
    const qd_nvfp4_recipe fp32 = {.arith = QD_SCALE_FP32};
    for (int i = 0; e->any && i < QD_INPUT_STEPS; i++)
        e->err[i] += qd_host_fake_quant_error(qd_input_global(&fp32, QD_BF16, grid(e->top - i)), bits, x, n_blocks);
}

static double error_at(const qd_input_errors *e, int32_t j)
{
    int32_t i = e->top - j;
    return e->err[i >= 0 ? i : i & 3];
}

void qd_input_errors_merge(qd_input_errors *e, const qd_input_errors *part)
{
    if (!part->any) return;
    if (!e->any) {
        *e = *part;
        return;
    }
    qd_input_errors sum = {.any = true, .top = e->top > part->top ? e->top : part->top};
    for (int i = 0; i < QD_INPUT_STEPS; i++) sum.err[i] = error_at(e, sum.top - i) + error_at(part, sum.top - i);
    *e = sum;
}

float qd_input_errors_amax(const qd_input_errors *e)
{
    int best = 0;
    for (int i = 1; i < QD_INPUT_STEPS; i++)
        if (e->err[i] < e->err[best]) best = i;
    return e->any ? grid(e->top - best) : 0.0f;
}

float qd_input_global(const qd_nvfp4_recipe *r, qd_dtype activation_dtype, float amax)
{
    qd_nvfp4_recipe rule = {.arith = r->arith, .rule = r->arith == QD_SCALE_CT_EXACT ? QD_RULE_MINMAX : QD_RULE_MSE};
    return qd_nvfp4_global(&rule, activation_dtype, amax);
}
