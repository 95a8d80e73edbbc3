/* sites.h -- which quantized linears read which value of the forward pass. */
#ifndef QD_ENGINE_SITES_H
#define QD_ENGINE_SITES_H

#include "calib/forward.h"
#include "engine/plan.h"

typedef struct qd_input_site {
    qd_site_kind kind;
    int32_t layer, expert; /* expert -1: of none */
    uint32_t n_channels;
    const uint32_t *items; /* [n_items] numbers of the plan's items */
    uint32_t n_items;
} qd_input_site;

typedef struct qd_input_sites {
    const qd_input_site *sites; /* by layer, kind, expert */
    uint32_t n_sites;
    const uint32_t *layer_first; /* [n_layers + 1] */
} qd_input_sites;

/* x: of the plan's checkpoint. All of it in arena. Errors: QD_E_UNSUPPORTED for a linear whose input the forward pass
 * does not tell, QD_E_NO_MEMORY.
 */
QD_MUST_CHECK qd_code qd_input_sites_make(const qd_plan *p, const qd_model_index *x, qd_arena *arena,
                                          qd_input_sites *ret, qd_err *err);
/* NULL: nothing that is quantized reads it. */
const qd_input_site *qd_input_sites_find(const qd_input_sites *s, int32_t layer, qd_site_kind kind, int32_t expert);
/* An item's weight in a loaded layer; NULL when the layer has no such linear. */
qd_weight *qd_layer_weight(qd_layer *l, const qd_item *it);

/* A weight's values, which a hook may change before any tile runs: they lie in the layer's own memory. */
static inline void *qd_layer_data(const qd_weight *w)
{
    return (void *)(uintptr_t)w->data;
}

#endif
