#include "engine/moments.h"

#include "base/mem.h"
#include "gpu/host_vec.h"

#include <math.h>
#include <string.h>

#define UNIT     0x1p60
#define CALL_MAX 0x1p60 /* of one call: room for 128 of the largest, which no working model gives */
enum {
    STRIPE = 256 /* channels at a time: their sums stay in the first-level cache, and rows are read as they lie */
};

qd_code qd_moments_init(uint32_t n_channels, qd_moments *ret, qd_err *err)
{
    qd_moments m = {.n_channels = n_channels};
    m.sum2 = qd_calloc(n_channels, sizeof *m.sum2);
    m.amax = qd_calloc(n_channels, sizeof *m.amax);
    if (m.sum2 == NULL || m.amax == NULL) {
        qd_moments_done(&m);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the moments of %u channels", n_channels);
    }
    *ret = m;
    return QD_OK;
}

void qd_moments_done(qd_moments *m)
{
    if (m == NULL) return;
    qd_free(m->sum2);
    qd_free(m->amax);
    memset(m, 0, sizeof *m);
}

/* sum [n] and most [n] of a stripe. */
QD_VEC static void add_up(const float *x, uint64_t n_tokens, uint64_t ld, uint32_t n, double *restrict sum,
                          float *restrict most)
{
    for (uint64_t t = 0; t < n_tokens; t++)
        for (uint32_t k = 0; k < n; k++) {
            float v = fabsf(x[t * ld + k]);
            sum[k] += (double)v * (double)v;
            most[k] = v > most[k] ? v : most[k];
        }
}

static void add_stripe(qd_moments *m, const float *x, uint64_t n_tokens, uint64_t ld, uint32_t first, uint32_t n)
{
    double sum[STRIPE] = {0};
    float most[STRIPE] = {0};
    add_up(x + first, n_tokens, ld, n, sum, most);
    for (uint32_t k = 0; k < n; k++) {
        if (!(sum[k] < CALL_MAX)) { /* also NaN */
            m->bad = true;
            continue;
        }
        m->sum2[first + k] += (qd_fixed)(sum[k] * UNIT);
        if (most[k] > m->amax[first + k]) m->amax[first + k] = most[k];
    }
}

void qd_moments_add(qd_moments *m, const float *x, uint64_t n_tokens, uint64_t ld)
{
    for (uint32_t k = 0; k < m->n_channels; k += STRIPE)
        add_stripe(m, x, n_tokens, ld, k, m->n_channels - k < STRIPE ? m->n_channels - k : STRIPE);
    m->n_tokens += n_tokens;
}

void qd_moments_merge(qd_moments *m, const qd_moments *part)
{
    for (uint32_t k = 0; k < m->n_channels; k++) {
        m->sum2[k] += part->sum2[k];
        if (part->amax[k] > m->amax[k]) m->amax[k] = part->amax[k];
    }
    m->n_tokens += part->n_tokens;
    m->bad = m->bad || part->bad;
}

double qd_moments_mean2(const qd_moments *m, uint32_t k)
{
    return m->n_tokens != 0 ? (double)m->sum2[k] / UNIT / (double)m->n_tokens : 0;
}
