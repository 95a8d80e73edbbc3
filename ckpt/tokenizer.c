#include "ckpt/tokenizer.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "ckpt/tokenizer_parts.h"

#include <inttypes.h>
#include <string.h>

qd_code qd_ids_add(qd_ids *ids, int32_t id, qd_err *err)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap < 64 ? 64 : 2 * ids->cap;
        int32_t *data = qd_realloc(ids->data, cap * sizeof *data);
        if (data == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu token ids", cap);
        ids->data = data;
        ids->cap = cap;
    }
    ids->data[ids->n++] = id;
    return QD_OK;
}

void qd_ids_done(qd_ids *ids)
{
    if (ids == NULL) return;
    qd_free(ids->data);
    *ids = (qd_ids){0};
}

void qd_tokenizer_free(qd_tokenizer *t)
{
    if (t == NULL) return;
    qd_bpe_done(&t->bpe);
    qd_pretokenizer_done(&t->pretokenizer);
    qd_added_tokens_done(&t->raw);
    qd_added_tokens_done(&t->normalized);
    qd_normalizer_done(&t->normalizer);
    qd_vocab_done(&t->vocab);
    qd_free(t->added);
    for (uint32_t i = 0; i < t->n_decoder; i++) {
        qd_buf_done(&t->decoder[i].text);
        qd_buf_done(&t->decoder[i].content);
    }
    qd_free(t);
}

uint32_t qd_tokenizer_n_ids(const qd_tokenizer *t)
{
    return t->vocab.n_ids;
}

int32_t qd_tokenizer_id(const qd_tokenizer *t, const char *token)
{
    return qd_vocab_find(&t->vocab, token, strlen(token));
}

typedef struct encoding { /* one text on its way */
    qd_tokenizer *t;
    const char *text;
    bool at_start; /* nothing of the text lies before the part at hand */
    qd_ids *ids;
} encoding;

static qd_code add_word(void *user, const char *word, size_t len, qd_err *err)
{
    encoding *e = user;
    return qd_bpe_encode(&e->t->bpe, word, len, e->ids, err);
}

static qd_code normalized_part(void *user, int32_t id, const char *part, size_t len, qd_err *err)
{
    encoding *e = user;
    qd_code rc = id >= 0 ? qd_ids_add(e->ids, id, err)
                         : qd_pretokenize(&e->t->pretokenizer, part, len, e->at_start, add_word, e, err);
    e->at_start = false;
    return rc;
}

static qd_code raw_part(void *user, int32_t id, const char *part, size_t len, qd_err *err)
{
    encoding *e = user;
    if (id >= 0) return qd_ids_add(e->ids, id, err);
    e->at_start = part == e->text;
    qd_code rc = qd_normalize(&e->t->normalizer, part, len, &part, &len, err);
    return rc == QD_OK ? qd_added_tokens_split(&e->t->normalized, part, len, normalized_part, e, err) : rc;
}

static qd_code check_text(const char *text, size_t len, qd_err *err)
{
    if (len > QD_TOKENIZER_TEXT_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT, "a text of %zu bytes; at most %" PRIu64 " are read at once", len,
                       QD_TOKENIZER_TEXT_BYTES_MAX);
    for (size_t at = 0, n; at < len; at += n) {
        n = qd_utf8_valid(text + at, len - at);
        if (n == 0)
            return qd_fail(err, QD_E_INPUT, "the text is not UTF-8: byte %zu is 0x%02x", at,
                           (unsigned)(unsigned char)text[at]);
    }
    return QD_OK;
}

static qd_code add_template(const int32_t *more, uint32_t n, qd_ids *ids, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < n && rc == QD_OK; i++) rc = qd_ids_add(ids, more[i], err);
    return rc;
}

qd_code qd_tokenizer_encode(qd_tokenizer *t, const char *text, size_t len, bool add_special, qd_ids *ids, qd_err *err)
{
    encoding e = {.t = t, .text = text, .ids = ids};
    size_t n_before = ids->n;
    qd_code rc = QD_OK;
    if (add_special && t->post_processor[0] != '\0')
        return qd_fail(err, QD_E_UNSUPPORTED, "tokenizer.json: quantd has no post-processor %s; " QD_TOKENIZER_WAY_OUT,
                       t->post_processor);
    QD_TRY(check_text(text, len, err));
    if (add_special) QD_TRY(add_template(t->before, t->n_before, ids, err));
    if (len > 0) QD_TRY(qd_added_tokens_split(&t->raw, text, len, raw_part, &e, err));
    if (add_special) QD_TRY(add_template(t->after, t->n_after, ids, err));
out:
    if (rc != QD_OK) ids->n = n_before;
    return rc;
}
