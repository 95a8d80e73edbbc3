/* gguf_parts.h -- what gguf_names.c, gguf_model.c, gguf_config.c, gguf_tokenizer.c and gguf_spm.c share; private to
 * ckpt. */
#ifndef QD_CKPT_GGUF_PARTS_H
#define QD_CKPT_GGUF_PARTS_H

#include "ckpt/gguf_model.h"

typedef enum qd_gguf_family {
    QD_GGUF_LLAMA = 1,
    QD_GGUF_MIXTRAL = 2,
    QD_GGUF_QWEN2 = 4,
    QD_GGUF_QWEN2_MOE = 8,
    QD_GGUF_QWEN3 = 16,
    QD_GGUF_QWEN3_MOE = 32
} qd_gguf_family;

typedef struct qd_gguf_arch {
    qd_gguf_family family;
    const char *name; /* general.architecture */
    bool experts;     /* whether expert_count is above 0 */
    const char *model_type, *class_name;
    const char *config; /* further keys of config.json that have one value for the family */
} qd_gguf_arch;

/* NULL when there is none. */
const qd_gguf_arch *qd_gguf_arch_find(const char *name, bool experts);
/* "llama, qwen2, ..." */
void qd_gguf_arch_list(qd_buf *out);
/* Fills m->outs and m->tied from g's tensors. Expects m's sizes. */
QD_MUST_CHECK qd_code qd_gguf_map_names(const qd_gguf *g, qd_gguf_model *m, qd_err *err);
#define QD_GGUF_ROPE_FACTORS "rope_freqs.weight"

/* The vocabulary of a file, checked. */
typedef struct qd_gguf_vocab {
    const char *const *tokens;
    uint64_t n;
    const int32_t *types;   /* [n] or NULL */
    const float *scores;    /* [n] or NULL */
    const uint32_t *sorted; /* [n] ids in the order of strcmp() of their tokens; in the arena given */
} qd_gguf_vocab;

/* The id of the token of n bytes at text, or QD_GGUF_NO_ID. */
int64_t qd_gguf_vocab_find(const qd_gguf_vocab *v, const char *text, size_t n);
/* "left right" pairs of a SentencePiece vocabulary, best first, as JSON. */
QD_MUST_CHECK qd_code qd_gguf_spm_merges(const qd_gguf_vocab *v, const char *what, qd_buf *out, qd_err *err);

#endif
