/* model_config.c -- hyper-parameters from config.json: each key with its limits, then how they fit each other. */
#include "calib/model_config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    WHAT_BYTES = 512
};
#define LAYERS_MAX  UINT64_C(4096)
#define WIDTH_MAX   (UINT64_C(1) << 24) /* hidden, intermediate, heads x size */
#define VOCAB_MAX   (UINT64_C(1) << 28)
#define HEADS_MAX   UINT64_C(65536)
#define EXPERTS_MAX UINT64_C(65536)
#define TAPS_MAX    UINT64_C(64)
#define CONTEXT_MAX (UINT64_C(1) << 40)

typedef struct reader {
    const json_t *o; /* the text model's object */
    const char *what;
    qd_err *err;
    qd_code rc; /* the first failure */
} reader;

/* Whole number 1 .. max; dflt 0: the key has to be there. */
static uint64_t count(reader *r, const char *key, uint64_t dflt, uint64_t max)
{
    uint64_t v = dflt;
    if (r->rc != QD_OK) return 1;
    r->rc = dflt == 0 ? qd_json_u64(r->o, key, r->what, max, &v, r->err)
                      : qd_json_u64_or(r->o, key, r->what, dflt, max, &v, r->err);
    if (r->rc == QD_OK && v == 0)
        r->rc = qd_fail(r->err, QD_E_INPUT, "%s: \"%s\": expected 1 to %" PRIu64 ", found 0", r->what, key, max);
    return r->rc == QD_OK ? v : 1;
}

static uint64_t count_or_0(reader *r, const char *key, uint64_t dflt, uint64_t max)
{
    uint64_t v = dflt;
    if (r->rc == QD_OK) r->rc = qd_json_u64_or(r->o, key, r->what, dflt, max, &v, r->err);
    return v;
}

static bool flag(reader *r, const char *key, bool dflt)
{
    bool v = dflt;
    if (r->rc == QD_OK) r->rc = qd_json_bool_or(r->o, key, r->what, dflt, &v, r->err);
    return v;
}

/* A number in low .. high. */
static double number(reader *r, const json_t *o, const char *what, const char *key, double dflt, double low,
                     double high)
{
    double v = dflt;
    if (r->rc == QD_OK) r->rc = qd_json_num_or(o, key, what, dflt, &v, r->err);
    if (r->rc == QD_OK && !(v >= low && v <= high))
        r->rc = qd_fail(r->err, QD_E_INPUT, "%s: \"%s\": expected %g to %g, found %g", what, key, low, high, v);
    return v;
}

static bool is(const qd_model_config *m, const char *name)
{
    return strcmp(qd_arch_name(m->arch), name) == 0;
}

static bool is_qwen3_5(const qd_model_config *m)
{
    return is(m, "qwen3_5") || is(m, "qwen3_5_moe");
}

static bool is_hybrid(const qd_model_config *m)
{
    return is_qwen3_5(m) || is(m, "qwen3_next");
}

static void read_yarn(reader *r, const json_t *o, const char *what, qd_rope *rope)
{
    double log_factor = 0.1 * log(rope->factor > 1 ? rope->factor : 1);
    double all = number(r, o, what, "mscale_all_dim", 0, 0, 1e6), some = number(r, o, what, "mscale", 0, 0, 1e6);
    double dflt = all != 0 && some != 0 ? (some * log_factor + 1) / (all * log_factor + 1) : log_factor + 1;
    rope->attention_factor = number(r, o, what, "attention_factor", dflt, 0, 1e6);
    rope->beta_fast = number(r, o, what, "beta_fast", 32, 0, 1e9);
    rope->beta_slow = number(r, o, what, "beta_slow", 1, 0, 1e9);
    if (rope->beta_fast == 0) rope->beta_fast = 32;
    if (rope->beta_slow == 0) rope->beta_slow = 1;
    rope->truncate = true;
    if (r->rc == QD_OK) r->rc = qd_json_bool_or(o, "truncate", what, true, &rope->truncate, r->err);
}

