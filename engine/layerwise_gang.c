/* layerwise_gang.c -- what the ranks of a gang saw of a layer, together. One rank: nothing to do. */
#include "base/mem.h"
#include "engine/layerwise_streams.h"

#include <math.h>
#include <string.h>

enum {
    LIMBS = 3, /* of a sum of squares: 48 bits each, so that 64 ranks add up without a carry */
    LIMB_BITS = 48
};
#define LIMB_MASK ((INT64_C(1) << LIMB_BITS) - 1)

static void to_limbs(const qd_moments *m, int64_t *out)
{
    for (uint32_t k = 0; k < m->n_channels; k++)
        for (uint32_t i = 0; i < LIMBS; i++) out[k * LIMBS + i] = (int64_t)(m->sum2[k] >> i * LIMB_BITS) & LIMB_MASK;
}

static void from_limbs(const int64_t *in, qd_moments *m)
{
    for (uint32_t k = 0; k < m->n_channels; k++) {
        m->sum2[k] = 0;
        for (uint32_t i = 0; i < LIMBS; i++) m->sum2[k] += (qd_fixed)in[k * LIMBS + i] << i * LIMB_BITS;
    }
}

/* Between a site's moments and its places: tokens, then limbs; whether something is bad, then amaxes. */
static void move(qd_moments *m, bool out, int64_t *sums, float *largest)
{
    if (out) {
        sums[0] = (int64_t)m->n_tokens;
        to_limbs(m, sums + 1);
        largest[0] = m->bad;
        memcpy(largest + 1, m->amax, m->n_channels * sizeof *m->amax);
    } else {
        m->n_tokens = (uint64_t)sums[0];
        from_limbs(sums + 1, m);
        m->bad = largest[0] > 0;
        memcpy(m->amax, largest + 1, m->n_channels * sizeof *m->amax);
    }
}

qd_code qd_layerwise_reduce_moments(qd_layerwise *l, qd_err *err)
{
    qd_layer_work *w = l->work;
    qd_gang *g = l->run->gang;
    uint64_t n = 0;
    qd_code rc = QD_OK;
    if (qd_gang_size(g) == 1) return QD_OK;
    for (uint32_t s = 0; s < w->n_sites; s++) n += w->sites[s].n_channels;
    int64_t *sums = qd_calloc(n * LIMBS + w->n_sites + 1, sizeof *sums);
    float *largest = qd_calloc(n + w->n_sites + 1, sizeof *largest);
    if (sums == NULL || largest == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for moments");
        goto out;
    }
    for (int out = 1; out >= 0; out--) {
        uint64_t at = 0;
        for (uint32_t s = 0; s < w->n_sites; at += w->sites[s++].n_channels)
            move(&w->moments[s], out != 0, sums + at * LIMBS + s, largest + at + s);
        if (out == 0) break;
        QD_TRY(qd_gang_sum_i64(g, sums, n * LIMBS + w->n_sites, err));
        QD_TRY(qd_gang_max_f32(g, largest, n + w->n_sites, err));
    }
    for (uint32_t s = 0; s < w->n_sites; s++) {
        const qd_site_sample *x = &w->samples[s]; /* the rows of a tile are of the rank that had it */
        if (x->rows != NULL)
            QD_TRY(qd_gang_join(g, x->rows, (uint64_t)x->n_rows * w->sites[s].n_channels * sizeof *x->rows, err));
    }
    rc = qd_layerwise_cache_reduce(l, err);
out:
    qd_free(sums);
    qd_free(largest);
    return rc;
}

static qd_code move_strip(qd_layerwise *l, qd_hessian *h, uint64_t i, bool into, float *packed, uint64_t *ret_n,
                          qd_err *err)
{
    if (h->memory != NULL) return qd_hessian_strip_there(h, &l->lanes[0], i, into, packed, ret_n, err);
    *ret_n = qd_hessian_strip(h, i, into, packed);
    return QD_OK;
}

uint32_t qd_layerwise_owner(const qd_layerwise *l, uint32_t site)
{
    const qd_input_site *s = l->work->sites;
    uint32_t first = site;
    if (qd_gang_size(l->run->gang) == 1 || s[site].expert < 0) return QD_NONE;
    while (first > 0 && s[first - 1].kind == s[site].kind) first--;
    return (site - first) % qd_gang_size(l->run->gang);
}

/* The triangle alone, a row of tiles at a time. owner QD_NONE: for every rank. */
static qd_code sum_hessian(qd_layerwise *l, qd_hessian *h, uint32_t owner, qd_err *err)
{
    const bool mine = owner == QD_NONE || owner == qd_gang_rank(l->run->gang);
    uint64_t n = 0;
    qd_code rc = QD_OK;
    float *packed = qd_malloc(qd_hessian_strip_max(h) * sizeof *packed);
    if (packed == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for Hessians");
    for (uint64_t i = 0; i < h->n_tiles; i++) {
        QD_TRY(move_strip(l, h, i, false, packed, &n, err));
        QD_TRY(owner == QD_NONE ? qd_gang_sum_f32(l->run->gang, packed, n, err)
                                : qd_gang_sum_f32_to(l->run->gang, owner, packed, n, err));
        if (mine) QD_TRY(move_strip(l, h, i, true, packed, &n, err));
    }
out:
    qd_free(packed);
    return rc;
}

qd_code qd_layerwise_reduce_stage(qd_layerwise *l, qd_err *err)
{
    const uint32_t n = l->work->n_sites + 1;
    qd_gang *g = l->run->gang;
    qd_code rc = QD_OK;
    if (qd_gang_size(g) == 1) return QD_OK;
    float *largest = qd_calloc(n, sizeof *largest);
    if (largest == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for inputs");
    for (uint32_t s = 0; s < n; s++)
        for (unsigned i = 0; l->seen[s].amax != NULL && i < l->n_workers; i++) {
            float a = l->seen[s].amax[i]; /* what is not finite is refused by who uses it */
            largest[s] = fmaxf(largest[s], isnan(a) ? INFINITY : a);
        }
    QD_TRY(qd_gang_max_f32(g, largest, n, err));
    for (uint32_t s = 0; s < n; s++) {
        if (l->seen[s].amax != NULL) l->seen[s].amax[0] = largest[s]; /* at least that of each worker */
        if (l->seen[s].hessian == NULL) continue;                     /* the last place is all experts' */
        QD_TRY(sum_hessian(l, l->seen[s].hessian, s < l->work->n_sites ? qd_layerwise_owner(l, s) : QD_NONE, err));
    }
out:
    qd_free(largest);
    return rc;
}
