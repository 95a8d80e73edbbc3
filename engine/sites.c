#include "engine/sites.h"

#include "base/mem.h"

#include <stdlib.h>

/* What a linear is in the forward pass: the tensor says it, so that names are known to ckpt/arch_tables.c and
 * calib/layer_weights.h only. */
typedef struct linear_place {
    qd_slot slot;
    qd_expert_part part; /* of an expert: slot is QD_SLOT_COUNT */
} linear_place;

static bool place_of(const qd_layer_index *l, uint64_t n_experts, const qd_item *it, linear_place *ret)
{
    *ret = (linear_place){.slot = QD_SLOT_COUNT};
    if (it->tensor == l->weight[QD_EXPERTS_GATE_UP]) { /* of each expert gate, then up */
        ret->part = it->first_row / it->rows % 2 == 0 ? QD_EXPERT_GATE : QD_EXPERT_UP;
        return true;
    }
    if (it->tensor == l->weight[QD_EXPERTS_DOWN]) {
        ret->part = QD_EXPERT_DOWN;
        return true;
    }
    for (int p = 0; l->experts != NULL && it->expert >= 0 && (uint64_t)it->expert < n_experts && p < QD_EXPERT_PARTS;
         p++)
        if (it->tensor == l->experts[it->expert][p]) {
            ret->part = (qd_expert_part)p;
            return true;
        }
    for (int s = 0; s < QD_EXPERTS_GATE_UP; s++)
        if (it->tensor == l->weight[s]) {
            ret->slot = (qd_slot)s;
            return true;
        }
    return false;
}

/* QD_SITE_COUNT: no linear that is ever quantized. */
static qd_site_kind site_of(const linear_place *p)
{
    switch (p->slot) {
    case QD_Q:
    case QD_K:
    case QD_V:
        return QD_SITE_ATTN_IN;
    case QD_O:
        return QD_SITE_ATTN_OUT;
    case QD_DELTA_QKV:
    case QD_DELTA_Z:
    case QD_DELTA_QKVZ:
        return QD_SITE_DELTA_IN;
    case QD_DELTA_OUT:
        return QD_SITE_DELTA_OUT;
    case QD_GATE:
    case QD_UP:
        return QD_SITE_MLP_IN;
    case QD_DOWN:
        return QD_SITE_MLP_DOWN;
    case QD_SHARED_GATE:
    case QD_SHARED_UP:
        return QD_SITE_SHARED_IN;
    case QD_SHARED_DOWN:
        return QD_SITE_SHARED_DOWN;
    case QD_SLOT_COUNT:
        return p->part == QD_EXPERT_DOWN ? QD_SITE_EXPERT_DOWN : QD_SITE_EXPERT_IN;
    default:
        return QD_SITE_COUNT;
    }
}

qd_weight *qd_layer_weight(qd_layer *l, const qd_item *it)
{
    linear_place at;
    if (!place_of(l->index, l->n_experts, it, &at)) return NULL;
    if (at.slot == QD_SLOT_COUNT && (uint64_t)it->expert >= l->n_experts) return NULL;
    qd_weight *w = at.slot == QD_SLOT_COUNT ? &l->experts[it->expert][at.part] : &l->w[at.slot];
    return w->data != NULL && w->n == it->rows && w->k == it->cols ? w : NULL;
}

typedef struct reader {
    qd_input_site site; /* without items */
    uint32_t item;
} reader;

static int by_site(const void *a, const void *b)
{
    const qd_input_site *x = &((const reader *)a)->site, *y = &((const reader *)b)->site;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->expert != y->expert) return x->expert < y->expert ? -1 : 1;
    return ((const reader *)a)->item < ((const reader *)b)->item ? -1 : 1;
}

static bool same_site(const qd_input_site *a, const qd_input_site *b)
{
    return a->layer == b->layer && a->kind == b->kind && a->expert == b->expert;
}

qd_code qd_input_sites_make(const qd_plan *p, const qd_model_index *x, qd_arena *arena, qd_input_sites *ret,
                            qd_err *err)
{
    qd_code rc = QD_OK;
    uint32_t n = 0, n_sites = 0;
    reader *readers = qd_calloc(p->n_linears, sizeof *readers);
    uint32_t *items = qd_arena_alloc(arena, p->n_linears, sizeof *items);
    qd_input_site *sites = qd_arena_alloc(arena, p->n_linears, sizeof *sites);
    uint32_t *first = qd_arena_alloc(arena, p->n_layers + 1, sizeof *first);
    if (readers == NULL || items == NULL || sites == NULL || first == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %u linears", p->n_linears);
        goto out;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        const qd_item *it = &p->items[i];
        const qd_unit *u = &p->units[it->unit];
        if (u->kind != QD_UNIT_QUANTIZE) continue;
        linear_place at = {.slot = QD_IN_NORM};
        bool known = u->layer >= 0 && (uint64_t)u->layer < x->config.n_layers &&
                     place_of(&x->layers[u->layer], x->config.n_experts, it, &at);
        if (!known || site_of(&at) == QD_SITE_COUNT) {
            rc = qd_fail(err, QD_E_UNSUPPORTED,
                         "%s: the forward pass does not tell what this linear reads: use a weight-only template",
                         it->name);
            goto out;
        }
        readers[n++] = (reader){.site = {.kind = site_of(&at),
                                         .layer = u->layer,
                                         .expert = at.slot == QD_SLOT_COUNT ? it->expert : -1,
                                         .n_channels = (uint32_t)it->cols},
                                .item = i};
    }
    qsort(readers, n, sizeof *readers, by_site);
    for (uint32_t i = 0; i < n; i++) {
        items[i] = readers[i].item;
        if (n_sites == 0 || !same_site(&sites[n_sites - 1], &readers[i].site)) {
            sites[n_sites] = readers[i].site;
            sites[n_sites++].items = items + i;
        }
        qd_input_site *s = &sites[n_sites - 1];
        s->n_items++;
        if (s->n_channels != p->items[readers[i].item].cols) {
            rc = qd_fail(err, QD_E_INPUT, "%s: expected %u columns as %s reads, found %u", p->items[items[i]].name,
                         s->n_channels, p->items[s->items[0]].name, (uint32_t)p->items[items[i]].cols);
            goto out;
        }
    }
    for (uint32_t layer = 0, i = 0; layer <= p->n_layers; layer++) {
        while (i < n_sites && (uint32_t)sites[i].layer < layer) i++;
        first[layer] = i;
    }
    *ret = (qd_input_sites){.sites = sites, .n_sites = n_sites, .layer_first = first};
out:
    qd_free(readers);
    return rc;
}

const qd_input_site *qd_input_sites_find(const qd_input_sites *s, int32_t layer, qd_site_kind kind, int32_t expert)
{
    uint32_t lo = s->layer_first[layer], hi = s->layer_first[layer + 1];
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const qd_input_site *m = &s->sites[mid];
        if (m->kind == kind && m->expert == expert) return m;
        if (m->kind < kind || (m->kind == kind && m->expert < expert))
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}
