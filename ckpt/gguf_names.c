/* gguf_names.c -- the tables: architectures, and what each of llama.cpp's tensor names is called in transformers. */
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/gguf_parts.h"

#include <inttypes.h>
#include <string.h>

/* A further architecture is a bit in gguf_parts.h, a line here, and its bit in the lines below. */
static const qd_gguf_arch k_archs[] = {
    {QD_GGUF_LLAMA, "llama", false, "llama", "LlamaForCausalLM", "\"mlp_bias\": false,\n  \"pretraining_tp\": 1"},
    {QD_GGUF_MIXTRAL, "llama", true, "mixtral", "MixtralForCausalLM",
     "\"output_router_logits\": false,\n  \"sliding_window\": null"},
    {QD_GGUF_QWEN2, "qwen2", false, "qwen2", "Qwen2ForCausalLM",
     "\"sliding_window\": null,\n  \"use_sliding_window\": false"},
    {QD_GGUF_QWEN2_MOE, "qwen2moe", true, "qwen2_moe", "Qwen2MoeForCausalLM",
     "\"decoder_sparse_step\": 1,\n  \"mlp_only_layers\": [],\n  \"norm_topk_prob\": false,\n"
     "  \"sliding_window\": null,\n  \"use_sliding_window\": false"},
    {QD_GGUF_QWEN3, "qwen3", false, "qwen3", "Qwen3ForCausalLM",
     "\"sliding_window\": null,\n  \"use_sliding_window\": false"},
    {QD_GGUF_QWEN3_MOE, "qwen3moe", true, "qwen3_moe", "Qwen3MoeForCausalLM",
     "\"decoder_sparse_step\": 1,\n  \"mlp_only_layers\": [],\n  \"norm_topk_prob\": true,\n"
     "  \"sliding_window\": null,\n  \"use_sliding_window\": false"},
};

enum {
    ALL = 63,
    LLAMAS = QD_GGUF_LLAMA | QD_GGUF_MIXTRAL,
    DENSE = QD_GGUF_LLAMA | QD_GGUF_QWEN2 | QD_GGUF_QWEN3,
    QWEN_MOE = QD_GGUF_QWEN2_MOE | QD_GGUF_QWEN3_MOE,
    WITH_BIAS = QD_GGUF_QWEN2 | QD_GGUF_QWEN2_MOE,
    WITH_NORMS = QD_GGUF_QWEN3 | QD_GGUF_QWEN3_MOE
};

typedef enum form {
    PLAIN,
    Q_ROWS,  /* rows of query heads, interleaved in LLAMAS */
    K_ROWS,  /* of key heads */
    EXPERTS, /* [experts][rows][cols]; '%' in the name is the expert */
    ONE_ROW  /* a vector here, a matrix of one row there */
} form;

typedef struct name_row {
    const char *from, *to;   /* without "blk.N." and "model.layers.N.", and without suffix; to NULL: left out */
    unsigned families, bias; /* which have it, and which have a bias too: where they have one, it must be there */
    bool in_layer, optional;
    form form;
} name_row;

