#include "calib/shapes.h"

#include "calib/layer_slots.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A header of more does not fit safetensors' 100 MB. */
#define TENSORS_MAX (UINT64_C(1) << 20)

typedef struct maker {
    const qd_model_config *m;
    const char *what;
    qd_arena *arena;
    const char *prefix; /* of all names but lm_head's */
    qd_dtype dtype;
    uint64_t d[QD_DIM_COUNT];
    bool fused, attention_bias, mlp_bias, qkv_bias;
    qd_tensor *tensors;
    uint64_t n, cap;
} maker;

static qd_code no_memory(const maker *k, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for shapes", k->what);
}

/* name: in the arena; NULL where memory is out. */
static qd_code add(maker *k, const char *name, uint32_t rank, uint64_t a, uint64_t b, uint64_t c, qd_err *err)
{
    if (name == NULL) return no_memory(k, err);
    if (k->n == k->cap) return qd_fail(err, QD_E_INTERNAL, "%s: more tensors than were counted", k->what);
    k->tensors[k->n++] = (qd_tensor){.name = name, .dtype = k->dtype, .rank = rank, .shape = {a, b, c}};
    return QD_OK;
}

static bool has_bias(const maker *k, qd_slot s)
{
    switch (s) {
    case QD_Q:
    case QD_K:
    case QD_V:
        return k->qkv_bias || k->attention_bias;
    case QD_O:
        return k->attention_bias;
    case QD_GATE:
    case QD_UP:
    case QD_DOWN:
        return k->mlp_bias;
    default:
        return false;
    }
}

static bool is(const maker *k, const char *arch)
{
    return strcmp(qd_arch_name(k->m->arch), arch) == 0;
}

static qd_code add_slot(maker *k, uint64_t layer, qd_slot s, qd_err *err)
{
    static const char either[] = "{mlp,block_sparse_moe}.";
    const char *suffix = qd_slot_shapes[s].suffix, *module = "";
    uint64_t rows = k->d[qd_slot_shapes[s].rows], cols = k->d[qd_slot_shapes[s].cols];
    if (strncmp(suffix, either, sizeof either - 1) == 0) {
        suffix += sizeof either - 1;
        module = is(k, "mixtral") ? "block_sparse_moe." : "mlp.";
    }
    const char *name = qd_arena_printf(k->arena, "%slayers.%" PRIu64 ".%s%s", k->prefix, layer, module, suffix);
    qd_code rc = QD_OK;
    if (s == QD_DELTA_CONV)
        rc = add(k, name, 3, rows / k->m->conv_taps, 1, k->m->conv_taps, err);
    else if (s == QD_EXPERTS_GATE_UP || s == QD_EXPERTS_DOWN)
        rc = add(k, name, 3, k->m->n_experts, rows / k->m->n_experts, cols, err);
    else
        rc = add(k, name, qd_slot_shapes[s].cols == QD_DIM_ONE ? 1 : 2, rows, cols, 0, err);
    if (rc != QD_OK || !has_bias(k, s)) return rc;
    name = qd_arena_printf(k->arena, "%.*s.bias", (int)(strlen(name) - strlen(".weight")), name);
    return add(k, name, 1, rows, 0, 0, err);
}

static qd_code add_expert(maker *k, uint64_t layer, uint64_t expert, qd_err *err)
{
    static const char *const parts[2][QD_EXPERT_PARTS] = {{"gate_proj", "up_proj", "down_proj"}, {"w1", "w3", "w2"}};
    bool mixtral = is(k, "mixtral");
    qd_code rc = QD_OK;
    for (int p = 0; p < QD_EXPERT_PARTS && rc == QD_OK; p++) {
        bool down = p == QD_EXPERT_DOWN;
        const char *name = qd_arena_printf(k->arena, "%slayers.%" PRIu64 ".%s.experts.%" PRIu64 ".%s.weight", k->prefix,
                                           layer, mixtral ? "block_sparse_moe" : "mlp", expert, parts[mixtral][p]);
        rc = add(k, name, 2, k->d[down ? QD_DIM_HIDDEN : QD_DIM_E_INTER], k->d[down ? QD_DIM_E_INTER : QD_DIM_HIDDEN],
                 0, err);
    }
    return rc;
}

static qd_code add_layer(maker *k, uint64_t layer, qd_err *err)
{
    const qd_layer_kind *kind = &k->m->layers[layer];
    qd_code rc = QD_OK;
    for (int s = 0; s < QD_SLOT_COUNT && rc == QD_OK; s++)
        if (qd_slot_needed(k->m, kind, (qd_slot)s)) rc = add_slot(k, layer, (qd_slot)s, err);
    if (!kind->moe || rc != QD_OK) return rc;
    if (k->fused) {
        rc = add_slot(k, layer, QD_EXPERTS_GATE_UP, err);
        return rc == QD_OK ? add_slot(k, layer, QD_EXPERTS_DOWN, err) : rc;
    }
    for (uint64_t e = 0; e < k->m->n_experts && rc == QD_OK; e++) rc = add_expert(k, layer, e, err);
    return rc;
}

