/* host_gram.c -- sums of outer products x x^T with integer products, for Hessians: each channel of a piece of rows is
 * integers of -127 .. 127 times a scale of its own, integer sums are exact. What rounding adds to a channel's own sum
 * of squares is at most rows / 190000 of it (one row that has it all), usually a hundredth of that: little beside a
 * damping of some percent. Needs AVX-512 VNNI. Bits depend on the arguments only. */
#include "base/mem.h"
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum {
    PANEL = 32, /* channels that lie together, four rows of each side by side */
    MOST = 127,
    BIAS = 128, /* of one operand: the instruction takes an unsigned and a signed one */
    HIGH = 8    /* channels of the left operand at a time, times PANEL: what the registers hold */
};
#define TINY 1e-30f /* a channel below is zero */
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

static uint64_t panel_words(uint64_t rows)
{
    return qd_div_up(rows, 4) * PANEL;
}

/* rcp [n] and scale [n] of a panel's channels. */
QD_VEC static void measure(const float *x, uint64_t ld, uint64_t rows, uint64_t n, float *scale, float *rcp)
{
    uint32_t most[PANEL] = {0};
    for (uint64_t t = 0; t < rows; t++)
        for (uint64_t k = 0; k < n; k++) {
            uint32_t a = qd_f32_bits(x[t * ld + k]) & 0x7fffffffu;
            most[k] = a > most[k] ? a : most[k];
        }
    for (uint64_t k = 0; k < PANEL; k++) {
        float a = qd_bits_f32(most[k]);
        scale[k] = a < TINY ? 0.0f : a / MOST;
        rcp[k] = a < TINY ? 0.0f : MOST / a;
    }
}

QD_VEC static void quantize(const float *x, uint64_t ld, uint64_t rows, uint64_t n, const float *rcp, uint32_t *to,
                            int32_t *sum)
{
    float four[4][PANEL] = {{0}};
    memset(sum, 0, PANEL * sizeof *sum);
    for (uint64_t t = 0; t < rows; t += 4, to += PANEL) {
        for (uint64_t r = 0; r < 4; r++)
            for (uint64_t k = 0; k < n; k++) four[r][k] = t + r < rows ? x[(t + r) * ld + k] : 0.0f;
        for (uint64_t k = 0; k < PANEL; k++) {
            uint32_t word = 0;
            int32_t all = 0;
            for (uint64_t r = 0; r < 4; r++) {
                uint32_t v = qd_f32_bits(four[r][k] * rcp[k] + 0x1.8p23f);
                word |= (v & 255u) << (8 * r);
                all += (int32_t)(v << 24) >> 24;
            }
            to[k] = word;
            sum[k] += all;
        }
    }
}

QD_VEC static void biased(const uint32_t *from, uint64_t n, uint32_t *to)
{
    for (uint64_t i = 0; i < n; i++) to[i] = from[i] ^ 0x80808080u; /* each byte plus 128 */
}

qd_code qd_host_gram_begin(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                           qd_err *err)
{
    uint64_t panels = qd_div_up(n, PANEL), words = panel_words(rows);
    float *q = NULL, *u = NULL, *sum = NULL, rcp[PANEL];
    qd_gram g = {.x = x, .ld = ld, .rows = rows};
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, panels, words, &q, err));
    QD_TRY(qd_scratch_take(&l->scratch, panels, words, &u, err));
    QD_TRY(qd_scratch_take(&l->scratch, panels, PANEL, &g.scale, err));
    QD_TRY(qd_scratch_take(&l->scratch, panels, PANEL, &sum, err));
    g.q = (uint32_t *)(void *)q;
    g.u = (uint32_t *)(void *)u;
    g.sum = (int32_t *)(void *)sum;
    for (uint64_t p = 0; p < panels; p++) {
        uint64_t k = p * PANEL, m = qd_min_u64(PANEL, n - k);
        measure(x + k, ld, rows, m, g.scale + k, rcp);
        quantize(x + k, ld, rows, m, rcp, g.q + p * words, g.sum + k);
    }
    biased(g.q, panels * words, g.u);
    *ret = g;
out:
    return rc;
}

/* HIGH channels from i on times the panel of j; at most m and n of them count. */
VNNI static void tile(const qd_gram *g, uint64_t i, uint64_t j, uint64_t m, uint64_t n, float *c, uint64_t ldc)
{
    uint64_t words = panel_words(g->rows);
    const uint32_t *a = g->q + i / PANEL * words + i % PANEL, *b = g->u + j / PANEL * words;
    __m512i dot[HIGH][2];
    __mmask16 mask[2] = {(__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u),
                         (__mmask16)(n >= 32 ? 0xffffu : (1u << (n > 16 ? n - 16 : 0)) - 1u)};
    for (int r = 0; r < HIGH; r++) dot[r][0] = dot[r][1] = _mm512_set1_epi32(-BIAS * g->sum[i + (uint64_t)r]);
    for (uint64_t t = 0; t < words; t += PANEL) {
        __m512i left = _mm512_load_si512(b + t), right = _mm512_load_si512(b + t + 16);
        for (int r = 0; r < HIGH; r++) {
            __m512i four = _mm512_set1_epi32((int)a[t + (uint64_t)r]);
            dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], left, four);
            dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], right, four);
        }
    }
    for (uint64_t r = 0; r < m; r++)
        for (int v = 0; v < 2; v++) {
            float *to = c + r * ldc + 16 * v;
            __m512 f = _mm512_mul_ps(_mm512_load_ps(g->scale + j + 16 * v), _mm512_set1_ps(g->scale[i + r]));
            __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][v]), f, _mm512_maskz_loadu_ps(mask[v], to));
            _mm512_mask_storeu_ps(to, mask[v], sum);
        }
}

qd_code qd_host_gram(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                     uint64_t ldc, qd_err *err)
{
    (void)err;
    for (uint64_t b = 0; b < n; b += PANEL)
        for (uint64_t a = 0; a < m; a += HIGH)
            if (j + b <= i + a + HIGH - 1)
                tile(g, i + a, j + b, qd_min_u64(HIGH, m - a), qd_min_u64(PANEL, n - b), c + a * ldc + b, ldc);
    l->flops += 2 * m * n * g->rows;
    return QD_OK;
}
#endif
