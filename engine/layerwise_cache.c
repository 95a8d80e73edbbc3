/* layerwise_cache.c -- largest keys and values for FP8 scales of the cache: those of the source, after scaling. */
#include "base/mem.h"
#include "engine/layerwise_streams.h"

#include <math.h>

/* Keys are what they were: what scaling takes from a norm it gives to k_proj. Rows of v_proj are divided. */
struct qd_cache_seen {
    float key;
    float *value; /* [cols] */
};

static qd_code not_finite(uint64_t layer, const char *what, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT,
                   "layer %llu: its %s hold a value that is not finite: the model overflows on the calibration data",
                   (unsigned long long)layer, what);
}

qd_code qd_layerwise_on_cache(void *ctx, uint64_t layer, unsigned worker, const float *k, const float *v, uint64_t rows,
                              uint64_t cols, qd_err *err)
{
    const qd_layerwise *l = ctx;
    if (l->cache == NULL) return QD_OK; /* no moments are collected */
    qd_cache_seen *c = &l->cache[worker];
    for (uint64_t i = 0; i < rows * cols; i++) {
        float a = fabsf(k[i]), b = fabsf(v[i]), *most = &c->value[i % cols];
        if (!isfinite(a)) return not_finite(layer, "keys", err);
        if (!isfinite(b)) return not_finite(layer, "values", err);
        c->key = a > c->key ? a : c->key;
        *most = b > *most ? b : *most;
    }
    return QD_OK;
}

qd_code qd_layerwise_cache_begin(qd_layerwise *l, qd_err *err)
{
    const qd_model_config *m = &l->index.config;
    if (!l->run->plan->info.kv_cache) return QD_OK;
    l->cache = qd_calloc(l->n_workers, sizeof *l->cache);
    if (l->cache == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for keys and values");
    for (unsigned i = 0; i < l->n_workers; i++) {
        l->cache[i].value = qd_calloc(m->n_kv_heads * m->head_dim, sizeof *l->cache[i].value);
        if (l->cache[i].value == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for keys and values");
    }
    return QD_OK;
}

qd_code qd_layerwise_cache_reduce(qd_layerwise *l, qd_err *err)
{
    const uint64_t cols = l->index.config.n_kv_heads * l->index.config.head_dim;
    if (l->cache == NULL) return QD_OK;
    qd_cache_seen *all = &l->cache[0];
    for (unsigned i = 1; i < l->n_workers; i++) {
        all->key = fmaxf(all->key, l->cache[i].key);
        for (uint64_t c = 0; c < cols; c++) all->value[c] = fmaxf(all->value[c], l->cache[i].value[c]);
    }
    qd_code rc = qd_gang_max_f32(l->run->gang, &all->key, 1, err);
    return rc == QD_OK ? qd_gang_max_f32(l->run->gang, all->value, cols, err) : rc;
}

void qd_layerwise_cache_end(qd_layerwise *l)
{
    for (unsigned i = 0; l->cache != NULL && i < l->n_workers; i++) qd_free(l->cache[i].value);
    qd_free(l->cache);
    l->cache = NULL;
}

void qd_layerwise_cache_set(qd_layerwise *l)
{
    const qd_plan *p = l->run->plan;
    const qd_layer_work *w = l->work;
    uint64_t cols = l->index.config.n_kv_heads * l->index.config.head_dim;
    for (uint32_t i = 0; l->cache != NULL && i < p->n_items; i++) {
        if (p->items[i].kv == 0 || p->units[p->items[i].unit].layer != (int32_t)w->layer->number) continue;
        const float *div = i >= w->first_item && i < w->end_item ? w->row[i - w->first_item] : NULL;
        float most = 0;
        for (unsigned t = 0; t < l->n_workers; t++) {
            if (p->items[i].kv == 'k') most = fmaxf(most, l->cache[t].key);
            for (uint64_t c = 0; p->items[i].kv == 'v' && c < cols; c++)
                most = fmaxf(most, l->cache[t].value[c] / (div != NULL ? div[c] : 1.0f));
        }
        l->run->result[i].kv_amax = most;
    }
}