/* rope_parameters of transformers 5, or rope_scaling and rope_theta of older files. */
static void read_rope(reader *r, qd_model_config *m)
{
    qd_rope *rope = &m->rope;
    char what[WHAT_BYTES];
    const char *type = NULL, *key = "rope_parameters";
    json_t *o = NULL;
    if (r->rc == QD_OK) r->rc = qd_json_obj_or(r->o, key, r->what, &o, r->err);
    if (o == NULL) {
        key = "rope_scaling";
        if (r->rc == QD_OK) r->rc = qd_json_obj_or(r->o, key, r->what, &o, r->err);
    }
    (void)snprintf(what, sizeof what, "%.400s: %s", r->what, key);
    double theta = number(r, r->o, r->what, "rope_theta", is(m, "mixtral") ? 1e6 : 1e4, 1, 1e15);
    double partial = number(r, r->o, r->what, "partial_rotary_factor", is_hybrid(m) ? 0.25 : 1, 0.001, 1);
    rope->theta = number(r, o, what, "rope_theta", theta, 1, 1e15);
    partial = number(r, o, what, "partial_rotary_factor", partial, 0.001, 1);
    rope->dim = (uint64_t)((double)m->head_dim * partial);
    rope->attention_factor = 1;
    rope->kind = QD_ROPE_DEFAULT;
    if (r->rc == QD_OK && (rope->dim < 2 || rope->dim % 2 != 0))
        r->rc = qd_fail(r->err, QD_E_INPUT, "%s: expected an even number of turned elements a head, found %" PRIu64,
                        what, rope->dim);
    if (r->rc == QD_OK) r->rc = qd_json_str_or(o, "type", what, "default", &type, r->err);
    if (r->rc == QD_OK) r->rc = qd_json_str_or(o, "rope_type", what, type, &type, r->err);
    /* M-RoPE: text has the same position in all three dimensions, which is plain RoPE */
    if (r->rc != QD_OK || strcmp(type, "default") == 0 || strcmp(type, "mrope") == 0) return;
    rope->factor = number(r, o, what, "factor", 1, 1e-3, 1e6);
    if (strcmp(type, "linear") == 0) {
        rope->kind = QD_ROPE_LINEAR;
        return;
    }
    double context = number(r, r->o, r->what, "max_position_embeddings", 2048, 1, 1e15);
    rope->original_max = number(r, o, what, "original_max_position_embeddings", context, 1, 1e15);
    if (strcmp(type, "llama3") == 0) {
        rope->kind = QD_ROPE_LLAMA3;
        rope->low_freq_factor = number(r, o, what, "low_freq_factor", 1, 1e-3, 1e6);
        rope->high_freq_factor = number(r, o, what, "high_freq_factor", 4, 1e-3, 1e6);
        if (r->rc == QD_OK && rope->high_freq_factor <= rope->low_freq_factor)
            r->rc = qd_fail(r->err, QD_E_INPUT, "%s: \"high_freq_factor\": expected more than %g, found %g", what,
                            rope->low_freq_factor, rope->high_freq_factor);
    } else if (strcmp(type, "yarn") == 0) {
        rope->kind = QD_ROPE_YARN;
        read_yarn(r, o, what, rope);
    } else {
        r->rc = qd_fail(r->err, QD_E_UNSUPPORTED,
                        "%s: \"rope_type\": expected default, linear, llama3 or yarn, found \"%.60s\"", what, type);
    }
}

static void read_attention(reader *r, qd_model_config *m)
{
    bool kv_given = is_hybrid(m) || is(m, "qwen3_moe") || is(m, "mistral") || is(m, "mixtral");
    m->n_heads = count(r, "num_attention_heads", 0, HEADS_MAX);
    /* a default of transformers that is not the number of heads must be in the file */
    m->n_kv_heads = count(r, "num_key_value_heads", kv_given ? 0 : m->n_heads, HEADS_MAX);
    uint64_t dim = m->hidden / m->n_heads;
    if (is(m, "qwen3")) dim = 128;
    if (is_hybrid(m)) dim = 256;
    m->head_dim = count(r, "head_dim", dim == 0 ? 1 : dim, 4096);
    m->qk_norm = is(m, "qwen3") || is(m, "qwen3_moe") || is_hybrid(m);
    m->attention_gate = is_hybrid(m);
    m->norm_plus_one = is_hybrid(m);
    if (r->rc == QD_OK && m->n_heads % m->n_kv_heads != 0)
        r->rc = qd_fail(r->err, QD_E_INPUT,
                        "%s: expected num_attention_heads a multiple of num_key_value_heads, found %" PRIu64
                        " and %" PRIu64,
                        r->what, m->n_heads, m->n_kv_heads);
    if (is(m, "mistral")) m->window = json_object_get(r->o, "sliding_window") == NULL ? 4096 : 0;
    if (is(m, "mistral") || is(m, "mixtral")) m->window = count_or_0(r, "sliding_window", m->window, CONTEXT_MAX);
    if (is(m, "mistral") && json_is_null(json_object_get(r->o, "sliding_window"))) m->window = 0;
    if (strncmp(qd_arch_name(m->arch), "qwen", 4) == 0 && flag(r, "use_sliding_window", false))
        m->window = count_or_0(r, "sliding_window", 4096, CONTEXT_MAX);
}

