/* vocab.h -- the tokens of a tokenizer: id -> spelling and back. */
#ifndef QD_CKPT_VOCAB_H
#define QD_CKPT_VOCAB_H

#include "base/arena.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    QD_VOCAB_IDS_MAX = 4 << 20
};

typedef struct qd_token {
    const char *s; /* NUL-terminated; NULL: the id is not used */
    uint32_t len;
} qd_token;

typedef struct qd_vocab { /* zero-initialized is empty; not changed by look-ups */
    qd_token *tokens;     /* [n_ids]; owned */
    uint32_t n_ids;       /* largest id + 1 */
    uint32_t n_tokens, cap_ids;
    uint32_t longest; /* token, in bytes */
    int32_t *slots;   /* open addressing: id or -1; owned */
    uint32_t mask;
    uint64_t seed; /* of the hash: random, so that no file can make it slow */
    qd_arena names;
} qd_vocab;

/* Room for n tokens; the first call. */
QD_MUST_CHECK qd_code qd_vocab_init(qd_vocab *v, size_t n, qd_err *err);
/* Adds a token that is not there yet. Errors: QD_E_INPUT (id too large or taken, spelling taken; what names the file).
 */
QD_MUST_CHECK qd_code qd_vocab_add(qd_vocab *v, const char *s, size_t len, uint64_t id, const char *what, qd_err *err);
int32_t qd_vocab_find(const qd_vocab *v, const char *s, size_t len); /* -1: not there */
void qd_vocab_done(qd_vocab *v);

#endif
