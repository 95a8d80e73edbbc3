/* layer_index.c -- each tensor of the forward pass found by its role and name, with the shape that config.json asks
 * for.
 */
#include "base/mem.h"
#include "calib/layer_slots.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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
        if (suffix_is(suffix, qd_slot_shapes[s].suffix)) l->weight[s] = tensor;
        if (bias_of(suffix, qd_slot_shapes[s].suffix)) l->bias[s] = tensor;
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

static qd_code check_experts(const qd_model_index *x, uint64_t layer, const uint64_t d[QD_DIM_COUNT], qd_err *err)
{
    const qd_layer_index *l = &x->layers[layer];
    qd_code rc = QD_OK;
    bool fused = l->weight[QD_EXPERTS_GATE_UP] != QD_NO_TENSOR && l->weight[QD_EXPERTS_DOWN] != QD_NO_TENSOR;
    for (int s = QD_EXPERTS_GATE_UP; fused && rc == QD_OK && s <= QD_EXPERTS_DOWN; s++) {
        const qd_tensor *t = &x->ckpt->tensors[l->weight[s]];
        if (t->rank != 3 || t->shape[0] != x->config.n_experts)
            return qd_fail(err, QD_E_INPUT, "%s: %s: expected 3 dimensions, the first %" PRIu64,
                           x->ckpt->files[t->file].name, t->name, x->config.n_experts);
        rc = check_tensor(x, l->weight[s], d[qd_slot_shapes[s].rows], d[qd_slot_shapes[s].cols], err);
    }
    if (fused) return rc;
    for (uint64_t e = 0; e < x->config.n_experts; e++)
        for (int p = 0; p < QD_EXPERT_PARTS; p++) {
            static const char *const names[] = {"gate", "up", "down"};
            char suffix[64];
            bool down = p == QD_EXPERT_DOWN;
            (void)snprintf(suffix, sizeof suffix, "mlp.experts.%" PRIu64 ".%s_proj.weight", e, names[p]);
            if (l->experts[e][p] == QD_NO_TENSOR) return missing(x, layer, suffix, err);
            rc = check_tensor(x, l->experts[e][p], down ? d[QD_DIM_HIDDEN] : d[QD_DIM_E_INTER],
                              down ? d[QD_DIM_E_INTER] : d[QD_DIM_HIDDEN], err);
            if (rc != QD_OK) return rc;
        }
    return rc;
}

static qd_code check_layer(const qd_model_index *x, uint64_t layer, const uint64_t d[QD_DIM_COUNT], qd_err *err)
{
    qd_layer_index *l = &x->layers[layer];
    const qd_layer_kind *kind = &x->config.layers[layer];
    for (int s = 0; s < QD_EXPERTS_GATE_UP; s++) {
        if (!qd_slot_needed(&x->config, kind, (qd_slot)s)) {
            l->weight[s] = l->bias[s] = QD_NO_TENSOR; /* transformers drops what the architecture has no place for */
            continue;
        }
        if (l->weight[s] == QD_NO_TENSOR) return missing(x, layer, qd_slot_shapes[s].suffix, err);
        qd_code rc = check_tensor(x, l->weight[s], d[qd_slot_shapes[s].rows], d[qd_slot_shapes[s].cols], err);
        if (rc == QD_OK && l->bias[s] != QD_NO_TENSOR)
            rc = check_tensor(x, l->bias[s], d[qd_slot_shapes[s].rows], 1, err);
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
    uint64_t d[QD_DIM_COUNT];
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
    qd_dims_fill(&x.config, d);
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