static void read_experts(reader *r, qd_model_config *m)
{
    bool mixtral = is(m, "mixtral");
    if (!mixtral && strstr(qd_arch_name(m->arch), "_moe") == NULL && !is(m, "qwen3_next")) return;
    const char *key = json_object_get(r->o, "num_experts") == NULL ? "num_local_experts" : "num_experts";
    m->n_experts = count(r, mixtral ? "num_local_experts" : key, 0, EXPERTS_MAX);
    m->top_k = count(r, "num_experts_per_tok", 0, EXPERTS_MAX);
    m->expert_intermediate = count(r, mixtral ? "intermediate_size" : "moe_intermediate_size", 0, WIDTH_MAX);
    if (is(m, "qwen3_next") || is(m, "qwen3_5_moe"))
        m->shared_intermediate = count(r, "shared_expert_intermediate_size", 0, WIDTH_MAX);
    m->normalize_top_k = true;
    if (is(m, "qwen3_moe") || is(m, "qwen3_next")) m->normalize_top_k = flag(r, "norm_topk_prob", is(m, "qwen3_next"));
    m->f32_router_weights = mixtral;
    if (r->rc == QD_OK && m->top_k > m->n_experts)
        r->rc = qd_fail(r->err, QD_E_INPUT,
                        "%s: \"num_experts_per_tok\": expected at most the %" PRIu64 " experts, found %" PRIu64,
                        r->what, m->n_experts, m->top_k);
}

static void read_delta(reader *r, qd_model_config *m)
{
    if (!is_hybrid(m)) return;
    m->k_heads = count(r, "linear_num_key_heads", 16, HEADS_MAX);
    m->v_heads = count(r, "linear_num_value_heads", 32, HEADS_MAX);
    m->k_dim = count(r, "linear_key_head_dim", 128, 4096);
    m->v_dim = count(r, "linear_value_head_dim", 128, 4096);
    m->conv_taps = count(r, "linear_conv_kernel_dim", 4, TAPS_MAX);
    m->interleaved_qkvz = is(m, "qwen3_next");
    if (r->rc == QD_OK && m->v_heads % m->k_heads != 0)
        r->rc = qd_fail(r->err, QD_E_INPUT,
                        "%s: expected linear_num_value_heads a multiple of linear_num_key_heads, found %" PRIu64
                        " and %" PRIu64,
                        r->what, m->v_heads, m->k_heads);
}

/* One entry of layer_types. */
static void read_layer_type(reader *r, const json_t *v, uint64_t i, qd_model_config *m)
{
    const char *s = json_is_string(v) ? json_string_value(v) : qd_json_type(v);
    qd_layer_kind *k = &m->layers[i];
    if (strcmp(s, "sliding_attention") == 0)
        k->sliding = m->window != 0;
    else if (strcmp(s, "linear_attention") == 0 && is_hybrid(m))
        k->linear_attention = true;
    else if (strcmp(s, "full_attention") != 0 && strcmp(s, "attention") != 0)
        r->rc = qd_fail(r->err, QD_E_UNSUPPORTED,
                        "%s: \"layer_types\"[%" PRIu64 "]: expected a kind of attention that %s has, found \"%.60s\"",
                        r->what, i, qd_arch_name(m->arch), s);
}

