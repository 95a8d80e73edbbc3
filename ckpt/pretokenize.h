/* pretokenize.h -- tokenizer.json's "pre_tokenizer": a text cut into the words that the model then works on. */
#ifndef QD_CKPT_PRETOKENIZE_H
#define QD_CKPT_PRETOKENIZE_H

#include "base/buf.h"
#include "ckpt/regex.h"

#include <stdint.h>

enum {
    QD_CUT_STEPS_MAX = 16
};

typedef enum qd_cut_behavior { /* what becomes of a match of the pattern */
    QD_CUT_REMOVED,
    QD_CUT_ISOLATED,
    QD_CUT_WITH_PREVIOUS,
    QD_CUT_WITH_NEXT,
    QD_CUT_CONTIGUOUS /* neighbours that both match, or both do not, stay together */
} qd_cut_behavior;

typedef enum qd_cut_kind {
    QD_CUT_SPLIT,    /* at matches of pattern */
    QD_CUT_PREFIX,   /* text is put in front unless the piece begins with it */
    QD_CUT_METASPACE /* spaces become text, which is put in front as scheme says */
} qd_cut_kind;

typedef enum qd_prepend_scheme {
    QD_PREPEND_ALWAYS,
    QD_PREPEND_FIRST,
    QD_PREPEND_NEVER
} qd_prepend_scheme;

typedef struct qd_cut_step {
    qd_cut_kind kind;
    qd_cut_behavior behavior;
    bool invert; /* a match is what the pattern does not match */
    qd_prepend_scheme scheme;
    qd_regex *pattern; /* owned */
    qd_buf text;       /* owned */
    qd_buf piece;      /* the piece at hand, changed */
} qd_cut_step;

typedef struct qd_pretokenizer { /* zero-initialized: the text is one word */
    qd_cut_step steps[QD_CUT_STEPS_MAX];
    uint32_t n_steps;
} qd_pretokenizer;

/* Called for every word in order; word lasts for the call. */
typedef qd_code (*qd_word_fn)(void *user, const char *word, size_t len, qd_err *err);

/* at_start: text is the beginning of the whole text (for QD_PREPEND_FIRST). Stops at the first failure. */
QD_MUST_CHECK qd_code qd_pretokenize(qd_pretokenizer *p, const char *text, size_t len, bool at_start, qd_word_fn word,
                                     void *user, qd_err *err);
void qd_pretokenizer_done(qd_pretokenizer *p);

#endif
