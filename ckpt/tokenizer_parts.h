/* tokenizer_parts.h -- what a tokenizer is made of; private to ckpt/tokenizer*.c and ckpt/detokenize.c. */
#ifndef QD_CKPT_TOKENIZER_PARTS_H
#define QD_CKPT_TOKENIZER_PARTS_H

#include "base/json.h"
#include "ckpt/added_tokens.h"
#include "ckpt/bpe.h"
#include "ckpt/normalizer.h"
#include "ckpt/pretokenize.h"
#include "ckpt/tokenizer.h"
#include "ckpt/vocab.h"

enum {
    QD_DECODE_STEPS_MAX = 16,
    QD_TEMPLATE_IDS_MAX = 32
};

typedef enum qd_decode_kind {
    QD_DECODE_BYTE_LEVEL,
    QD_DECODE_BYTE_FALLBACK,
    QD_DECODE_FUSE,     /* the tokens become one */
    QD_DECODE_REPLACE,  /* text by content, in every token */
    QD_DECODE_STRIP,    /* up to start times text before, up to stop times after every token */
    QD_DECODE_METASPACE /* text becomes a space; the first token loses it where one was put in front */
} qd_decode_kind;

typedef struct qd_decode_step {
    qd_decode_kind kind;
    qd_buf text, content; /* owned */
    uint32_t start, stop;
    bool prepended;
} qd_decode_step;

typedef struct qd_added_id {
    bool special;
    qd_token decoded; /* what it is decoded to: itself as the normalizer leaves it; in vocab.names */
} qd_added_id;

struct qd_tokenizer {
    qd_vocab vocab;     /* of the model, then the added tokens that it lacks */
    qd_added_id *added; /* [vocab.n_ids], zero for ids of the model; owned */
    qd_normalizer normalizer;
    qd_added_tokens raw, normalized; /* looked for before, after the normalizer */
    qd_pretokenizer pretokenizer;
    qd_bpe bpe;
    /* The post-processor's template for a single text: ids before and after it. */
    int32_t before[QD_TEMPLATE_IDS_MAX], after[QD_TEMPLATE_IDS_MAX];
    uint32_t n_before, n_after;
    char post_processor[32]; /* type of one that is no template; add_special is then unsupported */
    qd_decode_step decoder[QD_DECODE_STEPS_MAX];
    uint32_t n_decoder;
};

/* The sentence that ends every refusal of a component. */
#define QD_TOKENIZER_WAY_OUT "give --calib token ids in a safetensors file"

/* tokenizer_json.c: the model and the added tokens; tokenizer_steps.c: the rest. */
QD_MUST_CHECK qd_code qd_tokenizer_read_steps(const json_t *root, const char *what, qd_tokenizer *t, qd_err *err);

#endif
