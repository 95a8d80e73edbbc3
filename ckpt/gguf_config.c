/* gguf_config.c -- config.json and generation_config.json, with the keys that transformers writes. */
#include "ckpt/gguf_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shortest decimal that reads back as v, always with a point or an exponent. */
static void add_double(qd_buf *b, double v)
{
    char text[40];
    if (fabs(v) < 1e15 && v == floor(v)) {
        qd_buf_printf(b, "%.1f", v);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    qd_buf_str(b, text); /* neither an integer nor small: has one of the two */
}

static void add_size(qd_buf *b, const char *key, uint64_t v)
{
    qd_buf_printf(b, ",\n  \"%s\": %" PRIu64, key, v);
}

static void add_id(qd_buf *b, const char *key, int64_t id)
{
    if (id == QD_GGUF_NO_ID)
        qd_buf_printf(b, ",\n  \"%s\": null", key);
    else
        qd_buf_printf(b, ",\n  \"%s\": %" PRId64, key, id);
}

static void add_number(qd_buf *b, const char *key, double v)
{
    qd_buf_printf(b, ",\n  \"%s\": ", key);
    add_double(b, v);
}

/* rope_parameters is the form of transformers 5; rope_theta and rope_scaling are the one that all else reads. */
static void add_rope(qd_buf *b, const qd_gguf_rope *r)
{
    qd_buf scaling = {0};
    qd_buf_printf(&scaling, "    \"rope_type\": \"%s\"", r->type);
    if (strcmp(r->type, "default") != 0) {
        qd_buf_str(&scaling, ",\n    \"factor\": ");
        add_double(&scaling, r->factor);
    }
    if (r->original_context != 0)
        qd_buf_printf(&scaling, ",\n    \"original_max_position_embeddings\": %" PRIu64, r->original_context);
    if (strcmp(r->type, "llama3") == 0) {
        qd_buf_str(&scaling, ",\n    \"low_freq_factor\": ");
        add_double(&scaling, r->low_freq_factor);
        qd_buf_str(&scaling, ",\n    \"high_freq_factor\": ");
        add_double(&scaling, r->high_freq_factor);
    }
    if (scaling.failed) {
        b->failed = true;
    } else {
        qd_buf_printf(b, ",\n  \"rope_parameters\": {\n    \"rope_theta\": ");
        add_double(b, r->theta);
        qd_buf_printf(b, ",\n%s\n  }", scaling.data);
        if (strcmp(r->type, "default") != 0) qd_buf_printf(b, ",\n  \"rope_scaling\": {\n%s\n  }", scaling.data);
    }
    add_number(b, "rope_theta", r->theta);
    qd_buf_done(&scaling);
}

void qd_gguf_config_json(const qd_gguf_model *m, qd_buf *out)
{
    const qd_gguf_family f = m->arch->family;
    qd_buf_printf(out, "{\n  \"architectures\": [\n    \"%s\"\n  ],\n  \"model_type\": \"%s\"", m->arch->class_name,
                  m->arch->model_type);
    if (f == QD_GGUF_LLAMA || f == QD_GGUF_QWEN3 || f == QD_GGUF_QWEN3_MOE) /* the others have no such choice */
        qd_buf_str(out, ",\n  \"attention_bias\": false");
    qd_buf_str(out, ",\n  \"attention_dropout\": 0.0");
    add_id(out, "bos_token_id", m->bos);
    qd_buf_str(out, ",\n  \"dtype\": \"bfloat16\"");
    add_id(out, "eos_token_id", m->eos);
    if ((f != QD_GGUF_QWEN2 && f != QD_GGUF_QWEN2_MOE) || m->head_dim != m->hidden / m->n_heads)
        add_size(out, "head_dim", m->head_dim);
    qd_buf_str(out, ",\n  \"hidden_act\": \"silu\"");
    add_size(out, "hidden_size", m->hidden);
    qd_buf_str(out, ",\n  \"initializer_range\": 0.02");
    add_size(out, "intermediate_size", m->ffn);
    add_size(out, "max_position_embeddings", m->context);
    if (f == QD_GGUF_MIXTRAL) add_size(out, "num_local_experts", m->n_experts);
    if (f == QD_GGUF_QWEN2_MOE || f == QD_GGUF_QWEN3_MOE) {
        add_size(out, "num_experts", m->n_experts);
        add_size(out, "moe_intermediate_size", m->expert_ffn);
    }
    if (f == QD_GGUF_QWEN2_MOE) add_size(out, "shared_expert_intermediate_size", m->shared_ffn);
    if (m->n_experts != 0) add_size(out, "num_experts_per_tok", m->n_experts_used);
    add_size(out, "num_attention_heads", m->n_heads);
    add_size(out, "num_hidden_layers", m->n_layers);
    add_size(out, "num_key_value_heads", m->n_kv_heads);
    add_id(out, "pad_token_id", m->pad);
    add_number(out, "rms_norm_eps", m->rms_eps);
    add_rope(out, &m->rope);
    qd_buf_printf(out, ",\n  \"tie_word_embeddings\": %s,\n  \"use_cache\": true", m->tied ? "true" : "false");
    add_size(out, "vocab_size", m->vocab);
    qd_buf_printf(out, ",\n  %s\n}\n", m->arch->config);
}

void qd_gguf_generation_json(const qd_gguf_model *m, qd_buf *out)
{
    qd_buf_str(out, "{\n  \"use_cache\": true");
    if (m->bos != QD_GGUF_NO_ID) add_id(out, "bos_token_id", m->bos);
    if (m->eos != QD_GGUF_NO_ID && m->eot != QD_GGUF_NO_ID && m->eot != m->eos) /* either ends an answer */
        qd_buf_printf(out, ",\n  \"eos_token_id\": [\n    %" PRId64 ",\n    %" PRId64 "\n  ]", m->eos, m->eot);
    else if (m->eos != QD_GGUF_NO_ID)
        add_id(out, "eos_token_id", m->eos);
    if (m->pad != QD_GGUF_NO_ID) add_id(out, "pad_token_id", m->pad);
    qd_buf_str(out, "\n}\n");
}