static const name_row k_names[] = {
    {"token_embd", "model.embed_tokens", ALL, 0, false, false, PLAIN},
    {"output_norm", "model.norm", ALL, 0, false, false, PLAIN},
    {"output", "lm_head", ALL, 0, false, true, PLAIN},
    {"rope_freqs", NULL, LLAMAS, 0, false, true, PLAIN}, /* read by gguf_model.c */
    {"attn_rot_embd", NULL, LLAMAS, 0, true, true, PLAIN},
    {"attn_norm", "input_layernorm", ALL, 0, true, false, PLAIN},
    {"attn_q", "self_attn.q_proj", ALL, WITH_BIAS, true, false, Q_ROWS},
    {"attn_k", "self_attn.k_proj", ALL, WITH_BIAS, true, false, K_ROWS},
    {"attn_v", "self_attn.v_proj", ALL, WITH_BIAS, true, false, PLAIN},
    {"attn_output", "self_attn.o_proj", ALL, 0, true, false, PLAIN},
    {"attn_q_norm", "self_attn.q_norm", WITH_NORMS, 0, true, false, PLAIN},
    {"attn_k_norm", "self_attn.k_norm", WITH_NORMS, 0, true, false, PLAIN},
    {"ffn_norm", "post_attention_layernorm", ALL, 0, true, false, PLAIN},
    {"ffn_gate", "mlp.gate_proj", DENSE, 0, true, false, PLAIN},
    {"ffn_up", "mlp.up_proj", DENSE, 0, true, false, PLAIN},
    {"ffn_down", "mlp.down_proj", DENSE, 0, true, false, PLAIN},
    {"ffn_gate_inp", "mlp.gate", QWEN_MOE, 0, true, false, PLAIN},
    {"ffn_gate_exps", "mlp.experts.%.gate_proj", QWEN_MOE, 0, true, false, EXPERTS},
    {"ffn_up_exps", "mlp.experts.%.up_proj", QWEN_MOE, 0, true, false, EXPERTS},
    {"ffn_down_exps", "mlp.experts.%.down_proj", QWEN_MOE, 0, true, false, EXPERTS},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj", QD_GGUF_QWEN2_MOE, 0, true, false, PLAIN},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj", QD_GGUF_QWEN2_MOE, 0, true, false, PLAIN},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj", QD_GGUF_QWEN2_MOE, 0, true, false, PLAIN},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate", QD_GGUF_QWEN2_MOE, 0, true, false, ONE_ROW},
    {"ffn_gate_inp", "block_sparse_moe.gate", QD_GGUF_MIXTRAL, 0, true, false, PLAIN},
    {"ffn_gate_exps", "block_sparse_moe.experts.%.w1", QD_GGUF_MIXTRAL, 0, true, false, EXPERTS},
    {"ffn_down_exps", "block_sparse_moe.experts.%.w2", QD_GGUF_MIXTRAL, 0, true, false, EXPERTS},
    {"ffn_up_exps", "block_sparse_moe.experts.%.w3", QD_GGUF_MIXTRAL, 0, true, false, EXPERTS},
};
enum {
    N_NAMES = sizeof k_names / sizeof k_names[0]
};

const qd_gguf_arch *qd_gguf_arch_find(const char *name, bool experts)
{
    for (size_t i = 0; i < sizeof k_archs / sizeof k_archs[0]; i++)
        if (strcmp(k_archs[i].name, name) == 0 && k_archs[i].experts == experts) return &k_archs[i];
    return NULL;
}

void qd_gguf_arch_list(qd_buf *out)
{
    for (size_t i = 0; i < sizeof k_archs / sizeof k_archs[0]; i++)
        if (i == 0 || strcmp(k_archs[i - 1].name, k_archs[i].name) != 0)
            qd_buf_printf(out, "%s%s", i > 0 ? ", " : "", k_archs[i].name);
}

typedef struct mapper {
    const qd_gguf *g;
    qd_gguf_model *m;
    uint8_t *seen; /* [n_layers + 1][N_NAMES] bit 0: weight, bit 1: bias; the last line is outside the layers */
    uint32_t cap;
} mapper;

/* "blk.12.attn_q.weight" is layer 12, "attn_q", not a bias. False when the name has another form. */
static bool split_name(const char *name, uint64_t *ret_layer, const char **ret_stem, size_t *ret_len, bool *ret_bias)
{
    *ret_layer = UINT64_MAX;
    *ret_bias = qd_str_ends(name, ".bias");
    if (!*ret_bias && !qd_str_ends(name, ".weight")) return false;
    size_t len = strlen(name) - strlen(*ret_bias ? ".bias" : ".weight");
    const char *stem = name;
    if (qd_str_starts(name, "blk.")) {
        uint64_t layer = 0;
        const char *c = name + 4;
        if (*c == '0' && c[1] != '.') return false;
        for (; *c >= '0' && *c <= '9' && layer < UINT32_MAX; c++) layer = layer * 10 + (uint64_t)(*c - '0');
        if (c == name + 4 || *c != '.' || (size_t)(c + 1 - name) >= len) return false;
        *ret_layer = layer;
        stem = c + 1;
    }
    *ret_stem = stem;
    *ret_len = len - (size_t)(stem - name);
    return true;
}

