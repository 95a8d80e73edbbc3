/* gguf_model.c -- the sizes of a model from a GGUF file's metadata. */
#include "ckpt/gguf_model.h"

#include "base/mem.h"
#include "ckpt/gguf_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define LAYERS_MAX  65536u
#define EXPERTS_MAX 4096u
#define SIZE_MAX_1  (UINT64_C(1) << 31) /* of one dimension */

typedef struct keys {
    const qd_gguf *g;
    const char *arch;
    char name[256];
} keys;

/* "llama.block_count" */
static const char *key(keys *k, const char *what)
{
    (void)snprintf(k->name, sizeof k->name, "%.100s.%s", k->arch, what);
    return k->name;
}

/* A required size of at least 1. */
static qd_code size_of(keys *k, const char *what, uint64_t max, uint64_t *ret, qd_err *err)
{
    qd_code rc = qd_gguf_u64(k->g, key(k, what), max, ret, err);
    if (rc == QD_OK && *ret == 0)
        rc = qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected at least 1, found 0", k->g->what, key(k, what));
    return rc;
}

static qd_code read_sizes(keys *k, qd_gguf_model *m, qd_err *err)
{
    qd_code rc = QD_OK;
    QD_TRY(size_of(k, "block_count", LAYERS_MAX, &m->n_layers, err));
    QD_TRY(size_of(k, "context_length", SIZE_MAX_1, &m->context, err));
    QD_TRY(size_of(k, "embedding_length", SIZE_MAX_1, &m->hidden, err));
    QD_TRY(size_of(k, "feed_forward_length", SIZE_MAX_1, &m->ffn, err));
    QD_TRY(size_of(k, "attention.head_count", SIZE_MAX_1, &m->n_heads, err));
    QD_TRY(qd_gguf_u64_or(k->g, key(k, "attention.head_count_kv"), m->n_heads, SIZE_MAX_1, &m->n_kv_heads, err));
    QD_TRY(qd_gguf_u64_or(k->g, key(k, "rope.dimension_count"), m->hidden / m->n_heads, SIZE_MAX_1, &m->head_dim, err));
    QD_TRY(qd_gguf_u64_or(k->g, key(k, "attention.key_length"), m->head_dim, SIZE_MAX_1, &m->head_dim, err));
    QD_TRY(qd_gguf_f64(k->g, key(k, "attention.layer_norm_rms_epsilon"), &m->rms_eps, err));
    if (m->n_kv_heads == 0 || m->n_kv_heads > m->n_heads || m->head_dim == 0) {
        rc = qd_fail(err, QD_E_INPUT,
                     "%s: %" PRIu64 " heads with %" PRIu64 " key-value heads of %" PRIu64
                     " elements: expected at least one, and no more key-value heads than heads",
                     k->g->what, m->n_heads, m->n_kv_heads, m->head_dim);
        goto out;
    }
    if (m->n_experts == 0) goto out;
    QD_TRY(size_of(k, "expert_used_count", m->n_experts, &m->n_experts_used, err));
    QD_TRY(qd_gguf_u64_or(k->g, key(k, "expert_feed_forward_length"), m->ffn, SIZE_MAX_1, &m->expert_ffn, err));
    QD_TRY(qd_gguf_u64_or(k->g, key(k, "expert_shared_feed_forward_length"), m->ffn, SIZE_MAX_1, &m->shared_ffn, err));
out:
    return rc;
}

static qd_code read_rope(keys *k, qd_gguf_rope *r, qd_err *err)
{
    qd_code rc = QD_OK;
    const char *type;
    *r = (qd_gguf_rope){.type = "default"};
    QD_TRY(qd_gguf_f64_or(k->g, key(k, "rope.freq_base"), 10000.0, &r->theta, err));
    QD_TRY(qd_gguf_str_or(k->g, key(k, "rope.scaling.type"), "none", &type, err));
    if (strcmp(type, "none") == 0) goto out;
    if (strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0) {
        rc = qd_fail(err, QD_E_UNSUPPORTED, "%s: \"%s\": expected none, linear or yarn, found \"%.100s\"", k->g->what,
                     key(k, "rope.scaling.type"), type);
        goto out;
    }
    r->type = strcmp(type, "yarn") == 0 ? "yarn" : "linear";
    QD_TRY(qd_gguf_f64(k->g, key(k, "rope.scaling.factor"), &r->factor, err));
    QD_TRY(
        qd_gguf_u64_or(k->g, key(k, "rope.scaling.original_context_length"), 0, SIZE_MAX_1, &r->original_context, err));
out:
    return rc;
}

/* Llama 3's factor of frequency i of n: wavelengths below original / high stay, those above original / low are
 * stretched by factor, the ones between go over smoothly. Source: transformers, modeling_rope_utils (llama3). */
