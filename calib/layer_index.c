/* layer_index.c -- each tensor of the forward pass found by its role and name, with the shape that config.json asks
 * for.
 */
#include "base/mem.h"
#include "calib/layer_weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef enum dim {
    ONE, /* of a vector */
    ROW, /* of a matrix with one row */
    HIDDEN,
    Q_GATE,
    Q,
    KV,
    HEAD,
    D_QKV,
    D_VALUE,
    D_QKVZ,
    D_HEADS,
    D_BA,
    D_CONV,
    D_V,
    INTER,
    S_INTER,
    EXPERTS,
    E_GATE_UP,
    E_HIDDEN,
    E_INTER,
    DIM_COUNT
} dim;

static const struct {
    const char *suffix;
    dim rows, cols;
} k_slots[QD_SLOT_COUNT] = {
#define X(slot, suffix, rows, cols) [slot] = {suffix, rows, cols},
    QD_SLOTS(X)
#undef X
};

/* Products of sizes that model_config.c keeps below 2^24 each, so they fit. */
static void fill_dims(const qd_model_config *m, uint64_t d[DIM_COUNT])
{
    uint64_t key = m->k_heads * m->k_dim, value = m->v_heads * m->v_dim;
    d[ONE] = d[ROW] = 1;
    d[HIDDEN] = m->hidden;
    d[Q] = m->n_heads * m->head_dim;
    d[Q_GATE] = d[Q] * (m->attention_gate ? 2 : 1);
    d[KV] = m->n_kv_heads * m->head_dim;
    d[HEAD] = m->head_dim;
    d[D_QKV] = 2 * key + value;
    d[D_VALUE] = value;
    d[D_QKVZ] = 2 * key + 2 * value;
    d[D_HEADS] = m->v_heads;
    d[D_BA] = 2 * m->v_heads;
    d[D_CONV] = d[D_QKV] * m->conv_taps;
    d[D_V] = m->v_dim;
    d[INTER] = m->intermediate;
    d[S_INTER] = m->shared_intermediate;
    d[EXPERTS] = m->n_experts;
    d[E_GATE_UP] = m->n_experts * 2 * m->expert_intermediate;
    d[E_HIDDEN] = m->n_experts * m->hidden;
    d[E_INTER] = m->expert_intermediate;
}

static bool needs(const qd_model_config *m, const qd_layer_kind *k, qd_slot s)
{
    switch (s) {
    case QD_IN_NORM:
    case QD_POST_NORM:
        return true;
    case QD_Q:
    case QD_K:
    case QD_V:
    case QD_O:
        return !k->linear_attention;
    case QD_Q_NORM:
    case QD_K_NORM:
        return !k->linear_attention && m->qk_norm;
    case QD_DELTA_QKV:
    case QD_DELTA_Z:
    case QD_DELTA_B:
    case QD_DELTA_A:
        return k->linear_attention && !m->interleaved_qkvz;
    case QD_DELTA_QKVZ:
    case QD_DELTA_BA:
        return k->linear_attention && m->interleaved_qkvz;
    case QD_DELTA_CONV:
    case QD_DELTA_A_LOG:
    case QD_DELTA_DT:
    case QD_DELTA_NORM:
    case QD_DELTA_OUT:
        return k->linear_attention;
    case QD_GATE:
    case QD_UP:
    case QD_DOWN:
        return !k->moe;
    case QD_ROUTER:
        return k->moe;
    case QD_SHARED_GATE:
    case QD_SHARED_UP:
    case QD_SHARED_DOWN:
    case QD_SHARED_SCALE:
        return k->moe && m->shared_intermediate != 0;
    case QD_EXPERTS_GATE_UP:
    case QD_EXPERTS_DOWN:
    case QD_SLOT_COUNT:
        break;
    }
    return false; /* fused experts: asked for where the layer has no single ones */
}

static qd_code check_tensor(const qd_model_index *x, uint32_t tensor, uint64_t rows, uint64_t cols, qd_err *err)
{
    const qd_tensor *t = &x->ckpt->tensors[tensor];
    const char *file = x->ckpt->files[t->file].name;
    uint64_t last = t->rank == 0 || cols == 1 ? 1 : t->shape[t->rank - 1];
    uint64_t elems = 0;
    if (!qd_mul_u64(rows, cols, &elems) || t->n_elems != elems || last != cols)
        return qd_fail(err, QD_E_INPUT,
                       "%s: %s: expected %" PRIu64 " x %" PRIu64 " elements, found %" PRIu64 " in rows of %" PRIu64,
                       file, t->name, rows, cols, t->n_elems, t->rank == 0 ? 1 : t->shape[t->rank - 1]);
    if (t->dtype != QD_BF16 && t->dtype != QD_F16 && t->dtype != QD_F32)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: %s: a forward pass expects BF16, F16 or F32, found %s", file,
                       t->name, qd_dtype_name(t->dtype));
    return QD_OK;
}