static qd_code read_dtype(const json_t *root, const json_t *text, const char *what, qd_dtype *ret, qd_err *err)
{
    static const struct {
        const char *name;
        qd_dtype dtype;
    } known[] = {{"bfloat16", QD_BF16}, {"float16", QD_F16}, {"float32", QD_F32}};
    const char *s = "bfloat16";
    qd_code rc = qd_json_str_or(root, "torch_dtype", what, s, &s, err);
    if (rc == QD_OK) rc = qd_json_str_or(root, "dtype", what, s, &s, err);
    if (rc == QD_OK) rc = qd_json_str_or(text, "torch_dtype", what, s, &s, err);
    if (rc == QD_OK) rc = qd_json_str_or(text, "dtype", what, s, &s, err);
    for (size_t i = 0; rc == QD_OK && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, s) == 0) {
            *ret = known[i].dtype;
            return QD_OK;
        }
    return rc != QD_OK ? rc
                       : qd_fail(err, QD_E_UNSUPPORTED,
                                 "%s: \"dtype\": expected bfloat16, float16 or float32, found \"%.60s\"", what, s);
}

static const char *left_out(const json_t *root, const json_t *text)
{
    bool vision = json_object_get(root, "vision_config") != NULL;
    const json_t *mtp = json_object_get(text, "mtp_num_hidden_layers");
    if (mtp == NULL) mtp = json_object_get(text, "num_nextn_predict_layers");
    bool has_mtp = json_is_integer(mtp) && json_integer_value(mtp) > 0;
    if (vision && has_mtp) return "the vision tower and the MTP layers";
    return vision ? "the vision tower" : has_mtp ? "the MTP layers" : NULL;
}

/* At most TENSORS_MAX, before anything is allocated for them. */
static qd_code count(maker *k, qd_err *err)
{
    uint64_t n = 3;
    for (uint64_t i = 0; i < k->m->n_layers && n <= TENSORS_MAX; i++)
        n += 2 * QD_SLOT_COUNT + (k->m->layers[i].moe && !k->fused ? k->m->n_experts * QD_EXPERT_PARTS : 0);
    if (n > TENSORS_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: expected at most %" PRIu64 " tensors, found more", k->what, TENSORS_MAX);
    k->cap = n;
    k->tensors = qd_arena_alloc(k->arena, n, sizeof *k->tensors);
    return k->tensors == NULL ? no_memory(k, err) : QD_OK;
}

static qd_code add_all(maker *k, qd_err *err)
{
    const qd_model_config *m = k->m;
    qd_code rc = add(k, qd_arena_printf(k->arena, "%sembed_tokens.weight", k->prefix), 2, m->vocab, m->hidden, 0, err);
    for (uint64_t i = 0; i < m->n_layers && rc == QD_OK; i++) rc = add_layer(k, i, err);
    if (rc == QD_OK) rc = add(k, qd_arena_printf(k->arena, "%snorm.weight", k->prefix), 1, m->hidden, 0, 0, err);
    if (rc == QD_OK && !m->tied) rc = add(k, "lm_head.weight", 2, m->vocab, m->hidden, 0, err);
    return rc;
}

qd_code qd_model_shapes(void *ctx, const qd_config *c, const char *what, qd_arena *arena, qd_shapes *ret, qd_err *err)
{
    qd_model_config m = {0};
    json_t *text = NULL;
    maker k = {.m = &m, .what = what, .arena = arena};
    qd_code rc = QD_OK;
    (void)ctx;
    if (c->quant_method[0] != '\0')
        return qd_fail(err, QD_E_UNSUPPORTED,
                       "%s: shapes are known of models that are not quantized, found \"%.60s\": their weights are "
                       "needed to plan",
                       what, c->quant_method);
    QD_TRY(qd_json_obj_or(c->root, "text_config", what, &text, err));
    QD_TRY(qd_model_config_read(c, what, arena, &m, err));
    QD_TRY(read_dtype(c->root, text != NULL ? text : c->root, what, &k.dtype, err));
    const json_t *o = text != NULL ? text : c->root;
    qd_dims_fill(&m, k.d);
    k.prefix = text != NULL ? "model.language_model." : "model.";
    k.fused = text != NULL && is(&k, "qwen3_5_moe");
    k.qkv_bias = is(&k, "qwen2");
    if (!k.qkv_bias) QD_TRY(qd_json_bool_or(o, "attention_bias", what, false, &k.attention_bias, err));
    if (is(&k, "llama")) QD_TRY(qd_json_bool_or(o, "mlp_bias", what, false, &k.mlp_bias, err));
    QD_TRY(count(&k, err));
    QD_TRY(add_all(&k, err));
    *ret = (qd_shapes){.tensors = k.tensors, .n_tensors = (uint32_t)k.n, .left_out = left_out(c->root, o)};
out:
    return rc;
}