static void read_layer_types(reader *r, qd_model_config *m)
{
    json_t *types = NULL;
    bool all = is(m, "mistral") || is(m, "mixtral") || is(m, "qwen3_moe"); /* one window for all layers */
    uint64_t from = count_or_0(r, "max_window_layers", 28, LAYERS_MAX);
    uint64_t interval = count(r, "full_attention_interval", 4, LAYERS_MAX);
    if (r->rc == QD_OK && !all) r->rc = qd_json_arr_or(r->o, "layer_types", r->what, &types, r->err);
    if (r->rc == QD_OK && types != NULL && json_array_size(types) != m->n_layers)
        r->rc = qd_fail(r->err, QD_E_INPUT, "%s: \"layer_types\": expected %" PRIu64 " entries, found %zu", r->what,
                        m->n_layers, json_array_size(types));
    for (uint64_t i = 0; r->rc == QD_OK && i < m->n_layers; i++) {
        if (types != NULL) {
            read_layer_type(r, json_array_get(types, i), i, m);
        } else if (is_hybrid(m)) {
            m->layers[i].linear_attention = (i + 1) % interval != 0;
        } else {
            m->layers[i].sliding = m->window != 0 && (all || i >= from);
        }
    }
}

static void read_moe_layers(reader *r, qd_model_config *m)
{
    json_t *dense = NULL;
    uint64_t step = 1;
    if (m->n_experts == 0) return;
    if (is(m, "qwen3_moe") || is(m, "qwen3_next")) {
        step = count(r, "decoder_sparse_step", 1, LAYERS_MAX);
        if (r->rc == QD_OK) r->rc = qd_json_arr_or(r->o, "mlp_only_layers", r->what, &dense, r->err);
    }
    for (uint64_t i = 0; r->rc == QD_OK && i < m->n_layers; i++) m->layers[i].moe = (i + 1) % step == 0;
    for (size_t j = 0; r->rc == QD_OK && dense != NULL && j < json_array_size(dense); j++) {
        const json_t *v = json_array_get(dense, j);
        if (!json_is_integer(v))
            r->rc = qd_fail(r->err, QD_E_INPUT, "%s: \"mlp_only_layers\"[%zu]: expected a whole number, found %s",
                            r->what, j, qd_json_type(v));
        else if (json_integer_value(v) >= 0 && (uint64_t)json_integer_value(v) < m->n_layers)
            m->layers[json_integer_value(v)].moe = false;
    }
}

static void read_activation(reader *r)
{
    const char *act = NULL;
    if (r->rc == QD_OK) r->rc = qd_json_str_or(r->o, "hidden_act", r->what, "silu", &act, r->err);
    if (r->rc == QD_OK && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        r->rc =
            qd_fail(r->err, QD_E_UNSUPPORTED, "%s: \"hidden_act\": expected \"silu\", found \"%.60s\"", r->what, act);
}

qd_code qd_model_config_read(const qd_config *c, const char *what, qd_arena *arena, qd_model_config *ret, qd_err *err)
{
    char text_what[WHAT_BYTES];
    qd_model_config m = {.arch = qd_arch_find(c), .tied = c->tied_embeddings};
    json_t *text = NULL;
    if (m.arch == NULL)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: there is no forward pass for model_type \"%.60s\"", what,
                       c->text_model_type);
    qd_code rc = qd_json_obj_or(c->root, "text_config", what, &text, err);
    if (rc != QD_OK) return rc;
    (void)snprintf(text_what, sizeof text_what, "%.480s%s", what, text != NULL ? ": text_config" : "");
    reader r = {.o = text != NULL ? text : c->root, .what = text_what, .err = err};
    m.n_layers = count(&r, "num_hidden_layers", 0, LAYERS_MAX);
    m.hidden = count(&r, "hidden_size", 0, WIDTH_MAX);
    m.vocab = count(&r, "vocab_size", 0, VOCAB_MAX);
    m.intermediate = count_or_0(&r, "intermediate_size", 0, WIDTH_MAX);
    m.eps = (float)number(&r, r.o, r.what, "rms_norm_eps", is(&m, "mixtral") ? 1e-5 : 1e-6, 0, 1);
    read_activation(&r);
    read_attention(&r, &m);
    read_rope(&r, &m);
    read_experts(&r, &m);
    read_delta(&r, &m);
    if (r.rc != QD_OK) return r.rc;
    m.layers = qd_arena_alloc(arena, m.n_layers, sizeof *m.layers);
    if (m.layers == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
    read_layer_types(&r, &m);
    read_moe_layers(&r, &m);
    for (uint64_t i = 0; r.rc == QD_OK && i < m.n_layers; i++)
        if (!m.layers[i].moe && m.intermediate == 0)
            r.rc = qd_fail(err, QD_E_INPUT, "%s: \"intermediate_size\" is missing (expected 1 to %" PRIu64 ")", r.what,
                           WIDTH_MAX);
    if (r.rc == QD_OK) *ret = m;
    return r.rc;
}