static double llama3_factor(const qd_gguf_rope *r, double original, uint64_t i, uint64_t n)
{
    double wavelength = 2 * 3.14159265358979323846 * pow(r->theta, (double)i / (double)n);
    if (wavelength < original / r->high_freq_factor) return 1;
    if (wavelength > original / r->low_freq_factor) return r->factor;
    double smooth = (original / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return 1 / ((1 - smooth) / r->factor + smooth);
}

/* llama.cpp stores llama 3's scaling as its result, the factors. The parameters are found again: factor is the last
 * one, 1 and 4 are what all such models have, the original context is the power of two that gives all the factors. */
static qd_code read_rope_factors(const qd_gguf *g, qd_source *s, qd_gguf_model *m, qd_err *err)
{
    enum {
        FACTORS_MAX = 4096
    };
    const qd_gguf_tensor *t = NULL;
    qd_gguf_rope r = m->rope;
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensors[i].name, QD_GGUF_ROPE_FACTORS) == 0) t = &g->tensors[i];
    if (t == NULL) return QD_OK;
    if (t->info->type != QD_GGML_F32 || t->rank != 1 || t->n_elems > FACTORS_MAX || t->n_elems != m->head_dim / 2)
        return qd_fail(err, QD_E_INPUT, "%s: tensor \"%s\": expected %" PRIu64 " F32 values", g->what, t->name,
                       m->head_dim / 2);
    float *f = qd_malloc((size_t)t->bytes);
    if (f == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", g->what);
    qd_code rc = qd_source_read(s, t->off, f, (size_t)t->bytes, err);
    bool found = false;
    r.type = "llama3";
    r.factor = rc == QD_OK ? (double)f[t->n_elems - 1] : 0;
    r.low_freq_factor = 1;
    r.high_freq_factor = 4;
    for (uint64_t original = 64; rc == QD_OK && !found && original <= (uint64_t)1 << 20; original *= 2) {
        found = true;
        for (uint64_t i = 0; i < t->n_elems && found; i++) {
            double want = llama3_factor(&r, (double)original, i, t->n_elems);
            found = fabs((double)f[i] - want) <= 1e-3 * want;
        }
        if (found) r.original_context = original;
    }
    if (rc == QD_OK && !found)
        rc = qd_fail(err, QD_E_UNSUPPORTED, "%s: tensor \"%s\": its factors are not those of llama3's rope scaling",
                     g->what, t->name);
    if (rc == QD_OK) m->rope = r;
    qd_free(f);
    return rc;
}

static qd_code read_id(const qd_gguf *g, const char *name, uint64_t vocab, int64_t *ret, qd_err *err)
{
    uint64_t v;
    qd_code rc = qd_gguf_u64_or(g, name, UINT64_MAX, vocab - 1, &v, err);
    *ret = rc == QD_OK && v != UINT64_MAX ? (int64_t)v : QD_GGUF_NO_ID;
    return rc;
}

static qd_code read_ids(const qd_gguf *g, qd_gguf_model *m, qd_err *err)
{
    qd_code rc = QD_OK;
    QD_TRY(read_id(g, "tokenizer.ggml.bos_token_id", m->vocab, &m->bos, err));
    QD_TRY(read_id(g, "tokenizer.ggml.eos_token_id", m->vocab, &m->eos, err));
    QD_TRY(read_id(g, "tokenizer.ggml.eot_token_id", m->vocab, &m->eot, err));
    QD_TRY(read_id(g, "tokenizer.ggml.padding_token_id", m->vocab, &m->pad, err));
    QD_TRY(read_id(g, "tokenizer.ggml.unknown_token_id", m->vocab, &m->unk, err));
out:
    return rc;
}

static qd_code read_arch(keys *k, qd_gguf_model *m, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_buf list = {0};
    uint64_t n_files;
    QD_TRY(qd_gguf_u64_or(k->g, "split.count", 1, UINT32_MAX, &n_files, err));
    if (n_files > 1) {
        rc = qd_fail(err, QD_E_UNSUPPORTED,
                     "%s: expected the model in one file, found one of %" PRIu64 "; llama.cpp's gguf-split merges them",
                     k->g->what, n_files);
        goto out;
    }
    QD_TRY(qd_gguf_str(k->g, "general.architecture", &k->arch, err));
    QD_TRY(qd_gguf_u64_or(k->g, key(k, "expert_count"), 0, EXPERTS_MAX, &m->n_experts, err));
    m->arch = qd_gguf_arch_find(k->arch, m->n_experts != 0);
    if (m->arch == NULL) {
        qd_gguf_arch_list(&list);
        QD_TRY(qd_buf_check(&list, err));
        rc = qd_fail(err, QD_E_UNSUPPORTED,
                     "%s: architecture \"%.100s\" (%" PRIu64 " experts) cannot be imported; those that can: %s",
                     k->g->what, k->arch, m->n_experts, list.data);
    }
out:
    qd_buf_done(&list);
    return rc;
}

qd_code qd_gguf_model_read(const qd_gguf *g, qd_source *s, qd_gguf_model *ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_gguf_model m = {0};
    keys k = {.g = g};
    QD_TRY(read_arch(&k, &m, err));
    QD_TRY(read_sizes(&k, &m, err));
    QD_TRY(read_rope(&k, &m.rope, err));
    QD_TRY(qd_gguf_map_names(g, &m, err));
    for (uint32_t i = 0; i < m.n_outs; i++) {
        const qd_tensor *t = &m.outs[i].tensor;
        if (strcmp(t->name, "model.embed_tokens.weight") != 0) continue;
        if (t->rank != 2 || t->shape[1] != m.hidden) {
            rc = qd_fail(err, QD_E_INPUT, "%s: tensor \"token_embd.weight\": expected rows of %" PRIu64 " elements",
                         g->what, m.hidden);
            goto out;
        }
        m.vocab = t->shape[0];
    }
    QD_TRY(read_ids(g, &m, err));
    QD_TRY(read_rope_factors(g, s, &m, err));
    *ret = m;
    memset(&m, 0, sizeof m); /* ownership moved */
out:
    qd_gguf_model_done(&m);
    return rc;
}

void qd_gguf_model_done(qd_gguf_model *m)
{
    if (m == NULL) return;
    qd_arena_done(&m->arena);
    memset(m, 0, sizeof *m);
}

const char *qd_gguf_model_type(const qd_gguf_model *m)
{
    return m->arch->model_type;
}
