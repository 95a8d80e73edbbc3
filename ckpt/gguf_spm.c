/* gguf_spm.c -- merges for a SentencePiece vocabulary: its tokens have scores, not merges.
 *
 * Each way to cut a token into two tokens is a merge; a token with a better score is merged first, and the cuts of one
 * token in the order of their parts' ids, which is the order that the tokenizers library's own converter gives. */
#include "base/mem.h"
#include "ckpt/gguf_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MERGES_MAX = 16 << 20
};

typedef struct merge {
    float score;
    uint32_t token, left, right;
} merge;

typedef struct merges {
    merge *at;
    uint32_t n, cap;
} merges;

static int by_rank(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->token != y->token) return x->token < y->token ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static bool add(merges *l, merge m)
{
    if (l->n == l->cap) {
        uint32_t cap = l->cap == 0 ? 4096 : l->cap * 2;
        merge *at = cap > MERGES_MAX ? NULL : qd_realloc(l->at, cap * sizeof *at);
        if (at == NULL) return false;
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n++] = m;
    return true;
}

static bool cut_token(const qd_gguf_vocab *v, uint32_t token, merges *l)
{
    enum {
        CUT_BYTES_MAX = 1024 /* of a token: no real one is as long */
    };
    const char *text = v->tokens[token];
    size_t n = strlen(text);
    for (size_t i = 1; i < n && n <= CUT_BYTES_MAX; i++) {
        if (((unsigned char)text[i] & 0xc0) == 0x80) continue; /* inside a character */
        int64_t left = qd_gguf_vocab_find(v, text, i), right = qd_gguf_vocab_find(v, text + i, n - i);
        if (left == QD_GGUF_NO_ID || right == QD_GGUF_NO_ID) continue;
        if (!add(l, (merge){v->scores[token], token, (uint32_t)left, (uint32_t)right})) return false;
    }
    return true;
}

qd_code qd_gguf_spm_merges(const qd_gguf_vocab *v, const char *what, qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    merges l = {0};
    for (uint32_t i = 0; i < v->n; i++) {
        if (isnan(v->scores[i])) {
            rc = qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.scores\": token %" PRIu32 " has no number", what, i);
            goto out;
        }
        if (!cut_token(v, i, &l)) {
            rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for merges", what);
            goto out;
        }
    }
    if (l.n > 1) qsort(l.at, l.n, sizeof *l.at, by_rank);
    for (uint32_t i = 0; i < l.n; i++) {
        qd_buf_str(out, i > 0 ? ",[" : "[");
        qd_buf_json_str(out, v->tokens[l.at[i].left]);
        qd_buf_str(out, ",");
        qd_buf_json_str(out, v->tokens[l.at[i].right]);
        qd_buf_str(out, "]");
    }
out:
    qd_free(l.at);
    return rc;
}
