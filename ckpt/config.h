/* config.h -- what quantd needs of config.json. The text itself is kept: the output's config.json is the source's,
 * extended. */
#ifndef QD_CKPT_CONFIG_H
#define QD_CKPT_CONFIG_H

#include "base/arena.h"
#include "base/json.h"

typedef struct qd_config {
    json_t *root;                     /* owned (one reference) */
    uint64_t digest;                  /* of the file's bytes */
    const char *model_type;           /* root "model_type"; "" when absent */
    const char *text_model_type;      /* of text_config where there is one, else model_type */
    const char *architecture;         /* architectures[0] or "" */
    uint64_t n_layers;                /* num_hidden_layers (of text_config where there is one); 0 when absent */
    uint64_t hidden_size, vocab_size; /* 0 when absent */
    bool tied_embeddings;             /* tie_word_embeddings */
    /* quantization_config of the source */
    const char *quant_method; /* "" when there is none; "fp8" sources are read, others refused by the plan */
    uint64_t fp8_block_rows, fp8_block_cols; /* weight_block_size, 128 x 128 when absent; at least 1 */
} qd_config;

/* Parses text of len bytes (named what in errors). Wrong types are QD_E_INPUT. Strings live as long as root. */
QD_MUST_CHECK qd_code qd_config_parse(const char *text, size_t len, const char *what, qd_config *ret, qd_err *err);
void qd_config_done(qd_config *c);

#endif
