/* gguf_model.h -- a GGUF file seen as a Hugging Face checkpoint: its tensors' names and order, config.json, tokenizer.
 *
 * Architectures and tensor names are tables (gguf_names.c); llama.cpp's converter and the classes of transformers are
 * what they come from. */
#ifndef QD_CKPT_GGUF_MODEL_H
#define QD_CKPT_GGUF_MODEL_H

#include "base/buf.h"
#include "ckpt/gguf.h"
#include "ckpt/safetensors.h"

/* A BF16 tensor of the output. */
typedef struct qd_gguf_out {
    qd_tensor tensor;    /* off and file are the caller's to set */
    uint32_t src;        /* index into qd_gguf.tensors */
    uint64_t first_elem; /* of the source: an expert's slab of a tensor that holds all of them */
    /* Not 0: the source has the rows of each head interleaved. Row i of a head of n rows goes to
     * i / 2 + (i % 2) * n / 2. */
    uint64_t n_heads;
} qd_gguf_out;

typedef struct qd_gguf_rope {
    double theta;
    const char *type; /* "default", "linear", "yarn", "llama3" */
    double factor, low_freq_factor, high_freq_factor;
    uint64_t original_context; /* 0: not said */
} qd_gguf_rope;

enum {
    QD_GGUF_NO_ID = -1
};

typedef struct qd_gguf_model {
    const struct qd_gguf_arch *arch; /* row of the table in gguf_names.c */
    qd_gguf_out *outs;               /* in the order of the file */
    uint32_t n_outs;
    bool tied; /* no output matrix: the embedding is used */
    uint64_t hidden, ffn, n_layers, n_heads, n_kv_heads, head_dim, vocab, context;
    uint64_t n_experts, n_experts_used, expert_ffn, shared_ffn; /* 0 for dense models */
    double rms_eps;
    qd_gguf_rope rope;
    int64_t bos, eos, eot, pad, unk; /* token ids; QD_GGUF_NO_ID when not said */
    qd_arena arena;                  /* the above */
} qd_gguf_model;

/* s: the source that g was read from. *ret zeroed before, qd_gguf_model_done() after; g must outlive it.
 * Errors: QD_E_UNSUPPORTED (architecture, tensor type, rope scaling), QD_E_INPUT (missing or wrong keys, tensors that
 * are missing, of the wrong shape, or not of the architecture), all naming what was found. */
QD_MUST_CHECK qd_code qd_gguf_model_read(const qd_gguf *g, qd_source *s, qd_gguf_model *ret, qd_err *err);
void qd_gguf_model_done(qd_gguf_model *m);
const char *qd_gguf_model_type(const qd_gguf_model *m); /* config.json's: "llama" */

/* Append one JSON file each to out; ask out->failed once at the end. */
void qd_gguf_config_json(const qd_gguf_model *m, qd_buf *out);
void qd_gguf_generation_json(const qd_gguf_model *m, qd_buf *out);

/* tokenizer.json: byte-level BPE for vocabularies of kind "gpt2", BPE with byte fallback for kind "llama"
 * (SentencePiece). Errors: QD_E_UNSUPPORTED (another kind, a pre-tokenizer without a row in the table), QD_E_INPUT
 * (arrays missing or of wrong kinds or lengths, a token twice). */
QD_MUST_CHECK qd_code qd_gguf_tokenizer_json(const qd_gguf *g, const qd_gguf_model *m, qd_buf *out, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_tokenizer_config_json(const qd_gguf *g, const qd_gguf_model *m, qd_buf *out, qd_err *err);

#endif