static qd_code add_out(mapper *x, const qd_gguf_out *o, qd_err *err)
{
    qd_gguf_model *m = x->m;
    if (m->n_outs == x->cap) {
        uint32_t cap = x->cap == 0 ? 512 : x->cap * 2;
        qd_gguf_out *outs = cap > QD_GGUF_TENSORS_MAX ? NULL : qd_arena_alloc(&m->arena, cap, sizeof *outs);
        if (outs == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for tensors", x->g->what);
        if (m->n_outs > 0) memcpy(outs, m->outs, m->n_outs * sizeof *outs);
        m->outs = outs;
        x->cap = cap;
    }
    m->outs[m->n_outs++] = *o;
    return QD_OK;
}

/* "model.layers.12.mlp.experts.3.up_proj.weight" */
static const char *out_name(mapper *x, const name_row *row, uint64_t layer, uint64_t expert, bool bias)
{
    const char *suffix = bias ? "bias" : "weight", *at = strchr(row->to, '%');
    if (!row->in_layer) return qd_arena_printf(&x->m->arena, "%s.%s", row->to, suffix);
    if (at == NULL) return qd_arena_printf(&x->m->arena, "model.layers.%" PRIu64 ".%s.%s", layer, row->to, suffix);
    return qd_arena_printf(&x->m->arena, "model.layers.%" PRIu64 ".%.*s%" PRIu64 "%s.%s", layer, (int)(at - row->to),
                           row->to, expert, at + 1, suffix);
}

static qd_code check_heads(const mapper *x, const qd_gguf_tensor *t, uint64_t n_heads, qd_err *err)
{
    if (t->shape[0] % n_heads == 0 && t->shape[0] / n_heads % 2 == 0) return QD_OK;
    return qd_fail(err, QD_E_INPUT,
                   "%s: tensor \"%.160s\": expected an even number of rows for each of %" PRIu64
                   " heads, found %" PRIu64 " rows",
                   x->g->what, t->name, n_heads, t->shape[0]);
}

static qd_code map_experts(mapper *x, const name_row *row, uint32_t src, uint64_t layer, qd_err *err)
{
    const qd_gguf_tensor *t = &x->g->tensors[src];
    qd_code rc = QD_OK;
    if (t->rank != 3 || t->shape[0] != x->m->n_experts)
        return qd_fail(err, QD_E_INPUT,
                       "%s: tensor \"%.160s\": expected 3 dimensions with %" PRIu64 " experts, found %" PRIu32
                       " dimensions with %" PRIu64,
                       x->g->what, t->name, x->m->n_experts, t->rank, t->shape[0]);
    uint64_t each = t->shape[1] * t->shape[2];
    for (uint64_t e = 0; e < t->shape[0] && rc == QD_OK; e++) {
        qd_gguf_out o = {.src = src, .first_elem = e * each};
        o.tensor = (qd_tensor){.dtype = QD_BF16,
                               .rank = 2,
                               .shape = {t->shape[1], t->shape[2]},
                               .n_elems = each,
                               .bytes = each * 2,
                               .name = out_name(x, row, layer, e, false)};
        rc = o.tensor.name == NULL ? qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for names", x->g->what)
                                   : add_out(x, &o, err);
    }
    return rc;
}

static qd_code map_one(mapper *x, const name_row *row, uint32_t src, uint64_t layer, bool bias, qd_err *err)
{
    const qd_gguf_tensor *t = &x->g->tensors[src];
    qd_gguf_out o = {.src = src};
    if (!t->info->imported)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: tensor \"%.160s\": type %s cannot be imported", x->g->what, t->name,
                       t->info->name);
    if (row->form == EXPERTS) return map_experts(x, row, src, layer, err);
    o.tensor = (qd_tensor){.dtype = QD_BF16,
                           .rank = t->rank,
                           .n_elems = t->n_elems,
                           .bytes = t->n_elems * 2,
                           .name = out_name(x, row, layer, 0, bias)};
    memcpy(o.tensor.shape, t->shape, sizeof t->shape);
    if (row->form == ONE_ROW && t->rank == 1) {
        o.tensor.rank = 2;
        o.tensor.shape[0] = 1;
        o.tensor.shape[1] = t->shape[0];
    }
    if ((x->m->arch->family & LLAMAS) != 0 && (row->form == Q_ROWS || row->form == K_ROWS)) {
        o.n_heads = row->form == Q_ROWS ? x->m->n_heads : x->m->n_kv_heads;
        qd_code rc = check_heads(x, t, o.n_heads, err);
        if (rc != QD_OK) return rc;
    }
    if (o.tensor.name == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for names", x->g->what);
    return add_out(x, &o, err);
}

static qd_code map_tensor(mapper *x, uint32_t src, qd_err *err)
{
    const qd_gguf_tensor *t = &x->g->tensors[src];
    const unsigned family = (unsigned)x->m->arch->family;
    uint64_t layer;
    const char *stem;
    size_t len;
    bool bias;
    bool good = split_name(t->name, &layer, &stem, &len, &bias);
    bool in_layer = good && layer != UINT64_MAX;
    if (in_layer && layer >= x->m->n_layers)
        return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected a layer below %" PRIu64 " (%s.block_count)",
                       x->g->what, t->name, x->m->n_layers, x->m->arch->name);
    for (unsigned i = 0; good && i < N_NAMES; i++) {
        const name_row *row = &k_names[i];
        if (row->in_layer != in_layer || strlen(row->from) != len || memcmp(row->from, stem, len) != 0) continue;
        if (((bias ? row->bias : row->families) & family) == 0) continue;
        x->seen[(in_layer ? layer : x->m->n_layers) * N_NAMES + i] |= bias ? 2 : 1;
        return row->to == NULL ? QD_OK : map_one(x, row, src, layer, bias, err);
    }
    return qd_fail(err, QD_E_UNSUPPORTED, "%s: tensor \"%.160s\": not known in a model of architecture %s", x->g->what,
                   t->name, x->m->arch->name);
}