static qd_code missing(const qd_model_index *x, uint64_t layer, const char *suffix, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT, "%s: expected a tensor \"model.layers.%" PRIu64 ".%s\", found none", x->ckpt->dir,
                   layer, suffix);
}

/* What follows "layers.<n>." or NULL. */
static const char *after_layer(const char *name)
{
    const char *s = strstr(name, "layers.");
    s = s == NULL ? NULL : strchr(s + strlen("layers."), '.');
    return s == NULL ? NULL : s + 1;
}

static bool suffix_is(const char *suffix, const char *pattern)
{
    static const char either[] = "{mlp,block_sparse_moe}.";
    if (strncmp(pattern, either, sizeof either - 1) != 0) return strcmp(suffix, pattern) == 0;
    pattern += sizeof either - 1;
    return (strncmp(suffix, "mlp.", 4) == 0 && strcmp(suffix + 4, pattern) == 0) ||
           (strncmp(suffix, "block_sparse_moe.", 17) == 0 && strcmp(suffix + 17, pattern) == 0);
}

static int expert_part(const char *suffix)
{
    static const char *const parts[][2] = {
        {".gate_proj.weight", ".w1.weight"}, {".up_proj.weight", ".w3.weight"}, {".down_proj.weight", ".w2.weight"}};
    const char *dot = strrchr(suffix, '.');
    while (dot != NULL && dot > suffix && dot[-1] != '.') dot--;
    for (int i = 0; dot != NULL && dot > suffix && i < QD_EXPERT_PARTS; i++)
        if (strcmp(dot - 1, parts[i][0]) == 0 || strcmp(dot - 1, parts[i][1]) == 0) return i;
    return -1;
}

/* "self_attn.q_proj.bias" belongs to the slot of "self_attn.q_proj.weight". */
static bool bias_of(const char *suffix, const char *pattern)
{
    size_t n = strlen(suffix), m = strlen(pattern);
    return n > 5 && m > 7 && n - 5 == m - 7 && strcmp(suffix + n - 5, ".bias") == 0 &&
           memcmp(suffix, pattern, n - 5) == 0;
}

static void place_in_layer(qd_model_index *x, uint32_t tensor, const qd_place *p)
{
    const qd_tensor *t = &x->ckpt->tensors[tensor];
    const char *suffix = after_layer(t->name);
    if (suffix == NULL || (uint64_t)p->layer >= x->config.n_layers) return;
    qd_layer_index *l = &x->layers[p->layer];
    if (p->role == QD_ROLE_EXPERT && p->split == QD_SPLIT_NONE) {
        int part = expert_part(suffix);
        if (part >= 0 && l->experts != NULL && p->expert >= 0 && (uint64_t)p->expert < x->config.n_experts)
            l->experts[p->expert][part] = tensor;
        return;
    }
    for (int s = 0; s < QD_SLOT_COUNT; s++) {
        if (suffix_is(suffix, k_slots[s].suffix)) l->weight[s] = tensor;
        if (bias_of(suffix, k_slots[s].suffix)) l->bias[s] = tensor;
    }
}

static void place_all(qd_model_index *x)
{
    for (uint32_t i = 0; i < x->ckpt->n_tensors; i++) {
        qd_place p;
        qd_arch_place(x->config.arch, &x->ckpt->tensors[i], &p);
        if (p.role == QD_ROLE_VISION || p.role == QD_ROLE_MTP || p.role == QD_ROLE_OTHER) continue;
        if (p.layer >= 0)
            place_in_layer(x, i, &p);
        else if (p.role == QD_ROLE_EMBED)
            x->embed = i;
        else if (p.role == QD_ROLE_HEAD)
            x->head = i;
        else if (p.role == QD_ROLE_NORM)
            x->norm = i;
    }
}

static qd_code check_experts(const qd_model_index *x, uint64_t layer, const uint64_t d[DIM_COUNT], qd_err *err)
{
    const qd_layer_index *l = &x->layers[layer];
    qd_code rc = QD_OK;
    bool fused = l->weight[QD_EXPERTS_GATE_UP] != QD_NO_TENSOR && l->weight[QD_EXPERTS_DOWN] != QD_NO_TENSOR;
    for (int s = QD_EXPERTS_GATE_UP; fused && rc == QD_OK && s <= QD_EXPERTS_DOWN; s++) {
        const qd_tensor *t = &x->ckpt->tensors[l->weight[s]];
        if (t->rank != 3 || t->shape[0] != x->config.n_experts)
            return qd_fail(err, QD_E_INPUT, "%s: %s: expected 3 dimensions, the first %" PRIu64,
                           x->ckpt->files[t->file].name, t->name, x->config.n_experts);
        rc = check_tensor(x, l->weight[s], d[k_slots[s].rows], d[k_slots[s].cols], err);
    }
    if (fused) return rc;
    for (uint64_t e = 0; e < x->config.n_experts; e++)
        for (int p = 0; p < QD_EXPERT_PARTS; p++) {
            static const char *const names[] = {"gate", "up", "down"};
            char suffix[64];
            bool down = p == QD_EXPERT_DOWN;
            (void)snprintf(suffix, sizeof suffix, "mlp.experts.%" PRIu64 ".%s_proj.weight", e, names[p]);
            if (l->experts[e][p] == QD_NO_TENSOR) return missing(x, layer, suffix, err);
            rc = check_tensor(x, l->experts[e][p], down ? d[HIDDEN] : d[E_INTER], down ? d[E_INTER] : d[HIDDEN], err);
            if (rc != QD_OK) return rc;
        }
    return rc;
}

