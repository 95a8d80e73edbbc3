/* normalizer.h -- tokenizer.json's "normalizer": what is done to a text before it is cut into words. */
#ifndef QD_CKPT_NORMALIZER_H
#define QD_CKPT_NORMALIZER_H

#include "base/buf.h"
#include "ckpt/regex.h"

#include <stdint.h>

enum {
    QD_NORMALIZER_STEPS_MAX = 16
};

typedef enum qd_normal_kind {
    QD_NORMAL_NFC,
    QD_NORMAL_NFD,
    QD_NORMAL_NFKC,
    QD_NORMAL_NFKD,
    QD_NORMAL_LOWERCASE,
    QD_NORMAL_PREPEND, /* text, where there is any */
    QD_NORMAL_REPLACE  /* every match of pattern by text */
} qd_normal_kind;

typedef struct qd_normal_step {
    qd_normal_kind kind;
    qd_buf text;       /* owned */
    qd_regex *pattern; /* owned */
} qd_normal_step;

typedef struct qd_normalizer { /* zero-initialized: nothing is done */
    qd_normal_step steps[QD_NORMALIZER_STEPS_MAX];
    uint32_t n_steps;
    qd_buf buf[2]; /* the results of the last two steps */
    struct qd_normal_marks *marks;
} qd_normalizer;

/* *ret is text itself or bytes of the normalizer that last until its next call. text is valid UTF-8, and so is *ret. */
QD_MUST_CHECK qd_code qd_normalize(qd_normalizer *n, const char *text, size_t len, const char **ret, size_t *ret_len,
                                   qd_err *err);
void qd_normalizer_done(qd_normalizer *n);

#endif