static qd_code check_seen(const mapper *x, qd_err *err)
{
    const unsigned family = (unsigned)x->m->arch->family;
    for (uint64_t line = 0; line <= x->m->n_layers; line++)
        for (unsigned i = 0; i < N_NAMES; i++) {
            const name_row *row = &k_names[i];
            unsigned want = (row->families & family) != 0 && !row->optional ? 1u : 0u;
            want |= (row->bias & family) != 0 ? 2u : 0u;
            unsigned missing =
                row->in_layer == (line < x->m->n_layers) ? want & ~(unsigned)x->seen[line * N_NAMES + i] : 0;
            const char *suffix = (missing & 1) != 0 ? "weight" : "bias";
            if (missing != 0 && row->in_layer)
                return qd_fail(err, QD_E_INPUT, "%s: tensor \"blk.%" PRIu64 ".%s.%s\" is missing", x->g->what, line,
                               row->from, suffix);
            if (missing != 0)
                return qd_fail(err, QD_E_INPUT, "%s: tensor \"%s.%s\" is missing", x->g->what, row->from, suffix);
        }
    return QD_OK;
}

qd_code qd_gguf_map_names(const qd_gguf *g, qd_gguf_model *m, qd_err *err)
{
    qd_code rc = QD_OK;
    mapper x = {.g = g, .m = m, .seen = qd_calloc((size_t)m->n_layers + 1, N_NAMES)};
    if (x.seen == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for tensor names", g->what);
    for (uint32_t i = 0; i < g->n_tensors; i++) QD_TRY(map_tensor(&x, i, err));
    QD_TRY(check_seen(&x, err));
    m->tied = true;
    for (uint32_t i = 0; i < m->n_outs; i++)
        if (strcmp(m->outs[i].tensor.name, "lm_head.weight") == 0) m->tied = false;
out:
    qd_free(x.seen);
    return rc;
}
