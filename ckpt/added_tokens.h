/* added_tokens.h -- tokenizer.json's "added_tokens": found in the text before anything is cut. */
#ifndef QD_CKPT_ADDED_TOKENS_H
#define QD_CKPT_ADDED_TOKENS_H

#include "base/buf.h"
#include "base/err.h"
#include "ckpt/regex.h"

#include <stdint.h>

typedef struct qd_added_token {
    int32_t id;
    bool single_word;    /* only where no word character touches it */
    bool lstrip, rstrip; /* swallows the white space before, after it */
} qd_added_token;

typedef struct qd_added_node { /* of a trie of bytes */
    uint32_t child, sibling;   /* 0: none */
    int32_t token;             /* index of the token that ends here, or -1 */
    uint8_t byte;
} qd_added_node;

typedef struct qd_added_tokens { /* zero-initialized: none */
    qd_added_token *tokens;      /* owned */
    uint32_t n_tokens, cap_tokens;
    qd_added_node *nodes; /* [0]: the root; owned */
    uint32_t n_nodes, cap_nodes;
    uint32_t first[256]; /* child of the root by byte, 0: none */
    qd_regex *word;      /* one word character; only where a token is single_word */
} qd_added_tokens;

/* Adds a token, matched as the bytes s; the last of two equal ones counts. */
QD_MUST_CHECK qd_code qd_added_tokens_add(qd_added_tokens *a, const char *s, size_t len, qd_added_token token,
                                          qd_err *err);

/* Called for each part in order: a token's id, or -1 and the text between. */
typedef qd_code (*qd_added_fn)(void *user, int32_t id, const char *part, size_t len, qd_err *err);
/* Leftmost, longest matches, which do not overlap. text is valid UTF-8. Stops at the first failure. */
QD_MUST_CHECK qd_code qd_added_tokens_split(const qd_added_tokens *a, const char *text, size_t len, qd_added_fn part,
                                            void *user, qd_err *err);
void qd_added_tokens_done(qd_added_tokens *a);

#endif
