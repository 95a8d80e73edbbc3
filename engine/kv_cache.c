/* kv_cache.c -- an FP8 key-value cache: which projections have a scale in the output. */
#include "calib/layer_weights.h"
#include "engine/plan.h"

qd_code qd_plan_kv_cache(qd_plan *p, qd_err *err)
{
    qd_model_index x = {0};
    uint32_t n = 0;
    qd_code rc = qd_model_index_open(p->ckpt, &x, err);
    if (rc != QD_OK) return rc;
    for (uint32_t i = 0; i < p->n_items; i++) {
        qd_item *it = &p->items[i];
        int32_t layer = p->units[it->unit].layer;
        if (layer < 0 || (uint64_t)layer >= x.config.n_layers) continue;
        const uint32_t *weight = x.layers[layer].weight; /* none of them where a layer has linear attention */
        it->kv = (char)(it->tensor == weight[QD_K] ? 'k' : it->tensor == weight[QD_V] ? 'v' : 0);
        n += it->kv != 0;
    }
    qd_model_index_done(&x);
    if (n == 0)
        return qd_fail(err, QD_E_UNSUPPORTED,
                       "%s: kv_cache fp8 expects layers with keys and values, found none in this model", p->ckpt->dir);
    p->info.kv_cache = true;
    return QD_OK;
}