static qd_code check_layer(const qd_model_index *x, uint64_t layer, const uint64_t d[DIM_COUNT], qd_err *err)
{
    qd_layer_index *l = &x->layers[layer];
    const qd_layer_kind *kind = &x->config.layers[layer];
    for (int s = 0; s < QD_EXPERTS_GATE_UP; s++) {
        if (!needs(&x->config, kind, (qd_slot)s)) {
            l->weight[s] = l->bias[s] = QD_NO_TENSOR; /* transformers drops what the architecture has no place for */
            continue;
        }
        if (l->weight[s] == QD_NO_TENSOR) return missing(x, layer, k_slots[s].suffix, err);
        qd_code rc = check_tensor(x, l->weight[s], d[k_slots[s].rows], d[k_slots[s].cols], err);
        if (rc == QD_OK && l->bias[s] != QD_NO_TENSOR) rc = check_tensor(x, l->bias[s], d[k_slots[s].rows], 1, err);
        if (rc != QD_OK) return rc;
    }
    return kind->moe ? check_experts(x, layer, d, err) : QD_OK;
}

static qd_code check_outside(qd_model_index *x, qd_err *err)
{
    const qd_model_config *m = &x->config;
    if (x->embed == QD_NO_TENSOR || x->norm == QD_NO_TENSOR)
        return qd_fail(err, QD_E_INPUT, "%s: expected a tensor \"model.%s.weight\", found none", x->ckpt->dir,
                       x->embed == QD_NO_TENSOR ? "embed_tokens" : "norm");
    if (m->tied) x->head = x->embed;
    if (x->head == QD_NO_TENSOR)
        return qd_fail(err, QD_E_INPUT, "%s: expected a tensor \"lm_head.weight\", found none and no tied embeddings",
                       x->ckpt->dir);
    qd_code rc = check_tensor(x, x->embed, m->vocab, m->hidden, err);
    if (rc == QD_OK) rc = check_tensor(x, x->head, m->vocab, m->hidden, err);
    return rc == QD_OK ? check_tensor(x, x->norm, m->hidden, 1, err) : rc;
}

static qd_code make_layers(qd_model_index *x, qd_err *err)
{
    const qd_model_config *m = &x->config;
    x->layers = qd_arena_alloc(&x->arena, m->n_layers, sizeof *x->layers);
    if (x->layers == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for layers", x->ckpt->dir);
    for (uint64_t i = 0; i < m->n_layers; i++) {
        qd_layer_index *l = &x->layers[i];
        memset(l->weight, 0xff, sizeof l->weight);
        memset(l->bias, 0xff, sizeof l->bias);
        if (!m->layers[i].moe) continue;
        l->experts = qd_arena_alloc(&x->arena, m->n_experts, sizeof *l->experts);
        if (l->experts == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for experts", x->ckpt->dir);
        memset(l->experts, 0xff, m->n_experts * sizeof *l->experts);
    }
    return QD_OK;
}

qd_code qd_model_index_open(const qd_ckpt *c, qd_model_index *ret, qd_err *err)
{
    qd_model_index x = {.ckpt = c, .embed = QD_NO_TENSOR, .head = QD_NO_TENSOR, .norm = QD_NO_TENSOR};
    uint64_t d[DIM_COUNT];
    qd_code rc = QD_OK;
    if (c->config.quant_method[0] != '\0')
        return qd_fail(err, QD_E_UNSUPPORTED,
                       "%s/config.json: a forward pass expects a checkpoint that is not quantized, found \"%.60s\"",
                       c->dir, c->config.quant_method);
    char *what = qd_arena_printf(&x.arena, "%s/config.json", c->dir);
    if (what == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", c->dir);
    QD_TRY(qd_model_config_read(&c->config, what, &x.arena, &x.config, err));
    QD_TRY(make_layers(&x, err));
    place_all(&x);
    QD_TRY(check_outside(&x, err));
    fill_dims(&x.config, d);
    for (uint64_t i = 0; i < x.config.n_layers; i++) QD_TRY(check_layer(&x, i, d, err));
    *ret = x;
    memset(&x, 0, sizeof x); /* ownership moved */
out:
    qd_model_index_done(&x);
    return rc;
}

void qd_model_index_done(qd_model_index *x)
{
    if (x == NULL) return;
    qd_arena_done(&x->arena);
    memset(x, 0, sizeof *x);
}
