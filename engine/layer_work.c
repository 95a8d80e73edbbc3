#include "engine/layer_work.h"

#include "gpu/num.h"

#include <math.h>
#include <string.h>

enum {
    EXPERT_TOKENS = 256 /* an expert's own moments weigh as much as the layer's when it saw as many */
};

static bool of_expert(qd_site_kind k)
{
    return k == QD_SITE_EXPERT_IN || k == QD_SITE_EXPERT_DOWN;
}

/* Experts' inputs are one and the same vectors, so channels correspond; what their down reads has no such order. */
static double layer_mean2(const qd_layer_work *w, qd_site_kind kind, uint32_t channel)
{
    double sum = 0, tokens = 0;
    for (uint32_t i = 0; i < w->n_sites; i++) {
        const qd_moments *m = &w->moments[i];
        if (w->sites[i].kind != kind || m->n_tokens == 0) continue;
        double own = 0;
        if (kind == QD_SITE_EXPERT_IN) {
            own = qd_moments_mean2(m, channel);
        } else {
            for (uint32_t k = 0; k < m->n_channels; k++) own += qd_moments_mean2(m, k);
            own /= m->n_channels;
        }
        sum += own * (double)m->n_tokens;
        tokens += (double)m->n_tokens;
    }
    return tokens > 0 ? sum / tokens : 1.0;
}

void qd_work_moments(const qd_layer_work *w, uint32_t site, double *ret)
{
    const qd_moments *m = &w->moments[site];
    qd_site_kind kind = w->sites[site].kind;
    double own = (double)m->n_tokens, shared = 0;
    bool blend = of_expert(kind) && m->n_tokens < (uint64_t)16 * EXPERT_TOKENS;
    for (uint32_t k = 0; k < m->n_channels; k++) {
        ret[k] = qd_moments_mean2(m, k);
        if (!blend) continue;
        if (k == 0 || kind == QD_SITE_EXPERT_IN) shared = layer_mean2(w, kind, k);
        ret[k] = (ret[k] * own + shared * EXPERT_TOKENS) / (own + EXPERT_TOKENS);
    }
}

static float own_amax(const qd_layer_work *w, uint32_t site)
{
    float most = 0;
    for (uint32_t k = 0; k < w->sites[site].n_channels; k++) {
        float a = w->moments[site].amax[k];
        if (w->col[site] != NULL) a /= w->col[site][k];
        most = a > most ? a : most;
    }
    return most;
}

float qd_work_amax(const qd_layer_work *w, uint32_t site)
{
    qd_site_kind kind = w->sites[site].kind;
    float most = own_amax(w, site);
    if (!of_expert(kind) || w->moments[site].n_tokens >= EXPERT_TOKENS) return most;
    for (uint32_t i = 0; i < w->n_sites; i++)
        if (w->sites[i].kind == kind) most = fmaxf(most, own_amax(w, i));
    return most;
}

qd_code qd_work_tick(const qd_layer_work *w, qd_err *err)
{
    return qd_tasks_tick(w->tasks, err);
}

qd_weight *qd_work_weight(const qd_layer_work *w, uint32_t item)
{
    return qd_layer_weight(w->layer, &w->run->plan->items[item]);
}

qd_code qd_work_rows(const qd_layer_work *w, uint32_t site, uint32_t item, uint64_t row, uint64_t n, float *ret,
                     qd_err *err)
{
    const qd_weight *x = qd_work_weight(w, item);
    const char *name = w->run->plan->items[item].name;
    const float *col = w->col[site], *div = w->row[item - w->first_item];
    if (x == NULL) return qd_fail(err, QD_E_INTERNAL, "%s: not among the layer's weights", name);
    w->layer->ops->load(x->dtype, (const unsigned char *)x->data + row * x->k * qd_dtype_bytes(x->dtype), n * x->k,
                        ret);
    for (uint64_t r = 0; r < n; r++) {
        float *v = ret + r * x->k, rcp = div != NULL ? 1.0f / div[row + r] : 1.0f;
        for (uint64_t k = 0; k < x->k; k++) {
            if (!isfinite(v[k]))
                return qd_fail(err, QD_E_INPUT, "%s: row %llu, column %llu: expected a finite weight, found %s", name,
                               (unsigned long long)(row + r), (unsigned long long)k, isnan(v[k]) ? "NaN" : "infinity");
            v[k] = v[k] * (col != NULL ? col[k] : 1.0f) * rcp;
        }
    }
    return QD_OK;
}
