#include "engine/sites.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* A linear by the last part of its name: the slot of its weight, its part of an expert, whether it reads what another
 * linear of its block gave. */
typedef struct linear_kind {
    const char *last;
    qd_role role;
    qd_slot slot;
    qd_expert_part part;
    qd_site_kind site;
} linear_kind;

static const linear_kind k_kinds[] = {
    {"q_proj", QD_ROLE_ATTN, QD_Q, 0, QD_SITE_ATTN_IN},
    {"k_proj", QD_ROLE_ATTN, QD_K, 0, QD_SITE_ATTN_IN},
    {"v_proj", QD_ROLE_ATTN, QD_V, 0, QD_SITE_ATTN_IN},
    {"o_proj", QD_ROLE_ATTN, QD_O, 0, QD_SITE_ATTN_OUT},
    {"in_proj_qkv", QD_ROLE_LINEAR_ATTN, QD_DELTA_QKV, 0, QD_SITE_DELTA_IN},
    {"in_proj_z", QD_ROLE_LINEAR_ATTN, QD_DELTA_Z, 0, QD_SITE_DELTA_IN},
    {"in_proj_qkvz", QD_ROLE_LINEAR_ATTN, QD_DELTA_QKVZ, 0, QD_SITE_DELTA_IN},
    {"out_proj", QD_ROLE_LINEAR_ATTN, QD_DELTA_OUT, 0, QD_SITE_DELTA_OUT},
    {"gate_proj", QD_ROLE_MLP, QD_GATE, 0, QD_SITE_MLP_IN},
    {"up_proj", QD_ROLE_MLP, QD_UP, 0, QD_SITE_MLP_IN},
    {"down_proj", QD_ROLE_MLP, QD_DOWN, 0, QD_SITE_MLP_DOWN},
    {"gate_proj", QD_ROLE_SHARED_EXPERT, QD_SHARED_GATE, 0, QD_SITE_SHARED_IN},
    {"up_proj", QD_ROLE_SHARED_EXPERT, QD_SHARED_UP, 0, QD_SITE_SHARED_IN},
    {"down_proj", QD_ROLE_SHARED_EXPERT, QD_SHARED_DOWN, 0, QD_SITE_SHARED_DOWN},
    {"gate_proj", QD_ROLE_EXPERT, QD_SLOT_COUNT, QD_EXPERT_GATE, QD_SITE_EXPERT_IN},
    {"up_proj", QD_ROLE_EXPERT, QD_SLOT_COUNT, QD_EXPERT_UP, QD_SITE_EXPERT_IN},
    {"down_proj", QD_ROLE_EXPERT, QD_SLOT_COUNT, QD_EXPERT_DOWN, QD_SITE_EXPERT_DOWN},
    {"w1", QD_ROLE_EXPERT, QD_SLOT_COUNT, QD_EXPERT_GATE, QD_SITE_EXPERT_IN},
    {"w3", QD_ROLE_EXPERT, QD_SLOT_COUNT, QD_EXPERT_UP, QD_SITE_EXPERT_IN},
    {"w2", QD_ROLE_EXPERT, QD_SLOT_COUNT, QD_EXPERT_DOWN, QD_SITE_EXPERT_DOWN},
};

static const linear_kind *kind_of(const char *name, qd_role role)
{
    const char *dot = strrchr(name, '.');
    const char *last = dot != NULL ? dot + 1 : name;
    for (size_t i = 0; i < sizeof k_kinds / sizeof k_kinds[0]; i++)
        if (k_kinds[i].role == role && strcmp(k_kinds[i].last, last) == 0) return &k_kinds[i];
    return NULL;
}

qd_weight *qd_layer_weight(qd_layer *l, const qd_item *it, qd_role role)
{
    const linear_kind *k = kind_of(it->name, role);
    if (k == NULL) return NULL;
    qd_weight *w = NULL;
    if (role != QD_ROLE_EXPERT)
        w = &l->w[k->slot];
    else if (l->experts != NULL && it->expert >= 0 && (uint64_t)it->expert < l->n_experts)
        w = &l->experts[it->expert][k->part];
    return w != NULL && w->data != NULL && w->n == it->rows && w->k == it->cols ? w : NULL;
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

qd_code qd_input_sites_make(const qd_plan *p, qd_arena *arena, qd_input_sites *ret, qd_err *err)
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
        const linear_kind *k = kind_of(it->name, u->role);
        if (k == NULL || u->layer < 0) {
            rc = qd_fail(err, QD_E_UNSUPPORTED,
                         "%s: the forward pass does not tell what this linear reads: use a weight-only template",
                         it->name);
            goto out;
        }
        readers[n++] = (reader){.site = {.kind = k->site,
                                         .layer = u->layer,
                                         .expert = u->role == QD_ROLE_EXPERT ? it->expert : -1,
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
